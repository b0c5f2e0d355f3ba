//! Every metric that holdfast exports: name, help and type in one place.
//!
//! Invariant: names and units are the interface's; a metric that is exported is counted where the thing happens.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabel {
    pub source: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabel {
    pub partition: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServedByLabel {
    pub served_by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TaskLabel {
    pub kind: &'static str,
    pub state: &'static str,
}

type SecondsFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// The counters themselves; cloned into the actors that count.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    pub changes_ingested: Family<SourceLabel, Counter>,
    pub changes_applied: Counter,
    pub changes_shed: Counter,
    pub mq_lag_changes: Family<PartitionLabel, Gauge>,
    pub freshness_seconds: Histogram,
    pub query_seconds: SecondsFamily<ServedByLabel>,
    pub query_rejected: Counter,
    pub tasks: Family<TaskLabel, Gauge>,
    pub inexact_answers: Counter,
    /// Actors that a guardian started again.
    pub actor_restarts: Counter,
    pub ingest_rejected: Counter,
    pub resident_bytes: Gauge<u64, AtomicU64>,
    pub raft_term: Gauge,
    pub raft_is_active: Gauge,
    pub incidents_open: Gauge,
}

fn query_buckets() -> Histogram {
    Histogram::new([0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("holdfast");
        let freshness = Histogram::new([0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0]);
        let query_seconds: SecondsFamily<ServedByLabel> = Family::new_with_constructor(query_buckets);
        let mut metrics = Self {
            registry: Arc::default(),
            changes_ingested: Family::default(),
            changes_applied: Counter::default(),
            changes_shed: Counter::default(),
            mq_lag_changes: Family::default(),
            freshness_seconds: freshness,
            query_seconds,
            query_rejected: Counter::default(),
            tasks: Family::default(),
            inexact_answers: Counter::default(),
            actor_restarts: Counter::default(),
            ingest_rejected: Counter::default(),
            resident_bytes: Gauge::default(),
            raft_term: Gauge::default(),
            raft_is_active: Gauge::default(),
            incidents_open: Gauge::default(),
        };
        // The library appends `_total` to counters.
        let m = &metrics;
        registry.register("changes_ingested", "Changes accepted from a source", m.changes_ingested.clone());
        registry.register("changes_applied", "Changes counted by slaves", m.changes_applied.clone());
        registry.register("changes_shed", "Changes refused by gates while mq was degraded", m.changes_shed.clone());
        registry.register("mq_lag_changes", "Changes in mq that the gate has not yet taken", m.mq_lag_changes.clone());
        registry.register(
            "freshness_seconds",
            "From a change's time to its visibility in hot",
            m.freshness_seconds.clone(),
        );
        registry.register("query_seconds", "Time to answer a query", m.query_seconds.clone());
        registry.register("query_rejected", "Queries refused by a limit", m.query_rejected.clone());
        registry.register("tasks", "Tasks by kind and state", m.tasks.clone());
        registry.register("inexact_answers", "Answers that were not exact, and said so", m.inexact_answers.clone());
        registry.register("actor_restarts", "Actors started again after a crash", m.actor_restarts.clone());
        registry.register(
            "ingest_rejected",
            "Ingest requests refused as invalid or too large",
            m.ingest_rejected.clone(),
        );
        registry.register("resident_bytes", "Resident memory of the process", m.resident_bytes.clone());
        registry.register("raft_term", "Term of the masters' group, as this master knows it", m.raft_term.clone());
        registry.register("raft_is_active", "1 on the active master, else 0", m.raft_is_active.clone());
        registry.register(
            "incidents_open",
            "Incidents that are open, as this master knows them",
            m.incidents_open.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// Queries answered so far, however they were served.
    pub fn queries(&self) -> u64 {
        // The library shows a histogram's count in its text only.
        let text = self.encode();
        let counts = text.lines().filter_map(|line| line.strip_prefix("holdfast_query_seconds_count"));
        counts.filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Of the freshness: upper bounds in seconds, each with the number of emissions up to there. Grows.
    pub fn freshness_buckets(&self) -> Vec<(f64, u64)> {
        let text = self.encode();
        let lines = text.lines().filter_map(|line| line.strip_prefix("holdfast_freshness_seconds_bucket{le=\""));
        let read = |line: &str| {
            let (bound, count) = line.split_once("\"} ")?;
            Some((bound.trim_start_matches('+').to_lowercase().parse().ok()?, count.trim().parse().ok()?))
        };
        lines.filter_map(read).collect()
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}
