//! A group of masters in virtual time: production consensus on memory journals, and everything that can go wrong around them.
//! One seed decides all of it.
//!
//! Invariant: the checks (`Checks`) know nothing of the faults; they are told what masters apply and answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;

use super::consensus::Consensus;
use super::journal::{Journal, Record, Stored};
use super::masters::MastersChange;
use super::memory::MemoryJournal;
use super::requests::{Answer, Token};
use super::settings::Settings;
use super::signals::{Effect, Input};
use super::wire::{EntryKind, MasterId};
use crate::model::codec;

/// A rule left out, to see that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A vote is given without being written.
    VoteNotWritten,
    /// Entries are applied when they are written, not when they are committed.
    AppliedBeforeCommit,
    /// A write is reported durable before it is.
    AcknowledgedBeforeSync,
}

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What must hold, whatever happens.
#[derive(Debug, Default)]
pub struct Checks {
    /// Index and number of every command that any master applied, in order.
    pub committed: Vec<(u64, u64)>,
    active: BTreeMap<u64, MasterId>,
    /// How much had been committed when the master of a term was elected.
    elected: BTreeMap<u64, usize>,
    superseded: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    pub reads: u64,
    pub activations: Vec<(i64, MasterId)>,
}

impl Checks {
    fn applied(&mut self, id: MasterId, place: usize, index: u64, number: u64) {
        match self.committed.get(place) {
            Some(known) => assert_eq!((index, number), *known, "master {id} applies another command at {place}"),
            None => {
                assert!(self.committed.last().is_none_or(|last| last.0 < index), "master {id} applies out of order");
                self.committed.push((index, number));
            }
        }
    }

    fn restored(&self, id: MasterId, index: u64, numbers: &[u64]) {
        let known: Vec<u64> = self.committed.iter().take_while(|it| it.0 <= index).map(|it| it.1).collect();
        assert_eq!(numbers, known, "master {id} restores another history");
    }

    fn became_active(&mut self, now_ms: i64, id: MasterId, term: u64, applied: usize) {
        assert_eq!(self.active.insert(term, id), None, "master {id} is active in a term in which one has been");
        assert!(applied >= self.elected[&term], "master {id} is active without all that was committed");
        self.activations.push((now_ms, id));
    }

    fn at_the_end(&self) {
        let all: BTreeSet<u64> = self.committed.iter().map(|it| it.1).collect();
        assert_eq!(all.len(), self.committed.len(), "a command was applied twice");
        assert!(self.acknowledged.is_subset(&all), "an acknowledged command was lost");
        assert!(self.superseded.is_disjoint(&all), "a command that was given up was committed");
    }
}

enum Request {
    Command(u64),
    /// How many commands had been committed when it was asked.
    Read(usize),
    Change,
}

pub struct Master {
    pub core: Option<Consensus>,
    journal: MemoryJournal,
    life: u64,
    /// Numbers of all commands applied: the state machine.
    pub numbers: Vec<u64>,
    last_index: u64,
    unsynced: VecDeque<u64>,
    requests: BTreeMap<Token, Request>,
    paused_until: i64,
    /// Of its clock against the world's.
    skew_ms: i64,
    disk_ms: u64,
}

enum Event {
    Tick(MasterId, u64),
    Deliver(MasterId, Bytes),
    Synced(MasterId, u64, u64),
    Closed(MasterId, u64, MasterId),
}

pub struct World {
    pub now_ms: i64,
    pub random: Random,
    pub masters: BTreeMap<MasterId, Master>,
    pub checks: Checks,
    pub faults: BTreeMap<&'static str, u64>,
    pub trace: u64,
    settings: Settings,
    bug: Bug,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    /// From, to: nothing gets through.
    pub cut: BTreeSet<(MasterId, MasterId)>,
    pub loss: u64,
    pub duplication: u64,
    pub delay_ms: u64,
}

fn apply_number(command: &Bytes) -> u64 {
    u64::from_le_bytes(command[..8].try_into().expect("a command of the world"))
}

impl World {
    pub fn new(seed: u64, count: u64, bug: Bug) -> Self {
        let mut world = Self {
            now_ms: 1_000_000,
            random: Random(seed),
            masters: BTreeMap::new(),
            checks: Checks::default(),
            faults: BTreeMap::new(),
            trace: 0,
            settings: Settings::for_tests(),
            bug,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            cut: BTreeSet::new(),
            loss: 0,
            duplication: 0,
            delay_ms: 3,
        };
        let addresses: BTreeMap<MasterId, String> = (1..=count).map(|id| (id, format!("master-{id}"))).collect();
        let empty: Bytes = codec::encode(&Vec::<u64>::new()).into();
        for id in 1..=count {
            world.add(Stored::bootstrap(id, &addresses, empty.clone()));
        }
        world
    }

