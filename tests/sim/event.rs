//! What happens in the simulated cluster, and in which order.
//!
//! Invariant: events are handled by time; among those of one moment chance decides, but for those that keep their order.

use holdfast::gate::exchange::Offer;
use holdfast::gate::lane::{Accepted, OfferError};
use holdfast::model::batch::Chunk;
use holdfast::model::id::Tip;

use crate::calls::{ActorId, Call, Reply};
use crate::clients::DeliveryId;
use crate::control;
use crate::faults::Repair;
use crate::world::NodeId;

pub enum Event {
    Arrive { call: Box<Call>, life: u32, fate: Fate },
    Reply { to: ActorId, reply: Box<Reply> },
    Beat { to: ActorId },
    Retry { to: ActorId },
    ReadMq { to: ActorId, call: Box<Call> },
    Wake { to: ActorId, at_ms: i64 },
    Stop { to: ActorId },
    Push { to: ActorId, chunk: Box<Chunk> },
    Idle { to: ActorId, tip: Tip, at_ms: i64 },
    Offer { to: ActorId, delivery: DeliveryId, offer: Box<Offer> },
    Answer { delivery: DeliveryId, answer: Result<Accepted, OfferError> },
    Shop,
    Deliver { request: usize, part: usize, is_retry: bool },
    Capture,
    Ask,
    AskAgain { query: (u64, usize) },
    Fault,
    Repair(Repair),
    Detect(NodeId),
    Control(control::Event),
}

/// What becomes of a call on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Good,
    /// The caller has given up by now, and was told that it failed.
    Late,
    /// It is carried out, but the caller is told that it failed.
    AnswerLost,
}

pub struct Scheduled {
    pub at_ms: i64,
    /// Among events of one moment chance decides, but for those that must keep their order.
    pub tie: u32,
    pub number: u64,
    pub event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.tie, self.number).cmp(&(other.at_ms, other.tie, other.number))
    }
}

impl Event {
    /// The actor that must be up for it.
    pub fn addressee(&self) -> Option<ActorId> {
        match self {
            Self::Reply { to, .. } | Self::Beat { to } | Self::Retry { to } | Self::ReadMq { to, .. } => Some(*to),
            Self::Wake { to, .. } | Self::Stop { to } | Self::Push { to, .. } | Self::Idle { to, .. } => Some(*to),
            Self::Offer { to, .. } => Some(*to),
            _ => None,
        }
    }

    pub fn number(&self) -> u64 {
        match self {
            Self::Arrive { call, .. } => 1 + ((call.from as u64) << 8),
            Self::Reply { to, .. } => 2 + ((*to as u64) << 8),
            Self::Beat { .. } => 3,
            Self::Retry { .. } => 4,
            Self::ReadMq { .. } => 5,
            Self::Wake { to, .. } => 6 + ((*to as u64) << 8),
            Self::Stop { .. } => 7,
            Self::Push { chunk, .. } => 8 + (chunk.id.number << 8),
            Self::Idle { .. } => 9,
            Self::Offer { .. } => 10,
            Self::Answer { answer, .. } => 11 + (u64::from(answer.is_ok()) << 8),
            Self::Shop => 12,
            Self::Deliver { .. } => 13,
            Self::Capture => 14,
            Self::Ask => 15,
            Self::AskAgain { .. } => 16,
            Self::Fault => 17,
            Self::Repair(_) => 18,
            Self::Detect(_) => 19,
            Self::Control(_) => 20,
        }
    }
}
