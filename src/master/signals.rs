//! What goes into a master's consensus and what comes out.
//!
//! Invariant: effects are everything that it does; whoever carries them out needs to know nothing else of it.

use bytes::Bytes;

use super::journal::Record;
use super::masters::{Masters, MastersChange};
use super::requests::{Answer, Token};
use super::wire::MasterId;

/// What happens to a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// At least every `tick`; when late, it counts as two at most.
    Tick,
    /// From another master, as its `Send` said.
    Message(Bytes),
    /// The connection to another master was closed.
    Closed(MasterId),
    /// The write of this number, and all before it, are durable.
    Persisted(u64),
    Propose {
        token: Token,
        command: Bytes,
    },
    ReadIndex {
        token: Token,
    },
    ChangeMasters {
        token: Token,
        change: MastersChange,
    },
    /// What was applied up to `index`, the last one, as bytes that `Restore` will bring to a master that lags.
    Compact {
        index: u64,
        state: Bytes,
    },
    /// This master is going to stop: if it is active, another shall be.
    StepAside,
}

/// What is to be done. In order, but `Persist` need not be waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write it, after those before it, and say `Persisted(number)` once it is durable.
    Persist {
        number: u64,
        record: Record,
    },
    Send {
        to: MasterId,
        message: Bytes,
    },
    Apply {
        index: u64,
        command: Bytes,
    },
    /// In the place of all that was applied before.
    Restore {
        index: u64,
        state: Bytes,
    },
    Respond {
        token: Token,
        answer: Answer,
    },
    /// From now on this master decides: what was committed before its term has been applied.
    BecameActive {
        term: u64,
    },
    SteppedDown {
        term: u64,
    },
    /// Whom this master takes for the active one.
    ActiveIs {
        active: Option<MasterId>,
        term: u64,
    },
    MastersAre(Masters),
    /// `Compact` is wanted.
    CompactionDue,
    /// A message was dropped.
    Refused {
        reason: String,
    },
    /// This master's disk has forgotten what it had promised: it must stop, be removed, and join under a new number.
    Forgot,
}

/// What a master says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Observation {
    pub id: MasterId,
    pub term: u64,
    pub is_active: bool,
    pub active: Option<MasterId>,
    pub applied: u64,
    pub committed: u64,
    pub log_bytes: usize,
    pub unwritten: usize,
    pub masters: Masters,
}
