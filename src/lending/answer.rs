//! What a tier of another process answers. Pure.
//!
//! Invariant: a tier's error arrives as the same kind of error, with where the tier stands; an answer to another question
//! is an error, not a guess.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::envelope::{self, Bodies};
use super::forms::{self, BatchForm, BlockForm, ChunkForm};
use crate::kv::{ChunkRead, Head, Snapshot};
use crate::model::applied::Applied;
use crate::model::codec::CodecError;
use crate::model::id::{Epoch, Tip};
use crate::model::quality::Record;
use crate::mq::{MqRead, Offset};
use crate::tier::{SinkRead, SinkStanding, TierError};

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    MqRead {
        batches: Vec<(Offset, BatchForm)>,
        low: Offset,
        end: Offset,
    },
    Head {
        tip: Tip,
        offset: Offset,
        applied: Applied,
        oldest_previous: Tip,
    },
    /// `None`: the chain is broken there.
    Chunks(Option<Vec<ChunkForm>>),
    Snapshot(Option<(Epoch, u64)>),
    Standing {
        tip: Tip,
        announced: Applied,
    },
    Blocks {
        record: Option<Arc<Record>>,
        blocks: Vec<BlockForm>,
        incomplete: bool,
    },
    Failed(Failure),
    /// For an answer to a call; to be asked again over a stream.
    TooLong {
        bytes: u64,
    },
}

/// `TierError`, whose tier is the one that was asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Failure {
    Fenced { found: Tip },
    Moved { found: Tip },
    Unavailable { reason: String },
    Damaged { place: String, reason: String },
}

impl From<TierError> for Failure {
    fn from(error: TierError) -> Self {
        match error {
            TierError::Fenced { found, .. } => Self::Fenced { found },
            TierError::Moved { found, .. } => Self::Moved { found },
            TierError::Unavailable { reason, .. } => Self::Unavailable { reason },
            TierError::Damaged { place, source, .. } => Self::Damaged { place, reason: source.to_string() },
        }
    }
}

impl Failure {
    pub fn of(self, tier: &'static str) -> TierError {
        match self {
            Self::Fenced { found } => TierError::Fenced { tier, found },
            Self::Moved { found } => TierError::Moved { tier, found },
            Self::Unavailable { reason } => TierError::Unavailable { tier, reason },
            Self::Damaged { place, reason } => {
                TierError::Damaged { tier, place, source: CodecError::malformed("the store says", reason) }
            }
        }
    }
}

fn other() -> CodecError {
    CodecError::malformed("answer", "it answers another question")
}

/// For the side that answers.
impl Answer {
    pub fn mq_read(read: MqRead, bodies: &mut Vec<Bytes>) -> Self {
        let form = |(offset, batch)| (offset, BatchForm::of(batch, bodies));
        Self::MqRead { batches: read.batches.into_iter().map(form).collect(), low: read.low, end: read.end }
    }

    pub fn head(head: Head) -> Self {
        let Head { tip, offset, applied, oldest_previous } = head;
        Self::Head { tip, offset, applied, oldest_previous }
    }

    pub fn chunks(read: ChunkRead, bodies: &mut Vec<Bytes>) -> Self {
        match read {
            ChunkRead::Broken => Self::Chunks(None),
            ChunkRead::Next(chunks) => {
                Self::Chunks(Some(chunks.into_iter().map(|chunk| ChunkForm::of(chunk, bodies)).collect()))
            }
        }
    }

    pub fn snapshot(snapshot: Option<Snapshot>, bodies: &mut Vec<Bytes>) -> Self {
        Self::Snapshot(snapshot.map(|Snapshot { epoch, state }| {
            let bytes = state.len() as u64;
            bodies.push(state);
            (epoch, bytes)
        }))
    }

    pub fn standing(standing: SinkStanding) -> Self {
        Self::Standing { tip: standing.tip, announced: standing.announced }
    }

    pub fn blocks(read: SinkRead, bodies: &mut Vec<Bytes>) -> Self {
        let SinkRead { record, blocks, incomplete } = read;
        let blocks = blocks.into_iter().map(|block| BlockForm::of(block, bodies)).collect();
        Self::Blocks { record, blocks, incomplete }
    }
}

/// For the side that asked.
impl Answer {
    pub fn open(bytes: Bytes) -> Result<(Self, Bodies), CodecError> {
        envelope::open("answer", bytes)
    }

    pub fn into_done(self) -> Result<(), CodecError> {
        if matches!(self, Self::Done) { Ok(()) } else { Err(other()) }
    }

    pub fn into_mq_read(self, bodies: &mut Bodies) -> Result<MqRead, CodecError> {
        let Self::MqRead { batches, low, end } = self else { return Err(other()) };
        let read = |(offset, batch): (Offset, BatchForm)| Ok((offset, batch.read(bodies)?));
        Ok(MqRead { batches: batches.into_iter().map(read).collect::<Result<_, _>>()?, low, end })
    }

    pub fn into_head(self) -> Result<Head, CodecError> {
        let Self::Head { tip, offset, applied, oldest_previous } = self else { return Err(other()) };
        forms::check_applied(&applied)?;
        Ok(Head { tip, offset, applied, oldest_previous })
    }

    pub fn into_chunks(self, bodies: &mut Bodies) -> Result<ChunkRead, CodecError> {
        let Self::Chunks(chunks) = self else { return Err(other()) };
        let Some(chunks) = chunks else { return Ok(ChunkRead::Broken) };
        Ok(ChunkRead::Next(chunks.into_iter().map(|chunk| chunk.read(bodies)).collect::<Result<_, _>>()?))
    }

    pub fn into_snapshot(self, bodies: &mut Bodies) -> Result<Option<Snapshot>, CodecError> {
        let Self::Snapshot(snapshot) = self else { return Err(other()) };
        let read = |(epoch, bytes)| Ok(Snapshot { epoch, state: bodies.take(bytes)? });
        snapshot.map(read).transpose()
    }

    pub fn into_standing(self) -> Result<SinkStanding, CodecError> {
        let Self::Standing { tip, announced } = self else { return Err(other()) };
        forms::check_applied(&announced)?;
        Ok(SinkStanding { tip, announced })
    }

    pub fn into_blocks(self, bodies: &mut Bodies) -> Result<SinkRead, CodecError> {
        let Self::Blocks { record, blocks, incomplete } = self else { return Err(other()) };
        record.iter().try_for_each(|record| forms::check_record(record))?;
        let share = blocks.len() == 1;
        let read = |form: BlockForm| {
            let (key, mut block) = form.read(bodies)?;
            if !share {
                // Blocks are kept one by one: a small one must not keep all that it came with in memory.
                block.rows = Bytes::copy_from_slice(&block.rows);
            }
            Ok((key, block))
        };
        Ok(SinkRead { record, blocks: blocks.into_iter().map(read).collect::<Result<_, _>>()?, incomplete })
    }
}
