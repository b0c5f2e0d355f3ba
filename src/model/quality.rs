//! How good an answer is: the record that a partition's owner publishes, and what a query says of itself.
//!
//! Invariant: `exact` is claimed only where a record vouches for every block that was read (design §7).

use serde::{Deserialize, Serialize};

use super::id::{SourceId, Tip};
use super::position::Span;

/// Changes known to be missing from a partition, by table and hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    pub source: SourceId,
    pub table: String,
    pub span: Span,
    /// The hours that the missing rows belong to, Unix milliseconds, where they are known.
    pub hours_ms: Option<(i64, i64)>,
    /// How many changes, where that is known.
    pub changes: Option<u64>,
    pub reason: String,
}

/// Something that cannot be answered at all for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    pub what: String,
    pub reason: String,
}

/// What a partition's owner says of the blocks in a sink, written at the end of each emission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The emission that the record closes; it vouches for blocks up to this version.
    pub version: Tip,
    /// The first emission after the owner's claim, which said everything that the owner knows. A block older than this
    /// is gone: an owner before wrote it, and this one has seen its last row taken away.
    pub base: Tip,
    /// Unix milliseconds: every change that the sources had before is in the blocks, but for what is missing.
    pub as_of_ms: i64,
    /// The gaps; bounded, see `missing_more`.
    pub missing: Vec<Missing>,
    /// How many gaps did not fit into `missing`.
    pub missing_more: u64,
    pub unavailable: Vec<Unavailable>,
}

impl Record {
    /// No gaps and nothing unavailable: blocks up to `version` are exact as of `as_of_ms`.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.missing_more == 0 && self.unavailable.is_empty()
    }
}
