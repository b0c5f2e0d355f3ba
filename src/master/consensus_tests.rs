//! Stories and random histories of groups of masters, checked all along by `group_world::Checks`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::group_world::{Bug, World};
use super::journal::Stored;
use super::masters::MastersChange;
use super::wire::MasterId;

const SEEDS: u64 = 150;
const STEPS: u64 = 60;

/// One random fault, or the end of one.
fn disturb(world: &mut World) {
    let ids: Vec<MasterId> = world.masters.keys().copied().collect();
    let any = ids[world.random.below(ids.len() as u64) as usize];
    let other = ids[world.random.below(ids.len() as u64) as usize];
    match world.random.below(18) {
        0 | 1 => world.crash(any),
        2..=4 => {
            let down = ids.iter().copied().find(|id| world.masters[id].core.is_none());
            if let Some(id) = down {
                world.restart(id);
            }
        }
        5 => {
            let for_ms = 50 + world.random.below(2_500) as i64;
            world.pause(any, for_ms);
        }
        6 => {
            world.cut.insert((any, other));
            world.hit("one-way partition");
        }
        7 => {
            let side: Vec<bool> = ids.iter().map(|_| world.random.chance(50)).collect();
            for (a, at) in ids.iter().zip(&side) {
                for (b, _) in ids.iter().zip(&side).filter(|(_, bt)| *bt != at) {
                    world.cut.insert((*a, *b));
                }
            }
            world.hit("partition");
        }
        8 | 9 => world.cut.clear(),
        10 => (world.loss, world.duplication) = (world.random.below(30), world.random.below(20)),
        11 => (world.loss, world.duplication, world.delay_ms) = (0, 0, 3),
        12 => {
            world.delay_ms = 1 + world.random.below(400);
            world.hit("delay");
        }
        13 => {
            let disk_ms = if world.random.chance(40) { 8 } else { 1 + world.random.below(600) };
            world.slow_disk(any, disk_ms);
            world.hit("slow disk");
        }
        14 => {
            world.close(any, other);
            world.hit("closed connection");
        }
        15 | 16 => world.bounce(any),
        _ => {
            world.step_aside(any);
            world.hit("stepped aside");
        }
    }
}

/// A random change of the masters, asked of the one that is active.
fn change_masters(world: &mut World) {
    let Some(active) = world.active() else { return };
    let masters = world.masters[&active].core.as_ref().expect("active").masters().clone();
    let total = masters.voters.len() + masters.learners.len();
    if total < 5 && world.random.chance(60) {
        let id = world.masters.keys().last().map_or(1, |last| last + 1);
        if id <= 9 {
            world.add(Stored::joining(id));
            world.change(active, MastersChange::Add { id, address: format!("master-{id}") });
            world.hit("master added");
        }
    } else if masters.voters.len() > 2 {
        let id = masters.voters[world.random.below(masters.voters.len() as u64) as usize];
        world.change(active, MastersChange::Remove { id });
        world.hit("master removed");
    }
}

fn history(seed: u64, count: u64, bug: Bug, with_changes: bool) -> World {
    let mut world = World::new(seed, count, bug);
    world.pass(1_500);
    for _ in 0..STEPS {
        let ids: Vec<MasterId> = world.masters.keys().copied().collect();
        for _ in 0..3 {
            let duration_ms = world.random.below(50) as i64;
            world.pass(duration_ms);
            let id = match world.active().filter(|_| world.random.chance(80)) {
                Some(active) => active,
                None => ids[world.random.below(ids.len() as u64) as usize],
            };
            world.propose(id);
            if world.random.chance(20) {
                let id = ids[world.random.below(ids.len() as u64) as usize];
                world.read(id);
            }
        }
        if world.random.chance(40) {
            disturb(&mut world);
        }
        if with_changes && world.random.chance(8) {
            change_masters(&mut world);
        }
    }
    world.converge();
    world
}

/// Election after election, with voters that crash just after they voted.
fn history_of_votes(seed: u64, bug: Bug) -> World {
    let mut world = World::new(seed, 3, bug);
    world.pass(1_500);
    for _ in 0..40 {
        world.delay_ms = 1 + world.random.below(200);
        if let Some(active) = world.active() {
            let others: Vec<MasterId> = world.masters.keys().copied().filter(|id| *id != active).collect();
            world.pause(active, 600);
            others.iter().for_each(|id| world.close(*id, active));
        }
        for _ in 0..4 {
            let wait_ms = world.random.below(120) as i64;
            world.pass(wait_ms);
            let any = 1 + world.random.below(3);
            world.bounce(any);
        }
        if let Some(active) = world.active() {
            world.propose(active);
        }
    }
    world.converge();
    world
}

fn run_seeds(count: u64, with_changes: bool) -> BTreeMap<&'static str, u64> {
    let mut hit = BTreeMap::new();
    let mut failed = Vec::new();
    for seed in 0..SEEDS {
        match catch_unwind(AssertUnwindSafe(|| history(seed, count, Bug::None, with_changes))) {
            Err(_) => failed.push(seed),
            Ok(world) => {
                world.faults.iter().for_each(|(fault, times)| *hit.entry(*fault).or_default() += times);
                *hit.entry("read").or_default() += world.checks.reads;
                *hit.entry("command").or_default() += world.checks.committed.len() as u64;
                *hit.entry("activation").or_default() += world.checks.activations.len() as u64;
            }
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} of {count} masters, with changes: {with_changes}");
    hit
}

