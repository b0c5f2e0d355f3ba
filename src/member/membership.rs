//! What a node says to the masters and does at their word. Pure: `step(now, input)` gives the effects, in order.
//!
//! Invariant: tasks run exactly as the newest directory says that was ever heard; without masters the last one holds, for
//! any length of time. A process whose name another process has taken does nothing any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::work::{How, MOST_TURNS, Work};
use crate::model::id::Epoch;
use crate::model::report::NodeReport;
use crate::model::task::{BootId, NodeName, NodeProfile, NodeState, SourceOrder, Task};
use crate::net::control::{Directory, FromMaster, FromNode};
use crate::net::whereabouts;

/// How often, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two reports.
    pub report_ms: i64,
    /// After a task was let go at a master's word and nobody has got it: that master is gone, and has told nobody.
    pub reclaim_ms: i64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// There is a connection to the master that listens there; also another one without a loss in between.
    Up {
        address: String,
        peer: NodeName,
        connection: u64,
    },
    Down {
        address: String,
    },
    Heard {
        from: NodeName,
        message: FromMaster,
    },
    /// Once per heartbeat.
    Tick,
    /// What `MakeReport` asked for; `None`: it could not be made.
    Reported(Option<Box<NodeReport>>),
    /// What `LetGo` asked for is done.
    Ended(Work),
    /// The node wants to go.
    Leave,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Send {
        to: String,
        message: FromNode,
    },
    MakeReport,
    DirectoryIs(Arc<Directory>),
    LetGo(Work, How),
    Run(Work),
    /// An operator's, of a source that is captured here.
    Order(Work, SourceOrder),
    /// Links are to be kept to these masters and no others.
    Dial(BTreeSet<String>),
    /// Nothing is this node's any more.
    FreeToGo,
    /// Another process has this node's name, and is believed.
    Displaced {
        boot: BootId,
    },
}

