//! A master's writes on their way to the disk, and what must not be said before they are there.
//!
//! Invariant: what waits for a write is released after it, and after all before it.

use std::collections::VecDeque;

use raft::eraftpb::Message;

use super::wire::LogSnapshot;

/// What one drain of raft-rs leaves to be done once it is durable.
#[derive(Debug, Default)]
pub struct Then {
    /// raft-rs's number of what was written; `None` for what it does not know of.
    pub ready: Option<u64>,
    /// A snapshot from the active master takes effect.
    pub restored: Option<LogSnapshot>,
    pub held: Vec<Message>,
}

/// The writes that are not yet durable.
#[derive(Debug, Default)]
pub struct Writes {
    queue: VecDeque<(u64, Then)>,
    last: u64,
    durable: u64,
    /// The last one with a new term or vote.
    vote: u64,
}

impl Writes {
    /// A new write; gives its number.
    pub fn begin(&mut self, then: Then, votes: bool) -> u64 {
        self.last += 1;
        self.queue.push_back((self.last, then));
        if votes {
            self.vote = self.last;
        }
        self.last
    }

    /// Nothing of its own to write, but after those before it. Gives it back if there are none.
    pub fn follow(&mut self, then: Then) -> Option<Then> {
        if self.queue.is_empty() {
            return Some(then);
        }
        self.queue.push_back((self.last, then));
        None
    }

    /// The write of this number, and all before it, are durable.
    pub fn durable(&mut self, number: u64) {
        self.durable = self.durable.max(number);
    }

    /// The next that is durable.
    pub fn release(&mut self) -> Option<Then> {
        let is_durable = self.queue.front().is_some_and(|(number, _)| *number <= self.durable);
        is_durable.then(|| self.queue.pop_front()).flatten().map(|(_, then)| then)
    }

    /// Is the term, and the vote in it, not yet durable?
    pub fn is_vote_open(&self) -> bool {
        self.vote > self.durable
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn then(ready: u64) -> Then {
        Then { ready: Some(ready), ..Then::default() }
    }

    #[test]
    fn what_waits_is_released_in_order_and_not_too_early() {
        let mut writes = Writes::default();
        assert!(writes.follow(then(1)).is_some(), "nothing to wait for");
        assert_eq!((writes.begin(then(2), true), writes.begin(then(3), false)), (1, 2));
        assert!(writes.follow(then(4)).is_none() && writes.is_vote_open());
        assert!(writes.release().is_none());
        writes.durable(1);
        let mut released = || writes.release().and_then(|then| then.ready);
        assert_eq!([released(), released()], [Some(2), None]);
        assert!(!writes.is_vote_open());
        writes.durable(2);
        let mut released = || writes.release().and_then(|then| then.ready);
        assert_eq!([released(), released(), released()], [Some(3), Some(4), None]);
        assert_eq!(writes.len(), 0);
    }
}
