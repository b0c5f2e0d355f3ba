//! Clusters as masters would describe them: a healthy one of any size, and what can be wrong with it.

use std::sync::Arc;

use crate::admin::assembly::About;
use crate::admin::readiness::Phase;
use crate::model::id::PartitionId;
use crate::model::incident::{Incident, IncidentKind};
use crate::model::mode::{Mode, Policy, Tier, TierStanding};
use crate::model::report::{Freshness, NodeRates, NodeReport, TaskReport, TaskState, TierReport};
use crate::model::task::{Assignment, NodeName, NodeProfile, NodeState, Role, Task};
use crate::net::control::{ClusterState, MasterStatus, NodeStatus, Sample};

/// 2026-11-22T10:03:07Z.
pub const NOW_MS: i64 = 1_795_341_787_000;
const STARTED_MS: i64 = NOW_MS - 7_200_000;

pub fn about(partitions: u16, now_ms: i64) -> About {
    About {
        name: "shop".to_owned(),
        version: "0.1.0".to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        partitions,
        now_ms,
        node: NodeName::new("query-1"),
        phase: Phase::Running,
        no_master_since_ms: None,
    }
}

fn tier_report(tier: Tier, holds: bool) -> TierReport {
    TierReport {
        tier,
        kind: "embedded".to_owned(),
        holds,
        used_bytes: holds.then_some(734_003_200),
        limit_bytes: (holds && tier == Tier::Cache).then_some(1 << 30),
        trouble: None,
    }
}

fn node(name: &str, role: Role, now_ms: i64) -> NodeStatus {
    let number: u32 = name.bytes().map(u32::from).sum();
    let busy = matches!(role, Role::Slave | Role::Gate);
    let report = NodeReport {
        at_ms: now_ms,
        started_ms: STARTED_MS,
        version: "0.1.0".to_owned(),
        cores: 8,
        load: f64::from(number % 40) / 100.0 + if busy { 0.35 } else { 0.02 },
        resident_bytes: u64::from(200 + number % 300) << 20,
        rates: NodeRates {
            ingested: if role == Role::Gate { 21_400.0 } else { 0.0 },
            applied: if role == Role::Slave { 10_700.0 } else { 0.0 },
            queries: if role == Role::Query { 1_240.0 } else { 0.0 },
        },
        freshness: Freshness { p50_ms: 190.0, p99_ms: 410.0, samples: 40 },
        tasks: Vec::new(),
        tiers: [Tier::Mq, Tier::Kv, Tier::Hot, Tier::Cache].map(|tier| tier_report(tier, role == Role::Store)).into(),
    };
    NodeStatus {
        profile: NodeProfile {
            name: NodeName::new(name),
            boot: 7,
            roles: [role].into(),
            listen: Some("127.0.0.1:7171".to_owned()),
            http: Some("127.0.0.1:7070".to_owned()),
            host: None,
            weight: 100,
        },
        state: NodeState::Alive,
        since_ms: STARTED_MS,
        heard_ms: Some(now_ms - 80),
        report: Some(Arc::new(report)),
    }
}

/// Three masters, two gates, two query nodes, a store, and as many slaves as wanted; all is well.
pub fn healthy(slaves: usize, partitions: u16, now_ms: i64) -> ClusterState {
    let named = |kind: &'static str, role, count: usize| {
        (1..=count).map(move |number| node(&format!("{kind}-{number}"), role, now_ms))
    };
    let mut nodes: Vec<NodeStatus> = named("gate", Role::Gate, 2)
        .chain(named("master", Role::Master, 3))
        .chain(named("query", Role::Query, 2))
        .chain(named("slave", Role::Slave, slaves))
        .chain(named("store", Role::Store, 1))
        .collect();
    let mut tasks = Vec::new();
    for partition in 0..partitions {
        let gate = NodeName::new(&format!("gate-{}", 1 + partition % 2));
        tasks.push((
            Task::Gate(PartitionId(partition)),
            Assignment { owner: Some(gate), standby: None, epoch: u64::from(partition) + 1 },
        ));
    }
    for partition in 0..partitions {
        let slave = |shift: usize| NodeName::new(&format!("slave-{}", 1 + (usize::from(partition) + shift) % slaves));
        let (owner, standby) = (Some(slave(0)), (slaves > 1).then(|| slave(1)));
        tasks.push((
            Task::Compute(PartitionId(partition)),
            Assignment { owner, standby, epoch: u64::from(partition) + 9 },
        ));
    }
    for (task, who) in &tasks {
        let report = TaskReport {
            task: task.clone(),
            epoch: who.epoch,
            state: TaskState::Running,
            detail: String::new(),
            lag: matches!(task, Task::Gate(_)).then_some(0),
            as_of_ms: matches!(task, Task::Compute(_)).then_some(now_ms - 420),
            gaps: 0,
            rows: 5,
        };
        let owner = nodes.iter_mut().find(|node| Some(&node.profile.name) == who.owner.as_ref());
        change_report(owner.expect("a node that exists"), |of_node| of_node.tasks.push(report));
    }
    let masters = (1..=3).map(|id| MasterStatus {
        id,
        address: format!("127.0.0.1:707{id}"),
        node: Some(NodeName::new(&format!("master-{id}"))),
        is_active: id == 2,
        votes: true,
        reachable: true,
    });
    ClusterState {
        at_ms: now_ms,
        active: Some(NodeName::new("master-2")),
        term: 17,
        version: 4_211,
        nodes,
        tasks,
        tiers: Tier::ALL.map(|tier| (tier, TierStanding::default())).into(),
        masters: masters.collect(),
        incidents: vec![Incident {
            id: 3,
            kind: IncidentKind::NodeLost,
            subject: "slave-2".to_owned(),
            text: "slave-2 was not heard for 1.5 s; 16 partitions moved".to_owned(),
            opened_ms: now_ms - 3_600_000,
            closed_ms: Some(now_ms - 3_480_000),
        }],
        history: history(now_ms),
    }
}

