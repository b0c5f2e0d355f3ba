//! The state of a cluster as one document: what `GET /api/v1/cluster` returns and page and `status` show.
//!
//! Invariant: built from what actors say of themselves; who did not answer is shown as silent, never left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::mode::Mode;

/// The state of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    pub name: String,
    /// holdfast's version on the node that answers.
    pub version: String,
    /// RFC 3339, UTC.
    pub now: String,
    /// Where hours and days begin, IANA name.
    pub timezone: String,
    pub partitions: u16,
    /// Are all partitions served and published?
    pub ready: bool,
    pub active_master: String,
    /// Grows with each change of the active master; a process alone counts its starts.
    pub term: u64,
    pub nodes: Vec<NodeView>,
    pub tiers: Vec<TierView>,
    pub rates: Rates,
    pub memory: Memory,
    pub tasks: Vec<TaskView>,
}

/// A process of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    pub name: String,
    pub roles: Vec<String>,
    pub state: NodeState,
    pub http: String,
    /// RFC 3339, UTC.
    pub started: String,
    pub cores: usize,
    /// The part of the cores in use, 0 to 1, over the last seconds.
    pub load: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Starting,
    Running,
    Stopping,
}

/// A joint between the roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TierView {
    pub tier: String,
    pub kind: String,
    #[schema(value_type = String, example = "normal")]
    pub mode: Mode,
    pub policy: String,
    /// RFC 3339, UTC: since when the mode holds.
    pub since: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// Per second, over the last second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    pub changes_ingested: f64,
    pub changes_applied: f64,
    pub queries: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    pub resident_bytes: u64,
}

/// A piece of work with one owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    pub kind: TaskKind,
    pub partition: u16,
    pub owner: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
    pub epoch: u64,
    pub state: TaskState,
    /// What it does in its own words.
    pub detail: String,
    /// Changes that it has still to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// RFC 3339, UTC: all changes before are in the published results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<String>,
    /// Gaps that are known; an answer over this partition is not exact while there are any.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gaps: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    Gate,
    Compute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
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
    /// Did not answer: it is busy, or being started again.
    Silent,
}

impl TaskKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Compute => "compute",
        }
    }
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

impl NodeState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

impl ClusterView {
    /// What is not as it should be, in words; nothing in a healthy cluster.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.ready {
            complaints.push("not ready".to_owned());
        }
        for tier in self.tiers.iter().filter(|tier| tier.mode != Mode::Normal) {
            let reason = tier.reason.as_deref().unwrap_or("no reason given");
            complaints.push(format!("{} is {}: {reason}", tier.tier, tier.mode.as_str()));
        }
        for ((kind, state), count) in self.task_counts() {
            if state != TaskState::Running {
                complaints.push(format!("{count} {} tasks are {}", kind.name(), state.name()));
            }
        }
        let gaps = self.tasks.iter().filter(|task| task.gaps > 0).count();
        if gaps > 0 {
            complaints.push(format!("{gaps} partitions have gaps"));
        }
        complaints
    }

    /// How many tasks of each kind are in each state.
    pub fn task_counts(&self) -> BTreeMap<(TaskKind, TaskState), u64> {
        let mut counts = BTreeMap::new();
        for task in &self.tasks {
            *counts.entry((task.kind, task.state)).or_insert(0) += 1;
        }
        counts
    }
}
