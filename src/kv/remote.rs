//! The KV tier of another process.
//!
//! Invariant: what a call comes to is what kv there said, or unknown. Appends are chained, and snapshots of one writer are
//! numbered: one that comes late changes nothing.

use std::sync::Arc;

use futures::FutureExt;

use super::{Append, ChunkRead, Head, Kv, Snapshot};
use crate::lending::answer::Answer;
use crate::lending::ask::{AppendForm, Ask};
use crate::lending::remote_store::RemoteStore;
use crate::model::id::{PartitionId, Tip};
use crate::tier::TierFuture;

const TIER: &str = "kv";

pub struct RemoteKv {
    store: Arc<RemoteStore>,
}

impl RemoteKv {
    pub fn new(store: &Arc<RemoteStore>) -> Self {
        Self { store: store.clone() }
    }
}

impl Kv for RemoteKv {
    fn head(&self, partition: PartitionId) -> TierFuture<'_, Head> {
        self.store.ask(TIER, partition, (Ask::KvHead, Vec::new()), |answer, _| answer.into_head()).boxed()
    }

    fn append(&self, partition: PartitionId, append: Append) -> TierFuture<'_, ()> {
        let mut rows = Vec::with_capacity(append.chunk.batches.len());
        let ask = Ask::KvAppend(AppendForm::of(append, &mut rows));
        self.store.ask(TIER, partition, (ask, rows), |answer, _| answer.into_done()).boxed()
    }

    fn chunks(&self, partition: PartitionId, after: Tip, max_bytes: usize) -> TierFuture<'_, ChunkRead> {
        let ask = Ask::KvChunks { after, max_bytes: max_bytes as u64 };
        self.store.ask(TIER, partition, (ask, Vec::new()), Answer::into_chunks).boxed()
    }

    fn put_snapshot(&self, partition: PartitionId, snapshot: Snapshot) -> TierFuture<'_, ()> {
        let Snapshot { epoch, state } = snapshot;
        let (instance, number) = (self.store.instance(), self.store.next_write());
        let ask = Ask::KvPutSnapshot { epoch, bytes: state.len() as u64, instance, number };
        self.store.ask(TIER, partition, (ask, vec![state]), |answer, _| answer.into_done()).boxed()
    }

    fn snapshot(&self, partition: PartitionId) -> TierFuture<'_, Option<Snapshot>> {
        self.store.ask(TIER, partition, (Ask::KvSnapshot, Vec::new()), Answer::into_snapshot).boxed()
    }

    fn trim(&self, partition: PartitionId, through: Tip, before_ms: i64) -> TierFuture<'_, ()> {
        let ask = (Ask::KvTrim { through, before_ms }, Vec::new());
        self.store.ask(TIER, partition, ask, |answer, _| answer.into_done()).boxed()
    }
}