/// Masters that are dialed at once, whatever is said.
const MOST_MASTERS: usize = 16;
/// Nodes whose word about their standing is remembered.
const MOST_STANDINGS: usize = 64;
/// Tasks that may be given back ahead of their directory; others are begun, and then fenced.
const MOST_AHEAD: usize = 8_192;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Connected {
    peer: NodeName,
    connection: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    term: u64,
    is_active: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// Finishes, to say `Released`.
    Releasing,
    Released {
        at_ms: i64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    epoch: Epoch,
    turn: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    Stays,
    Leaves,
    IsFree,
    Displaced,
}

/// A node's membership.
#[derive(Debug)]
pub struct Membership {
    profile: NodeProfile,
    pace: Pace,
    /// By address.
    masters: BTreeMap<String, Option<Connected>>,
    /// Masters that were named as active and that the directory does not have.
    hints: BTreeSet<String>,
    standings: BTreeMap<NodeName, Standing>,
    /// The connection on which hello was said last.
    greeted: Option<u64>,
    directory: Arc<Directory>,
    /// Does the directory have this process? Did one ever?
    known: bool,
    was_known: bool,
    tasks: BTreeMap<Task, Held>,
    /// What was begun last of each task that the directory has.
    begun: BTreeMap<Task, (Epoch, u32)>,
    /// Epochs that were given back before a directory gave them to this node.
    released_ahead: BTreeMap<Task, Epoch>,
    /// What was let go, and has not ended.
    ending: BTreeSet<Work>,
    report: Option<Box<NodeReport>>,
    is_reporting: bool,
    reported_ms: Option<i64>,
    going: Going,
}

impl Membership {
    /// `masters`: as configured; the first directory replaces them.
    pub fn new(profile: NodeProfile, masters: &[String], pace: Pace) -> Self {
        Self {
            profile,
            pace,
            masters: masters.iter().take(MOST_MASTERS).map(|address| (address.clone(), None)).collect(),
            hints: BTreeSet::new(),
            standings: BTreeMap::new(),
            greeted: None,
            directory: Arc::default(),
            known: false,
            was_known: false,
            tasks: BTreeMap::new(),
            begun: BTreeMap::new(),
            released_ahead: BTreeMap::new(),
            ending: BTreeSet::new(),
            report: None,
            is_reporting: false,
            reported_ms: None,
            going: Going::Stays,
        }
    }

    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Where the active master listens, as far as is known.
    pub fn active(&self) -> Option<&str> {
        self.active_link().map(|(address, _)| address)
    }

    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Up { address, peer, connection } => {
                if let Some(master) = self.masters.get_mut(&address) {
                    *master = Some(Connected { peer, connection });
                }
            }
            // How it stood is remembered: what it says under the next connection may come before the connection is told of.
            Input::Down { address } => drop(self.masters.get_mut(&address).and_then(Option::take)),
            Input::Heard { from, message } => self.heard(now_ms, from, message, &mut effects),
            Input::Tick => self.tick(now_ms, &mut effects),
            Input::Reported(report) => {
                self.is_reporting = false;
                self.report = report;
            }
            Input::Ended(work) => self.ended(now_ms, &work, &mut effects),
            Input::Leave => self.leave(&mut effects),
        }
        self.greet(&mut effects);
        self.go(&mut effects);
        effects
    }

    // --- masters ---

    /// Of those that say that they are active, the one of the latest term: an older one has not noticed yet.
    fn active_link(&self) -> Option<(&str, &Connected)> {
        let connected = self.masters.iter().filter_map(|(address, link)| Some((address.as_str(), link.as_ref()?)));
        let active = connected.filter_map(|(address, link)| {
            let standing = self.standings.get(&link.peer).filter(|standing| standing.is_active)?;
            Some((standing.term, (address, link)))
        });
        active.max_by_key(|(term, _)| *term).map(|(_, link)| link)
    }

    /// Says hello on a connection to the active master that has not heard it.
    fn greet(&mut self, effects: &mut Vec<Effect>) {
        if self.going == Going::Displaced {
            return;
        }
        let Some((to, connection)) = self.active_link().map(|(to, link)| (to.to_owned(), link.connection)) else {
            return;
        };
        if self.greeted == Some(connection) {
            return;
        }
        self.greeted = Some(connection);
        effects.push(Effect::Send { to: to.clone(), message: self.hello() });
        effects.push(Effect::Send { to: to.clone(), message: self.beat(None) });
        if self.going == Going::Leaves {
            effects.push(Effect::Send { to, message: self.leaving() });
        }
    }

    fn say(&self, message: FromNode, effects: &mut Vec<Effect>) {
        if let Some((to, _)) = self.active_link() {
            effects.push(Effect::Send { to: to.to_owned(), message });
        }
    }

    fn hello(&self) -> FromNode {
        FromNode::Hello { profile: self.profile.clone() }
    }

    fn beat(&self, report: Option<Box<NodeReport>>) -> FromNode {
        let (node, boot) = self.me();
        FromNode::Beat { node, boot, directory: self.directory.version, report }
    }

    fn leaving(&self) -> FromNode {
        let (node, boot) = self.me();
        FromNode::Leaving { node, boot }
    }

    fn released(&self, task: Task, epoch: Epoch) -> FromNode {
        let (node, boot) = self.me();
        FromNode::Released { node, boot, task, epoch }
    }

    fn me(&self) -> (NodeName, BootId) {
        (self.profile.name.clone(), self.profile.boot)
    }

    fn tick(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        if self.going == Going::Displaced {
            return;
        }
        // One that has not said how it stands is asked by a greeting.
        let silent = self
            .masters
            .iter()
            .filter(|(_, link)| link.as_ref().is_some_and(|link| !self.standings.contains_key(&link.peer)));
        effects.extend(silent.map(|(to, _)| Effect::Send { to: to.clone(), message: self.hello() }));
        if self.active_link().is_some_and(|(_, link)| self.greeted == Some(link.connection)) {
            if !self.known {
                self.say(self.hello(), effects);
            }
            let report = self.report.take();
            self.say(self.beat(report), effects);
            if self.going == Going::Leaves {
                self.say(self.leaving(), effects);
            }
            // The clock may have been set.
            let is_due = |at_ms: i64| (now_ms - at_ms).abs() >= self.pace.report_ms;
            if !self.is_reporting && self.reported_ms.is_none_or(is_due) {
                (self.is_reporting, self.reported_ms) = (true, Some(now_ms));
                effects.push(Effect::MakeReport);
            }
        }
        self.reclaim(now_ms, effects);
    }

    fn heard(&mut self, now_ms: i64, from: NodeName, message: FromMaster, effects: &mut Vec<Effect>) {
        match message {
            FromMaster::Standing { term, is_active, active, .. } => {
                if self.standings.len() >= MOST_STANDINGS {
                    let masters = &self.masters;
                    self.standings.retain(|name, _| masters.values().flatten().any(|link| link.peer == *name));
                }
                self.standings.insert(from, Standing { term, is_active });
                if let Some(active) = active.filter(|active| !self.masters.contains_key(active)) {
                    self.hints.insert(active);
                    self.dial(effects);
                }
            }
            FromMaster::Directory(directory) => {
                if directory.version > self.directory.version {
                    self.follow(now_ms, directory, effects);
                }
            }
            FromMaster::Release { task, epoch } => {
                // One that was deposed has nothing to say.
                if self.active_link().is_some_and(|(_, link)| link.peer == from) {
                    self.release(task, epoch, effects);
                }
            }
            // Whoever sent it: it is for this assignment only.
            FromMaster::Order { task, epoch, order } => {
                let held = self.tasks.get(&task).filter(|held| held.epoch == epoch && held.state == State::Running);
                effects
                    .extend(held.map(|held| Effect::Order(Work { task: task.clone(), epoch, turn: held.turn }, order)));
            }
        }
    }

    /// Keeps to the masters of the directory, and to those that are said to be active since.
    fn dial(&mut self, effects: &mut Vec<Effect>) {
        let known = &self.directory.masters;
        let wanted: BTreeSet<String> = match known.is_empty() {
            true => self.masters.keys().chain(&self.hints).take(MOST_MASTERS).cloned().collect(),
            false => known.iter().chain(&self.hints).take(MOST_MASTERS).cloned().collect(),
        };
        if wanted.iter().eq(self.masters.keys()) {
            return;
        }
        self.masters.retain(|address, _| wanted.contains(address));
        for address in &wanted {
            self.masters.entry(address.clone()).or_default();
        }
        effects.push(Effect::Dial(wanted));
    }

    // --- tasks ---

    fn follow(&mut self, now_ms: i64, directory: Arc<Directory>, effects: &mut Vec<Effect>) {
        self.directory = directory.clone();
        effects.push(Effect::DirectoryIs(directory.clone()));
        self.hints.clear();
        self.dial(effects);
        let entry = whereabouts::node(&directory, &self.profile.name);
        let other = entry.map(|(profile, _)| profile.boot).filter(|boot| *boot != self.profile.boot);
        // A process that was just started finds the one before it here.
        if let Some(boot) = other.filter(|_| self.was_known && self.going != Going::Displaced) {
            self.going = Going::Displaced;
            effects.push(Effect::Displaced { boot });
        }
        self.known = other.is_none() && entry.is_some_and(|(_, state)| *state != NodeState::Lost);
        self.was_known |= self.known;
        let mine = self.mine();
        self.drop_what_is_not(&mine, effects);
        let begun: Vec<Work> = mine.into_iter().filter_map(|(task, epoch)| self.begin(now_ms, task, epoch)).collect();
        effects.extend(begun.into_iter().map(Effect::Run));
        let is_task = |task: &Task| whereabouts::assignment(&directory, task).is_some();
        self.begun.retain(|task, _| is_task(task));
        let known = |task: &Task| whereabouts::assignment(&directory, task).map_or(0, |assignment| assignment.epoch);
        self.released_ahead.retain(|task, epoch| *epoch > known(task));
    }

    /// What the directory gives to this process: only the process that it names has it, not one of the same name.
    fn mine(&self) -> BTreeMap<Task, Epoch> {
        if !self.known || self.going == Going::Displaced {
            return BTreeMap::new();
        }
        let is_mine = |name: &Option<NodeName>| name.as_ref() == Some(&self.profile.name);
        let tasks = self.directory.tasks.iter().filter(|(_, assignment)| is_mine(&assignment.owner));
        tasks.map(|(task, assignment)| (task.clone(), assignment.epoch)).collect()
    }

    fn drop_what_is_not(&mut self, mine: &BTreeMap<Task, Epoch>, effects: &mut Vec<Effect>) {
        let ending = &mut self.ending;
        self.tasks.retain(|task, held| {
            if mine.get(task) == Some(&held.epoch) {
                return true;
            }
            let work = Work { task: task.clone(), epoch: held.epoch, turn: held.turn };
            match held.state {
                State::Running => {
                    effects.push(Effect::LetGo(work.clone(), How::Lost));
                    ending.insert(work);
                }
                State::Releasing => drop(ending.insert(work)),
                State::Released { .. } => {}
            }
            false
        });
    }

    /// `None`: it is held already, or given back already, or was given back too often.
    fn begin(&mut self, now_ms: i64, task: Task, epoch: Epoch) -> Option<Work> {
        if self.tasks.contains_key(&task) {
            return None;
        }
        let turn = self.next_turn(&task, epoch)?;
        let is_released = self.released_ahead.get(&task) == Some(&epoch) && turn == 0;
        let state = if is_released { State::Released { at_ms: now_ms } } else { State::Running };
        self.begun.insert(task.clone(), (epoch, turn));
        self.tasks.insert(task.clone(), Held { epoch, turn, state });
        (state == State::Running).then_some(Work { task, epoch, turn })
    }

    fn next_turn(&self, task: &Task, epoch: Epoch) -> Option<u32> {
        let turn = match self.begun.get(task) {
            Some((begun, turn)) if *begun == epoch => turn + 1,
            _ => 0,
        };
        (turn < MOST_TURNS).then_some(turn)
    }

    fn release(&mut self, task: Task, epoch: Epoch, effects: &mut Vec<Effect>) {
        let known = whereabouts::assignment(&self.directory, &task).map_or(0, |assignment| assignment.epoch);
        match self.tasks.get_mut(&task) {
            Some(held) if held.epoch == epoch => match held.state {
                State::Running => {
                    held.state = State::Releasing;
                    effects.push(Effect::LetGo(Work { task, epoch, turn: held.turn }, How::HandOver));
                }
                State::Releasing => {}
                State::Released { .. } => self.say(self.released(task, epoch), effects),
            },
            // The directory that gives it to this node is still to come: it is not begun then. What runs until then is
            // as the newest one says.
            _ if epoch > known && self.released_ahead.len() < MOST_AHEAD => {
                self.released_ahead.insert(task.clone(), epoch);
                self.say(self.released(task, epoch), effects);
            }
            _ => self.say(self.released(task, epoch), effects),
        }
    }

    fn ended(&mut self, now_ms: i64, work: &Work, effects: &mut Vec<Effect>) {
        self.ending.remove(work);
        let is_it = |held: &&mut Held| (held.epoch, held.turn, held.state) == (work.epoch, work.turn, State::Releasing);
        if let Some(held) = self.tasks.get_mut(&work.task).filter(is_it) {
            held.state = State::Released { at_ms: now_ms };
            self.say(self.released(work.task.clone(), work.epoch), effects);
        }
    }

    /// Takes up again what was given back and is still this node's.
    fn reclaim(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let is_due = |held: &Held| matches!(held.state, State::Released { at_ms } if (now_ms - at_ms).abs() >= self.pace.reclaim_ms);
        let due: Vec<(Task, Epoch)> =
            self.tasks.iter().filter(|(_, held)| is_due(held)).map(|(task, held)| (task.clone(), held.epoch)).collect();
        if due.is_empty() {
            return;
        }
        let mine = self.mine();
        for (task, epoch) in due {
            self.tasks.remove(&task);
            if mine.get(&task) == Some(&epoch) {
                effects.extend(self.begin(now_ms, task, epoch).map(Effect::Run));
            }
        }
    }

    // --- the end ---

    fn leave(&mut self, effects: &mut Vec<Effect>) {
        if self.going == Going::Stays {
            self.going = Going::Leaves;
            self.say(self.leaving(), effects);
        }
    }

    fn go(&mut self, effects: &mut Vec<Effect>) {
        let has_nothing = || self.tasks.is_empty() && self.ending.is_empty() && self.mine().is_empty();
        // Whoever goes before the masters know of it passes for lost.
        let is_heard = || {
            let state = whereabouts::node(&self.directory, &self.profile.name).map(|(_, state)| *state);
            !matches!(state, Some(NodeState::Alive | NodeState::Suspect))
        };
        if self.going == Going::Leaves && has_nothing() && is_heard() {
            self.going = Going::IsFree;
            effects.push(Effect::FreeToGo);
        }
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
