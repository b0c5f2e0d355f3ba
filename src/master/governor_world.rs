//! A governor, its catalog and its nodes in virtual time: production decisions on both sides of a commit that takes its time or
//! gets lost, and nodes that join, die, stop, come back and are drained.
//!
//! Invariant: what is checked is what the catalog says after each command, and what is left when all is quiet.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::Catalog;
use super::command::{self, Command};
use super::duties::{Effect, Group, Input, Session};
use super::governor::{Charter, Governor};
use super::group_world::Random;
use super::masters::Masters;
use super::requests::{Answer, Token};
use super::settings::Settings;
use crate::model::id::Epoch;
use crate::model::task::{BootId, NodeName, NodeProfile, NodeState, Role, Task};
use crate::net::control::{Answered, Ask, Directory, FromMaster, FromNode};

/// What the governor sees, while other fields of the world are borrowed.
macro_rules! group {
    ($world:expr) => {
        Group {
            catalog: &$world.catalog,
            index: $world.index,
            applied: $world.index,
            term: $world.term,
            me: 1,
            masters: &$world.masters,
            reachable: &$world.reachable,
        }
    };
}

pub const PARTITIONS: u16 = 12;
const TICK_MS: i64 = 25;

/// A process of a node.
pub struct Process {
    pub profile: NodeProfile,
    pub session: Option<Session>,
    pub paused_until: i64,
    pub directory: Option<Directory>,
    /// What it has let go of, by order.
    pub released: BTreeSet<(Task, Epoch)>,
    /// Does as it is told?
    pub is_obedient: bool,
    pub leaves: bool,
}

pub struct World {
    pub now_ms: i64,
    pub random: Random,
    pub catalog: Catalog,
    pub governor: Option<Governor>,
    pub nodes: BTreeMap<u8, Process>,
    pub answers: BTreeMap<u64, Answered>,
    pub notified: Vec<(String, bool)>,
    /// Commands that moved a task from one owner to another.
    pub moves: usize,
    pub proposed: usize,
    pub term: u64,
    index: u64,
    masters: Masters,
    reachable: BTreeSet<u64>,
    commits: Vec<(i64, u64, Token, Command)>,
    highest: BTreeMap<Task, Epoch>,
    next: u64,
    settings: Settings,
    /// Of a hundred commands so many get lost.
    pub loss: u64,
}

