//! How the governor gets every task to the node that is to have it: at once where nobody does it, by handover where somebody does.
//!
//! A plan is made from the catalog as it will be once the handovers under way are through; so a node that joins meanwhile gets its
//! share without waiting, and nothing moves twice.
//!
//! Invariant: one command that moves tasks is under way at a time; a catalog that is as it should be moves nothing.

use super::command::{Change, Command, Move};
use super::duties::{Effect, Group};
use super::governor::Governor;
use super::plan::{Situation, plan};
use super::proposals::Purpose;
use crate::model::id::Epoch;
use crate::model::task::{NodeName, NodeProfile, NodeState, Task};

/// New weights are taken up only if, with them, loads would differ by so many times the slack.
const WORTH: u32 = 2;

impl Governor {
    pub(super) fn is_work_undone(&self, group: &Group<'_>) -> bool {
        let catalog = group.catalog;
        let is_drained = |name: &NodeName| catalog.node(name).is_some_and(|it| it.state == NodeState::Draining);
        self.wanted.iter().any(|task| catalog.task(task).is_none())
            || catalog.tasks().any(|(_, now)| now.owner.as_ref().is_none_or(is_drained))
    }

    /// A node that is new, or another process than before, or back.
    pub(super) fn join(&mut self, now_ms: i64, group: &Group<'_>, profile: NodeProfile, effects: &mut Vec<Effect>) {
        let purpose = Purpose::Join(profile.name.clone());
        if !self.proposals.is_free(now_ms, &purpose) {
            return;
        }
        // While other moves are under way it comes in without; the next plan gives it its share.
        let moves = match self.proposals.is_still(now_ms) {
            true => self.plan(group, Some(&profile)),
            false => Vec::new(),
        };
        let has_moves = !moves.is_empty();
        self.propose(now_ms, purpose, has_moves, Change::JoinNode { node: profile, moves }, effects);
    }

    /// Moves what is to be moved now.
    pub(super) fn arrange(&mut self, now_ms: i64, group: &Group<'_>, effects: &mut Vec<Effect>) {
        if self.proposals.is_still(now_ms) {
            self.doomed.retain(|node, (boot, _)| {
                let known = group.catalog.node(node);
                known.is_some_and(|it| it.profile.boot == *boot && it.state != NodeState::Lost)
            });
            if let Some((node, (boot, reason))) = self.doomed.first_key_value() {
                let (node, boot, reason) = (node.clone(), *boot, (*reason).to_owned());
                let moves = self.plan(group, None);
                let change = Change::NodeLost { node, boot, reason, moves };
                self.propose(now_ms, Purpose::Move, true, change, effects);
            } else {
                let mut moves = if self.is_plan_due { self.plan(group, None) } else { Vec::new() };
                self.is_plan_due = false;
                moves.extend(self.handovers.due(now_ms));
                if !moves.is_empty() {
                    self.propose(now_ms, Purpose::Move, true, Change::Assign(moves), effects);
                }
            }
        }
        let (roster, catalog) = (&self.roster, group.catalog);
        let asked = self.handovers.ask(now_ms, |node| roster.session_of(catalog, node));
        effects.extend(asked.into_iter().map(|(session, message)| Effect::Send { to: vec![session], message }));
    }

    /// Begins handovers; gives the moves that need none.
    fn plan(&mut self, group: &Group<'_>, joining: Option<&NodeProfile>) -> Vec<Move> {
        self.handovers.settle(group.catalog);
        let mut ahead = group.catalog.clone();
        let pending = self.handovers.moves();
        ahead.apply(Command { at_ms: 0, change: Change::Assign(pending.clone()) });
        let lost: Vec<NodeName> = self.doomed.keys().cloned().collect();
        let slack_percent = self.charter.settings.balance_slack_percent;
        let situation = Situation { lost: &lost, joining, slack_percent };
        let planned = plan(&ahead, &self.wanted, |task| self.weights.of(task), situation);

        let mut impossible: Vec<Task> = Vec::new();
        for step in pending {
            if ahead.task(&step.task).is_some_and(|it| it.owner != step.owner) {
                impossible.push(step.task);
            }
        }
        let mut at_once = Vec::new();
        for step in planned {
            impossible.retain(|task| *task != step.task);
            let now = group.catalog.task(&step.task);
            let step = Move { expect: now.map_or(0, |now| now.epoch), ..step };
            let owner = now.and_then(|now| now.owner.as_ref()).filter(|owner| {
                let known = group.catalog.node(owner).map(|it| it.profile.boot);
                let is_replaced = joining.is_some_and(|it| it.name == **owner && Some(it.boot) != known);
                !is_replaced && !lost.contains(owner)
            });
            match owner {
                Some(owner) if self.handovers.contains(&step.task) => {
                    let (owner, step_owner) = (owner.clone(), step.owner.clone());
                    at_once.extend(self.handovers.replan(step).filter(|_| step_owner == Some(owner)));
                }
                Some(owner) if step.owner.as_ref() != Some(owner) => {
                    // Without a connection it cannot be asked: it comes back, or is lost in a moment.
                    match self.roster.session_of(group.catalog, owner) {
                        Some(_) => self.handovers.begin(owner.clone(), step),
                        None => self.is_owner_away = true,
                    }
                }
                _ => at_once.push(step),
            }
        }
        impossible.iter().for_each(|task| self.handovers.call_off(task));
        at_once
    }

    /// A node has let go of a task because an earlier active master had asked it to: it is given out again, here or there.
    pub(super) fn unasked(&mut self, now_ms: i64, group: &Group<'_>, node: &NodeName, task: Task, epoch: Epoch) {
        let Some(now) = group.catalog.task(&task) else { return };
        if now.owner.as_ref() == Some(node) && now.epoch == epoch && !self.handovers.contains(&task) {
            let step = Move { task, expect: epoch, owner: now.owner.clone(), standby: now.standby.clone() };
            self.handovers.returned(now_ms, node, step);
            self.is_plan_due = true;
        }
    }

    /// Takes up what tasks weigh now, if that is worth moving them.
    pub(super) fn weigh(&mut self, now_ms: i64, group: &Group<'_>) {
        let interval_ms = self.charter.settings.balance_interval.as_i64();
        if (0..interval_ms).contains(&(now_ms - self.weighed_ms)) || !self.handovers.is_empty() {
            return;
        }
        self.weighed_ms = now_ms;
        let weights = self.weights.measured();
        let slack_percent = WORTH * self.charter.settings.balance_slack_percent;
        let weight = |task: &Task| weights.get(task).copied().unwrap_or_else(|| self.weights.of(task));
        let moves = plan(group.catalog, &self.wanted, weight, Situation { slack_percent, ..Situation::default() });
        let owner = |task: &Task| group.catalog.task(task).and_then(|now| now.owner.clone());
        if moves.iter().any(|step| owner(&step.task) != step.owner) {
            self.weights.take(weights);
            self.is_plan_due = true;
        }
    }
}
