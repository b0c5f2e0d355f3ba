use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::master::governor_world::{PARTITIONS, World, name};
use crate::model::mode::{Mode, Tier};

const ALL: usize = 2 * PARTITIONS as usize;

fn cluster(count: u8) -> World {
    let mut world = World::new(1);
    (0..count).for_each(|number| world.start(number));
    world.pass(2_000);
    world
}

#[test]
fn nodes_that_join_get_their_share_and_then_nothing_moves() {
    let mut world = cluster(3);
    assert_eq!([0, 1, 2].map(|number| world.owned(number)), [ALL / 3; 3]);
    let moves = world.moves;
    world.start(3);
    world.pass(500);
    assert_eq!((world.owned(3), world.moves - moves), (ALL / 4, ALL / 4));
    world.assert_settled();
}

#[test]
fn a_killed_node_is_replaced_in_half_a_second_and_a_new_process_takes_part_again() {
    let mut world = cluster(3);
    world.stop(1);
    world.pass(500);
    assert_eq!((world.state(1), world.owned(1)), (Some(NodeState::Lost), 0));
    assert_eq!(world.owned(0) + world.owned(2), ALL);
    assert!(world.notified.contains(&("n1".to_owned(), true)));
    world.start(1);
    world.pass(1_000);
    assert!(world.notified.contains(&("n1".to_owned(), false)));
    world.assert_settled();
}

#[test]
fn a_restart_that_is_quicker_than_the_grace_gives_new_epochs_at_once() {
    let mut world = cluster(2);
    let before: Vec<_> = world.catalog.tasks().map(|(task, it)| (task.clone(), it.epoch)).collect();
    world.start(1);
    world.pass(150);
    assert_eq!(world.boot(1), Some(world.nodes[&1].profile.boot));
    assert!(world.catalog.tasks().all(|(_, it)| it.owner.is_some()));
    for (task, epoch) in before {
        let now = world.catalog.task(&task).expect("it stays");
        assert!(now.owner != Some(name(1)) || now.epoch > epoch, "{task}");
    }
    world.pass(1_000);
    world.assert_settled();
}

#[test]
fn a_paused_node_loses_its_tasks_and_comes_back_by_itself() {
    let mut world = cluster(3);
    world.nodes.get_mut(&0).expect("runs").paused_until = world.now_ms + 6_000;
    world.pass(2_000);
    assert_eq!((world.state(0), world.owned(0)), (Some(NodeState::Lost), 0));
    world.pass(5_000);
    assert_eq!(world.state(0), Some(NodeState::Alive));
    world.assert_settled();
}

#[test]
fn a_drained_node_hands_over_and_gets_nothing_until_it_is_given_back() {
    let mut world = cluster(3);
    let ask = world.drain(1, true);
    world.pass(1_000);
    assert_eq!((world.answers.get(&ask), world.owned(1)), (Some(&Answered::Done), 0));
    world.assert_settled();
    let moves = world.moves;
    world.drain(1, false);
    world.pass(1_000);
    assert_eq!((world.owned(1), world.moves - moves), (ALL / 3, ALL / 3));
    world.assert_settled();
}

#[test]
fn whoever_does_not_let_go_in_time_is_passed_over() {
    let mut world = cluster(2);
    world.nodes.get_mut(&0).expect("runs").is_obedient = false;
    world.drain(0, true);
    world.pass(1_500);
    assert!(world.owned(0) > 0, "it has its time");
    world.pass(5_500);
    assert_eq!(world.owned(0), 0);
}

#[test]
fn a_node_that_leaves_is_not_missed() {
    let mut world = cluster(3);
    world.nodes.get_mut(&2).expect("runs").leaves = true;
    world.pass(1_000);
    assert_eq!(world.owned(2), 0);
    world.stop(2);
    world.pass(2_000);
    assert_eq!((world.state(2), world.notified.len()), (None, 0));
    world.assert_settled();
}

#[test]
fn a_new_active_master_moves_nothing_and_loses_nobody() {
    let mut world = cluster(4);
    let (tasks, moves) = (world.catalog.clone(), world.moves);
    for _ in 0..5 {
        world.elect();
        world.pass(5_000);
    }
    assert_eq!(world.moves, moves);
    assert!(world.catalog.tasks().eq(tasks.tasks()));
    assert!((0..4).all(|number| world.state(number) == Some(NodeState::Alive)));
}

#[test]
fn a_task_that_was_let_go_for_a_deposed_master_is_given_out_again() {
    let mut world = cluster(2);
    // All that the first one decides from now on is lost, and then it is deposed.
    world.loss = 100;
    world.start(2);
    world.drain(0, true);
    world.pass(500);
    world.loss = 0;
    world.elect();
    let owned: Vec<Task> =
        world.catalog.tasks().filter(|(_, it)| it.owner == Some(name(0))).map(|it| it.0.clone()).collect();
    let (task, now) = (owned[0].clone(), world.catalog.task(&owned[0]).cloned().expect("there"));
    let node = world.nodes.get_mut(&0).expect("runs");
    node.released.insert((task.clone(), now.epoch));
    let message = FromNode::Released { node: name(0), boot: node.profile.boot, task: task.clone(), epoch: now.epoch };
    let session = node.session.expect("connected");
    world.hear(session, message);
    world.pass(3_000);
    assert!(world.catalog.task(&task).is_some_and(|it| it.epoch > now.epoch));
    world.assert_settled();
}

