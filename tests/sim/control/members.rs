//! Members: the production core of membership, and tasks that are begun and let go at its word.
//!
//! Invariant: a gate or slave runs because a member said `Run`, under the epoch that goes with it, and never otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast::gate::lane::{self, Lane};
use holdfast::member::membership::{Effect, Input, Membership, Pace};
use holdfast::member::work::{How, Work};
use holdfast::model::task::{self, BootId, NodeProfile, Role as NodeRole};
use holdfast::net::control::{Directory, FromMaster, FromNode};
use holdfast::slave::exchange;
use holdfast::slave::partition::Partition;

use super::wires::{Parcel, Told};
use super::{Event, MASTERS, address, name};
use crate::assigner::{Kind, Task};
use crate::bugs::Bug;
use crate::calls::ActorId;
use crate::shop;
use crate::world::{NodeId, Role, World};

pub struct Member {
    pub boot: BootId,
    core: Membership,
    /// Connections that there are, by the address of the master.
    links: BTreeMap<String, (u64, usize)>,
    /// What runs, or ends.
    pub works: BTreeMap<Work, ActorId>,
    /// The newest of each task: whom others in this process find.
    pub current: BTreeMap<Task, (Work, ActorId)>,
    /// To be told when they have ended.
    ending: BTreeMap<ActorId, Work>,
    /// Does it stop once it is free to?
    pub leaves: bool,
    pub is_displaced: bool,
}

pub fn of_model(task: &task::Task) -> Option<Task> {
    match task {
        task::Task::Gate(partition) => Some(Task { kind: Kind::Gate, partition: *partition }),
        task::Task::Compute(partition) => Some(Task { kind: Kind::Slave, partition: *partition }),
        _ => None,
    }
}

pub fn to_model(task: Task) -> task::Task {
    match task.kind {
        Kind::Gate => task::Task::Gate(task.partition),
        _ => task::Task::Compute(task.partition),
    }
}

impl World {
    pub fn start_member(&mut self, node: NodeId) {
        let boot = self.next_boot();
        let role = if self.nodes[node].kind == Kind::Gate { NodeRole::Gate } else { NodeRole::Slave };
        let roles: BTreeSet<NodeRole> = [role].into();
        let listen = Some(address(node));
        let profile = NodeProfile { name: name(node), boot, roles, listen, http: None, host: None, weight: 100 };
        let masters = MASTERS.map(address);
        let settings = &self.control().settings;
        let pace = Pace { report_ms: 1_000, reclaim_ms: 2 * settings.handover.as_i64() };
        let beat_ms = settings.node_heartbeat.as_i64();
        let member = Member {
            boot,
            core: Membership::new(profile, &masters, pace),
            links: BTreeMap::new(),
            works: BTreeMap::new(),
            current: BTreeMap::new(),
            ending: BTreeMap::new(),
            leaves: false,
            is_displaced: false,
        };
        self.control().members.insert(node, member);
        let first_ms = self.random.between(1, beat_ms);
        self.soon(first_ms, Event::MemberTick { node, boot });
    }

    pub fn member_tick(&mut self, node: NodeId, boot: BootId) {
        if self.life_of(node) != Some(boot) {
            return;
        }
        let beat_ms = self.control().settings.node_heartbeat.as_i64();
        self.soon(beat_ms, Event::MemberTick { node, boot });
        self.step_member(node, Input::Tick);
    }

    pub fn link_is(&mut self, told: &Told) {
        let master = address(told.peer);
        let Some(member) = self.control().members.get_mut(&told.node) else { return };
        let input = match told.is_up {
            true => {
                member.links.insert(master.clone(), (told.connection, told.wire));
                Input::Up { address: master, peer: name(told.peer), connection: told.connection }
            }
            false => {
                member.links.remove(&master);
                Input::Down { address: master }
            }
        };
        self.step_member(told.node, input);
    }

    pub fn master_says(&mut self, node: NodeId, from: NodeId, mut message: FromMaster) {
        self.before_following(&mut message);
        self.step_member(node, Input::Heard { from: name(from), message });
    }

    pub fn step_member(&mut self, node: NodeId, input: Input) {
        let now_ms = self.clock_ms(node);
        let Some(member) = self.control().members.get_mut(&node) else { return };
        let effects = member.core.step(now_ms, input);
        for effect in effects {
            self.member_effect(node, effect);
        }
    }

