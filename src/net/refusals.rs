//! Which refusals have been logged. Pure.
//!
//! Invariant: each peer and reason is said once in a while, however often the peer tries, and however many peers there are
//! the memory is bounded.

use std::collections::HashMap;

/// Who was refused and why: the host, since a stranger's name and port are its own choice, and the kind of reason.
type Refused = (String, &'static str);

#[derive(Debug)]
pub struct Refusals {
    most: usize,
    keep_ms: i64,
    since_ms: HashMap<Refused, i64>,
    /// When it was last said that more peers are refused than are told apart.
    overflow_ms: Option<i64>,
}

/// What to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    First,
    /// More peers are refused than are told apart; said instead of each.
    Overflow,
    Known,
}

impl Refusals {
    pub fn new(most: usize, keep_ms: i64) -> Self {
        Self { most, keep_ms, since_ms: HashMap::new(), overflow_ms: None }
    }

    pub fn note(&mut self, now_ms: i64, host: &str, reason: &'static str) -> Note {
        let refused = (host.to_owned(), reason);
        let keep_ms = self.keep_ms;
        let is_old = |since_ms: i64| now_ms.saturating_sub(since_ms) >= keep_ms;
        if self.since_ms.get(&refused).is_some_and(|since_ms| !is_old(*since_ms)) {
            return Note::Known;
        }
        if self.since_ms.len() >= self.most {
            self.since_ms.retain(|_, since_ms| !is_old(*since_ms));
        }
        if self.since_ms.len() < self.most {
            self.since_ms.insert(refused, now_ms);
            return Note::First;
        }
        if self.overflow_ms.is_some_and(|since_ms| !is_old(since_ms)) {
            return Note::Known;
        }
        self.overflow_ms = Some(now_ms);
        Note::Overflow
    }

    /// A peer of this host got in: what is refused from now on is news.
    pub fn forget(&mut self, host: &str) {
        self.since_ms.retain(|(refused, _), _| refused != host);
    }

    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.since_ms.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_and_reason_are_said_once_in_a_while() {
        let mut refusals = Refusals::new(10, 1_000);
        assert_eq!(refusals.note(0, "a", "secret"), Note::First);
        assert_eq!(refusals.note(999, "a", "secret"), Note::Known);
        assert_eq!(refusals.note(999, "a", "version"), Note::First);
        assert_eq!(refusals.note(999, "b", "secret"), Note::First);
        assert_eq!(refusals.note(1_000, "a", "secret"), Note::First);
        refusals.forget("a");
        assert_eq!(refusals.note(1_001, "a", "secret"), Note::First);
    }

    #[test]
    fn a_flood_of_peers_is_said_once_and_takes_bounded_memory() {
        let mut refusals = Refusals::new(100, 1_000);
        let notes: Vec<Note> = (0..10_000).map(|n| refusals.note(5, &n.to_string(), "secret")).collect();
        assert_eq!(notes.iter().filter(|note| **note == Note::First).count(), 100);
        assert_eq!(notes.iter().filter(|note| **note == Note::Overflow).count(), 1);
        assert_eq!(refusals.remembered(), 100);
        assert_eq!(refusals.note(1_005, "new", "secret"), Note::First);
    }
}
