//! Makes the document out of what the active master knows. Pure.
//!
//! Invariant: every task and node that the masters know is in the document, reported or not; a report counts only while its
//! node is heard, and only for the assignment that it was made under.

use std::collections::HashMap;

use super::health;
use super::readiness::Phase;
use super::view::{
    ClusterView, FreshnessView, IncidentView, MasterView, Memory, NodeState, NodeView, Rates, SampleView, TaskKind,
    TaskView, TierView, moment,
};
use crate::model::incident::Incident;
use crate::model::mode::{Mode, Policy, Tier, TierStanding};
use crate::model::report::{NodeReport, TaskReport, TaskState, TierReport};
use crate::model::task::{self, Assignment, NodeName, Role, Task};
use crate::net::control::{ClusterState, MasterStatus, NodeStatus, Sample};

/// A node that was not heard for so long says nothing any more.
const STALE_MS: i64 = 5_000;

/// What the one who answers knows by itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Of the cluster.
    pub name: String,
    pub version: String,
    pub timezone: String,
    pub partitions: u16,
    pub now_ms: i64,
    /// The node that answers, and whether it serves.
    pub node: NodeName,
    pub phase: Phase,
    /// Since when it knows of no active master.
    pub no_master_since_ms: Option<i64>,
}

/// Reports that count, by who made them.
struct Heard<'a> {
    reports: HashMap<&'a NodeName, &'a NodeReport>,
    tasks: HashMap<(&'a NodeName, &'a Task), &'a TaskReport>,
}

impl ClusterView {
    pub fn of(state: &ClusterState, about: About) -> Self {
        let heard = Heard::of(state);
        let tasks: Vec<TaskView> = state.tasks.iter().map(|(task, who)| task_view(state, &heard, task, who)).collect();
        let reports = || heard.reports.values();
        let mut view = Self {
            name: about.name.clone(),
            version: about.version.clone(),
            now: moment(about.now_ms),
            timezone: about.timezone.clone(),
            partitions: about.partitions,
            ready: about.phase == Phase::Running,
            answered_by: about.node.to_string(),
            active_master: state.active.as_ref().map(NodeName::to_string),
            no_master_since: about.no_master_since_ms.filter(|_| state.active.is_none()).map(moment),
            term: state.term,
            complaints: Vec::new(),
            nodes: nodes(state, &heard, &about),
            masters: state.masters.iter().map(master_view).collect(),
            tiers: state
                .tiers
                .iter()
                .filter_map(|(tier, standing)| tier_view(state, &heard, *tier, standing))
                .collect(),
            rates: reports().fold(Rates::default(), |sum, report| plus(sum, rates(report))),
            freshness: freshness(state, &tasks, about.now_ms),
            memory: Memory { resident_bytes: reports().map(|report| report.resident_bytes).sum() },
            tasks,
            incidents: state.incidents.iter().map(incident_view).collect(),
            history: state.history.iter().map(sample_view).collect(),
        };
        view.complaints = health::complaints(&view);
        view
    }
}

impl<'a> Heard<'a> {
    fn of(state: &'a ClusterState) -> Self {
        let is_heard = |node: &&NodeStatus| {
            let recent = node.heard_ms.is_some_and(|heard_ms| state.at_ms - heard_ms <= STALE_MS);
            recent && node.state != task::NodeState::Lost
        };
        let nodes = state.nodes.iter().filter(is_heard);
        let reports: HashMap<_, _> =
            nodes.filter_map(|node| Some((&node.profile.name, node.report.as_deref()?))).collect();
        let of_node = |(name, report): (&&'a NodeName, &&'a NodeReport)| {
            let name: &'a NodeName = name;
            let report: &'a NodeReport = report;
            report.tasks.iter().map(move |task| ((name, &task.task), task))
        };
        let tasks = reports.iter().flat_map(of_node).collect();
        Self { reports, tasks }
    }
}

fn rates(report: &NodeReport) -> Rates {
    let rates = report.rates;
    Rates {
        changes_ingested: rounded(rates.ingested),
        changes_applied: rounded(rates.applied),
        queries: rounded(rates.queries),
    }
}

/// What people can tell apart; the document gets shorter.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

