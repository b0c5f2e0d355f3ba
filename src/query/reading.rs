//! How the blocks of one partition are read: local memory, else cache, else hot. Pure: each step says what to do next.
//!
//! Invariant: what is given back comes from one read of one sink, never from two; if the record of that read does not
//! vouch for all of it, the reason is given as a doubt (design §7).

use std::sync::Arc;

use super::blocks::{Blocks, Decoded, Origin, ReadKey, RecentRead};
use super::settings::Settings;
use super::verdict::{Evidence, ServedBy};
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::quality::Record;
use crate::tier::{SinkQuery, SinkRead, TierError};

/// The blocks of one partition with what is known of them.
#[derive(Debug)]
pub struct PartitionRead {
    pub key: ReadKey,
    pub evidence: Evidence,
    pub blocks: ReadBlocks,
}

#[derive(Debug)]
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
}

/// How a read may be served.
#[derive(Debug, Clone, Copy)]
pub struct Freshness {
    /// An answer older than this is of no use to the caller.
    pub max_age_ms: Option<i64>,
    /// Hot only: the cache gave blocks that cannot be read.
    pub skip_cache: bool,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Read this sink, then go on with `Reading::answered`.
    Read(Origin, SinkQuery),
    /// Wait, then go on with `Reading::paused`.
    Pause {
        pause_ms: u64,
    },
    Done(PartitionRead),
}

/// What one sink had.
#[derive(Debug)]
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

/// One partition's blocks being read.
#[derive(Debug)]
pub struct Reading {
    key: ReadKey,
    freshness: Freshness,
    started_ms: i64,
    /// The sink that is read.
    origin: Origin,
    attempts: u32,
    from_cache: Found,
}

impl Reading {
    pub fn new(now_ms: i64, key: ReadKey, freshness: Freshness) -> Self {
        let origin = if freshness.skip_cache { Origin::Hot } else { Origin::Cache };
        Self { key, freshness, started_ms: now_ms, origin, attempts: 0, from_cache: Found::Nothing }
    }

    pub fn start(&self) -> Step {
        let key = &self.key;
        Step::Read(self.origin, SinkQuery { table: key.table, keys: key.keys.clone(), days: key.days.clone() })
    }

    /// The pause is over.
    pub fn paused(&self) -> Step {
        self.start()
    }

    /// Takes what the sink answered.
    pub fn answered(&mut self, answer: Result<SinkRead, TierError>, settings: &Settings) -> Step {
        self.attempts += 1;
        let found = Found::of(answer);
        if let Found::Unsettled(read) = &found
            && self.attempts <= settings.settle_tries
            && !read.incomplete
        {
            return Step::Pause { pause_ms: settings.settle_pause.0 };
        }
        match self.origin {
            Origin::Cache => self.cache_read(found, settings),
            Origin::Hot => self.hot_read(found),
        }
    }

    fn cache_read(&mut self, found: Found, settings: &Settings) -> Step {
        if let Found::Whole(read) = &found {
            let age_limit_ms = self.freshness.max_age_ms.unwrap_or(i64::MAX).min(settings.stale_after.as_i64());
            if self.started_ms.saturating_sub(as_of_ms(read)) <= age_limit_ms {
                return Step::Done(self.choose(found, Found::Nothing));
            }
        }
        (self.origin, self.attempts, self.from_cache) = (Origin::Hot, 0, found);
        self.start()
    }

    fn hot_read(&mut self, found: Found) -> Step {
        let from_cache = std::mem::replace(&mut self.from_cache, Found::Nothing);
        Step::Done(self.choose(from_cache, found))
    }

