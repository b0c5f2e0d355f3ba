//! One member of the masters' raft group. Pure: `step(now, input) -> effects`; raft-rs inside.
//!
//! ```text
//!   Tick, Message, Persisted ──▶ ╭───────────╮ ──▶ Persist (one durable write) ──▶ Persisted comes back
//!   Propose, ReadIndex,          │ consensus │ ──▶ Send
//!   ChangeMasters, StepAside ──▶ ╰───────────╯ ──▶ Apply, Restore ──▶ catalog ──▶ Compact comes back
//!                                              ──▶ Respond, BecameActive, SteppedDown, ActiveIs, MastersAre
//! ```
//!
//! Writes are not waited for: a master whose disk is slow still hears and says heartbeats. What must not be said before it is
//! written (votes, acknowledgements) is held back here until `Persisted` names the write.
//!
//! Invariant: nothing is acknowledged, and no vote given, before it is durable; entries are applied in order, once, and only if
//! they are committed and written here; a master is active only once it has applied everything from before its term.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, Message};
use raft::{Config, RawNode, SnapshotStatus, StateRole};

use super::elections::{Elections, Timing};
use super::journal::{Record, Stored};
use super::log::Log;
use super::masters::{GroupState, Masters, MastersChange, MastersStep};
use super::requests::{Answer, Requests, Token};
use super::settings::Settings;
use super::signals::{Effect, Input, Observation};
use super::upkeep::{self, Snapshots};
use super::vetting::{Refusal, vet};
use super::wire::{self, HardState, LogEntry, LogSnapshot, MasterId};
use super::writes::{Then, Writes};

/// One master.
pub struct Consensus {
    node: RawNode<Log>,
    settings: Settings,
    elections: Elections,
    requests: Requests,
    masters: Masters,
    writes: Writes,
    applied: u64,
    /// The term in which this master is active.
    active_term: Option<u64>,
    active_is: (MasterId, u64),
    snapshots: Snapshots,
    forgot: bool,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let raft = &self.node.raft;
        write!(f, "Consensus({}, {:?}, term {}, applied {})", raft.id, raft.state, raft.term, self.applied)
    }
}

