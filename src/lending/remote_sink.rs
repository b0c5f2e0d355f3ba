//! A sink in another process: hot or cache.
//!
//! Invariant: a read is one question, so that record and blocks are of one moment there; a write is refused or done as a
//! whole there, and is chained, so that one that comes late does no harm.

use std::sync::Arc;

use futures::FutureExt;

use super::answer::Answer;
use super::ask::{Ask, SinkName, WriteForm};
use super::remote_store::RemoteStore;
use crate::model::id::PartitionId;
use crate::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierFuture};

pub struct RemoteSink {
    store: Arc<RemoteStore>,
    name: SinkName,
    tier: &'static str,
}

impl RemoteSink {
    pub fn hot(store: &Arc<RemoteStore>) -> Self {
        Self { store: store.clone(), name: SinkName::Hot, tier: "hot" }
    }

    pub fn cache(store: &Arc<RemoteStore>) -> Self {
        Self { store: store.clone(), name: SinkName::Cache, tier: "cache" }
    }
}

impl Sink for RemoteSink {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        let ask = (Ask::Standing(self.name), Vec::new());
        self.store.ask(self.tier, partition, ask, |answer, _| answer.into_standing()).boxed()
    }

    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()> {
        let mut rows = Vec::with_capacity(write.blocks.len());
        let ask = Ask::Write(self.name, WriteForm::of(write, &mut rows));
        self.store.ask(self.tier, partition, (ask, rows), |answer, _| answer.into_done()).boxed()
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        let ask = (Ask::Read(self.name, query.into()), Vec::new());
        self.store.ask(self.tier, partition, ask, Answer::into_blocks).boxed()
    }
}
