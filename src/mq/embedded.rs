//! The message queue in an embedded store, with the newest batches of each partition in memory.
//!
//! Invariant: a batch is readable once it is durable, never before; offsets are dense, also after a crash.
//!
//! | key | value |
//! |---|---|
//! | `b`, partition (u16 be), offset (u64 be) | the batch, in the value log |
//! | `l`, partition | the oldest offset held (u64 be); batches before it may still await their removal |

use std::collections::VecDeque;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use futures::FutureExt;
use tokio::sync::{oneshot, watch};

use super::{Mq, MqRead, Offset};
use crate::locks::{lock, read, write};
use crate::model::batch::Batch;
use crate::model::codec::CodecError;
use crate::model::id::PartitionId;
use crate::sled_store::{SledStore, StoreOptions, prefixed};
use crate::tier::{TierError, TierFuture, TierUsage};

const TIER: &str = "mq";
/// Publishers wait for their own flush; the store's only cleans up.
const FLUSH_EVERY_MS: u64 = 500;
/// Removed under one hold of the partition's sweep lock.
const TRIM_STEP: usize = 64;

/// The embedded message queue.
#[derive(Debug)]
pub struct EmbeddedMq {
    store: SledStore,
    partitions: Vec<Arc<Partition>>,
    /// Bytes of all tails together, and their limit.
    tail_bytes: AtomicUsize,
    tail_limit: usize,
}

#[derive(Debug)]
struct Partition {
    log: Mutex<Log>,
    /// The end of what is durable.
    durable: watch::Sender<Offset>,
    /// Readers of the store share it, the trimmer owns it: a batch does not vanish under a reader.
    sweep: RwLock<()>,
}

#[derive(Debug, Default)]
struct Log {
    low: Offset,
    /// Everything before it is removed from the store; follows `low`.
    swept: Offset,
    /// The next offset.
    end: Offset,
    /// The last batches, up to `end`.
    tail: VecDeque<Batch>,
    tail_bytes: usize,
}

impl EmbeddedMq {
    pub fn open(dir: &Path, partitions: u16, cache_bytes: usize) -> Result<Self, TierError> {
        // Readers follow closely behind, so the tail serves nearly all reads and gets most of the memory.
        let (tail_limit, cache_bytes) = (cache_bytes / 4 * 3, cache_bytes / 4);
        let options = StoreOptions { tier: TIER, dir, partitions, cache_bytes, flush_every_ms: FLUSH_EVERY_MS };
        let store = SledStore::open(options)?;
        let partitions = (0..partitions).map(|id| Partition::open(&store, PartitionId(id)).map(Arc::new));
        let partitions = partitions.collect::<Result<_, _>>()?;
        Ok(Self { store, partitions, tail_bytes: AtomicUsize::new(0), tail_limit })
    }

    /// Resolves once everything published so far is durable.
    pub async fn flush(&self) -> Result<(), TierError> {
        self.store.flush().await
    }

    /// Looks at the file system.
    pub fn usage(&self) -> TierUsage {
        let memory_bytes = self.tail_bytes.load(Ordering::Relaxed) as u64;
        TierUsage { disk_bytes: self.store.disk_bytes(), memory_bytes }
    }

    fn partition(&self, id: PartitionId) -> &Arc<Partition> {
        &self.partitions[usize::from(id.0)]
    }

    /// Writes the batch and gives what resolves when it is durable.
    fn append(&self, id: PartitionId, batch: Batch) -> Result<oneshot::Receiver<Result<Offset, TierError>>, TierError> {
        let encoded = batch.encode();
        let partition = self.partition(id);
        let mut log = lock(&partition.log);
        if !self.store.has_room() {
            return Err(TierError::Unavailable { tier: TIER, reason: "too many batches wait for the disk".into() });
        }
        let offset = log.end;
        self.store.append(&batch_key(id, offset), &encoded)?;
        log.end += 1;
        self.remember(&mut log, batch);
        let (done, published) = oneshot::channel();
        let theirs = Arc::clone(partition);
        // Still under the partition's lock: waiters queue in the order of their offsets.
        self.store.after_flush(Box::new(move |result| {
            if result.is_ok() {
                theirs.durable.send_modify(|end| *end = offset + 1);
            }
            // The publisher need not wait.
            let _ = done.send(result.clone().map(|()| offset));
        }));
        Ok(published)
    }

    /// Adds to the tail. Over the limit, a partition gives up what it has above its share.
    fn remember(&self, log: &mut Log, batch: Batch) {
        let added = batch.size();
        log.tail.push_back(batch);
        log.tail_bytes += added;
        let mut total = self.tail_bytes.fetch_add(added, Ordering::Relaxed) + added;
        let share = self.tail_limit / self.partitions.len();
        while total > self.tail_limit && log.tail_bytes > share {
            let freed = log.forget_oldest();
            total = self.tail_bytes.fetch_sub(freed, Ordering::Relaxed) - freed;
        }
    }

