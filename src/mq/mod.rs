//! The message queue tier: batches of changes per partition, replayable.
//!
//! Invariant: offsets of a partition are dense from zero, and a published batch is read back unchanged at its offset
//! until it is trimmed. One behaviour suite holds every adapter to it (`tests/joints`).

pub mod embedded;
pub mod kafka;
mod kafka_clients;
mod kafka_doubt;
mod kafka_error;
mod kafka_keeper;
mod kafka_publisher;
mod kafka_reader;
mod kafka_settings;
mod kafka_topic;
mod kafka_trimmer;
pub mod memory;
pub mod remote;
mod remote_publisher;
mod remote_watcher;
mod waits;

use crate::model::batch::Batch;
use crate::model::id::PartitionId;
use crate::tier::TierFuture;

/// A batch's number in its partition's log.
pub type Offset = u64;

/// The message queue.
pub trait Mq: Send + Sync {
    /// Appends a batch; the future resolves with its offset when it is durable. The order of calls is the order in
    /// the log; calls need not wait for each other. The work is done even if the future is dropped.
    fn publish(&self, partition: PartitionId, batch: Batch) -> TierFuture<'static, Offset>;

    /// Batches from `from` on: at least one if there is one, and no more once `max_bytes` are reached. Only durable
    /// ones are given.
    fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> TierFuture<'_, MqRead>;

    /// Resolves when a durable batch with an offset of at least `from` exists.
    fn arrived(&self, partition: PartitionId, from: Offset) -> TierFuture<'_, ()>;

    /// Forgets batches before `before`.
    fn trim(&self, partition: PartitionId, before: Offset) -> TierFuture<'_, ()>;
}

/// A stretch of a partition's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MqRead {
    pub batches: Vec<(Offset, Batch)>,
    /// The oldest offset still held (the next one to come, if none is).
    pub low: Offset,
    /// The offset that the next durable batch will get, at the time of reading.
    pub end: Offset,
}