fn plus(a: Rates, b: Rates) -> Rates {
    Rates {
        changes_ingested: a.changes_ingested + b.changes_ingested,
        changes_applied: a.changes_applied + b.changes_applied,
        queries: a.queries + b.queries,
    }
}

fn nodes(state: &ClusterState, heard: &Heard<'_>, about: &About) -> Vec<NodeView> {
    let mut owned: HashMap<&NodeName, (usize, usize)> = HashMap::new();
    for (_, who) in &state.tasks {
        who.owner.iter().for_each(|owner| owned.entry(owner).or_default().0 += 1);
        who.standby.iter().for_each(|standby| owned.entry(standby).or_default().1 += 1);
    }
    let view = |node: &NodeStatus| {
        let name = &node.profile.name;
        let (tasks, standby_tasks) = owned.get(name).copied().unwrap_or_default();
        // An old report is better than none for what does not change.
        let last = node.report.as_deref();
        let current = heard.reports.get(name).copied();
        NodeView {
            name: name.to_string(),
            roles: node.profile.roles.iter().map(|role| role_name(*role).to_owned()).collect(),
            state: node_state(node.state, (*name == about.node).then_some(about.phase)),
            since: moment(node.since_ms),
            http: node.profile.http.as_deref().map(address).unwrap_or_default(),
            host: node.profile.host.clone(),
            started: last.map(|report| moment(report.started_ms)).unwrap_or_default(),
            cores: last.map_or(0, |report| report.cores as usize),
            load: current.map_or(0.0, |report| rounded(report.load)),
            resident_bytes: current.map_or(0, |report| report.resident_bytes),
            rates: current.map(rates).unwrap_or_default(),
            tasks,
            standby_tasks,
            reports: current.is_some(),
            heard: node.heard_ms.map(moment),
            version: last.map(|report| report.version.clone()).unwrap_or_default(),
        }
    };
    state.nodes.iter().map(view).collect()
}

fn address(http: &str) -> String {
    if http.contains("://") { http.to_owned() } else { format!("http://{http}") }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Capture => "capture",
        Role::Gate => "gate",
        Role::Slave => "slave",
        Role::Query => "query",
        Role::Master => "master",
        Role::Store => "store",
    }
}

/// `own`: the phase of the node that answers, if it is that one; it knows better than the masters.
fn node_state(state: task::NodeState, own: Option<Phase>) -> NodeState {
    match (own, state) {
        (Some(Phase::Starting), _) => NodeState::Starting,
        (Some(Phase::Stopping), _) => NodeState::Stopping,
        (_, task::NodeState::Alive) => NodeState::Alive,
        (_, task::NodeState::Suspect) => NodeState::Suspect,
        (_, task::NodeState::Lost) => NodeState::Lost,
        (_, task::NodeState::Draining) => NodeState::Draining,
    }
}

fn master_view(master: &MasterStatus) -> MasterView {
    MasterView {
        id: master.id,
        address: master.address.clone(),
        node: master.node.as_ref().map(NodeName::to_string),
        active: master.is_active,
        votes: master.votes,
        reachable: master.reachable,
    }
}

/// `None`: a tier that nobody uses.
fn tier_view(state: &ClusterState, heard: &Heard<'_>, tier: Tier, standing: &TierStanding) -> Option<TierView> {
    let reports = || {
        let in_order = state.nodes.iter().filter_map(|node| Some((node, heard.reports.get(&node.profile.name)?)));
        in_order.filter_map(|(node, report)| Some((node, report.tiers.iter().find(|report| report.tier == tier)?)))
    };
    if reports().next().is_none() && !heard.reports.is_empty() && standing.mode == Mode::Normal {
        return None;
    }
    let holders = || reports().map(|(_, report)| report).filter(|report| report.holds);
    // Of a service every node says the same, or an older figure.
    let size = |size: fn(&TierReport) -> Option<u64>| {
        let held = holders().filter_map(size).reduce(|a, b| a + b);
        held.or_else(|| reports().filter_map(|(_, report)| size(report)).max())
    };
    let troubled = || reports().filter(|(_, report)| report.trouble.is_some());
    let (policy, until) = match standing.policy {
        Policy::Auto => ("auto", None),
        Policy::Hold(_) => ("hold", None),
        Policy::DrillUntil(until_ms) => ("drill", Some(moment(until_ms))),
    };
    let first_start = || state.nodes.iter().filter_map(|node| Some(node.report.as_ref()?.started_ms)).min();
    let since_ms = if standing.since_ms > 0 { standing.since_ms } else { first_start().unwrap_or(state.at_ms) };
    Some(TierView {
        tier: tier.name().to_owned(),
        kind: holders()
            .next()
            .or(reports().map(|(_, report)| report).next())
            .map_or("unknown", |it| &it.kind)
            .to_owned(),
        mode: standing.mode,
        policy: policy.to_owned(),
        until,
        since: moment(since_ms),
        reason: Some(standing.reason.clone()).filter(|reason| !reason.is_empty()),
        used_bytes: size(|report| report.used_bytes),
        limit_bytes: size(|report| report.limit_bytes),
        troubled_nodes: troubled().map(|(node, _)| node.profile.name.to_string()).collect(),
        trouble: troubled().find_map(|(_, report)| report.trouble.clone()),
    })
}