pub fn name(number: u8) -> NodeName {
    NodeName::new(&format!("n{number}"))
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, Catalog::default(), Settings::for_tests())
    }

    pub fn with(seed: u64, catalog: Catalog, settings: Settings) -> Self {
        let addresses = [(1, "m:1".to_owned()), (2, "m:2".to_owned()), (3, "m:3".to_owned())].into();
        let mut world = Self {
            now_ms: 1_000_000,
            random: Random::new(seed),
            catalog,
            governor: None,
            nodes: BTreeMap::new(),
            answers: BTreeMap::new(),
            notified: Vec::new(),
            moves: 0,
            proposed: 0,
            term: 1,
            index: 1,
            masters: Masters { voters: vec![1, 2, 3], learners: vec![], addresses },
            reachable: [2, 3].into(),
            commits: Vec::new(),
            highest: BTreeMap::new(),
            next: 0,
            settings,
            loss: 0,
        };
        world.elect();
        world
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Another master becomes active: memory is gone, the catalog stays. What was proposed may still be committed.
    pub fn elect(&mut self) {
        let before = self.governor.take();
        let left = before.map(Governor::end).unwrap_or_default();
        assert!(left.iter().all(|it| matches!(it, Effect::Answer { .. })), "a deposed governor decides nothing");
        self.run(left);
        self.commits.retain(|_| self.random.chance(50));
        // What is committed at all is, before the next one is active.
        for (_, _, token, command) in std::mem::take(&mut self.commits) {
            self.commit(token, command);
        }
        self.term += 1;
        self.index += 1;
        let charter = Charter {
            settings: self.settings.clone(),
            me: NodeName::new("m"),
            partitions: PARTITIONS,
            sources: vec![],
            fingerprint: 9,
        };
        let governor = Governor::new(charter, self.now_ms, &group!(self));
        self.governor = Some(governor);
        // Sessions are of the active master's connections.
        let numbers: Vec<u8> = self.nodes.keys().copied().collect();
        for number in numbers {
            self.nodes.get_mut(&number).expect("known").session = None;
            self.connect(number);
        }
    }

    // Nodes.

    pub fn start(&mut self, number: u8) {
        let boot = self.number();
        let roles = [Role::Gate, Role::Slave].into();
        let listen = Some(format!("n{number}:1"));
        let profile = NodeProfile { name: name(number), boot, roles, listen, http: None, host: None, weight: 100 };
        self.stop(number);
        let process = Process {
            profile,
            session: None,
            paused_until: 0,
            directory: None,
            released: BTreeSet::new(),
            is_obedient: true,
            leaves: false,
        };
        self.nodes.insert(number, process);
        self.connect(number);
    }

    fn connect(&mut self, number: u8) {
        let session = self.number();
        let node = self.nodes.get_mut(&number).expect("it runs");
        node.session = Some(session);
        if node.paused_until <= self.now_ms {
            let message = FromNode::Hello { profile: node.profile.clone() };
            self.step(Input::Heard { session, message });
        }
    }

    /// Killed, or its connections were.
    pub fn stop(&mut self, number: u8) {
        if let Some(session) = self.nodes.remove(&number).and_then(|node| node.session) {
            self.step(Input::Closed { session });
        }
    }

    pub fn break_off(&mut self, number: u8) {
        if let Some(session) = self.nodes.get_mut(&number).and_then(|node| node.session.take()) {
            self.step(Input::Closed { session });
        }
    }

    pub fn ask(&mut self, what: Ask) -> u64 {
        let ask = self.number();
        self.step(Input::Asked { ask, what });
        ask
    }

    pub fn hear(&mut self, session: Session, message: FromNode) {
        self.step(Input::Heard { session, message });
    }

    pub fn drain(&mut self, number: u8, draining: bool) -> u64 {
        self.ask(Ask::Drain { node: name(number), draining })
    }

    fn act(&mut self, number: u8) {
        let Some(node) = self.nodes.get(&number).filter(|node| node.paused_until <= self.now_ms) else { return };
        let Some(session) = node.session else { return self.connect(number) };
        let (name, boot) = (node.profile.name.clone(), node.profile.boot);
        let known = |directory: &Directory| directory.nodes.iter().any(|(it, _)| it.boot == boot);
        let message = match &node.directory {
            Some(directory) if known(directory) => {
                FromNode::Beat { node: name, boot, directory: directory.version, report: None }
            }
            _ => FromNode::Hello { profile: node.profile.clone() },
        };
        self.step(Input::Heard { session, message });
        let node = &self.nodes[&number];
        // What it has let go of it says again while it is still told to have it: the one who asked may be deposed.
        let still_has = |(task, epoch): &(Task, Epoch)| {
            let mut told = node.directory.iter().flat_map(|it| &it.tasks);
            told.any(|(it, now)| it == task && now.epoch == *epoch && now.owner.as_ref() == Some(&node.profile.name))
        };
        let kept: Vec<(Task, Epoch)> = node.released.iter().filter(|it| still_has(it)).cloned().collect();
        for (task, epoch) in kept {
            let message = FromNode::Released { node: self.nodes[&number].profile.name.clone(), boot, task, epoch };
            self.step(Input::Heard { session, message });
        }
        let node = &self.nodes[&number];
        if node.leaves {
            let message = FromNode::Leaving { node: node.profile.name.clone(), boot };
            self.step(Input::Heard { session, message });
        }
    }

    // Time.

    pub fn pass(&mut self, duration_ms: i64) {
        let end_ms = self.now_ms + duration_ms;
        while self.now_ms < end_ms {
            self.now_ms += TICK_MS;
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.commits).into_iter().partition(|it| it.0 <= self.now_ms);
            self.commits = later;
            for (_, term, token, command) in due {
                assert!(term == self.term, "of an earlier term");
                self.commit(token, command);
            }
            let numbers: Vec<u8> = self.nodes.keys().copied().collect();
            for number in numbers {
                if (self.now_ms / TICK_MS + i64::from(number)) % 8 == 0 {
                    self.act(number);
                }
            }
            self.step(Input::Tick);
        }
    }

    fn commit(&mut self, token: Token, command: Command) {
        let before: BTreeMap<Task, _> = self.catalog.tasks().map(|(task, it)| (task.clone(), it.clone())).collect();
        self.index += 1;
        let effects = self.catalog.apply(command);
        self.catalog.assert_sound();
        for effect in &effects {
            let command::Effect::Assigned { task, now, .. } = effect else { continue };
            let highest = self.highest.entry(task.clone()).or_default();
            let owner_before = before.get(task).and_then(|it| it.owner.clone());
            if now.owner.is_some() && owner_before.is_some() && now.owner != owner_before {
                assert!(now.epoch > *highest, "{task}: another owner under an old epoch");
                self.moves += 1;
            }
            *highest = (*highest).max(now.epoch);
        }
        self.step(Input::Applied { effects });
        self.step(Input::Responded { token, answer: Answer::Committed { index: self.index } });
    }

    fn step(&mut self, input: Input) {
        let Some(mut governor) = self.governor.take() else { return };
        let effects = governor.step(self.now_ms, &group!(self), input);
        self.governor = Some(governor);
        self.run(effects);
    }

    fn run(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose { token, command } => {
                    self.proposed += 1;
                    assert!(self.commits.len() < 100, "proposals without end");
                    if self.random.chance(self.loss) {
                        self.step(Input::Responded { token, answer: Answer::Superseded });
                    } else {
                        let at_ms = self.now_ms + self.random.below(60) as i64;
                        self.commits.push((at_ms, self.term, token, command));
                    }
                }
                Effect::Send { to, message } => to.into_iter().for_each(|session| self.deliver(session, &message)),
                Effect::Answer { ask, answer } => {
                    assert!(self.answers.insert(ask, answer).is_none(), "two answers");
                }
                Effect::Notify(incident) => self.notified.push((incident.subject, incident.closed_ms.is_none())),
                Effect::ChangeMasters { .. } | Effect::Invite { .. } | Effect::StepAside => {}
            }
        }
    }

    fn deliver(&mut self, session: Session, message: &FromMaster) {
        let now_ms = self.now_ms;
        let Some(node) = self.nodes.values_mut().find(|node| node.session == Some(session)) else { return };
        if node.paused_until > now_ms {
            return;
        }
        match message {
            FromMaster::Directory(directory) => {
                let newest = node.directory.as_ref().map_or(0, |it| it.version);
                if directory.version > newest {
                    node.directory = Some(Directory::clone(directory));
                }
            }
            FromMaster::Release { task, epoch } if node.is_obedient => {
                node.released.insert((task.clone(), *epoch));
                let (name, boot) = (node.profile.name.clone(), node.profile.boot);
                let message = FromNode::Released { node: name, boot, task: task.clone(), epoch: *epoch };
                self.step(Input::Heard { session, message });
            }
            FromMaster::Release { .. } | FromMaster::Standing { .. } | FromMaster::Order { .. } => {}
        }
    }

    // What must be so.

    pub fn owned(&self, number: u8) -> usize {
        self.catalog.tasks().filter(|(_, it)| it.owner.as_ref() == Some(&name(number))).count()
    }

    pub fn state(&self, number: u8) -> Option<NodeState> {
        self.catalog.node(&name(number)).map(|node| node.state)
    }

    pub fn boot(&self, number: u8) -> Option<BootId> {
        self.catalog.node(&name(number)).map(|node| node.profile.boot)
    }

    /// Everything has been well for long enough: all is as it should be, and nothing happens any more.
    pub fn assert_settled(&mut self) {
        let (proposed, moves) = (self.proposed, self.moves);
        self.pass(10_000);
        assert_eq!((self.proposed, self.moves), (proposed, moves), "something goes on without end");
        let draining: BTreeSet<u8> =
            self.nodes.keys().copied().filter(|it| self.state(*it) == Some(NodeState::Draining)).collect();
        let candidates: Vec<u8> = self.nodes.keys().copied().filter(|it| !draining.contains(it)).collect();
        if candidates.is_empty() {
            return;
        }
        assert_eq!(self.catalog.tasks().count(), 2 * usize::from(PARTITIONS));
        for number in &draining {
            assert_eq!(self.owned(*number), 0, "n{number} is drained");
        }
        let share = usize::from(PARTITIONS).div_ceil(candidates.len());
        let least = usize::from(PARTITIONS) / candidates.len();
        for number in &candidates {
            assert_eq!(self.state(*number), Some(NodeState::Alive), "n{number}");
            assert!((2 * least..=2 * share).contains(&self.owned(*number)), "n{number} owns {}", self.owned(*number));
        }
        for (task, now) in self.catalog.tasks() {
            let owner = now.owner.as_ref().expect("all tasks have an owner");
            let node = self.nodes.values().find(|node| node.profile.name == *owner).expect("a living owner");
            let directory = node.directory.as_ref().expect("it was told");
            let told = directory.tasks.iter().find(|(it, _)| it == task).map(|(_, it)| it);
            assert_eq!(told, Some(now), "{task}: its owner knows");
            assert!(!node.released.contains(&(task.clone(), now.epoch)), "{task}: its owner has let go of it");
        }
    }
}
