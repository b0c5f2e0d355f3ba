//! What the masters agree on: nodes, who owns which task, modes of tiers, definitions, incidents. The replicated state machine.
//!
//! Invariant: `apply` is deterministic and total: a command that makes no sense any more changes nothing and says why. A task
//! has one owner, which is a node that is not lost; its standby is another node; an epoch is never given twice, not even
//! after its task is gone. Everything is bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::checkpoints::{Checkpoint, Checkpoints};
use super::command::{Change, Command, Effect, Move, NodeProfile};
use super::incidents::{Incidents, bounded};
use crate::model::codec::{self, CodecError};
use crate::model::id::Epoch;
use crate::model::incident::IncidentKind;
use crate::model::mode::{Mode, Policy, Tier, TierStanding};
use crate::model::task::{Assignment, BootId, NodeName, NodeState, Task};

/// Part of the replicated state, so the same in every master: not configurable.
const NODES_MOST: usize = 1024;
/// Gates and computes of all partitions that a cluster can have, and room for the others.
const TASKS_MOST: usize = 10_000;
const NAME_BYTES_MOST: usize = 256;

/// A node as the masters know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub profile: NodeProfile,
    pub state: NodeState,
    /// Unix milliseconds.
    pub since_ms: i64,
}

impl Node {
    /// May it be given `task`?
    fn can_own(&self, task: &Task) -> bool {
        matches!(self.state, NodeState::Alive | NodeState::Suspect) && self.profile.roles.contains(&task.role())
    }
}

/// The agreed state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The highest time of any command.
    now_ms: i64,
    nodes: BTreeMap<NodeName, Node>,
    tasks: BTreeMap<Task, Assignment>,
    last_epoch: Epoch,
    /// In the order of `Tier::ALL`.
    tiers: [TierStanding; 5],
    definitions: Definitions,
    incidents: Incidents,
    checkpoints: Checkpoints,
}

/// Which tables and metrics are in effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definitions {
    /// Grows with each change; zero before the first.
    pub version: u64,
    pub fingerprint: u64,
}

impl Catalog {
    pub fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("catalog", bytes)
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub fn tasks(&self) -> impl Iterator<Item = (&Task, &Assignment)> {
        self.tasks.iter()
    }

    pub fn task(&self, task: &Task) -> Option<&Assignment> {
        self.tasks.get(task)
    }

