//! When the next emission to a sink may begin. Pure.
//!
//! Under load emissions take their share of the thread's time and of the sink's, and what the thread has to spare, so that counting
//! keeps up; once the load pauses, what is dirty is emitted at once. Invariant: the pause after an emission is at least the
//! interval, and at most the configured ones.

use super::crowd::Share;
use super::settings::Settings;
use crate::model::units::Millis;

/// What an emission took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// From its beginning until the sink had it.
    pub duration_ms: i64,
    /// Of its thread's time, microseconds.
    pub spent_us: i64,
}

/// The pace of one partition's emissions to one sink.
#[derive(Debug)]
pub struct Pace {
    /// Since the last emission, an interval has passed then.
    rested_ms: i64,
    /// The emission's share of the time has passed then; whatever else goes on.
    due_ms: i64,
    /// When rows were last counted.
    counted_ms: i64,
    share: Share,
}

impl Default for Pace {
    /// The first emission is due at once.
    fn default() -> Self {
        Self { rested_ms: i64::MIN, due_ms: i64::MIN, counted_ms: i64::MIN, share: Share::default() }
    }
}

impl Pace {
    /// Notes that rows are being counted.
    pub fn counted(&mut self, now_ms: i64) {
        self.counted_ms = now_ms;
    }

    /// Notes an emission that began at `started_ms`. `share`: what the partition gets of its thread's processor.
    pub fn emitted(&mut self, started_ms: i64, cost: Cost, settings: &Settings, share: Share) {
        let percent = u32::from(settings.emit_percent.clamp(1, 100));
        self.share = share;
        let pause = |took_ms: i64, percent: u32, most: Millis| {
            (took_ms.saturating_mul(100) / i64::from(percent)).min(most.as_i64())
        };
        // All that want the processor get the same of it; what the thread has to spare nobody else has a use for.
        let round_ms = share.round(cost.spent_us) / 1_000;
        let thread_ms = pause(round_ms, percent.max(share.idle_percent.min(100)), settings.emit_pause_most);
        // A busy sink is seen by how long it takes.
        let sink_ms = pause(cost.duration_ms, percent, settings.sink_pause_most);
        let least_ms = settings.emit_interval.as_i64();
        self.rested_ms = started_ms.saturating_add(least_ms);
        self.due_ms = started_ms.saturating_add(thread_ms.max(sink_ms).max(least_ms));
    }

    /// From when on the next emission may begin, if nothing more is counted.
    pub fn not_before_ms(&self, settings: &Settings) -> i64 {
        // Where a thread waits for its processor rows come in bursts, and no pause between them is the end of the load.
        let quiet_ms = self.counted_ms.saturating_add(self.share.stretched(settings.emit_interval.as_i64()));
        self.due_ms.min(self.rested_ms.max(quiet_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(partitions: u32) -> Share {
        Share { partitions, ..Share::default() }
    }

    #[test]
    fn under_load_emissions_take_their_share_and_when_it_pauses_none_of_it_is_waited_for() {
        let settings = Settings::for_tests();
        let mut pace = Pace::default();
        assert_eq!(pace.not_before_ms(&settings), i64::MIN, "the first is due at once");
        pace.counted(1_000);
        assert_eq!(pace.not_before_ms(&settings), i64::MIN);
        // Half of the time, between two: four times as long.
        pace.emitted(1_000, Cost { spent_us: 30_000, duration_ms: 40 }, &settings, share(2));
        assert_eq!(pace.not_before_ms(&settings), 1_010, "quiet since it began");
        pace.counted(1_060);
        assert_eq!(pace.not_before_ms(&settings), 1_070);
        pace.counted(1_115);
        assert_eq!(pace.not_before_ms(&settings), 1_120, "its share, although rows keep coming");
        // A busy sink: it took longer than all partitions' turns.
        pace.emitted(1_200, Cost { spent_us: 30_000, duration_ms: 80 }, &settings, share(2));
        pace.counted(1_355);
        assert_eq!(pace.not_before_ms(&settings), 1_360);
    }

    #[test]
    fn the_pause_has_a_least_and_a_most() {
        let settings = Settings::for_tests();
        let mut pace = Pace::default();
        pace.counted(2_000);
        pace.emitted(1_000, Cost::default(), &settings, share(1));
        assert_eq!(pace.not_before_ms(&settings), 1_010);
        pace.emitted(1_900, Cost { spent_us: i64::MAX, duration_ms: 1 }, &settings, share(u32::MAX));
        pace.counted(2_095);
        assert_eq!(pace.not_before_ms(&settings), 2_100);
    }

    #[test]
    fn a_thread_with_time_to_spare_emits_more_often_and_a_busy_sink_gets_its_rest() {
        let settings = Settings { sink_pause_most: Millis(1_000), emit_percent: 10, ..Settings::for_tests() };
        let mut pace = Pace::default();
        let idle = Share { idle_percent: 80, ..share(2) };
        pace.counted(9_999);
        pace.emitted(1_000, Cost { spent_us: 16_000, duration_ms: 4 }, &settings, idle);
        assert_eq!(pace.not_before_ms(&settings), 1_040, "both in four fifths of the time");
        pace.emitted(1_000, Cost { spent_us: 16_000, duration_ms: 70 }, &settings, idle);
        assert_eq!(pace.not_before_ms(&settings), 1_700, "a tenth of the sink's time");
    }

    #[test]
    fn on_a_crowded_machine_emissions_take_no_more_of_it_and_the_load_is_over_later() {
        let settings = Settings::for_tests();
        let mut pace = Pace::default();
        pace.counted(1_000);
        let crowded = Share { partitions: 2, percent: 150, idle_percent: 0 };
        pace.emitted(1_000, Cost { spent_us: 10_000, duration_ms: 15 }, &settings, crowded);
        assert_eq!(pace.not_before_ms(&settings), 1_015, "quiet for one and a half times as long");
        pace.counted(1_055);
        assert_eq!(
            pace.not_before_ms(&settings),
            1_060,
            "its share: 30 ms for both, of which emissions may take a half"
        );
    }
}