impl Consensus {
    /// Goes on from what is stored. `life`: another number at each start. The effects bring the applied state back.
    pub fn start(
        settings: &Settings,
        stored: &Stored,
        life: u64,
        now_ms: i64,
    ) -> Result<(Self, Vec<Effect>), raft::Error> {
        let timing = Timing::new(&settings.elections());
        let config = Config {
            id: stored.id,
            election_tick: timing.lease,
            min_election_tick: timing.lease,
            max_election_tick: timing.most(),
            heartbeat_tick: timing.heartbeat,
            applied: stored.snapshot.index,
            max_size_per_msg: settings.message_bytes.0,
            max_inflight_msgs: settings.in_flight,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: settings.uncommitted_bytes.0,
            max_committed_size_per_ready: settings.message_bytes.0,
            ..Config::default()
        };
        // Silent: what raft-rs does is told by the effects.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, Log::new(stored), &logger)?;
        let request_ms = settings.request_timeout.as_i64();
        let change_ms = settings.change_timeout.as_i64();
        let mut consensus = Self {
            node,
            elections: Elections::new(timing, life ^ stored.id.rotate_left(32), now_ms),
            requests: Requests::new(stored.id, life, settings.requests, request_ms, change_ms),
            settings: settings.clone(),
            masters: Masters::default(),
            writes: Writes::default(),
            applied: 0,
            active_term: None,
            active_is: (0, 0),
            snapshots: Snapshots::new(settings.snapshot_retry.as_i64()),
            forgot: false,
        };
        let mut effects = Vec::new();
        if stored.snapshot.index > 0 {
            consensus.restore(stored.snapshot.clone(), &mut effects);
        }
        consensus.drain(&mut effects);
        Ok((consensus, effects))
    }

    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        // Only what is on its way to the disk may still arrive there.
        if self.forgot {
            return effects;
        }
        match input {
            Input::Tick => self.tick(now_ms, &mut effects),
            Input::Message(bytes) => self.message(&bytes, &mut effects),
            Input::Closed(peer) => self.closed(peer),
            Input::Persisted(number) => self.persisted(number, &mut effects),
            Input::Propose { token, command } => self.propose(now_ms, token, command, &mut effects),
            Input::ReadIndex { token } => self.read_index(now_ms, token, &mut effects),
            Input::ChangeMasters { token, change } => self.change_masters(now_ms, token, change, &mut effects),
            Input::Compact { index, state } => self.compact(index, state, &mut effects),
            Input::StepAside => self.step_aside(),
        }
        self.drain(&mut effects);
        effects
    }

    pub fn is_active(&self) -> bool {
        self.active_term.is_some()
    }

    pub fn masters(&self) -> &Masters {
        &self.masters
    }

    /// The last index that was given out with `Apply` or `Restore`, or changed the masters.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    pub fn observe(&self) -> Observation {
        let raft = &self.node.raft;
        Observation {
            id: raft.id,
            term: raft.term,
            is_active: self.is_active(),
            active: self.known_active(),
            applied: self.applied,
            committed: raft.raft_log.committed,
            log_bytes: raft.store().bytes(),
            unwritten: self.writes.len(),
            masters: self.masters.clone(),
        }
    }

    fn known_active(&self) -> Option<MasterId> {
        Some(self.node.raft.leader_id).filter(|id| *id != 0)
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    // Inputs.

    fn tick(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        for _ in 0..self.elections.due(now_ms) {
            self.elections.tick(&mut self.node, &self.masters.voters, self.writes.len() > 0);
        }
        self.requests.expire(now_ms, effects);
        if self.is_leader() {
            self.snapshots.retry(&mut self.node, now_ms);
            if let Some(id) = upkeep::ready_to_vote(&self.node, &self.masters) {
                self.propose_step(&MastersStep::Promote { id });
            }
        }
        if upkeep::is_compaction_due(self.node.store(), self.applied, &self.settings) {
            effects.push(Effect::CompactionDue);
        }
    }

    fn message(&mut self, bytes: &[u8], effects: &mut Vec<Effect>) {
        let message = match wire::decode(bytes) {
            Ok(message) => message,
            Err(error) => return effects.push(Effect::Refused { reason: error.to_string() }),
        };
        match vet(&self.node, &message) {
            Ok(()) => {
                // Errors: from a master that is not one any more, or a read without an active master; it will time out.
                let _ = self.node.step(message);
            }
            Err(Refusal::Late) => {}
            Err(Refusal::Malformed(reason)) => effects.push(Effect::Refused { reason: reason.to_owned() }),
            Err(Refusal::Forgot) => {
                self.forgot = true;
                effects.push(Effect::Forgot);
            }
        }
    }

    fn closed(&mut self, peer: MasterId) {
        self.elections.closed(&mut self.node, peer, &self.masters.voters);
        if self.is_leader() {
            self.node.report_unreachable(peer);
            self.node.report_snapshot(peer, SnapshotStatus::Failure);
        }
    }

    fn persisted(&mut self, number: u64, effects: &mut Vec<Effect>) {
        self.writes.durable(number);
        while let Some(then) = self.writes.release() {
            self.go_on(then, effects);
        }
    }

    /// What was written, is.
    fn go_on(&mut self, then: Then, effects: &mut Vec<Effect>) {
        if let Some(ready) = then.ready {
            self.node.on_persist_ready(ready);
        }
        if let Some(snapshot) = then.restored {
            self.restore(snapshot, effects);
        }
        send(then.held, effects);
    }

    fn propose(&mut self, now_ms: i64, token: Token, command: Bytes, effects: &mut Vec<Effect>) {
        let mut respond = |answer| effects.push(Effect::Respond { token, answer });
        if !self.is_leader() {
            return respond(Answer::NotActive { active: self.known_active() });
        }
        if command.is_empty() || command.len() > self.settings.command_bytes.bytes() {
            return respond(Answer::Refused { reason: "the command is empty or too large", later: false });
        }
        if !self.requests.has_room() {
            return respond(Answer::Refused { reason: "too many requests wait", later: true });
        }
        if self.node.propose(Vec::new(), command.into()).is_err() {
            return respond(Answer::Refused {
                reason: "too much is not yet committed, or another becomes active",
                later: true,
            });
        }
        let place = (self.node.raft.raft_log.last_index(), self.node.raft.term);
        self.requests.proposed(now_ms, place, token, effects);
    }

    fn read_index(&mut self, now_ms: i64, token: Token, effects: &mut Vec<Effect>) {
        let answer = match self.known_active() {
            None => Answer::NotActive { active: None },
            Some(_) if !self.requests.has_room() => Answer::Refused { reason: "too many requests wait", later: true },
            Some(_) => {
                // It may vanish on its way; then it times out.
                let context = self.requests.read(now_ms, token);
                return self.node.read_index(context);
            }
        };
        effects.push(Effect::Respond { token, answer });
    }

    fn change_masters(&mut self, now_ms: i64, token: Token, change: MastersChange, effects: &mut Vec<Effect>) {
        let mut respond = |answer| effects.push(Effect::Respond { token, answer });
        if !self.is_active() {
            return respond(Answer::NotActive { active: self.known_active() });
        }
        if self.requests.is_changing() || self.node.raft.has_pending_conf() {
            return respond(Answer::Refused { reason: "another change is under way", later: true });
        }
        if self.masters.fulfils(&change) {
            return respond(Answer::Committed { index: self.applied });
        }
        match self.masters.first_step(&change, self.node.raft.id) {
            Err(reason) => return respond(Answer::Refused { reason, later: false }),
            // It learns already.
            Ok(None) => {}
            Ok(Some(step)) => {
                if !self.propose_step(&step) {
                    return respond(Answer::Refused { reason: "too much is not yet committed", later: true });
                }
            }
        }
        self.requests.changing(now_ms, token, change);
    }

    fn propose_step(&mut self, step: &MastersStep) -> bool {
        self.node.propose_conf_change(step.encode(), step.conf_change()).is_ok()
    }

    fn step_aside(&mut self) {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        let others = self.masters.voters.iter().filter(|id| **id != raft.id);
        let progress = |id: &MasterId| raft.prs().get(*id).map(|it| (it.recent_active, it.matched));
        if let Some(next) = others.copied().max_by_key(progress) {
            self.node.transfer_leader(next);
        }
    }

    fn compact(&mut self, index: u64, state: Bytes, effects: &mut Vec<Effect>) {
        // Of a moment that has passed: the masters of then are not known any more.
        if index != self.applied || index <= self.node.store().snapshot_index() {
            return;
        }
        let Ok(term) = self.node.raft.raft_log.term(index) else { return };
        let Masters { voters, learners, addresses } = self.masters.clone();
        let data = GroupState { masters: addresses, state }.encode();
        let (keep_entries, keep_bytes) = (self.settings.keep_entries, self.settings.keep_bytes.bytes());
        let id = self.node.raft.id;
        let log = self.node.mut_store();
        log.compact(LogSnapshot { index, term, voters, learners, data }, keep_entries, keep_bytes);
        let record = Record::Whole(log.stored(id));
        let number = self.writes.begin(Then::default(), false);
        effects.push(Effect::Persist { number, record });
    }

    // The drain.

    /// Takes from raft-rs all that there is to do, in the order that it asks for.
    fn drain(&mut self, effects: &mut Vec<Effect>) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();

            // 1. Make the log readable as raft-rs now sees it, and have it written.
            let hard_before = self.node.store().hard();
            let hard = ready.hs().cloned().map_or(hard_before, HardState::from);
            let entries = ready.take_entries();
            let restored = (!ready.snapshot().is_empty()).then(|| LogSnapshot::from(ready.snapshot()));
            let votes = (hard.term, hard.vote) != (hard_before.term, hard_before.vote);
            let record = self.record(hard, &entries, restored.as_ref(), votes);

            // 2. What a standby says waits until it is written: votes, acknowledgements. What an active master says need not,
            //    for its own log counts only once it is written; but its term must be, or it could have the same term twice:
            //    that matters where it needs no other vote.
            let mut held = ready.take_persisted_messages();
            let mut at_once = ready.take_messages();
            if votes || self.writes.is_vote_open() {
                held.append(&mut at_once);
            }
            send(at_once, effects);
            let then = Then { ready: Some(ready.number()), restored, held };
            let (entries, reads) = (ready.take_committed_entries(), ready.take_read_states());
            self.node.advance_append_async(ready);
            if let Some(record) = record {
                let number = self.writes.begin(then, votes);
                effects.push(Effect::Persist { number, record });
            } else if let Some(then) = self.writes.follow(then) {
                self.go_on(then, effects);
            }

            // 3. Whoever was active and is not any more says so before anything of another's term is applied.
            self.notice_role(effects);

            // 4. Apply what is committed and written here.
            for entry in entries {
                self.apply(entry, effects);
            }
            self.node.advance_apply_to(self.applied);

            // 5. Answer those who wait for it.
            for read in reads {
                self.requests.confirmed(&read.request_ctx, read.index);
            }
            self.requests.serve_reads(self.applied, effects);
        }
        self.notice_role(effects);
    }

    /// Puts into the log what is ready; `None` if it need not be written: the commit index alone may lag on disk.
    fn record(
        &mut self,
        hard: HardState,
        entries: &[Entry],
        restored: Option<&LogSnapshot>,
        votes: bool,
    ) -> Option<Record> {
        let id = self.node.raft.id;
        let log = self.node.mut_store();
        if let Some(snapshot) = restored {
            log.restore(snapshot.clone());
        }
        log.append(entries);
        log.set_hard(hard);
        if restored.is_some() {
            return Some(Record::Whole(log.stored(id)));
        }
        let entries: Vec<LogEntry> = entries.iter().map(LogEntry::from).collect();
        (votes || !entries.is_empty()).then_some(Record::Step { hard, entries })
    }

    fn notice_role(&mut self, effects: &mut Vec<Effect>) {
        let raft = &self.node.raft;
        if let Some(term) = self.active_term.take_if(|term| raft.state != StateRole::Leader || raft.term != *term) {
            effects.push(Effect::SteppedDown { term });
            self.snapshots.clear();
            self.requests.stepped_down(effects);
        }
        // A master that needs no other vote is elected before its own is written: nobody may hear of it until then.
        let is_hidden = raft.state == StateRole::Leader && self.writes.is_vote_open();
        if self.active_is != (raft.leader_id, raft.term) && !is_hidden {
            self.active_is = (raft.leader_id, raft.term);
            effects.push(Effect::ActiveIs { active: self.known_active(), term: raft.term });
        }
    }

    fn apply(&mut self, entry: Entry, effects: &mut Vec<Effect>) {
        let Entry { index, term, .. } = entry;
        assert!(index == self.applied + 1, "entry {index} is to be applied after {}", self.applied);
        self.applied = index;
        match entry.get_entry_type() {
            // The entry that opens a term is empty.
            EntryType::EntryNormal if entry.data.is_empty() => {}
            EntryType::EntryNormal => effects.push(Effect::Apply { index, command: entry.data }),
            _ => self.apply_step(&entry, effects),
        }
        self.requests.applied(index, term, effects);
        if self.active_term.is_none() && self.is_leader() && term == self.node.raft.term {
            self.active_term = Some(term);
            effects.push(Effect::BecameActive { term });
        }
    }

    fn apply_step(&mut self, entry: &Entry, effects: &mut Vec<Effect>) {
        // Each master decides the same: the entry and the set before it are the same.
        let Ok(step) = MastersStep::decode(&entry.context) else { return };
        let Ok(conf) = self.node.apply_conf_change(&step.conf_change()) else { return };
        step.apply(&mut self.masters.addresses);
        self.set_masters(&conf, effects);
        self.requests.masters_changed(&self.masters, entry.index, effects);
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !self.masters.voters.contains(&raft.id) {
            // raft-rs would go on leading a group that this master is not in.
            let term = raft.term;
            raft.become_follower(term, 0);
        }
    }

    fn restore(&mut self, snapshot: LogSnapshot, effects: &mut Vec<Effect>) {
        let conf = snapshot.conf_state();
        let group = GroupState::decode(&snapshot.data).expect("checked when it came, by its checksum when it was read");
        self.applied = snapshot.index;
        self.node.advance_apply_to(self.applied);
        effects.push(Effect::Restore { index: snapshot.index, state: group.state });
        self.masters.addresses = group.masters;
        self.set_masters(&conf, effects);
        self.requests.restored(snapshot.index, effects);
        self.requests.serve_reads(self.applied, effects);
    }

    fn set_masters(&mut self, conf: &ConfState, effects: &mut Vec<Effect>) {
        (self.masters.voters, self.masters.learners) = (conf.voters.clone(), conf.learners.clone());
        // raft-rs keeps sets; their order would differ from master to master.
        self.masters.voters.sort_unstable();
        self.masters.learners.sort_unstable();
        effects.push(Effect::MastersAre(self.masters.clone()));
    }
}

fn send(messages: Vec<Message>, effects: &mut Vec<Effect>) {
    let encoded = |message: Message| Some(Effect::Send { to: message.to, message: wire::encode(&message)? });
    effects.extend(messages.into_iter().filter_map(encoded));
}
