//! An owner is stopped, taken for lost, and goes on later: it changes nothing any more (I5).

use super::*;

#[test]
fn i5_an_owner_that_was_taken_for_lost_changes_nothing_when_it_goes_on() {
    tell(
        |world| {
            world.pass(2_000);
            let zombie = world.owner_now(OWNER);
            let node = world.actors[&zombie].node;
            world.nodes[node].stopped_until_ms = world.now_ms + 3_000;
            world.pass(1_000);
            let other = (2..5).find(|other| *other != node).expect("there are three");
            let heir = world.assign_to(OWNER, other);
            world.pass(1_500);
            assert!(!world.is_fenced(zombie), "it does not run");
            assert!(*world.slave(heir).standing() == Standing::Counting);
            world.pass(4_000);
            assert!(world.is_fenced(zombie) && !world.is_fenced(heir));
        },
        |_| {},
    );
}
