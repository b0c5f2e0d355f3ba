//! Incidents: what an operator should know of, from when to when.
//!
//! Invariant: of one kind and subject there is one open incident at most.

use serde::{Deserialize, Serialize};

/// What kind of thing happened; decides how loud it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    TierDegraded,
    /// An operator decided a tier's mode.
    TierHeld,
    NodeLost,
    /// A task without anybody who could do it.
    Unowned,
    /// Changes that were not counted.
    Gap,
    /// A window that cannot be given.
    Unavailable,
    Other,
}

/// From when to when something was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Grows; never given twice.
    pub id: u64,
    pub kind: IncidentKind,
    /// What it is about: `kv`, a node's name, a partition.
    pub subject: String,
    pub text: String,
    /// Unix milliseconds.
    pub opened_ms: i64,
    pub closed_ms: Option<i64>,
}
