//! What must hold of the control plane, whatever the story: what was decided is decided once, and nodes do that and nothing
//! else.
//!
//! Invariant: compared are the commands that masters apply, what members are told, and what they do about it; no core is
//! asked what it thinks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use holdfast::master::catalog::Catalog;
use holdfast::master::command::{self, Change, Command};
use holdfast::member::work::Work;
use holdfast::model::id::Epoch;
use holdfast::model::task::{Assignment, BootId, NodeName, NodeState, Task};
use holdfast::net::control::Directory;

use super::members::{of_model, to_model};
use super::{name, node_of};
use crate::assigner::Kind;
use crate::calls::ActorId;
use crate::checkers::Violation;
use crate::shop;
use crate::world::{NodeId, Role, World};

type Tasks = Arc<Vec<(Task, Assignment)>>;

#[derive(Default)]
pub struct Watch {
    /// As decided by the last command that any master applied.
    pub catalog: Catalog,
    pub index: u64,
    commands: HashMap<u64, u32>,
    /// Who had what, from the command of this index on.
    decided: BTreeMap<u64, Tasks>,
    /// To which process an epoch was given, for what.
    given: BTreeMap<Epoch, (Task, NodeName, BootId)>,
    active: BTreeMap<u64, NodeId>,
    begun: BTreeSet<Epoch>,
    /// The version of the directory that a process follows, and the highest epoch of each task that it was told of.
    followed: HashMap<BootId, u64>,
    told: HashMap<(BootId, Task), Epoch>,
    /// Works of slaves that were not over when their actors ended.
    unfinished: BTreeSet<(NodeId, Work)>,
    contacts: HashMap<(NodeId, NodeId, BootId), Contact>,
    activated_ms: HashMap<NodeId, i64>,
}

/// How a master hears a process.
#[derive(Debug, Clone, Copy)]
struct Contact {
    heard_ms: i64,
    closed_ms: Option<i64>,
}

impl Watch {
    pub fn state_of(&self, node: NodeId) -> Option<NodeState> {
        self.catalog.node(&name(node)).map(|node| node.state)
    }
}

impl World {
    pub fn breaks(&mut self, rule: &'static str, text: String) {
        self.check(Err(Violation { rule, text }));
    }

    fn watch(&mut self) -> &mut Watch {
        &mut self.control().watch
    }

    // --- what masters decide ---

    pub fn committed(&mut self, node: NodeId, index: u64, command: &Bytes) {
        let hash = crc32fast::hash(command);
        let watch = self.watch();
        if *watch.commands.entry(index).or_insert(hash) != hash {
            return self
                .breaks("masters", format!("n{node} applies another command at {index} than was applied before"));
        }
        if index <= watch.index {
            return;
        }
        watch.index = index;
        let effects = watch.catalog.apply(Command::decode(command).expect("a command"));
        let mut twice = None;
        let (mut moves, mut moved) = (false, 0);
        for effect in effects {
            let command::Effect::Assigned { task, now, before } = effect else { continue };
            moves = true;
            let Some(owner) = &now.owner else { continue };
            moved += u64::from(before.is_some_and(|before| before.owner.is_some_and(|before| before != *owner)));
            let boot = watch.catalog.node(owner).map_or(0, |node| node.profile.boot);
            let to = (task.clone(), owner.clone(), boot);
            let first = watch.given.entry(now.epoch).or_insert_with(|| to.clone());
            if *first != to {
                twice = Some(format!("epoch {} is given to {to:?}, and was given to {first:?}", now.epoch));
            }
        }
        if moves || watch.decided.is_empty() {
            let tasks = watch.catalog.tasks().map(|(task, it)| (task.clone(), it.clone())).collect();
            watch.decided.insert(index, Arc::new(tasks));
        }
        self.tally.moves += moved;
        if let Some(text) = twice {
            self.breaks("I5", text);
        }
    }

