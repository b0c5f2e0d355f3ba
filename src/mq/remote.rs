//! The message queue of another process.
//!
//! Invariant: publications are done there in the order of calls; a publication without an answer was done before any later
//! one, or never is.

use std::sync::Arc;

use futures::FutureExt;

use super::remote_publisher::Publisher;
use super::remote_watcher::Watcher;
use super::{Mq, MqRead, Offset};
use crate::lending::answer::Answer;
use crate::lending::ask::Ask;
use crate::lending::remote_store::RemoteStore;
use crate::model::batch::Batch;
use crate::model::id::PartitionId;
use crate::tier::TierFuture;

pub(super) const TIER: &str = "mq";

pub struct RemoteMq {
    store: Arc<RemoteStore>,
    publisher: Publisher,
    watcher: Watcher,
}

impl RemoteMq {
    /// Within a tokio runtime, on which publications and waits then run.
    pub fn start(store: &Arc<RemoteStore>) -> Self {
        let (publisher, watcher) = (Publisher::start(store.clone()), Watcher::start(store.clone()));
        Self { store: store.clone(), publisher, watcher }
    }
}

impl Mq for RemoteMq {
    fn publish(&self, partition: PartitionId, batch: Batch) -> TierFuture<'static, Offset> {
        self.publisher.publish(partition, batch).boxed()
    }

    fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> TierFuture<'_, MqRead> {
        let ask = Ask::MqRead { from, max_bytes: max_bytes as u64 };
        self.store.ask(TIER, partition, (ask, Vec::new()), Answer::into_mq_read).boxed()
    }

    fn arrived(&self, partition: PartitionId, from: Offset) -> TierFuture<'_, ()> {
        self.watcher.arrived(partition, from).boxed()
    }

    fn trim(&self, partition: PartitionId, before: Offset) -> TierFuture<'_, ()> {
        let ask = (Ask::MqTrim { before }, Vec::new());
        self.store.ask(TIER, partition, ask, |answer, _| answer.into_done()).boxed()
    }
}
