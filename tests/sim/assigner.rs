//! Stands in for the masters in worlds without: says who owns which task, with epochs; notices dead nodes late, and living ones as dead.
//!
//! Invariant: an epoch is given once, and later ones are higher.

use std::collections::BTreeMap;

use holdfast::gate::lane::{Input, Lane};
use holdfast::model::id::{Epoch, PartitionId};
use holdfast::slave::partition::Partition;

use crate::calls::ActorId;
use crate::event::Event;
use crate::shop;
use crate::world::{NodeId, Role, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Gate,
    Slave,
    Query,
    Capture,
    Master,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    pub kind: Kind,
    pub partition: PartitionId,
}

#[derive(Debug, Default)]
pub struct Assigner {
    epoch: Epoch,
    /// Who had each task, the newest last. Some of those before may be alive.
    pub owners: BTreeMap<Task, Vec<ActorId>>,
}

/// As many actors of one task live at a time; more would only cost time.
const MOST_OWNERS: usize = 3;

impl World {
    /// Gives a task to a node, and does not ask whether somebody else still has it.
    pub fn assign(&mut self, task: Task) {
        let alive = |node: &NodeId| self.nodes[*node].is_up && self.nodes[*node].kind == task.kind;
        let alive: Vec<NodeId> = (0..self.nodes.len()).filter(alive).collect();
        if alive.is_empty() {
            // The one that comes back gets it.
            return;
        }
        let node = *self.random.pick(&alive);
        self.assign_to(task, node);
    }

    pub fn assign_to(&mut self, task: Task, node: NodeId) -> ActorId {
        self.assigner.epoch += 1;
        let (epoch, partition) = (self.assigner.epoch, task.partition);
        let role = match task.kind {
            Kind::Gate => Role::Gate(Box::new(Lane::new(partition, epoch, self.plan.gate.clone()))),
            Kind::Slave => {
                let core = Partition::new(partition, epoch, shop::catalog(), self.plan.slave.clone());
                Role::Slave { core: Box::new(core), timer_ms: None }
            }
            _ => panic!("{task:?} is not assigned"),
        };
        let id = self.new_actor(node, partition, role);
        self.tell(|| format!("assign {task:?} to node {node} as actor {id}, epoch {epoch}"));
        let owners = self.assigner.owners.entry(task).or_default();
        owners.push(id);
        let surplus = owners.len().saturating_sub(MOST_OWNERS);
        for oldest in owners.drain(..surplus).collect::<Vec<_>>() {
            self.end_actor(oldest);
        }
        match task.kind {
            Kind::Gate => {
                self.step_gate(id, Input::Start);
                let first_ms = self.plan.gate.heartbeat.as_i64();
                self.after(first_ms, Event::Beat { to: id });
            }
            _ => self.step_slave(id, holdfast::slave::exchange::Input::Tick),
        }
        id
    }

    /// Moves a task away from a living owner. It may be told to stop, or not have heard of it.
    pub fn reassign(&mut self, task: Task) {
        let before = self.owner(task);
        self.assign(task);
        let Some(before) = before else { return };
        if self.random.percent(40) {
            match task.kind {
                Kind::Gate => self.end_actor(before),
                _ => self.after(5, Event::Stop { to: before }),
            }
        }
    }

    pub fn owner(&self, task: Task) -> Option<ActorId> {
        if self.has_masters() {
            return self.committed_owner(task);
        }
        self.assigner.owners.get(&task)?.last().copied().filter(|id| self.actors.contains_key(id))
    }

    /// Whom a sender takes for the owner: as its node's directory says; without masters now and then the one before.
    pub fn believed_owner(&mut self, from: NodeId, task: Task) -> Option<ActorId> {
        if self.has_masters() {
            return self.found_from(from, task);
        }
        let owners = self.assigner.owners.get(&task)?;
        let stale = owners.len() > 1 && self.trouble && self.random.percent(10);
        let id = owners[owners.len() - 1 - usize::from(stale)];
        self.actors.contains_key(&id).then_some(id)
    }

    /// A node was found to be lost: its tasks go to others.
    pub fn detect(&mut self, node: NodeId) {
        if self.has_masters() {
            return;
        }
        let tasks: Vec<Task> =
            self.assigner.owners.keys().copied().filter(|task| task.kind == self.nodes[node].kind).collect();
        for task in tasks {
            let owner = self.assigner.owners[&task].last().copied();
            // Nobody, or one on that node.
            let gone = owner.and_then(|id| self.actors.get(&id)).is_none_or(|actor| actor.node == node);
            if gone {
                self.assign(task);
            }
        }
    }

    pub fn end_actor(&mut self, id: ActorId) {
        self.actors.remove(&id);
        self.offers.retain(|(actor, _), _| *actor != id);
        self.awaiting.values_mut().for_each(|waiting| waiting.retain(|(actor, _)| *actor != id));
    }

    pub fn actors_on(&self, node: NodeId) -> Vec<ActorId> {
        let mut ids: Vec<ActorId> =
            self.actors.iter().filter(|(_, actor)| actor.node == node).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}
