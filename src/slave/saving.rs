//! When a partition's state is saved in kv. Pure.
//!
//! Invariant: one save at a time; without new chunks there is nothing to save.

use super::snapshot::Stand;
use crate::backoff::{Backoff, Retry};
use crate::model::id::Tip;

/// Snapshots made, under way and due.
#[derive(Debug)]
pub struct Saving {
    retry: Retry,
    under_way: Option<Stand>,
    /// The chunk up to which the last snapshot goes.
    saved: Tip,
    /// `None`: the partition has only begun.
    next_ms: Option<i64>,
    last_ms: Option<i64>,
    /// The save at the end was begun; it is not repeated.
    last_try: bool,
}

impl Saving {
    pub fn new(backoff: Backoff) -> Self {
        let (under_way, last_ms) = (None, None);
        Self { retry: Retry::new(backoff), under_way, saved: Tip::default(), next_ms: None, last_ms, last_try: false }
    }

    /// A snapshot was there already.
    pub fn found(&mut self, stand: Stand) {
        self.saved = stand.last;
    }

    /// The partition counts from now on; the first save comes after an interval, not with all others at the start.
    pub fn begin(&mut self, now_ms: i64, interval_ms: i64) {
        self.next_ms.get_or_insert(now_ms.saturating_add(interval_ms));
    }

    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Is there something to save, and is it time to? `stopping`: at the end it is always time, once.
    pub fn is_due(&self, now_ms: i64, stand: Stand, stopping: bool) -> bool {
        let time = if stopping { !self.last_try } else { now_ms >= self.not_before_ms() };
        time && self.under_way.is_none() && stand.last != self.saved
    }

    fn not_before_ms(&self) -> i64 {
        self.next_ms.unwrap_or(i64::MAX).max(self.retry.not_before_ms())
    }

    pub fn started(&mut self, stand: Stand, stopping: bool) {
        assert!(self.under_way.is_none(), "one save at a time");
        self.under_way = Some(stand);
        self.last_try |= stopping;
    }

    /// Gives where the state stood that is saved now.
    pub fn succeeded(&mut self, now_ms: i64, interval_ms: i64) -> Stand {
        let stand = self.under_way.take().expect("a result follows a save");
        self.saved = stand.last;
        self.retry.succeeded();
        self.last_ms = Some(now_ms);
        self.next_ms = Some(now_ms.saturating_add(interval_ms));
        stand
    }

    pub fn failed(&mut self, now_ms: i64) {
        self.under_way = None;
        self.retry.failed(now_ms);
    }

    /// When a save will be due, Unix milliseconds.
    pub fn wake_ms(&self, stand: Stand) -> Option<i64> {
        (self.under_way.is_none() && stand.last != self.saved).then(|| self.not_before_ms())
    }

    pub fn last_ms(&self) -> Option<i64> {
        self.last_ms
    }
}
