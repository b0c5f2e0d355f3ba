//! The lanes of a connection, and the head of a piece. Pure.
//!
//! Bodies share a connection in lanes. A lane has a window: bytes that its sender may have under way before the receiver
//! says that it has room again. So nothing piles up at a slow receiver, and a full lane does not stop another. Small and
//! large calls have lanes of their own, messages one for each service, streams one for each direction.
//!
//! Invariant: a body is sent only when all of it fits the window: bodies that were begun always end, whatever else waits.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Which bodies a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Calls of one piece.
    Calls,
    /// Longer calls.
    BulkCalls,
    Answers,
    BulkAnswers,
    /// Messages to a service; in order.
    Messages(u16),
    /// Items of a stream; in order.
    Stream(u64),
}

/// What a body costs of a window beyond its length, so that empty ones are bounded as well.
pub const MESSAGE_COST: u64 = 256;

pub fn cost(length: usize) -> u64 {
    (length as u64).saturating_add(MESSAGE_COST)
}

impl Lane {
    /// Bodies of ordered lanes are sent one after the other, those of others side by side.
    pub fn is_ordered(self) -> bool {
        matches!(self, Self::Messages(_) | Self::Stream(_))
    }

    fn tag(self) -> (u8, u64) {
        match self {
            Self::Calls => (0, 0),
            Self::BulkCalls => (1, 0),
            Self::Answers => (2, 0),
            Self::BulkAnswers => (3, 0),
            Self::Messages(service) => (4, service.into()),
            Self::Stream(id) => (5, id),
        }
    }

    fn of(tag: u8, number: u64) -> Option<Self> {
        Some(match tag {
            0 => Self::Calls,
            1 => Self::BulkCalls,
            2 => Self::Answers,
            3 => Self::BulkAnswers,
            4 => Self::Messages(u16::try_from(number).ok()?),
            5 => Self::Stream(number),
            _ => return None,
        })
    }
}

/// What stands before the bytes of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceHead {
    pub lane: Lane,
    /// Of the call; zero in ordered lanes.
    pub id: u64,
    /// In the first piece: the service or outcome, and the length of the whole body.
    pub first: Option<(u16, u32)>,
    pub is_last: bool,
    /// Of a stream: there are no more items, and this is none.
    pub is_end: bool,
}

const FIRST: u8 = 1;
const LAST: u8 = 2;
const END: u8 = 4;
pub const MOST_HEAD_BYTES: usize = 1 + 1 + 8 + 8 + 2 + 4;

impl PieceHead {
    pub fn write(&self, out: &mut impl BufMut) {
        let (tag, number) = self.lane.tag();
        let flags = [(self.first.is_some(), FIRST), (self.is_last, LAST), (self.is_end, END)];
        out.put_u8(tag);
        out.put_u8(flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
        out.put_u64_le(number);
        out.put_u64_le(self.id);
        if let Some((word, total)) = self.first {
            out.put_u16_le(word);
            out.put_u32_le(total);
        }
    }

    /// Takes the head from the front of a piece.
    pub fn take(piece: &mut Bytes) -> Option<Self> {
        let (tag, flags) = (piece.try_get_u8().ok()?, piece.try_get_u8().ok()?);
        let (number, id) = (piece.try_get_u64_le().ok()?, piece.try_get_u64_le().ok()?);
        let lane = Lane::of(tag, number).filter(|_| flags <= FIRST | LAST | END)?;
        let first = match flags & FIRST {
            0 => None,
            _ => Some((piece.try_get_u16_le().ok()?, piece.try_get_u32_le().ok()?)),
        };
        Some(Self { lane, id, first, is_last: flags & LAST != 0, is_end: flags & END != 0 })
    }
}

/// The body of a `Credit` frame.
pub fn credit(lane: Lane, bytes: u64) -> Bytes {
    let (tag, number) = lane.tag();
    let mut body = BytesMut::with_capacity(17);
    body.put_u8(tag);
    body.put_u64_le(number);
    body.put_u64_le(bytes);
    body.freeze()
}

pub fn read_credit(mut body: Bytes) -> Option<(Lane, u64)> {
    let (tag, number) = (body.try_get_u8().ok()?, body.try_get_u64_le().ok()?);
    let bytes = body.try_get_u64_le().ok()?;
    Some((Lane::of(tag, number)?, bytes)).filter(|_| body.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_credits_are_read_as_they_were_written() {
        for lane in [Lane::Calls, Lane::BulkCalls, Lane::Answers, Lane::Messages(65_535), Lane::Stream(u64::MAX)] {
            for first in [None, Some((7, u32::MAX))] {
                let head = PieceHead { lane, id: 9, first, is_last: first.is_none(), is_end: false };
                let mut out = BytesMut::new();
                head.write(&mut out);
                assert!(out.len() <= MOST_HEAD_BYTES);
                out.put_slice(b"rest");
                let mut piece = out.freeze();
                assert_eq!((PieceHead::take(&mut piece), &piece[..]), (Some(head), &b"rest"[..]));
            }
            assert_eq!(read_credit(credit(lane, 5)), Some((lane, 5)));
        }
    }

    #[test]
    fn what_is_no_head_is_none() {
        let messages_beyond_u16 = [&[4, 0][..], &70_000u64.to_le_bytes(), &[0; 8]].concat();
        for piece in [&b""[..], &[9; 30], &[0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &messages_beyond_u16]
        {
            assert_eq!(PieceHead::take(&mut Bytes::copy_from_slice(piece)), None, "{piece:?}");
        }
    }
}
