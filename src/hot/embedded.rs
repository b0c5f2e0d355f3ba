//! The hot tier in an embedded store; tips, announcements, records and the days that have blocks are in memory, too.
//!
//! Invariant: a write is done when the partition's `p` entry is written. A crash before leaves blocks of a version that
//! no record vouches for, under an announcement that covers them; a crash after it leaves removals, which are finished
//! when the store is opened.
//!
//! | key | value |
//! |---|---|
//! | `a`, partition (u16 be), source (bincode) | announced progress; written before the blocks |
//! | `d`, partition, table (u64 be), day (i32 be, sign flipped) | empty: the day may have blocks; written before them |
//! | `b`, partition, table, day, key | the block |
//! | `p`, partition | `Standing`: tip, record, and the blocks that vanish with it |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::path::Path;
use std::sync::RwLock;

use bytes::Bytes;
use futures::FutureExt;
use serde::{Deserialize, Serialize};

use crate::locks::{read, write};
use crate::model::applied::Progress;
use crate::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use crate::model::codec::{self, CodecError};
use crate::model::id::{Key, PartitionId, SourceId, Tip};
use crate::model::quality::Record;
use crate::place::SinkPlace;
use crate::sled_store::{SledStore, StoreOptions, prefixed};
use crate::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError, TierFuture, TierUsage};

const TIER: &str = "hot";
/// What a crash may lose; the owner's claim detects it.
const FLUSH_EVERY_MS: u64 = 300;

/// The embedded hot tier.
#[derive(Debug)]
pub struct EmbeddedHot {
    store: SledStore,
    partitions: Vec<RwLock<Partition>>,
}

#[derive(Debug, Default)]
struct Partition {
    place: SinkPlace,
    /// The days that may have blocks, so that a query over many days looks only where something is.
    days: BTreeMap<MetricTableId, BTreeSet<Day>>,
    /// Set when a write failed after it was committed: memory and store may differ until the store is opened again.
    failed: Option<TierError>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Standing {
    tip: Tip,
    record: Option<Record>,
    remove: Vec<BlockKey>,
}

impl EmbeddedHot {
    pub fn open(dir: &Path, partitions: u16, cache_bytes: usize) -> Result<Self, TierError> {
        let options = StoreOptions { tier: TIER, dir, partitions, cache_bytes, flush_every_ms: FLUSH_EVERY_MS };
        let store = SledStore::open(options)?;
        let partitions = (0..partitions).map(|id| Partition::open(&store, PartitionId(id)).map(RwLock::new));
        let partitions = partitions.collect::<Result<_, _>>()?;
        Ok(Self { store, partitions })
    }

    /// Resolves once everything written so far is durable.
    pub async fn flush(&self) -> Result<(), TierError> {
        self.store.flush().await
    }

    /// Looks at the file system.
    pub fn usage(&self) -> TierUsage {
        TierUsage { disk_bytes: self.store.disk_bytes(), memory_bytes: 0 }
    }

    fn partition(&self, id: PartitionId) -> &RwLock<Partition> {
        &self.partitions[usize::from(id.0)]
    }

    fn write_now(&self, id: PartitionId, sink_write: SinkWrite) -> Result<(), TierError> {
        let mut partition = write(self.partition(id));
        partition.check()?;
        partition.place.check(TIER, &sink_write)?;
        for (source, progress) in partition.place.announce(&sink_write.announce) {
            self.store.put(&source_key(id, &source), &codec::encode(&(&source, progress)))?;
        }
        for (key, block) in &sink_write.blocks {
            partition.add_day(&self.store, id, key)?;
            self.store.put(&block_key(id, key), &block.encode())?;
        }
        let record = sink_write.record.as_ref().or(partition.place.record.as_deref());
        let standing = StandingRef { tip: sink_write.tip, record, remove: &sink_write.remove };
        self.store.put(&partition_key(b'p', id), &codec::encode(&standing))?;
        partition.place.accept(sink_write.tip, sink_write.record, &sink_write.forget);
        let finished = partition.finish(&self.store, id, &sink_write.remove, &sink_write.forget);
        if let Err(error) = &finished {
            // The record already vouches for the removals.
            partition.failed = Some(error.clone());
        }
        finished
    }

