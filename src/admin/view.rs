//! The state of a cluster as one document: what `GET /api/v1/cluster` returns and page and `status` show.
//!
//! Invariant: built from what nodes say of themselves and what masters decided; who did not answer is shown as silent, never
//! left out.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::incident::IncidentKind;
use crate::model::mode::Mode;
use crate::model::report::TaskState;

/// The state of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    pub name: String,
    /// holdfast's version on the node that answers.
    pub version: String,
    /// RFC 3339, UTC.
    pub now: String,
    /// Where hours and days begin, IANA name.
    pub timezone: String,
    pub partitions: u16,
    /// Does the node that answers serve?
    pub ready: bool,
    /// The node that answers.
    pub answered_by: String,
    /// Null: none is known; then this is what the node that answers knows by itself.
    pub active_master: Option<String>,
    /// RFC 3339, UTC: since when no active master is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_master_since: Option<String>,
    /// Grows with each election of an active master.
    pub term: u64,
    /// What is not as it should be, the worst first; nothing in a healthy cluster.
    #[serde(default)]
    pub complaints: Vec<Complaint>,
    pub nodes: Vec<NodeView>,
    #[serde(default)]
    pub masters: Vec<MasterView>,
    pub tiers: Vec<TierView>,
    pub rates: Rates,
    #[serde(default)]
    pub freshness: FreshnessView,
    pub memory: Memory,
    pub tasks: Vec<TaskView>,
    /// Open ones first, then the newest of the past ones.
    #[serde(default)]
    pub incidents: Vec<IncidentView>,
    /// Oldest first.
    #[serde(default)]
    pub history: Vec<SampleView>,
}

/// How bad something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    #[default]
    Good,
    /// It passes by itself, or nobody notices yet.
    Warn,
    /// Somebody has to do something, or answers lack something.
    Bad,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Complaint {
    pub level: Level,
    pub what: String,
    /// RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What to do, or what happens by itself.
    pub advice: String,
}

/// A process of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    pub name: String,
    pub roles: Vec<String>,
    pub state: NodeState,
    /// RFC 3339, UTC: since when it is in this state.
    #[serde(default)]
    pub since: String,
    /// Where people reach it; empty: not known.
    pub http: String,
    /// The machine, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// RFC 3339, UTC; empty: it has not reported.
    pub started: String,
    pub cores: usize,
    /// The part of the cores in use, 0 to 1, over the last seconds.
    pub load: f64,
    #[serde(default)]
    pub resident_bytes: u64,
    #[serde(default)]
    pub rates: Rates,
    /// Tasks that it owns.
    #[serde(default)]
    pub tasks: usize,
    /// Tasks that it would take over.
    #[serde(default)]
    pub standby_tasks: usize,
    /// Has it said how it is, not long ago? If not, figures are missing or old.
    #[serde(default)]
    pub reports: bool,
    /// RFC 3339, UTC: when it was last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<String>,
    #[serde(default)]
    pub version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Only of the node that answers: it does not serve yet.
    Starting,
    Alive,
    /// Its connection was closed; it may come back in a moment.
    Suspect,
    /// It owns nothing any more.
    Lost,
    /// It works, but is given nothing new.
    Draining,
    /// Only of the node that answers.
    Stopping,
}

/// A member of the masters' group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MasterView {
    pub id: u64,
    pub address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub active: bool,
    /// Not yet, if it is learning.
    pub votes: bool,
    pub reachable: bool,
}

/// A joint between the roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TierView {
    pub tier: String,
    pub kind: String,
    #[schema(value_type = String, example = "normal")]
    pub mode: Mode,
    /// `auto`, `hold` (an operator holds it in this mode) or `drill`.
    pub policy: String,
    /// RFC 3339, UTC: when a drill ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// RFC 3339, UTC: since when the mode holds.
    pub since: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Nodes whose last call of it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubled_nodes: Vec<String>,
    /// What one of them says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Per second, over the last second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    pub changes_ingested: f64,
    pub changes_applied: f64,
    pub queries: f64,
}

/// From a change's arrival to its being visible, over the last seconds; null where nothing was emitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FreshnessView {
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// The age of the oldest partition's results.
    pub oldest_ms: Option<f64>,
    /// Changes that gates have still to take.
    pub lag: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Memory {
    /// Of all nodes that report.
    pub resident_bytes: u64,
}

/// A piece of work with one owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    pub kind: TaskKind,
    /// Of gates and computes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u16>,
    /// Of others: the source's name, or the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Null: nobody does it.
    pub owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<String>,
    pub epoch: u64,
    #[schema(value_type = String, example = "running")]
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
    Capture,
    Archive,
    Analyse,
}

/// From when to when something was not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentView {
    pub id: u64,
    #[schema(value_type = String, example = "tier_degraded")]
    pub kind: IncidentKind,
    /// What it is about: `kv`, a node's name, a partition.
    pub subject: String,
    pub text: String,
    /// RFC 3339, UTC.
    pub opened: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
}

/// All incidents that are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentsView {
    pub open: Vec<IncidentView>,
    /// The newest first.
    pub past: Vec<IncidentView>,
}

/// The whole cluster over one interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SampleView {
    /// Its end, Unix milliseconds.
    pub at_ms: i64,
    pub rates: Rates,
    pub freshness: FreshnessView,
}

impl TaskKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Compute => "compute",
            Self::Capture => "capture",
            Self::Archive => "archive",
            Self::Analyse => "analyse",
        }
    }
}

impl NodeState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Lost => "lost",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
        }
    }

    pub fn level(self) -> Level {
        match self {
            Self::Alive => Level::Good,
            Self::Lost => Level::Bad,
            Self::Starting | Self::Suspect | Self::Draining | Self::Stopping => Level::Warn,
        }
    }
}

impl Level {
    /// A name for styles, and for scripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

impl ClusterView {
    /// How many tasks of each kind are in each state.
    pub fn task_counts(&self) -> BTreeMap<(TaskKind, TaskState), u64> {
        let mut counts = BTreeMap::new();
        for task in &self.tasks {
            *counts.entry((task.kind, task.state)).or_insert(0) += 1;
        }
        counts
    }

    /// How the whole is.
    pub fn level(&self) -> Level {
        self.complaints.iter().map(|complaint| complaint.level).max().unwrap_or_default()
    }

    /// When this was, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        millis(&self.now).unwrap_or_default()
    }

    /// How old something is at the time of this document; never negative, for clocks differ a little.
    pub fn age_ms(&self, at: &str) -> Option<i64> {
        Some((self.now_ms() - millis(at)?).max(0))
    }

    pub fn incidents(&self) -> IncidentsView {
        let (past, open) = self.incidents.iter().cloned().partition(|incident| incident.closed.is_some());
        IncidentsView { open, past }
    }
}

/// Unix milliseconds as RFC 3339 in UTC.
pub fn moment(at_ms: i64) -> String {
    let moment = DateTime::from_timestamp_millis(at_ms);
    moment.map_or_else(|| at_ms.to_string(), |moment| moment.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// Unix milliseconds of what `moment` wrote.
pub fn millis(text: &str) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis())
}
