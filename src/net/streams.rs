//! The streams of a connection. Pure.
//!
//! Invariant: a writer is never further ahead of the reader than the reader's window; who reads learns how the stream
//! ended before it is forgotten.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::frame::FrameKind;
use super::hello::Limits;
use super::incoming::{Incoming, Violation};
use super::lane::{Lane, cost};
use super::outgoing::{Outbound, Outgoing};
use super::stream_state::{self, End, Half, StreamState};

/// What goes over the connection and what comes.
#[derive(Debug)]
pub struct Wire {
    pub outgoing: Outgoing,
    pub incoming: Incoming,
    /// Frames that go before all others.
    pub control: VecDeque<(FrameKind, Bytes)>,
}

/// What writing to a stream came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrote {
    Done,
    /// The reader is slow: again once the stream has changed.
    Wait,
    TooLarge {
        limit: usize,
    },
    Broken(String),
}

/// What reading from a stream came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Item(Bytes),
    /// Again once the stream has changed.
    Wait,
    End,
    Broken(String),
}

/// Beyond so many frames that wait to be sent, beside those that calls may cause, no stream is opened.
pub const QUIET_CONTROLS: usize = 64;

#[derive(Debug)]
pub struct Streams {
    /// Of each side's streams.
    most_mine: usize,
    most_theirs: usize,
    /// The peer's.
    window: u64,
    most_controls: usize,
    streams: HashMap<u64, StreamState>,
    next: u64,
    /// With news for their reader or writer.
    changed: Vec<u64>,
}

impl Streams {
    pub fn new(is_dialer: bool, own: &Limits, peer: &Limits) -> Self {
        Self {
            most_mine: own.streams.min(peer.streams) as usize,
            most_theirs: own.streams as usize,
            window: peer.stream_window,
            most_controls: own.calls as usize + QUIET_CONTROLS,
            streams: HashMap::new(),
            // The two sides never open the same stream.
            next: if is_dialer { 1 } else { 2 },
            changed: Vec::new(),
        }
    }

    fn count(&self, is_mine: bool) -> usize {
        self.streams.values().filter(|stream| stream.is_mine == is_mine).count()
    }

    fn begin(&mut self, wire: &mut Wire, id: u64, is_mine: bool) {
        self.streams.insert(id, StreamState::new(is_mine));
        wire.incoming.open_stream(id);
        wire.outgoing.open(Lane::Stream(id), self.window);
    }

    /// `None`: there are too many.
    pub fn open(&mut self, wire: &mut Wire, service: u16) -> Option<u64> {
        if self.count(true) >= self.most_mine || wire.control.len() > self.most_controls {
            return None;
        }
        let id = self.next;
        self.next += 2;
        self.begin(wire, id, true);
        wire.control.push_back((FrameKind::Open, stream_state::open(id, service)));
        Some(id)
    }

    /// An item that fits the window.
    pub fn write(&mut self, wire: &mut Wire, id: u64, item: &Bytes) -> Wrote {
        match self.streams.get(&id).map(|stream| &stream.write_end) {
            Some(None) => {}
            Some(Some(End::Broken(reason))) => return Wrote::Broken(reason.clone()),
            Some(Some(End::Whole)) | None => return Wrote::Broken("it has ended".into()),
        }
        let lane = Lane::Stream(id);
        let held = wire.outgoing.held(lane);
        if held > 0 && held + cost(item.len()) > self.window {
            return Wrote::Wait;
        }
        wire.outgoing.push(lane, Outbound { id: 0, word: 0, body: item.clone(), is_end: false });
        Wrote::Done
    }