    fn read_now(&self, id: PartitionId, from: Offset, max_bytes: usize) -> Result<MqRead, TierError> {
        let partition = self.partition(id);
        let _no_sweep = read(&partition.sweep);
        let (low, tail_start, end) = {
            let log = lock(&partition.log);
            let end = *partition.durable.borrow();
            let from = from.max(log.low);
            if from >= end || from >= log.tail_start() {
                return Ok(MqRead { batches: log.tail_from(from, end, max_bytes), low: log.low, end });
            }
            (log.low, log.tail_start(), end)
        };
        let from = from.max(low);
        let keys = (Bound::Included(batch_key(id, from)), Bound::Excluded(batch_key(id, end.min(tail_start))));
        let mut batches = Vec::new();
        let mut bytes = 0;
        for (found, expected) in self.store.scan(keys).zip(from..) {
            let place = || format!("partition {id} offset {expected}");
            let (key, value) = found?;
            if key != batch_key(id, expected) {
                return Err(self.store.damaged(place(), CodecError::malformed("log", "the batch is missing")));
            }
            let batch = self.store.decoded(place(), Batch::decode(&value))?;
            bytes += batch.size();
            batches.push((expected, batch));
            if bytes >= max_bytes {
                break;
            }
        }
        if batches.is_empty() {
            let place = format!("partition {id} offset {from}");
            return Err(self.store.damaged(place, CodecError::malformed("log", "the batch is missing")));
        }
        Ok(MqRead { batches, low, end })
    }

    /// Removes a step of what lies before `low`. Is there more?
    fn sweep(&self, id: PartitionId) -> Result<bool, TierError> {
        let partition = self.partition(id);
        let _sweeping = write(&partition.sweep);
        let (from, low) = {
            let log = lock(&partition.log);
            (log.swept, log.low)
        };
        let to = low.min(from + TRIM_STEP as u64);
        for offset in from..to {
            self.store.remove(&batch_key(id, offset))?;
        }
        lock(&partition.log).swept = to;
        Ok(to < low)
    }
}

impl Partition {
    fn open(store: &SledStore, id: PartitionId) -> Result<Self, TierError> {
        let low = match store.get(&low_key(id))? {
            None => 0,
            Some(bytes) => {
                let bytes: Result<[u8; 8], _> = (*bytes).try_into();
                let malformed = |_| CodecError::malformed("low offset", "not eight bytes");
                u64::from_be_bytes(store.decoded(format!("partition {id}"), bytes.map_err(malformed))?)
            }
        };
        let range = prefixed(&batch_prefix(id));
        let first = store.keys(range.clone()).next().transpose()?.map(|key| offset_of(&key));
        let mut last = store.keys(range.clone()).next_back().transpose()?;
        while let Some(key) = &last
            && store.is_lost(key)?
        {
            // Written before a crash, and never acknowledged.
            store.remove(key)?;
            last = store.keys(range.clone()).next_back().transpose()?;
        }
        let last = last.map(|key| offset_of(&key));
        // With everything trimmed only the mark knows where the log goes on.
        let end = last.map_or(low, |last| low.max(last + 1));
        let log = Log { low, swept: first.map_or(low, |first| first.min(low)), end, ..Log::default() };
        // A crash may have kept more than was acknowledged: it is durable by now.
        Ok(Self { log: Mutex::new(log), durable: watch::Sender::new(end), sweep: RwLock::new(()) })
    }
}

impl Log {
    fn tail_start(&self) -> Offset {
        self.end - self.tail.len() as u64
    }

    fn forget_oldest(&mut self) -> usize {
        let freed = self.tail.pop_front().map_or(0, |batch| batch.size());
        self.tail_bytes -= freed;
        freed
    }

    fn tail_from(&self, from: Offset, end: Offset, max_bytes: usize) -> Vec<(Offset, Batch)> {
        let mut batches = Vec::new();
        let mut bytes = 0;
        for offset in from..end {
            let batch = &self.tail[(offset - self.tail_start()) as usize];
            bytes += batch.size();
            batches.push((offset, batch.clone()));
            if bytes >= max_bytes {
                break;
            }
        }
        batches
    }
}

impl Mq for EmbeddedMq {
    fn publish(&self, partition: PartitionId, batch: Batch) -> TierFuture<'static, Offset> {
        let published = self.append(partition, batch);
        async move {
            let closed = || TierError::Unavailable { tier: TIER, reason: "the store was closed".into() };
            published?.await.map_err(|_| closed())?
        }
        .boxed()
    }

    fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> TierFuture<'_, MqRead> {
        async move { self.read_now(partition, from, max_bytes) }.boxed()
    }

    fn arrived(&self, partition: PartitionId, from: Offset) -> TierFuture<'_, ()> {
        let mut durable = self.partition(partition).durable.subscribe();
        async move {
            let waited = durable.wait_for(|end| *end > from).await;
            waited.map(|_| ()).map_err(|error| TierError::Unavailable { tier: TIER, reason: error.to_string() })
        }
        .boxed()
    }

    fn trim(&self, partition: PartitionId, before: Offset) -> TierFuture<'_, ()> {
        async move {
            {
                let place = self.partition(partition);
                let mut log = lock(&place.log);
                let before = before.min(*place.durable.borrow());
                if before > log.low {
                    // The mark first: it alone knows the end of a log that was trimmed wholly.
                    self.store.put(&low_key(partition), &before.to_be_bytes())?;
                    log.low = before;
                    while log.tail_start() < before && !log.tail.is_empty() {
                        let freed = log.forget_oldest();
                        self.tail_bytes.fetch_sub(freed, Ordering::Relaxed);
                    }
                }
            }
            while self.sweep(partition)? {
                tokio::task::yield_now().await;
            }
            while self.store.sweep()? {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        .boxed()
    }
}

fn batch_prefix(partition: PartitionId) -> Vec<u8> {
    let mut key = Vec::with_capacity(11);
    key.push(b'b');
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

fn batch_key(partition: PartitionId, offset: Offset) -> Vec<u8> {
    let mut key = batch_prefix(partition);
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

fn offset_of(key: &[u8]) -> Offset {
    let offset = key.last_chunk::<8>().expect("keys of batches end with an offset");
    u64::from_be_bytes(*offset)
}

fn low_key(partition: PartitionId) -> Vec<u8> {
    let mut key = vec![b'l'];
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}
