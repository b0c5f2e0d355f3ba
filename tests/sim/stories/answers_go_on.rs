//! One thing fails at a time: hot data is answered all along, and soon exactly (I7).

use super::*;
use crate::calls::TIERS;
use crate::plan::Plan;

/// Answers while something is away, and how many of them say nothing.
fn answers(world: &mut World, span_ms: i64) -> (u64, u64, u64) {
    let before = world.tally.clone();
    world.pass(span_ms);
    let now = &world.tally;
    (now.answers - before.answers, now.exact - before.exact, now.unknown - before.unknown)
}

fn busy_with_questions(plan: &mut Plan) {
    // Only a damaged cache is passed over. Capture takes its time to fill the gaps that an outage of mq leaves.
    (plan.ask_every_ms, plan.skip_cache_percent, plan.capture_every_ms) = (20, 0, NEVER_MS);
}

#[test]
fn i7_without_one_of_the_tiers_questions_are_answered() {
    tell(
        |world| {
            world.pass(2_000);
            for tier in TIERS {
                world.tiers.set_up(tier, false);
                world.break_waits();
                let (asked, exact, unknown) = answers(world, 2_500);
                assert!(asked > 50 && unknown == 0, "{tier:?}: {unknown} of {asked}");
                assert!(exact * 2 > asked, "{tier:?}: {exact} of {asked}");
                world.tiers.set_up(tier, true);
                world.pass(6_000);
            }
        },
        busy_with_questions,
    );
}

#[test]
fn i7_without_gates_or_owners_the_last_answers_stay() {
    for task in [OWNER, GATE] {
        tell(
            |world| {
                world.pass(2_000);
                world.kill(task);
                let (asked, exact, unknown) = answers(world, 3_000);
                assert!(asked > 50 && unknown == 0 && exact * 2 > asked, "{task:?}: {exact}, {unknown} of {asked}");
                world.assign(task);
            },
            busy_with_questions,
        );
    }
}
