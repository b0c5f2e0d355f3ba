//! One sled database as the store of one tier: values of any size, durable when asked for.
//!
//! Invariant: after a crash the store holds a prefix of its writes in their order, and all of what a flush reported
//! durable; a value is there wholly or not at all, since one entry, written last, makes it so.
//!
//! What sled 0.34 would do by itself, and what is done here instead (each was read in its source):
//!
//! - `apply_batch` turns on a lock over *all* databases of the process, which each `flush` then holds until the disk
//!   has answered: every reader and writer would wait for the message queue's disk. So there are no batches here;
//!   adapters order their writes, and let a single entry commit.
//! - `flush` is `sync_file_range`: neither the file's new length nor the disk's own cache. So `sync_data` follows.
//! - Entries above a quarter of a segment, and leaves that grow so large (16 entries and more), become files of their
//!   own which the cache does not count. The cache also acts late, by pages. So entries are at most `PIECE_BYTES`.
//! - Buffers that wait for the disk are not bounded. So writers wait for room (`room`).
//! - A value is written seven to eleven times. So values that come and go in order stand beside it (`append`).
//! - The first IO error is for good, until the database is opened again: every later write fails, too.

use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use sled::{Db, IVec};
use tokio::sync::oneshot;
use tracing::warn;

use crate::model::codec::{self, CodecError};
use crate::sled_flush::{Flusher, Waiter};
use crate::sled_open::open_patiently;
use crate::sled_values::{self, Pointer, Swept, ValueLog};
use crate::tier::TierError;

/// Largest entry: a leaf of sled's tree holds up to about 20, and must stay below a quarter of a segment. Measured with
/// values of 2 to 100 KB: smaller entries cost time, larger ones memory, for the cache acts late by a number of leaves.
const PIECE_BYTES: usize = 16 << 10;
/// Before the first piece: the value's length (u32) and the generation of its further pieces (u64).
const LEAD_BYTES: usize = 12;
/// As the generation: the entry holds where in the value log the value is.
const LOGGED: u64 = u64::MAX;
/// First byte of the keys of further pieces; an adapter's own keys begin below.
const FURTHER: u8 = b'~';
/// The layout: what the store was created with.
const LAYOUT_KEY: &[u8] = b"!layout";
/// How often the store was opened: the upper half of generations.
const OPENED_KEY: &[u8] = b"!opened";
/// Up to where the value log is durable.
const SYNCED_KEY: &[u8] = b"!synced";
const VALUES_DIR: &str = "values";
/// Written but not yet flushed; above it writers wait.
const UNFLUSHED_BYTES_MOST: usize = 32 << 20;

/// The store of one tier.
#[derive(Debug)]
pub struct SledStore {
    tier: &'static str,
    // Before `db`: its thread holds a handle, too, and must end first.
    flusher: Flusher,
    db: Db,
    values: Arc<ValueLog>,
    flushing: Arc<Flushing>,
    generation: AtomicU64,
    dir: PathBuf,
}

/// What writers and the flush thread tell each other.
#[derive(Debug, Default)]
struct Flushing {
    /// Bytes written of which no flush has said yet that they are durable.
    unflushed: AtomicUsize,
    begun: AtomicU64,
    completed: AtomicU64,
}

/// A flush that covers everything written before it was given out.
#[derive(Debug, Clone, Copy)]
pub struct Ticket(u64);

/// How to open a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions<'a> {
    pub tier: &'static str,
    pub dir: &'a Path,
    pub partitions: u16,
    pub cache_bytes: usize,
    /// How much a crash may lose of what nobody waited for.
    pub flush_every_ms: u64,
}