#[test]
fn three_masters_agree_whatever_fails() {
    let hit = run_seeds(3, false);
    for fault in [
        "crash",
        "lost writes",
        "bounce",
        "pause",
        "one-way partition",
        "partition",
        "lost message",
        "duplicated message",
        "delay",
        "slow disk",
        "closed connection",
        "stepped aside",
        "read",
        "activation",
    ] {
        assert!(hit.get(fault).is_some_and(|times| *times > SEEDS / 4), "{fault} is hardly ever tried: {hit:?}");
    }
}

#[test]
fn five_masters_agree_whatever_fails() {
    run_seeds(5, false);
}

#[test]
fn masters_agree_while_their_set_changes() {
    for count in [1, 3] {
        let hit = run_seeds(count, true);
        assert!(hit.get("master added").is_some_and(|times| *times > SEEDS / 4), "{hit:?}");
        let removals = if count == 1 { SEEDS / 20 } else { SEEDS / 4 };
        assert!(hit.get("master removed").is_some_and(|times| *times > removals), "{hit:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [3, 4] {
        let traces =
            [0; 2].map(|_| history(seed, 3, Bug::None, true)).map(|world| (world.trace, world.checks.committed));
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

#[test]
fn votes_survive_crashes() {
    for seed in 0..SEEDS {
        history_of_votes(seed, Bug::None);
    }
}

#[test]
fn a_rule_left_out_is_noticed() {
    let is_noticed =
        |run: fn(u64) -> World| (0..SEEDS * 2).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed))).is_err());
    assert!(is_noticed(|seed| history_of_votes(seed, Bug::VoteNotWritten)), "votes that are not written");
    assert!(
        is_noticed(|seed| history(seed, 3, Bug::AppliedBeforeCommit, false)),
        "entries applied before they are committed"
    );
    assert!(
        is_noticed(|seed| history(seed, 3, Bug::AcknowledgedBeforeSync, false)),
        "acknowledged before they are durable"
    );
}

/// When commands are committed again after `fault`, in ms.
fn recovery_ms(seed: u64, fault: impl FnOnce(&mut World, MasterId)) -> i64 {
    let mut world = World::new(seed, 3, Bug::None);
    world.pass(3_000);
    let active = world.active().expect("one is active");
    fault(&mut world, active);
    let since_ms = world.now_ms;
    loop {
        world.pass(5);
        let next = world.active().filter(|id| *id != active);
        if let Some(next) = next {
            let number = world.propose(next);
            while !world.is_committed(number) {
                world.pass(1);
            }
            return world.now_ms - since_ms;
        }
        assert!(world.now_ms - since_ms < 10_000, "nobody becomes active");
    }
}

#[test]
fn another_master_commits_soon_after_the_active_one_is_killed_or_stops() {
    let mut killed: Vec<i64> = (0..100)
        .map(|seed| {
            recovery_ms(seed, |world, active| {
                world.crash(active);
                let others: Vec<MasterId> = world.masters.keys().copied().filter(|id| *id != active).collect();
                others.into_iter().for_each(|id| world.close(id, active));
            })
        })
        .collect();
    let mut stopped: Vec<i64> =
        (0..100).map(|seed| recovery_ms(seed, |world, active| world.pause(active, 60_000))).collect();
    killed.sort_unstable();
    stopped.sort_unstable();
    assert!(killed[98] <= 400, "killed: {killed:?}");
    assert!(stopped[98] <= 1_200, "stopped: {stopped:?}");
}

#[test]
fn a_closed_connection_alone_elects_nobody() {
    for seed in 0..50 {
        let mut world = World::new(seed, 3, Bug::None);
        world.pass(3_000);
        let active = world.active().expect("one is active");
        let standby = world.masters.keys().copied().find(|id| *id != active).expect("three masters");
        let before = world.checks.activations.len();
        world.close(standby, active);
        world.pass(3_000);
        assert_eq!((world.active(), world.checks.activations.len()), (Some(active), before), "seed {seed}");
    }
}

#[test]
fn i7_without_a_majority_nothing_is_committed_and_afterwards_nothing_is_lost() {
    let mut world = World::new(7, 3, Bug::None);
    world.pass(3_000);
    let active = world.active().expect("one is active");
    let others: Vec<MasterId> = world.masters.keys().copied().filter(|id| *id != active).collect();
    others.iter().for_each(|id| world.crash(*id));
    let committed = world.checks.committed.len();
    for _ in 0..50 {
        world.propose(active);
        world.read(active);
        world.pass(100);
    }
    assert_eq!((world.checks.committed.len(), world.active()), (committed, None));
    world.converge();
}

#[test]
fn a_pause_of_all_masters_elects_nobody() {
    for seed in 0..50 {
        let mut world = World::new(seed, 3, Bug::None);
        world.pass(3_000);
        let before = world.checks.activations.len();
        let ids: Vec<MasterId> = world.masters.keys().copied().collect();
        ids.iter().for_each(|id| world.pause(*id, 20_000));
        world.pass(25_000);
        assert_eq!(world.checks.activations.len(), before, "seed {seed}");
    }
}