    pub fn finish(&mut self, wire: &mut Wire, id: u64) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.write_end.is_none()) else { return };
        stream.write_end = Some(End::Whole);
        wire.outgoing.push(Lane::Stream(id), Outbound { id: 0, word: 0, body: Bytes::new(), is_end: true });
    }

    pub fn read(&mut self, wire: &mut Wire, id: u64) -> Read {
        let Some(stream) = self.streams.get_mut(&id) else { return Read::Broken("it has ended".into()) };
        if let Some(item) = stream.items.pop_front() {
            wire.incoming.release(Lane::Stream(id), item.len());
            return Read::Item(item);
        }
        let Some(end) = &stream.read_end else { return Read::Wait };
        let read = match end {
            End::Whole => Read::End,
            End::Broken(reason) => Read::Broken(reason.clone()),
        };
        stream.read_end_is_known = true;
        self.forget_if_over(wire, id);
        read
    }

    pub fn abandon(&mut self, wire: &mut Wire, id: u64, half: Half) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let mut tell = false;
        if half != Half::Writing && !stream.is_deaf {
            tell |= stream.read_end.is_none();
            stream.is_deaf = true;
            stream.items.clear();
            wire.incoming.close_stream(id);
        }
        if half != Half::Reading && stream.write_end.is_none() {
            tell = true;
            stream.write_end = Some(End::Broken("this side let go of it".into()));
            stream.end_is_told = true;
            wire.outgoing.close(Lane::Stream(id));
        }
        if tell {
            wire.control.push_back((FrameKind::Abort, stream_state::abort(id, half, "the other side let go of it")));
        }
        self.forget_if_over(wire, id);
    }

    fn forget_if_over(&mut self, wire: &mut Wire, id: u64) {
        if self.streams.get(&id).is_some_and(StreamState::is_over) {
            self.streams.remove(&id);
            wire.incoming.close_stream(id);
            wire.outgoing.close(Lane::Stream(id));
        }
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.streams.len()
    }

    pub fn take_changed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.changed)
    }

    /// An item or, with `of_stream`, the end has been sent.
    pub fn sent(&mut self, wire: &mut Wire, id: u64, of_stream: bool) {
        self.changed.push(id);
        if let Some(stream) = self.streams.get_mut(&id).filter(|_| of_stream) {
            stream.end_is_told = true;
            self.forget_if_over(wire, id);
        }
    }

    /// The peer has room again.
    pub fn granted(&mut self, lane: Lane) {
        if let Lane::Stream(id) = lane {
            self.changed.push(id);
        }
    }

    /// An item of the peer, or its end.
    pub fn arrived(&mut self, id: u64, item: Option<Bytes>) -> Result<(), Violation> {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.is_deaf) else { return Ok(()) };
        if stream.read_end.is_some() {
            return Err(Violation("an item after the end of its stream"));
        }
        match item {
            Some(item) => stream.items.push_back(item),
            None => stream.read_end = Some(End::Whole),
        }
        self.changed.push(id);
        Ok(())
    }

    /// The peer opens a stream: its id and service.
    pub fn opened(&mut self, wire: &mut Wire, body: Bytes) -> Result<Option<(u64, u16)>, Violation> {
        let (id, service) = stream_state::read_open(body).ok_or(Violation("a malformed opening of a stream"))?;
        if self.streams.contains_key(&id) || id % 2 == self.next % 2 {
            return Err(Violation("a stream under an id that is not the peer's to give"));
        }
        if self.count(false) >= self.most_theirs {
            // Not a violation: the peer may have finished streams that are still being read here.
            let refused = stream_state::abort(id, Half::Both, "too many streams");
            wire.control.push_back((FrameKind::Abort, refused));
            return Ok(None);
        }
        self.begin(wire, id, false);
        Ok(Some((id, service)))
    }

    /// The peer has let go of a half.
    pub fn aborted(&mut self, wire: &mut Wire, body: Bytes) -> Result<(), Violation> {
        let (id, half, reason) = stream_state::read_abort(body).ok_or(Violation("a malformed abort of a stream"))?;
        let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
        if half != Half::Reading && stream.read_end.is_none() {
            // What came before is not whole without the rest.
            stream.items.clear();
            stream.read_end = Some(End::Broken(reason.clone()));
            wire.incoming.close_stream(id);
        }
        if half != Half::Writing {
            // Nobody there reads it, so nothing is left to be told.
            if stream.write_end.is_none() {
                stream.write_end = Some(End::Broken(reason));
            }
            stream.end_is_told = true;
            wire.outgoing.close(Lane::Stream(id));
        }
        self.changed.push(id);
        self.forget_if_over(wire, id);
        Ok(())
    }
}
