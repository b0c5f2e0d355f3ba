//! Asks all actors how they are: for the cluster's document, for readiness, and for the gauges.
//!
//! Invariant: an actor that does not answer in time is shown as silent and holds up nobody.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use tokio::time::timeout;

use super::alone;
use super::roles::Roles;
use crate::admin::assembly::About;
use crate::admin::linux;
use crate::admin::readiness::Readiness;
use crate::admin::view::ClusterView;
use crate::clock::Clock;
use crate::config::Config;
use crate::gate::gate_actor::{self, GateReport};
use crate::locks::lock;
use crate::metrics::{Metrics, TaskLabel};
use crate::model::id::PartitionId;
use crate::model::mode::Tier;
use crate::model::report::{Freshness, NodeRates, NodeReport, TaskReport, TaskState, TierReport};
use crate::model::task::Task;
use crate::net::control::Sample;
use crate::slave::exchange::PartitionReport;
use crate::slave::slave_actor::ObserveAll;
use crate::slave::standing::Standing;

/// Longer than any actor is busy with one thing.
const PATIENCE: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples that are kept: five minutes.
const HISTORY_MOST: usize = 300;

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
    history: Mutex<VecDeque<Sample>>,
}

/// What the last sample found.
#[derive(Debug, Clone, Default)]
struct Sampled {
    at_ms: i64,
    ingested: u64,
    applied: u64,
    queries: u64,
    cpu_seconds: f64,
    freshness_buckets: Vec<(f64, u64)>,
    rates: NodeRates,
    freshness: Freshness,
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
            history: Mutex::default(),
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
        let now_ms = self.clock.now_ms();
        let about = About {
            name: self.config.cluster.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            timezone: self.config.cluster.timezone.clone(),
            partitions: self.config.cluster.partitions,
            now_ms,
            node: alone::name(),
            phase: self.readiness.phase(),
            no_master_since_ms: None,
        };
        let history = lock(&self.history).iter().copied().collect();
        let state = alone::state(self.start, self.http, self.report(reports, now_ms), history);
        ClusterView::of(&state, about)
    }

    /// What this node says of itself.
    fn report(&self, reports: &Reports, now_ms: i64) -> NodeReport {
        let sampled = lock(&self.sampled).clone();
        NodeReport {
            at_ms: now_ms,
            started_ms: self.started_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cores: super::cores() as u32,
            load: sampled.load,
            resident_bytes: linux::resident_bytes().unwrap_or(0),
            rates: sampled.rates,
            freshness: sampled.freshness,
            tasks: self.tasks(reports),
            tiers: self.tiers(),
        }
    }

    fn tiers(&self) -> Vec<TierReport> {
        let (tiers, cache) = (&self.roles.tiers, self.roles.tiers.cache.usage());
        let report = |tier, used_bytes, limit_bytes| TierReport {
            tier,
            kind: "embedded".to_owned(),
            holds: true,
            used_bytes: Some(used_bytes),
            limit_bytes,
            trouble: None,
        };
        vec![
            report(Tier::Mq, tiers.mq.usage().disk_bytes, None),
            report(Tier::Kv, tiers.kv.usage().disk_bytes, None),
            report(Tier::Hot, tiers.hot.usage().disk_bytes, None),
            report(Tier::Cache, cache.bytes, Some(cache.limit_bytes)),
        ]
    }

    /// Of every task of this node, silent ones too.
    fn tasks(&self, reports: &Reports) -> Vec<TaskReport> {
        let partitions = (0..reports.gates.len() as u16).map(PartitionId);
        let epoch = self.start;
        let gates = partitions.clone().zip(&reports.gates);
        let gates = gates.map(|(id, report)| gate_task(silent(Task::Gate(id), epoch), report.as_ref()));
        let slaves = partitions.zip(&reports.slaves);
        let slaves = slaves.map(|(id, report)| compute_task(silent(Task::Compute(id), epoch), report.as_ref()));
        gates.chain(slaves).collect()
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
        let before = sampled.clone();
        let mut now = Sampled {
            at_ms: self.clock.now_ms(),
            ingested,
            applied: self.metrics.changes_applied.get(),
            queries: self.metrics.queries(),
            cpu_seconds: linux::cpu_seconds().unwrap_or(0.0),
            freshness_buckets: self.metrics.freshness_buckets(),
            ..before
        };
        let seconds = (now.at_ms - before.at_ms) as f64 / 1_000.0;
        // A counter goes back where an actor was started again.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        if before.at_ms > 0 && seconds > 0.0 {
            now.rates = NodeRates {
                ingested: rate(now.ingested, before.ingested),
                applied: rate(now.applied, before.applied),
                queries: rate(now.queries, before.queries),
            };
            now.freshness = freshness(&now.freshness_buckets, &before.freshness_buckets);
            now.load = ((now.cpu_seconds - before.cpu_seconds) / seconds / super::cores() as f64).clamp(0.0, 1.0);
            self.remember(reports, &now);
        }
        *sampled = now;
    }

    fn remember(&self, reports: &Reports, now: &Sampled) {
        let as_of = reports.slaves.iter().flatten().filter_map(|report| report.hot.as_of_ms);
        let oldest = as_of.filter(|as_of_ms| *as_of_ms > 0).min();
        let fresh = Some(now.freshness).filter(|freshness| freshness.samples > 0);
        let mut history = lock(&self.history);
        if history.len() >= HISTORY_MOST {
            history.pop_front();
        }
        history.push_back(Sample {
            at_ms: now.at_ms,
            ingested: now.rates.ingested,
            applied: now.rates.applied,
            queries: now.rates.queries,
            fresh_p50_ms: fresh.map(|freshness| freshness.p50_ms),
            fresh_p99_ms: fresh.map(|freshness| freshness.p99_ms),
            oldest_ms: oldest.map(|as_of_ms| (now.at_ms - as_of_ms).max(0) as f64),
            lag: reports.gates.iter().flatten().map(|gate| gate.mq_lag_batches).sum(),
        });
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

fn silent(task: Task, epoch: u64) -> TaskReport {
    TaskReport {
        task,
        epoch,
        state: TaskState::Silent,
        detail: "busy, or being started again".to_owned(),
        lag: None,
        as_of_ms: None,
        gaps: 0,
        rows: 0,
    }
}

fn gate_task(base: TaskReport, report: Option<&GateReport>) -> TaskReport {
    let Some(report) = report else { return base };
    let state = match report.state {
        "looking" => TaskState::Catching,
        "resting" => TaskState::Failing,
        "fenced" => TaskState::Fenced,
        _ => TaskState::Running,
    };
    let rows = report.counted.accepted_rows;
    TaskReport { state, detail: report.state.to_owned(), lag: Some(report.mq_lag_batches), rows, ..base }
}

fn compute_task(base: TaskReport, report: Option<&PartitionReport>) -> TaskReport {
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
    TaskReport { state, detail, as_of_ms: report.hot.as_of_ms, gaps: report.gaps as u64, ..base }
}

/// Of the emissions between two looks at a histogram.
fn freshness(now: &[(f64, u64)], before: &[(f64, u64)]) -> Freshness {
    let count = |index: usize| {
        let old = before.get(index).map_or(0, |(_, count)| *count);
        now[index].1.saturating_sub(old)
    };
    let samples = now.len().checked_sub(1).map_or(0, count);
    let quantile_ms = |part: f64| {
        let wanted = part * samples as f64;
        let (mut low, mut below) = (0.0, 0);
        for (index, (bound, _)) in now.iter().enumerate() {
            let up_to = count(index);
            if up_to as f64 >= wanted && up_to > below {
                // Above the last bound nothing is known but that bound.
                let high = if bound.is_finite() { *bound } else { low };
                return (low + (high - low) * (wanted - below as f64) / (up_to - below) as f64) * 1_000.0;
            }
            (low, below) = (if bound.is_finite() { *bound } else { low }, up_to);
        }
        0.0
    };
    Freshness { p50_ms: quantile_ms(0.5), p99_ms: quantile_ms(0.99), samples }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_of_the_emissions_between_two_looks() {
        let metrics = Metrics::default();
        (0..100).for_each(|_| metrics.freshness_seconds.observe(50.0));
        let before = metrics.freshness_buckets();
        (0..99).for_each(|_| metrics.freshness_seconds.observe(0.2));
        metrics.freshness_seconds.observe(600.0);
        let found = freshness(&metrics.freshness_buckets(), &before);
        assert_eq!(found.samples, 100);
        assert!((150.0..=250.0).contains(&found.p50_ms) && found.p99_ms <= 250.0, "{found:?}");
        assert_eq!(freshness(&before, &before).samples, 0);
        assert_eq!(freshness(&[], &[]), Freshness::default());
    }
}
