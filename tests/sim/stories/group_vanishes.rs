//! A group's last row goes, and who saw it go cannot tell: the next owner never knew the block, and it is gone (I1).

use holdfast::model::window::WindowKind;
use holdfast::slave::exchange::SinkName;
use holdfast::tier::SinkQuery;

use super::*;
use crate::shop::{self, Change, Order};

#[test]
fn i1_a_block_that_a_dead_owner_left_and_the_new_one_never_knew_is_gone() {
    tell(
        |world| {
            let mut order = Order::new(&mut world.random);
            (order.merchant, order.paid) = (shop::merchants(HERE)[0], true);
            world.send_request(&[Change { order: order.clone(), tag: 1, weight: 1 }], true);
            world.pass(2_000);
            world.kill(OWNER);
            world.send_request(&[Change { order, tag: 2, weight: -1 }], true);
            // This one sees it go, and saves its state; but it cannot say so.
            world.tiers.set_up(Tier::Hot, false);
            world.assign_to(OWNER, 3);
            world.pass(7_000);
            world.kill(OWNER);
            world.tiers.set_up(Tier::Hot, true);
            world.assign_to(OWNER, 4);
            world.pass(3_000);
            let table = shop::metric_table(WindowKind::Day).id;
            let asked = SinkQuery { table, keys: None, days: i32::MIN..=i32::MAX };
            let mut read = world.tiers.read_sink(SinkName::Hot, HERE, asked);
            assert_eq!(read.blocks.len(), 1, "nobody removed it");
            read.settle();
            assert!(read.blocks.is_empty() && read.record.is_some_and(|record| record.is_complete()));
        },
        silent,
    );
}
