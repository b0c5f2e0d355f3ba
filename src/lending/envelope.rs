//! Words and rows in one body: a head in bincode, then bytes as they are, whose lengths the head tells. Pure.
//!
//! Invariant: what is opened is what was sealed; every other input is an error, never a panic and never an allocation that
//! the input's length does not allow. The checksum is the network's.

use bytes::{Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::model::codec::{self, CodecError};

/// Of the words below; another version is refused.
const VERSION: u8 = 1;
/// Version, and the head's length (u32 le).
const LEAD: usize = 5;

/// A head and the bodies that it speaks of.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Lead and head.
    head: Bytes,
    bodies: Vec<Bytes>,
    length: usize,
}

impl Envelope {
    pub fn new<T: Serialize>(head: &T, bodies: Vec<Bytes>) -> Self {
        let words = codec::to_bytes(head);
        let length = u32::try_from(words.len()).expect("heads are far below 4 GiB: rows are in the bodies");
        let mut head = Vec::with_capacity(LEAD + words.len());
        head.push(VERSION);
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&words);
        let length = head.len() + bodies.iter().map(Bytes::len).sum::<usize>();
        Self { head: head.into(), bodies, length }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    /// All in one piece.
    pub fn to_bytes(&self) -> Bytes {
        if self.bodies.is_empty() {
            return self.head.clone();
        }
        let mut bytes = BytesMut::with_capacity(self.length);
        bytes.extend_from_slice(&self.head);
        self.bodies.iter().for_each(|body| bytes.extend_from_slice(body));
        bytes.freeze()
    }

    /// The same, without copying.
    pub fn parts(&self) -> impl Iterator<Item = Bytes> + '_ {
        std::iter::once(&self.head).chain(&self.bodies).cloned()
    }
}

/// The inverse of `Envelope`: the head, and the bodies to be taken one by one.
pub fn open<T: DeserializeOwned>(what: &'static str, bytes: Bytes) -> Result<(T, Bodies), CodecError> {
    let truncated = CodecError::Truncated { what, len: bytes.len() };
    let Some((&[version, a, b, c, d], rest)) = bytes.split_first_chunk::<LEAD>() else { return Err(truncated) };
    if version != VERSION {
        return Err(CodecError::malformed(what, format!("format {version}, this program reads {VERSION}")));
    }
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let Some(head) = rest.get(..length) else { return Err(truncated) };
    Ok((codec::from_bytes(what, head)?, Bodies(bytes.slice(LEAD + length..))))
}

/// Bodies that are still to be taken; they share the bytes that they came in.
#[derive(Debug)]
pub struct Bodies(Bytes);

impl Bodies {
    pub fn take(&mut self, length: u64) -> Result<Bytes, CodecError> {
        match usize::try_from(length) {
            Ok(length) if length <= self.0.len() => Ok(self.0.split_to(length)),
            _ => Err(CodecError::malformed("bodies", "shorter than the head says")),
        }
    }

    /// How many bytes are still there.
    pub fn rest(&self) -> usize {
        self.0.len()
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), CodecError> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(CodecError::malformed("bodies", "longer than the head says")),
        }
    }
}
