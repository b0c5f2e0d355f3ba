//! How long to wait after a failure: twice as long after each, up to a limit. Pure.
//!
//! Invariant: the same failures give the same waits (no randomness), and no wait is longer than the limit.

use serde::{Deserialize, Serialize};

use crate::model::units::Millis;

/// The waits after the first, second, … failure in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    pub first: Millis,
    pub most: Millis,
}

impl Backoff {
    /// The wait after the `failures`-th failure in a row, counted from one.
    pub fn delay(&self, failures: u32) -> Millis {
        let doublings = failures.saturating_sub(1).min(63);
        Millis(self.first.0.saturating_mul(1 << doublings).min(self.most.0))
    }
}

/// Failures in a row, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    backoff: Backoff,
    failures: u32,
    not_before_ms: i64,
}

impl Retry {
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, not_before_ms: i64::MIN }
    }

    pub fn failed(&mut self, now_ms: i64) {
        self.failures = self.failures.saturating_add(1);
        self.not_before_ms = now_ms.saturating_add(self.backoff.delay(self.failures).as_i64());
    }

    pub fn succeeded(&mut self) {
        *self = Self::new(self.backoff);
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Unix milliseconds; `i64::MIN` without a failure.
    pub fn not_before_ms(&self) -> i64 {
        self.not_before_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Millis(100), most: Millis(1_500) };

    #[test]
    fn waits_double_up_to_the_limit_and_never_overflow() {
        let waits: Vec<u64> = [1, 2, 3, 4, 5, 6, 64, u32::MAX].iter().map(|n| BACKOFF.delay(*n).0).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_500, 1_500, 1_500, 1_500]);
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let mut retry = Retry::new(BACKOFF);
        retry.failed(1_000);
        retry.failed(2_000);
        assert_eq!((retry.failures(), retry.not_before_ms()), (2, 2_200));
        retry.succeeded();
        assert_eq!(retry, Retry::new(BACKOFF));
    }
}
