//! Batches, chunks and blocks without their rows, as heads speak of them; and whether what a peer says can be. Pure.
//!
//! Invariant: what comes out of here cannot make a tier or a role break: spans go forward, ranges are in order, keys are
//! keys.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::envelope::Bodies;
use crate::model::applied::{Applied, Progress};
use crate::model::batch::{Batch, BatchHeader, Chunk};
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::codec::CodecError;
use crate::model::id::{Key, SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::model::quality::Record;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchForm {
    header: BatchHeader,
    bytes: u64,
}

impl BatchForm {
    pub fn of(batch: Batch, bodies: &mut Vec<Bytes>) -> Self {
        let bytes = batch.body.len() as u64;
        bodies.push(batch.body);
        Self { header: batch.header, bytes }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn read(self, bodies: &mut Bodies) -> Result<Batch, CodecError> {
        let body = bodies.take(self.bytes)?;
        self.with(body)
    }

    /// For a body that came by another way.
    pub fn with(self, body: Bytes) -> Result<Batch, CodecError> {
        check_span(self.header.span)?;
        Ok(Batch { header: self.header, body })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChunkForm {
    id: Tip,
    previous: Tip,
    at_ms: i64,
    batches: Vec<BatchForm>,
}

impl ChunkForm {
    pub fn of(chunk: Chunk, bodies: &mut Vec<Bytes>) -> Self {
        let Chunk { id, previous, at_ms, batches } = chunk;
        let batches = batches.into_iter().map(|batch| BatchForm::of(batch, bodies)).collect();
        Self { id, previous, at_ms, batches }
    }

    pub fn read(self, bodies: &mut Bodies) -> Result<Chunk, CodecError> {
        let Self { id, previous, at_ms, batches } = self;
        ensure(id > previous, "chunk", "it does not move its place forward")?;
        let batches = batches.into_iter().map(|batch| batch.read(bodies)).collect::<Result<_, _>>()?;
        Ok(Chunk { id, previous, at_ms, batches })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockForm {
    key: BlockKey,
    version: Tip,
    bytes: u64,
}

impl BlockForm {
    pub fn of((key, block): (BlockKey, StoredBlock), bodies: &mut Vec<Bytes>) -> Self {
        let bytes = block.rows.len() as u64;
        bodies.push(block.rows);
        Self { key, version: block.version, bytes }
    }

    pub fn read(self, bodies: &mut Bodies) -> Result<(BlockKey, StoredBlock), CodecError> {
        check_key(&self.key.key)?;
        Ok((self.key, StoredBlock { version: self.version, rows: bodies.take(self.bytes)? }))
    }
}

pub fn ensure(holds: bool, what: &'static str, otherwise: &str) -> Result<(), CodecError> {
    if holds { Ok(()) } else { Err(CodecError::malformed(what, otherwise)) }
}

fn check_position(position: Position) -> Result<(), CodecError> {
    ensure(position.0 <= i128::MAX as u128, "position", "beyond the positive half of 128 bits")
}

pub fn check_span(span: Span) -> Result<(), CodecError> {
    check_position(span.to)?;
    ensure(span.from <= span.to, "span", "it goes backwards")
}

pub fn check_key(key: &Key) -> Result<(), CodecError> {
    ensure(Key::from_bytes(key.as_bytes().clone()).is_some(), "block key", "not a partition key")
}

pub fn check_record(record: &Record) -> Result<(), CodecError> {
    record.missing.iter().try_for_each(|missing| check_span(missing.span))
}

fn check_progress(progress: &Progress) -> Result<(), CodecError> {
    check_position(progress.top())?;
    let mut end = progress.high();
    for range in progress.beyond() {
        ensure(end < range.from && range.from < range.to, "progress", "ranges out of order")?;
        end = range.to;
    }
    Ok(())
}

pub fn check_delta(delta: &[(SourceId, Progress)]) -> Result<(), CodecError> {
    delta.iter().try_for_each(|(_, progress)| check_progress(progress))
}

pub fn check_applied(applied: &Applied) -> Result<(), CodecError> {
    applied.iter().try_for_each(|(_, progress)| check_progress(progress))
}
