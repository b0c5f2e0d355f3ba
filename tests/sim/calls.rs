//! What actors ask of tiers, and what tiers answer: the effects and inputs of the production cores, as they travel.
//!
//! Invariant: every call gets exactly one reply, or none if its effect wants none; a reply that is lost becomes a failure.

use holdfast::gate::admission;
use holdfast::gate::lane;
use holdfast::gate::sequencer::Ticket;
use holdfast::kv::{Append, Snapshot};
use holdfast::model::batch::Batch;
use holdfast::model::id::{PartitionId, Tip};
use holdfast::model::position::Span;
use holdfast::mq::Offset;
use holdfast::query::blocks::Origin;
use holdfast::slave::exchange::{self, SinkName};
use holdfast::tier::{SinkQuery, SinkRead, SinkWrite, TierError};

pub type ActorId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    Mq,
    Kv,
    Hot,
    Cache,
}

pub const TIERS: [Tier; 4] = [Tier::Mq, Tier::Kv, Tier::Hot, Tier::Cache];

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mq => "mq",
            Self::Kv => "kv",
            Self::Hot => "hot",
            Self::Cache => "cache",
        }
    }

    pub fn failure(self, reason: &str) -> TierError {
        TierError::Unavailable { tier: self.name(), reason: reason.into() }
    }
}

#[derive(Debug, Clone)]
pub struct Call {
    pub from: ActorId,
    pub partition: PartitionId,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    // The gate's.
    ReadHead,
    ReadMq { from: Offset },
    AwaitMq { from: Offset },
    Probe { at_ms: i64, from: Offset },
    Append(Append),
    Publish(Ticket, Batch),
    TrimMq { before: Offset },
    // The slave's.
    ReadSnapshot,
    LookAtHead,
    ReadChunks { after: Tip },
    AskStanding(SinkName),
    Write(SinkName, SinkWrite),
    PutSnapshot(Snapshot),
    TrimKv { through: Tip, before_ms: i64 },
    // Of a query, by its number and the partition's place in it.
    ReadSink { query: (u64, usize), origin: Origin, asked: SinkQuery },
    // Capture's.
    Capture(Span, Batch),
}

#[derive(Debug)]
pub enum Reply {
    Gate(lane::Input),
    Slave(exchange::Input),
    Query((u64, usize), Result<SinkRead, TierError>),
    Capture(PartitionId, Span, Result<Offset, TierError>),
    /// Nobody waits for it.
    Nothing,
}

pub fn sink_tier(name: SinkName) -> Tier {
    match name {
        SinkName::Hot => Tier::Hot,
        SinkName::Cache => Tier::Cache,
    }
}

impl What {
    pub fn tier(&self) -> Tier {
        match self {
            Self::ReadMq { .. }
            | Self::AwaitMq { .. }
            | Self::Probe { .. }
            | Self::Publish(..)
            | Self::TrimMq { .. } => Tier::Mq,
            Self::Capture(..) => Tier::Mq,
            Self::ReadHead | Self::Append(_) | Self::ReadSnapshot | Self::LookAtHead | Self::ReadChunks { .. } => {
                Tier::Kv
            }
            Self::PutSnapshot(_) | Self::TrimKv { .. } => Tier::Kv,
            Self::AskStanding(name) | Self::Write(name, _) => sink_tier(*name),
            Self::ReadSink { origin: Origin::Hot, .. } => Tier::Hot,
            Self::ReadSink { origin: Origin::Cache, .. } => Tier::Cache,
        }
    }

    /// Batches keep their order on the way to mq: one connection carries them.
    pub fn is_publication(&self) -> bool {
        matches!(self, Self::Publish(..) | Self::Capture(..))
    }
}

impl Call {
    /// The answer of a tier that does not answer.
    pub fn failed(&self, reason: &str) -> Reply {
        let error = self.what.tier().failure(reason);
        let gate = |input| Reply::Gate(lane::Input::Admission(input));
        match &self.what {
            What::ReadHead => gate(admission::Input::Head(Err(error))),
            What::ReadMq { .. } => gate(admission::Input::Mq(Err(error))),
            What::AwaitMq { .. } => gate(admission::Input::Arrived(Err(error))),
            What::Probe { at_ms, .. } => gate(admission::Input::Probed { at_ms: *at_ms, read: Err(error) }),
            What::Append(_) => gate(admission::Input::Appended(Err(error))),
            What::Publish(ticket, _) => Reply::Gate(lane::Input::Published(*ticket, Err(error))),
            What::ReadSnapshot => Reply::Slave(exchange::Input::SnapshotRead(Err(error))),
            What::LookAtHead => Reply::Slave(exchange::Input::HeadRead(Err(error))),
            What::ReadChunks { .. } => Reply::Slave(exchange::Input::ChunksRead(Err(error))),
            What::AskStanding(name) => Reply::Slave(exchange::Input::Standing(*name, Err(error))),
            What::Write(name, _) => Reply::Slave(exchange::Input::Written(*name, Err(error))),
            What::PutSnapshot(_) => Reply::Slave(exchange::Input::SnapshotPut(Err(error))),
            What::ReadSink { query, .. } => Reply::Query(*query, Err(error)),
            What::Capture(span, _) => Reply::Capture(self.partition, *span, Err(error)),
            What::TrimMq { .. } | What::TrimKv { .. } => Reply::Nothing,
        }
    }
}
