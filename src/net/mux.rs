//! Many calls, messages and streams over one connection: what to send for what users ask, and what frames mean. Pure.
//!
//! Invariant: every call that was sent gets one answer or ends with the connection; everything that is held here is
//! bounded by the limits of both nodes.

use std::collections::{HashMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};

use super::error::{Refusal, RefusalKind};
use super::frame::{self, Frame, FrameKind};
use super::hello::Limits;
use super::incoming::{Arrived, Incoming, Violation};
use super::lane::{self, Lane, cost};
use super::outgoing::{Outbound, Outgoing, Produced, Withdrawn};
use super::stream_state::{self, Half};
use super::streams::{QUIET_CONTROLS, Read, Streams, Wire, Wrote};
use crate::model::codec;

/// What users of the connection hear.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// To be answered with `answer`.
    Call {
        id: u64,
        service: u16,
        body: Bytes,
    },
    Answered {
        id: u64,
        outcome: Result<Bytes, Refusal>,
    },
    /// The peer does not wait any more; to be answered all the same.
    Cancelled {
        id: u64,
    },
    /// To be followed by `received` once it is taken up.
    Message {
        service: u16,
        body: Bytes,
    },
    Opened {
        stream: u64,
        service: u16,
    },
    Goodbye {
        reason: String,
    },
}

/// Why something was not taken; nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Full(&'static str),
    TooLarge { length: usize, limit: usize },
}

#[derive(Debug)]
struct Waiting {
    lane: Lane,
    /// Nobody hears the answer.
    is_abandoned: bool,
}

/// One side of a connection.
#[derive(Debug)]
pub struct Mux {
    own: Limits,
    peer: Limits,
    send_queue: u64,
    wire: Wire,
    /// Calls to the peer without an answer.
    calls: HashMap<u64, Waiting>,
    next_call: u64,
    /// Calls of the peer without an answer, with the length of their bodies.
    serving: HashMap<u64, (Lane, usize)>,
    streams: Streams,
}

const WORD_DONE: u16 = 0;
const WORD_REFUSED: u16 = 1;

impl Mux {
    /// `send_queue`: of messages of one service that wait here.
    pub fn new(is_dialer: bool, own: Limits, peer: Limits, send_queue: u64) -> Self {
        let mut outgoing = Outgoing::new(own.piece.min(peer.piece) as usize);
        for lane in [Lane::Calls, Lane::BulkCalls, Lane::Answers, Lane::BulkAnswers] {
            outgoing.open(lane, peer.call_window);
        }
        Self {
            own,
            peer,
            send_queue,
            wire: Wire { outgoing, incoming: Incoming::new(own), control: VecDeque::new() },
            calls: HashMap::new(),
            next_call: 1,
            serving: HashMap::new(),
            streams: Streams::new(is_dialer, &own, &peer),
        }
    }

    /// The longest body that goes through a window.
    fn limit(&self, window: u64) -> usize {
        let limit = self.own.body.min(self.peer.body).min(window.saturating_sub(lane::MESSAGE_COST));
        usize::try_from(limit).unwrap_or(usize::MAX).min(u32::MAX as usize)
    }

    fn check_length(&self, body: &Bytes, window: u64) -> Result<(), Denied> {
        let limit = self.limit(window);
        if body.len() > limit { Err(Denied::TooLarge { length: body.len(), limit }) } else { Ok(()) }
    }

    pub fn call(&mut self, service: u16, body: Bytes) -> Result<u64, Denied> {
        self.check_length(&body, self.peer.call_window)?;
        if self.calls.len() >= self.own.calls.min(self.peer.calls) as usize {
            return Err(Denied::Full("calls under way"));
        }
        let id = self.next_call;
        self.next_call += 1;
        let lane = if self.wire.outgoing.is_small(body.len()) { Lane::Calls } else { Lane::BulkCalls };
        self.calls.insert(id, Waiting { lane, is_abandoned: false });
        self.wire.outgoing.push(lane, Outbound { id, word: service, body, is_end: false });
        Ok(id)
    }