    fn read_now(&self, id: PartitionId, query: &SinkQuery) -> Result<SinkRead, TierError> {
        let partition = read(self.partition(id));
        partition.check()?;
        let blocks = match &query.keys {
            Some(keys) => self.points(id, &partition, query, keys)?,
            None => self.range(id, query)?,
        };
        Ok(SinkRead { record: partition.place.record.clone(), blocks, incomplete: false })
    }

    fn points(
        &self,
        id: PartitionId,
        partition: &Partition,
        query: &SinkQuery,
        keys: &[Key],
    ) -> Result<Vec<(BlockKey, StoredBlock)>, TierError> {
        let keys: BTreeSet<&Key> = keys.iter().collect();
        let mut blocks = Vec::new();
        for day in partition.days_in(query.table, &query.days) {
            for &key in &keys {
                let key = BlockKey { table: query.table, day, key: key.clone() };
                if let Some(bytes) = self.store.get(&block_key(id, &key))? {
                    blocks.push((key, self.decode(id, &bytes)?));
                }
            }
        }
        Ok(blocks)
    }

    fn range(&self, id: PartitionId, query: &SinkQuery) -> Result<Vec<(BlockKey, StoredBlock)>, TierError> {
        if query.days.is_empty() {
            return Ok(Vec::new());
        }
        let start = day_key(b'b', id, query.table, *query.days.start());
        let (_, end) = prefixed(&day_key(b'b', id, query.table, *query.days.end()));
        let mut blocks = Vec::new();
        for found in self.store.scan((Bound::Included(start), end)) {
            let (key, value) = found?;
            let key = self.store.decoded(format!("partition {id} block key"), read_block_key(&key))?;
            blocks.push((key, self.decode(id, &value)?));
        }
        Ok(blocks)
    }

    fn decode(&self, id: PartitionId, bytes: &Bytes) -> Result<StoredBlock, TierError> {
        self.store.decoded(format!("partition {id} block"), StoredBlock::decode(bytes))
    }
}

/// `Standing` without owning what it writes.
#[derive(Serialize)]
struct StandingRef<'a> {
    tip: Tip,
    record: Option<&'a Record>,
    remove: &'a [BlockKey],
}

impl Partition {
    fn open(store: &SledStore, id: PartitionId) -> Result<Self, TierError> {
        let mut partition = Self::default();
        let named = |what: &str| format!("partition {id} {what}");
        for found in store.scan(prefixed(&partition_key(b'a', id))) {
            let (_, value) = found?;
            let source: (SourceId, Progress) = store.decoded(named("source"), codec::decode("source", &value))?;
            partition.place.announce(&[source]);
        }
        for key in store.keys(prefixed(&partition_key(b'd', id))) {
            let (table, day, _) = store.decoded(named("day"), read_day_key(&key?))?;
            partition.days.entry(table).or_default().insert(day);
        }
        if let Some(value) = store.get(&partition_key(b'p', id))? {
            let standing: Standing = store.decoded(named("standing"), codec::decode("standing", &value))?;
            partition.place.accept(standing.tip, standing.record, &[]);
            partition.finish(store, id, &standing.remove, &[])?;
        }
        Ok(partition)
    }

    fn check(&self) -> Result<(), TierError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn add_day(&mut self, store: &SledStore, id: PartitionId, key: &BlockKey) -> Result<(), TierError> {
        let days = self.days.entry(key.table).or_default();
        if !days.contains(&key.day) {
            store.put(&day_key(b'd', id, key.table, key.day), &[])?;
            days.insert(key.day);
        }
        Ok(())
    }

