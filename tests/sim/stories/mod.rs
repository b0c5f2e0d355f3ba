//! Named scenarios, each with its end known beforehand, under many schedules.
//!
//! Invariant: checkers watch stories as they watch random runs.

mod answers_go_on;
mod cache_comes_back_empty;
mod dead_gate_leaves_a_gap;
mod every_tier_is_down;
mod group_vanishes;
mod kv_is_away_for_long;
mod kv_lost_writes;
mod masters;
mod mq_forgets_too_early;
mod push_lost;
mod torn_snapshot;
mod two_owners_emit;
mod zombie_owner;

use holdfast::model::id::PartitionId;
use holdfast::slave::partition::Partition;
use holdfast::slave::standing::Standing;

use crate::assigner::{Kind, Task};
use crate::calls::{ActorId, Tier};
use crate::plan::Plan;
use crate::world::{NEVER_MS, Outcome, Role, World};

const HERE: PartitionId = PartitionId(0);
const OWNER: Task = Task { kind: Kind::Slave, partition: HERE };
const GATE: Task = Task { kind: Kind::Gate, partition: HERE };

/// Tells a story under several schedules; it ends with everything exact.
fn tell(story: impl Fn(&mut World), change: impl Fn(&mut Plan)) {
    tell_until(story, change, |world| {
        let outcome: Outcome = world.settle().unwrap_or_else(|broken| panic!("{broken:?}"));
        assert!(outcome.tally.exact > 0, "nobody got an exact answer");
    });
}

fn tell_until(story: impl Fn(&mut World), change: impl Fn(&mut Plan), end: impl Fn(&mut World)) {
    for seed in 0..12 {
        let mut plan = Plan::calm();
        change(&mut plan);
        let mut world = World::with_plan(seed, plan);
        story(&mut world);
        end(&mut world);
    }
}

impl World {
    fn pass(&mut self, span_ms: i64) {
        self.run_for(span_ms).unwrap_or_else(|broken| panic!("{broken:?}"));
    }

    fn owner_now(&self, task: Task) -> ActorId {
        self.owner(task).expect("somebody owns it")
    }

    fn slave(&self, id: ActorId) -> &Partition {
        match self.actors.get(&id).map(|actor| &actor.role) {
            Some(Role::Slave { core, .. }) => core,
            _ => panic!("actor {id} is no living slave"),
        }
    }

    fn is_fenced(&self, id: ActorId) -> bool {
        matches!(self.slave(id).standing(), Standing::Fenced { .. })
    }

    /// Kills one actor, not its node.
    fn kill(&mut self, task: Task) {
        let id = self.owner_now(task);
        self.end_actor(id);
    }

    fn lost(&mut self, tier: Tier) {
        self.checkers.lost(&self.tiers, tier, HERE);
    }
}

/// Nothing comes in but what the story sends.
fn silent(plan: &mut Plan) {
    (plan.push_every_ms, plan.capture_every_ms) = (NEVER_MS, NEVER_MS);
}
