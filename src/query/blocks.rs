//! Decoded blocks, and recent reads with the records they were read under.
//!
//! Invariant: a decoded block stands for exactly the bytes that it was decoded from; a read keeps its own record and is
//! only kept if that record vouched for all of it. Memory is bounded.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use hashbrown::DefaultHashBuilder;
use moka::sync::Cache;

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

#[derive(Debug, Clone)]
struct Decoded {
    version: Tip,
    bytes: Bytes,
    rows: RecordBatch,
    size: u32,
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
    pub blocks: Vec<RecordBatch>,
    /// Bytes of the blocks as they were stored.
    pub stored_bytes: usize,
}

/// Local memory of blocks; clones share it.
#[derive(Debug, Clone)]
pub struct Blocks {
    decoded: Cache<(Origin, BlockKey), Decoded, DefaultHashBuilder>,
    recent: Cache<ReadKey, Arc<RecentRead>, DefaultHashBuilder>,
}

/// What an entry takes beside its rows, roughly.
const ENTRY_BYTES: usize = 512;

impl Blocks {
    pub fn new(settings: &Settings) -> Self {
        let half = settings.block_memory.0 / 2;
        let decoded = Cache::builder().max_capacity(half).weigher(|_: &(Origin, BlockKey), block: &Decoded| block.size);
        let recent = Cache::builder().max_capacity(half).weigher(|key: &ReadKey, read: &Arc<RecentRead>| {
            let keys = key.keys.as_ref().map_or(0, |keys| keys.len() * 64);
            clamped(keys + ENTRY_BYTES + read.blocks.iter().map(size).sum::<usize>())
        });
        Self {
            decoded: decoded.build_with_hasher(DefaultHashBuilder::default()),
            recent: recent.build_with_hasher(DefaultHashBuilder::default()),
        }
    }

    /// The rows of a stored block; decoded only if its bytes are not those decoded last.
    pub fn rows(
        &self,
        origin: Origin,
        key: &BlockKey,
        block: &StoredBlock,
        schema: &SchemaRef,
    ) -> Result<RecordBatch, CodecError> {
        let place = (origin, key.clone());
        if let Some(known) = self.decoded.get(&place)
            && known.version == block.version
            && same(&known.bytes, &block.rows)
        {
            return Ok(known.rows);
        }
        let rows = decode_rows(schema, &block.rows)?;
        let size = clamped(size(&rows) + block.rows.len() + ENTRY_BYTES);
        let decoded = Decoded { version: block.version, bytes: block.rows.clone(), rows: rows.clone(), size };
        self.decoded.insert(place, decoded);
        Ok(rows)
    }

    /// A read of the same not before `not_before_ms`.
    pub fn recent(&self, key: &ReadKey, not_before_ms: i64) -> Option<Arc<RecentRead>> {
        self.recent.get(key).filter(|read| read.read_at_ms >= not_before_ms)
    }

    pub fn remember(&self, key: ReadKey, read: Arc<RecentRead>) {
        self.recent.insert(key, read);
    }
}

/// The version alone does not suffice: a sink that lost its last writes may see a version twice.
fn same(one: &Bytes, two: &Bytes) -> bool {
    (one.as_ptr() == two.as_ptr() && one.len() == two.len()) || one == two
}

fn size(rows: &RecordBatch) -> usize {
    let column = |column: &Arc<dyn Array>| column.to_data().get_slice_memory_size().unwrap_or(0);
    rows.columns().iter().map(column).sum()
}

fn clamped(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