    /// What follows a committed write.
    fn finish(
        &mut self,
        store: &SledStore,
        id: PartitionId,
        remove: &[BlockKey],
        forget: &[SourceId],
    ) -> Result<(), TierError> {
        for key in remove {
            store.remove(&block_key(id, key))?;
        }
        let days: BTreeSet<(MetricTableId, Day)> = remove.iter().map(|key| (key.table, key.day)).collect();
        for (table, day) in days {
            if store.keys(prefixed(&day_key(b'b', id, table, day))).next().transpose()?.is_none() {
                store.remove(&day_key(b'd', id, table, day))?;
                if let Some(days) = self.days.get_mut(&table) {
                    days.remove(&day);
                }
            }
        }
        forget.iter().try_for_each(|source| store.remove(&source_key(id, source)))
    }

    fn days_in(&self, table: MetricTableId, days: &RangeInclusive<Day>) -> impl Iterator<Item = Day> {
        let held = self.days.get(&table).filter(|_| !days.is_empty());
        held.into_iter().flat_map(|held| held.range(days.clone()).copied())
    }
}

impl Sink for EmbeddedHot {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        async move {
            let partition = read(self.partition(partition));
            partition.check()?;
            Ok(partition.place.standing())
        }
        .boxed()
    }

    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()> {
        async move {
            self.store.room().await?;
            self.write_now(partition, write)
        }
        .boxed()
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        async move { self.read_now(partition, &query) }.boxed()
    }
}

fn partition_key(kind: u8, partition: PartitionId) -> Vec<u8> {
    let mut key = Vec::with_capacity(32);
    key.push(kind);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

fn source_key(partition: PartitionId, source: &SourceId) -> Vec<u8> {
    let mut key = partition_key(b'a', partition);
    key.extend_from_slice(&codec::to_bytes(source));
    key
}

fn day_key(kind: u8, partition: PartitionId, table: MetricTableId, day: Day) -> Vec<u8> {
    let mut key = partition_key(kind, partition);
    key.extend_from_slice(&table.0.to_be_bytes());
    // With the sign flipped, the order of bytes is the order of days.
    key.extend_from_slice(&(day ^ Day::MIN).to_be_bytes());
    key
}

fn block_key(partition: PartitionId, block: &BlockKey) -> Vec<u8> {
    let mut key = day_key(b'b', partition, block.table, block.day);
    key.extend_from_slice(block.key.as_bytes());
    key
}

fn read_day_key(key: &[u8]) -> Result<(MetricTableId, Day, &[u8]), CodecError> {
    let truncated = || CodecError::Truncated { what: "block key", len: key.len() };
    let (_, rest) = key.split_first_chunk::<3>().ok_or_else(truncated)?;
    let (table, rest) = rest.split_first_chunk::<8>().ok_or_else(truncated)?;
    let (day, rest) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
    Ok((MetricTableId(u64::from_be_bytes(*table)), Day::from_be_bytes(*day) ^ Day::MIN, rest))
}

fn read_block_key(key: &[u8]) -> Result<BlockKey, CodecError> {
    let (table, day, key) = read_day_key(key)?;
    let key = Key::from_bytes(Bytes::copy_from_slice(key));
    let key = key.ok_or_else(|| CodecError::malformed("block key", "not a partition key"))?;
    Ok(BlockKey { table, day, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_keys_are_in_the_order_of_block_keys_and_read_back() {
        let mut keys = Vec::new();
        for table in [0, 1, u64::MAX] {
            for day in [Day::MIN, -1, 0, 1, Day::MAX] {
                for key in [Key::int(-1), Key::int(1), Key::text(""), Key::text("a")] {
                    keys.push(BlockKey { table: MetricTableId(table), day, key });
                }
            }
        }
        keys.sort();
        let stored: Vec<Vec<u8>> = keys.iter().map(|key| block_key(PartitionId(3), key)).collect();
        assert!(stored.is_sorted());
        let back: Vec<BlockKey> = stored.iter().map(|key| read_block_key(key).unwrap()).collect();
        assert_eq!(back, keys);
        assert!(read_block_key(b"b00").is_err());
    }
}