    /// Nobody waits for the answer any more. The call keeps its place until the peer has answered all the same.
    pub fn cancel(&mut self, id: u64) {
        let Some(waiting) = self.calls.get_mut(&id).filter(|waiting| !waiting.is_abandoned) else { return };
        waiting.is_abandoned = true;
        match self.wire.outgoing.withdraw(waiting.lane, id) {
            Withdrawn::Unseen => drop(self.calls.remove(&id)),
            Withdrawn::Seen => {
                self.wire.control.push_back((FrameKind::Cancel, Bytes::copy_from_slice(&id.to_le_bytes())))
            }
        }
    }

    /// What a call of the peer came to.
    pub fn answer(&mut self, id: u64, outcome: Result<Bytes, Refusal>) {
        let Some((lane, length)) = self.serving.remove(&id) else { return };
        self.wire.incoming.release(lane, length);
        self.push_answer(id, outcome);
    }

    fn push_answer(&mut self, id: u64, outcome: Result<Bytes, Refusal>) {
        let limit = self.limit(self.peer.call_window);
        let outcome = outcome.and_then(|body| match body.len() <= limit {
            true => Ok(body),
            false => Err(Refusal::new(RefusalKind::Failed, format!("an answer of {} bytes is too long", body.len()))),
        });
        let (word, body) = match outcome {
            Ok(body) => (WORD_DONE, body),
            Err(mut refusal) => {
                refusal.reason.truncate(stream_state::cut(&refusal.reason).len());
                (WORD_REFUSED, codec::to_bytes(&refusal).into())
            }
        };
        let lane = if self.wire.outgoing.is_small(body.len()) { Lane::Answers } else { Lane::BulkAnswers };
        self.wire.outgoing.push(lane, Outbound { id, word, body, is_end: false });
    }

    /// What answers cost that the peer has not taken yet.
    pub fn answers_held(&self) -> u64 {
        self.wire.outgoing.held(Lane::Answers) + self.wire.outgoing.held(Lane::BulkAnswers)
    }

    pub fn send(&mut self, service: u16, body: Bytes) -> Result<(), Denied> {
        self.check_length(&body, self.peer.send_window)?;
        let lane = Lane::Messages(service);
        if self.wire.outgoing.window(lane) == 0 {
            let services = self.wire.outgoing.lanes().filter(|lane| matches!(lane, Lane::Messages(_))).count();
            if services >= self.peer.services as usize {
                return Err(Denied::Full("services with messages"));
            }
            self.wire.outgoing.open(lane, self.peer.send_window);
        }
        let held = self.wire.outgoing.held(lane);
        // A message longer than the queue may be alone in it.
        if held > 0 && held + cost(body.len()) > self.send_queue {
            return Err(Denied::Full("messages that wait"));
        }
        self.wire.outgoing.push(lane, Outbound { id: 0, word: service, body, is_end: false });
        Ok(())
    }

    /// A message of the peer has been taken up.
    pub fn received(&mut self, service: u16, length: usize) {
        self.wire.incoming.release(Lane::Messages(service), length);
    }

    pub fn open(&mut self, service: u16) -> Result<u64, Denied> {
        self.streams.open(&mut self.wire, service).ok_or(Denied::Full("streams"))
    }

    pub fn write(&mut self, stream: u64, item: &Bytes) -> Wrote {
        let limit = self.limit(self.peer.stream_window);
        if item.len() > limit { Wrote::TooLarge { limit } } else { self.streams.write(&mut self.wire, stream, item) }
    }

    /// All has been written.
    pub fn finish(&mut self, stream: u64) {
        self.streams.finish(&mut self.wire, stream);
    }

    pub fn read(&mut self, stream: u64) -> Read {
        self.streams.read(&mut self.wire, stream)
    }

    /// This side's user has let go of a half before its end.
    pub fn abandon(&mut self, stream: u64, half: Half) {
        self.streams.abandon(&mut self.wire, stream, half);
    }

    /// Streams to look at again.
    pub fn take_changed(&mut self) -> Vec<u64> {
        self.streams.take_changed()
    }

    /// The last words to the peer.
    pub fn goodbye(&mut self, reason: &str) {
        let reason = Bytes::copy_from_slice(stream_state::cut(reason).as_bytes());
        self.wire.control.push_back((FrameKind::Goodbye, reason));
    }

