//! The two halves of a stream on one node. Pure.
//!
//! Invariant: a reader sees the items in order and then the end, or that the stream broke off; never a short stream that
//! looks whole.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// How a half ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Whole,
    Broken(String),
}

#[derive(Debug, Default)]
pub struct StreamState {
    /// This side opened it.
    pub is_mine: bool,
    /// Items not yet read.
    pub items: VecDeque<Bytes>,
    /// The peer writes no more.
    pub read_end: Option<End>,
    /// The reader has heard of it.
    pub read_end_is_known: bool,
    /// Nobody reads here any more.
    pub is_deaf: bool,
    /// This side writes no more.
    pub write_end: Option<End>,
    /// The end of writing has been told to the peer.
    pub end_is_told: bool,
}

impl StreamState {
    pub fn new(is_mine: bool) -> Self {
        Self { is_mine, ..Self::default() }
    }

    /// Nothing will come of it any more.
    pub fn is_over(&self) -> bool {
        (self.is_deaf || self.read_end_is_known) && self.write_end.is_some() && self.end_is_told
    }
}

/// Which half ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The sender of the frame writes no more.
    Writing,
    /// The sender of the frame reads no more.
    Reading,
    Both,
}

/// Longer reasons are cut.
pub const MOST_REASON_BYTES: usize = 256;

/// A reason as it travels.
pub fn cut(reason: &str) -> &str {
    let end = (0..=reason.len().min(MOST_REASON_BYTES)).rev().find(|end| reason.is_char_boundary(*end));
    &reason[..end.unwrap_or(0)]
}

/// A reason as it came: printable, and not long.
pub fn printable(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reason[..reason.len().min(MOST_REASON_BYTES)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The body of an `Open` frame.
pub fn open(id: u64, service: u16) -> Bytes {
    let mut body = BytesMut::with_capacity(10);
    body.put_u64_le(id);
    body.put_u16_le(service);
    body.freeze()
}

pub fn read_open(mut body: Bytes) -> Option<(u64, u16)> {
    Some((body.try_get_u64_le().ok()?, body.try_get_u16_le().ok()?)).filter(|_| body.is_empty())
}

/// The body of an `Abort` frame.
pub fn abort(id: u64, half: Half, reason: &str) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u64_le(id);
    body.put_u8(half as u8);
    body.put_slice(cut(reason).as_bytes());
    body.freeze()
}

pub fn read_abort(mut body: Bytes) -> Option<(u64, Half, String)> {
    let id = body.try_get_u64_le().ok()?;
    let half = match body.try_get_u8().ok()? {
        0 => Half::Writing,
        1 => Half::Reading,
        2 => Half::Both,
        _ => return None,
    };
    Some((id, half, printable(&body)))
}
