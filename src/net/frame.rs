//! Frames on a connection between nodes, and the decoder that finds them in a stream of bytes. Pure.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 1 | `MAGIC`: this is holdfast, not somebody who took the wrong port |
//! | 1 | 1 | `VERSION` of the protocol |
//! | 2 | 1 | kind |
//! | 3 | 1 | zero |
//! | 4 | 4 | length of the body, little-endian |
//! | 8 | 4 | CRC-32 of the first eight bytes and the body, little-endian |
//! | 12 | | body |
//!
//! Invariant: whatever bytes come, the decoder gives whole frames whose checksum is right, or one error; it never
//! holds more than one frame, and nothing is allocated for a length above the limit.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

pub const MAGIC: u8 = 0xF5;
pub const VERSION: u8 = 1;
pub const HEADER_BYTES: usize = 12;
const CHECKED_HEADER_BYTES: usize = 8;

/// What a frame is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A step of the handshake.
    Prove = 1,
    /// The connection ends before it began; the body says why.
    Refuse = 2,
    /// Who speaks, after both have proved that they know the secret.
    Hello = 3,
    /// A part of a body.
    Piece = 10,
    /// The receiver has room for more.
    Credit = 11,
    /// The caller does not wait any more.
    Cancel = 12,
    /// A new stream.
    Open = 13,
    /// A half of a stream ends before its end.
    Abort = 14,
    /// Still here.
    Alive = 15,
    /// The connection ends on purpose; the body says why.
    Goodbye = 16,
}

impl FrameKind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Prove,
            2 => Self::Refuse,
            3 => Self::Hello,
            10 => Self::Piece,
            11 => Self::Credit,
            12 => Self::Cancel,
            13 => Self::Open,
            14 => Self::Abort,
            15 => Self::Alive,
            16 => Self::Goodbye,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: FrameKind,
    pub body: Bytes,
}

/// Why bytes are no frame. The connection that they came from is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("the bytes are not of this protocol")]
    Foreign,
    #[error("protocol version {found}; this program speaks version {VERSION}")]
    Version { found: u8 },
    #[error("a frame of {length} bytes; the limit is {limit}")]
    Oversized { length: usize, limit: usize },
    #[error("a frame of an unknown kind")]
    Kind,
    #[error("a frame was damaged on the way")]
    Checksum,
}

/// Appends a frame whose body is `parts` one after the other.
pub fn encode(kind: FrameKind, parts: &[&[u8]], out: &mut BytesMut) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).expect("bodies are cut long before 4 GiB");
    let mut header = [MAGIC, VERSION, kind as u8, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&length.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header);
    parts.iter().for_each(|part| hasher.update(part));
    out.reserve(HEADER_BYTES + length as usize);
    out.put_slice(&header);
    out.put_u32_le(hasher.finalize());
    parts.iter().for_each(|part| out.put_slice(part));
}

/// Finds frames in a stream of bytes that comes in slices of any size.
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    header: [u8; HEADER_BYTES],
    header_length: usize,
    /// Of the frame whose header is complete.
    body: Option<(FrameKind, BytesMut, usize)>,
}

impl Decoder {
    /// `limit`: of a frame's body.
    pub fn new(limit: usize) -> Self {
        Self { limit, header: [0; HEADER_BYTES], header_length: 0, body: None }
    }

    /// For the frames after this one: strangers get less than peers.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes from the front of `input` what belongs to the current frame, and gives the frame once it is complete. `None`:
    /// `input` is used up. After an error the decoder is of no use.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.body.is_none() {
            let take = (HEADER_BYTES - self.header_length).min(input.len());
            input.copy_to_slice(&mut self.header[self.header_length..self.header_length + take]);
            self.header_length += take;
            // What is wrong is seen at the first byte that is, so that a stranger is not waited for.
            self.check_start()?;
            if self.header_length < HEADER_BYTES {
                return Ok(None);
            }
            self.body = Some(self.begin_body()?);
        }
        let Some((_, body, length)) = &mut self.body else { return Ok(None) };
        let take = (*length - body.len()).min(input.len());
        body.put_slice(&input[..take]);
        input.advance(take);
        if body.len() < *length {
            return Ok(None);
        }
        self.finish()
    }

    fn check_start(&self) -> Result<(), FrameError> {
        match self.header[..self.header_length] {
            [first, ..] if first != MAGIC => Err(FrameError::Foreign),
            [_, found, ..] if found != VERSION => Err(FrameError::Version { found }),
            _ => Ok(()),
        }
    }

    fn begin_body(&self) -> Result<(FrameKind, BytesMut, usize), FrameError> {
        let kind = FrameKind::of(self.header[2]).filter(|_| self.header[3] == 0).ok_or(FrameError::Kind)?;
        let length = u32::from_le_bytes(self.header[4..8].try_into().expect("four bytes")) as usize;
        if length > self.limit {
            return Err(FrameError::Oversized { length, limit: self.limit });
        }
        Ok((kind, BytesMut::with_capacity(length), length))
    }

    fn finish(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((kind, body, _)) = self.body.take() else { return Ok(None) };
        self.header_length = 0;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.header[..CHECKED_HEADER_BYTES]);
        hasher.update(&body);
        let stated = u32::from_le_bytes(self.header[CHECKED_HEADER_BYTES..].try_into().expect("four bytes"));
        if hasher.finalize() != stated {
            return Err(FrameError::Checksum);
        }
        Ok(Some(Frame { kind, body: body.freeze() }))
    }

    /// Memory held for the frame under way.
    pub fn held_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |(_, body, _)| body.capacity())
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
pub mod tests;
