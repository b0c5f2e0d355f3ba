//! What a directory says of nodes and tasks. Pure.
//!
//! Invariant: looks only; nodes and tasks stand in the order of their names, so a look costs a few comparisons.

use std::collections::BTreeSet;

use super::control::Directory;
use crate::model::task::{Assignment, NodeName, NodeProfile, NodeState, Role, Task};

pub fn assignment<'a>(directory: &'a Directory, task: &Task) -> Option<&'a Assignment> {
    let at = directory.tasks.binary_search_by(|(candidate, _)| candidate.cmp(task)).ok()?;
    Some(&directory.tasks[at].1)
}

pub fn node<'a>(directory: &'a Directory, name: &NodeName) -> Option<&'a (NodeProfile, NodeState)> {
    let at = directory.nodes.binary_search_by(|(profile, _)| profile.name.cmp(name)).ok()?;
    Some(&directory.nodes[at])
}

/// Nodes of a role that may answer.
pub fn living(directory: &Directory, role: Role) -> impl Iterator<Item = &NodeProfile> {
    let lives =
        move |(profile, state): &&(NodeProfile, NodeState)| *state != NodeState::Lost && profile.roles.contains(&role);
    directory.nodes.iter().filter(lives).map(|(profile, _)| profile)
}

/// Where nodes that may answer listen.
pub fn addresses(directory: &Directory) -> BTreeSet<String> {
    let living = directory.nodes.iter().filter(|(_, state)| *state != NodeState::Lost);
    living.filter_map(|(profile, _)| profile.listen.clone()).collect()
}
