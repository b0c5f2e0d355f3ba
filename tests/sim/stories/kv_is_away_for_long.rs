//! kv is away for longer than mq keeps what kv had, and comes back without its last writes: mq still has them (I2).

use super::*;

#[test]
fn i2_mq_forgets_nothing_while_nobody_sees_what_kv_has() {
    tell(
        |world| {
            world.pass(4_000);
            world.tiers.set_up(Tier::Kv, false);
            world.tiers.kv.lose_last_writes(HERE, 3);
            world.lost(Tier::Kv);
            world.pass(12_000);
            world.tiers.set_up(Tier::Kv, true);
            world.pass(3_000);
        },
        |plan| {
            plan.trim_early();
            plan.push_every_ms = 100;
        },
    );
}