    /// The better of what two sinks had.
    fn choose(&self, from_cache: Found, from_hot: Found) -> PartitionRead {
        let under_way = || Some("an emission is under way".to_owned());
        let why_not_hot = match &from_hot {
            Found::Failed(reason) => reason.clone(),
            _ => "hot has no record of the partition yet".to_owned(),
        };
        match (from_hot, from_cache) {
            // The owner may reach hot and not the cache: the newer record counts.
            (Found::Whole(hot), Found::Whole(cache)) if as_of_ms(&hot) > as_of_ms(&cache) => {
                self.whole(Origin::Hot, hot)
            }
            (_, Found::Whole(cache)) => self.whole(Origin::Cache, cache),
            (Found::Whole(hot), _) => self.whole(Origin::Hot, hot),
            (Found::Unsettled(hot), _) => self.read_of(Origin::Hot, hot, under_way()),
            (Found::Partial(hot), _) => {
                let doubt = "hot has forgotten blocks of what was asked";
                self.read_of(Origin::Hot, hot, Some(doubt.to_owned()))
            }
            (_, Found::Unsettled(cache)) => self.read_of(Origin::Cache, cache, under_way()),
            (_, Found::Partial(cache)) => {
                let doubt = format!("not all of it is in the cache any more; {why_not_hot}");
                self.read_of(Origin::Cache, cache, Some(doubt))
            }
            (_, Found::Failed(reason)) => self.nothing(format!("{why_not_hot}; {reason}")),
            (_, Found::Nothing) => self.nothing(why_not_hot),
        }
    }

    fn whole(&self, origin: Origin, read: SinkRead) -> PartitionRead {
        assert!(read.is_vouched() && !read.incomplete, "a whole read is vouched for");
        self.read_of(origin, read, None)
    }

    fn read_of(&self, origin: Origin, read: SinkRead, doubt: Option<String>) -> PartitionRead {
        let served_by = match origin {
            Origin::Cache => ServedBy::Cache,
            Origin::Hot => ServedBy::Hot,
        };
        PartitionRead {
            key: self.key.clone(),
            evidence: evidence(&self.key, Some(served_by), read.record, doubt),
            blocks: ReadBlocks::Stored { origin, read_at_ms: self.started_ms, blocks: read.blocks },
        }
    }

    fn nothing(&self, doubt: String) -> PartitionRead {
        PartitionRead {
            key: self.key.clone(),
            evidence: evidence(&self.key, None, None, Some(doubt)),
            blocks: ReadBlocks::Stored { origin: Origin::Hot, read_at_ms: 0, blocks: Vec::new() },
        }
    }
}

impl Found {
    fn of(answer: Result<SinkRead, TierError>) -> Self {
        let mut read = match answer {
            Ok(read) => read,
            Err(error) => return Self::Failed(error.to_string()),
        };
        read.settle();
        match () {
            () if read.record.is_none() => Self::Nothing,
            () if !read.is_vouched() => Self::Unsettled(read),
            () if read.incomplete => Self::Partial(read),
            () => Self::Whole(read),
        }
    }
}

fn as_of_ms(whole: &SinkRead) -> i64 {
    whole.record.as_ref().expect("a whole read has a record").as_of_ms
}

fn evidence(
    key: &ReadKey,
    served_by: Option<ServedBy>,
    record: Option<Arc<Record>>,
    doubt: Option<String>,
) -> Evidence {
    Evidence { partition: key.partition, served_by, record, doubt }
}

/// A read of the same that was made a moment ago, if it is good enough.
pub fn recent(
    blocks: &Blocks,
    now_ms: i64,
    key: &ReadKey,
    freshness: Freshness,
    settings: &Settings,
) -> Option<PartitionRead> {
    if settings.local_max_age.0 == 0 || freshness.skip_cache {
        return None;
    }
    let read = blocks.recent(key, now_ms - settings.local_max_age.as_i64())?;
    let age_ms = now_ms.saturating_sub(read.record.as_of_ms);
    if freshness.max_age_ms.is_some_and(|limit| age_ms > limit) {
        return None;
    }
    let evidence = evidence(key, Some(ServedBy::Local), Some(read.record.clone()), None);
    Some(PartitionRead { key: key.clone(), evidence, blocks: ReadBlocks::Recent(read) })
}

/// Keeps a read for the queries that follow at once. Only reads without doubt and gaps: others may get better any
/// moment.
pub fn remember(blocks: &Blocks, read: &PartitionRead, rows: &[Arc<Decoded>], settings: &Settings) {
    let ReadBlocks::Stored { read_at_ms, .. } = read.blocks else { return };
    let Some(record) = &read.evidence.record else { return };
    if settings.local_max_age.0 == 0 || read.evidence.doubt.is_some() || !record.is_complete() {
        return;
    }
    let (record, stored_bytes) = (record.clone(), read.stored_bytes());
    let recent = RecentRead { read_at_ms, record, blocks: rows.to_vec(), stored_bytes };
    blocks.remember(read.key.clone(), Arc::new(recent));
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
