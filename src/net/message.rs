//! Messages between roles. A role sends one to a `Recipient` and does not know who receives it.
//!
//! Invariant: a message that is lost costs time only; what it says is also in a tier.

use std::sync::Arc;

use actix::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::model::batch::Chunk;
use crate::model::id::{PartitionId, Tip};

/// A gate tells the owner of a partition what it appended to kv. A hint: if it is lost, the owner reads kv.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct PushChunk {
    pub partition: PartitionId,
    pub chunk: Chunk,
    pub hold: PushHold,
}

/// Memory that pushed chunks of all partitions may take together until their owners have counted them. Mailboxes bound
/// the number of chunks, not their size.
#[derive(Debug, Clone)]
pub struct PushBudget {
    free: Arc<Semaphore>,
    units: u32,
}

/// A part of the budget; given back with the last clone.
#[derive(Debug, Clone)]
pub struct PushHold {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// The budget is counted in units of this, so that it fits a semaphore.
const UNIT_BYTES: usize = 1 << 10;

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

impl PushBudget {
    pub fn new(bytes: usize) -> Self {
        let units = units(bytes).max(1);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// `None` while others have it. A chunk larger than the whole budget gets it all.
    pub fn take(&self, bytes: usize) -> Option<PushHold> {
        let wanted = units(bytes).clamp(1, self.units);
        let permit = self.free.clone().try_acquire_many_owned(wanted).ok()?;
        Some(PushHold { _permit: Arc::new(permit) })
    }
}

/// A gate tells the owner that nothing is under way: at `at_ms` mq was drained and kv stood at `tip`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Idle {
    pub partition: PartitionId,
    pub tip: Tip,
    pub at_ms: i64,
}

/// The owners of all partitions, wherever they live, for the gates that have something to tell them.
pub trait Owners: Send + Sync {
    /// `false`: the owner, or the way to it, is full, and the chunk was dropped. An owner that is away is not full.
    fn push(&self, partition: PartitionId, chunk: Chunk) -> bool;

    fn idle(&self, idle: Idle);
}

/// Nobody owns anything.
impl Owners for () {
    fn push(&self, _: PartitionId, _: Chunk) -> bool {
        true
    }

    fn idle(&self, _: Idle) {}
}

/// Finds the current receiver of a message; `None` while it is being restarted. Looked up for every message, since a
/// guardian may have replaced the actor.
pub type Route<M> = Arc<dyn Fn() -> Option<actix::Recipient<M>> + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i6_pushed_chunks_share_a_budget_and_give_it_back() {
        let budget = PushBudget::new(10 << 10);
        let (small, large) = (budget.take(4 << 10).expect("all is free"), budget.take(6 << 10).expect("six are left"));
        assert!(budget.take(1).is_none());
        let same = small.clone();
        drop(small);
        assert!(budget.take(1).is_none(), "a clone still holds it");
        drop((same, large));
        assert!(budget.take(1 << 30).is_some(), "what is larger than all gets all");
    }
}
