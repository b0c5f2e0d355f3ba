//! The cache tier in this process's memory: bounded by bytes, read by many threads at once.
//!
//! Invariant: a block that was evicted leaves a marker. Where even markers had to go, a day, or in the end the whole
//! partition, is lossy: what is absent there is unknown, and a read that met it is `incomplete`. Until an owner's claim:
//! what is older than its record's `base` is gone, so that its loss does not matter any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::ready;
use serde::Serialize;

use crate::eviction::{SecondChance, SlotId};
use crate::locks::{read, write};
use crate::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use crate::model::id::{Key, PartitionId, Tip};
use crate::place::SinkPlace;
use crate::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError, TierFuture};

const TIER: &str = "cache";
/// What a block, a marker, a day take beside key and rows: map entries, slots, allocations.
const BLOCK_OVERHEAD: usize = 256;
const MARKER_OVERHEAD: usize = 96;
const DAY_OVERHEAD: usize = 200;
/// The part of the limit that markers and days may take: one eighth.
const DIRECTORY_PART: usize = 8;

/// The embedded cache tier.
#[derive(Debug)]
pub struct MemoryCache {
    cells: Vec<Cell>,
    limit_bytes: usize,
    bytes: AtomicUsize,
    evictions: AtomicU64,
    up: AtomicBool,
}

/// One partition.
#[derive(Debug, Default)]
struct Cell {
    partition: RwLock<Partition>,
    /// As of the last write; read without the lock to find the largest partition.
    bytes: AtomicUsize,
    blocks: AtomicUsize,
}

#[derive(Debug, Default)]
struct Partition {
    place: SinkPlace,
    days: BTreeMap<(MetricTableId, Day), DayBlocks>,
    values: SecondChance<Held>,
    block_bytes: usize,
    /// Of markers and days.
    directory_bytes: usize,
    /// Set if absent days may have had blocks: their newest version.
    lost: Option<Tip>,
    /// Of the last record.
    base: Tip,
}

#[derive(Debug, Default)]
struct DayBlocks {
    held: HashMap<Key, SlotId>,
    /// Markers of evicted blocks, with their version.
    evicted: HashMap<Key, Tip>,
    /// Set if absent keys may have had blocks: their newest version.
    lost: Option<Tip>,
}

impl DayBlocks {
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.evicted.is_empty() && self.lost.is_none()
    }
}

#[derive(Debug)]
struct Held {
    key: BlockKey,
    block: StoredBlock,
}

impl Held {
    fn size(&self) -> usize {
        self.key.key.as_bytes().len() + self.block.rows.len() + BLOCK_OVERHEAD
    }
}

/// What the cache holds, for status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CacheUsage {
    pub bytes: u64,
    pub limit_bytes: u64,
    pub blocks: u64,
    /// Since the start.
    pub evictions: u64,
}

impl MemoryCache {
    pub fn new(partitions: u16, limit_bytes: usize) -> Self {
        let cells = (0..partitions).map(|_| Cell::default()).collect();
        let (bytes, evictions) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self { cells, limit_bytes, bytes, evictions, up: AtomicBool::new(true) }
    }

    /// While it is down every call fails; for tests.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }

    /// Comes back empty, as a restarted cache does; for tests.
    pub fn clear(&self, id: PartitionId) {
        let cell = &self.cells[usize::from(id.0)];
        let mut partition = write(&cell.partition);
        *partition = Partition::default();
        self.account(cell, &partition);
    }

