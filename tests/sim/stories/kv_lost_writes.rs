//! kv fails over to a replica that lacks its last writes: gate and owner notice, and everything is said again (I3, I4).

use super::*;

#[test]
fn i3_i4_what_kv_lost_comes_again_from_mq_and_counts_once() {
    tell(
        |world| {
            for lost in [1, 3, 8] {
                world.pass(1_200);
                world.tiers.kv.lose_last_writes(HERE, lost);
                world.lost(Tier::Kv);
            }
            // Also one that was there when an owner began, and is gone when it looks again.
            world.kill(OWNER);
            world.assign_to(OWNER, 3);
            world.tiers.kv.lose_last_writes(HERE, 5);
            world.lost(Tier::Kv);
        },
        |plan| plan.push_every_ms = 100,
    );
}

#[test]
fn i4_a_kv_that_comes_back_empty_while_all_is_quiet_is_filled_again() {
    tell(
        |world| {
            world.pass(3_000);
            world.trouble = false;
            world.pass(3_000);
            let chunks = world.tiers.chunks(HERE).len();
            world.tiers.kv.clear(HERE);
            world.lost(Tier::Kv);
            world.pass(3_000);
            assert!(chunks > 0 && !world.tiers.chunks(HERE).is_empty());
        },
        |_| {},
    );
}