#[test]
fn two_processes_of_one_name_do_not_take_turns() {
    let mut world = cluster(2);
    let (boot, session) = (world.boot(0), world.nodes[&0].session);
    let impostor = NodeProfile { boot: 999_999, ..world.nodes[&0].profile.clone() };
    for _ in 0..20 {
        world.hear(888, FromNode::Hello { profile: impostor.clone() });
        world.pass(200);
    }
    assert_eq!((world.boot(0), world.nodes[&0].session), (boot, session));
    world.stop(0);
    world.hear(888, FromNode::Hello { profile: impostor });
    world.pass(200);
    assert_eq!(world.boot(0), Some(999_999));
}

#[test]
fn a_drill_begins_and_ends_and_bad_petitions_are_refused_in_words() {
    let mut world = cluster(1);
    let hold = Ask::HoldTier { tier: Tier::Kv, mode: Some(Mode::Degraded), for_ms: Some(1_000), by: "me".into() };
    let ask = world.ask(hold);
    world.pass(200);
    assert_eq!(world.answers.get(&ask), Some(&Answered::Done));
    assert_eq!(world.catalog.tier(Tier::Kv).mode, Mode::Degraded);
    world.pass(1_500);
    assert_eq!(world.catalog.tier(Tier::Kv).mode, Mode::Recovering);
    let forget = world.ask(Ask::Forget { node: name(0) });
    let unknown = world.drain(77, true);
    for ask in [forget, unknown] {
        assert!(matches!(world.answers.get(&ask), Some(Answered::Refused { .. })));
    }
}

#[test]
fn tasks_without_anybody_are_an_incident_until_somebody_comes() {
    let mut world = World::new(1);
    world.pass(4_000);
    assert_eq!(world.catalog.incidents().open().count(), 2, "gates and computations");
    world.start(0);
    world.pass(3_000);
    assert_eq!(world.catalog.incidents().open().count(), 0);
    let ask = world.ask(Ask::State { history_after_ms: 0 });
    let Some(Answered::State(state)) = world.answers.get(&ask) else { panic!("a state") };
    assert!(state.history.len() >= 5 && state.incidents.len() == 2 && state.tasks.len() == ALL);
}

#[test]
fn who_captures_nothing_can_ask_for_a_checkpoint_and_save_none() {
    let mut world = cluster(1);
    let asked = world.ask(Ask::Checkpoint { source: "shop".into(), epoch: 1 });
    assert!(matches!(world.answers.get(&asked), Some(Answered::Refused { .. })));
    let saved = world.ask(Ask::SaveCheckpoint { source: "shop".into(), epoch: 1, state: Bytes::from_static(b"x") });
    assert!(matches!(world.answers.get(&saved), Some(Answered::Refused { .. })));
}

#[test]
fn nobody_is_told_of_an_order_to_a_source_that_there_is_not() {
    let mut world = cluster(1);
    let asked = world.ask(Ask::OrderSource { source: "shop".into(), order: SourceOrder::Retry });
    let Some(Answered::Refused { reason }) = world.answers.get(&asked) else { panic!("it is done") };
    assert!(reason.contains("there is no source 'shop'"), "{reason}");
}

#[derive(Debug, Clone)]
enum Fault {
    Start(u8),
    Stop(u8),
    BreakOff(u8),
    Pause(u8, i64),
    Drain(u8, bool),
    Stubborn(u8),
    Elect,
    Loss(u64),
    Wait,
}

fn faults() -> impl Strategy<Value = Vec<(Fault, i64)>> {
    let node = || 0_u8..6;
    let fault = prop_oneof![
        4 => node().prop_map(Fault::Start),
        2 => node().prop_map(Fault::Stop),
        2 => node().prop_map(Fault::BreakOff),
        2 => (node(), 0_i64..5_000).prop_map(|(node, for_ms)| Fault::Pause(node, for_ms)),
        2 => (node(), any::<bool>()).prop_map(|(node, draining)| Fault::Drain(node, draining)),
        1 => node().prop_map(Fault::Stubborn),
        2 => Just(Fault::Elect),
        1 => (0_u64..60).prop_map(Fault::Loss),
        2 => Just(Fault::Wait),
    ];
    prop::collection::vec((fault, 0_i64..1_500), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_tasks_find_one_owner_each_and_stay(seed in any::<u64>(), faults in faults()) {
        let mut world = World::new(seed);
        for (fault, then_ms) in faults {
            match fault {
                Fault::Start(node) => world.start(node),
                Fault::Stop(node) => world.stop(node),
                Fault::BreakOff(node) => world.break_off(node),
                Fault::Pause(node, for_ms) => {
                    let until = world.now_ms + for_ms;
                    world.nodes.get_mut(&node).into_iter().for_each(|it| it.paused_until = until);
                }
                Fault::Drain(node, draining) => drop(world.drain(node, draining)),
                Fault::Stubborn(node) => world.nodes.get_mut(&node).into_iter().for_each(|it| it.is_obedient = false),
                Fault::Elect => world.elect(),
                Fault::Loss(loss) => world.loss = loss,
                Fault::Wait => {}
            }
            world.pass(then_ms);
        }
        world.loss = 0;
        world.pass(20_000);
        world.assert_settled();
    }
}
