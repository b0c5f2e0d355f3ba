//! Up to where a gate may trim its partition of mq.
//!
//! Invariant: never beyond an offset that kv's head has had for the whole time to keep, so that a kv that lost its last
//! writes can be filled again; the memory needed does not depend on that time.

use std::collections::VecDeque;

use crate::mq::Offset;

/// How many samples cover the time to keep.
const SAMPLES: i64 = 32;

/// Offsets that kv had, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    keep_ms: i64,
    samples: VecDeque<(i64, Offset)>,
    trimmed: Offset,
}

impl Retention {
    pub fn new(keep_ms: i64) -> Self {
        Self { keep_ms, samples: VecDeque::new(), trimmed: 0 }
    }

    /// kv was found with this offset. It may be filled again before it is noted next: what it had before it went back it
    /// has not had all the time.
    pub fn seen(&mut self, offset: Offset) {
        self.samples.retain(|(_, known)| *known <= offset);
    }

    /// Notes what kv has, and gives the offset before which mq may forget, when that has moved.
    pub fn note(&mut self, now_ms: i64, offset: Offset) -> Option<Offset> {
        // kv, or the clock, went back: what was known of later does not hold.
        self.seen(offset);
        self.samples.retain(|(at_ms, _)| *at_ms <= now_ms);
        if self.samples.back().is_none_or(|(at_ms, _)| now_ms - at_ms >= self.keep_ms / SAMPLES) {
            self.samples.push_back((now_ms, offset));
        }
        let mut old = None;
        while let Some(&(at_ms, offset)) = self.samples.front() {
            if now_ms - at_ms < self.keep_ms {
                break;
            }
            old = Some(offset);
            self.samples.pop_front();
        }
        let before = old.filter(|offset| *offset > self.trimmed)?;
        self.trimmed = before;
        Some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mq_keeps_what_kv_has_not_had_for_long_enough() {
        let mut retention = Retention::new(3_200);
        let trims: Vec<_> = (0..50).filter_map(|step| Some((step, retention.note(step * 100, step as u64)?))).collect();
        assert_eq!(trims.first(), Some(&(33, 1)), "offset 0 needs no trim");
        assert_eq!(trims.last(), Some(&(49, 17)));
        assert!(retention.samples.len() <= SAMPLES as usize + 1);
    }

    #[test]
    fn a_kv_that_went_back_is_believed() {
        let mut retention = Retention::new(320);
        retention.note(0, 100);
        assert_eq!(retention.note(400, 10), None);
        assert_eq!(retention.note(800, 20), Some(10));
    }

    #[test]
    fn what_kv_lost_and_got_again_it_has_had_since_then_only() {
        let mut retention = Retention::new(320);
        retention.note(0, 100);
        retention.seen(10);
        assert_eq!(retention.note(400, 100), None);
        assert_eq!(retention.note(720, 100), Some(100));
    }
}