    /// A master with a new disk.
    pub fn add(&mut self, stored: Stored) {
        let journal = MemoryJournal::default();
        let id = stored.id;
        journal.append(&Record::Whole(stored));
        journal.sync();
        let master = Master {
            core: None,
            journal,
            life: 0,
            numbers: Vec::new(),
            last_index: 0,
            unsynced: VecDeque::new(),
            requests: BTreeMap::new(),
            paused_until: 0,
            skew_ms: 0,
            disk_ms: 8,
        };
        self.masters.insert(id, master);
        self.restart(id);
    }

    fn schedule(&mut self, in_ms: u64, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now_ms + in_ms as i64, self.next)));
        self.events.insert(self.next, event);
    }

    pub fn hit(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    // What happens to masters.

    pub fn restart(&mut self, id: MasterId) {
        let life = self.random.next();
        let skew_ms = self.random.below(20_000) as i64 - 10_000;
        let Some(master) = self.masters.get_mut(&id) else { return };
        let stored = master.journal.load().expect("what is left is sound").expect("a beginning");
        let now_ms = self.now_ms + skew_ms;
        let (core, effects) = Consensus::start(&self.settings, &stored, life, now_ms).expect("what is stored is sound");
        (master.core, master.life, master.skew_ms) = (Some(core), life, skew_ms);
        (master.numbers, master.last_index, master.paused_until) = (Vec::new(), 0, 0);
        master.unsynced.clear();
        master.requests.clear();
        self.run(id, effects);
        let first = self.random.below(25);
        self.schedule(first, Event::Tick(id, life));
    }

    pub fn crash(&mut self, id: MasterId) {
        let kept = self.random.below(4) as usize;
        let Some(master) = self.masters.get_mut(&id).filter(|master| master.core.is_some()) else { return };
        master.core = None;
        if master.journal.unsynced() > kept {
            *self.faults.entry("lost writes").or_default() += 1;
        }
        master.journal.lose_unsynced(kept);
        self.hit("crash");
        let others: Vec<MasterId> = self.masters.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            if self.random.chance(80) {
                let in_ms = self.random.below(10);
                self.schedule(in_ms, Event::Closed(other, self.masters[&other].life, id));
            }
        }
    }

    /// Crashes `id`, in the middle of a write if there comes one soon, and starts it again.
    pub fn bounce(&mut self, id: MasterId) {
        for _ in 0..40 {
            if self.masters[&id].journal.unsynced() > 0 {
                break;
            }
            self.pass(2);
        }
        self.crash(id);
        let down_ms = self.random.below(40) as i64;
        self.pass(down_ms);
        self.restart(id);
        self.hit("bounce");
    }

    pub fn close(&mut self, at: MasterId, peer: MasterId) {
        let life = self.masters[&at].life;
        self.schedule(0, Event::Closed(at, life, peer));
    }

    pub fn pause(&mut self, id: MasterId, for_ms: i64) {
        let until = self.now_ms + for_ms;
        self.masters.get_mut(&id).expect("a master").paused_until = until;
        self.hit("pause");
    }

    pub fn slow_disk(&mut self, id: MasterId, disk_ms: u64) {
        self.masters.get_mut(&id).expect("a master").disk_ms = disk_ms;
    }

    // Requests.

    fn ask(&mut self, id: MasterId, request: Request, input: impl FnOnce(Token) -> Input) {
        self.next += 1;
        let token = self.next;
        if let Some(master) = self.masters.get_mut(&id).filter(|it| it.core.is_some() && it.paused_until <= self.now_ms)
        {
            master.requests.insert(token, request);
            self.step(id, input(token));
        }
    }

    pub fn propose(&mut self, id: MasterId) -> u64 {
        let number = self.next + 1;
        let mut command = number.to_le_bytes().to_vec();
        command.resize(8 + self.random.below(200) as usize, 0);
        self.ask(id, Request::Command(number), |token| Input::Propose { token, command: command.into() });
        number
    }

    pub fn read(&mut self, id: MasterId) {
        let seen = self.checks.committed.len();
        self.ask(id, Request::Read(seen), |token| Input::ReadIndex { token });
    }

    pub fn change(&mut self, id: MasterId, change: MastersChange) {
        self.ask(id, Request::Change, |token| Input::ChangeMasters { token, change });
    }

    pub fn step_aside(&mut self, id: MasterId) {
        self.step(id, Input::StepAside);
    }

    pub fn active(&self) -> Option<MasterId> {
        let is_active = |it: &Master| it.core.as_ref().is_some_and(Consensus::is_active);
        let term = |it: &Master| it.core.as_ref().map(|core| core.observe().term);
        let active = self.masters.iter().filter(|(_, master)| is_active(master));
        active.max_by_key(|(_, master)| term(master)).map(|(id, _)| *id)
    }

    pub fn is_committed(&self, number: u64) -> bool {
        self.checks.committed.iter().any(|it| it.1 == number)
    }

    // The machinery.

    /// Runs until `until_ms` from now.
    pub fn pass(&mut self, duration_ms: i64) {
        let end_ms = self.now_ms + duration_ms;
        while let Some(Reverse((at_ms, number))) = self.queue.peek().copied().filter(|it| it.0.0 <= end_ms) {
            self.queue.pop();
            self.now_ms = self.now_ms.max(at_ms);
            let event = self.events.remove(&number).expect("scheduled");
            self.happen(number, event);
        }
        self.now_ms = end_ms;
    }

    fn happen(&mut self, number: u64, event: Event) {
        let (Event::Tick(id, _) | Event::Deliver(id, _) | Event::Synced(id, ..) | Event::Closed(id, ..)) = &event;
        let id = *id;
        let paused_until = self.masters[&id].paused_until;
        if paused_until > self.now_ms {
            // Keeps its number, so what waits stays in order.
            self.queue.push(Reverse((paused_until, number)));
            self.events.insert(number, event);
            return;
        }
        let life = self.masters[&id].life;
        match event {
            Event::Tick(_, of) if of == life => {
                self.step(id, Input::Tick);
                let late = if self.random.chance(5) { self.random.below(60) } else { self.random.below(4) };
                self.schedule(25 + late, Event::Tick(id, life));
            }
            Event::Deliver(_, message) => self.step(id, Input::Message(message)),
            Event::Synced(_, of, write) if of == life => self.synced(id, write),
            Event::Closed(_, of, peer) if of == life => self.step(id, Input::Closed(peer)),
            _ => {}
        }
    }

    fn synced(&mut self, id: MasterId, write: u64) {
        let master = self.masters.get_mut(&id).expect("a master");
        while master.unsynced.front().is_some_and(|number| *number <= write) {
            master.unsynced.pop_front();
            master.journal.sync_one();
        }
        if self.bug != Bug::AcknowledgedBeforeSync {
            self.step(id, Input::Persisted(write));
        }
    }

    fn step(&mut self, id: MasterId, input: Input) {
        let master = self.masters.get_mut(&id).expect("a master");
        let now_ms = self.now_ms + master.skew_ms;
        if let Some(core) = &mut master.core {
            let effects = core.step(now_ms, input);
            self.run(id, effects);
        }
    }

    fn run(&mut self, id: MasterId, effects: Vec<Effect>) {
        let mut then = Vec::new();
        for effect in effects {
            let kind = std::mem::discriminant(&effect);
            self.trace =
                self.trace.wrapping_mul(31).wrapping_add(crc32fast::hash(format!("{id} {kind:?}").as_bytes()).into());
            match effect {
                Effect::Persist { number, record } => then.extend(self.persist(id, number, &record)),
                Effect::Send { to, message } => self.send(id, to, message),
                Effect::Apply { index, command } if self.bug != Bug::AppliedBeforeCommit => {
                    self.apply(id, index, apply_number(&command));
                }
                Effect::Apply { .. } => {}
                Effect::Restore { index, state } => {
                    let numbers: Vec<u64> = codec::decode("numbers", &state).expect("what was encoded");
                    self.checks.restored(id, index, &numbers);
                    let master = self.masters.get_mut(&id).expect("a master");
                    (master.numbers, master.last_index) = (numbers, index);
                }
                Effect::Respond { token, answer } => self.respond(id, token, answer),
                Effect::BecameActive { term } => {
                    let applied = self.masters[&id].numbers.len();
                    self.checks.became_active(self.now_ms, id, term, applied);
                }
                Effect::CompactionDue => then.push(Input::Compact { index: 0, state: Bytes::new() }),
                Effect::Forgot => panic!("master {id} has forgotten"),
                Effect::Refused { reason } => panic!("master {id} refuses a message: {reason}"),
                Effect::ActiveIs { active, term } if active == Some(id) => {
                    // Not even the same one again: that would be after it had forgotten the first time.
                    let before = self.checks.elected.insert(term, self.checks.committed.len());
                    assert_eq!(before, None, "master {id} is elected in a term in which one has been");
                }
                Effect::SteppedDown { .. } | Effect::ActiveIs { .. } | Effect::MastersAre(_) => {}
            }
        }
        for input in then {
            let input = match input {
                Input::Compact { .. } => self.compaction(id),
                other => other,
            };
            self.step(id, input);
        }
    }

    fn compaction(&self, id: MasterId) -> Input {
        let master = &self.masters[&id];
        let index = master.core.as_ref().map_or(0, Consensus::applied);
        Input::Compact { index, state: codec::encode(&master.numbers).into() }
    }

    /// `Persisted`, where it comes at once.
    fn persist(&mut self, id: MasterId, number: u64, record: &Record) -> Option<Input> {
        if let Record::Step { entries, .. } = record {
            if self.bug == Bug::VoteNotWritten && entries.is_empty() && self.masters[&id].unsynced.is_empty() {
                return Some(Input::Persisted(number));
            }
            if self.bug == Bug::AppliedBeforeCommit {
                for entry in entries.iter().filter(|it| it.kind == EntryKind::Command && !it.data.is_empty()) {
                    if entry.index > self.masters[&id].last_index {
                        self.apply(id, entry.index, apply_number(&entry.data));
                    }
                }
            }
        }
        let master = self.masters.get_mut(&id).expect("a master");
        master.journal.append(record);
        master.unsynced.push_back(number);
        let (life, disk_ms) = (master.life, master.disk_ms);
        let in_ms = 1 + self.random.below(disk_ms);
        self.schedule(in_ms, Event::Synced(id, life, number));
        (self.bug == Bug::AcknowledgedBeforeSync).then_some(Input::Persisted(number))
    }

    fn apply(&mut self, id: MasterId, index: u64, number: u64) {
        let master = self.masters.get_mut(&id).expect("a master");
        assert!(master.last_index < index, "master {id} applies {index} after {}", master.last_index);
        master.last_index = index;
        self.checks.applied(id, master.numbers.len(), index, number);
        master.numbers.push(number);
    }

    fn respond(&mut self, id: MasterId, token: Token, answer: Answer) {
        let master = self.masters.get_mut(&id).expect("a master");
        let request = master.requests.remove(&token).expect("one answer for each request");
        match (request, answer) {
            (Request::Command(number), Answer::Committed { .. }) => {
                self.checks.acknowledged.insert(number);
            }
            (Request::Command(number), Answer::Superseded | Answer::NotActive { .. } | Answer::Refused { .. }) => {
                self.checks.superseded.insert(number);
            }
            (Request::Read(seen), Answer::Current { .. }) => {
                self.checks.reads += 1;
                assert!(master.numbers.len() >= seen, "a read on master {id} does not see what was committed before");
            }
            (Request::Command(_), Answer::Current { .. }) | (Request::Change, Answer::Current { .. }) => {
                panic!("an answer of another kind")
            }
            _ => {}
        }
    }

    fn send(&mut self, from: MasterId, to: MasterId, message: Bytes) {
        if !self.masters.contains_key(&to) || self.cut.contains(&(from, to)) {
            return self.hit("cut message");
        }
        if self.random.chance(self.loss) {
            return self.hit("lost message");
        }
        let copies = if self.random.chance(self.duplication) { 2 } else { 1 };
        for copy in 0..copies {
            if copy > 0 {
                self.hit("duplicated message");
            }
            let in_ms = self.random.below(self.delay_ms);
            self.schedule(in_ms, Event::Deliver(to, message.clone()));
        }
    }

    /// After the faults: everything heals, and within a while all masters agree and commands are committed.
    pub fn converge(&mut self) {
        self.cut.clear();
        (self.loss, self.duplication, self.delay_ms) = (0, 0, 3);
        let all: Vec<MasterId> = self.masters.keys().copied().collect();
        for id in all {
            self.slow_disk(id, 8);
            if self.masters[&id].core.is_none() {
                self.restart(id);
            }
        }
        let is_behind = |world: &Self| {
            let Some(active) = world.active() else { return true };
            let masters = world.masters[&active].core.as_ref().expect("active").masters().clone();
            let applied = |id: &MasterId| world.masters.get(id).map(|it| it.numbers.len());
            !masters.learners.is_empty()
                || masters.voters.iter().any(|id| applied(id) != Some(world.checks.committed.len()))
        };
        let deadline_ms = self.now_ms + 12_000;
        let mut last = None;
        while self.now_ms < deadline_ms {
            self.pass(100);
            if last.is_some_and(|number| self.is_committed(number)) && !is_behind(self) {
                return self.checks.at_the_end();
            }
            if last.is_none_or(|number| !self.is_committed(number)) {
                last = self.active().map(|active| self.propose(active)).or(last);
            }
        }
        let states: Vec<String> = self.masters.iter().map(|it| format!("{}: {:?}", it.0, it.1.core)).collect();
        panic!("no progress after everything healed: {states:#?}");
    }
}
