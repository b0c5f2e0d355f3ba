//! The only file that reads a clock.
//!
//! Invariant: everything else takes `now` as an argument or holds a `Clock`, so that tests and the simulator decide
//! what time it is.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time in Unix milliseconds and a monotonic time for durations.
#[derive(Debug, Clone)]
pub enum Clock {
    System,
    /// Stands still until it is set; for tests.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    pub fn manual(now_ms: i64) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(now_ms)))
    }

    /// Unix milliseconds.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn now_ms(&self) -> i64 {
        match self {
            Self::System => match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => since.as_millis() as i64,
                Err(before) => -(before.duration().as_millis() as i64),
            },
            Self::Manual(now) => now.load(Ordering::Acquire),
        }
    }

    /// Moves a manual clock forward.
    pub fn advance(&self, by_ms: i64) {
        match self {
            Self::System => panic!("the system clock cannot be set"),
            Self::Manual(now) => now.fetch_add(by_ms, Ordering::AcqRel),
        };
    }
}

/// What a future gives, and how long its polls took: its own time on the thread, without its waits.
pub async fn timed<F: Future>(future: F) -> (F::Output, Duration) {
    let (mut future, mut spent) = (pin!(future), Duration::ZERO);
    poll_fn(|context| {
        let begun = instant();
        let polled = future.as_mut().poll(context);
        spent += begun.elapsed();
        polled.map(|output| (output, spent))
    })
    .await
}

/// A moment of the monotonic clock, for measuring durations.
#[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
pub fn instant() -> Instant {
    Instant::now()
}
