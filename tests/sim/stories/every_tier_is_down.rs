//! All tiers go at once and come back one by one, the cache empty (I4).

use super::*;
use crate::calls::TIERS;

#[test]
fn i4_after_all_tiers_were_down_everything_becomes_exact() {
    tell(
        |world| {
            world.pass(3_000);
            TIERS.into_iter().for_each(|tier| world.tiers.set_up(tier, false));
            world.break_waits();
            world.tiers.cache.clear(HERE);
            world.lost(Tier::Cache);
            world.pass(2_000);
            for tier in [Tier::Cache, Tier::Kv, Tier::Hot, Tier::Mq] {
                world.pass(700);
                world.tiers.set_up(tier, true);
            }
        },
        |_| {},
    );
}
