//! From the catalog to the moves that make it as it should be: the active master's decision, not yet a command.
//!
//! Invariant: a plan for a catalog that is as it should be is empty; applying a plan makes the next one empty.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::catalog::{Catalog, Node};
use super::command::{Move, NodeProfile};
use super::placement::{Candidate, Placed, Work, place};
use crate::model::id::PartitionId;
use crate::model::task::{NodeName, NodeState, Role, Task};

/// What a plan is made for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Situation<'a> {
    /// About to be declared lost, in the same command or the next ones.
    pub lost: &'a [NodeName],
    /// About to join in the same command.
    pub joining: Option<&'a NodeProfile>,
    /// Loads that differ by less are left as they are.
    pub slack_percent: u32,
}

/// The tasks that a cluster always has.
pub fn standing_tasks(partitions: u16, sources: &[Arc<str>]) -> BTreeSet<Task> {
    let both = |partition| [Task::Gate(PartitionId(partition)), Task::Compute(PartitionId(partition))];
    let captures = sources.iter().cloned().map(Task::Capture);
    (0..partitions).flat_map(both).chain(captures).collect()
}

/// Moves that give every one of `wanted`, and all tasks that there are, to the right node. `weight` of a task: its load, in any
/// unit; 1 for all if it is not known.
pub fn plan(
    catalog: &Catalog,
    wanted: &BTreeSet<Task>,
    weight: impl Fn(&Task) -> u64,
    situation: Situation<'_>,
) -> Vec<Move> {
    let mut by_role: BTreeMap<Role, Vec<&Task>> = BTreeMap::new();
    let tasks: BTreeSet<&Task> = wanted.iter().chain(catalog.tasks().map(|(task, _)| task)).collect();
    for task in tasks {
        by_role.entry(task.role()).or_default().push(task);
    }
    let mut moves = Vec::new();
    for (role, tasks) in by_role {
        moves.extend(plan_role(catalog, role, &tasks, &weight, situation));
    }
    moves
}

fn candidates<'a>(catalog: &'a Catalog, role: Role, situation: Situation<'a>) -> Vec<&'a NodeProfile> {
    let joins = |name: &NodeName| situation.joining.is_some_and(|joining| joining.name == *name);
    let stays = |node: &&Node| {
        matches!(node.state, NodeState::Alive | NodeState::Suspect)
            && !situation.lost.contains(&node.profile.name)
            && !joins(&node.profile.name)
    };
    let mut profiles: Vec<&NodeProfile> = catalog.nodes().filter(stays).map(|node| &node.profile).collect();
    let drains = |profile: &&NodeProfile| {
        let node = catalog.node(&profile.name);
        node.is_some_and(|node| node.state == NodeState::Draining && node.profile.boot == profile.boot)
    };
    profiles.extend(situation.joining.filter(|joining| !drains(joining)));
    profiles.retain(|profile| profile.roles.contains(&role));
    profiles.sort_by(|a, b| a.name.cmp(&b.name));
    profiles
}

fn plan_role(
    catalog: &Catalog,
    role: Role,
    tasks: &[&Task],
    weight: &impl Fn(&Task) -> u64,
    situation: Situation<'_>,
) -> Vec<Move> {
    let profiles = candidates(catalog, role, situation);
    let index: BTreeMap<&NodeName, usize> = profiles.iter().enumerate().map(|(at, it)| (&it.name, at)).collect();
    // Under another boot id it is another process, which has nothing of what the one before owned.
    let is_new = |name: &NodeName| {
        let joining = situation.joining.filter(|joining| joining.name == *name);
        let before = catalog.node(name).map(|node| node.profile.boot);
        joining.is_some_and(|joining| Some(joining.boot) != before)
    };
    let held_by = |name: Option<&NodeName>| name.filter(|name| !is_new(name)).and_then(|name| index.get(name).copied());
    let work = |task: &&Task| {
        let now = catalog.task(task);
        Work {
            weight: weight(task),
            owner: held_by(now.and_then(|now| now.owner.as_ref())),
            standby: held_by(now.and_then(|now| now.standby.as_ref())),
            wants_standby: task.has_standby(),
        }
    };
    let works: Vec<Work> = tasks.iter().map(work).collect();
    let nodes: Vec<Candidate<'_>> =
        profiles.iter().map(|it| Candidate { host: it.host.as_deref(), weight: it.weight }).collect();
    let placed = place(&nodes, &works, situation.slack_percent);
    let name = |at: Option<usize>| at.map(|at| profiles[at].name.clone());
    let mut moves = Vec::new();
    for ((task, placed), work) in tasks.iter().zip(placed).zip(works) {
        let Placed { owner: Some(_), .. } = placed else { continue };
        let now = catalog.task(task);
        let stays = now.is_some_and(|now| now.standby.is_none() || work.standby.is_some())
            && (placed.owner, placed.standby) == (work.owner, work.standby);
        if !stays {
            let expect = now.map_or(0, |now| now.epoch);
            let (owner, standby) = (name(placed.owner), name(placed.standby));
            moves.push(Move { task: (*task).clone(), expect, owner, standby });
        }
    }
    moves
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