    /// Writes frames until `out` has about `most` bytes or there is nothing to send.
    pub fn produce(&mut self, out: &mut BytesMut, most: usize) {
        while out.len() < most {
            if let Some((kind, body)) = self.wire.control.pop_front() {
                frame::encode(kind, &[&body], out);
            } else if let Some((lane, bytes)) = self.wire.incoming.next_credit() {
                frame::encode(FrameKind::Credit, &[&lane::credit(lane, bytes)], out);
            } else {
                match self.wire.outgoing.produce(out) {
                    None => return,
                    Some(Produced::End { lane: Lane::Stream(id), of_stream }) => {
                        self.streams.sent(&mut self.wire, id, of_stream);
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// What a frame of the peer means.
    pub fn accept(&mut self, frame: Frame) -> Result<Option<Event>, Violation> {
        // Aborts are the only frames by which a peer makes this side talk without an end.
        if self.wire.control.len() > 4 * (self.own.calls as usize + self.own.streams as usize + QUIET_CONTROLS) {
            return Err(Violation("more refused streams than answers fit the connection"));
        }
        match frame.kind {
            FrameKind::Piece => match self.wire.incoming.accept(frame.body)? {
                Some(arrived) => self.arrived(arrived),
                None => Ok(None),
            },
            FrameKind::Credit => {
                let (lane, bytes) = lane::read_credit(frame.body).ok_or(Violation("a malformed credit"))?;
                if !self.wire.outgoing.grant(lane, bytes) {
                    return Err(Violation("more credit than the window has"));
                }
                self.streams.granted(lane);
                Ok(None)
            }
            FrameKind::Cancel => {
                let mut body = frame.body;
                let id = body.try_get_u64_le().map_err(|_| Violation("a malformed cancel"))?;
                Ok(self.cancelled(id))
            }
            FrameKind::Open => {
                let opened = self.streams.opened(&mut self.wire, frame.body)?;
                Ok(opened.map(|(stream, service)| Event::Opened { stream, service }))
            }
            FrameKind::Abort => {
                self.streams.aborted(&mut self.wire, frame.body)?;
                Ok(None)
            }
            FrameKind::Alive => Ok(None),
            FrameKind::Goodbye => Ok(Some(Event::Goodbye { reason: stream_state::printable(&frame.body) })),
            FrameKind::Prove | FrameKind::Hello | FrameKind::Refuse => Err(Violation("a second handshake")),
        }
    }

    fn arrived(&mut self, arrived: Arrived) -> Result<Option<Event>, Violation> {
        let Arrived { lane, id, word, body, is_end } = arrived;
        match lane {
            Lane::Calls | Lane::BulkCalls => {
                if self.serving.len() >= self.own.calls as usize {
                    return Err(Violation("more calls than the limit"));
                }
                if self.serving.insert(id, (lane, body.len())).is_some() {
                    return Err(Violation("two calls with one id"));
                }
                Ok(Some(Event::Call { id, service: word, body }))
            }
            Lane::Answers | Lane::BulkAnswers => self.answered(lane, id, word, body),
            Lane::Messages(service) => Ok(Some(Event::Message { service, body })),
            Lane::Stream(id) => self.streams.arrived(id, (!is_end).then_some(body)).map(|()| None),
        }
    }

    fn answered(&mut self, lane: Lane, id: u64, word: u16, body: Bytes) -> Result<Option<Event>, Violation> {
        self.wire.incoming.release(lane, body.len());
        let waiting = self.calls.remove(&id).ok_or(Violation("an answer to no call"))?;
        let outcome = match word {
            WORD_DONE => Ok(body),
            WORD_REFUSED => match codec::from_bytes::<Refusal>("refusal", &body) {
                Ok(refusal) => Err(refusal),
                Err(_) => return Err(Violation("a malformed refusal")),
            },
            _ => return Err(Violation("an unknown outcome")),
        };
        Ok((!waiting.is_abandoned).then_some(Event::Answered { id, outcome }))
    }

    fn cancelled(&mut self, id: u64) -> Option<Event> {
        let partial = self.wire.incoming.forget(Lane::Calls, id) || self.wire.incoming.forget(Lane::BulkCalls, id);
        if partial {
            self.push_answer(id, Err(Refusal::new(RefusalKind::Failed, "cancelled")));
        }
        self.serving.contains_key(&id).then_some(Event::Cancelled { id })
    }

    /// Memory that bodies take here that nobody has taken yet.
    #[cfg(test)]
    pub fn incoming_bytes(&self) -> u64 {
        self.wire.incoming.used_bytes()
    }
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
