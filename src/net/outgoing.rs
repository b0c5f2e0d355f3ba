//! Which piece a connection sends next. Pure.
//!
//! Invariant: no more is under way in a lane than its receiver gave credit for, and a small body waits for one piece of a
//! large one at most.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::frame::{self, FrameKind};
use super::lane::{Lane, MOST_HEAD_BYTES, PieceHead, cost};

/// A body to send.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Of the call; zero in ordered lanes.
    pub id: u64,
    /// The service, or the outcome.
    pub word: u16,
    pub body: Bytes,
    /// The end of a stream instead of a body.
    pub is_end: bool,
}

impl Outbound {
    fn cost(&self) -> u64 {
        if self.is_end { 0 } else { cost(self.body.len()) }
    }
}

#[derive(Debug)]
struct Queue {
    window: u64,
    credit: u64,
    waiting: VecDeque<Outbound>,
    /// What all bodies cost that are not yet sent to the end.
    held: u64,
    /// Bodies that are being sent.
    active: usize,
}

#[derive(Debug)]
struct Active {
    lane: Lane,
    outbound: Outbound,
    sent: usize,
}

/// What became of a body that is not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// The peer has seen nothing of it.
    Unseen,
    /// The peer has seen it, or a part.
    Seen,
}

/// The bodies that wait or are being sent.
#[derive(Debug)]
pub struct Outgoing {
    piece: usize,
    lanes: HashMap<Lane, Queue>,
    /// Bodies of one piece, and longer ones: they take turns.
    small: VecDeque<Active>,
    large: VecDeque<Active>,
    large_is_next: bool,
}

impl Outgoing {
    pub fn new(piece: usize) -> Self {
        let (small, large) = (VecDeque::new(), VecDeque::new());
        Self { piece, lanes: HashMap::new(), small, large, large_is_next: false }
    }

    pub fn is_small(&self, length: usize) -> bool {
        length <= self.piece
    }

    pub fn open(&mut self, lane: Lane, window: u64) {
        let queue = Queue { window, credit: window, waiting: VecDeque::new(), held: 0, active: 0 };
        self.lanes.entry(lane).or_insert(queue);
    }

    pub fn close(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
        self.small.retain(|active| active.lane != lane);
        self.large.retain(|active| active.lane != lane);
    }

    pub fn lanes(&self) -> impl Iterator<Item = Lane> {
        self.lanes.keys().copied()
    }

    /// What a lane's bodies cost that are not yet sent to the end.
    pub fn held(&self, lane: Lane) -> u64 {
        self.lanes.get(&lane).map_or(0, |queue| queue.held)
    }

    /// What fits the lane's empty window.
    pub fn window(&self, lane: Lane) -> u64 {
        self.lanes.get(&lane).map_or(0, |queue| queue.window)
    }

    /// To an open lane; what goes to another is forgotten.
    pub fn push(&mut self, lane: Lane, outbound: Outbound) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        assert!(outbound.cost() <= queue.window, "what does not fit the window is refused before");
        queue.held += outbound.cost();
        queue.waiting.push_back(outbound);
        self.admit(lane);
    }

    /// The receiver has room again. `false`: for more than it ever was given.
    pub fn grant(&mut self, lane: Lane, bytes: u64) -> bool {
        let Some(queue) = self.lanes.get_mut(&lane) else { return true };
        let credit = queue.credit.saturating_add(bytes);
        if credit > queue.window {
            return false;
        }
        queue.credit = credit;
        self.admit(lane);
        true
    }

    fn admit(&mut self, lane: Lane) {
        let Some(queue) = self.lanes.get_mut(&lane) else { return };
        while let Some(first) = queue.waiting.front() {
            let fits = first.cost() <= queue.credit && !(lane.is_ordered() && queue.active > 0);
            let Some(outbound) = fits.then(|| queue.waiting.pop_front()).flatten() else { return };
            queue.credit -= outbound.cost();
            queue.active += 1;
            let ring = if outbound.body.len() <= self.piece { &mut self.small } else { &mut self.large };
            ring.push_back(Active { lane, outbound, sent: 0 });
        }
    }

    pub fn withdraw(&mut self, lane: Lane, id: u64) -> Withdrawn {
        let Some(queue) = self.lanes.get_mut(&lane) else { return Withdrawn::Unseen };
        if let Some(at) = queue.waiting.iter().position(|outbound| outbound.id == id) {
            let outbound = queue.waiting.remove(at);
            queue.held -= outbound.map_or(0, |outbound| outbound.cost());
            self.admit(lane);
            return Withdrawn::Unseen;
        }
        let is_it = |active: &Active| active.lane == lane && active.outbound.id == id;
        let from_small = self.small.iter().position(is_it).and_then(|at| self.small.remove(at));
        let from_large = || self.large.iter().position(is_it).and_then(|at| self.large.remove(at));
        let Some(active) = from_small.or_else(from_large) else { return Withdrawn::Seen };
        queue.active -= 1;
        queue.held -= active.outbound.cost();
        // What was begun has its credit back from the receiver, what was not has it back here.
        let is_seen = active.sent > 0;
        queue.credit += if is_seen { 0 } else { active.outbound.cost() };
        self.admit(lane);
        if is_seen { Withdrawn::Seen } else { Withdrawn::Unseen }
    }

    /// Writes the next piece. Gives its lane if that was the end of a body.
    pub fn produce(&mut self, out: &mut BytesMut) -> Option<Produced> {
        let take_large = self.small.is_empty() || (self.large_is_next && !self.large.is_empty());
        self.large_is_next = !take_large;
        let ring = if take_large { &mut self.large } else { &mut self.small };
        let mut active = ring.pop_front()?;
        let (lane, body) = (active.lane, &active.outbound.body);
        let end = (active.sent + self.piece).min(body.len());
        let first = (active.sent == 0).then(|| (active.outbound.word, u32::try_from(body.len()).unwrap_or(u32::MAX)));
        let is_last = end == body.len();
        let head = PieceHead { lane, id: active.outbound.id, first, is_last, is_end: active.outbound.is_end };
        let mut head_bytes = BytesMut::with_capacity(MOST_HEAD_BYTES);
        head.write(&mut head_bytes);
        frame::encode(FrameKind::Piece, &[&head_bytes, &body[active.sent..end]], out);
        if !is_last {
            active.sent = end;
            ring.push_back(active);
            return Some(Produced::Piece);
        }
        if let Some(queue) = self.lanes.get_mut(&lane) {
            queue.active -= 1;
            queue.held -= active.outbound.cost();
            self.admit(lane);
        }
        Some(Produced::End { lane, of_stream: active.outbound.is_end })
    }
}

/// What `produce` wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Produced {
    Piece,
    /// The last piece of a body; with `of_stream` the lane's last.
    End {
        lane: Lane,
        of_stream: bool,
    },
}
