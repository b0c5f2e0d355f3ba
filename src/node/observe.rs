//! Asks all actors how they are: for the cluster's document, for readiness, and for the gauges.
//!
//! Invariant: an actor that does not answer in time is shown as silent and holds up nobody.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use futures::future::{BoxFuture, FutureExt, join_all};
use tokio::time::timeout;

use super::roles::Roles;
use crate::admin::linux;
use crate::admin::readiness::Readiness;
use crate::admin::view::{ClusterView, Memory, NodeView, Rates, TaskKind, TaskState, TaskView, TierView};
use crate::clock::Clock;
use crate::config::Config;
use crate::gate::gate_actor::{self, GateReport};
use crate::locks::lock;
use crate::metrics::{Metrics, TaskLabel};
use crate::model::mode::Mode;
use crate::slave::exchange::PartitionReport;
use crate::slave::slave_actor::ObserveAll;
use crate::slave::standing::Standing;

/// Longer than any actor is busy with one thing.
const PATIENCE: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const NODE_NAME: &str = "local";
const ROLES: [&str; 4] = ["master", "gate", "slave", "query"];

/// Looks at a node.
pub struct Observer {
    config: Config,
    http: SocketAddr,
    start: u64,
    started_ms: i64,
    roles: Arc<Roles>,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    sampled: Mutex<Sampled>,
}

/// What the last sample found.
#[derive(Debug, Clone, Copy, Default)]
struct Sampled {
    at_ms: i64,
    ingested: u64,
    applied: u64,
    queries: u64,
    cpu_seconds: f64,
    rates: Rates,
    /// Part of the cores in use.
    load: f64,
}

/// The answers of all actors, by partition.
struct Reports {
    gates: Vec<Option<GateReport>>,
    slaves: Vec<Option<PartitionReport>>,
}

impl Observer {
    pub fn new(
        config: &Config,
        http: SocketAddr,
        start: u64,
        roles: Arc<Roles>,
        clock: &Clock,
        metrics: &Metrics,
        readiness: &Readiness,
    ) -> Self {
        Self {
            config: config.clone(),
            http,
            start,
            started_ms: clock.now_ms(),
            roles,
            clock: clock.clone(),
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            sampled: Mutex::default(),
        }
    }

    async fn ask(&self) -> Reports {
        let gates = self.roles.gates.iter().map(|gate| {
            let gate = gate.addr();
            async move { timeout(PATIENCE, gate?.send(gate_actor::Observe)).await.ok()?.ok() }
        });
        let slaves = timeout(PATIENCE, self.roles.slave.send(ObserveAll));
        let (gates, answer) = futures::join!(join_all(gates), slaves);
        let mut slaves = vec![None; self.roles.gates.len()];
        if let Ok(Ok(answer)) = answer {
            for report in answer.partitions {
                let index = usize::from(report.partition.0);
                slaves[index] = Some(report);
            }
        }
        Reports { gates, slaves }
    }

    /// Has every partition taken in what was there, and published?
    pub async fn is_caught_up(&self) -> bool {
        let reports = self.ask().await;
        reports.slaves.iter().all(|report| {
            report.as_ref().is_some_and(|report| {
                let reading = matches!(report.standing, Standing::Loading | Standing::CatchingUp { .. });
                !reading && report.hot.last_emission_ms.is_some()
            })
        })
    }

    /// Is everything that was acknowledged in kv?
    pub async fn is_drained(&self) -> bool {
        let reports = self.ask().await;
        let drained = |report: &GateReport| report.mq_lag_batches == 0 && report.in_flight == 0;
        reports.gates.iter().all(|report| report.as_ref().is_some_and(drained))
    }

