//! Decoded blocks, and recent reads with the records they were read under.
//!
//! Invariant: a decoded block stands for exactly the bytes that it was decoded from; a read keeps its own record and is
//! only kept if that record vouched for all of it. Memory is bounded.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::block::Block;
use super::memo::Memo;
use super::settings::Settings;
use crate::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use crate::model::codec::CodecError;
use crate::model::id::{Key, PartitionId, Tip};
use crate::model::quality::Record;
use crate::model::rows::decode_rows;

/// One of the sinks. Their versions and contents have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    Cache,
    Hot,
}

/// A block with the bytes that it was decoded from.
#[derive(Debug)]
pub struct Decoded {
    version: Tip,
    bytes: Bytes,
    pub block: Block,
    /// Of the block in memory.
    size: usize,
}

/// What was read together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadKey {
    pub table: MetricTableId,
    pub partition: PartitionId,
    pub keys: Option<Vec<Key>>,
    pub days: RangeInclusive<Day>,
}

/// A read that its record vouched for.
#[derive(Debug)]
pub struct RecentRead {
    pub read_at_ms: i64,
    pub record: Arc<Record>,
    pub blocks: Vec<Arc<Decoded>>,
    /// Bytes of the blocks as they were stored.
    pub stored_bytes: usize,
}

/// Local memory of blocks.
#[derive(Debug)]
pub struct Blocks {
    decoded: Memo<(Origin, BlockKey), Arc<Decoded>>,
    recent: Memo<ReadKey, Arc<RecentRead>>,
}

/// What an entry takes beside its rows, roughly.
const ENTRY_BYTES: usize = 512;
/// What a key takes, roughly.
const KEY_BYTES: usize = 64;

impl Blocks {
    pub fn new(settings: &Settings) -> Self {
        let half = settings.block_memory.bytes() / 2;
        Self { decoded: Memo::new(half), recent: Memo::new(half) }
    }

    /// The rows of a stored block; decoded only if its bytes are not those decoded last.
    pub fn rows(
        &self,
        origin: Origin,
        key: &BlockKey,
        block: &StoredBlock,
        schema: &SchemaRef,
    ) -> Result<Arc<Decoded>, CodecError> {
        let place = (origin, key.clone());
        if let Some(known) = self.decoded.get(&place)
            && known.version == block.version
            && same(&known.bytes, &block.rows)
        {
            return Ok(known);
        }
        let (version, bytes) = (block.version, block.rows.clone());
        let block = Block::from(decode_rows(schema, &bytes)?);
        let size = block.size();
        let stored_bytes = bytes.len();
        let decoded = Arc::new(Decoded { version, bytes, block, size });
        self.decoded.insert(place, decoded.clone(), size + stored_bytes + ENTRY_BYTES);
        Ok(decoded)
    }

    /// A read of the same not before `not_before_ms`.
    pub fn recent(&self, key: &ReadKey, not_before_ms: i64) -> Option<Arc<RecentRead>> {
        self.recent.get(key).filter(|read| read.read_at_ms >= not_before_ms)
    }

    pub fn remember(&self, key: ReadKey, read: Arc<RecentRead>) {
        let keys = key.keys.as_ref().map_or(0, Vec::len) * KEY_BYTES;
        let rows: usize = read.blocks.iter().map(|block| block.size).sum();
        self.recent.insert(key, read, ENTRY_BYTES + keys + rows);
    }
}

/// The version alone does not suffice: a sink that lost its last writes may see a version twice.
fn same(one: &Bytes, two: &Bytes) -> bool {
    (one.as_ptr() == two.as_ptr() && one.len() == two.len()) || one == two
}
