//! Batches of weighted rows as they travel, and chunks of batches as kv keeps them.
//!
//! Invariant: a body is encoded once, where it is made, and never rewritten; whoever has counted part of a span filters
//! rows by position. A header is all that a gate reads. A chunk names its predecessor, so a lost or replaced
//! chunk shows (design §5).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::codec::{self, CodecError};
use super::id::{SourceId, Tip};
use super::position::Span;

/// What a batch is, without its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    pub source: SourceId,
    /// All changes of this source in this partition within the span are in the batch.
    pub span: Span,
    pub table: Arc<str>,
    /// Fingerprint of the table's columns; a body is only decoded with the schema that it was encoded with.
    pub schema: u64,
    /// Rows in the body. Zero is a heartbeat: it only moves the span.
    pub rows: u32,
    /// Bodies without a weight column hold rows of weight +1.
    pub weighted: bool,
    /// Bodies without a position column hold one row per position: `from + 1, from + 2, …, to`.
    pub positioned: bool,
    /// Unix milliseconds: every change that the source had before is in this batch or an earlier one.
    pub at_ms: i64,
    /// First and last hour touched (hours since the Unix epoch, UTC), `None` without a timed row.
    pub hours: Option<(i32, i32)>,
}

/// A header with the Arrow body that it describes; see `rows` for the body's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub header: BatchHeader,
    pub body: Bytes,
}

impl Batch {
    /// Bytes that this batch takes in a tier, without the tier's own overhead.
    pub fn size(&self) -> usize {
        self.body.len() + 128
    }

    /// Format: version, header length (u32 le), header (bincode), body, CRC-32.
    pub fn encode(&self) -> Vec<u8> {
        let header = codec::to_bytes(&self.header);
        let mut bytes = Vec::with_capacity(header.len() + self.body.len() + 9);
        bytes.push(codec::VERSION);
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&self.body);
        codec::seal(&mut bytes);
        bytes
    }

    /// The inverse of `encode`; the body shares `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let (header, body) = split_frame("batch", bytes)?;
        Ok(Self { header: codec::from_bytes("batch header", &header)?, body })
    }
}

/// Batches appended to kv as one entry of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub id: Tip,
    pub previous: Tip,
    /// When the gate made it, Unix milliseconds; trimming goes by it.
    pub at_ms: i64,
    pub batches: Vec<Batch>,
}

#[derive(Serialize, Deserialize)]
struct ChunkHeader {
    id: Tip,
    previous: Tip,
    at_ms: i64,
    batches: Vec<(BatchHeader, u32)>,
}

impl Chunk {
    pub fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.header.rows as usize).sum()
    }

    pub fn size(&self) -> usize {
        self.batches.iter().map(Batch::size).sum()
    }

    /// Format: version, header length (u32 le), header with all batch headers and body lengths, bodies, CRC-32.
    pub fn encode(&self) -> Vec<u8> {
        let header = codec::to_bytes(&ChunkHeader {
            id: self.id,
            previous: self.previous,
            at_ms: self.at_ms,
            batches: self.batches.iter().map(|batch| (batch.header.clone(), batch.body.len() as u32)).collect(),
        });
        let bodies: usize = self.batches.iter().map(|batch| batch.body.len()).sum();
        let mut bytes = Vec::with_capacity(header.len() + bodies + 9);
        bytes.push(codec::VERSION);
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&header);
        for batch in &self.batches {
            bytes.extend_from_slice(&batch.body);
        }
        codec::seal(&mut bytes);
        bytes
    }

    /// The inverse of `encode`; bodies share `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let (header, mut rest) = split_frame("chunk", bytes)?;
        let header: ChunkHeader = codec::from_bytes("chunk header", &header)?;
        let mut batches = Vec::with_capacity(header.batches.len());
        for (header, len) in header.batches {
            if len as usize > rest.len() {
                return Err(CodecError::malformed("chunk", "bodies are shorter than the header says"));
            }
            batches.push(Batch { header, body: rest.split_to(len as usize) });
        }
        if !rest.is_empty() {
            return Err(CodecError::malformed("chunk", "bodies are longer than the header says"));
        }
        Ok(Self { id: header.id, previous: header.previous, at_ms: header.at_ms, batches })
    }
}

/// Checks a frame and gives its header's bytes and what follows them.
fn split_frame(what: &'static str, bytes: &Bytes) -> Result<(Bytes, Bytes), CodecError> {
    let body = codec::unseal(what, bytes)?;
    let truncated = CodecError::Truncated { what, len: bytes.len() };
    let Some((prefix, _)) = body.split_first_chunk::<5>() else {
        return Err(truncated);
    };
    if prefix[0] != codec::VERSION {
        return Err(CodecError::Version { what, found: prefix[0] });
    }
    let len = u32::from_le_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if body.len() - 5 < len {
        return Err(truncated);
    }
    Ok((bytes.slice(5..5 + len), bytes.slice(5 + len..body.len())))
}