fn history(now_ms: i64) -> Vec<Sample> {
    let sample = |index: i64| {
        let (slow, fast) = ((index as f64 / 40.0).sin(), (index as f64 / 3.0).sin());
        let ingested = 42_800.0 + 6_000.0 * slow + 1_800.0 * fast;
        Sample {
            at_ms: now_ms - (299 - index) * 1_000,
            ingested,
            applied: ingested - 900.0 * fast,
            queries: 2_480.0 + 300.0 * fast,
            fresh_p50_ms: Some(190.0 + 20.0 * fast),
            fresh_p99_ms: Some(410.0 + 60.0 * slow + 40.0 * fast),
            oldest_ms: Some(600.0 + 150.0 * fast),
            lag: 0,
        }
    };
    (0..300).map(sample).collect()
}

pub fn change_report(node: &mut NodeStatus, change: impl FnOnce(&mut NodeReport)) {
    change(Arc::make_mut(node.report.as_mut().expect("a node that reports")));
}

/// The report of a task, wherever it is.
pub fn change_task(state: &mut ClusterState, wanted: &Task, change: impl FnOnce(&mut TaskReport)) {
    let has = |node: &&mut NodeStatus| {
        node.report.as_ref().is_some_and(|report| report.tasks.iter().any(|task| task.task == *wanted))
    };
    let node = state.nodes.iter_mut().find(has).expect("somebody does it");
    change_report(node, |report| change(report.tasks.iter_mut().find(|task| task.task == *wanted).expect("just seen")));
}

/// Much at once: kv degraded, a node lost and one suspect, a master away, partitions failing, catching up, with gaps and
/// without an owner, and work that piles up.
pub fn broken(slaves: usize, partitions: u16, now_ms: i64) -> ClusterState {
    let mut state = healthy(slaves, partitions, now_ms);
    let since_ms = now_ms - 127_000;
    state.tiers[1].1 = TierStanding {
        mode: Mode::Degraded,
        policy: Policy::Auto,
        since_ms,
        reason: "connection refused by 127.0.0.1:6379, reported by 4 of 4 slaves".to_owned(),
    };
    let named = |state: &mut ClusterState, name: &str| {
        state.nodes.iter().position(|node| &*node.profile.name.0 == name).expect("a node that exists")
    };
    let lost = named(&mut state, "slave-3");
    (state.nodes[lost].state, state.nodes[lost].since_ms) = (NodeState::Lost, now_ms - 61_000);
    state.nodes[lost].heard_ms = Some(now_ms - 62_500);
    let suspect = named(&mut state, "query-2");
    (state.nodes[suspect].state, state.nodes[suspect].since_ms) = (NodeState::Suspect, now_ms - 200);
    state.masters[2].reachable = false;
    let unowned = state.tasks.iter_mut().find(|(task, _)| *task == Task::Compute(PartitionId(6)));
    unowned.expect("it exists").1.owner = None;
    for partition in [0, 1, 4, 5] {
        change_task(&mut state, &Task::Compute(PartitionId(partition)), |task| {
            (task.state, task.detail) = (TaskState::Failing, "kv: connection refused".to_owned());
            task.as_of_ms = Some(since_ms);
        });
    }
    change_task(&mut state, &Task::Compute(PartitionId(8)), |task| {
        (task.state, task.detail) = (TaskState::Catching, "reads kv up to 41.9".to_owned());
    });
    change_task(&mut state, &Task::Compute(PartitionId(9)), |task| task.gaps = 2);
    change_task(&mut state, &Task::Gate(PartitionId(12)), |task| task.lag = Some(1_840_000));
    for sample in state.history.iter_mut().rev().take(120) {
        sample.applied *= 0.35;
        sample.oldest_ms = Some((sample.at_ms - since_ms).max(500) as f64);
        (sample.fresh_p50_ms, sample.fresh_p99_ms) = (None, None);
    }
    let open = |id, kind, subject: &str, text: &str| Incident {
        id,
        kind,
        subject: subject.to_owned(),
        text: text.to_owned(),
        opened_ms: since_ms + id as i64 * 900,
        closed_ms: None,
    };
    state.incidents.splice(
        0..0,
        [
            open(4, IncidentKind::TierDegraded, "kv", "connection refused by 127.0.0.1:6379"),
            open(5, IncidentKind::NodeLost, "slave-3", "not heard for 1.5 s; its partitions moved to 3 others"),
            open(6, IncidentKind::Gap, "partition 9", "132 changes shed while mq was degraded"),
            open(
                7,
                IncidentKind::Unavailable,
                "gmv_day 2026-11-22",
                "partition 6: kv bypass since 10:01:07, last hour only",
            ),
        ],
    );
    state
}
