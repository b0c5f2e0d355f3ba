//! Tasks that move away from a living owner: it is asked to let go, and the task is given to the next once it has, or after
//! a time in any case.
//!
//! Invariant: an owner that was asked to let go gets the task back only under a new epoch, for it may have let go; only so
//! many tasks of one owner are between two owners at a time.

use std::collections::BTreeMap;

use super::catalog::Catalog;
use super::command::Move;
use super::duties::Session;
use crate::model::id::Epoch;
use crate::model::task::{NodeName, Task};
use crate::net::control::FromMaster;

#[derive(Debug, Clone)]
struct Handover {
    from: NodeName,
    step: Move,
    /// When the owner was asked.
    asked_ms: Option<i64>,
    released: bool,
}

impl Handover {
    fn is_due(&self, now_ms: i64, limit_ms: i64) -> bool {
        self.released || self.asked_ms.is_some_and(|asked_ms| (now_ms - asked_ms).abs() >= limit_ms)
    }
}

/// All that is under way. At most one for each task.
#[derive(Debug)]
pub struct Handovers {
    limit_ms: i64,
    at_once: usize,
    under_way: BTreeMap<Task, Handover>,
}

impl Handovers {
    pub fn new(limit_ms: i64, at_once: usize) -> Self {
        Self { limit_ms, at_once: at_once.max(1), under_way: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub fn contains(&self, task: &Task) -> bool {
        self.under_way.contains_key(task)
    }

    /// As they will be in the end.
    pub fn moves(&self) -> Vec<Move> {
        self.under_way.values().map(|handover| handover.step.clone()).collect()
    }

    pub fn begin(&mut self, from: NodeName, step: Move) {
        self.under_way.insert(step.task.clone(), Handover { from, step, asked_ms: None, released: false });
    }

    /// Another plan for a task that is under way. Gives it back if nothing has begun and it is to stay where it is.
    pub fn replan(&mut self, step: Move) -> Option<Move> {
        let handover = self.under_way.get_mut(&step.task)?;
        if handover.asked_ms.is_none() && step.owner.as_ref() == Some(&handover.from) {
            self.under_way.remove(&step.task);
            return Some(step);
        }
        handover.step = step;
        None
    }

    /// The plan for this task cannot be carried out any more, and there is no other: it stays where it is.
    pub fn call_off(&mut self, task: &Task) {
        let Some(handover) = self.under_way.get_mut(task) else { return };
        match handover.asked_ms {
            None => drop(self.under_way.remove(task)),
            Some(_) => handover.step.owner = Some(handover.from.clone()),
        }
    }

    /// The owner has let go. False if nobody had asked it to, that is known here.
    pub fn released(&mut self, node: &NodeName, task: &Task, epoch: Epoch) -> bool {
        let is_it = |it: &&mut Handover| it.from == *node && it.step.expect == epoch && it.asked_ms.is_some();
        let handover = self.under_way.get_mut(task).filter(is_it);
        handover.map(|handover| handover.released = true).is_some()
    }

    /// It has let go of a task that stays with it for all that is known here: under a new epoch it takes it again.
    pub fn returned(&mut self, now_ms: i64, node: &NodeName, step: Move) {
        let asked_ms = Some(now_ms);
        self.under_way.insert(step.task.clone(), Handover { from: node.clone(), step, asked_ms, released: true });
    }

    /// Drops those that the catalog has overtaken.
    pub fn settle(&mut self, catalog: &Catalog) {
        self.under_way.retain(|task, handover| {
            let now = catalog.task(task);
            now.is_some_and(|now| now.epoch == handover.step.expect && now.owner.as_ref() == Some(&handover.from))
        });
    }

    /// Asks owners to let go, as many tasks at once as they may.
    pub fn ask(&mut self, now_ms: i64, session: impl Fn(&NodeName) -> Option<Session>) -> Vec<(Session, FromMaster)> {
        let mut open: BTreeMap<NodeName, usize> = BTreeMap::new();
        for handover in self.under_way.values().filter(|it| it.asked_ms.is_some()) {
            *open.entry(handover.from.clone()).or_default() += 1;
        }
        let mut messages = Vec::new();
        for (task, handover) in self.under_way.iter_mut().filter(|(_, it)| it.asked_ms.is_none()) {
            let open = open.entry(handover.from.clone()).or_default();
            let Some(session) = session(&handover.from).filter(|_| *open < self.at_once) else { continue };
            *open += 1;
            handover.asked_ms = Some(now_ms);
            messages.push((session, FromMaster::Release { task: task.clone(), epoch: handover.step.expect }));
        }
        messages
    }

    /// Those that are to be carried out now.
    pub fn due(&self, now_ms: i64) -> Vec<Move> {
        let due = self.under_way.values().filter(|handover| handover.is_due(now_ms, self.limit_ms));
        due.flat_map(|handover| {
            let step = handover.step.clone();
            // To nobody first: only another owner makes a new epoch.
            let away = (step.owner.as_ref() == Some(&handover.from)).then(|| Move { owner: None, ..step.clone() });
            away.into_iter().chain([step])
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::PartitionId;

    fn step(partition: u16, owner: &str) -> Move {
        let task = Task::Compute(PartitionId(partition));
        Move { task, expect: u64::from(partition) + 1, owner: Some(NodeName::new(owner)), standby: None }
    }

    fn handovers() -> Handovers {
        let mut handovers = Handovers::new(2_000, 2);
        (0..3).for_each(|partition| handovers.begin(NodeName::new("a"), step(partition, "b")));
        handovers
    }

    #[test]
    fn an_owner_lets_go_of_a_few_tasks_at_a_time() {
        let mut handovers = handovers();
        assert_eq!(handovers.ask(0, |_| None), []);
        assert_eq!(handovers.ask(0, |_| Some(7)).len(), 2);
        assert_eq!(handovers.ask(1, |_| Some(7)).len(), 0);
        assert!(handovers.due(1_999).is_empty());
        let first = step(0, "b");
        assert!(!handovers.released(&NodeName::new("a"), &first.task, 9), "another epoch");
        assert!(handovers.released(&NodeName::new("a"), &first.task, first.expect));
        assert_eq!(handovers.due(10), [first]);
        assert_eq!(handovers.due(2_000).len(), 2, "whoever was asked and does not let go");
    }

    #[test]
    fn a_task_that_stays_after_all_gets_a_new_epoch_if_its_owner_was_asked() {
        let mut handovers = handovers();
        handovers.ask(0, |_| Some(7));
        (0..3).for_each(|partition| handovers.call_off(&step(partition, "b").task));
        assert_eq!(handovers.moves().len(), 2, "nobody was asked for the third");
        let moves = handovers.due(2_000);
        assert_eq!(moves[..2], [Move { owner: None, ..step(0, "a") }, step(0, "a")]);
    }
}
