//! What befalls masters and nodes, with its end known beforehand: who owns what, under which epoch, and that answers stay
//! exact.

use holdfast::model::id::Epoch;

use super::*;
use crate::control::members::to_model;
use crate::control::wires::Wires;
use crate::control::{Event, MASTERS};
use crate::world::NodeId;

fn with_masters(plan: &mut Plan) {
    plan.give_masters();
    plan.push_every_ms = 150;
}

/// Tells a story that begins when everything has its place, and ends with everything exact.
fn tell_of_masters(story: impl Fn(&mut World)) {
    tell(
        |world| {
            world.pass(4_000);
            assert_eq!(world.unsettled(), None);
            story(world);
        },
        with_masters,
    );
}

fn all_tasks() -> Vec<Task> {
    let both = |partition| [Kind::Gate, Kind::Slave].map(|kind| Task { kind, partition });
    crate::shop::partitions().flat_map(both).collect()
}

impl World {
    fn active(&self) -> NodeId {
        self.active_master().expect("one is active")
    }

    fn epoch_of(&self, task: Task) -> Epoch {
        let control = self.control.as_ref().expect("it has masters");
        control.watch.catalog.task(&to_model(task)).expect("it is given out").epoch
    }

    fn epochs(&self) -> Vec<Epoch> {
        all_tasks().into_iter().map(|task| self.epoch_of(task)).collect()
    }

    fn node_that_owns(&self, task: Task) -> NodeId {
        self.actors[&self.owner_now(task)].node
    }

    fn wires(&mut self) -> &mut Wires {
        &mut self.control().wires
    }

    /// For good, until it is healed.
    fn part_from(&mut self, node: NodeId, others: &[NodeId], for_ms: i64) {
        for other in others.iter().filter(|other| **other != node) {
            self.cut(node, *other, for_ms);
            self.cut(*other, node, for_ms);
        }
    }

    /// Everything is answered, and exactly, while nothing moves.
    fn assert_goes_on(&mut self, span_ms: i64) {
        let (epochs, before) = (self.epochs(), self.tally.clone());
        self.pass(span_ms);
        let (asked, exact) = (self.tally.answers - before.answers, self.tally.exact - before.exact);
        assert_eq!(self.epochs(), epochs, "a task has moved");
        assert!(asked > 0 && exact * 4 > asked * 3, "{exact} of {asked} are exact");
        assert!(self.tally.accepted > before.accepted, "rows are taken in");
    }
}

#[test]
fn the_active_master_crashes_in_mid_handover_and_the_task_has_one_owner_in_the_end() {
    tell_of_masters(|world| {
        let (owner, epoch) = (world.node_that_owns(OWNER), world.epoch_of(OWNER));
        let asked = world.tally.handovers;
        world.soon(0, Event::Drain { node: owner, draining: true });
        while world.tally.handovers == asked {
            world.pass(1);
        }
        // The owner hears it in a moment, or not any more.
        let more_ms = world.random.between(0, 4);
        world.pass(more_ms);
        let active = world.active();
        world.crash(active);
        world.pass(8_000);
        assert_ne!(world.node_that_owns(OWNER), owner);
        assert!(world.epoch_of(OWNER) > epoch);
        assert!(!world.actors_on(owner).iter().any(|id| matches!(world.actors[id].role, Role::Slave { .. })));
    });
}

#[test]
fn two_masters_parted_from_the_third_decide_and_the_third_does_not() {
    for is_active in [true, false] {
        tell_of_masters(|world| {
            let active = world.active();
            let alone = if is_active { active } else { *MASTERS.iter().find(|it| **it != active).expect("three") };
            world.part_from(alone, &MASTERS, 6_000);
            world.pass(3_000);
            let now = world.active();
            assert_ne!(now, alone);
            assert_eq!(now == active, !is_active, "who leads two of three goes on, who leads himself does not");
            let owner = world.node_that_owns(OWNER);
            world.soon(0, Event::Drain { node: owner, draining: true });
            world.pass(2_500);
            assert_ne!(world.node_that_owns(OWNER), owner, "the two decide");
            world.pass(3_000);
        });
    }
}

