//! How much work a task is, from what its owners report.
//!
//! Rates are smoothed, half of a task's weight is the average task's, and new weights are taken up only when the plan that they
//! make is worth its moves; between two such moments weights stand still. So loads that go up and down move nothing.
//!
//! Invariant: without reports, or with little to do, all tasks weigh the same; bounded by the catalog's tasks.

use std::collections::BTreeMap;

use super::catalog::Catalog;
use crate::model::id::Epoch;
use crate::model::report::NodeReport;
use crate::model::task::{NodeName, Task};

/// Rates are taken over at least this long.
const INTERVAL_MS: i64 = 2_000;
/// Of the newest rate in the smoothed one.
const NEWEST: f64 = 0.3;
/// Rows per second of all tasks of a kind together below which balance does not matter.
const IDLE: f64 = 1_000.0;
/// A weight is a whole number; the average task's is about this.
const SCALE: f64 = 1_000.0;

#[derive(Debug, Clone, Copy)]
struct Rate {
    epoch: Epoch,
    rows: u64,
    at_ms: i64,
    /// Rows per second; `None` before the second report.
    per_second: Option<f64>,
}

#[derive(Debug, Default)]
pub struct Weights {
    rates: BTreeMap<Task, Rate>,
    taken: BTreeMap<Task, u64>,
}

impl Weights {
    pub fn of(&self, task: &Task) -> u64 {
        self.taken.get(task).copied().unwrap_or(SCALE as u64)
    }

    /// What an owner says of the tasks that are its own.
    pub fn report(&mut self, catalog: &Catalog, node: &NodeName, report: &NodeReport) {
        for said in &report.tasks {
            let is_own =
                |now: &&crate::model::task::Assignment| now.owner.as_ref() == Some(node) && now.epoch == said.epoch;
            if catalog.task(&said.task).filter(is_own).is_none() {
                continue;
            }
            let fresh = Rate { epoch: said.epoch, rows: said.rows, at_ms: report.at_ms, per_second: None };
            let rate = self.rates.entry(said.task.clone()).or_insert(fresh);
            let (passed_ms, is_new) = (report.at_ms - rate.at_ms, rate.epoch != said.epoch || said.rows < rate.rows);
            if is_new {
                *rate = Rate { per_second: rate.per_second, ..fresh };
            } else if passed_ms >= INTERVAL_MS {
                let now = (said.rows - rate.rows) as f64 * 1_000.0 / passed_ms as f64;
                let smooth = rate.per_second.map_or(now, |before| before + NEWEST * (now - before));
                *rate = Rate { per_second: Some(smooth), ..fresh };
            }
        }
    }

    pub fn forget(&mut self, task: &Task) {
        self.rates.remove(task);
        self.taken.remove(task);
    }

    /// As they would be now.
    pub fn measured(&self) -> BTreeMap<Task, u64> {
        let mut sums: BTreeMap<_, (f64, f64)> = BTreeMap::new();
        let known = || self.rates.iter().filter_map(|(task, rate)| Some((task, rate.per_second?)));
        for (task, rate) in known() {
            let (sum, count) = sums.entry(task.role()).or_default();
            (*sum, *count) = (*sum + rate, *count + 1.0);
        }
        let weight = |(task, rate): (&Task, f64)| {
            let (sum, count) = sums[&task.role()];
            let part = if sum < IDLE { 1.0 } else { 0.5 + 0.5 * rate * count / sum };
            (task.clone(), (part * SCALE).round().max(1.0) as u64)
        };
        known().map(weight).collect()
    }

    pub fn take(&mut self, weights: BTreeMap<Task, u64>) {
        self.taken = weights;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::command::{Change, Command, Move};
    use crate::model::id::PartitionId;
    use crate::model::report::{Freshness, NodeRates, TaskReport, TaskState};
    use crate::model::task::{NodeProfile, Role};

    fn catalog() -> Catalog {
        let (mut catalog, name) = (Catalog::default(), NodeName::new("a"));
        let roles = [Role::Slave].into();
        let node =
            NodeProfile { name: name.clone(), boot: 1, roles, listen: None, http: None, host: None, weight: 100 };
        let step = |partition| {
            let task = Task::Compute(PartitionId(partition));
            Move { task, expect: 0, owner: Some(name.clone()), standby: None }
        };
        let moves = (0..2).map(step).collect();
        catalog.apply(Command { at_ms: 0, change: Change::JoinNode { node, moves } });
        catalog
    }

    fn report(at_ms: i64, rows: [u64; 2]) -> NodeReport {
        let task = |partition: u16, rows| TaskReport {
            task: Task::Compute(PartitionId(partition)),
            epoch: u64::from(partition) + 1,
            state: TaskState::Running,
            detail: String::new(),
            lag: None,
            as_of_ms: None,
            gaps: 0,
            rows,
        };
        NodeReport {
            at_ms,
            started_ms: 0,
            version: String::new(),
            cores: 1,
            load: 0.0,
            resident_bytes: 0,
            rates: NodeRates::default(),
            freshness: Freshness::default(),
            tasks: vec![task(0, rows[0]), task(1, rows[1])],
            tiers: vec![],
        }
    }

    #[test]
    fn a_task_weighs_half_of_the_average_and_half_of_what_it_does() {
        let (catalog, mut weights, node) = (catalog(), Weights::default(), NodeName::new("a"));
        let (first, second) = (Task::Compute(PartitionId(0)), Task::Compute(PartitionId(1)));
        weights.report(&catalog, &node, &report(0, [0, 0]));
        assert!(weights.measured().is_empty(), "one report says no rate");
        weights.report(&catalog, &node, &report(2_000, [60_000, 20_000]));
        assert_eq!(weights.measured(), BTreeMap::from([(first.clone(), 1_250), (second, 750)]));
        assert_eq!(weights.of(&first), 1_000, "until they are taken");
        weights.report(&catalog, &NodeName::new("b"), &report(9_000, [0, 0]));
        assert_eq!(weights.measured()[&first], 1_250, "not its owner");
    }

    #[test]
    fn little_work_is_no_work() {
        let (catalog, mut weights, node) = (catalog(), Weights::default(), NodeName::new("a"));
        weights.report(&catalog, &node, &report(0, [0, 0]));
        weights.report(&catalog, &node, &report(2_000, [400, 0]));
        assert!(weights.measured().values().all(|weight| *weight == 1_000));
    }
}