    fn member_effect(&mut self, node: NodeId, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                if let FromNode::Released { task, epoch, .. } = &message {
                    self.watch_release(node, task, *epoch);
                }
                let Some((connection, wire)) = self.control().members[&node].links.get(&to).copied() else { return };
                if self.control().wires.all[wire].connection == Some(connection) {
                    self.put(wire, true, Parcel::ToMaster(message));
                }
            }
            // What nodes say of their load moves nothing here: two partitions weigh about the same.
            Effect::MakeReport => self.step_member(node, Input::Reported(None)),
            Effect::DirectoryIs(directory) => self.watch_directory(node, &directory),
            Effect::LetGo(work, how) => self.let_go(node, &work, how),
            Effect::Run(work) => self.run_work(node, work),
            // Captures are beside this simulation.
            Effect::Order(..) => {}
            // The masters are the same all along.
            Effect::Dial(_) => {}
            Effect::FreeToGo => self.free_to_go(node),
            Effect::Displaced { boot } => {
                self.tell(|| format!("n{node} is displaced by boot {boot}"));
                self.control().members.get_mut(&node).expect("it lives").is_displaced = true;
            }
        }
    }

    // --- tasks ---

    fn run_work(&mut self, node: NodeId, work: Work) {
        let Some(task) = of_model(&work.task) else { return };
        self.watch_run(node, &work);
        let (epoch, partition) = (work.actor_epoch(), task.partition);
        self.mark(epoch);
        let role = match task.kind {
            Kind::Gate => Role::Gate(Box::new(Lane::new(partition, epoch, self.plan.gate.clone()))),
            _ => {
                let core = Partition::new(partition, epoch, shop::catalog(), self.plan.slave.clone());
                Role::Slave { core: Box::new(core), timer_ms: None }
            }
        };
        let id = self.new_actor(node, partition, role);
        self.tell(|| format!("n{node} begins {} as actor {id}, epoch {epoch}", work.task));
        let member = self.control().members.get_mut(&node).expect("it lives");
        member.works.insert(work.clone(), id);
        member.current.insert(task, (work, id));
        match task.kind {
            Kind::Gate => {
                self.step_gate(id, lane::Input::Start);
                let first_ms = self.plan.gate.heartbeat.as_i64();
                self.after(first_ms, crate::event::Event::Beat { to: id });
            }
            _ => self.step_slave(id, exchange::Input::Tick),
        }
    }

    fn let_go(&mut self, node: NodeId, work: &Work, how: How) {
        self.tell(|| format!("n{node} lets go of {} of epoch {}: {how:?}", work.task, work.epoch));
        let hasty = self.bug == Some(Bug::ReleasedUnsaved) && how == How::HandOver;
        let Some(task) = of_model(&work.task) else { return };
        let member = self.control().members.get_mut(&node).expect("it lives");
        if member.current.get(&task).is_some_and(|(it, _)| it == work) {
            member.current.remove(&task);
        }
        let (boot, id) = (member.boot, member.works.get(work).copied());
        let Some(id) = id.filter(|id| self.actors.contains_key(id)) else {
            return self.soon(0, Event::Ended { node, boot, work: work.clone() });
        };
        self.control().members.get_mut(&node).expect("it lives").ending.insert(id, work.clone());
        if hasty {
            return self.soon(0, Event::Ended { node, boot, work: work.clone() });
        }
        match &self.actors[&id].role {
            Role::Gate(_) => {
                let most_ms = self.plan.gate.publish_timeout.as_i64();
                self.soon(most_ms, Event::Ended { node, boot, work: work.clone() });
                self.step_gate(id, lane::Input::Stop);
            }
            Role::Slave { core, .. } if core.standing().is_over() => self.actor_ended(id),
            _ => self.step_slave(id, exchange::Input::Stop),
        }
    }

    /// A core that was let go has come to its end.
    pub fn actor_ended(&mut self, id: ActorId) {
        let Some(node) = self.actors.get(&id).map(|actor| actor.node).filter(|_| self.has_masters()) else { return };
        let Some(member) = self.control().members.get_mut(&node) else { return };
        let boot = member.boot;
        if let Some(work) = member.ending.get(&id).cloned() {
            self.soon(0, Event::Ended { node, boot, work });
        }
    }

    pub fn work_ended(&mut self, node: NodeId, boot: BootId, work: Work) {
        if self.life_of(node) != Some(boot) {
            return;
        }
        let member = self.control().members.get_mut(&node).expect("it lives");
        let Some(id) = member.works.remove(&work) else {
            // What had no actor any more; and gates that have ended before their time was over.
            return self.step_member(node, Input::Ended(work));
        };
        member.ending.remove(&id);
        self.watch_end(id, &work);
        self.end_actor(id);
        self.step_member(node, Input::Ended(work));
    }

    // --- who is where, as somebody sees it ---

    pub fn directory_of(&self, node: NodeId) -> Option<&Arc<Directory>> {
        Some(self.control.as_ref()?.members.get(&node)?.core.directory())
    }

    /// The actor that whoever asks in this process would find.
    pub fn found_from(&self, node: NodeId, task: Task) -> Option<ActorId> {
        let directory = self.directory_of(node)?;
        let asked = to_model(task);
        let (_, assignment) = directory.tasks.iter().find(|(it, _)| *it == asked)?;
        let owner = super::node_of(assignment.owner.as_ref()?);
        let (_, id) = self.control.as_ref()?.members.get(&owner)?.current.get(&task)?;
        self.actors.contains_key(id).then_some(*id)
    }

    /// Whose the masters say that it is, if it runs there under that assignment.
    pub fn committed_owner(&self, task: Task) -> Option<ActorId> {
        let control = self.control.as_ref()?;
        let now = control.watch.catalog.task(&to_model(task))?;
        let owner = super::node_of(now.owner.as_ref()?);
        let (work, id) = control.members.get(&owner)?.current.get(&task)?;
        (work.epoch == now.epoch && self.actors.contains_key(id)).then_some(*id)
    }

    // --- the end ---

    pub fn leave(&mut self, node: NodeId) {
        if let Some(member) = self.control().members.get_mut(&node) {
            member.leaves = true;
            self.step_member(node, Input::Leave);
        }
    }

    /// The process ends, and is started again under the same name.
    fn free_to_go(&mut self, node: NodeId) {
        self.tell(|| format!("n{node} is free to go"));
        self.watch_farewell(node);
        self.nodes[node].is_up = false;
        for id in self.actors_on(node) {
            self.end_actor(id);
        }
        self.end_process(node);
        let back_ms = self.random.between(100, 2_000);
        self.after(back_ms, crate::event::Event::Repair(crate::faults::Repair::Start(node)));
    }
}
