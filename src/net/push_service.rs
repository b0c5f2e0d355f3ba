//! Brings what gates push to the owners of partitions, in this process or another.
//!
//! Invariant: nobody waits for an owner, and no owner for another: what does not fit is dropped, for the owner finds it in
//! kv. Memory of what waits is bounded by the budget here and by the queues of links elsewhere.

use std::sync::Arc;

use actix::Recipient;
use actix::prelude::SendError;
use bytes::Bytes;
use futures::future::BoxFuture;
use tracing::{debug, warn};

use super::error::{NetError, Refusal};
use super::link::{Handler, Peer};
use super::message::{Idle, Owners, PushBudget, PushChunk};
use super::peers::{Finder, Place};
use super::push::{self, Pushed};
use super::service;
use crate::model::batch::Chunk;
use crate::model::id::PartitionId;
use crate::model::task::Task;

/// Finds the actor of a partition; `None`: it is not here, or is being restarted.
pub type Here<M> = Arc<dyn Fn(PartitionId) -> Option<Recipient<M>> + Send + Sync>;

/// The owners in this process.
#[derive(Clone)]
pub struct LocalOwners {
    pub push: Here<PushChunk>,
    pub idle: Here<Idle>,
    /// Shared by all who push to them.
    pub budget: PushBudget,
}

impl LocalOwners {
    fn push(&self, partition: PartitionId, chunk: Chunk) -> bool {
        let Some(hold) = self.budget.take(chunk.size()) else { return false };
        // An owner that is away is not slow: it reads kv when it comes.
        let sent = (self.push)(partition).map(|owner| owner.try_send(PushChunk { partition, chunk, hold }));
        !matches!(sent, Some(Err(SendError::Full(_))))
    }

    fn idle(&self, idle: Idle) {
        if let Some(owner) = (self.idle)(idle.partition) {
            // The next heartbeat says it again.
            let _ = owner.try_send(idle);
        }
    }
}

impl Owners for LocalOwners {
    fn push(&self, partition: PartitionId, chunk: Chunk) -> bool {
        self.push(partition, chunk)
    }

    fn idle(&self, idle: Idle) {
        self.idle(idle);
    }
}

/// The owners of all partitions.
pub struct ClusterOwners {
    pub here: LocalOwners,
    pub finder: Finder,
}

impl Owners for ClusterOwners {
    fn push(&self, partition: PartitionId, chunk: Chunk) -> bool {
        match self.finder.find(&Task::Compute(partition)) {
            Place::Here => self.here.push(partition, chunk),
            Place::Nowhere => true,
            Place::There(link) => match link.send(service::PUSH, push::encode_chunk(partition, &chunk)) {
                Ok(()) => true,
                Err(NetError::Lost { .. }) => true,
                Err(error) => {
                    debug!(%partition, %error, "push dropped");
                    false
                }
            },
        }
    }

    fn idle(&self, idle: Idle) {
        match self.finder.find(&Task::Compute(idle.partition)) {
            Place::Here => self.here.idle(idle),
            Place::Nowhere => {}
            // The next heartbeat says it again.
            Place::There(link) => {
                drop(link.send(service::PUSH, push::encode_idle(idle.partition, idle.tip, idle.at_ms)))
            }
        }
    }
}

/// Takes what gates of other processes push.
pub struct PushService {
    pub here: LocalOwners,
}

impl Handler for PushService {
    fn call<'a>(&'a self, _peer: &'a Peer, service: u16, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(std::future::ready(Err(Refusal::no_such_service(service))))
    }

    fn receive<'a>(&'a self, peer: &'a Peer, _service: u16, body: Bytes) -> BoxFuture<'a, ()> {
        match push::decode(body) {
            Ok(Pushed::Chunk(partition, chunk)) => {
                if !self.here.push(partition, chunk) {
                    debug!(%partition, peer = peer.name, "push dropped, the owner is busy");
                }
            }
            Ok(Pushed::Idle { partition, tip, at_ms }) => self.here.idle(Idle { partition, tip, at_ms }),
            Err(error) => warn!(peer = peer.name, %error, "not a push"),
        }
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
#[path = "push_service_tests.rs"]
mod tests;
