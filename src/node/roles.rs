//! The actors of a node's roles: they take tasks at the masters' word, and are found by those who send to them.
//!
//! Invariant: a task's actors have the epochs of its assignment ([`Work::actor_epoch`]), so that whoever comes later, in this
//! process or another, fences them.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::{Actor, Addr};
use futures::future::{BoxFuture, FutureExt};
use tracing::{error, warn};

use super::captures::Captures;
use super::tiers::Tiers;
use crate::capture::capture_service::CaptureReport;
use crate::clock::Clock;
use crate::config::Config;
use crate::gate::gates_actor::{self, GateDirectory, GatesActor, GatesParts, GatesReport};
use crate::member::member_service::Tasks;
use crate::member::work::{How, Work};
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::id::Epoch;
use crate::model::task::{SourceOrder, Task};
use crate::net::message::PushBudget;
use crate::net::peers::Finder;
use crate::net::push_service::{ClusterOwners, LocalOwners};
use crate::slave;
use crate::slave::slave_actor::{self, Directory, SlaveActor, SlaveParts, SlaveReport};

/// Who does the tasks of this process. Without a role its actors are not there, and its directory is empty.
#[derive(Clone)]
pub struct Roles {
    pub gate_directory: GateDirectory,
    pub owners: LocalOwners,
    gates: Option<Addr<GatesActor>>,
    slave: Option<Addr<SlaveActor>>,
    captures: Option<Captures>,
}

/// Which roles are wanted.
#[derive(Clone)]
pub struct Wanted {
    pub gate: bool,
    pub slave: bool,
    pub captures: Option<Captures>,
}

impl Roles {
    pub fn start(
        config: &Config,
        catalog: &Arc<Catalog>,
        tiers: &Tiers,
        finder: Finder,
        wanted: Wanted,
        (clock, metrics): (&Clock, &Metrics),
    ) -> Self {
        let threads = if config.slave.threads == 0 { super::cores() as u16 } else { config.slave.threads };
        let settings = Arc::new(config.gate.clone());
        let directory = Directory::default();
        let (pushes, idles) = (directory.clone(), directory.clone());
        let owners = LocalOwners {
            push: Arc::new(move |partition| pushes.push_route(partition)()),
            idle: Arc::new(move |partition| idles.idle_route(partition)()),
            budget: PushBudget::new(settings.push_memory.bytes()),
        };
        let slave = || {
            let parts = SlaveParts {
                kv: tiers.kv.clone(),
                hot: tiers.hot.clone(),
                cache: tiers.cache.clone(),
                catalog: catalog.clone(),
                settings: slave::settings::Settings { threads, ..config.slave.clone() },
                clock: clock.clone(),
                metrics: metrics.clone(),
            };
            SlaveActor::new(parts, directory).start()
        };
        let gate_directory = GateDirectory::default();
        let gates = || {
            let parts = GatesParts {
                mq: tiers.mq.clone(),
                kv: tiers.kv.clone(),
                owners: Arc::new(ClusterOwners { here: owners.clone(), finder }),
                settings,
                threads,
                restart: config.node.restart,
                clock: clock.clone(),
                metrics: metrics.clone(),
            };
            GatesActor::new(parts, gate_directory.clone()).start()
        };
        let (gates, slave) = (wanted.gate.then(gates), wanted.slave.then(slave));
        Self { gates, slave, captures: wanted.captures, gate_directory, owners }
    }

    /// How all tasks are that are here.
    pub async fn observe(&self) -> (GatesReport, SlaveReport) {
        let gates = async { self.gates.as_ref()?.send(gates_actor::ObserveAll).await.ok() };
        let slave = async { self.slave.as_ref()?.send(slave_actor::ObserveAll).await.ok() };
        let (gates, slave) = futures::join!(gates, slave);
        (gates.unwrap_or_default(), slave.unwrap_or_default())
    }

    /// How sources are that are captured here.
    pub fn captures(&self) -> BTreeMap<Arc<str>, (Epoch, CaptureReport)> {
        self.captures.as_ref().map(Captures::reports).unwrap_or_default()
    }

    /// Captures publish what they have read, and end.
    pub async fn stop_captures(&self) {
        if let Some(captures) = &self.captures {
            captures.stop().await;
        }
    }

    /// Slaves say what is not yet said, save their state, and end.
    pub async fn stop_slaves(&self) {
        if let Some(slave) = &self.slave
            && slave.send(slave_actor::StopAll).await.is_err()
        {
            warn!("the slave had ended before it was asked to");
        }
    }

    /// Gates answer what was offered, and end.
    pub async fn stop_gates(&self) {
        if let Some(gates) = &self.gates
            && gates.send(gates_actor::StopAll).await.is_err()
        {
            warn!("the gates had ended before they were asked to");
        }
    }
}

impl Tasks for Roles {
    fn run(&self, work: Work) {
        let epoch = work.actor_epoch();
        let told = match (&work.task, &self.gates, &self.slave) {
            (Task::Gate(partition), Some(gates), _) => {
                gates.try_send(gates_actor::Assign { partition: *partition, epoch }).is_ok()
            }
            (Task::Compute(partition), _, Some(slave)) => {
                slave.try_send(slave_actor::Assign { partition: *partition, epoch }).is_ok()
            }
            (Task::Capture(_), ..) => self.captures.as_ref().is_some_and(|captures| captures.run(work.clone())),
            _ => false,
        };
        if !told {
            // Mailboxes have room for every partition, and masters give tasks to those who can do them.
            error!(task = %work.task, "a task cannot be begun here");
        }
    }

    fn order(&self, work: &Work, order: SourceOrder) {
        let is_taken = self.captures.as_ref().is_some_and(|captures| captures.order(work, order));
        if !is_taken {
            warn!(task = %work.task, ?order, "an order came for what is not captured here");
        }
    }

    fn let_go(&self, work: Work, _: How) -> BoxFuture<'static, ()> {
        // Whoever lost a task hears it from the tiers, whatever it still tries to write.
        let epoch = work.actor_epoch();
        match (&work.task, &self.gates, &self.slave) {
            (Task::Gate(partition), Some(gates), _) => {
                gates.send(gates_actor::Unassign { partition: *partition, epoch }).map(drop).boxed()
            }
            (Task::Compute(partition), _, Some(slave)) => {
                slave.send(slave_actor::Unassign { partition: *partition, epoch }).map(drop).boxed()
            }
            (Task::Capture(_), ..) => match &self.captures {
                Some(captures) => captures.let_go(&work),
                None => std::future::ready(()).boxed(),
            },
            _ => std::future::ready(()).boxed(),
        }
    }
}
