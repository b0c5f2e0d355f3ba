//! What a process that runs alone says in the masters' place.
//!
//! Invariant: one node, alive, that owns every task; nothing about it is replicated, so nothing can be decided.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};

use crate::admin::admin_state::Masters;
use crate::model::mode::{Tier, TierStanding};
use crate::model::report::NodeReport;
use crate::model::task::{Assignment, NodeName, NodeProfile, NodeState, Role};
use crate::net::control::{Answered, Ask, ClusterState, MasterStatus, NodeStatus, Sample};

pub fn name() -> NodeName {
    NodeName::new("local")
}

/// The cluster, as this process is all of it. `start`: how often its data folder was started.
pub fn state(start: u64, http: SocketAddr, report: NodeReport, history: Vec<Sample>) -> ClusterState {
    let owned = Assignment { owner: Some(name()), standby: None, epoch: start };
    let profile = NodeProfile {
        name: name(),
        boot: start,
        roles: [Role::Master, Role::Gate, Role::Slave, Role::Query].into(),
        listen: None,
        http: Some(http.to_string()),
        host: None,
        weight: 100,
    };
    let (at_ms, since_ms) = (report.at_ms, report.started_ms);
    ClusterState {
        at_ms,
        active: Some(name()),
        term: start,
        version: start,
        tasks: report.tasks.iter().map(|task| (task.task.clone(), owned.clone())).collect(),
        tiers: Tier::ALL.map(|tier| (tier, TierStanding { since_ms, ..TierStanding::default() })).into(),
        masters: vec![MasterStatus {
            id: 1,
            address: http.to_string(),
            node: Some(name()),
            is_active: true,
            votes: true,
            reachable: true,
        }],
        incidents: Vec::new(),
        history,
        nodes: vec![NodeStatus {
            profile,
            state: NodeState::Alive,
            since_ms,
            heard_ms: Some(at_ms),
            report: Some(Arc::new(report)),
        }],
    }
}

/// There is nobody to decide anything.
pub struct NoMasters;

impl Masters for NoMasters {
    fn ask(&self, _: Ask) -> BoxFuture<'static, Answered> {
        let reason = "this process runs alone: it has no masters that could remember a decision".to_owned();
        std::future::ready(Answered::Refused { reason }).boxed()
    }
}