impl SledStore {
    pub fn open(options: StoreOptions<'_>) -> Result<Self, TierError> {
        let tier = options.tier;
        let io_failed = |error: io::Error| unavailable(tier, error);
        let sled_failed = |error: sled::Error| unavailable(tier, error);
        let db = open_patiently(options)?;
        let file = File::open(options.dir.join("db")).map_err(io_failed)?;
        let stored = |key: &[u8]| db.get(key).map_err(sled_failed);
        let synced = stored(SYNCED_KEY)?.map_or(Ok(NOTHING), |bytes| read_control(tier, "synced", &bytes))?;
        let opened: u32 = stored(OPENED_KEY)?.map_or(Ok(0), |bytes| read_control(tier, "opened", &bytes))?;
        // A value written again must not share pieces with the one that it replaces, nor a place in the value log, not even
        // after a crash: so the number is durable before it is used.
        let generation = (u64::from(opened) + 1) << 32;
        db.insert(OPENED_KEY, codec::encode(&(opened + 1))).map_err(sled_failed)?;
        db.flush().map_err(sled_failed)?;
        // And what is read from now on must not vanish, even if the writer before died without having flushed it.
        file.sync_data().map_err(io_failed)?;
        let values = ValueLog::open(&options.dir.join(VALUES_DIR), synced, generation);
        let values = Arc::new(values.map_err(io_failed)?);
        let flushing = Arc::<Flushing>::default();
        let flush = flush_function(tier, db.clone(), file, Arc::clone(&values), Arc::clone(&flushing));
        let flusher = Flusher::start(tier, Duration::from_millis(options.flush_every_ms), flush)?;
        let generation = AtomicU64::new(generation);
        let store = Self { tier, flusher, db, values, flushing, generation, dir: options.dir.into() };
        store.check_layout(options.partitions)?;
        Ok(store)
    }

    fn check_layout(&self, partitions: u16) -> Result<(), TierError> {
        match self.get(LAYOUT_KEY)? {
            None => self.put(LAYOUT_KEY, &codec::encode(&partitions)),
            Some(bytes) => {
                let created: u16 = self.decoded("layout", codec::decode("layout", &bytes))?;
                let reason = format!("created with {created} partitions, opened with {partitions}");
                let same = created == partitions;
                self.decoded("layout", same.then_some(()).ok_or_else(|| CodecError::malformed("layout", reason)))
            }
        }
    }

