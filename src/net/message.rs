//! Messages between roles. A role sends one to a `Recipient` and does not know who receives it.
//!
//! Invariant: a message that is lost costs time only; what it says is also in a tier.

use actix::Message;

use crate::model::batch::Chunk;
use crate::model::id::{PartitionId, Tip};

/// A gate tells the owner of a partition what it appended to kv. A hint: if it is lost, the owner reads kv.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct PushChunk {
    pub partition: PartitionId,
    pub chunk: Chunk,
}

/// A gate tells the owner that nothing is under way: at `at_ms` mq was drained and kv stood at `tip`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Idle {
    pub partition: PartitionId,
    pub tip: Tip,
    pub at_ms: i64,
}

/// Finds the current receiver of a message; `None` while it is being restarted. Looked up for every message, since a
/// guardian may have replaced the actor.
pub type Route<M> = std::sync::Arc<dyn Fn() -> Option<actix::Recipient<M>> + Send + Sync>;
