//! How many want the processor of a counting thread: the partitions on it, and whatever else the machine runs. Pure.
//!
//! Invariant: a thread that never waits for a processor has its partitions for a crowd, and no more.

/// What a thread has had of the processors so far, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// It ran.
    pub run_ns: u64,
    /// It could have run, and waited.
    pub wait_ns: u64,
    /// Time that has passed.
    pub wall_ns: u64,
}

/// Shorter times say nothing about how busy the processors are.
const LEAST_NS: u64 = 20_000_000;
/// A thread that waits longer than this beside what it runs is not made to rest still longer.
const MOST_PERCENT: u32 = 1_600;

/// What of a processor a partition gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// That are counted in turns by the thread, itself included.
    pub partitions: u32,
    /// The time in which the thread could have run, of the time in which it did.
    pub percent: u32,
    /// Of the time, that nobody on the thread had any use for.
    pub idle_percent: u32,
}

/// All of one, with nothing to spare.
impl Default for Share {
    fn default() -> Self {
        Self { partitions: 1, percent: 100, idle_percent: 0 }
    }
}

impl Share {
    /// Within how much time everybody gets as much of the processor as this was.
    pub fn round(self, spent: i64) -> i64 {
        self.stretched(spent.saturating_mul(i64::from(self.partitions)))
    }

    /// How long something lasts here that lasts so long with a processor for itself.
    pub fn stretched(self, duration: i64) -> i64 {
        duration.saturating_mul(i64::from(self.percent)) / 100
    }
}

/// How busy the processors are, as one thread has it.
#[derive(Debug)]
pub struct Crowd {
    measured: Turns,
    percent: u32,
    idle_percent: u32,
}

impl Default for Crowd {
    fn default() -> Self {
        let Share { percent, idle_percent, .. } = Share::default();
        Self { measured: Turns::default(), percent, idle_percent }
    }
}

impl Crowd {
    /// Takes what the thread has had by now.
    pub fn measured(&mut self, turns: Turns) {
        let run_ns = turns.run_ns.saturating_sub(self.measured.run_ns);
        let wait_ns = turns.wait_ns.saturating_sub(self.measured.wait_ns);
        let wall_ns = turns.wall_ns.saturating_sub(self.measured.wall_ns);
        let busy_ns = run_ns.saturating_add(wait_ns);
        if busy_ns < LEAST_NS {
            return;
        }
        self.measured = turns;
        let percent = run_ns.saturating_add(wait_ns).saturating_mul(100) / run_ns.max(1);
        self.percent = u32::try_from(percent).unwrap_or(u32::MAX).min(MOST_PERCENT);
        let idle_percent = wall_ns.saturating_sub(busy_ns).saturating_mul(100) / wall_ns.max(1);
        self.idle_percent = idle_percent.min(100) as u32;
    }

    /// Of one of so many partitions.
    pub fn share(&self, partitions: u32) -> Share {
        Share { partitions: partitions.max(1), percent: self.percent, idle_percent: self.idle_percent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(run: u64, wait: u64) -> Turns {
        Turns { run_ns: run * 1_000_000, wait_ns: wait * 1_000_000, wall_ns: 0 }
    }

    #[test]
    fn what_a_thread_has_to_spare_is_neither_run_nor_waited_for() {
        let mut crowd = Crowd::default();
        let turns = |wall: u64, run: u64, wait: u64| Turns { wall_ns: wall * 1_000_000, ..ms(run, wait) };
        crowd.measured(turns(1_000, 150, 50));
        assert_eq!(crowd.share(1).idle_percent, 80);
        crowd.measured(turns(1_200, 250, 150));
        assert_eq!(crowd.share(1).idle_percent, 0);
    }

    #[test]
    fn a_thread_that_waits_for_its_processor_shares_it_with_more_than_its_partitions() {
        let mut crowd = Crowd::default();
        assert_eq!((crowd.share(8).round(10), crowd.share(0).round(10)), (80, 10), "nothing is known yet");
        crowd.measured(ms(100, 0));
        assert_eq!(crowd.share(8).round(10), 80);
        crowd.measured(ms(200, 300));
        assert_eq!(crowd.share(8).round(10), 320, "of the last 400 ms it ran 100");
        assert_eq!(crowd.share(8).stretched(200), 800);
        crowd.measured(ms(205, 310));
        assert_eq!(crowd.share(8).round(10), 320, "too short to tell");
        crowd.measured(ms(400, 310));
        assert_eq!(crowd.share(8).round(100), 840, "and it is over: 10 ms of waiting beside 200 ms");
    }

    #[test]
    fn a_thread_that_hardly_ever_runs_has_a_bounded_crowd() {
        let mut crowd = Crowd::default();
        crowd.measured(ms(0, 60_000));
        assert_eq!(crowd.share(1).stretched(1), 16);
        // No time at all says nothing new.
        crowd.measured(ms(0, 60_000));
        assert_eq!(crowd.share(1).stretched(1), 16);
        assert!(crowd.share(u32::MAX).round(i64::MAX) > 0, "and no figure is too large");
    }
}
