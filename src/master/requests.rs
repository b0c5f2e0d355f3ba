//! Who waits for an answer of the group, and what it is.
//!
//! Invariant: every request gets exactly one answer, in the end "unknown"; how many may wait is limited.

use std::collections::BTreeMap;

use super::masters::{Masters, MastersChange};
use super::signals::Effect;
use super::wire::MasterId;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It stands in the log at `index` for good, and has just been applied here.
    Committed { index: u64 },
    /// A read sees all that was committed when it was asked, if it looks now.
    Current { index: u64 },
    /// Ask there.
    NotActive { active: Option<MasterId> },
    /// Nothing was done; `later`: the same may work in a moment.
    Refused { reason: &'static str, later: bool },
    /// For certain it will never be committed.
    Superseded,
    /// It may or may not have been committed, or still be.
    Unknown,
}

impl Answer {
    /// May the same request be sent again without being done twice?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotActive { .. } | Self::Superseded | Self::Refused { later: true, .. })
    }
}

/// The caller's number of a request.
pub type Token = u64;

#[derive(Debug)]
struct Proposal {
    term: u64,
    token: Token,
    since_ms: i64,
}

#[derive(Debug)]
struct Read {
    token: Token,
    since_ms: i64,
    /// Where this master must have applied to; known once a majority has confirmed the active one.
    index: Option<u64>,
}

#[derive(Debug)]
struct Change {
    token: Token,
    change: MastersChange,
    since_ms: i64,
}

/// The requests that wait at one master.
#[derive(Debug)]
pub struct Requests {
    most: usize,
    timeout_ms: i64,
    change_timeout_ms: i64,
    /// Which master in which life: so that contexts of reads never meet.
    origin: [u8; 16],
    next_read: u64,
    /// By the index of their entry.
    proposals: BTreeMap<u64, Proposal>,
    /// By the number in their context.
    reads: BTreeMap<u64, Read>,
    change: Option<Change>,
}

fn respond(token: Token, answer: Answer) -> Effect {
    Effect::Respond { token, answer }
}

impl Requests {
    pub fn new(id: MasterId, life: u64, most: usize, timeout_ms: i64, change_timeout_ms: i64) -> Self {
        let mut origin = [0; 16];
        origin[..8].copy_from_slice(&id.to_le_bytes());
        origin[8..].copy_from_slice(&life.to_le_bytes());
        let (proposals, reads) = (BTreeMap::new(), BTreeMap::new());
        Self { most, timeout_ms, change_timeout_ms, origin, next_read: 0, proposals, reads, change: None }
    }

    pub fn has_room(&self) -> bool {
        self.proposals.len() + self.reads.len() < self.most
    }

    pub fn proposed(&mut self, now_ms: i64, (index, term): (u64, u64), token: Token, effects: &mut Vec<Effect>) {
        // The entry that stood here before was overwritten by the active master of a later term.
        let before = self.proposals.insert(index, Proposal { term, token, since_ms: now_ms });
        effects.extend(before.map(|before| respond(before.token, Answer::Superseded)));
    }

    pub fn applied(&mut self, index: u64, term: u64, effects: &mut Vec<Effect>) {
        if let Some(proposal) = self.proposals.remove(&index) {
            let answer = if proposal.term == term { Answer::Committed { index } } else { Answer::Superseded };
            effects.push(respond(proposal.token, answer));
        }
    }

    /// A snapshot was put in the place of everything up to `index`.
    pub fn restored(&mut self, index: u64, effects: &mut Vec<Effect>) {
        let later = self.proposals.split_off(&(index + 1));
        let gone = std::mem::replace(&mut self.proposals, later);
        effects.extend(gone.into_values().map(|proposal| respond(proposal.token, Answer::Unknown)));
    }

    /// Gives the context that the answer will carry.
    pub fn read(&mut self, now_ms: i64, token: Token) -> Vec<u8> {
        self.next_read += 1;
        self.reads.insert(self.next_read, Read { token, since_ms: now_ms, index: None });
        [&self.origin[..], &self.next_read.to_le_bytes()].concat()
    }

    pub fn confirmed(&mut self, context: &[u8], index: u64) {
        let number =
            context.strip_prefix(&self.origin[..]).and_then(|rest| rest.try_into().ok()).map(u64::from_le_bytes);
        if let Some(read) = number.and_then(|number| self.reads.get_mut(&number)) {
            read.index = Some(index);
        }
    }

    /// Answers reads that this master has applied enough for.
    pub fn serve_reads(&mut self, applied: u64, effects: &mut Vec<Effect>) {
        self.reads.retain(|_, read| match read.index {
            Some(index) if index <= applied => {
                effects.push(respond(read.token, Answer::Current { index: applied }));
                false
            }
            _ => true,
        });
    }

    pub fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    pub fn changing(&mut self, now_ms: i64, token: Token, change: MastersChange) {
        self.change = Some(Change { token, change, since_ms: now_ms });
    }

    pub fn masters_changed(&mut self, masters: &Masters, index: u64, effects: &mut Vec<Effect>) {
        if let Some(change) = self.change.take_if(|change| masters.fulfils(&change.change)) {
            effects.push(respond(change.token, Answer::Committed { index }));
        }
    }

    /// Those that only the active master could answer.
    pub fn stepped_down(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.change.take().map(|change| respond(change.token, Answer::Unknown)));
    }

    /// Gives up on those that wait too long: an answer can get lost without anybody being told.
    pub fn expire(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let timeout_ms = self.timeout_ms;
        let is_late = |since_ms: i64| now_ms - since_ms >= timeout_ms;
        self.proposals.retain(|_, proposal| {
            let late = is_late(proposal.since_ms);
            effects.extend(late.then(|| respond(proposal.token, Answer::Unknown)));
            !late
        });
        self.reads.retain(|_, read| {
            let late = is_late(read.since_ms);
            let reason = "nobody confirmed the active master in time";
            effects.extend(late.then(|| respond(read.token, Answer::Refused { reason, later: true })));
            !late
        });
        let change_timeout_ms = self.change_timeout_ms;
        let change = self.change.take_if(|change| now_ms - change.since_ms >= change_timeout_ms);
        effects.extend(change.map(|change| respond(change.token, Answer::Unknown)));
    }
}
