//! The KV tier in plain memory, for tests and the simulator; it can fail on demand.
//!
//! Invariant: chunks and snapshots go through the codec; going back by some writes gives exactly what stood then.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::ready;

use super::{Append, ChunkRead, Head, Kv, Snapshot};
use crate::locks::lock;
use crate::model::batch::Chunk;
use crate::model::codec;
use crate::model::id::{Epoch, PartitionId, Tip};
use crate::tier::{TierError, TierFuture, TierUsage, check_chain};

const TIER: &str = "kv";
/// How many appends a partition can go back by.
const UNDO_MOST: usize = 256;

/// A KV tier that lives as long as the process.
#[derive(Debug)]
pub struct MemoryKv {
    partitions: Vec<Mutex<Place>>,
    up: AtomicBool,
}

#[derive(Debug, Default)]
struct Place {
    head: Head,
    chunks: VecDeque<Stored>,
    snapshot: Option<(Epoch, Bytes)>,
    /// The heads before the last appends, oldest first.
    undo: VecDeque<Head>,
}

#[derive(Debug)]
struct Stored {
    id: Tip,
    previous: Tip,
    at_ms: i64,
    bytes: Bytes,
}

impl MemoryKv {
    pub fn new(partitions: u16) -> Self {
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect(), up: AtomicBool::new(true) }
    }

    /// While it is down every call fails.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }

    /// Goes back by the last `count` appends (at most the last 256), as a failover to a replica that lacks them does.
    pub fn lose_last_writes(&self, partition: PartitionId, count: usize) {
        let mut place = lock(self.place(partition));
        for _ in 0..count {
            let Some(before) = place.undo.pop_back() else {
                return;
            };
            let oldest_previous = place.head.oldest_previous;
            place.chunks.pop_back();
            // What was trimmed meanwhile does not come back.
            place.head = Head { oldest_previous: oldest_previous.min(before.tip), ..before };
        }
    }

    /// Comes back empty.
    pub fn clear(&self, partition: PartitionId) {
        *lock(self.place(partition)) = Place::default();
    }

    /// Loses the snapshot, as a failover to a replica that never had it does.
    pub fn lose_snapshot(&self, partition: PartitionId) {
        lock(self.place(partition)).snapshot = None;
    }

    /// Leaves only the beginning of the snapshot, as a crash in the middle of writing it does.
    pub fn tear_snapshot(&self, partition: PartitionId) {
        if let Some((_, bytes)) = &mut lock(self.place(partition)).snapshot {
            bytes.truncate(bytes.len() / 2);
        }
    }

    pub fn usage(&self) -> TierUsage {
        let bytes = |place: &Mutex<Place>| lock(place).chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
        TierUsage { disk_bytes: 0, memory_bytes: self.partitions.iter().map(bytes).sum() }
    }

    fn place(&self, partition: PartitionId) -> &Mutex<Place> {
        &self.partitions[usize::from(partition.0)]
    }

    fn check_up(&self) -> Result<(), TierError> {
        match self.up.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err(TierError::Unavailable { tier: TIER, reason: "it is down".into() }),
        }
    }

    /// Does `work` on a partition, if the tier is up.
    fn with<T>(
        &self,
        partition: PartitionId,
        work: impl FnOnce(&mut Place) -> Result<T, TierError>,
    ) -> TierFuture<'static, T>
    where
        T: Send + 'static,
    {
        ready(self.check_up().and_then(|()| work(&mut lock(self.place(partition))))).boxed()
    }
}

impl Place {
    fn append(&mut self, append: Append) -> Result<(), TierError> {
        let Append { chunk, offset, applied, forget } = append;
        check_chain(TIER, self.head.tip, chunk.previous, chunk.id)?;
        self.undo.push_back(self.head.clone());
        if self.undo.len() > UNDO_MOST {
            self.undo.pop_front();
        }
        self.head.tip = chunk.id;
        self.head.offset = offset;
        self.head.applied.merge_delta(&applied);
        self.head.applied.forget(&forget);
        let bytes = chunk.encode().into();
        self.chunks.push_back(Stored { id: chunk.id, previous: chunk.previous, at_ms: chunk.at_ms, bytes });
        Ok(())
    }

    fn chunks(&self, after: Tip, max_bytes: usize) -> Result<ChunkRead, TierError> {
        let after = if after == Tip::default() { self.head.oldest_previous } else { after };
        if after == self.head.tip {
            return Ok(ChunkRead::Next(Vec::new()));
        }
        let from = self.chunks.partition_point(|chunk| chunk.id <= after);
        if self.chunks.get(from).is_none_or(|next| next.previous != after) {
            return Ok(ChunkRead::Broken);
        }
        let mut chunks = Vec::new();
        let mut bytes = 0;
        for stored in self.chunks.iter().skip(from) {
            let chunk = Chunk::decode(&stored.bytes).map_err(|source| TierError::Damaged {
                tier: TIER,
                place: format!("chunk {}", stored.id),
                source,
            })?;
            bytes += chunk.size();
            chunks.push(chunk);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(ChunkRead::Next(chunks))
    }

    fn put_snapshot(&mut self, snapshot: Snapshot) -> Result<(), TierError> {
        if let Some((epoch, _)) = self.snapshot.as_ref().filter(|(epoch, _)| *epoch > snapshot.epoch) {
            return Err(TierError::Fenced { tier: TIER, found: Tip::new(*epoch, 0) });
        }
        let mut bytes = snapshot.state.to_vec();
        codec::seal(&mut bytes);
        self.snapshot = Some((snapshot.epoch, bytes.into()));
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Snapshot>, TierError> {
        let Some((epoch, bytes)) = &self.snapshot else {
            return Ok(None);
        };
        let state = codec::unseal("snapshot", bytes).map_err(|source| TierError::Damaged {
            tier: TIER,
            place: "snapshot".into(),
            source,
        })?;
        Ok(Some(Snapshot { epoch: *epoch, state: bytes.slice_ref(state) }))
    }

    fn trim(&mut self, through: Tip, before_ms: i64) {
        while self.chunks.front().is_some_and(|chunk| chunk.id <= through && chunk.at_ms < before_ms) {
            self.head.oldest_previous = self.chunks.pop_front().map_or(Tip::default(), |chunk| chunk.id);
        }
    }
}

impl Kv for MemoryKv {
    fn head(&self, partition: PartitionId) -> TierFuture<'_, Head> {
        self.with(partition, |place| Ok(place.head.clone()))
    }

    fn append(&self, partition: PartitionId, append: Append) -> TierFuture<'_, ()> {
        self.with(partition, |place| place.append(append))
    }

    fn chunks(&self, partition: PartitionId, after: Tip, max_bytes: usize) -> TierFuture<'_, ChunkRead> {
        self.with(partition, |place| place.chunks(after, max_bytes))
    }

    fn put_snapshot(&self, partition: PartitionId, snapshot: Snapshot) -> TierFuture<'_, ()> {
        self.with(partition, |place| place.put_snapshot(snapshot))
    }

    fn snapshot(&self, partition: PartitionId) -> TierFuture<'_, Option<Snapshot>> {
        self.with(partition, |place| place.snapshot())
    }

    fn trim(&self, partition: PartitionId, through: Tip, before_ms: i64) -> TierFuture<'_, ()> {
        self.with(partition, |place| {
            place.trim(through, before_ms);
            Ok(())
        })
    }
}