    /// The cluster's document, as of now.
    pub fn view(self: Arc<Self>) -> BoxFuture<'static, ClusterView> {
        // Built on the worker that asked; the parts of it that are sent to actors are owned.
        async move {
            let reports = self.ask().await;
            self.document(&reports)
        }
        .boxed()
    }

    fn document(&self, reports: &Reports) -> ClusterView {
        let sampled = *lock(&self.sampled);
        ClusterView {
            name: self.config.cluster.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: moment(self.clock.now_ms()),
            timezone: self.config.cluster.timezone.clone(),
            partitions: self.config.cluster.partitions,
            ready: self.readiness.is_ready(),
            active_master: NODE_NAME.to_owned(),
            term: self.start,
            nodes: vec![NodeView {
                name: NODE_NAME.to_owned(),
                roles: ROLES.map(str::to_owned).into(),
                state: self.readiness.state(),
                http: format!("http://{}", self.http),
                started: moment(self.started_ms),
                cores: super::cores(),
                load: sampled.load,
            }],
            tiers: self.tiers(),
            rates: sampled.rates,
            memory: Memory { resident_bytes: linux::resident_bytes().unwrap_or(0) },
            tasks: tasks(reports),
        }
    }

    fn tiers(&self) -> Vec<TierView> {
        let (tiers, cache) = (&self.roles.tiers, self.roles.tiers.cache.usage());
        let view = |tier: &str, used_bytes, limit_bytes| TierView {
            tier: tier.to_owned(),
            kind: "embedded".to_owned(),
            mode: Mode::Normal,
            policy: "auto".to_owned(),
            since: moment(self.started_ms),
            reason: None,
            used_bytes: Some(used_bytes),
            limit_bytes,
        };
        vec![
            view("mq", tiers.mq.usage().disk_bytes, None),
            view("kv", tiers.kv.usage().disk_bytes, None),
            view("hot", tiers.hot.usage().disk_bytes, None),
            view("cache", cache.bytes, Some(cache.limit_bytes)),
        ]
    }

    /// Keeps rates and gauges up to date for as long as the node lives.
    pub async fn sample(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let reports = self.ask().await;
            self.take_sample(&reports);
            self.set_gauges(&reports);
        }
    }

    fn take_sample(&self, reports: &Reports) {
        let ingested = reports.gates.iter().flatten().map(|gate| gate.counted.accepted_rows).sum();
        let mut sampled = lock(&self.sampled);
        let before = *sampled;
        let now = Sampled {
            at_ms: self.clock.now_ms(),
            ingested,
            applied: self.metrics.changes_applied.get(),
            queries: self.metrics.queries(),
            cpu_seconds: linux::cpu_seconds().unwrap_or(0.0),
            ..before
        };
        let seconds = (now.at_ms - before.at_ms) as f64 / 1_000.0;
        // A counter goes back where an actor was started again.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        *sampled = now;
        if before.at_ms > 0 && seconds > 0.0 {
            sampled.rates = Rates {
                changes_ingested: rate(now.ingested, before.ingested),
                changes_applied: rate(now.applied, before.applied),
                queries: rate(now.queries, before.queries),
            };
            sampled.load = ((now.cpu_seconds - before.cpu_seconds) / seconds / super::cores() as f64).clamp(0.0, 1.0);
        }
    }

    fn set_gauges(&self, reports: &Reports) {
        if let Some(bytes) = linux::resident_bytes() {
            self.metrics.resident_bytes.set(bytes);
        }
        // Cleared first, so that a state that no task is in any more is not exported for ever.
        self.metrics.tasks.clear();
        let view = self.document(reports);
        for ((kind, state), count) in view.task_counts() {
            let label = TaskLabel { kind: kind.name(), state: state.name() };
            self.metrics.tasks.get_or_create(&label).set(count as i64);
        }
    }
}

fn tasks(reports: &Reports) -> Vec<TaskView> {
    let partitions = 0..reports.gates.len() as u16;
    let gates = partitions.clone().zip(&reports.gates).map(|(id, report)| gate_task(id, report.as_ref()));
    let slaves = partitions.zip(&reports.slaves).map(|(id, report)| compute_task(id, report.as_ref()));
    gates.chain(slaves).collect()
}

fn silent(kind: TaskKind, partition: u16) -> TaskView {
    TaskView {
        kind,
        partition,
        owner: NODE_NAME.to_owned(),
        standby: None,
        epoch: 0,
        state: TaskState::Silent,
        detail: "busy, or being started again".to_owned(),
        lag: None,
        as_of: None,
        gaps: 0,
    }
}

fn gate_task(partition: u16, report: Option<&GateReport>) -> TaskView {
    let base = silent(TaskKind::Gate, partition);
    let Some(report) = report else { return base };
    let state = match report.state {
        "looking" => TaskState::Catching,
        "resting" => TaskState::Failing,
        "fenced" => TaskState::Fenced,
        _ => TaskState::Running,
    };
    TaskView { epoch: report.epoch, state, detail: report.state.to_owned(), lag: Some(report.mq_lag_batches), ..base }
}

fn compute_task(partition: u16, report: Option<&PartitionReport>) -> TaskView {
    let base = silent(TaskKind::Compute, partition);
    let Some(report) = report else { return base };
    let troubles = [&report.lacks, &report.kv_trouble, &report.hot.trouble, &report.cache.trouble];
    let trouble = troubles.into_iter().flatten().next();
    let (state, detail) = match &report.standing {
        Standing::Loading => (TaskState::Catching, "loads its state".to_owned()),
        Standing::CatchingUp { until } => (TaskState::Catching, format!("reads kv up to {until}")),
        Standing::Stalled { reason } => (TaskState::Failing, reason.clone()),
        Standing::Fenced { found } => (TaskState::Fenced, format!("a newer owner stands at {found}")),
        Standing::Stopping | Standing::Stopped => (TaskState::Stopping, String::new()),
        Standing::Counting => match trouble {
            Some(trouble) => (TaskState::Failing, trouble.clone()),
            None => (TaskState::Running, String::new()),
        },
    };
    let as_of = report.hot.as_of_ms.filter(|as_of_ms| *as_of_ms > 0).map(moment);
    TaskView { epoch: report.epoch, state, detail, as_of, gaps: report.gaps as u64, ..base }
}

/// Unix milliseconds as RFC 3339 in UTC.
fn moment(at_ms: i64) -> String {
    let moment = DateTime::from_timestamp_millis(at_ms);
    moment.map_or_else(|| at_ms.to_string(), |moment| moment.to_rfc3339_opts(SecondsFormat::Millis, true))
}