    pub fn usage(&self) -> CacheUsage {
        CacheUsage {
            bytes: self.bytes.load(Ordering::Relaxed) as u64,
            limit_bytes: self.limit_bytes as u64,
            blocks: self.cells.iter().map(|cell| cell.blocks.load(Ordering::Relaxed) as u64).sum(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    fn check_up(&self) -> Result<(), TierError> {
        match self.up.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(TierError::Unavailable { tier: TIER, reason: "it is down".into() }),
        }
    }

    fn write_now(&self, id: PartitionId, sink_write: SinkWrite) -> Result<(), TierError> {
        self.check_up()?;
        let cell = &self.cells[usize::from(id.0)];
        {
            let mut partition = write(&cell.partition);
            partition.place.check(TIER, &sink_write)?;
            partition.place.announce(&sink_write.announce);
            for (key, block) in sink_write.blocks {
                partition.put(key, block);
            }
            for key in &sink_write.remove {
                partition.remove(key);
            }
            if let Some(record) = &sink_write.record {
                partition.rebase(record.base);
            }
            partition.place.accept(sink_write.tip, sink_write.record, &sink_write.forget);
            partition.bound_directory(self.directory_limit());
            self.account(cell, &partition);
        }
        self.shrink();
        Ok(())
    }

    /// Carries a partition's sizes over to where they are read without its lock.
    fn account(&self, cell: &Cell, partition: &Partition) {
        let bytes = partition.block_bytes + partition.directory_bytes;
        let before = cell.bytes.swap(bytes, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes.fetch_sub(before, Ordering::Relaxed);
        cell.blocks.store(partition.values.len(), Ordering::Relaxed);
    }

    fn directory_limit(&self) -> usize {
        self.limit_bytes / DIRECTORY_PART / self.cells.len()
    }

    /// Evicts from the largest partitions until the limit is kept.
    fn shrink(&self) {
        while self.bytes.load(Ordering::Relaxed) > self.limit_bytes {
            let largest = self.cells.iter().max_by_key(|cell| cell.bytes.load(Ordering::Relaxed));
            let cell = largest.expect("there is at least one partition");
            let mut partition = write(&cell.partition);
            let before = partition.block_bytes + partition.directory_bytes;
            // Another writer may have made room while this one waited for the lock.
            let surplus = self.bytes.load(Ordering::Relaxed).saturating_sub(self.limit_bytes);
            let enough = before.saturating_sub(surplus);
            let mut evictions = 0;
            while partition.block_bytes + partition.directory_bytes > enough && partition.evict_one() {
                partition.bound_directory(self.directory_limit());
                evictions += 1;
            }
            self.evictions.fetch_add(evictions, Ordering::Relaxed);
            self.account(cell, &partition);
            if surplus > 0 && evictions == 0 {
                // No block is left in the largest: the rest are directories, which are bounded by themselves.
                return;
            }
        }
    }

    fn read_now(&self, id: PartitionId, query: &SinkQuery) -> Result<SinkRead, TierError> {
        self.check_up()?;
        let partition = read(&self.cells[usize::from(id.0)].partition);
        let mut found = SinkRead { record: partition.place.record.clone(), ..SinkRead::default() };
        if query.days.is_empty() {
            return Ok(found);
        }
        match &query.keys {
            Some(keys) => {
                let mut keys: Vec<&Key> = keys.iter().collect();
                keys.sort_unstable();
                keys.dedup();
                partition.points(query, &keys, &mut found);
            }
            None => partition.range(query, &mut found),
        }
        Ok(found)
    }
}

impl Partition {
    fn put(&mut self, key: BlockKey, block: StoredBlock) {
        // Copied: a slice would keep the whole buffer alive that it was cut from, and the limit would mean nothing.
        let block = StoredBlock { version: block.version, rows: Bytes::copy_from_slice(&block.rows) };
        let day = self.days.entry((key.table, key.day)).or_insert_with(|| {
            self.directory_bytes += DAY_OVERHEAD;
            // A day that comes back to a lossy partition may have had blocks before.
            DayBlocks { lost: self.lost, ..DayBlocks::default() }
        });
        if let Some(&slot) = day.held.get(&key.key) {
            let held = self.values.get_mut(slot);
            self.block_bytes = self.block_bytes + block.rows.len() - held.block.rows.len();
            held.block = block;
            return;
        }
        if day.evicted.remove(&key.key).is_some() {
            self.directory_bytes -= marker_size(&key.key);
        }
        let owned = Key::from_bytes(Bytes::copy_from_slice(key.key.as_bytes())).expect("it was a key");
        let held = Held { key: BlockKey { key: owned.clone(), ..key }, block };
        self.block_bytes += held.size();
        day.held.insert(owned, self.values.insert(held));
    }

    /// The block does not exist any more: from now on its absence is known.
    fn remove(&mut self, key: &BlockKey) {
        let Some(day) = self.days.get_mut(&(key.table, key.day)) else {
            return;
        };
        if let Some(slot) = day.held.remove(&key.key) {
            self.block_bytes -= self.values.remove(slot).size();
        }
        if day.evicted.remove(&key.key).is_some() {
            self.directory_bytes -= marker_size(&key.key);
        }
        if day.is_empty() {
            self.days.remove(&(key.table, key.day));
            self.directory_bytes -= DAY_OVERHEAD;
        }
    }

    fn evict_one(&mut self) -> bool {
        let Some((_, Held { key, block })) = self.values.evict() else {
            return false;
        };
        self.block_bytes -= key.key.as_bytes().len() + block.rows.len() + BLOCK_OVERHEAD;
        let day = self.days.get_mut(&(key.table, key.day)).expect("a held block's day is in the directory");
        day.held.remove(&key.key);
        if day.lost.is_some() {
            day.lost = day.lost.max(Some(block.version));
        } else {
            self.directory_bytes += marker_size(&key.key);
            day.evicted.insert(key.key, block.version);
        }
        true
    }

    /// Keeps the directory within `limit`: first the markers of a day go, those of the fullest first, then empty days.
    fn bound_directory(&mut self, limit: usize) {
        while self.directory_bytes > limit {
            let fullest = self.days.values_mut().max_by_key(|day| day.evicted.len());
            let Some(day) = fullest.filter(|day| !day.evicted.is_empty()) else {
                return self.drop_empty_days();
            };
            for (key, version) in std::mem::take(&mut day.evicted) {
                self.directory_bytes -= marker_size(&key);
                day.lost = day.lost.max(Some(version));
            }
        }
    }

    fn drop_empty_days(&mut self) {
        self.days.retain(|_, day| {
            if day.held.is_empty() {
                self.lost = self.lost.max(day.lost);
                self.directory_bytes -= DAY_OVERHEAD;
            }
            !day.held.is_empty()
        });
    }

    /// A record's owner has said again all that it knows: what is older than its base does not exist any more.
    fn rebase(&mut self, base: Tip) {
        if base <= self.base {
            return;
        }
        self.base = base;
        let settled = |lost: Option<Tip>| lost.filter(|version| *version >= base);
        self.lost = settled(self.lost);
        self.days.retain(|_, day| {
            day.lost = settled(day.lost);
            day.evicted.retain(|key, version| {
                let kept = *version >= base;
                self.directory_bytes -= if kept { 0 } else { marker_size(key) };
                kept
            });
            day.held.retain(|_, slot| {
                let kept = self.values.peek(*slot).block.version >= base;
                self.block_bytes -= if kept { 0 } else { self.values.remove(*slot).size() };
                kept
            });
            self.directory_bytes -= if day.is_empty() { DAY_OVERHEAD } else { 0 };
            !day.is_empty()
        });
    }

    fn days_in(&self, query: &SinkQuery) -> impl Iterator<Item = &DayBlocks> {
        self.days.range((query.table, *query.days.start())..=(query.table, *query.days.end())).map(|(_, day)| day)
    }

    fn points(&self, query: &SinkQuery, keys: &[&Key], found: &mut SinkRead) {
        let mut listed = 0;
        for day in self.days_in(query) {
            listed += 1;
            for &key in keys {
                match day.held.get(key) {
                    Some(&slot) => found.blocks.push(self.values.get(slot).to_pair()),
                    None => found.incomplete |= day.lost.is_some() || day.evicted.contains_key(key),
                }
            }
        }
        if self.lost.is_some() {
            // Any day that is not listed may have had blocks.
            let days = i64::from(*query.days.end()) - i64::from(*query.days.start()) + 1;
            found.incomplete |= listed < days;
        }
    }

    fn range(&self, query: &SinkQuery, found: &mut SinkRead) {
        found.incomplete = self.lost.is_some();
        for day in self.days_in(query) {
            found.incomplete |= day.lost.is_some() || !day.evicted.is_empty();
            // Not marked as used: where everything is, nothing is told apart.
            found.blocks.extend(day.held.values().map(|&slot| self.values.peek(slot).to_pair()));
        }
        found.blocks.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
    }
}

impl Held {
    fn to_pair(&self) -> (BlockKey, StoredBlock) {
        (self.key.clone(), self.block.clone())
    }
}

fn marker_size(key: &Key) -> usize {
    key.as_bytes().len() + MARKER_OVERHEAD
}

impl Sink for MemoryCache {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        let standing = || read(&self.cells[usize::from(partition.0)].partition).place.standing();
        ready(self.check_up().map(|()| standing())).boxed()
    }

    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()> {
        ready(self.write_now(partition, write)).boxed()
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        ready(self.read_now(partition, &query)).boxed()
    }
}
