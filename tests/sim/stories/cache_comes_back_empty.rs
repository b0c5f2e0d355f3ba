//! The cache restarts: what it does not have is not taken for what is not there, and its owner fills it (I1, I4).

use super::*;

#[test]
fn i1_i4_an_empty_cache_is_filled_by_an_owner_that_did_not_change() {
    tell(
        |world| {
            for _ in 0..4 {
                world.pass(900);
                world.tiers.cache.clear(HERE);
                world.lost(Tier::Cache);
            }
            world.pass(3_000);
        },
        |plan| plan.ask_every_ms = 20,
    );
}

#[test]
fn i1_a_cache_without_room_for_all_answers_exactly_with_what_it_has() {
    tell(|world| world.pass(6_000), |plan| (plan.cache_bytes, plan.ask_every_ms) = (6 << 10, 20));
}