    /// What `node` owns, and what it stands by for.
    pub fn tasks_of<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a Task, &'a Assignment)> {
        self.tasks.iter().filter(move |(_, it)| it.owner.as_ref() == Some(node) || it.standby.as_ref() == Some(node))
    }

    pub fn tier(&self, tier: Tier) -> &TierStanding {
        &self.tiers[tier as usize]
    }

    pub fn definitions(&self) -> Definitions {
        self.definitions
    }

    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// When the first drill ends; then a command is needed, whichever.
    pub fn next_end_ms(&self) -> Option<i64> {
        let end = |tier: &TierStanding| match tier.policy {
            Policy::DrillUntil(until_ms) => Some(until_ms),
            _ => None,
        };
        self.tiers.iter().filter_map(end).min()
    }

    pub fn apply(&mut self, command: Command) -> Vec<Effect> {
        self.now_ms = self.now_ms.max(command.at_ms);
        let mut effects = Vec::new();
        self.end_drills(&mut effects);
        match command.change {
            Change::JoinNode { node, moves } => self.join(node, moves, &mut effects),
            Change::NodeStates(states) => {
                states.into_iter().for_each(|(node, boot, state)| self.set_state(&node, boot, state, &mut effects));
            }
            Change::NodeLost { node, boot, reason, moves } => self.lose(&node, boot, reason, moves, &mut effects),
            Change::DrainNode { node, draining } => self.drain(&node, draining, &mut effects),
            Change::ForgetNode { node } => self.forget(&node, &mut effects),
            Change::Assign(moves) => self.assign(moves, &mut effects),
            Change::SaveCheckpoint { source, epoch, state } => self.save_checkpoint(source, epoch, state, &mut effects),
            Change::EndTask { task, epoch } => self.end_task(&task, epoch, &mut effects),
            Change::SetMode { tier, mode, reason } => self.set_mode(tier, mode, reason, &mut effects),
            Change::SetPolicy { tier, policy, reason } => self.set_policy(tier, policy, reason, &mut effects),
            Change::Define { fingerprint } => self.define(fingerprint, &mut effects),
            Change::OpenIncident { kind, subject, text } => {
                self.incidents.raise(self.now_ms, kind, subject, text, &mut effects);
            }
            Change::CloseIncident { kind, subject } => {
                if !self.incidents.settle(self.now_ms, kind, &subject, &mut effects) {
                    nothing("there is no such incident", &mut effects);
                }
            }
            Change::PassTime => {}
        }
        effects
    }

    // Nodes.

    fn join(&mut self, profile: NodeProfile, moves: Vec<Move>, effects: &mut Vec<Effect>) {
        let name = profile.name.clone();
        let texts = [Some(&*name.0), profile.listen.as_deref(), profile.http.as_deref(), profile.host.as_deref()];
        if name.0.is_empty() || texts.into_iter().flatten().any(|text| text.len() > NAME_BYTES_MOST) {
            return nothing("the node's name or addresses are empty or too long", effects);
        }
        let before = self.nodes.get(&name).map(|node| (node.profile.boot, node.state));
        if before.is_none() && self.nodes.len() >= NODES_MOST && !self.make_room(effects) {
            return nothing("there are as many nodes as there can be", effects);
        }
        // The same process, back from a bad connection, stays what it was told to be.
        let same = before.filter(|(boot, _)| *boot == profile.boot);
        let state = match same {
            Some((_, NodeState::Draining)) => NodeState::Draining,
            _ => NodeState::Alive,
        };
        let since_ms = match self.nodes.get(&name) {
            Some(node) if node.state == state && same.is_some() => node.since_ms,
            _ => self.now_ms,
        };
        let roles = profile.roles.clone();
        self.nodes.insert(name.clone(), Node { profile, state, since_ms });
        effects.push(Effect::NodeIs { node: name.clone(), state });
        self.incidents.settle(self.now_ms, IncidentKind::NodeLost, &name.0, effects);
        let orphans = self.orphans(&name, |task| same.is_some() && roles.contains(&task.role()));
        self.hand_on(orphans, moves, effects);
    }

    /// Forgets the node that has been lost for longest.
    fn make_room(&mut self, effects: &mut Vec<Effect>) -> bool {
        let lost = self.nodes.values().filter(|node| node.state == NodeState::Lost);
        let Some(oldest) = lost.min_by_key(|node| node.since_ms).map(|node| node.profile.name.clone()) else {
            return false;
        };
        self.forget(&oldest, effects);
        true
    }

    fn set_state(&mut self, name: &NodeName, boot: BootId, state: NodeState, effects: &mut Vec<Effect>) {
        let now_ms = self.now_ms;
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.profile.boot == boot) else {
            return nothing("there is no such node any more", effects);
        };
        match (node.state, state) {
            (NodeState::Alive, NodeState::Suspect) | (NodeState::Suspect, NodeState::Alive) => {
                (node.state, node.since_ms) = (state, now_ms);
                effects.push(Effect::NodeIs { node: name.clone(), state });
            }
            _ => nothing("the node's state has changed meanwhile", effects),
        }
    }

    fn lose(&mut self, name: &NodeName, boot: BootId, reason: String, moves: Vec<Move>, effects: &mut Vec<Effect>) {
        let now_ms = self.now_ms;
        let is_it = |node: &&mut Node| node.profile.boot == boot && node.state != NodeState::Lost;
        let Some(node) = self.nodes.get_mut(name).filter(is_it) else {
            return nothing("the node is lost already, or another process", effects);
        };
        let was_to_go = node.state == NodeState::Draining;
        (node.state, node.since_ms) = (NodeState::Lost, now_ms);
        effects.push(Effect::NodeIs { node: name.clone(), state: NodeState::Lost });
        // Whoever was drained was meant to stop.
        if !was_to_go {
            self.incidents.raise(now_ms, IncidentKind::NodeLost, name.to_string(), reason, effects);
        }
        let orphans = self.orphans(name, |_| false);
        let has_gone = was_to_go && orphans.is_empty();
        self.hand_on(orphans, moves, effects);
        // It was told to go, and left nothing behind: nobody waits for it.
        if has_gone {
            self.forget(name, effects);
        }
    }

    fn drain(&mut self, name: &NodeName, draining: bool, effects: &mut Vec<Effect>) {
        let now_ms = self.now_ms;
        let Some(node) = self.nodes.get_mut(name) else { return nothing("there is no such node", effects) };
        let state = match (node.state, draining) {
            (NodeState::Alive | NodeState::Suspect, true) => NodeState::Draining,
            (NodeState::Draining, false) => NodeState::Alive,
            _ => return nothing("the node is lost, or is so already", effects),
        };
        (node.state, node.since_ms) = (state, now_ms);
        effects.push(Effect::NodeIs { node: name.clone(), state });
    }

    fn forget(&mut self, name: &NodeName, effects: &mut Vec<Effect>) {
        if self.nodes.get(name).is_none_or(|node| node.state != NodeState::Lost) {
            return nothing("only a lost node can be forgotten", effects);
        }
        self.nodes.remove(name);
        effects.push(Effect::Forgotten { node: name.clone() });
        self.incidents.settle(self.now_ms, IncidentKind::NodeLost, &name.0, effects);
    }

    // Tasks.

    /// Takes `node` off its tasks, but for those that it keeps. Gives what they were.
    fn orphans(&mut self, node: &NodeName, kept: impl Fn(&Task) -> bool) -> Vec<(Task, Assignment)> {
        let mut orphans = Vec::new();
        let owned = |it: &Assignment| it.owner.as_ref() == Some(node) || it.standby.as_ref() == Some(node);
        for (task, assignment) in self.tasks.iter_mut().filter(|(task, it)| owned(it) && !kept(task)) {
            orphans.push((task.clone(), assignment.clone()));
            assignment.owner.take_if(|owner| owner == node);
            assignment.standby.take_if(|standby| standby == node);
        }
        orphans
    }

    /// Assigns `moves`, and tells of the orphans that none of them is about.
    fn hand_on(&mut self, orphans: Vec<(Task, Assignment)>, moves: Vec<Move>, effects: &mut Vec<Effect>) {
        let mut orphans: BTreeMap<Task, Assignment> = orphans.into_iter().collect();
        for step in moves {
            let task = step.task.clone();
            match self.move_task(step, orphans.get(&task)) {
                Ok(effect) => {
                    orphans.remove(&task);
                    effects.extend(effect);
                }
                Err(reason) => nothing(reason, effects),
            }
        }
        for (task, before) in orphans {
            if let Some(now) = self.tasks.get(&task).cloned() {
                effects.push(Effect::Assigned { task, now, before: Some(before) });
            }
        }
    }

    fn assign(&mut self, moves: Vec<Move>, effects: &mut Vec<Effect>) {
        self.hand_on(Vec::new(), moves, effects);
    }

    /// `before`: what the task was, where that is not what it is now.
    fn move_task(&mut self, step: Move, before: Option<&Assignment>) -> Result<Option<Effect>, &'static str> {
        let Move { task, expect, owner, standby } = step;
        let now = self.tasks.get(&task);
        if now.map_or(0, |now| now.epoch) != expect {
            return Err("the task has been assigned again meanwhile");
        }
        if now.is_none() && self.tasks.len() >= TASKS_MOST {
            return Err("there are as many tasks as there can be");
        }
        if matches!(&task, Task::Capture(source) if source.len() > NAME_BYTES_MOST) {
            return Err("the source's name is too long");
        }
        let now = now.cloned();
        let can_own = |name: &NodeName| self.nodes.get(name).is_some_and(|node| node.can_own(&task));
        // A draining node keeps what it has until another takes it.
        let keeps = |name: &NodeName| now.as_ref().is_some_and(|now| now.owner.as_ref() == Some(name));
        if owner.as_ref().is_some_and(|owner| !keeps(owner) && !can_own(owner)) {
            return Err("the new owner is not there any more, or cannot do it");
        }
        if now.is_none() && owner.is_none() {
            return Err("a new task without an owner");
        }
        let standby = standby.filter(|standby| Some(standby) != owner.as_ref() && can_own(standby));
        let same_owner = now.as_ref().is_some_and(|now| now.owner == owner);
        if now.as_ref().is_some_and(|now| same_owner && now.standby == standby) {
            // What `before` tells of is still to be said.
            return if before.is_some() { Err("there is nobody else") } else { Ok(None) };
        }
        // The owner keeps its epoch while it is the owner: a new one would make it claim its places again. Nobody gets none.
        let epoch = match &now {
            Some(now) if same_owner || owner.is_none() => now.epoch,
            _ => {
                self.last_epoch += 1;
                self.last_epoch
            }
        };
        let assignment = Assignment { owner, standby, epoch };
        self.tasks.insert(task.clone(), assignment.clone());
        Ok(Some(Effect::Assigned { task, now: assignment, before: before.cloned().or(now) }))
    }

    fn end_task(&mut self, task: &Task, epoch: Epoch, effects: &mut Vec<Effect>) {
        if self.tasks.get(task).is_none_or(|assignment| assignment.epoch != epoch) {
            return nothing("the task is gone, or has been assigned again", effects);
        }
        self.tasks.remove(task);
        effects.push(Effect::Ended { task: task.clone() });
    }

    fn save_checkpoint(&mut self, source: Arc<str>, epoch: Epoch, state: Bytes, effects: &mut Vec<Effect>) {
        let task = Task::Capture(source.clone());
        if self.tasks.get(&task).is_none_or(|assignment| assignment.epoch != epoch) {
            return nothing("the capture has been assigned again", effects);
        }
        if let Err(reason) = self.checkpoints.save(source, Checkpoint { epoch, at_ms: self.now_ms, state }) {
            nothing(reason, effects);
        }
    }

    // Tiers, definitions.

    fn set_mode(&mut self, tier: Tier, mode: Mode, reason: String, effects: &mut Vec<Effect>) {
        if self.tier(tier).policy != Policy::Auto {
            return nothing("an operator holds the tier", effects);
        }
        if self.tier(tier).mode == mode {
            return nothing("the tier is in this mode already", effects);
        }
        self.change_tier(tier, mode, Policy::Auto, reason, effects);
    }

    fn set_policy(&mut self, tier: Tier, policy: Policy, reason: String, effects: &mut Vec<Effect>) {
        let standing = self.tier(tier);
        let mode = match policy {
            Policy::Hold(mode) => mode,
            Policy::DrillUntil(until_ms) if until_ms <= self.now_ms => return nothing("the drill is over", effects),
            Policy::DrillUntil(_) => Mode::Degraded,
            // What the tier is in truth, the nodes' reports will say; until then it is being brought back.
            Policy::Auto if standing.policy == Policy::Auto || standing.mode == Mode::Normal => standing.mode,
            Policy::Auto => Mode::Recovering,
        };
        if standing.policy == policy {
            return nothing("this is the tier's policy already", effects);
        }
        self.change_tier(tier, mode, policy, reason, effects);
    }

    fn end_drills(&mut self, effects: &mut Vec<Effect>) {
        for tier in Tier::ALL {
            if matches!(self.tier(tier).policy, Policy::DrillUntil(until_ms) if until_ms <= self.now_ms) {
                self.change_tier(tier, Mode::Recovering, Policy::Auto, "the drill is over".to_owned(), effects);
            }
        }
    }

    fn change_tier(&mut self, tier: Tier, mode: Mode, policy: Policy, reason: String, effects: &mut Vec<Effect>) {
        let since_ms = if self.tier(tier).mode == mode { self.tier(tier).since_ms } else { self.now_ms };
        let reason = bounded(reason);
        effects.push(Effect::ModeIs { tier, mode, policy });
        let incidents =
            [(IncidentKind::TierDegraded, mode != Mode::Normal), (IncidentKind::TierHeld, policy != Policy::Auto)];
        for (kind, is_so) in incidents {
            let is_open = self.incidents.find(kind, tier.name()).is_some();
            if is_so && !is_open {
                self.incidents.raise(self.now_ms, kind, tier.name().to_owned(), reason.clone(), effects);
            } else if !is_so {
                self.incidents.settle(self.now_ms, kind, tier.name(), effects);
            }
        }
        self.tiers[tier as usize] = TierStanding { mode, policy, since_ms, reason };
    }

    fn define(&mut self, fingerprint: u64, effects: &mut Vec<Effect>) {
        if self.definitions.version > 0 && self.definitions.fingerprint == fingerprint {
            return nothing("these are the definitions already", effects);
        }
        let version = self.definitions.version + 1;
        self.definitions = Definitions { version, fingerprint };
        effects.push(Effect::Defined { version, fingerprint });
    }
}

fn nothing(reason: &'static str, effects: &mut Vec<Effect>) {
    effects.push(Effect::Nothing { reason });
}

#[cfg(test)]
impl Catalog {
    pub fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// What must hold after every command.
    pub fn assert_sound(&self) {
        assert!(self.nodes.len() <= NODES_MOST && self.tasks.len() <= TASKS_MOST);
        let mut epochs = std::collections::BTreeSet::new();
        for (task, assignment) in &self.tasks {
            assert!(
                assignment.epoch <= self.last_epoch && epochs.insert(assignment.epoch),
                "{task}: epoch given twice"
            );
            for node in assignment.owner.iter().chain(&assignment.standby) {
                let node = self.nodes.get(node).unwrap_or_else(|| panic!("{task}: {node} is not known"));
                assert!(node.state != NodeState::Lost, "{task}: {} is lost", node.profile.name);
            }
            assert!(
                assignment.owner.is_none() || assignment.owner != assignment.standby,
                "{task}: stands by for itself"
            );
        }
        self.incidents.assert_bounded();
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
