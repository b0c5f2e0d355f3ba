//! What a tier of another process is asked. Pure.
//!
//! Invariant: a question that was opened can be put to a tier: it names a partition that exists, and holds nothing that a
//! tier takes for a bug of its caller.

use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::envelope::{self, Bodies, Envelope};
use super::forms::{self, BlockForm, ChunkForm, ensure};
use crate::kv::Append;
use crate::model::applied::AppliedDelta;
use crate::model::block::{BlockKey, Day, MetricTableId};
use crate::model::codec::CodecError;
use crate::model::id::{Epoch, Key, PartitionId, SourceId, Tip};
use crate::model::quality::Record;
use crate::mq::Offset;
use crate::tier::{SinkQuery, SinkWrite};

/// The two sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SinkName {
    Hot,
    Cache,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    pub partition: PartitionId,
    /// The longest answer that the asker takes by a call.
    pub most_answer: u64,
    pub ask: Ask,
}

/// The traits' methods, but for publications and waits, which have streams of their own.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    MqRead {
        from: Offset,
        max_bytes: u64,
    },
    MqTrim {
        before: Offset,
    },
    KvHead,
    KvAppend(AppendForm),
    KvChunks {
        after: Tip,
        max_bytes: u64,
    },
    /// Snapshots are not chained: of one writer, none is put after a later one.
    KvPutSnapshot {
        epoch: Epoch,
        bytes: u64,
        instance: u64,
        number: u64,
    },
    KvSnapshot,
    KvTrim {
        through: Tip,
        before_ms: i64,
    },
    Standing(SinkName),
    Write(SinkName, WriteForm),
    Read(SinkName, QueryForm),
}

impl Question {
    pub fn seal(&self, bodies: Vec<Bytes>) -> Envelope {
        Envelope::new(self, bodies)
    }

    /// Of a cluster with so many partitions.
    pub fn open(bytes: Bytes, partitions: u16) -> Result<(Self, Bodies), CodecError> {
        let (question, bodies) = envelope::open::<Self>("question", bytes)?;
        check_partition(question.partition, partitions)?;
        Ok((question, bodies))
    }
}

pub fn check_partition(partition: PartitionId, partitions: u16) -> Result<(), CodecError> {
    ensure(partition.0 < partitions, "partition", "there is no such partition")
}

/// `Append` without its rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct AppendForm {
    chunk: ChunkForm,
    offset: Offset,
    applied: AppliedDelta,
    forget: Vec<SourceId>,
}

impl AppendForm {
    pub fn of(append: Append, bodies: &mut Vec<Bytes>) -> Self {
        let Append { chunk, offset, applied, forget } = append;
        Self { chunk: ChunkForm::of(chunk, bodies), offset, applied, forget }
    }

    pub fn read(self, bodies: &mut Bodies) -> Result<Append, CodecError> {
        let Self { chunk, offset, applied, forget } = self;
        forms::check_delta(&applied)?;
        Ok(Append { chunk: chunk.read(bodies)?, offset, applied, forget })
    }
}

/// `SinkWrite` without its rows.
#[derive(Debug, Serialize, Deserialize)]
pub struct WriteForm {
    expect: Tip,
    tip: Tip,
    announce: AppliedDelta,
    forget: Vec<SourceId>,
    blocks: Vec<BlockForm>,
    remove: Vec<BlockKey>,
    record: Option<Record>,
}

impl WriteForm {
    pub fn of(write: SinkWrite, bodies: &mut Vec<Bytes>) -> Self {
        let SinkWrite { expect, tip, announce, forget, blocks, remove, record } = write;
        let blocks = blocks.into_iter().map(|block| BlockForm::of(block, bodies)).collect();
        Self { expect, tip, announce, forget, blocks, remove, record }
    }

    pub fn read(self, bodies: &mut Bodies) -> Result<SinkWrite, CodecError> {
        let Self { expect, tip, announce, forget, blocks, remove, record } = self;
        ensure(tip > expect, "write", "it does not move its place forward")?;
        ensure(record.is_some() || remove.is_empty(), "write", "blocks vanish beside a record only")?;
        forms::check_delta(&announce)?;
        record.iter().try_for_each(forms::check_record)?;
        remove.iter().try_for_each(|block| forms::check_key(&block.key))?;
        let blocks = blocks.into_iter().map(|block| block.read(bodies)).collect::<Result<_, _>>()?;
        Ok(SinkWrite { expect, tip, announce, forget, blocks, remove, record })
    }
}

/// `SinkQuery`.
#[derive(Debug, Serialize, Deserialize)]
pub struct QueryForm {
    table: MetricTableId,
    keys: Option<Vec<Key>>,
    days: RangeInclusive<Day>,
}

impl From<SinkQuery> for QueryForm {
    fn from(query: SinkQuery) -> Self {
        let SinkQuery { table, keys, days } = query;
        Self { table, keys, days }
    }
}

impl QueryForm {
    pub fn read(self) -> Result<SinkQuery, CodecError> {
        let Self { table, keys, days } = self;
        keys.iter().flatten().try_for_each(forms::check_key)?;
        Ok(SinkQuery { table, keys, days })
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
