//! When a standby stands for election. Pure: raft-rs would draw a random time from the thread's generator; here it is told one.
//!
//! Standbys take turns by their rank among the voters, so that two seldom stand at once, which would split the votes and
//! cost another round. Only after a round without a winner the times are random. A standby whose connection to the active
//! master was closed does not wait for its silence: a killed master's connections close at once, a stopped one's do not.
//!
//! Invariant: own pauses do not count as the active master's silence: a tick that comes late counts as two at most.

use raft::{RawNode, StateRole};

use super::log::Log;
use super::settings::ElectionSettings;
use super::wire::MasterId;

/// A late tick counts as so many, or ticks would run slow on a busy machine.
const LATE_TICKS: i64 = 2;
/// Of the wait after a round without a winner, in steps between two ranks.
const RANDOM_STEPS: u64 = 4;

/// All in ticks.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    tick_ms: i64,
    pub heartbeat: usize,
    /// So long after a sign of the active master nobody votes for another; and it steps down itself without a majority.
    pub lease: usize,
    first: usize,
    step: usize,
    closed_step: usize,
}

impl Timing {
    pub fn new(settings: &ElectionSettings) -> Self {
        let tick = settings.tick.0.max(1);
        let ticks = |duration: crate::model::units::Millis| (duration.0.div_ceil(tick)).max(1) as usize;
        let heartbeat = ticks(settings.heartbeat);
        let lease = ticks(settings.lease).max(heartbeat + 1);
        Self {
            tick_ms: tick as i64,
            heartbeat,
            lease,
            first: ticks(settings.silence).max(lease),
            step: ticks(settings.rank_step),
            closed_step: ticks(settings.closed_step),
        }
    }

    /// Above every wait that is ever drawn.
    pub fn most(&self) -> usize {
        self.first + self.step * (RANDOM_STEPS as usize + super::masters::MASTERS_MOST + 1) + self.closed_step * 8
    }
}

/// The election clock of one master.
#[derive(Debug)]
pub struct Elections {
    timing: Timing,
    random: Random,
    ticked_ms: i64,
    /// Ticks of silence after which this master stands; drawn anew with each sign of the active master.
    wait: Option<usize>,
    /// Rounds without a winner since there was an active master.
    rounds: u32,
    /// The last active master that was known: it is not counted among those that take turns.
    last_active: MasterId,
}

impl Elections {
    pub fn new(timing: Timing, seed: u64, now_ms: i64) -> Self {
        Self { timing, random: Random(seed), ticked_ms: now_ms, wait: None, rounds: 0, last_active: 0 }
    }

    /// How many ticks have passed.
    pub fn due(&mut self, now_ms: i64) -> i64 {
        let passed = (now_ms - self.ticked_ms) / self.timing.tick_ms;
        if !(0..=LATE_TICKS).contains(&passed) {
            self.ticked_ms = now_ms;
        } else {
            self.ticked_ms += passed * self.timing.tick_ms;
        }
        passed.clamp(0, LATE_TICKS)
    }

    /// `writing`: something of this master's is not yet on disk.
    pub fn tick(&mut self, node: &mut RawNode<Log>, voters: &[MasterId], writing: bool) {
        if node.raft.state == StateRole::Leader {
            self.forget_rounds(node.raft.id);
            node.tick();
            return;
        }
        if node.raft.leader_id != 0 {
            self.forget_rounds(node.raft.leader_id);
        }
        if node.raft.r.election_elapsed == 0 || self.wait.is_none() {
            self.wait = Some(self.draw(node.raft.id, voters));
        }
        let wait = self.wait.unwrap_or(self.timing.first);
        node.raft.set_randomized_election_timeout(wait);
        if writing {
            // Who cannot write now would not be a good active master; and raft-rs wants a written log of who stands.
            node.raft.r.election_elapsed += 1;
            return;
        }
        if voters == [node.raft.id] && node.raft.leader_id == 0 {
            // Nobody else could be active: there is nobody to wait for.
            if let Err(error) = node.campaign() {
                debug_assert!(false, "a master alone can always stand: {error}");
            }
            return;
        }
        node.tick();
        if matches!(node.raft.state, StateRole::PreCandidate | StateRole::Candidate)
            && node.raft.r.election_elapsed == 0
        {
            self.rounds = self.rounds.saturating_add(1);
        }
    }

    fn forget_rounds(&mut self, active: MasterId) {
        (self.rounds, self.last_active) = (0, active);
    }

    /// The connection to `peer` was closed.
    pub fn closed(&mut self, node: &mut RawNode<Log>, peer: MasterId, voters: &[MasterId]) {
        if node.raft.leader_id != peer || node.raft.state == StateRole::Leader {
            return;
        }
        self.forget_rounds(peer);
        // The others ignore this master while they hear the active one; so a closed connection alone elects nobody.
        node.raft.r.election_elapsed = node.raft.r.election_elapsed.max(self.timing.lease);
        let turn = self.rank(node.raft.id, voters) * self.timing.closed_step;
        self.wait = Some(node.raft.r.election_elapsed.min(self.timing.first) + 1 + turn);
    }

    /// The place among those that take turns.
    fn rank(&self, id: MasterId, voters: &[MasterId]) -> usize {
        voters
            .iter()
            .filter(|voter| **voter < id && **voter != self.last_active)
            .count()
            .min(super::masters::MASTERS_MOST)
    }

    fn draw(&mut self, id: MasterId, voters: &[MasterId]) -> usize {
        let Timing { first, step, .. } = self.timing;
        match self.rounds {
            0 => first + self.rank(id, voters) * step,
            _ => first + self.random.below(RANDOM_STEPS * step as u64 + 1) as usize,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_tick_counts_as_two_at_most() {
        let settings = ElectionSettings::for_tests();
        let mut elections = Elections::new(Timing::new(&settings), 1, 1_000);
        let tick = settings.tick.as_i64();
        assert_eq!(elections.due(1_000 + tick - 1), 0);
        assert_eq!(elections.due(1_000 + tick), 1);
        assert_eq!(elections.due(1_000 + 3 * tick + 1), 2);
        assert_eq!(elections.due(1_000 + 1_000 * tick), 2, "after a pause");
        assert_eq!(elections.due(500), 0, "the clock went back");
        assert_eq!(elections.due(500 + tick), 1);
    }

    #[test]
    fn those_that_take_turns_do_not_count_the_active_master() {
        let mut elections = Elections::new(Timing::new(&ElectionSettings::for_tests()), 1, 0);
        assert_eq!([1, 2, 3].map(|id| elections.rank(id, &[1, 2, 3])), [0, 1, 2]);
        elections.forget_rounds(1);
        assert_eq!([2, 3].map(|id| elections.rank(id, &[1, 2, 3])), [0, 1]);
        let waits = [2, 3].map(|id| elections.draw(id, &[1, 2, 3]));
        assert_eq!(waits[1] - waits[0], elections.timing.step);
    }
}
