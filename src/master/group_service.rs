//! Runs one master: consensus, the catalog that it agrees on, and, while it is active, the governor.
//!
//! ```text
//!   events, ticks, durable writes ──▶ consensus ──▶ Persist ──▶ writer
//!                                        │  ▲  ╰──▶ Send ─────▶ others
//!                                  Apply ▼  │ Propose
//!                                      catalog ──▶ governor ──▶ Send ─▶ sessions; Answer; Notify ─▶ webhook
//! ```
//!
//! One task, no locks. Invariant: effects are carried out in their order; nothing here waits for a peer or, but for a full queue of
//! writes, for the disk; a master that is not active decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, error, info};

use super::catalog::Catalog;
use super::command::Command;
use super::consensus::Consensus;
use super::duties::{self, AskId, Session};
use super::governor::{Charter, Governor};
use super::journal::{Journal, Record, Stored};
use super::journal_service::{self, Writer};
use super::master_service::{Invitation, MasterView};
use super::others_service::Others;
use super::requests::Answer;
use super::sessions_service::Sessions;
use super::signals::{Effect, Input};
use super::webhook_service::Webhook;
use super::wire::{self, MasterId};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::task::NodeName;
use crate::net::control::{Answered, Ask, FromMaster, FromNode};
use crate::net::link::{Net, Peer};
use crate::net::service;

/// Events that are taken between two ticks before the tick has its turn.
const TURNS: usize = 256;

/// What reaches a master from outside.
pub enum Event {
    Raft {
        session: Option<Session>,
        message: Bytes,
    },
    Other {
        master: MasterId,
        is_up: bool,
    },
    Opened {
        session: Session,
        peer: Arc<Peer>,
    },
    Closed {
        session: Session,
    },
    Heard {
        session: Session,
        message: FromNode,
    },
    Asked {
        what: Ask,
        reply: oneshot::Sender<Answered>,
    },
    /// To be a master.
    Invitation {
        invitation: Invitation,
        reply: oneshot::Sender<Result<MasterId, String>>,
    },
    /// What became of this master's own invitation.
    Invited {
        ask: AskId,
        address: String,
        outcome: Result<MasterId, String>,
    },
    StepAside,
}

/// What a master's loop is made of.
pub struct GroupParts {
    pub charter: Charter,
    pub journal: Arc<dyn Journal>,
    /// `None`: it waits for an invitation.
    pub stored: Option<Stored>,
    pub forgot_file: PathBuf,
    pub life: u64,
    pub net: Arc<dyn Net>,
    pub sessions: Arc<Sessions>,
    pub events: mpsc::Sender<Event>,
    pub view: watch::Sender<MasterView>,
    pub webhook: Webhook,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// One master, running.
pub struct GroupLoop {
    pub(super) parts: GroupParts,
    pub(super) consensus: Option<Consensus>,
    pub(super) catalog: Catalog,
    /// Of the last command in the catalog.
    pub(super) index: u64,
    pub(super) me: MasterId,
    pub(super) active: (Option<MasterId>, u64),
    pub(super) governor: Option<Governor>,
    pub(super) others: Others,
    /// Who spoke last for a master: the way back to one whose address is not known yet.
    pub(super) spoke: BTreeMap<MasterId, Session>,
    pub(super) replies: BTreeMap<AskId, oneshot::Sender<Answered>>,
    pub(super) last_ask: AskId,
    pub(super) standing: Option<FromMaster>,
    pub(super) inputs: VecDeque<Input>,
    pub(super) unwritten: Vec<(u64, Record)>,
    pub(super) is_over: bool,
}

impl GroupLoop {
    pub fn new(parts: GroupParts) -> Self {
        let others = Others::new(parts.net.clone(), parts.events.clone());
        Self {
            parts,
            consensus: None,
            catalog: Catalog::default(),
            index: 0,
            me: 0,
            active: (None, 0),
            governor: None,
            others,
            spoke: BTreeMap::new(),
            replies: BTreeMap::new(),
            last_ask: 0,
            standing: None,
            inputs: VecDeque::new(),
            unwritten: Vec::new(),
            is_over: false,
        }
    }

    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, mut stop: oneshot::Receiver<()>) {
        let Writer { records, mut written, task } = journal_service::start(self.parts.journal.clone());
        let mut tick = interval(self.parts.charter.settings.tick.duration());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Some(stored) = self.parts.stored.take() {
            self.begin(&stored);
        }
        while !self.is_over {
            self.settle();
            for write in self.unwritten.drain(..) {
                if records.send(write).await.is_err() {
                    self.is_over = true;
                }
            }
            self.show();
            tokio::select! {
                _ = &mut stop => break,
                Ok(()) = written.changed() => {
                    let now = written.borrow_and_update().clone();
                    self.is_over |= now.failure.is_some();
                    self.step(Input::Persisted(now.durable));
                }
                Some(event) = events.recv() => self.happen(event).await,
                _ = tick.tick() => {
                    // What has arrived by now comes first: a master that was itself stopped hears before it judges.
                    for _ in 0..TURNS {
                        let Ok(event) = events.try_recv() else { break };
                        self.happen(event).await;
                    }
                    self.step(Input::Tick);
                    self.govern(duties::Input::Tick);
                }
            }
        }
        // Whoever waits for an answer hears that there is none.
        self.step_down();
        self.show();
        drop(records);
        if task.await.is_err() {
            error!("the master's writer has panicked");
        }
    }

