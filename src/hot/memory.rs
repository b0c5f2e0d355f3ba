//! The hot tier in plain memory, for tests and the simulator; it can fail on demand.
//!
//! Invariant: blocks and records go through the codec; going back by some writes gives exactly what stood then.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::ready;

use crate::locks::{read, write};
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::codec;
use crate::model::id::{Key, PartitionId};
use crate::model::quality::Record;
use crate::place::SinkPlace;
use crate::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError, TierFuture, TierUsage};

const TIER: &str = "hot";
/// How many writes a partition can go back by.
const UNDO_MOST: usize = 256;

/// A hot tier that lives as long as the process.
#[derive(Debug)]
pub struct MemoryHot {
    partitions: Vec<RwLock<Partition>>,
    up: AtomicBool,
}

#[derive(Debug, Default)]
struct Partition {
    place: SinkPlace,
    record: Option<Bytes>,
    blocks: BTreeMap<BlockKey, Bytes>,
    undo: VecDeque<Undo>,
}

/// What stood before a write.
#[derive(Debug)]
struct Undo {
    place: SinkPlace,
    record: Option<Bytes>,
    blocks: Vec<(BlockKey, Option<Bytes>)>,
}

impl MemoryHot {
    pub fn new(partitions: u16) -> Self {
        Self { partitions: (0..partitions).map(|_| RwLock::default()).collect(), up: AtomicBool::new(true) }
    }

    /// While it is down every call fails.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }

    /// Goes back by the last `count` writes (at most the last 256), as a failover to a replica that lacks them does.
    pub fn lose_last_writes(&self, partition: PartitionId, count: usize) {
        let mut partition = write(self.partition(partition));
        for _ in 0..count {
            partition.go_back();
        }
    }

    /// Comes back empty.
    pub fn clear(&self, partition: PartitionId) {
        *write(self.partition(partition)) = Partition::default();
    }

    pub fn usage(&self) -> TierUsage {
        let bytes =
            |partition: &RwLock<Partition>| read(partition).blocks.values().map(|b| b.len() as u64).sum::<u64>();
        TierUsage { disk_bytes: 0, memory_bytes: self.partitions.iter().map(bytes).sum() }
    }

    fn partition(&self, id: PartitionId) -> &RwLock<Partition> {
        &self.partitions[usize::from(id.0)]
    }

    fn check_up(&self) -> Result<(), TierError> {
        match self.up.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(TierError::Unavailable { tier: TIER, reason: "it is down".into() }),
        }
    }
}

impl Partition {
    fn write(&mut self, sink_write: SinkWrite) -> Result<(), TierError> {
        self.place.check(TIER, &sink_write)?;
        let touched = sink_write.blocks.iter().map(|(key, _)| key).chain(&sink_write.remove);
        let blocks = touched.map(|key| (key.clone(), self.blocks.get(key).cloned())).collect();
        self.undo.push_back(Undo { place: self.place.clone(), record: self.record.clone(), blocks });
        if self.undo.len() > UNDO_MOST {
            self.undo.pop_front();
        }
        self.place.announce(&sink_write.announce);
        for (key, block) in sink_write.blocks {
            self.blocks.insert(key, block.encode().into());
        }
        for key in &sink_write.remove {
            self.blocks.remove(key);
        }
        if let Some(record) = &sink_write.record {
            self.record = Some(codec::encode(record).into());
        }
        self.place.accept(sink_write.tip, sink_write.record, &sink_write.forget);
        Ok(())
    }

    fn go_back(&mut self) {
        let Some(undo) = self.undo.pop_back() else {
            return;
        };
        for (key, before) in undo.blocks {
            match before {
                Some(bytes) => self.blocks.insert(key, bytes),
                None => self.blocks.remove(&key),
            };
        }
        (self.place, self.record) = (undo.place, undo.record);
    }

    fn read(&self, query: &SinkQuery) -> Result<SinkRead, TierError> {
        let damaged = |source| TierError::Damaged { tier: TIER, place: "memory".into(), source };
        let first = BlockKey { table: query.table, day: *query.days.start(), key: Key::int(i64::MIN) };
        let in_days = |key: &BlockKey| key.table == query.table && query.days.contains(&key.day);
        let asked = |key: &Key| query.keys.as_ref().is_none_or(|keys| keys.contains(key));
        let found = self.blocks.range(first..).take_while(|(key, _)| in_days(key)).filter(|(key, _)| asked(&key.key));
        let blocks = found.map(|(key, bytes)| Ok((key.clone(), StoredBlock::decode(bytes).map_err(damaged)?)));
        let blocks = blocks.collect::<Result<_, TierError>>()?;
        let record: Option<Record> =
            self.record.as_ref().map(|bytes| codec::decode("record", bytes)).transpose().map_err(damaged)?;
        Ok(SinkRead { record: record.map(Arc::new), blocks, incomplete: false })
    }
}

impl Sink for MemoryHot {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        let standing = || read(self.partition(partition)).place.standing();
        ready(self.check_up().map(|()| standing())).boxed()
    }

    fn write(&self, partition: PartitionId, sink_write: SinkWrite) -> TierFuture<'_, ()> {
        ready(self.check_up().and_then(|()| write(self.partition(partition)).write(sink_write))).boxed()
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        ready(self.check_up().and_then(|()| read(self.partition(partition)).read(&query))).boxed()
    }
}
