//! What the active master tells: the directory to nodes, the state of everything to people.
//!
//! Invariant: a directory is whole, and of the catalog alone; what is only heard goes into the state.

use super::duties::Group;
use super::history::History;
use super::roster::Roster;
use crate::model::mode::Tier;
use crate::model::task::NodeName;
use crate::net::control::{ClusterState, Directory, MasterStatus, NodeStatus};

pub fn directory(group: &Group<'_>) -> Directory {
    Directory {
        version: group.index,
        term: group.term,
        nodes: group.catalog.nodes().map(|node| (node.profile.clone(), node.state)).collect(),
        tasks: group.catalog.tasks().map(|(task, assignment)| (task.clone(), assignment.clone())).collect(),
        modes: Tier::ALL.iter().map(|tier| (*tier, group.catalog.tier(*tier).mode)).collect(),
        masters: group.masters.addresses.values().cloned().collect(),
    }
}

/// `me`: the node of this master.
pub fn state(
    now_ms: i64,
    me: &NodeName,
    group: &Group<'_>,
    roster: &Roster,
    history: &History,
    history_after_ms: i64,
) -> ClusterState {
    let node = |node: &super::catalog::Node| {
        let heard = roster.last_heard(&node.profile.name).filter(|heard| heard.boot == node.profile.boot);
        NodeStatus {
            profile: node.profile.clone(),
            state: node.state,
            since_ms: node.since_ms,
            heard_ms: heard.map(|heard| heard.at_ms),
            report: heard.and_then(|heard| heard.report.clone()),
        }
    };
    let incidents = group.catalog.incidents();
    let past: Vec<_> = incidents.past().collect();
    ClusterState {
        at_ms: now_ms,
        active: Some(me.clone()),
        term: group.term,
        version: group.index,
        nodes: group.catalog.nodes().map(node).collect(),
        tasks: group.catalog.tasks().map(|(task, assignment)| (task.clone(), assignment.clone())).collect(),
        tiers: Tier::ALL.iter().map(|tier| (*tier, group.catalog.tier(*tier).clone())).collect(),
        masters: masters(me, group),
        incidents: incidents.open().chain(past.into_iter().rev()).cloned().collect(),
        history: history.after(history_after_ms),
    }
}

fn masters(me: &NodeName, group: &Group<'_>) -> Vec<MasterStatus> {
    let node_at = |address: &str| {
        let is_it = |node: &&super::catalog::Node| node.profile.listen.as_deref() == Some(address);
        group.catalog.nodes().find(is_it).map(|node| node.profile.name.clone())
    };
    let status = |(id, address): (&u64, &String)| MasterStatus {
        id: *id,
        address: address.clone(),
        node: if *id == group.me { Some(me.clone()) } else { node_at(address) },
        is_active: *id == group.me,
        votes: group.masters.voters.contains(id),
        reachable: group.is_reachable(*id),
    };
    group.masters.addresses.iter().map(status).collect()
}
