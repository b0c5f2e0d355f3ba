//! The message queue in plain memory, for tests and the simulator; it can fail on demand.
//!
//! Invariant: batches go through the codec, as they would on their way to a disk.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::ready;
use tokio::sync::watch;

use super::{Mq, MqRead, Offset};
use crate::locks::lock;
use crate::model::batch::Batch;
use crate::model::id::PartitionId;
use crate::tier::{TierError, TierFuture, TierUsage};

const TIER: &str = "mq";

/// A message queue that lives as long as the process.
#[derive(Debug)]
pub struct MemoryMq {
    partitions: Vec<Mutex<Log>>,
    ends: Vec<watch::Sender<Offset>>,
    up: AtomicBool,
}

#[derive(Debug, Default)]
struct Log {
    low: Offset,
    batches: VecDeque<Bytes>,
}

impl Log {
    fn end(&self) -> Offset {
        self.low + self.batches.len() as u64
    }
}

impl MemoryMq {
    pub fn new(partitions: u16) -> Self {
        let ends = (0..partitions).map(|_| watch::Sender::new(0)).collect();
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect(), ends, up: AtomicBool::new(true) }
    }

    /// While it is down every call fails.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
        self.ends.iter().for_each(|end| end.send_modify(|_| ()));
    }

    /// Goes back by the last `count` batches, as a failover to a replica that lacks them does.
    pub fn lose_last_writes(&self, partition: PartitionId, count: usize) {
        let mut log = lock(self.log(partition));
        let kept = log.batches.len().saturating_sub(count);
        log.batches.truncate(kept);
        self.ends[usize::from(partition.0)].send_replace(log.end());
    }

    /// Comes back empty.
    pub fn clear(&self, partition: PartitionId) {
        *lock(self.log(partition)) = Log::default();
        self.ends[usize::from(partition.0)].send_replace(0);
    }

    pub fn usage(&self) -> TierUsage {
        let bytes = |log: &Mutex<Log>| lock(log).batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
        TierUsage { disk_bytes: 0, memory_bytes: self.partitions.iter().map(bytes).sum() }
    }

    fn log(&self, partition: PartitionId) -> &Mutex<Log> {
        &self.partitions[usize::from(partition.0)]
    }

    fn check_up(&self) -> Result<(), TierError> {
        match self.up.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(TierError::Unavailable { tier: TIER, reason: "it is down".into() }),
        }
    }

    fn append(&self, partition: PartitionId, batch: &Batch) -> Result<Offset, TierError> {
        self.check_up()?;
        let mut log = lock(self.log(partition));
        let offset = log.end();
        log.batches.push_back(batch.encode().into());
        self.ends[usize::from(partition.0)].send_replace(log.end());
        Ok(offset)
    }

    fn read_now(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Result<MqRead, TierError> {
        self.check_up()?;
        let log = lock(self.log(partition));
        let mut read = MqRead { batches: Vec::new(), low: log.low, end: log.end() };
        let mut bytes = 0;
        for offset in from.max(log.low)..log.end() {
            let batch = Batch::decode(&log.batches[(offset - log.low) as usize]).map_err(|source| {
                TierError::Damaged { tier: TIER, place: format!("partition {partition} offset {offset}"), source }
            })?;
            bytes += batch.size();
            read.batches.push((offset, batch));
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(read)
    }

    fn trim_now(&self, partition: PartitionId, before: Offset) -> Result<(), TierError> {
        self.check_up()?;
        let mut log = lock(self.log(partition));
        while log.low < before && log.batches.pop_front().is_some() {
            log.low += 1;
        }
        Ok(())
    }
}

impl Mq for MemoryMq {
    fn publish(&self, partition: PartitionId, batch: Batch) -> TierFuture<'static, Offset> {
        ready(self.append(partition, &batch)).boxed()
    }

    fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> TierFuture<'_, MqRead> {
        ready(self.read_now(partition, from, max_bytes)).boxed()
    }

    fn arrived(&self, partition: PartitionId, from: Offset) -> TierFuture<'_, ()> {
        let mut end = self.ends[usize::from(partition.0)].subscribe();
        async move {
            let down = || !self.up.load(Ordering::SeqCst);
            // The sender lives as long as `self`.
            let _ = end.wait_for(|end| *end > from || down()).await;
            self.check_up()
        }
        .boxed()
    }

    fn trim(&self, partition: PartitionId, before: Offset) -> TierFuture<'_, ()> {
        ready(self.trim_now(partition, before)).boxed()
    }
}
