//! Up to where a source's changes are safe in mq, and where to begin again.
//!
//! Invariant: a checkpoint never passes a change that mq has not acknowledged; one of an older epoch is never saved over a newer
//! owner's.

use serde::{Deserialize, Serialize};

use super::gtid::Gtids;
use super::meaning::Declared;
use super::place::{LogName, Place};
use crate::model::id::{Epoch, SourceId};
use crate::model::position::Position;
use crate::mq::Offset;
use crate::tier::TierFuture;

/// How far a source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Tells the server from others: positions of another's log mean nothing.
    pub server: String,
    /// Of the source's names in mq. Each attempt at a snapshot, and each move to another server, has one of its own.
    pub incarnation: u64,
    pub stage: Stage,
    /// Incarnations of which rows were taken back: each shows as a gap until what replaces them is in mq.
    pub open: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The rows that were there are on their way into mq; by partition the offset before which none of them is.
    Snapshot {
        mq_from: Vec<Offset>,
    },
    Log(LogCheckpoint),
    /// The url leads to another server: what was read of `from` beyond `log.resume` is taken back, and read there.
    Moving {
        from: u64,
        log: LogCheckpoint,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCheckpoint {
    pub log: LogName,
    /// All rows up to here are in mq.
    pub position: Position,
    /// Everything that the source had before this time stands before the position (Unix milliseconds).
    pub at_ms: i64,
    /// The beginning of the transaction that the position is in, or the position's own place.
    pub resume: Place,
    /// Statements up to here are passed by an operator's order.
    pub passed: Position,
    /// How tables were defined at `resume`.
    pub tables: Vec<DefinedTable>,
    /// The transactions before `resume`, where the server names them all.
    pub gtids: Option<Gtids>,
    /// By partition an offset of mq before which there is nothing from beyond `resume`.
    pub mq_from: Vec<Offset>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinedTable {
    /// `shop.orders`.
    pub source: String,
    pub columns: Vec<Declared>,
}

/// The name of a source's table in mq.
pub fn source_id(source: &str, table: &str, incarnation: u64) -> SourceId {
    SourceId::Stream { name: format!("{source}/{table}").into(), incarnation }
}

/// The name under which rows of an incarnation are taken back.
pub fn taking_back_id(source: &str, table: &str, incarnation: u64) -> SourceId {
    SourceId::Stream { name: format!("{source}/{table}/taken-back").into(), incarnation }
}

/// Where checkpoints are kept: with the masters, not on a node's disk.
pub trait Checkpoints: Send + Sync {
    /// From here on what lower epochs save is refused: nobody may begin what the loader does not know of.
    fn load<'a>(&'a self, source: &'a str, epoch: Epoch) -> TierFuture<'a, Option<Checkpoint>>;

    /// Refused as `Fenced` if a higher epoch has loaded or saved.
    fn save<'a>(&'a self, source: &'a str, epoch: Epoch, checkpoint: Checkpoint) -> TierFuture<'a, ()>;
}