    /// Sets `key` to `value`.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), TierError> {
        let (first, further) = value.split_at(value.len().min(PIECE_BYTES));
        let generation = match further {
            [] => 0,
            _ => self.generation.fetch_add(1, Ordering::Relaxed),
        };
        for (index, piece) in further.chunks(PIECE_BYTES).enumerate() {
            self.insert(&further_key(key, generation, index), piece)?;
        }
        // This makes the value be there.
        let before = self.insert(key, &entry(value.len(), generation, first))?;
        self.remove_further(key, before)
    }

    /// As `put`, for values that come in order, are not replaced, and are removed in about the same order.
    pub fn append(&self, key: &[u8], value: &[u8]) -> Result<(), TierError> {
        self.flushing.unflushed.fetch_add(value.len(), Ordering::Relaxed);
        let pointer = self.values.append(key, value);
        let pointer = pointer.map_err(|error| unavailable(self.tier, format!("{}: {error}", show_key(key))))?;
        self.insert(key, &entry(value.len(), LOGGED, &codec::to_bytes(&pointer)))?;
        Ok(())
    }

    /// Is there a value of `key` that was written, but is lost with the last writes before a crash? What was written after
    /// it with `append` is lost, too.
    pub fn is_lost(&self, key: &[u8]) -> Result<bool, TierError> {
        let entry = self.db.get(key).map_err(|error| self.failed(key, error))?;
        let pointer = entry.map(|entry| self.pointer(key, &entry)).transpose()?.flatten();
        Ok(pointer.is_some_and(|pointer| self.values.is_lost(pointer)))
    }

    /// Where in the value log an entry's value is, if it is there.
    fn pointer(&self, key: &[u8], entry: &[u8]) -> Result<Option<Pointer>, TierError> {
        match Lead::read(entry) {
            Some(Lead { generation: LOGGED, .. }) => {
                self.decoded(show_key(key), codec::from_bytes("pointer", &entry[LEAD_BYTES..])).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Gives a step of the disk space of removed values back. Is there more to look at?
    pub fn sweep(&self) -> Result<bool, TierError> {
        let is_live = |key: &[u8], pointer: Pointer| -> Result<bool, SweepError> {
            let entry = self.db.get(key).map_err(|error| self.failed(key, error))?;
            let found = entry.map(|entry| self.pointer(key, &entry)).transpose()?.flatten();
            Ok(found == Some(pointer))
        };
        let swept = self.values.sweep(is_live).map_err(|error| match error {
            SweepError::Tier(error) => error,
            SweepError::Io(error) => unavailable(self.tier, error),
        })?;
        if let Swept::Dead(file) = swept {
            let (tier, dir) = (self.tier, self.dir.join(VALUES_DIR));
            // Not before the removals are durable.
            self.after_flush(Box::new(move |result| {
                if let Err(error) = result.clone().map_or(Ok(()), |()| sled_values::delete(&dir, file)) {
                    warn!(tier, file, %error, "a dead file of values could not be deleted");
                }
            }));
        }
        Ok(swept != Swept::All)
    }

    /// Removes `key`; nothing happens if it is not there.
    pub fn remove(&self, key: &[u8]) -> Result<(), TierError> {
        self.flushing.unflushed.fetch_add(key.len(), Ordering::Relaxed);
        let before = self.db.remove(key).map_err(|error| self.failed(key, error))?;
        self.remove_further(key, before)
    }

    fn insert(&self, key: &[u8], entry: &[u8]) -> Result<Option<IVec>, TierError> {
        self.flushing.unflushed.fetch_add(key.len() + entry.len(), Ordering::Relaxed);
        self.db.insert(key, entry).map_err(|error| self.failed(key, error))
    }

    fn remove_further(&self, key: &[u8], entry: Option<IVec>) -> Result<(), TierError> {
        let Some(lead) = entry.as_deref().and_then(Lead::read).filter(|lead| lead.generation != LOGGED) else {
            return Ok(());
        };
        for index in 0..lead.pieces() {
            let key = further_key(key, lead.generation, index);
            self.db.remove(&key).map_err(|error| self.failed(&key, error))?;
        }
        Ok(())
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TierError> {
        match self.db.get(key).map_err(|error| self.failed(key, error))? {
            None => Ok(None),
            Some(entry) => self.assemble(key, &entry).map(Some),
        }
    }

    /// The first bytes of a value, at most `PIECE_BYTES`.
    pub fn get_first(&self, key: &[u8]) -> Result<Option<Bytes>, TierError> {
        let entry = self.db.get(key).map_err(|error| self.failed(key, error))?;
        Ok(entry.and_then(|entry| entry.get(LEAD_BYTES..).map(Bytes::copy_from_slice)))
    }

    fn assemble(&self, key: &[u8], entry: &[u8]) -> Result<Bytes, TierError> {
        let damaged = |reason| self.damaged(show_key(key), CodecError::malformed("stored value", reason));
        let lead = Lead::read(entry).ok_or_else(|| damaged("shorter than its lead"))?;
        if let Some(pointer) = self.pointer(key, entry)? {
            let value = self.values.read(pointer, key);
            let value = value.map_err(|error| unavailable(self.tier, format!("{}: {error}", show_key(key))))?;
            return value.ok_or_else(|| damaged("the value log has something else in its place"));
        }
        let mut value = Vec::with_capacity(lead.len.min(entry.len() + lead.pieces() * PIECE_BYTES));
        value.extend_from_slice(&entry[LEAD_BYTES..]);
        for index in 0..lead.pieces() {
            let key = further_key(key, lead.generation, index);
            let piece = self.db.get(&key).map_err(|error| self.failed(&key, error))?;
            value.extend_from_slice(&piece.ok_or_else(|| damaged("a piece is missing"))?);
        }
        match value.len() == lead.len {
            true => Ok(value.into()),
            false => Err(damaged("not as long as its lead says")),
        }
    }

    /// The keys of a range with their values, in order. Read as the iterator advances, not at one moment.
    pub fn scan<'a>(
        &'a self,
        range: impl RangeBounds<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<(IVec, Bytes), TierError>> + 'a {
        self.db.range(range).map(move |found| {
            let (key, entry) = found.map_err(|error| self.failed(b"scan", error))?;
            let value = self.assemble(&key, &entry)?;
            Ok((key, value))
        })
    }

    /// The keys of a range in order.
    pub fn keys<'a>(
        &'a self,
        range: impl RangeBounds<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<IVec, TierError>> + 'a {
        self.db.range(range).keys().map(move |found| found.map_err(|error| self.failed(b"scan", error)))
    }

    /// Is there room for another write that somebody will await with `after_flush`?
    pub fn has_room(&self) -> bool {
        self.flusher.has_room()
    }

    /// Calls `waiter` once everything written so far is durable.
    pub fn after_flush(&self, waiter: Waiter) {
        self.flusher.after_flush(waiter);
    }

    /// Waits while too much has been written that is not yet on disk.
    pub async fn room(&self) -> Result<(), TierError> {
        if self.flushing.unflushed.load(Ordering::Relaxed) < UNFLUSHED_BYTES_MOST {
            return Ok(());
        }
        self.flush().await
    }

    /// The next flush to begin.
    pub fn ticket(&self) -> Ticket {
        Ticket(self.flushing.begun.load(Ordering::SeqCst) + 1)
    }

    pub fn is_durable(&self, ticket: Ticket) -> bool {
        self.flushing.completed.load(Ordering::SeqCst) >= ticket.0
    }

    /// Resolves once everything written so far is durable.
    pub async fn flush(&self) -> Result<(), TierError> {
        let (done, flushed) = oneshot::channel();
        self.after_flush(Box::new(move |result| {
            // The one who waited may have gone.
            let _ = done.send(result.clone());
        }));
        flushed.await.unwrap_or_else(|_| Err(unavailable(self.tier, "the store was closed")))
    }

    /// Bytes of the store's files. Looks at the file system.
    pub fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0) + self.values.disk_bytes()
    }

    /// Names the place where a stored value does not decode.
    pub fn decoded<T>(&self, place: impl ToString, result: Result<T, CodecError>) -> Result<T, TierError> {
        result.map_err(|source| self.damaged(place, source))
    }

    pub fn damaged(&self, place: impl ToString, source: CodecError) -> TierError {
        TierError::Damaged { tier: self.tier, place: place.to_string(), source }
    }

    fn failed(&self, key: &[u8], error: sled::Error) -> TierError {
        match error {
            sled::Error::Corruption { .. } => {
                self.damaged(show_key(key), CodecError::malformed("sled page", "the file is damaged"))
            }
            error => unavailable(self.tier, format!("{}: {error}", show_key(key))),
        }
    }
}

