//! kv comes back empty after mq has forgotten the beginning, and the owner is lost too: nobody has it any more. An owner
//! that begins with what is left says that something is missing, also where nothing was published before (I1, I2).

use holdfast::slave::exchange::SinkName;
use holdfast::tier::SinkQuery;

use super::*;
use crate::shop;

#[test]
fn i1_i2_what_nobody_has_any_more_is_missed() {
    let story = |world: &mut World| {
        world.pass(12_000);
        assert!(world.tiers.mq_end(HERE).low > 0, "mq forgot something");
        world.kill(OWNER);
        world.kill(GATE);
        // Nothing is under way any more.
        world.pass(10);
        world.tiers.kv.clear(HERE);
        world.lost(Tier::Kv);
        world.tiers.cache.clear(HERE);
        world.lost(Tier::Cache);
        world.assign_to(GATE, 1);
        world.assign_to(OWNER, 3);
        world.pass(4_000);
    };
    // Requests with a key leave no gap in a sequence.
    let change = |plan: &mut Plan| {
        plan.trim_early();
        (plan.keyed_percent, plan.push_every_ms, plan.capture_every_ms) = (100, 200, NEVER_MS);
    };
    tell_until(story, change, |world| {
        let asked = SinkQuery { table: shop::metric_table(shop::WINDOWS[0]).id, keys: None, days: 0..=0 };
        let record = world.tiers.read_sink(SinkName::Cache, HERE, asked).record.expect("its owner says what it knows");
        assert!(!record.is_complete() && record.missing[0].source.is_mq(), "{record:?}");
    });
}

/// An owner that has counted it all misses nothing.
#[test]
fn i1_what_an_owner_has_counted_is_not_missed() {
    tell(
        |world| {
            world.pass(12_000);
            world.kill(GATE);
            world.pass(10);
            world.tiers.kv.clear(HERE);
            world.lost(Tier::Kv);
            world.assign_to(GATE, 1);
            world.pass(3_000);
        },
        |plan| plan.trim_early(),
    );
}
