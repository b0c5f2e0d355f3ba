//! Reads the blocks of a partition with the record they stand under: local memory, else cache, else hot.
//!
//! Invariant: what is given back comes from one read of one sink, never from two; if the record of that read does not
//! vouch for all of it, the reason is given as a doubt (design §7).

use std::sync::Arc;

use tokio::time::sleep;

use super::blocks::{Blocks, Decoded, Origin, ReadKey, RecentRead};
use super::settings::Settings;
use super::verdict::{Evidence, ServedBy};
use crate::clock::Clock;
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::quality::Record;
use crate::tier::{Sink, SinkQuery, SinkRead};

/// The blocks of one partition with what is known of them.
pub struct PartitionRead {
    pub key: ReadKey,
    pub evidence: Evidence,
    pub blocks: ReadBlocks,
}

pub enum ReadBlocks {
    /// As they were decoded for a query before.
    Recent(Arc<RecentRead>),
    Stored {
        origin: Origin,
        read_at_ms: i64,
        blocks: Vec<(BlockKey, StoredBlock)>,
    },
}

impl PartitionRead {
    pub fn block_count(&self) -> usize {
        match &self.blocks {
            ReadBlocks::Recent(read) => read.blocks.len(),
            ReadBlocks::Stored { blocks, .. } => blocks.len(),
        }
    }

    pub fn stored_bytes(&self) -> usize {
        match &self.blocks {
            ReadBlocks::Recent(read) => read.stored_bytes,
            ReadBlocks::Stored { blocks, .. } => blocks.iter().map(|(_, block)| block.rows.len()).sum(),
        }
    }

    /// Of the record, if it vouches for all.
    fn vouched_as_of_ms(&self) -> Option<i64> {
        let record = self.evidence.record.as_ref()?;
        self.evidence.doubt.is_none().then_some(record.as_of_ms)
    }
}

/// The sinks as queries see them.
pub struct Reader {
    pub cache: Arc<dyn Sink>,
    pub hot: Arc<dyn Sink>,
    pub blocks: Blocks,
    pub clock: Clock,
    pub settings: Settings,
}

/// How a read may be served.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// An answer older than this is of no use to the caller.
    pub max_age_ms: Option<i64>,
    /// Hot only: the cache gave blocks that cannot be read.
    pub skip_cache: bool,
}

/// What one sink had.
enum Found {
    /// The record vouches for everything that was asked.
    Whole(SinkRead),
    /// An emission is under way.
    Unsettled(SinkRead),
    /// Blocks that exist elsewhere are not here.
    Partial(SinkRead),
    /// No record: nobody has published here yet, or it was forgotten.
    Nothing,
    Failed(String),
}

impl Reader {
    pub async fn read(&self, key: ReadKey, freshness: Freshness) -> PartitionRead {
        if let Some(read) = self.recent(&key, freshness) {
            return read;
        }
        let read_at_ms = self.clock.now_ms();
        let from_cache = match freshness.skip_cache {
            false => self.settled(&*self.cache, &key).await,
            true => Found::Nothing,
        };
        if let Found::Whole(read) = from_cache {
            let read = whole(&key, Origin::Cache, read_at_ms, read);
            let age_limit_ms = freshness.max_age_ms.unwrap_or(i64::MAX).min(self.settings.stale_after.as_i64());
            let as_of_ms = read.vouched_as_of_ms().expect("a whole read is vouched for");
            if read_at_ms.saturating_sub(as_of_ms) <= age_limit_ms {
                return read;
            }
            // The owner may reach hot and not the cache: the newer record counts.
            return match self.settled(&*self.hot, &key).await {
                Found::Whole(other) if other.record.as_ref().is_some_and(|other| other.as_of_ms > as_of_ms) => {
                    whole(&key, Origin::Hot, read_at_ms, other)
                }
                _ => read,
            };
        }
        let from_hot = self.settled(&*self.hot, &key).await;
        choose(&key, read_at_ms, from_cache, from_hot)
    }

    fn recent(&self, key: &ReadKey, freshness: Freshness) -> Option<PartitionRead> {
        if self.settings.local_max_age.0 == 0 || freshness.skip_cache {
            return None;
        }
        let now_ms = self.clock.now_ms();
        let read = self.blocks.recent(key, now_ms - self.settings.local_max_age.as_i64())?;
        let age_ms = now_ms.saturating_sub(read.record.as_of_ms);
        if freshness.max_age_ms.is_some_and(|limit| age_ms > limit) {
            return None;
        }
        let evidence = evidence(key, ServedBy::Local, Some(read.record.clone()), None);
        Some(PartitionRead { key: key.clone(), evidence, blocks: ReadBlocks::Recent(read) })
    }