/// Before anything is durable.
const NOTHING: Pointer = Pointer { file: 0, offset: 0 };

/// Why a sweep ended.
enum SweepError {
    Io(io::Error),
    Tier(TierError),
}

impl From<io::Error> for SweepError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TierError> for SweepError {
    fn from(error: TierError) -> Self {
        Self::Tier(error)
    }
}

fn read_control<T: DeserializeOwned>(tier: &'static str, name: &'static str, bytes: &[u8]) -> Result<T, TierError> {
    let damaged = |source| TierError::Damaged { tier, place: name.into(), source };
    codec::decode(name, bytes).map_err(damaged)
}

fn entry(len: usize, generation: u64, rest: &[u8]) -> Vec<u8> {
    let mut entry = Vec::with_capacity(LEAD_BYTES + rest.len());
    entry.extend_from_slice(&(len as u32).to_le_bytes());
    entry.extend_from_slice(&generation.to_le_bytes());
    entry.extend_from_slice(rest);
    entry
}

/// What stands before a value's first piece.
#[derive(Debug, Clone, Copy)]
struct Lead {
    len: usize,
    generation: u64,
}

impl Lead {
    fn read(entry: &[u8]) -> Option<Self> {
        let (len, rest) = entry.split_first_chunk::<4>()?;
        let (generation, _) = rest.split_first_chunk::<8>()?;
        Some(Self { len: u32::from_le_bytes(*len) as usize, generation: u64::from_le_bytes(*generation) })
    }

    /// How many pieces follow the first.
    fn pieces(self) -> usize {
        self.len.saturating_sub(PIECE_BYTES).div_ceil(PIECE_BYTES)
    }
}

/// Of a fixed length beside the key's, so that different keys never give the same.
fn further_key(key: &[u8], generation: u64, index: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 13);
    bytes.push(FURTHER);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes.extend_from_slice(&(index as u32).to_be_bytes());
    bytes
}

/// All keys that begin with `prefix`.
pub fn prefixed(prefix: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return (Bound::Included(prefix.to_vec()), Bound::Excluded(end));
        }
    }
    (Bound::Included(prefix.to_vec()), Bound::Unbounded)
}

fn show_key(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

fn unavailable(tier: &'static str, reason: impl ToString) -> TierError {
    TierError::Unavailable { tier, reason: reason.to_string() }
}

fn flush_function(
    tier: &'static str,
    db: Db,
    file: File,
    values: Arc<ValueLog>,
    flushing: Arc<Flushing>,
) -> impl Fn() -> Result<(), TierError> + Send + 'static {
    move || {
        let begun = flushing.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let covered = flushing.unflushed.load(Ordering::SeqCst);
        if covered > 0 {
            // Values first: what sled says of them must be so.
            let synced = values.sync().map_err(|error| unavailable(tier, error))?;
            db.insert(SYNCED_KEY, codec::encode(&synced)).map_err(|error| unavailable(tier, error))?;
            db.flush().map_err(|error| unavailable(tier, error))?;
            file.sync_data().map_err(|error| unavailable(tier, error))?;
        }
        flushing.unflushed.fetch_sub(covered, Ordering::SeqCst);
        flushing.completed.store(begun, Ordering::SeqCst);
        Ok(())
    }
}
