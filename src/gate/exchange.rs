//! What goes into a partition's gate and what comes out of it.
//!
//! Invariant: plain data; whoever has the inputs of a gate can do its steps again.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;

use super::admission::{self, Note};
use super::sequencer::Ticket;
use crate::kv::Append;
use crate::model::batch::{Batch, Chunk};
use crate::model::id::{Epoch, PartitionId, Tip};
use crate::model::schema::Table;
use crate::mq::Offset;
use crate::tier::TierError;

/// Rows of one request for one partition; the answer comes when mq has them.
#[derive(Debug, Clone)]
pub struct Offer {
    pub table: Arc<Table>,
    /// The request's `Idempotency-Key`.
    pub key: Option<Arc<str>>,
    /// The rows in the form of `rows::encode_rows`.
    pub body: Bytes,
    pub rows: u32,
    pub weighted: bool,
    /// First and last hour touched (hours since the Unix epoch, UTC).
    pub hours: Option<(i32, i32)>,
}

/// Names an offer until it is answered; given by who makes it.
pub type OfferId = u64;

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub rows: u32,
    /// The same request was accepted before; these rows count once.
    pub duplicate: bool,
}

/// Why an offer was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OfferError {
    #[error("too many requests wait for mq in this partition")]
    Busy,
    #[error("kv is {batches} batches behind mq in this partition")]
    Backlog { batches: u64 },
    #[error("the key was used for another request before")]
    KeyReused,
    #[error("another gate owns the partition")]
    Fenced,
    #[error("the partition is handed over to another gate")]
    HandedOver,
    /// It is not known whether mq has the rows.
    #[error("{0}")]
    Unavailable(TierError),
    /// It is not known whether mq has the rows.
    #[error("the gate ended before it answered")]
    Ended,
}

impl OfferError {
    /// Is it certain that nothing of the offer was taken?
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::Ended)
    }

    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::KeyReused)
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// First of all.
    Start,
    Heartbeat,
    Offer(OfferId, Offer),
    /// What became of a publication.
    Published(Ticket, Result<Offset, TierError>),
    /// Did the owner take the chunk that was pushed? To be told before more is read from mq.
    Pushed {
        taken: bool,
    },
    /// A tier's answer that the way from mq to kv waits for.
    Admission(admission::Input),
    /// Nothing more is taken or read; what is under way is finished.
    Stop,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    ReadHead,
    /// After the pause that `Lane::pause_ms` gives when it is this effect's turn.
    ReadMq {
        from: Offset,
    },
    AwaitMq {
        from: Offset,
    },
    /// Look whether mq is drained; `at_ms` is the time before the look.
    Probe {
        at_ms: i64,
        from: Offset,
    },
    Append(Append),
    /// Takes its place in mq at once: the order of these effects is the order of positions. Without rows: a void.
    Publish(Ticket, Batch),
    Answer(OfferId, Result<Accepted, OfferError>),
    /// A hint to the partition's owner: if it is lost, the owner reads kv.
    Push(Chunk),
    Idle {
        tip: Tip,
        at_ms: i64,
    },
    /// Come back with `admission::Input::Retry`.
    RetryAfter {
        after_ms: u64,
    },
    /// Its result is of no interest: more is trimmed later.
    Trim {
        before: Offset,
    },
    Note(Note),
}

/// How a gate stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateReport {
    pub partition: PartitionId,
    pub epoch: Epoch,
    /// `new`, `looking`, `resting`, `reading`, `drained`, `checking`, `appending`, `fenced`,
    /// `stopping`.
    pub state: &'static str,
    pub tip: Tip,
    /// The mq offset that kv has.
    pub offset: Offset,
    /// Batches in mq that kv does not have.
    pub mq_lag_batches: u64,
    pub applied_sources: usize,
    pub in_flight: usize,
    pub holes: usize,
    pub counted: Counted,
    pub pushes_dropped: u64,
}

/// What a gate has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub accepted_rows: u64,
    pub duplicate_rows: u64,
    pub committed_rows: u64,
    pub committed_batches: u64,
    pub committed_chunks: u64,
}
