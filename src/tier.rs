//! What all tiers have in common: how a call can fail, and the chained sink that hot and cache both are.
//!
//! Invariant: a write that returned `Ok` builds on the tip it named; a refused write changed nothing (design I5).

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use thiserror::Error;

use crate::model::applied::{Applied, AppliedDelta};
use crate::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use crate::model::codec::CodecError;
use crate::model::id::{Key, PartitionId, SourceId, Tip};
use crate::model::quality::Record;

/// A tier's answer, later.
pub type TierFuture<'a, T> = BoxFuture<'a, Result<T, TierError>>;

/// Why a tier did not do what it was asked.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum TierError {
    /// A writer with a higher epoch was here: the caller lost its task and must stop writing for good.
    #[error("{tier}: fenced, a newer owner stands at {found}")]
    Fenced { tier: &'static str, found: Tip },
    /// The tier does not stand where the caller left it: it lost writes, or the caller is new. Look again and say
    /// everything again.
    #[error("{tier}: stands at {found}, not where the write builds on")]
    Moved { tier: &'static str, found: Tip },
    #[error("{tier}: unavailable: {reason}")]
    Unavailable { tier: &'static str, reason: String },
    #[error("{tier}: {place}: {source}")]
    Damaged { tier: &'static str, place: String, source: CodecError },
}

/// What an adapter holds, for status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TierUsage {
    pub disk_bytes: u64,
    /// Of the adapter's own; a store's page cache comes on top, within the configured limit.
    pub memory_bytes: u64,
}

impl TierError {
    /// May the same call succeed later without the caller changing anything?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}

/// Compares where a tier stands with where a write builds on: the one rule behind fencing, order and the detection
/// of lost writes.
pub fn check_chain(tier: &'static str, found: Tip, expect: Tip, writer: Tip) -> Result<(), TierError> {
    assert!(writer > expect, "a write moves its place forward: {expect} to {writer}");
    if found.epoch > writer.epoch {
        return Err(TierError::Fenced { tier, found });
    }
    if found != expect {
        return Err(TierError::Moved { tier, found });
    }
    Ok(())
}

/// A place for blocks with a quality record: hot and cache are both one. A partition's blocks, record, tip and
/// announced `Applied` are one failure unit.
pub trait Sink: Send + Sync {
    /// What a claimer must know: the tip, and what the blocks here may contain.
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding>;

    /// One atomic, chained write.
    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()>;

    /// Record and blocks in one atomic read.
    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead>;
}

/// Where a partition stands in a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkStanding {
    pub tip: Tip,
    /// Everything that any block here may contain was announced in it before.
    pub announced: Applied,
}

/// One atomic write. An emission announces first, then puts blocks, and puts the record last; if it is small all of it
/// is one write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SinkWrite {
    /// Where the sink must stand.
    pub expect: Tip,
    /// Where it stands after the write; above `expect`, in the writer's epoch.
    pub tip: Tip,
    /// Merged into what is announced, before the blocks.
    pub announce: AppliedDelta,
    /// Sources that need not be remembered any more.
    pub forget: Vec<SourceId>,
    pub blocks: Vec<(BlockKey, StoredBlock)>,
    /// Blocks that became empty. Only beside a record: a reader must not see them vanish earlier. Blocks that the owner
    /// does not know need no removal: they are older than the record's `base`.
    pub remove: Vec<BlockKey>,
    pub record: Option<Record>,
}

/// Which blocks of a partition to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkQuery {
    pub table: MetricTableId,
    /// `None`: of every key.
    pub keys: Option<Vec<Key>>,
    pub days: RangeInclusive<Day>,
}

/// Blocks with the record that stood beside them at that moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SinkRead {
    pub record: Option<Arc<Record>>,
    /// In the order of their keys.
    pub blocks: Vec<(BlockKey, StoredBlock)>,
    /// Blocks may be absent that exist elsewhere (evicted): what was read does not suffice.
    pub incomplete: bool,
}

impl SinkRead {
    /// Drops the blocks that are gone: those that the record's owner did not say again after its claim. To be called
    /// before anything else is made of a read.
    pub fn settle(&mut self) {
        if let Some(record) = &self.record {
            self.blocks.retain(|(_, block)| block.version >= record.base);
        }
    }

    /// Does the record vouch for every block that was read?
    pub fn is_vouched(&self) -> bool {
        (self.record.as_ref())
            .is_some_and(|record| self.blocks.iter().all(|(_, block)| block.version <= record.version))
    }
}
