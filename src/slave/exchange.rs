//! What goes into a partition's computation and what comes out of it.
//!
//! Invariant: plain data; whoever has the inputs of a partition can do its steps again.

use serde::{Deserialize, Serialize};

use super::emission::EmissionReport;
use super::standing::Standing;
use crate::kv::{ChunkRead, Head, Snapshot};
use crate::model::batch::Chunk;
use crate::model::id::{Epoch, PartitionId, Tip};
use crate::tier::{SinkStanding, SinkWrite, TierError};

/// The two sinks of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkName {
    Hot,
    Cache,
}

pub const SINKS: [SinkName; 2] = [SinkName::Hot, SinkName::Cache];

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// First of all; and whenever the time that `wake_ms` gave has come.
    Tick,
    Push(Chunk),
    Idle {
        tip: Tip,
        at_ms: i64,
    },
    SnapshotRead(Result<Option<Snapshot>, TierError>),
    HeadRead(Result<Head, TierError>),
    ChunksRead(Result<ChunkRead, TierError>),
    Standing(SinkName, Result<SinkStanding, TierError>),
    Written(SinkName, Result<(), TierError>),
    SnapshotPut(Result<(), TierError>),
    Stop,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    ReadSnapshot,
    ReadHead,
    ReadChunks {
        after: Tip,
    },
    AskStanding(SinkName),
    Write(SinkName, SinkWrite),
    PutSnapshot(Snapshot),
    /// Its result is of no interest: it is asked for again after the next snapshot.
    Trim {
        through: Tip,
        before_ms: i64,
    },
    /// Changes made at these times are in hot now.
    Visible {
        at_ms: Vec<i64>,
    },
    /// The partition is over: stopped, or fenced.
    End,
}

/// What a partition says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionReport {
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub standing: Standing,
    /// The last chunk counted.
    pub tip: Tip,
    /// Is there more in kv than was counted, as far as is known?
    pub behind: bool,
    pub rows_applied: u64,
    pub groups: usize,
    /// Rows of all metric tables.
    pub metric_rows: usize,
    pub state_bytes: usize,
    pub sources: usize,
    pub gaps: usize,
    /// Unix milliseconds, 0: not known yet.
    pub as_of_ms: i64,
    pub hot: EmissionReport,
    pub cache: EmissionReport,
    /// Unix milliseconds.
    pub last_snapshot_ms: Option<i64>,
    /// What kv last failed with; gone when it works again.
    pub kv_trouble: Option<String>,
    /// What the state lacks for good.
    pub lacks: Option<String>,
}
