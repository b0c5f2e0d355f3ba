//! What a node says of its work: how each task stands, how busy it is, how the tiers look from there.
//!
//! Invariant: a report is of one moment of one process; whoever shows it says how old it is.

use serde::{Deserialize, Serialize};

use super::id::Epoch;
use super::mode::Tier;
use super::task::Task;

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    Running,
    /// Reading what was there before.
    Catching,
    /// A tier fails it, or it cannot count what it reads; it goes on by itself when that ends.
    Failing,
    /// Another owner has taken over.
    Fenced,
    Stopping,
    /// Did not answer: it is busy, or being started again; or its node is not heard.
    Silent,
}

impl TaskState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Catching => "catching",
            Self::Failing => "failing",
            Self::Fenced => "fenced",
            Self::Stopping => "stopping",
            Self::Silent => "silent",
        }
    }
}

/// A task, by who does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    pub task: Task,
    /// Of the assignment that it works under.
    pub epoch: Epoch,
    pub state: TaskState,
    /// What it does in its own words.
    pub detail: String,
    /// Changes that it has still to take.
    pub lag: Option<u64>,
    /// Unix milliseconds: all changes before are in the published results.
    pub as_of_ms: Option<i64>,
    /// Gaps that are known.
    pub gaps: u64,
    /// Rows counted, or taken in, since the task started here: what it weighs.
    pub rows: u64,
}

/// How a tier looks from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierReport {
    pub tier: Tier,
    /// `embedded`, `redis`, …
    pub kind: String,
    /// Does this node hold it? Then the sizes are its share of it; otherwise they are of all that a service holds.
    pub holds: bool,
    pub used_bytes: Option<u64>,
    pub limit_bytes: Option<u64>,
    /// What the last call failed with, if none has succeeded since.
    pub trouble: Option<String>,
}

/// Per second, over the last second or so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeRates {
    pub ingested: f64,
    pub applied: f64,
    pub queries: f64,
}

/// From a change's time of arrival to its being visible, over the last seconds; milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Emissions that it is made of; with none the others say nothing.
    pub samples: u64,
}

/// A process, by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// When it was made, by the node's clock, Unix milliseconds.
    pub at_ms: i64,
    pub started_ms: i64,
    pub version: String,
    pub cores: u32,
    /// The part of the cores in use, 0 to 1.
    pub load: f64,
    pub resident_bytes: u64,
    pub rates: NodeRates,
    pub freshness: Freshness,
    pub tasks: Vec<TaskReport>,
    pub tiers: Vec<TierReport>,
}