    pub fn watch_activation(&mut self, node: NodeId, term: u64) {
        let now_ms = self.now_ms;
        let watch = self.watch();
        watch.activated_ms.insert(node, now_ms);
        if let Some(other) = watch.active.insert(term, node) {
            self.breaks("masters", format!("n{node} is active in term {term}, in which n{other} was"));
        }
    }

    pub fn watch_link(&mut self, master: NodeId, peer: NodeId, boot: BootId, is_up: bool) {
        let now_ms = self.now_ms;
        let contact = Contact { heard_ms: now_ms, closed_ms: None };
        let contact = self.watch().contacts.entry((master, peer, boot)).or_insert(contact);
        contact.closed_ms = (!is_up).then_some(now_ms);
    }

    pub fn watch_heard(&mut self, master: NodeId, peer: NodeId) {
        let (now_ms, boot) = (self.now_ms, self.life_of(peer).unwrap_or(0));
        if let Some(contact) = self.watch().contacts.get_mut(&(master, peer, boot)) {
            contact.heard_ms = now_ms;
        }
    }

    /// Nobody is declared lost who was neither silent nor away for as long as that takes.
    pub fn watch_proposal(&mut self, master: NodeId, command: &Command) {
        let Change::NodeLost { node, boot, .. } = &command.change else { return };
        let (now_ms, jumps) = (self.now_ms, self.plan.clock_off_ms > 0);
        let Some(control) = &self.control else { return };
        let (settings, watch) = (&control.settings, &control.watch);
        // What passes between two looks counts as four ticks at most, and so does a clock that is set.
        let tick_ms = settings.tick.as_i64();
        let slack_ms = if jumps { 8 * tick_ms } else { 4 * tick_ms };
        let (grace_ms, silence_ms) = (settings.node_grace.as_i64(), settings.node_silence.as_i64());
        let active_ms = watch.activated_ms.get(&master).copied().unwrap_or(now_ms);
        let peer = node_of(node);
        let contact = watch.contacts.get(&(master, peer, *boot));
        let heard_ms = contact.map_or(active_ms, |contact| contact.heard_ms.max(active_ms));
        let closed_ms = contact.and_then(|contact| contact.closed_ms).map(|closed_ms| closed_ms.max(active_ms));
        let silent = now_ms - heard_ms + slack_ms >= silence_ms;
        let away = closed_ms.is_some_and(|closed_ms| now_ms - closed_ms + slack_ms >= grace_ms);
        if !silent && !away {
            let text =
                format!("n{master} declares {node} lost that it heard {} ms ago: {contact:?}", now_ms - heard_ms);
            self.breaks("masters", text);
        }
    }

    // --- what members are told and do ---

    pub fn watch_directory(&mut self, node: NodeId, directory: &Directory) {
        let boot = self.life_of(node).unwrap_or(0);
        let watch = self.watch();
        let before = watch.followed.insert(boot, directory.version).unwrap_or(0);
        for (task, assignment) in &directory.tasks {
            let told = watch.told.entry((boot, task.clone())).or_default();
            *told = assignment.epoch.max(*told);
        }
        let decided = watch.decided.range(..=directory.version).next_back().map(|(_, tasks)| tasks);
        let is_decided = decided.map_or(directory.tasks.is_empty(), |tasks| **tasks == directory.tasks);
        // The beginning, before any command.
        let known = directory.version <= watch.index.max(1);
        if directory.version <= before {
            let text = format!("n{node} follows directory {} after {before}", directory.version);
            self.breaks("I5", text);
        } else if !is_decided || !known {
            let text = format!("n{node} follows a directory {} that nobody has decided", directory.version);
            self.breaks("I5", text);
        }
    }

