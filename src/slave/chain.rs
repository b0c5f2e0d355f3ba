//! How a slave follows the chain of chunks: pushes are taken if they fit, everything else is read from kv. Pure.
//!
//! Invariant: chunks are counted in the order of the chain. A chunk that does not build on the last one counted is never
//! counted; if kv's chain does not hold the last one, all of it is read again, which `Applied` makes harmless.

use crate::backoff::{Backoff, Retry};
use crate::model::id::Tip;

/// What a pushed or read chunk is to the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It builds on the last one.
    Next,
    /// It was counted before.
    Old,
    /// Chunks before it are not known.
    Gap,
}

/// A place in the chain, and whether kv must be asked.
#[derive(Debug)]
pub struct Chain {
    /// The last chunk counted.
    last: Tip,
    /// The highest chunk ever counted: above `last` while kv's chain is read again.
    reached: Tip,
    /// A chunk that is known to exist; reading goes on until it is reached.
    wanted: Tip,
    /// kv may not stand where it stood: read, also if nothing is wanted.
    suspicious: bool,
    /// A read is under way; what was wanted when it began.
    reading: Option<Tip>,
    retry: Retry,
    /// When something was last heard of the chain, Unix milliseconds.
    heard_ms: i64,
}

impl Chain {
    pub fn new(backoff: Backoff) -> Self {
        let start = Tip::default();
        Self {
            last: start,
            reached: start,
            wanted: start,
            suspicious: false,
            reading: None,
            retry: Retry::new(backoff),
            heard_ms: i64::MIN,
        }
    }

    /// Goes on from where a snapshot stands.
    pub fn resume(&mut self, last: Tip, reached: Tip) {
        (self.last, self.reached) = (last, reached);
    }

    pub fn last(&self) -> Tip {
        self.last
    }

    pub fn reached(&self) -> Tip {
        self.reached
    }

    /// Is the chain being read again, or known to go on? Then the state is behind what it could be.
    pub fn is_behind(&self) -> bool {
        self.suspicious || self.wanted > self.last
    }

    pub fn fit(&self, previous: Tip, id: Tip) -> Fit {
        match () {
            () if previous == self.last => Fit::Next,
            () if id <= self.last => Fit::Old,
            () => Fit::Gap,
        }
    }

    /// A chunk was counted before, if it is read again.
    pub fn is_again(&self, id: Tip) -> bool {
        id <= self.reached
    }

    pub fn counted(&mut self, id: Tip) {
        self.last = id;
        self.reached = self.reached.max(id);
    }

    /// Somebody says that the chain stands at `tip`.
    pub fn heard(&mut self, now_ms: i64, tip: Tip) {
        self.heard_ms = now_ms;
        self.wanted = self.wanted.max(tip);
        self.suspicious |= tip < self.last;
    }

    /// Looks into kv if nothing was heard for `poll_ms`.
    pub fn poll(&mut self, now_ms: i64, poll_ms: i64) {
        if now_ms >= self.heard_ms.saturating_add(poll_ms) {
            self.heard_ms = now_ms;
            self.suspicious = true;
        }
    }

    pub fn should_read(&self, now_ms: i64) -> bool {
        self.reading.is_none() && self.is_behind() && now_ms >= self.retry.not_before_ms()
    }

    pub fn started_reading(&mut self) {
        assert!(self.reading.is_none(), "one read at a time");
        self.reading = Some(self.wanted);
    }

    pub fn failed(&mut self, now_ms: i64) {
        self.reading = None;
        self.retry.failed(now_ms);
    }

    /// kv has no more chunks after the last one.
    pub fn at_end(&mut self, now_ms: i64) {
        // What was heard of since the read began may not have been there to be read.
        if self.reading.take() == Some(self.wanted) {
            self.wanted = self.last;
        }
        (self.suspicious, self.heard_ms) = (false, now_ms);
        self.retry.succeeded();
    }

    /// kv gave chunks; there may be more.
    pub fn progressed(&mut self, now_ms: i64) {
        (self.reading, self.suspicious, self.heard_ms) = (None, true, now_ms);
        self.retry.succeeded();
    }

    /// kv does not hold the last chunk: all of its chain is read again.
    pub fn broke(&mut self) {
        (self.last, self.wanted) = (Tip::default(), Tip::default());
        (self.reading, self.suspicious) = (None, true);
    }

    pub fn wake_ms(&self, poll_ms: i64) -> Option<i64> {
        match (self.reading.is_some(), self.is_behind()) {
            (true, _) => None,
            (false, true) => Some(self.retry.not_before_ms()),
            (false, false) => Some(self.heard_ms.saturating_add(poll_ms)),
        }
    }

    /// After a failure: when kv may be asked again.
    pub fn not_before_ms(&self) -> i64 {
        self.retry.not_before_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Millis;

    fn tip(number: u64) -> Tip {
        Tip::new(1, number)
    }

    fn chain(last: u64) -> Chain {
        let mut chain = Chain::new(Backoff { first: Millis(10), most: Millis(40) });
        chain.resume(tip(last), tip(last));
        chain.heard(0, tip(last));
        chain
    }

    #[test]
    fn only_a_chunk_that_builds_on_the_last_one_is_counted() {
        let mut chain = chain(3);
        assert_eq!(chain.fit(tip(3), tip(4)), Fit::Next);
        assert_eq!(chain.fit(tip(1), tip(2)), Fit::Old);
        assert_eq!(chain.fit(tip(4), tip(5)), Fit::Gap);
        chain.counted(tip(4));
        assert_eq!(chain.fit(tip(4), tip(5)), Fit::Next);
    }

    #[test]
    fn what_was_heard_of_is_read_until_it_is_reached() {
        let mut chain = chain(3);
        assert!(!chain.should_read(0));
        chain.heard(0, tip(5));
        assert!(chain.should_read(0));
        chain.started_reading();
        // Pushed while the read was under way, and not in its answer.
        chain.heard(0, tip(6));
        chain.counted(tip(5));
        chain.at_end(0);
        assert!(chain.should_read(0));
        chain.started_reading();
        // kv does not have it any more.
        chain.at_end(0);
        assert!(!chain.should_read(0));
    }

    #[test]
    fn a_tip_below_the_last_chunk_makes_suspicious_and_a_broken_chain_is_read_from_the_start() {
        let mut chain = chain(3);
        chain.heard(0, tip(2));
        assert!(chain.should_read(0));
        chain.started_reading();
        chain.broke();
        assert!(chain.should_read(0));
        assert_eq!((chain.last(), chain.reached()), (Tip::default(), tip(3)));
        assert!(chain.is_again(tip(3)) && !chain.is_again(tip(4)));
    }

    #[test]
    fn silence_is_not_trusted_for_long_and_a_failed_read_waits() {
        let mut chain = chain(3);
        chain.poll(99, 100);
        assert!(!chain.should_read(99));
        chain.poll(100, 100);
        assert!(chain.should_read(100));
        chain.started_reading();
        chain.failed(100);
        assert!(!chain.should_read(109) && chain.should_read(110));
        assert_eq!(chain.wake_ms(100), Some(110));
    }
}