    /// Reads a sink, again for a short while if an emission is under way.
    async fn settled(&self, sink: &dyn Sink, key: &ReadKey) -> Found {
        for attempt in 0.. {
            let query = SinkQuery { table: key.table, keys: key.keys.clone(), days: key.days.clone() };
            let mut read = match sink.read(key.partition, query).await {
                Ok(read) => read,
                Err(error) => return Found::Failed(error.to_string()),
            };
            read.settle();
            if read.record.is_none() {
                return Found::Nothing;
            }
            if read.is_vouched() {
                return if read.incomplete { Found::Partial(read) } else { Found::Whole(read) };
            }
            if attempt >= self.settings.settle_tries || read.incomplete {
                return Found::Unsettled(read);
            }
            sleep(self.settings.settle_pause.duration()).await;
        }
        unreachable!("the loop ends by returning")
    }

    /// Keeps a read for the queries that follow at once. Only reads without doubt and gaps: others may get better any
    /// moment.
    pub fn remember(&self, read: &PartitionRead, rows: &[Arc<Decoded>]) {
        let ReadBlocks::Stored { read_at_ms, .. } = read.blocks else { return };
        let Some(record) = &read.evidence.record else { return };
        if self.settings.local_max_age.0 == 0 || read.evidence.doubt.is_some() || !record.is_complete() {
            return;
        }
        let (record, stored_bytes) = (record.clone(), read.stored_bytes());
        let recent = RecentRead { read_at_ms, record, blocks: rows.to_vec(), stored_bytes };
        self.blocks.remember(read.key.clone(), Arc::new(recent));
    }
}

fn evidence(key: &ReadKey, served_by: ServedBy, record: Option<Arc<Record>>, doubt: Option<String>) -> Evidence {
    Evidence { partition: key.partition, served_by: Some(served_by), record, doubt }
}

fn read_of(key: &ReadKey, origin: Origin, read_at_ms: i64, read: SinkRead, doubt: Option<String>) -> PartitionRead {
    let served_by = match origin {
        Origin::Cache => ServedBy::Cache,
        Origin::Hot => ServedBy::Hot,
    };
    PartitionRead {
        key: key.clone(),
        evidence: evidence(key, served_by, read.record, doubt),
        blocks: ReadBlocks::Stored { origin, read_at_ms, blocks: read.blocks },
    }
}

fn whole(key: &ReadKey, origin: Origin, read_at_ms: i64, read: SinkRead) -> PartitionRead {
    assert!(read.is_vouched() && !read.incomplete, "a whole read is vouched for");
    read_of(key, origin, read_at_ms, read, None)
}

/// The better of what two sinks had, where the cache had nothing whole.
fn choose(key: &ReadKey, read_at_ms: i64, from_cache: Found, from_hot: Found) -> PartitionRead {
    let under_way = || Some("an emission is under way".to_owned());
    let why_not_hot = match &from_hot {
        Found::Failed(reason) => reason.clone(),
        _ => "hot has no record of the partition yet".to_owned(),
    };
    match (from_hot, from_cache) {
        (Found::Whole(read), _) => whole(key, Origin::Hot, read_at_ms, read),
        (Found::Unsettled(read), _) => read_of(key, Origin::Hot, read_at_ms, read, under_way()),
        (Found::Partial(read), _) => {
            let doubt = "hot has forgotten blocks of what was asked";
            read_of(key, Origin::Hot, read_at_ms, read, Some(doubt.to_owned()))
        }
        (_, Found::Unsettled(read)) => read_of(key, Origin::Cache, read_at_ms, read, under_way()),
        (_, Found::Partial(read)) => {
            let doubt = format!("not all of it is in the cache any more; {why_not_hot}");
            read_of(key, Origin::Cache, read_at_ms, read, Some(doubt))
        }
        (_, Found::Failed(reason)) => nothing(key, format!("{why_not_hot}; {reason}")),
        (_, Found::Nothing | Found::Whole(_)) => nothing(key, why_not_hot),
    }
}

fn nothing(key: &ReadKey, doubt: String) -> PartitionRead {
    PartitionRead {
        key: key.clone(),
        evidence: Evidence { partition: key.partition, served_by: None, record: None, doubt: Some(doubt) },
        blocks: ReadBlocks::Stored { origin: Origin::Hot, read_at_ms: 0, blocks: Vec::new() },
    }
}

#[cfg(test)]
#[path = "reader_service_tests.rs"]
mod tests;
