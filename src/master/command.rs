//! What can be decided, and what follows: commands to the catalog, and the effects of applying them.
//!
//! Invariant: a command carries everything that decides its outcome, its time included, so that every master comes to the
//! same catalog.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::codec::{self, CodecError};
use crate::model::id::Epoch;
use crate::model::incident::IncidentKind;
use crate::model::mode::{Mode, Policy, Tier};
pub use crate::model::task::NodeProfile;
use crate::model::task::{Assignment, BootId, NodeName, NodeState, Task};

/// One decision of the active master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// When it was decided, Unix milliseconds. The catalog's time never goes back, whoever's clock does.
    pub at_ms: i64,
    pub change: Change,
}

impl Command {
    pub fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("command", bytes)
    }
}

/// What is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A node said hello. Under another boot id than before, it is another process: what the one before owned has no owner
    /// until `moves`, or a later `Assign`, gives it one.
    JoinNode {
        node: NodeProfile,
        moves: Vec<Move>,
    },
    /// Of suspects and those that came back: `Alive` and `Suspect` only.
    NodeStates(Vec<(NodeName, BootId, NodeState)>),
    /// What `moves` does not give to another has no owner.
    NodeLost {
        node: NodeName,
        boot: BootId,
        reason: String,
        moves: Vec<Move>,
    },
    /// It is to be given nothing; what it owns, moves away by `Assign`. `false`: not any more.
    DrainNode {
        node: NodeName,
        draining: bool,
    },
    /// A lost node is not expected back.
    ForgetNode {
        node: NodeName,
    },
    Assign(Vec<Move>),
    /// How far a source's changes are in mq, from the owner of its capture.
    SaveCheckpoint {
        source: Arc<str>,
        epoch: Epoch,
        #[serde(with = "codec::byte_string")]
        state: Bytes,
    },
    /// Work that is done.
    EndTask {
        task: Task,
        epoch: Epoch,
    },
    /// From the nodes' reports. Without effect while the policy is not `Auto`.
    SetMode {
        tier: Tier,
        mode: Mode,
        reason: String,
    },
    /// From an operator.
    SetPolicy {
        tier: Tier,
        policy: Policy,
        reason: String,
    },
    /// The fingerprint of the tables and metrics that are configured now.
    Define {
        fingerprint: u64,
    },
    OpenIncident {
        kind: IncidentKind,
        subject: String,
        text: String,
    },
    CloseIncident {
        kind: IncidentKind,
        subject: String,
    },
    /// Nothing but its time: ends drills.
    PassTime,
}

/// A task for another owner or standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub task: Task,
    /// The epoch that the plan was made from, zero for a new task; if it has passed, so has the plan.
    pub expect: Epoch,
    pub owner: Option<NodeName>,
    pub standby: Option<NodeName>,
}

/// What a command changed. Only the active master acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// To be told to the owner, the standby and whom they replace. `before` is `None` for a new task.
    Assigned {
        task: Task,
        now: Assignment,
        before: Option<Assignment>,
    },
    Ended {
        task: Task,
    },
    NodeIs {
        node: NodeName,
        state: NodeState,
    },
    Forgotten {
        node: NodeName,
    },
    ModeIs {
        tier: Tier,
        mode: Mode,
        policy: Policy,
    },
    Defined {
        version: u64,
        fingerprint: u64,
    },
    Opened {
        incident: u64,
    },
    Closed {
        incident: u64,
    },
    /// The command, or one of its moves, makes no sense any more.
    Nothing {
        reason: &'static str,
    },
}