#[test]
fn i5_a_paused_slave_that_was_replaced_goes_on_and_changes_nothing() {
    tell_of_masters(|world| {
        let (zombie, node) = (world.owner_now(OWNER), world.node_that_owns(OWNER));
        world.stop_for(node, 4_000);
        world.pass(3_500);
        assert_ne!(world.node_that_owns(OWNER), node, "it was silent for too long");
        assert!(world.actors.contains_key(&zombie), "it does not know");
        let heir = world.owner_now(OWNER);
        assert!(*world.slave(heir).standing() == Standing::Counting);
        world.pass(4_000);
        assert!(!world.actors.contains_key(&zombie), "it has heard, and is no more");
        assert_eq!(world.unsettled(), None);
    });
}

#[test]
fn a_deposed_master_that_does_not_notice_moves_nothing() {
    tell_of_masters(|world| {
        let deposed = world.active();
        // It stands still; nodes keep their connections to it, and another is elected meanwhile.
        world.stop_for(deposed, 2_000);
        world.pass(1_990);
        assert_ne!(world.active(), deposed);
        // When it goes on, all that waited for it comes at once, and what it says is of an old term.
        world.assert_goes_on(3_000);
        assert_ne!(world.active(), deposed);
    });
}

#[test]
fn i7_without_any_master_data_go_on_and_nothing_moves_until_they_return() {
    tell_of_masters(|world| {
        let first = *world.random.pick(&MASTERS);
        MASTERS.iter().for_each(|node| world.end_for_good(*node));
        world.assert_goes_on(5_000);
        // The first that returns has no majority, and moves nothing either.
        world.revive(first);
        world.assert_goes_on(3_000);
        MASTERS.iter().for_each(|node| world.revive(*node));
        world.assert_goes_on(6_000);
        assert_eq!(world.unsettled(), None, "nothing was lost, and nothing moved");
    });
}

#[test]
fn a_node_that_comes_back_under_its_name_is_another_process_with_other_epochs() {
    tell_of_masters(|world| {
        let (node, epoch) = (world.node_that_owns(OWNER), world.epoch_of(OWNER));
        let boot = world.life_of(node);
        world.end_for_good(node);
        let down_ms = world.random.between(0, 600);
        world.pass(down_ms);
        world.revive(node);
        world.pass(6_000);
        assert!(world.epoch_of(OWNER) > epoch, "nobody takes up what another process had");
        assert_ne!(world.life_of(node), boot);
        assert_eq!(world.unsettled(), None);
    });
}

#[test]
fn a_drained_node_ends_with_nothing_and_gets_its_share_again_afterwards() {
    tell_of_masters(|world| {
        let node = world.node_that_owns(OWNER);
        world.soon(0, Event::Drain { node, draining: true });
        let epochs = world.epochs();
        world.pass(3_000);
        assert!(world.control().members[&node].works.is_empty());
        assert_ne!(world.epochs(), epochs);
        assert_eq!(world.unsettled(), None);
        world.soon(0, Event::Drain { node, draining: false });
        world.pass(2_000);
        assert!(world.wires().cut.is_empty());
    });
}

impl World {
    fn stop_for(&mut self, node: NodeId, for_ms: i64) {
        self.nodes[node].stopped_until_ms = self.now_ms + for_ms;
        self.let_starve_all_of(node);
    }

    /// Crashes, and stays away until it is revived.
    fn end_for_good(&mut self, node: NodeId) {
        self.nodes[node].is_up = false;
        for id in self.actors_on(node) {
            self.end_actor(id);
        }
        self.end_process(node);
    }

    fn revive(&mut self, node: NodeId) {
        self.repair(crate::faults::Repair::Start(node));
    }
}
