//! A crash in the middle of saving leaves half a snapshot: the chunks say the same (I4).

use super::*;

#[test]
fn i4_an_owner_that_finds_a_torn_snapshot_counts_the_chunks() {
    tell(
        |world| {
            world.pass(6_000);
            world.kill(OWNER);
            world.tiers.kv.tear_snapshot(HERE);
            world.lost(Tier::Kv);
            let heir = world.assign_to(OWNER, 3);
            world.pass(3_000);
            assert_eq!(*world.slave(heir).standing(), Standing::Counting);
        },
        |_| {},
    );
}
