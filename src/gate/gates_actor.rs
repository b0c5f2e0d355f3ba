//! The gates of a process: a guarded actor for each partition assigned to it, spread over a few threads.
//!
//! Invariant: a partition has one gate here at most that takes offers, and every offer finds the one that lives now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use actix_rt::Arbiter;
use futures::future::join_all;

use super::gate_actor::{self, GateActor, GateParts, GateReport};
use super::offer_service::Gates;
use super::settings::Settings;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::guardian::Ward;
use crate::kv::Kv;
use crate::locks::{read, write};
use crate::metrics::{Metrics, PartitionLabel};
use crate::model::id::{Epoch, PartitionId};
use crate::mq::Mq;
use crate::net::message::Owners;

/// What all gates of a process work with.
#[derive(Clone)]
pub struct GatesParts {
    pub mq: Arc<dyn Mq>,
    pub kv: Arc<dyn Kv>,
    pub owners: Arc<dyn Owners>,
    pub settings: Arc<Settings>,
    /// That share the gates.
    pub threads: u16,
    /// Before a crashed gate starts again.
    pub restart: Backoff,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// The gates that live in this process, for those who look for one.
#[derive(Clone, Default)]
pub struct GateDirectory {
    wards: Arc<RwLock<BTreeMap<PartitionId, Held>>>,
}

#[derive(Clone)]
struct Held {
    /// As it was assigned.
    epoch: Epoch,
    ward: Ward<GateActor>,
}

impl GateDirectory {
    pub fn find(&self, partition: PartitionId) -> Option<Addr<GateActor>> {
        read(&self.wards).get(&partition)?.ward.addr()
    }

    /// The same as a function.
    pub fn gates(&self) -> Gates {
        let directory = self.clone();
        Arc::new(move |partition| directory.find(partition))
    }
}

/// Gives a partition to this process.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Assign {
    pub partition: PartitionId,
    /// The actor's epoch; one started again after a crash takes the next, which must not be given to another.
    pub epoch: Epoch,
}

/// Takes a partition away, if it is here under this epoch; answered when all offers are answered and what is on its way
/// to kv is there.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Unassign {
    pub partition: PartitionId,
    pub epoch: Epoch,
}

/// Takes all partitions away.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopAll;

/// Asks all gates how they are.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "GatesReport")]
pub struct ObserveAll;

/// What the gates of a process say of themselves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GatesReport {
    /// In the order of their partitions.
    pub gates: Vec<GateReport>,
    /// Crashed, and waiting to be started again.
    pub restarting: Vec<PartitionId>,
}

/// Each partition may come and go at once: messages then keep their order without anybody waiting.
const MAILBOX: usize = 8_192;

/// The supervisor of a process's gates.
pub struct GatesActor {
    parts: GatesParts,
    arbiters: Vec<Arbiter>,
    directory: GateDirectory,
}

impl GatesActor {
    pub fn new(parts: GatesParts, directory: GateDirectory) -> Self {
        let arbiters = (0..parts.threads.max(1)).map(|_| Arbiter::new()).collect();
        Self { parts, arbiters, directory }
    }

    fn ward(&self, assign: Assign) -> Ward<GateActor> {
        let GatesParts { mq, kv, owners, settings, restart, clock, metrics, .. } = self.parts.clone();
        let Assign { partition, epoch } = assign;
        let parts = GateParts { partition, epoch, mq, kv, owners, settings, clock, metrics: metrics.clone() };
        let arbiter = self.arbiters[usize::from(partition.0) % self.arbiters.len()].handle();
        // An epoch is the incarnation of the sequences that an actor gives out, so each actor has one of its own.
        let started = AtomicU64::new(0);
        Ward::start(arbiter, format!("gate {partition}"), restart, metrics, move || {
            let epoch = epoch + started.fetch_add(1, Ordering::Relaxed);
            GateActor::new(GateParts { epoch, ..parts.clone() })
        })
    }
}

async fn end(held: Held) {
    if let Some(addr) = held.ward.addr() {
        // It may crash while it stops: then the next gate does what is left.
        let _ = addr.send(gate_actor::Stop).await;
    }
    held.ward.stop();
}

impl Actor for GatesActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(MAILBOX);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

impl Handler<Assign> for GatesActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, assign: Assign, _: &mut Context<Self>) -> Self::Result {
        let held = Held { epoch: assign.epoch, ward: self.ward(assign) };
        let old = write(&self.directory.wards).insert(assign.partition, held);
        // The old one is fenced by the new one's epoch, whatever it still does.
        Box::pin(async move {
            if let Some(old) = old {
                end(old).await;
            }
        })
    }
}

impl Handler<Unassign> for GatesActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, unassign: Unassign, _: &mut Context<Self>) -> Self::Result {
        let Unassign { partition, epoch } = unassign;
        let held = read(&self.directory.wards).get(&partition).filter(|held| held.epoch == epoch).cloned();
        let (directory, metrics) = (self.directory.clone(), self.parts.metrics.clone());
        Box::pin(async move {
            let Some(held) = held else { return };
            // It is found until it has ended, so that offers hear from it what becomes of them.
            end(held).await;
            let mut wards = write(&directory.wards);
            if wards.get(&partition).is_some_and(|held| held.epoch == epoch) {
                wards.remove(&partition);
                // The lag is another process's to show.
                metrics.mq_lag_changes.remove(&PartitionLabel { partition: partition.0 });
            }
        })
    }
}

impl Handler<StopAll> for GatesActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopAll, _: &mut Context<Self>) -> Self::Result {
        let wards = std::mem::take(&mut *write(&self.directory.wards));
        Box::pin(async move {
            join_all(wards.into_values().map(end)).await;
        })
    }
}

impl Handler<ObserveAll> for GatesActor {
    type Result = ResponseFuture<GatesReport>;

    fn handle(&mut self, _: ObserveAll, _: &mut Context<Self>) -> Self::Result {
        let wards: Vec<_> = read(&self.directory.wards).iter().map(|(id, held)| (*id, held.ward.clone())).collect();
        Box::pin(async move {
            let ask = |(id, ward): (PartitionId, Ward<GateActor>)| async move {
                let Some(addr) = ward.addr() else { return Err(id) };
                addr.send(gate_actor::Observe).await.map_err(|_| id)
            };
            let mut report = GatesReport::default();
            for answer in join_all(wards.into_iter().map(ask)).await {
                match answer {
                    Ok(gate) => report.gates.push(gate),
                    Err(id) => report.restarting.push(id),
                }
            }
            report
        })
    }
}

#[cfg(test)]
#[path = "gates_actor_tests.rs"]
mod tests;
