//! What nodes and masters tell each other: who is there, who does what, and how it goes.
//!
//! ```text
//!  node ── Hello, Beat, Released, Leaving ──▶ active master      messages to service CONTROL, in order
//!  node ◀─ Standing, Directory, Release, Order active master
//!  any  ── Ask ──▶ a master ── Answered ──▶                      calls to service CONTROL
//! ```
//!
//! Every node keeps a link to every master; only the active one is spoken to. A directory is whole, never a difference:
//! whoever has the newest has all.
//!
//! Invariant: directories are ordered by `version` (how far the master's catalog had come); a node never goes back to an
//! older one, so that a master that was deposed without noticing cannot take anything back.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::codec;
use crate::model::id::Epoch;
use crate::model::incident::Incident;
use crate::model::mode::{Mode, Tier, TierStanding};
use crate::model::report::NodeReport;
use crate::model::task::{Assignment, BootId, NodeName, NodeProfile, NodeState, SourceOrder, Task};

/// From a node to the master that it takes for the active one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromNode {
    /// First of all, again under each new connection or active master, and until a directory holds the node with this boot id.
    Hello { profile: NodeProfile },
    /// It lives. `directory`: the version that it has, zero for none; the master sends the newest where that is older.
    Beat { node: NodeName, boot: BootId, directory: u64, report: Option<Box<NodeReport>> },
    /// What `Release` asked for is done: all is published and saved, and the node has let go.
    Released { node: NodeName, boot: BootId, task: Task, epoch: Epoch },
    /// It is going to stop: its tasks shall move, one by one and without loss of time. It is free to go once a directory
    /// gives it none.
    Leaving { node: NodeName, boot: BootId },
}

/// From a master to a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromMaster {
    /// To every node that is connected, whenever it changes, and in answer to what only the active one can do.
    Standing {
        term: u64,
        master: NodeName,
        is_active: bool,
        active: Option<String>,
    },
    Directory(Arc<Directory>),
    /// Finish this task, which is to be another's, and say `Released`. Whoever does not in time is fenced by the new owner.
    Release {
        task: Task,
        epoch: Epoch,
    },
    /// For the one who captures a source under this assignment.
    Order {
        task: Task,
        epoch: Epoch,
        order: SourceOrder,
    },
}

/// Who is where and does what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The index of the last command in it. Grows; zero is none.
    pub version: u64,
    pub term: u64,
    /// In the order of their names.
    pub nodes: Vec<(NodeProfile, NodeState)>,
    /// In their own order.
    pub tasks: Vec<(Task, Assignment)>,
    /// In the order of `Tier::ALL`.
    pub modes: Vec<(Tier, Mode)>,
    /// host:port of every master, as they are now.
    pub masters: Vec<String>,
}

/// What anybody may ask a master. Standbys answer `NotActive`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// `history_after_ms`: samples that the asker has already.
    State {
        history_after_ms: i64,
    },
    /// An operator's decision; `for_ms` ends it.
    HoldTier {
        tier: Tier,
        mode: Option<Mode>,
        for_ms: Option<u64>,
        by: String,
    },
    Drain {
        node: NodeName,
        draining: bool,
    },
    Forget {
        node: NodeName,
    },
    /// An operator's order to a source that stands still. `Done`: its owner was told.
    OrderSource {
        source: Arc<str>,
        order: SourceOrder,
    },
    /// Where the capture of a source shall begin, under its assignment's epoch.
    Checkpoint {
        source: Arc<str>,
        epoch: Epoch,
    },
    /// From the owner of a source's capture, under its assignment's epoch.
    SaveCheckpoint {
        source: Arc<str>,
        epoch: Epoch,
        #[serde(with = "codec::byte_string")]
        state: Bytes,
    },
    AddMaster {
        address: String,
    },
    RemoveMaster {
        address: String,
    },
}

/// A master's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answered {
    State(Box<ClusterState>),
    /// Empty: nothing was saved yet.
    Checkpoint {
        #[serde(with = "codec::byte_string")]
        state: Bytes,
    },
    Done,
    /// There is no such thing, or it cannot be done; in words for the one who asked.
    Refused {
        reason: String,
    },
    /// Ask there, if it is known where.
    NotActive {
        active: Option<String>,
    },
    /// It may or may not have been done; the same can be asked again.
    Unknown,
}

/// All that the active master knows, for people.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterState {
    /// When it was, Unix milliseconds; `None` in `active`: no active master, and this is what the node itself knows.
    pub at_ms: i64,
    pub active: Option<NodeName>,
    pub term: u64,
    pub version: u64,
    pub nodes: Vec<NodeStatus>,
    pub tasks: Vec<(Task, Assignment)>,
    /// In the order of `Tier::ALL`.
    pub tiers: Vec<(Tier, TierStanding)>,
    pub masters: Vec<MasterStatus>,
    /// Open ones first, then the newest of the past ones.
    pub incidents: Vec<Incident>,
    /// Oldest first.
    pub history: Vec<Sample>,
}

/// A node, with what it last said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub profile: NodeProfile,
    pub state: NodeState,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// When it was last heard by the one who answers, Unix milliseconds.
    pub heard_ms: Option<i64>,
    pub report: Option<Arc<NodeReport>>,
}

/// A member of the masters' group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterStatus {
    pub id: u64,
    pub address: String,
    /// Whose address that is, if the node is known.
    pub node: Option<NodeName>,
    pub is_active: bool,
    pub votes: bool,
    /// Is there a connection from the one who answers?
    pub reachable: bool,
}

/// The whole cluster over one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its end, Unix milliseconds.
    pub at_ms: i64,
    /// Rows per second.
    pub ingested: f64,
    pub applied: f64,
    pub queries: f64,
    /// Of the emissions in it; `None` if there were none.
    pub fresh_p50_ms: Option<f64>,
    pub fresh_p99_ms: Option<f64>,
    /// The age of the oldest partition's results.
    pub oldest_ms: Option<f64>,
    pub lag: u64,
}
