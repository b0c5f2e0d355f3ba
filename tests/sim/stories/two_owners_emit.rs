//! Two owners live at the same time and both emit: the tiers take the writes of one (I5).

use super::*;

#[test]
fn i5_of_two_owners_that_emit_the_one_with_the_higher_epoch_counts() {
    tell(
        |world| {
            world.pass(1_500);
            let first = world.owner_now(OWNER);
            let second = world.assign_to(OWNER, 3);
            world.pass(1_500);
            let third = world.assign_to(OWNER, 4);
            world.pass(3_000);
            assert!(world.is_fenced(first) && world.is_fenced(second) && !world.is_fenced(third));
        },
        |plan| plan.push_every_ms = 60,
    );
}
