//! The slave of a process: has a guarded actor for each partition assigned to it, spread over a few threads.
//!
//! Invariant: a partition has one actor here at most, and every message finds the one that lives now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use actix::dev::ToEnvelope;
use actix::{Actor, Context, Handler, Message, ResponseFuture};
use actix_rt::Arbiter;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::exchange::PartitionReport;
use super::linux_thread::SharedThread;
use super::partition_actor::{self, PartitionActor, PartitionParts};
use super::settings::Settings;
use crate::clock::Clock;
use crate::guardian::Ward;
use crate::kv::Kv;
use crate::locks::{read, write};
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::id::{Epoch, PartitionId};
use crate::net::message::{Idle, PushChunk, Route};
use crate::tier::Sink;

/// What all partitions of a process work with.
#[derive(Clone)]
pub struct SlaveParts {
    pub kv: Arc<dyn Kv>,
    pub hot: Arc<dyn Sink>,
    pub cache: Arc<dyn Sink>,
    pub catalog: Arc<Catalog>,
    pub settings: Settings,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// The partitions that live in this process, for those who send to them.
#[derive(Clone, Default)]
pub struct Directory {
    wards: Arc<RwLock<BTreeMap<PartitionId, Held>>>,
}

#[derive(Clone)]
struct Held {
    /// As it was assigned.
    epoch: Epoch,
    ward: Ward<PartitionActor>,
}

impl Directory {
    /// Where a partition's chunks go.
    pub fn push_route(&self, partition: PartitionId) -> Route<PushChunk> {
        self.route(partition)
    }

    /// Where it is said that a partition's gate is idle.
    pub fn idle_route(&self, partition: PartitionId) -> Route<Idle> {
        self.route(partition)
    }

    fn route<M>(&self, partition: PartitionId) -> Route<M>
    where
        PartitionActor: Handler<M>,
        Context<PartitionActor>: ToEnvelope<PartitionActor, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let directory = self.clone();
        Arc::new(move || {
            let held = read(&directory.wards).get(&partition).cloned()?;
            held.ward.addr().map(actix::Addr::recipient)
        })
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

/// Takes a partition away, if it is here under this epoch; answered when all is emitted and saved that can be.
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

/// Asks how all partitions are.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "SlaveReport")]
pub struct ObserveAll;

/// What a slave says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SlaveReport {
    /// In the order of their numbers.
    pub partitions: Vec<PartitionReport>,
    /// Crashed, and waiting to be started again.
    pub restarting: Vec<PartitionId>,
}

/// Each partition may come and go at once: messages then keep their order without anybody waiting.
const MAILBOX: usize = 8_192;

/// The supervisor of a process's partitions.
pub struct SlaveActor {
    parts: SlaveParts,
    threads: Vec<Thread>,
    /// Places for reads of chunks.
    reads: Arc<Semaphore>,
    directory: Directory,
}

/// A thread, and how many share it.
struct Thread {
    arbiter: Arbiter,
    shared: Arc<SharedThread>,
}

impl SlaveActor {
    pub fn new(parts: SlaveParts, directory: Directory) -> Self {
        let thread = |_| Thread { arbiter: Arbiter::new(), shared: Arc::default() };
        let threads = (0..parts.settings.threads.max(1)).map(thread).collect();
        let Settings { kv_read_memory, kv_read_bytes, .. } = &parts.settings;
        let places = (kv_read_memory.0 / kv_read_bytes.0.max(1)).clamp(1, Semaphore::MAX_PERMITS as u64);
        Self { threads, reads: Arc::new(Semaphore::new(places as usize)), directory, parts }
    }

    fn thread(&self, partition: PartitionId) -> &Thread {
        &self.threads[usize::from(partition.0) % self.threads.len()]
    }

    /// Counts the partitions of every thread anew.
    fn count_partitions(&self) {
        let wards = read(&self.directory.wards);
        for (index, thread) in self.threads.iter().enumerate() {
            let here = wards.keys().filter(|id| usize::from(id.0) % self.threads.len() == index).count();
            thread.shared.set_partitions(here as u32);
        }
    }

    fn ward(&self, assign: Assign) -> Ward<PartitionActor> {
        let SlaveParts { kv, hot, cache, catalog, settings, clock, metrics } = self.parts.clone();
        let parts = PartitionParts {
            partition: assign.partition,
            epoch: assign.epoch,
            kv,
            hot,
            cache,
            catalog,
            settings,
            clock,
            metrics: metrics.clone(),
            thread: self.thread(assign.partition).shared.clone(),
            reads: self.reads.clone(),
        };
        let arbiter = self.thread(assign.partition).arbiter.handle();
        let name = format!("partition {}", assign.partition);
        let backoff = self.parts.settings.retry;
        // Versions count within an epoch and start anew with the actor, so each actor has an epoch of its own.
        let started = AtomicU64::new(0);
        Ward::start(arbiter, name, backoff, metrics, move || {
            let epoch = assign.epoch + started.fetch_add(1, Ordering::Relaxed);
            PartitionActor::new(PartitionParts { epoch, ..parts.clone() })
        })
    }
}

async fn end(Held { ward, .. }: Held) {
    if let Some(addr) = ward.addr() {
        // It may crash while it stops: then nothing more can be done for it here.
        let _ = addr.send(partition_actor::Stop).await;
    }
    ward.stop();
}

impl Actor for SlaveActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(MAILBOX);
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        for thread in &self.threads {
            thread.arbiter.stop();
        }
    }
}

impl Handler<Assign> for SlaveActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, assign: Assign, _: &mut Context<Self>) -> Self::Result {
        let new = Held { epoch: assign.epoch, ward: self.ward(assign) };
        let old = write(&self.directory.wards).insert(assign.partition, new);
        self.count_partitions();
        // The old one is fenced by the new one's epoch, whatever it still does.
        Box::pin(async move {
            if let Some(old) = old {
                end(old).await;
            }
        })
    }
}

impl Handler<Unassign> for SlaveActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, unassign: Unassign, _: &mut Context<Self>) -> Self::Result {
        let held = {
            let mut wards = write(&self.directory.wards);
            let is_it = wards.get(&unassign.partition).is_some_and(|held| held.epoch == unassign.epoch);
            if is_it { wards.remove(&unassign.partition) } else { None }
        };
        self.count_partitions();
        Box::pin(async move {
            if let Some(held) = held {
                end(held).await;
            }
        })
    }
}

impl Handler<StopAll> for SlaveActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopAll, _: &mut Context<Self>) -> Self::Result {
        let wards = std::mem::take(&mut *write(&self.directory.wards));
        Box::pin(async move {
            join_all(wards.into_values().map(end)).await;
        })
    }
}

impl Handler<ObserveAll> for SlaveActor {
    type Result = ResponseFuture<SlaveReport>;

    fn handle(&mut self, _: ObserveAll, _: &mut Context<Self>) -> Self::Result {
        let wards: Vec<_> = read(&self.directory.wards).iter().map(|(id, held)| (*id, held.ward.clone())).collect();
        Box::pin(async move {
            let ask = |(id, ward): (PartitionId, Ward<PartitionActor>)| async move {
                let Some(addr) = ward.addr() else { return Err(id) };
                addr.send(partition_actor::Observe).await.map_err(|_| id)
            };
            let mut report = SlaveReport::default();
            for answer in join_all(wards.into_iter().map(ask)).await {
                match answer {
                    Ok(partition) => report.partitions.push(partition),
                    Err(id) => report.restarting.push(id),
                }
            }
            report
        })
    }
}