    /// Takes part in the group from what is stored.
    fn begin(&mut self, stored: &Stored) {
        let now_ms = self.parts.clock.now_ms();
        match Consensus::start(&self.parts.charter.settings, stored, self.parts.life, now_ms) {
            Ok((consensus, effects)) => {
                info!(master = stored.id, "this master takes part in the group");
                (self.me, self.consensus) = (stored.id, Some(consensus));
                self.run_effects(effects);
            }
            Err(error) => {
                error!(%error, "what this master has stored is not usable; it stops");
                self.is_over = true;
            }
        }
    }

    // What happens.

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Raft { session, message } => {
                self.remember(session, &message);
                self.step(Input::Message(message));
            }
            Event::Other { master, is_up } => {
                if self.others.is_up(master, is_up) && !is_up {
                    self.step(Input::Closed(master));
                }
            }
            Event::Opened { session, peer } => {
                if let Some(standing) = self.standing.clone() {
                    self.send(&[session], &standing);
                }
                if let Ok(boot) = peer.boot.try_into() {
                    self.govern(duties::Input::Opened { session, node: NodeName::new(&peer.name), boot });
                }
            }
            Event::Closed { session } => {
                self.spoke.retain(|_, it| *it != session);
                self.govern(duties::Input::Closed { session });
            }
            Event::Heard { session, message } => match (&self.governor, self.standing.clone()) {
                (Some(_), _) => self.govern(duties::Input::Heard { session, message }),
                (None, Some(standing)) => self.send(&[session], &standing),
                (None, None) => {}
            },
            Event::Asked { what, reply } => self.asked(what, reply),
            Event::Invitation { invitation, reply } => {
                let outcome = self.invited(invitation).await;
                // It may have given up.
                let _ = reply.send(outcome);
            }
            Event::Invited { ask, address, outcome } => {
                self.govern(duties::Input::Invited { ask, address, outcome });
            }
            Event::StepAside => self.step(Input::StepAside),
        }
    }

    /// Only while the group's addresses are not known: a master that has just been added.
    fn remember(&mut self, session: Option<Session>, message: &[u8]) {
        let is_new = self.consensus.as_ref().is_some_and(|it| it.masters().addresses.is_empty());
        let from = session.filter(|_| is_new && self.spoke.len() < super::masters::MASTERS_MOST);
        if let (Some(session), Ok(message)) = (from, wire::decode(message)) {
            self.spoke.insert(message.from, session);
        }
    }

    fn asked(&mut self, what: Ask, reply: oneshot::Sender<Answered>) {
        if self.governor.is_none() {
            let _ = reply.send(Answered::NotActive { active: self.address_of(self.active.0) });
            return;
        }
        self.last_ask += 1;
        // Whoever has given up is not answered; the map is as long as the governor's own list.
        self.replies.insert(self.last_ask, reply);
        self.govern(duties::Input::Asked { ask: self.last_ask, what });
    }

    async fn invited(&mut self, Invitation { id }: Invitation) -> Result<MasterId, String> {
        if let Some(consensus) = &self.consensus {
            let is_blank = consensus.applied() == 0 && consensus.masters().voters.is_empty();
            return match is_blank {
                true => Ok(self.me),
                false => Err("it is, or was, a master already; give it an empty folder".to_owned()),
            };
        }
        let stored = Stored::joining(id);
        // Durable before anybody counts on it: the number must never be another disk's.
        let written = self.parts.journal.write(&Record::Whole(stored.clone())).await;
        written.map_err(|error| error.to_string())?;
        if let Err(error) = std::fs::remove_file(&self.parts.forgot_file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error.to_string());
        }
        self.begin(&stored);
        Ok(id)
    }

    // Consensus.

    fn step(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.settle();
    }

    /// What was decided goes to the group.
    fn settle(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let now_ms = self.parts.clock.now_ms();
            let Some(consensus) = &mut self.consensus else { return };
            let effects = consensus.step(now_ms, input);
            self.run_effects(effects);
        }
    }

    fn run_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist { number, record } => self.unwritten.push((number, record)),
                Effect::Send { to, message } => self.send_raft(to, message),
                Effect::Apply { index, command } => self.apply(index, &command),
                Effect::Restore { index, state } => self.restore(index, &state),
                Effect::Respond { token, answer } => {
                    if let Answer::Refused { reason, .. } = &answer {
                        debug!(reason, "a proposal was refused");
                    }
                    self.govern(duties::Input::Responded { token, answer });
                }
                Effect::BecameActive { term } => self.become_active(term),
                Effect::SteppedDown { term } => {
                    info!(term, "this master is not active any more");
                    self.step_down();
                    self.tell_standing();
                }
                Effect::ActiveIs { active, term } => {
                    self.active = (active, term);
                    self.tell_standing();
                }
                Effect::MastersAre(masters) => {
                    self.others.set(self.me, &masters.addresses);
                    self.tell_standing();
                }
                Effect::CompactionDue => {
                    let index = self.consensus.as_ref().map_or(0, Consensus::applied);
                    self.inputs.push_back(Input::Compact { index, state: self.catalog.encode() });
                }
                Effect::Refused { reason } => debug!(reason, "a master's message was refused"),
                Effect::Forgot => self.forgot(),
            }
        }
    }

    fn apply(&mut self, index: u64, command: &Bytes) {
        self.index = index;
        let command = match Command::decode(command) {
            Ok(command) => command,
            // The same on every master: they all go on without it.
            Err(error) => return error!(%error, index, "a command that is none"),
        };
        let effects = self.catalog.apply(command);
        self.govern(duties::Input::Applied { effects });
    }

    fn restore(&mut self, index: u64, state: &Bytes) {
        match Catalog::decode(state) {
            Ok(catalog) => (self.catalog, self.index) = (catalog, index),
            Err(error) => {
                error!(%error, "the group's state cannot be read by this version; this master stops");
                self.is_over = true;
            }
        }
    }

    fn send_raft(&self, to: MasterId, message: Bytes) {
        if !self.others.send(to, message.clone())
            && let Some(session) = self.spoke.get(&to)
        {
            self.parts.sessions.send(*session, service::RAFT, &message);
        }
    }

    /// The way back is a new number, so that its promises of before are nobody's.
    fn forgot(&mut self) {
        error!(
            master = self.me,
            "this master's disk has forgotten what it had promised the others; it stops. Remove it from the group, start it \
             again, and add it anew: it then gets another number"
        );
        if let Err(error) = std::fs::write(&self.parts.forgot_file, self.me.to_string()) {
            error!(%error, "and it cannot write that down; empty its folder by hand");
        }
        self.is_over = true;
    }
}
