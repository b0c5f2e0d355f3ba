//! The KV tier: today's chunks of each partition in order, the head that is the gate's commit, and snapshots.
//!
//! Invariant: the chunks of a partition form one chain up to the head's tip; head and chunk change in one atomic,
//! chained write. One behaviour suite holds every adapter to it (`tests/joints`).

pub mod embedded;
mod embedded_place;
pub mod memory;
pub mod redis;
mod redis_snapshot;
pub mod remote;

use bytes::Bytes;

use crate::model::applied::{Applied, AppliedDelta};
use crate::model::batch::Chunk;
use crate::model::id::{Epoch, PartitionId, SourceId, Tip};
use crate::mq::Offset;
use crate::tier::TierFuture;

/// The KV cluster.
pub trait Kv: Send + Sync {
    fn head(&self, partition: PartitionId) -> TierFuture<'_, Head>;

    /// Appends a chunk and moves the head in one atomic write. Refused unless the tip is `chunk.previous`.
    fn append(&self, partition: PartitionId, append: Append) -> TierFuture<'_, ()>;

    /// The chunks after the one with id `after` (after `Tip::default()`: from the oldest held), at least one if there
    /// is one, no more once `max_bytes` are reached.
    fn chunks(&self, partition: PartitionId, after: Tip, max_bytes: usize) -> TierFuture<'_, ChunkRead>;

    /// Keeps a snapshot in place of the one before. Refused if one of a higher epoch is there.
    fn put_snapshot(&self, partition: PartitionId, snapshot: Snapshot) -> TierFuture<'_, ()>;

    fn snapshot(&self, partition: PartitionId) -> TierFuture<'_, Option<Snapshot>>;

    /// Forgets the chunks made before `before_ms`, up to and including `through` at most.
    fn trim(&self, partition: PartitionId, through: Tip, before_ms: i64) -> TierFuture<'_, ()>;
}

/// The head of a partition: it *is* the gate's commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The id of the last chunk.
    pub tip: Tip,
    /// The mq offset that the gate reads next.
    pub offset: Offset,
    pub applied: Applied,
    /// The predecessor of the oldest chunk held, or `tip` if none is: who stands before it cannot catch up from the
    /// chunks alone. `Tip::default()` as long as nothing was trimmed.
    pub oldest_previous: Tip,
}

/// A chunk with what it changes in the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    pub chunk: Chunk,
    pub offset: Offset,
    /// The sources whose progress changed.
    pub applied: AppliedDelta,
    /// Sources that need not be remembered any more.
    pub forget: Vec<SourceId>,
}

/// What stands after a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkRead {
    /// The chunks that follow; empty at the tip.
    Next(Vec<Chunk>),
    /// The chunk asked for is not in the chain: kv lost or replaced it, or it was trimmed. Read all again.
    Broken,
}

/// A slave's saved state of a partition, opaque to kv.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub epoch: Epoch,
    pub state: Bytes,
}
