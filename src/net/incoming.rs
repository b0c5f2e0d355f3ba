//! Pieces become bodies again, within the windows that the peer was given. Pure.
//!
//! Invariant: a lane never holds more than its window, in parts and in bodies that nobody has taken yet; a peer that sends
//! more breaks the protocol.

use std::collections::{BTreeMap, HashMap};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::hello::Limits;
use super::lane::{Lane, PieceHead, cost};

/// What a peer must not do; the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the peer broke the protocol: {0}")]
pub struct Violation(pub &'static str);

/// A body that is complete.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrived {
    pub lane: Lane,
    pub id: u64,
    pub word: u16,
    pub body: Bytes,
    pub is_end: bool,
}

#[derive(Debug)]
struct Partial {
    word: u16,
    total: usize,
    body: BytesMut,
}

#[derive(Debug)]
pub struct Incoming {
    limits: Limits,
    /// Of each lane's window, what is taken.
    used: HashMap<Lane, u64>,
    partial: HashMap<(Lane, u64), Partial>,
    /// What has been taken up and the peer does not know yet.
    owed: BTreeMap<Lane, u64>,
}

impl Incoming {
    pub fn new(limits: Limits) -> Self {
        let used = [Lane::Calls, Lane::BulkCalls, Lane::Answers, Lane::BulkAnswers].map(|lane| (lane, 0)).into();
        Self { limits, used, partial: HashMap::new(), owed: BTreeMap::new() }
    }

    fn window(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Calls | Lane::BulkCalls | Lane::Answers | Lane::BulkAnswers => self.limits.call_window,
            Lane::Messages(_) => self.limits.send_window,
            Lane::Stream(_) => self.limits.stream_window,
        }
    }

    pub fn open_stream(&mut self, id: u64) {
        self.used.insert(Lane::Stream(id), 0);
    }

    pub fn close_stream(&mut self, id: u64) {
        let lane = Lane::Stream(id);
        self.used.remove(&lane);
        self.owed.remove(&lane);
        self.partial.remove(&(lane, 0));
    }

    pub fn accept(&mut self, piece: Bytes) -> Result<Option<Arrived>, Violation> {
        let mut piece = piece;
        let head = PieceHead::take(&mut piece).ok_or(Violation("a malformed piece"))?;
        let place = (head.lane, head.id);
        if head.lane.is_ordered() && head.id != 0 {
            return Err(Violation("an id where order is the id"));
        }
        if matches!(head.lane, Lane::Stream(_)) && !self.used.contains_key(&head.lane) {
            // Under way while this side ended the stream.
            return Ok(None);
        }
        if head.is_end {
            let alone = head.first == Some((0, 0)) && piece.is_empty() && !self.partial.contains_key(&place);
            return match head.lane {
                Lane::Stream(_) if alone => Ok(Some(arrived(place, 0, piece, true))),
                _ => Err(Violation("a misplaced end")),
            };
        }
        let Some((word, total)) = head.first else { return self.go_on(place, &piece, head.is_last) };
        let total = total as usize;
        self.charge(head.lane, total)?;
        if head.is_last {
            let whole = piece.len() == total && !self.partial.contains_key(&place);
            return if whole { Ok(Some(arrived(place, word, piece, false))) } else { Err(Violation("a torn body")) };
        }
        if piece.is_empty() || piece.len() >= total || self.partial.contains_key(&place) {
            return Err(Violation("a piece out of order"));
        }
        let mut body = BytesMut::with_capacity(total);
        body.put_slice(&piece);
        self.partial.insert(place, Partial { word, total, body });
        Ok(None)
    }

    fn go_on(&mut self, place: (Lane, u64), piece: &[u8], is_last: bool) -> Result<Option<Arrived>, Violation> {
        // A cancelled call's pieces are not sent, so that one without a start is not one that crossed its cancelling.
        let partial = self.partial.get_mut(&place).ok_or(Violation("a piece without a start"))?;
        let length = partial.body.len() + piece.len();
        if piece.is_empty() || length > partial.total || is_last != (length == partial.total) {
            return Err(Violation("pieces that do not add up"));
        }
        partial.body.put_slice(piece);
        if !is_last {
            return Ok(None);
        }
        let partial = self.partial.remove(&place).ok_or(Violation("a piece without a start"))?;
        Ok(Some(arrived(place, partial.word, partial.body.freeze(), false)))
    }

    fn charge(&mut self, lane: Lane, total: usize) -> Result<(), Violation> {
        if total as u64 > self.limits.body {
            return Err(Violation("a body above the limit"));
        }
        if !self.used.contains_key(&lane) {
            let services = self.used.keys().filter(|lane| matches!(lane, Lane::Messages(_))).count();
            if services >= self.limits.services as usize {
                return Err(Violation("messages to too many services"));
            }
        }
        let window = self.window(lane);
        let used = self.used.entry(lane).or_insert(0);
        if used.saturating_add(cost(total)) > window {
            return Err(Violation("more than there was credit for"));
        }
        *used += cost(total);
        Ok(())
    }

    /// Forgets what is here of a body. `false`: there is nothing of it.
    pub fn forget(&mut self, lane: Lane, id: u64) -> bool {
        let Some(partial) = self.partial.remove(&(lane, id)) else { return false };
        self.release(lane, partial.total);
        true
    }

    /// A body of this length has been taken up: the peer may send as much again.
    pub fn release(&mut self, lane: Lane, length: usize) {
        let Some(used) = self.used.get_mut(&lane) else { return };
        *used = used.checked_sub(cost(length)).expect("what is released was charged");
        *self.owed.entry(lane).or_insert(0) += cost(length);
    }

    /// What the peer must be told.
    pub fn next_credit(&mut self) -> Option<(Lane, u64)> {
        self.owed.pop_first()
    }

    /// Memory that parts and bodies take that nobody has taken yet.
    #[cfg(test)]
    pub fn used_bytes(&self) -> u64 {
        self.used.values().sum()
    }
}

fn arrived((lane, id): (Lane, u64), word: u16, body: Bytes, is_end: bool) -> Arrived {
    Arrived { lane, id, word, body, is_end }
}
