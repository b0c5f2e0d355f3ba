//! Masters: the production cores of consensus, catalog and governor, and what their loop does around them.
//!
//! Invariant: as in production, effects are carried out in their order, and a master that is not active decides nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use holdfast::master::catalog::Catalog;
use holdfast::master::command::{Change, Command};
use holdfast::master::consensus::Consensus;
use holdfast::master::duties::{self, Group, Session};
use holdfast::master::governor::{Charter, Governor};
use holdfast::master::journal::{Journal, Record, Stored};
use holdfast::master::memory::MemoryJournal;
use holdfast::master::overview;
use holdfast::master::signals::{Effect, Input};
use holdfast::master::wire::MasterId;
use holdfast::model::task::NodeState;
use holdfast::net::control::{Ask, FromMaster, FromNode};

use super::wires::{Parcel, Told};
use super::{Event, MASTERS, address, name};
use crate::bugs::Bug;
use crate::shop::PARTITIONS;
use crate::world::{NodeId, World};

pub struct Master {
    journal: MemoryJournal,
    pub disk_ms: i64,
    running: Option<Box<Running>>,
}

/// What a crash takes.
pub struct Running {
    life: u64,
    core: Consensus,
    pub catalog: Catalog,
    /// Of the last command in the catalog.
    pub index: u64,
    active: (Option<MasterId>, u64),
    governor: Option<Governor>,
    reachable: BTreeSet<MasterId>,
    standing: Option<FromMaster>,
    sessions: Sessions,
    unsynced: VecDeque<u64>,
    last_ask: u64,
}

/// Who is connected: a session is one process, and ends with the last of its connections.
#[derive(Default)]
struct Sessions {
    last: Session,
    by_peer: BTreeMap<(NodeId, u64), Session>,
    links: BTreeMap<Session, Vec<(u64, usize)>>,
}

fn id_of(node: NodeId) -> MasterId {
    (node - MASTERS[0] + 1) as MasterId
}

fn node_of(id: MasterId) -> NodeId {
    MASTERS[0] + id as NodeId - 1
}

impl Master {
    pub fn life(&self) -> Option<u64> {
        self.running.as_ref().map(|running| running.life)
    }

    pub fn is_active(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.governor.is_some())
    }

    pub fn term(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.active.1)
    }

    pub fn end(&mut self) {
        self.running = None;
    }

    /// Of what was not written for certain, a crash keeps the beginning.
    pub fn lose_unsynced(&mut self, kept: usize) {
        self.journal.lose_unsynced(kept);
    }
}

impl Running {
    fn group(&self, id: MasterId) -> Group<'_> {
        Group {
            catalog: &self.catalog,
            index: self.index,
            applied: self.core.applied(),
            term: self.active.1,
            me: id,
            masters: self.core.masters(),
            reachable: &self.reachable,
        }
    }
}

impl World {
    pub fn make_masters(&mut self) {
        let addresses: BTreeMap<MasterId, String> = MASTERS.iter().map(|node| (id_of(*node), address(*node))).collect();
        for node in MASTERS {
            let journal = MemoryJournal::default();
            journal.append(&Record::Whole(Stored::bootstrap(id_of(node), &addresses, Catalog::default().encode())));
            journal.sync();
            self.control().masters.insert(node, Master { journal, disk_ms: 4, running: None });
        }
    }

    pub fn start_master(&mut self, node: NodeId) {
        let life = self.next_boot();
        let now_ms = self.clock_ms(node);
        let settings = self.control().settings.clone();
        let master = self.control().masters.get_mut(&node).expect("a master");
        let stored = master.journal.load().expect("what is left is sound").expect("a beginning");
        let (core, effects) = Consensus::start(&settings, &stored, life, now_ms).expect("what is stored is sound");
        master.running = Some(Box::new(Running {
            life,
            core,
            catalog: Catalog::default(),
            index: 0,
            active: (None, 0),
            governor: None,
            reachable: BTreeSet::new(),
            standing: None,
            sessions: Sessions::default(),
            unsynced: VecDeque::new(),
            last_ask: 0,
        }));
        self.master_effects(node, effects);
        let first_ms = self.random.between(1, settings.tick.as_i64());
        self.soon(first_ms, Event::MasterTick { node, life });
    }

