//! What the governor has proposed and not yet heard of.
//!
//! Invariant: of one purpose there is one proposal at a time, and of those that move tasks one at all, for the next is planned
//! from what it leads to; what failed is tried again only after a pause. Bounded.

use std::collections::BTreeMap;

use super::duties::AskId;
use super::requests::{Answer, Token};
use crate::model::mode::Tier;
use crate::model::task::NodeName;

/// After a proposal that failed.
const PAUSE_MS: i64 = 200;
/// More wait until some are answered.
const OPEN_MOST: usize = 512;

/// What a proposal is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Join(NodeName),
    States,
    Move,
    Drain(NodeName),
    Forget(NodeName),
    Define,
    Time,
    Mode(Tier),
    Incident(String),
    Ask(AskId),
}

#[derive(Debug)]
struct Open {
    purpose: Purpose,
    moves: bool,
    since_ms: i64,
}

#[derive(Debug)]
pub struct Proposals {
    next: Token,
    /// Above every wait of the consensus: an answer that gets lost is not waited for without end.
    most_ms: i64,
    open: BTreeMap<Token, Open>,
    paused_until_ms: BTreeMap<Purpose, i64>,
}

impl Proposals {
    /// Tokens begin with the term, so that no two governors of one master share any.
    pub fn new(term: u64, most_ms: i64) -> Self {
        Self { next: term << 32, most_ms, open: BTreeMap::new(), paused_until_ms: BTreeMap::new() }
    }

    /// May something be proposed for `purpose` now?
    pub fn is_free(&self, now_ms: i64, purpose: &Purpose) -> bool {
        self.open.len() < OPEN_MOST
            && self.paused_until_ms.get(purpose).is_none_or(|until_ms| *until_ms <= now_ms)
            && self.open.values().all(|open| open.purpose != *purpose)
    }

    /// May tasks be moved now?
    pub fn is_still(&self, now_ms: i64) -> bool {
        self.is_free(now_ms, &Purpose::Move) && self.open.values().all(|open| !open.moves)
    }

    pub fn begin(&mut self, now_ms: i64, purpose: Purpose, moves: bool) -> Token {
        self.next += 1;
        self.open.insert(self.next, Open { purpose, moves, since_ms: now_ms });
        self.next
    }

    pub fn responded(&mut self, now_ms: i64, token: Token, answer: &Answer) -> Option<Purpose> {
        let Open { purpose, moves, .. } = self.open.remove(&token)?;
        if !matches!(answer, Answer::Committed { .. }) {
            self.paused_until_ms.insert(purpose.clone(), now_ms + PAUSE_MS);
            if moves {
                self.paused_until_ms.insert(Purpose::Move, now_ms + PAUSE_MS);
            }
        }
        Some(purpose)
    }

    /// Forgets what has been waited for too long.
    pub fn expire(&mut self, now_ms: i64) {
        let most_ms = self.most_ms;
        // A clock that went back must not keep anything for ever.
        self.open.retain(|_, open| (now_ms - open.since_ms).abs() < most_ms);
        self.paused_until_ms.retain(|_, until_ms| (*until_ms - now_ms).clamp(0, PAUSE_MS + 1) == *until_ms - now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_proposal_of_a_purpose_at_a_time_and_a_pause_after_a_failure() {
        let mut proposals = Proposals::new(3, 1_000);
        let token = proposals.begin(0, Purpose::States, false);
        assert!(!proposals.is_free(0, &Purpose::States) && proposals.is_free(0, &Purpose::Time));
        assert_eq!(proposals.responded(10, token, &Answer::Unknown), Some(Purpose::States));
        assert!(!proposals.is_free(10, &Purpose::States) && proposals.is_free(10 + PAUSE_MS, &Purpose::States));
        assert_eq!(proposals.responded(10, token, &Answer::Unknown), None);
        let moving = proposals.begin(20, Purpose::Join(NodeName::new("a")), true);
        assert!(!proposals.is_still(20) && proposals.is_free(20, &Purpose::Join(NodeName::new("b"))));
        assert!(proposals.responded(30, moving, &Answer::Committed { index: 5 }).is_some() && proposals.is_still(30));
    }

    #[test]
    fn an_answer_that_never_comes_is_not_waited_for_without_end() {
        let mut proposals = Proposals::new(3, 1_000);
        proposals.begin(0, Purpose::Move, true);
        proposals.expire(999);
        assert!(!proposals.is_still(999));
        proposals.expire(1_000);
        assert!(proposals.is_still(1_000));
    }
}
