//! The tiers of a node and the actors of its roles, spread over threads and kept alive.
//!
//! Invariant: every actor that is started again gets an epoch that no actor of its partition had before: as incarnation
//! of a sequence and as fence, an epoch is never used twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Actor, Addr, Arbiter};
use tracing::warn;

use crate::cache::memory::MemoryCache;
use crate::clock::Clock;
use crate::config::Config;
use crate::gate::gate_actor::{GateActor, GateParts};
use crate::gate::offer_service::Gates;
use crate::guardian::Ward;
use crate::hot::embedded::EmbeddedHot;
use crate::kv::embedded::EmbeddedKv;
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::id::{Epoch, PartitionId};
use crate::mq::embedded::EmbeddedMq;
use crate::net::message::PushBudget;
use crate::net::push_service::LocalOwners;
use crate::slave;
use crate::slave::slave_actor::{Assign, Directory, SlaveActor, SlaveParts, StopAll};
use crate::tier::TierError;

/// Epochs of one start of the process: as many restarts of one actor have room before the next start's begin.
const EPOCHS_OF_A_START: Epoch = 1_000_000;

/// The joints between the roles.
#[derive(Clone)]
pub struct Tiers {
    pub mq: Arc<EmbeddedMq>,
    pub kv: Arc<EmbeddedKv>,
    pub hot: Arc<EmbeddedHot>,
    pub cache: Arc<MemoryCache>,
}

impl Tiers {
    pub fn open(folder: &std::path::Path, config: &Config) -> Result<Self, TierError> {
        let (partitions, tiers) = (config.cluster.partitions, &config.tiers);
        let bytes = |tier: &crate::config::StoreTier| tier.page_cache.bytes();
        Ok(Self {
            mq: Arc::new(EmbeddedMq::open(&folder.join("mq"), partitions, bytes(&tiers.mq))?),
            kv: Arc::new(EmbeddedKv::open(&folder.join("kv"), partitions, bytes(&tiers.kv))?),
            hot: Arc::new(EmbeddedHot::open(&folder.join("hot"), partitions, bytes(&tiers.hot))?),
            cache: Arc::new(MemoryCache::new(partitions, tiers.cache.memory_limit.bytes())),
        })
    }
}

/// The actors of all partitions.
pub struct Roles {
    pub tiers: Tiers,
    pub gates: Vec<Ward<GateActor>>,
    pub slave: Addr<SlaveActor>,
    arbiters: Vec<Arbiter>,
}

/// Hands out the epochs of one task.
struct Epochs {
    first: Epoch,
    used: AtomicU64,
}

impl Epochs {
    fn new(start: u64) -> Self {
        Self { first: start * EPOCHS_OF_A_START, used: AtomicU64::new(0) }
    }

    fn next(&self) -> Epoch {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        assert!(used < EPOCHS_OF_A_START, "an actor that crashed a million times is not started again");
        self.first + used
    }
}

impl Roles {
    /// Starts everything with the epochs of the `start`-th start of this data folder.
    pub async fn start(
        config: &Config,
        catalog: &Arc<Catalog>,
        tiers: Tiers,
        start: u64,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Self {
        let threads = if config.slave.threads == 0 { super::cores() as u16 } else { config.slave.threads };
        let directory = Directory::default();
        let parts = SlaveParts {
            kv: tiers.kv.clone(),
            hot: tiers.hot.clone(),
            cache: tiers.cache.clone(),
            catalog: catalog.clone(),
            settings: slave::settings::Settings { threads, ..config.slave.clone() },
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let slave = SlaveActor::new(parts, directory.clone()).start();
        let arbiters: Vec<Arbiter> = (0..threads).map(|_| Arbiter::new()).collect();
        let mut roles = Self { tiers, gates: Vec::new(), slave, arbiters };
        let settings = Arc::new(config.gate.clone());
        let (pushes, idles) = (directory.clone(), directory);
        let owners = Arc::new(LocalOwners {
            push: Arc::new(move |partition| pushes.push_route(partition)()),
            idle: Arc::new(move |partition| idles.idle_route(partition)()),
            budget: PushBudget::new(settings.push_memory.bytes()),
        });
        for id in 0..config.cluster.partitions {
            let partition = PartitionId(id);
            let assign = Assign { partition, epoch: Epochs::new(start).next() };
            roles.slave.send(assign).await.expect("the slave lives as long as the node");
            let parts = GateParts {
                partition,
                epoch: 0,
                mq: roles.tiers.mq.clone(),
                kv: roles.tiers.kv.clone(),
                owners: owners.clone(),
                settings: settings.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
            };
            let epochs = Epochs::new(start);
            let make = move || GateActor::new(GateParts { epoch: epochs.next(), ..parts.clone() });
            let arbiter = roles.arbiters[usize::from(id) % roles.arbiters.len()].handle();
            roles.gates.push(Ward::start(arbiter, format!("gate {id}"), config.node.restart, metrics.clone(), make));
        }
        roles
    }

    /// Finds gates for the HTTP handlers.
    pub fn gates(self: &Arc<Self>) -> Gates {
        let roles = self.clone();
        Arc::new(move |partition| roles.gates.get(usize::from(partition.0))?.addr())
    }

    /// Slaves say what is not yet said, save their state, and end.
    pub async fn stop_slaves(&self) {
        if self.slave.send(StopAll).await.is_err() {
            warn!("the slave had ended before it was asked to");
        }
    }

    /// Makes durable what the tiers hold, and ends the gates and their threads.
    pub async fn end(&self) -> Result<(), TierError> {
        for gate in &self.gates {
            gate.stop();
        }
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        self.tiers.mq.flush().await?;
        self.tiers.kv.flush().await?;
        self.tiers.hot.flush().await
    }
}