    pub fn running(&mut self, node: NodeId) -> Option<&mut Running> {
        self.control().masters.get_mut(&node)?.running.as_deref_mut()
    }

    pub fn master_tick(&mut self, node: NodeId, life: u64) {
        if self.life_of(node) != Some(life) {
            return;
        }
        let tick_ms = self.control().settings.tick.as_i64();
        self.soon(tick_ms, Event::MasterTick { node, life });
        self.consensus(node, Input::Tick);
        self.govern(node, duties::Input::Tick);
    }

    // --- consensus ---

    fn consensus(&mut self, node: NodeId, input: Input) {
        let now_ms = self.clock_ms(node);
        let Some(running) = self.running(node) else { return };
        let effects = running.core.step(now_ms, input);
        self.master_effects(node, effects);
    }

    fn master_effects(&mut self, node: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { number, record } => self.persist(node, number, &record),
                Effect::Send { to, message } => {
                    let wire = self.control().wires.between(node, node_of(to));
                    self.put(wire, true, Parcel::Raft(message));
                }
                Effect::Apply { index, command } => self.apply(node, index, &command),
                Effect::Restore { index, state } => {
                    let Some(running) = self.running(node) else { return };
                    running.catalog = Catalog::decode(&state).expect("what was encoded");
                    running.index = index;
                    self.tally.restores += u64::from(index > 1);
                }
                Effect::Respond { token, answer } => self.govern(node, duties::Input::Responded { token, answer }),
                Effect::BecameActive { term } => self.become_active(node, term),
                Effect::SteppedDown { .. } => {
                    let Some(running) = self.running(node) else { return };
                    let left = running.governor.take().map(Governor::end).unwrap_or_default();
                    self.duty_effects(node, left);
                    self.tell_standing(node);
                }
                Effect::ActiveIs { active, term } => {
                    let Some(running) = self.running(node) else { return };
                    running.active = (active, term);
                    self.tell_standing(node);
                }
                Effect::MastersAre(_) => self.tell_standing(node),
                Effect::CompactionDue => {
                    let Some(running) = self.running(node) else { return };
                    let (index, state) = (running.core.applied(), running.catalog.encode());
                    self.consensus(node, Input::Compact { index, state });
                }
                Effect::Refused { reason } => self.breaks("masters", format!("n{node} refuses a message: {reason}")),
                Effect::Forgot => self.breaks("masters", format!("n{node} has forgotten what it had promised")),
            }
        }
    }

    fn persist(&mut self, node: NodeId, number: u64, record: &Record) {
        let master = self.control().masters.get_mut(&node).expect("a master");
        master.journal.append(record);
        let disk_ms = master.disk_ms;
        let Some(running) = master.running.as_mut() else { return };
        running.unsynced.push_back(number);
        let life = running.life;
        let delay_ms = self.random.between(1, disk_ms);
        self.soon(delay_ms, Event::Synced { node, life, number });
    }

    pub fn synced(&mut self, node: NodeId, life: u64, number: u64) {
        if self.life_of(node) != Some(life) {
            return;
        }
        let master = self.control().masters.get_mut(&node).expect("a master");
        let running = master.running.as_mut().expect("it lives");
        while running.unsynced.front().is_some_and(|waiting| *waiting <= number) {
            running.unsynced.pop_front();
            master.journal.sync_one();
        }
        self.consensus(node, Input::Persisted(number));
    }

    pub fn raft_came(&mut self, node: NodeId, message: Bytes) {
        self.consensus(node, Input::Message(message));
    }

    pub fn other_is(&mut self, node: NodeId, peer: NodeId, is_up: bool) {
        let Some(running) = self.running(node) else { return };
        let id = id_of(peer);
        let is_new = if is_up { running.reachable.insert(id) } else { running.reachable.remove(&id) };
        if is_new && !is_up {
            self.consensus(node, Input::Closed(id));
        }
    }

    fn apply(&mut self, node: NodeId, index: u64, command: &Bytes) {
        self.mark(index ^ (u64::from(crc32fast::hash(command)) << 16));
        self.committed(node, index, command);
        let command = Command::decode(command).expect("a command");
        let Some(running) = self.running(node) else { return };
        running.index = index;
        let effects = running.catalog.apply(command);
        self.govern(node, duties::Input::Applied { effects });
    }

    // --- the active one ---

    fn become_active(&mut self, node: NodeId, term: u64) {
        self.tell(|| format!("n{node} is the active master of term {term}"));
        self.tally.elections += 1;
        self.watch_activation(node, term);
        let now_ms = self.clock_ms(node);
        let settings = self.control().settings.clone();
        let charter = Charter { settings, me: name(node), partitions: PARTITIONS, sources: vec![], fingerprint: 7 };
        let Some(running) = self.running(node) else { return };
        running.active = (Some(id_of(node)), term);
        running.governor = Some(Governor::new(charter, now_ms, &running.group(id_of(node))));
        self.tell_standing(node);
        self.govern(node, duties::Input::Tick);
    }

    pub fn govern(&mut self, node: NodeId, input: duties::Input) {
        let now_ms = self.clock_ms(node);
        let Some(running) = self.running(node) else { return };
        let Some(mut governor) = running.governor.take() else { return };
        let effects = governor.step(now_ms, &running.group(id_of(node)), input);
        running.governor = Some(governor);
        self.duty_effects(node, effects);
    }

    fn duty_effects(&mut self, node: NodeId, effects: Vec<duties::Effect>) {
        for effect in effects {
            match effect {
                duties::Effect::Propose { token, mut command } => {
                    self.before_proposing(&mut command);
                    self.tell_ahead(node, &command);
                    self.watch_proposal(node, &command);
                    self.tell_of_proposal(node, &command);
                    self.consensus(node, Input::Propose { token, command: command.encode() });
                }
                duties::Effect::ChangeMasters { token, change } => {
                    self.consensus(node, Input::ChangeMasters { token, change });
                }
                duties::Effect::Send { to, message } => {
                    if let FromMaster::Release { task, epoch } = &message {
                        self.tally.handovers += 1;
                        self.tell(|| format!("n{node} asks for {task} of epoch {epoch} to be released"));
                    }
                    self.send_to(node, &to, &message);
                }
                duties::Effect::StepAside => self.consensus(node, Input::StepAside),
                // Operators here ask again until the catalog says so; nobody joins the masters.
                duties::Effect::Answer { .. } | duties::Effect::Notify(_) | duties::Effect::Invite { .. } => {}
            }
        }
    }

    fn tell_of_proposal(&self, node: NodeId, command: &Command) {
        if !matches!(command.change, Change::OpenIncident { .. } | Change::CloseIncident { .. }) {
            self.tell(|| format!("n{node} proposes {:?}", command.change));
        }
    }

    /// A hasty master says what it has decided before the others agree.
    fn tell_ahead(&mut self, node: NodeId, command: &Command) {
        if self.bug != Some(Bug::DirectoryAhead) {
            return;
        }
        let Some(running) = self.running(node) else { return };
        let mut ahead = running.catalog.clone();
        ahead.apply(command.clone());
        let group = Group { catalog: &ahead, index: running.index + 1, ..running.group(id_of(node)) };
        let directory = overview::directory(&group).into();
        let all: Vec<Session> = running.sessions.links.keys().copied().collect();
        self.send_to(node, &all, &FromMaster::Directory(directory));
    }

    pub fn send_to(&mut self, node: NodeId, to: &[Session], message: &FromMaster) {
        for session in to {
            let Some(running) = self.running(node) else { return };
            let newest = running.sessions.links.get(session).and_then(|links| links.last().copied());
            let Some((connection, wire)) = newest else { continue };
            if self.control().wires.all[wire].connection == Some(connection) {
                self.put(wire, false, Parcel::ToNode(message.clone()));
            }
        }
    }

    pub fn tell_standing(&mut self, node: NodeId) {
        let Some(running) = self.running(node) else { return };
        let (active, term) = running.active;
        let active = active.and_then(|id| running.core.masters().addresses.get(&id).cloned());
        let is_active = running.governor.is_some();
        let standing = FromMaster::Standing { term, master: name(node), is_active, active };
        if running.standing.as_ref() != Some(&standing) {
            running.standing = Some(standing.clone());
            let all: Vec<Session> = running.sessions.links.keys().copied().collect();
            self.send_to(node, &all, &standing);
        }
    }

    // --- sessions ---

    pub fn session_is(&mut self, told: &Told) {
        let Some(running) = self.running(told.node) else { return };
        let (sessions, key) = (&mut running.sessions, (told.peer, told.peer_life));
        if told.is_up {
            if MASTERS.contains(&told.peer) {
                return;
            }
            let session = *sessions.by_peer.entry(key).or_insert_with(|| {
                sessions.last += 1;
                sessions.last
            });
            sessions.links.entry(session).or_default().push((told.connection, told.wire));
            self.watch_link(told.node, told.peer, told.peer_life, true);
            if let Some(standing) = self.running(told.node).and_then(|running| running.standing.clone()) {
                self.send_to(told.node, &[session], &standing);
            }
            let opened = duties::Input::Opened { session, node: name(told.peer), boot: told.peer_life };
            return self.govern(told.node, opened);
        }
        let has = |links: &Vec<(u64, usize)>| links.iter().any(|(connection, _)| *connection == told.connection);
        let Some(session) = sessions.links.iter().find(|(_, links)| has(links)).map(|(session, _)| *session) else {
            return;
        };
        let links = sessions.links.get_mut(&session).expect("just found");
        links.retain(|(connection, _)| *connection != told.connection);
        if links.is_empty() {
            sessions.links.remove(&session);
            sessions.by_peer.retain(|_, it| *it != session);
            self.watch_link(told.node, told.peer, told.peer_life, false);
            self.govern(told.node, duties::Input::Closed { session });
        }
    }

    /// A node's word comes over a wire.
    pub fn node_says(&mut self, wire: usize, connection: Option<u64>, node: NodeId, message: FromNode) {
        let from = self.control().wires.all[wire].dialer;
        // Only these say that it lives.
        if matches!(message, FromNode::Hello { .. } | FromNode::Beat { .. }) {
            self.watch_heard(node, from);
        }
        let Some(running) = self.running(node) else { return };
        let of = |links: &Vec<(u64, usize)>| links.iter().any(|(it, _)| Some(*it) == connection);
        let Some(session) = running.sessions.links.iter().find(|(_, links)| of(links)).map(|(it, _)| *it) else {
            return;
        };
        match (running.governor.is_some(), running.standing.clone()) {
            (true, _) => self.govern(node, duties::Input::Heard { session, message }),
            (false, Some(standing)) => self.send_to(node, &[session], &standing),
            (false, None) => {}
        }
    }

    // --- operators ---

    /// Asks until it is so.
    pub fn drain(&mut self, node: NodeId, draining: bool) {
        let is = self.control().watch.state_of(node);
        let is_so = match is {
            Some(NodeState::Draining) => draining,
            // Another process has taken its place, which nobody has drained: as an operator would find it.
            Some(NodeState::Lost) | None => true,
            Some(_) => !draining,
        };
        if is_so && is.is_some() {
            return;
        }
        self.soon(300, Event::Drain { node, draining });
        let active =
            MASTERS.into_iter().find(|master| self.control.as_ref().expect("it has").masters[master].is_active());
        if let Some(master) = active.filter(|master| self.nodes[*master].stopped_until_ms <= self.now_ms) {
            let running = self.running(master).expect("it is active");
            running.last_ask += 1;
            let ask = running.last_ask;
            self.govern(master, duties::Input::Asked { ask, what: Ask::Drain { node: name(node), draining } });
        }
    }

    /// The one that leads in the latest term.
    pub fn active_master(&self) -> Option<NodeId> {
        let masters = &self.control.as_ref()?.masters;
        let active = masters.iter().filter(|(_, master)| master.is_active());
        active.max_by_key(|(_, master)| master.term()).map(|(node, _)| *node)
    }
}
