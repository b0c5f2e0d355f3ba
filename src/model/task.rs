//! Tasks: pieces of work with one owner each, and nodes, which own them.
//!
//! Invariant: a task has one owner at a time; its epoch grows whenever the owner changes and is never given twice, to no task.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::block::Day;
use super::id::{Epoch, PartitionId};

/// A node's name, unique in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeName(pub Arc<str>);

impl NodeName {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number that each start of a process draws anew: tells a restarted node from a paused one.
pub type BootId = u64;

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Capture,
    Gate,
    Slave,
    Query,
    Master,
    Store,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProfile {
    pub name: NodeName,
    pub boot: BootId,
    pub roles: BTreeSet<Role>,
    /// For other nodes, and for people.
    pub listen: Option<String>,
    pub http: Option<String>,
    /// The machine, where it is known: a standby is on another one, if there is another.
    pub host: Option<String>,
    /// How much it is to be given, in proportion to the others; 100 is usual.
    pub weight: u32,
}

impl Role {
    pub const ALL: [Self; 6] = [Self::Capture, Self::Gate, Self::Slave, Self::Query, Self::Master, Self::Store];

    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Gate => "gate",
            Self::Slave => "slave",
            Self::Query => "query",
            Self::Master => "master",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Work with one owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Gate(PartitionId),
    Compute(PartitionId),
    /// By the source's name in the configuration.
    Capture(Arc<str>),
    Archive(Day),
    AnalyseQueries(Day),
}

impl Task {
    /// What a node must be to own it.
    pub fn role(&self) -> Role {
        match self {
            Self::Gate(_) => Role::Gate,
            Self::Compute(_) | Self::Archive(_) => Role::Slave,
            Self::Capture(_) => Role::Capture,
            Self::AnalyseQueries(_) => Role::Query,
        }
    }

    /// Does another node keep itself ready to take over?
    pub fn has_standby(&self) -> bool {
        matches!(self, Self::Compute(_))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(partition) => write!(f, "gate {partition}"),
            Self::Compute(partition) => write!(f, "compute {partition}"),
            Self::Capture(source) => write!(f, "capture {source}"),
            Self::Archive(day) => write!(f, "archive {day}"),
            Self::AnalyseQueries(day) => write!(f, "analyse queries of {day}"),
        }
    }
}

/// Who does a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Nobody: its owner was lost, and there is no other.
    pub owner: Option<NodeName>,
    pub standby: Option<NodeName>,
    /// Of the owner; of the last one where there is none.
    pub epoch: Epoch,
}

/// What an operator may order of a source that stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceOrder {
    /// Try again as it is.
    Retry,
    /// Go on past what stopped it; what that means, its incident says.
    Pass,
}

/// How a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    Alive,
    /// Its connection was closed; it may come back in a moment.
    Suspect,
    /// It owns nothing any more.
    Lost,
    /// It works, but is to be given nothing: an operator takes it away.
    Draining,
}
