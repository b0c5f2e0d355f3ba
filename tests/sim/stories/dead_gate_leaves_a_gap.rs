//! A gate dies with a stretch that mq refused and a later one that it took: nobody was told that the first is safe, and
//! the next gate says so (I4).

use holdfast::model::id::SourceId;
use holdfast::model::position::{Position, Span};

use super::*;
use crate::calls::{Call, What};
use crate::shop::{Change, Order, positioned_batch};

#[test]
fn i4_the_gap_of_a_dead_gate_is_closed_by_the_next_one() {
    tell(
        |world| {
            let gate = world.owner_now(GATE);
            let span = Span::new(Position(2), Position(3));
            let order = Order { merchant: crate::shop::merchants(HERE)[0], ..Order::new(&mut world.random) };
            let change = Change { order, tag: 0, weight: 1 };
            let source = SourceId::push("orders", 1);
            let batch = positioned_batch(source.clone(), span, &[(Position(3), &change)], world.now_ms);
            world.execute(&Call { from: gate, partition: HERE, what: What::Capture(span, batch) });
            world.pass(1_000);
            let owner = world.owner_now(OWNER);
            assert_eq!(world.slave(owner).applied().gaps().count(), 1);
            world.kill(GATE);
            world.assign_to(GATE, 1);
            world.pass(3_000);
            assert!(world.slave(owner).applied().is_gapless());
        },
        silent,
    );
}
