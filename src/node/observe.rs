//! Asks the actors of this process how they are: for its report, for readiness, and for the gauges.
//!
//! Invariant: an actor that does not answer in time is reported as silent and holds up nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;

use super::roles::Roles;
use super::tiers::Tiers;
use crate::admin::linux;
use crate::capture::capture_service::CaptureReport;
use crate::clock::Clock;
use crate::gate::gate_actor::GateReport;
use crate::gate::gates_actor::GatesReport;
use crate::locks::lock;
use crate::member::work::EPOCHS_OF_AN_ASSIGNMENT;
use crate::metrics::{Metrics, TaskLabel};
use crate::model::id::Epoch;
use crate::model::report::{Freshness, NodeRates, NodeReport, TaskReport, TaskState};
use crate::model::task::{NodeName, Task};
use crate::net::peers::Directories;
use crate::slave::exchange::PartitionReport;
use crate::slave::slave_actor::SlaveReport;
use crate::slave::standing::Standing;

/// Longer than any actor is busy with one thing.
const PATIENCE: Duration = Duration::from_secs(1);
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What an observer looks at.
pub struct Observed {
    pub me: NodeName,
    pub roles: Roles,
    pub tiers: Tiers,
    pub directories: Directories,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// Looks at a node.
pub struct Observer {
    observed: Observed,
    started_ms: i64,
    sampled: Mutex<Sampled>,
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

/// The answers of all actors.
struct Reports {
    gates: GatesReport,
    slave: SlaveReport,
}

impl Observer {
    pub fn new(observed: Observed) -> Self {
        let started_ms = observed.clock.now_ms();
        Self { observed, started_ms, sampled: Mutex::default() }
    }

    async fn ask(&self) -> Reports {
        let (gates, slave) = timeout(PATIENCE, self.observed.roles.observe()).await.unwrap_or_default();
        Reports { gates, slave }
    }

    /// The tasks that the newest directory gives to this node.
    fn own_tasks(&self) -> Vec<Task> {
        let directory = self.observed.directories.borrow();
        let own = directory.tasks.iter().filter(|(_, who)| who.owner.as_ref() == Some(&self.observed.me));
        own.map(|(task, _)| task.clone()).collect()
    }

    /// Has everything that this node was given taken in what was there, and published?
    pub async fn is_caught_up(&self) -> bool {
        let reports = self.ask().await;
        let caught_up = |report: &PartitionReport| {
            let reading = matches!(report.standing, Standing::Loading | Standing::CatchingUp { .. });
            !reading && report.hot.last_emission_ms.is_some()
        };
        let slaves: HashMap<_, _> =
            reports.slave.partitions.iter().map(|report| (report.partition, caught_up(report))).collect();
        self.own_tasks().iter().all(|task| match task {
            Task::Compute(partition) => slaves.get(partition) == Some(&true),
            Task::Gate(partition) => reports.gates.gates.iter().any(|report| report.partition == *partition),
            _ => true,
        })
    }

    /// Is everything that was acknowledged here in kv?
    pub async fn is_drained(&self) -> bool {
        let reports = self.ask().await;
        let drained = |report: &GateReport| report.mq_lag_batches == 0 && report.in_flight == 0;
        reports.gates.restarting.is_empty() && reports.gates.gates.iter().all(drained)
    }

    /// What this node says of itself, as of now.
    pub async fn report(&self) -> NodeReport {
        let reports = self.ask().await;
        let sampled = lock(&self.sampled).clone();
        NodeReport {
            at_ms: self.observed.clock.now_ms(),
            started_ms: self.started_ms,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cores: super::cores() as u32,
            load: sampled.load,
            resident_bytes: linux::resident_bytes().unwrap_or(0),
            rates: sampled.rates,
            freshness: sampled.freshness,
            tasks: self.tasks(&reports),
            tiers: self.observed.tiers.reports(),
        }
    }

    /// Of every task of this node, silent ones too.
    fn tasks(&self, reports: &Reports) -> Vec<TaskReport> {
        let gates: HashMap<_, _> = reports.gates.gates.iter().map(|report| (report.partition, report)).collect();
        let slaves: HashMap<_, _> = reports.slave.partitions.iter().map(|report| (report.partition, report)).collect();
        let captures = self.observed.roles.captures();
        let report = |task: Task| match &task {
            Task::Gate(partition) => gate_task(silent(task.clone()), gates.get(partition).copied()),
            Task::Compute(partition) => compute_task(silent(task.clone()), slaves.get(partition).copied()),
            Task::Capture(source) => capture_task(silent(task.clone()), captures.get(source)),
            _ => silent(task),
        };
        self.own_tasks().into_iter().map(report).collect()
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
        let metrics = &self.observed.metrics;
        let captured = self.observed.roles.captures().into_values().map(|(_, report)| report.changes);
        let pushed = reports.gates.gates.iter().map(|gate| gate.counted.accepted_rows);
        let ingested = pushed.chain(captured).sum();
        let mut sampled = lock(&self.sampled);
        let before = sampled.clone();
        let mut now = Sampled {
            at_ms: self.observed.clock.now_ms(),
            ingested,
            applied: metrics.changes_applied.get(),
            queries: metrics.queries(),
            cpu_seconds: linux::cpu_seconds().unwrap_or(0.0),
            freshness_buckets: metrics.freshness_buckets(),
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
        }
        *sampled = now;
    }

    fn set_gauges(&self, reports: &Reports) {
        let metrics = &self.observed.metrics;
        if let Some(bytes) = linux::resident_bytes() {
            metrics.resident_bytes.set(bytes);
        }
        let mut counts = BTreeMap::new();
        for report in self.tasks(reports) {
            let kind = match report.task {
                Task::Gate(_) => "gate",
                Task::Compute(_) => "compute",
                Task::Capture(_) => "capture",
                Task::Archive(_) => "archive",
                Task::AnalyseQueries(_) => "analyse",
            };
            *counts.entry((kind, report.state.name())).or_insert(0) += 1;
        }
        // Cleared first, so that a state that no task is in any more is not exported for ever.
        metrics.tasks.clear();
        for ((kind, state), count) in counts {
            metrics.tasks.get_or_create(&TaskLabel { kind, state }).set(count);
        }
    }
}

fn silent(task: Task) -> TaskReport {
    TaskReport {
        task,
        epoch: 0,
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
    let base = TaskReport { epoch: report.epoch / EPOCHS_OF_AN_ASSIGNMENT, ..base };
    TaskReport { state, detail: report.state.to_owned(), lag: Some(report.mq_lag_batches), rows, ..base }
}

fn capture_task(base: TaskReport, report: Option<&(Epoch, CaptureReport)>) -> TaskReport {
    let Some((epoch, report)) = report else { return base };
    let state = match report.standing {
        "following" => TaskState::Running,
        "pausing" | "stopped" => TaskState::Failing,
        "ended" => TaskState::Fenced,
        _ => TaskState::Catching,
    };
    let detail = report.reason.clone().unwrap_or_else(|| report.standing.to_owned());
    let as_of_ms = Some(report.at_ms).filter(|at_ms| *at_ms > 0);
    TaskReport {
        epoch: *epoch,
        state,
        detail,
        lag: Some(report.in_flight as u64),
        as_of_ms,
        rows: report.changes,
        ..base
    }
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
    let base = TaskReport { epoch: report.epoch / EPOCHS_OF_AN_ASSIGNMENT, ..base };
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