fn task_view(state: &ClusterState, heard: &Heard<'_>, task: &Task, who: &Assignment) -> TaskView {
    let (kind, partition, subject) = match task {
        Task::Gate(partition) => (TaskKind::Gate, Some(partition.0), None),
        Task::Compute(partition) => (TaskKind::Compute, Some(partition.0), None),
        Task::Capture(source) => (TaskKind::Capture, None, Some(source.to_string())),
        Task::Archive(day) => (TaskKind::Archive, None, Some(day.to_string())),
        Task::AnalyseQueries(day) => (TaskKind::Analyse, None, Some(day.to_string())),
    };
    let silent = |detail: &str| TaskView {
        kind,
        partition,
        subject: subject.clone(),
        owner: who.owner.as_ref().map(NodeName::to_string),
        standby: who.standby.as_ref().map(NodeName::to_string),
        epoch: who.epoch,
        state: TaskState::Silent,
        detail: detail.to_owned(),
        lag: None,
        as_of: None,
        gaps: 0,
    };
    let Some(owner) = &who.owner else { return silent("nobody does it") };
    let Some(report) = heard.tasks.get(&(owner, task)) else {
        return silent(if !heard.reports.contains_key(owner) {
            // The reason decides where an operator looks.
            if state.nodes.iter().any(|node| node.profile.name == *owner) {
                "its node is not heard"
            } else {
                "its node is not known"
            }
        } else {
            "its node does not report it"
        });
    };
    if report.epoch != who.epoch {
        return TaskView { state: TaskState::Catching, ..silent("its owner has not taken it up yet") };
    }
    TaskView {
        state: report.state,
        lag: report.lag,
        as_of: report.as_of_ms.filter(|as_of_ms| *as_of_ms > 0).map(moment),
        gaps: report.gaps,
        ..silent(&report.detail)
    }
}

fn freshness(state: &ClusterState, tasks: &[TaskView], now_ms: i64) -> FreshnessView {
    let oldest = tasks.iter().filter_map(|task| super::view::millis(task.as_of.as_deref()?)).min();
    let last = state.history.last();
    FreshnessView {
        p50_ms: last.and_then(|sample| sample.fresh_p50_ms).map(rounded),
        p99_ms: last.and_then(|sample| sample.fresh_p99_ms).map(rounded),
        oldest_ms: oldest.map(|as_of_ms| (now_ms - as_of_ms).max(0) as f64),
        lag: tasks.iter().filter(|task| task.kind == TaskKind::Gate).filter_map(|task| task.lag).sum(),
    }
}

fn incident_view(incident: &Incident) -> IncidentView {
    IncidentView {
        id: incident.id,
        kind: incident.kind,
        subject: incident.subject.clone(),
        text: incident.text.clone(),
        opened: moment(incident.opened_ms),
        closed: incident.closed_ms.map(moment),
    }
}

fn sample_view(sample: &Sample) -> SampleView {
    SampleView {
        at_ms: sample.at_ms,
        rates: Rates {
            changes_ingested: rounded(sample.ingested),
            changes_applied: rounded(sample.applied),
            queries: rounded(sample.queries),
        },
        freshness: FreshnessView {
            p50_ms: sample.fresh_p50_ms.map(rounded),
            p99_ms: sample.fresh_p99_ms.map(rounded),
            oldest_ms: sample.oldest_ms.map(rounded),
            lag: sample.lag,
        },
    }
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