    pub fn watch_run(&mut self, node: NodeId, work: &Work) {
        let boot = self.life_of(node).unwrap_or(0);
        let me = (work.task.clone(), name(node), boot);
        let watch = self.watch();
        let given = watch.given.get(&work.epoch).cloned();
        let told = watch.told.get(&(boot, work.task.clone())).copied().unwrap_or(0);
        let again = !watch.begun.insert(work.actor_epoch());
        if given.as_ref() != Some(&me) {
            self.breaks("I5", format!("{me:?} begins under epoch {}, which was given to {given:?}", work.epoch));
        } else if again {
            self.breaks("I5", format!("{me:?} begins a second time under epoch {}", work.actor_epoch()));
        } else if told > work.epoch {
            self.breaks("I5", format!("{me:?} begins under epoch {} after it was told of {told}", work.epoch));
        }
    }

    /// An actor that was let go is taken away: had it come to its end?
    pub fn watch_end(&mut self, id: ActorId, work: &Work) {
        let Some(actor) = self.actors.get(&id) else { return };
        let node = actor.node;
        let is_over = match &actor.role {
            Role::Slave { core, .. } => core.standing().is_over(),
            // Gates need not save anything, and have a limit to their time.
            _ => true,
        };
        if !is_over {
            self.watch().unfinished.insert((node, work.clone()));
        }
    }

    /// Whoever says that it has let go has published and saved all.
    pub fn watch_release(&mut self, node: NodeId, task: &Task, epoch: Epoch) {
        let is_it = |work: &Work| work.task == *task && work.epoch == epoch;
        let runs = self.control().members.get(&node).is_some_and(|member| member.works.keys().any(is_it));
        let unfinished = self.watch().unfinished.iter().any(|(it, work)| *it == node && is_it(work));
        if runs || unfinished {
            self.breaks(
                "handover",
                format!("n{node} says that it has let go of {task} of {epoch}, and has not finished"),
            );
        }
        self.tally.releases += 1;
    }

    /// Whoever goes has handed over all that it had. What masters decide at that moment it does not know.
    pub fn watch_farewell(&mut self, node: NodeId) {
        let works: Vec<Work> = self.control().members[&node].works.keys().cloned().collect();
        if !works.is_empty() {
            self.breaks("drain", format!("n{node} goes, and still does {works:?}"));
        }
        self.tally.farewells += 1;
    }

    // --- when the faults have ended ---

    /// What is not yet as it should be.
    pub fn unsettled(&self) -> Option<String> {
        let control = self.control.as_ref()?;
        let watch = &control.watch;
        if self.active_master().is_none() {
            return Some("there is no active master".into());
        }
        for node in control.members.keys() {
            let known = watch.catalog.node(&name(*node));
            let is_known = known.is_some_and(|known| {
                Some(known.profile.boot) == self.life_of(*node)
                    && matches!(known.state, NodeState::Alive | NodeState::Draining)
            });
            if !is_known || control.members[node].is_displaced {
                return Some(format!("n{node} is known as {known:?}"));
            }
            let has = watch.catalog.tasks().filter(|(_, it)| it.owner == Some(name(*node))).count();
            if watch.state_of(*node) == Some(NodeState::Draining) && has > 0 {
                return Some(format!("n{node} is drained and owns {has} tasks"));
            }
            let directory = self.directory_of(*node).expect("it is there");
            if !directory.tasks.iter().map(|(task, it)| (task, it)).eq(watch.catalog.tasks()) {
                return Some(format!("n{node} has directory {} of {}", directory.version, watch.index));
            }
        }
        for partition in shop::partitions() {
            for kind in [Kind::Gate, Kind::Slave] {
                let task = crate::assigner::Task { kind, partition };
                if self.committed_owner(task).is_none() {
                    return Some(format!("{task:?} is {:?}", watch.catalog.task(&to_model(task))));
                }
                let works = control.members.values().flat_map(|member| member.works.keys());
                let living = works.filter(|work| of_model(&work.task) == Some(task)).count();
                if living != 1 {
                    return Some(format!("{task:?} is done by {living}"));
                }
            }
        }
        None
    }
}
