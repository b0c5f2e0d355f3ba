//! `holdfast bench placement`: the active master's solver on a large cluster: 4,096 partitions on 200 nodes.
//!
//! Invariant: what is timed is what a master does when a node joins or is lost, from the catalog to the moves.

use std::sync::Arc;

use super::machine;
use super::stats::Runs;
use crate::clock;
use crate::master::catalog::Catalog;
use crate::master::command::{Change, Command};
use crate::master::placement::{Candidate, Work, place};
use crate::master::plan::{Situation, plan, standing_tasks};
use crate::model::task::{NodeName, NodeProfile, Role};

const NODES: usize = 200;
const PARTITIONS: u16 = 4_096;
const HOSTS: usize = 50;

fn profile(number: usize) -> NodeProfile {
    NodeProfile {
        name: NodeName::new(&format!("node-{number:03}")),
        boot: 1,
        roles: [Role::Gate, Role::Slave].into(),
        listen: None,
        http: None,
        host: Some(format!("host-{}", number % HOSTS)),
        weight: 100,
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = clock::instant();
    let done = std::hint::black_box(work());
    (start.elapsed().as_secs_f64() * 1e3, done)
}

/// Prints how long plans take.
pub async fn placement(runs: u32) {
    println!("{}", machine::describe());
    machine::wait_until_idle().await;
    let hosts: Vec<Arc<str>> = (0..HOSTS).map(|host| format!("host-{host}").into()).collect();
    let nodes: Vec<Candidate<'_>> =
        (0..NODES).map(|node| Candidate { host: Some(&hosts[node % HOSTS]), weight: 100 }).collect();
    let fresh = vec![Work { weight: 1, owner: None, standby: None, wants_standby: true }; usize::from(PARTITIONS)];
    let first = (0..runs).map(|_| timed(|| place(&nodes, &fresh, 0)).0).collect();
    println!("{PARTITIONS} partitions placed on {NODES} nodes for the first time, ms: {}", Runs::new(first));

    let wanted = standing_tasks(PARTITIONS, &[]);
    let mut catalog = Catalog::default();
    for number in 0..NODES - 1 {
        catalog.apply(Command { at_ms: 1, change: Change::JoinNode { node: profile(number), moves: vec![] } });
    }
    let moves = plan(&catalog, &wanted, |_| 1, Situation::default());
    catalog.apply(Command { at_ms: 2, change: Change::Assign(moves) });
    let (joining, lost) = (profile(NODES - 1), [profile(7).name]);
    let join = Situation { joining: Some(&joining), ..Situation::default() };
    let lose = Situation { lost: &lost, ..Situation::default() };
    for (what, situation) in [("when a node joins", join), ("when a node is lost", lose)] {
        let mut count = 0;
        let mut times = Vec::new();
        for _ in 0..runs {
            let (time, moves) = timed(|| plan(&catalog, &wanted, |_| 1, situation));
            let owner = |step: &&crate::master::command::Move| {
                catalog.task(&step.task).is_some_and(|now| now.owner != step.owner)
            };
            count = moves.iter().filter(owner).count();
            times.push(time);
        }
        let tasks = wanted.len();
        println!("{tasks} tasks planned {what}, ms: {}; {count} change their owner", Runs::new(times));
    }
}
