//! The KV tier in an embedded store, with the heads in memory.
//!
//! Invariant: a chunk is appended when its link is written; the link holds all that the chunk changes in the head. So
//! after a crash the head is that of the last link, whatever else was lost.
//!
//! | key | value |
//! |---|---|
//! | `c`, partition (u16 be), epoch, number (u64 be) | the chunk; written before its link |
//! | `l`, partition, epoch, number | `Link`: predecessor, time, what changes in the head |
//! | `a`, partition, source (bincode) | progress of a source, as of the checkpoint or later |
//! | `h`, partition | `Checkpoint`: tip and offset; links after it are applied again when the store is opened |
//! | `s`, partition | epoch (u64 le), snapshot, CRC-32 |

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, RwLock};

use bytes::Bytes;
use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{Append, ChunkRead, Head, Kv, Snapshot};
use crate::locks::{lock, read, write};
use crate::model::applied::{AppliedDelta, Progress};
use crate::model::batch::Chunk;
use crate::model::codec::{self, CodecError};
use crate::model::id::{Epoch, PartitionId, SourceId, Tip};
use crate::mq::Offset;
use crate::sled_store::{SledStore, StoreOptions, prefixed};
use crate::tier::{TierError, TierFuture, TierUsage, check_chain};

const TIER: &str = "kv";
/// What a crash may lose; the chain detects it.
const FLUSH_EVERY_MS: u64 = 300;
/// Links to apply again when the store is opened, and sources to write at a checkpoint.
const CHECKPOINT_LINKS: usize = 1024;
const CHECKPOINT_SOURCES: usize = 4096;
/// Chunks removed under one hold of a partition's locks.
const TRIM_STEP: usize = 32;

/// The embedded KV tier.
#[derive(Debug)]
pub struct EmbeddedKv {
    store: SledStore,
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    place: Mutex<Place>,
    /// Readers of chunks share it, the trimmer owns it: a chunk does not vanish under a reader.
    sweep: RwLock<()>,
}

#[derive(Debug, Default)]
struct Place {
    head: Head,
    snapshot_epoch: Option<Epoch>,
    /// Up to where the stored sources certainly are.
    checkpoint: Tip,
    links_since: usize,
    /// Sources that changed, or were forgotten, since the checkpoint.
    dirty: BTreeSet<SourceId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Link {
    previous: Tip,
    at_ms: i64,
    offset: Offset,
    applied: AppliedDelta,
    forget: Vec<SourceId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    tip: Tip,
    offset: Offset,
}

impl Place {
    fn apply(&mut self, id: Tip, link: &Link) {
        self.head.tip = id;
        self.head.offset = link.offset;
        self.head.applied.merge_delta(&link.applied);
        self.head.applied.forget(&link.forget);
        self.dirty.extend(link.applied.iter().map(|(source, _)| source.clone()));
        self.dirty.extend(link.forget.iter().cloned());
        self.links_since += 1;
    }
}

impl EmbeddedKv {
    pub fn open(dir: &Path, partitions: u16, cache_bytes: usize) -> Result<Self, TierError> {
        let options = StoreOptions { tier: TIER, dir, partitions, cache_bytes, flush_every_ms: FLUSH_EVERY_MS };
        let store = SledStore::open(options)?;
        let partitions = (0..partitions).map(|id| {
            let place = Mutex::new(Place::open(&store, PartitionId(id))?);
            Ok(Partition { place, sweep: RwLock::new(()) })
        });
        let partitions = partitions.collect::<Result<_, _>>()?;
        Ok(Self { store, partitions })
    }

    /// Resolves once everything written so far is durable.
    pub async fn flush(&self) -> Result<(), TierError> {
        self.store.flush().await
    }

    /// Looks at the file system.
    pub fn usage(&self) -> TierUsage {
        TierUsage { disk_bytes: self.store.disk_bytes(), memory_bytes: 0 }
    }

    fn partition(&self, id: PartitionId) -> &Partition {
        &self.partitions[usize::from(id.0)]
    }

    fn append_now(&self, id: PartitionId, append: Append) -> Result<(), TierError> {
        let Append { chunk, offset, applied, forget } = append;
        let mut place = lock(&self.partition(id).place);
        check_chain(TIER, place.head.tip, chunk.previous, chunk.id)?;
        let link = Link { previous: chunk.previous, at_ms: chunk.at_ms, offset, applied, forget };
        self.store.put(&chunk_key(b'c', id, chunk.id), &chunk.encode())?;
        self.store.put(&chunk_key(b'l', id, chunk.id), &codec::encode(&link))?;
        place.apply(chunk.id, &link);
        if place.links_since >= CHECKPOINT_LINKS || place.dirty.len() >= CHECKPOINT_SOURCES {
            // The chunk is appended whatever becomes of this.
            if let Err(error) = self.checkpoint(id, &mut place) {
                warn!(partition = id.0, %error, "kv checkpoint failed");
            }
        }
        Ok(())
    }

    /// Writes the sources that changed, then how far that is.
    fn checkpoint(&self, id: PartitionId, place: &mut Place) -> Result<(), TierError> {
        for source in &place.dirty {
            let key = source_key(id, source);
            match place.head.applied.get(source) {
                Some(progress) => self.store.put(&key, &codec::encode(&(source, progress)))?,
                None => self.store.remove(&key)?,
            }
        }
        let Head { tip, offset, .. } = place.head;
        self.store.put(&partition_key(b'h', id), &codec::encode(&Checkpoint { tip, offset }))?;
        place.dirty.clear();
        place.links_since = 0;
        place.checkpoint = tip;
        Ok(())
    }

    fn chunks_now(&self, id: PartitionId, after: Tip, max_bytes: usize) -> Result<ChunkRead, TierError> {
        let partition = self.partition(id);
        let _no_sweep = read(&partition.sweep);
        let (tip, oldest_previous) = {
            let place = lock(&partition.place);
            (place.head.tip, place.head.oldest_previous)
        };
        let mut previous = if after == Tip::default() { oldest_previous } else { after };
        if previous == tip {
            return Ok(ChunkRead::Next(Vec::new()));
        }
        if previous > tip || previous < oldest_previous {
            return Ok(ChunkRead::Broken);
        }
        let keys = (Bound::Excluded(chunk_key(b'c', id, previous)), Bound::Included(chunk_key(b'c', id, tip)));
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut bytes = 0;
        for found in self.store.scan(keys) {
            let (_, value) = found?;
            let place = || format!("partition {id} chunk after {previous}");
            let chunk = self.store.decoded(place(), Chunk::decode(&value))?;
            if chunk.previous != previous {
                return match chunks.is_empty() {
                    true => Ok(ChunkRead::Broken),
                    false => Err(self.store.damaged(place(), CodecError::malformed("chain", "a chunk is missing"))),
                };
            }
            previous = chunk.id;
            bytes += chunk.size();
            chunks.push(chunk);
            if bytes >= max_bytes {
                break;
            }
        }
        match chunks.is_empty() {
            true => {
                let place = format!("partition {id} chunk after {previous}");
                Err(self.store.damaged(place, CodecError::malformed("chain", "the tip's chunk is missing")))
            }
            false => Ok(ChunkRead::Next(chunks)),
        }
    }

    /// Forgets a step of the chunks that may go. Is there more?
    fn trim_step(&self, id: PartitionId, through: Tip, before_ms: i64) -> Result<bool, TierError> {
        let partition = self.partition(id);
        let _sweeping = write(&partition.sweep);
        let mut place = lock(&partition.place);
        let through = through.min(place.head.tip);
        if through <= place.head.oldest_previous {
            return Ok(false);
        }
        let keys = (
            Bound::Excluded(chunk_key(b'l', id, place.head.oldest_previous)),
            Bound::Included(chunk_key(b'l', id, through)),
        );
        let mut old = Vec::new();
        for found in self.store.scan(keys).take(TRIM_STEP) {
            let (key, value) = found?;
            let link: Link = self.store.decoded(format!("partition {id} link"), codec::decode("link", &value))?;
            if link.at_ms >= before_ms {
                break;
            }
            old.push(tip_of(&key));
        }
        let Some(&last) = old.last() else {
            return Ok(false);
        };
        if place.checkpoint < last {
            // These links are the only place where their changes of the head are stored.
            self.checkpoint(id, &mut place)?;
        }
        place.head.oldest_previous = last;
        for &chunk in &old {
            self.store.remove(&chunk_key(b'l', id, chunk))?;
            self.store.remove(&chunk_key(b'c', id, chunk))?;
        }
        Ok(old.len() == TRIM_STEP)
    }

    fn put_snapshot_now(&self, id: PartitionId, snapshot: Snapshot) -> Result<(), TierError> {
        let mut place = lock(&self.partition(id).place);
        if let Some(epoch) = place.snapshot_epoch.filter(|epoch| *epoch > snapshot.epoch) {
            return Err(TierError::Fenced { tier: TIER, found: Tip::new(epoch, 0) });
        }
        let mut value = Vec::with_capacity(snapshot.state.len() + 12);
        value.extend_from_slice(&snapshot.epoch.to_le_bytes());
        value.extend_from_slice(&snapshot.state);
        codec::seal(&mut value);
        self.store.put(&partition_key(b's', id), &value)?;
        place.snapshot_epoch = Some(snapshot.epoch);
        Ok(())
    }

    fn snapshot_now(&self, id: PartitionId) -> Result<Option<Snapshot>, TierError> {
        // Under the lock: a snapshot that is being replaced would look damaged.
        let _place = lock(&self.partition(id).place);
        let Some(value) = self.store.get(&partition_key(b's', id))? else {
            return Ok(None);
        };
        let place = || format!("partition {id} snapshot");
        let len = self.store.decoded(place(), codec::unseal("snapshot", &value))?.len();
        let epoch = self.store.decoded(place(), snapshot_epoch(&value))?;
        let state = value.slice(8..len.max(8));
        Ok(Some(Snapshot { epoch, state }))
    }
}

impl Place {
    fn open(store: &SledStore, id: PartitionId) -> Result<Self, TierError> {
        let mut place = Self::default();
        let named = |what: &str| format!("partition {id} {what}");
        for found in store.scan(prefixed(&partition_key(b'a', id))) {
            let (_, value) = found?;
            let source: (SourceId, Progress) = store.decoded(named("source"), codec::decode("source", &value))?;
            place.head.applied.merge_delta(&[source]);
        }
        if let Some(value) = store.get(&partition_key(b'h', id))? {
            let checkpoint: Checkpoint = store.decoded(named("checkpoint"), codec::decode("checkpoint", &value))?;
            place.checkpoint = checkpoint.tip;
            (place.head.tip, place.head.offset) = (checkpoint.tip, checkpoint.offset);
        }
        let links = prefixed(&partition_key(b'l', id));
        place.head.oldest_previous = match store.scan(links.clone()).next().transpose()? {
            Some((_, value)) => store.decoded(named("link"), codec::decode::<Link>("link", &value))?.previous,
            None => place.checkpoint,
        };
        for found in store.scan((Bound::Excluded(chunk_key(b'l', id, place.checkpoint)), links.1)) {
            let (key, value) = found?;
            place.apply(tip_of(&key), &store.decoded(named("link"), codec::decode("link", &value))?);
        }
        if let Some(value) = store.get_first(&partition_key(b's', id))? {
            place.snapshot_epoch = Some(store.decoded(named("snapshot"), snapshot_epoch(&value))?);
        }
        place.remove_unlinked(store, id)?;
        Ok(place)
    }

    /// Removes chunks without a link, which a crash left: being appended, or being trimmed.
    fn remove_unlinked(&self, store: &SledStore, id: PartitionId) -> Result<(), TierError> {
        let (first, end) = prefixed(&partition_key(b'c', id));
        let trimmed = (first, Bound::Included(chunk_key(b'c', id, self.head.oldest_previous)));
        let begun = (Bound::Excluded(chunk_key(b'c', id, self.head.tip)), end);
        let keys = store.keys(trimmed).chain(store.keys(begun)).collect::<Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(|key| store.remove(key))
    }
}

impl Kv for EmbeddedKv {
    fn head(&self, partition: PartitionId) -> TierFuture<'_, Head> {
        async move { Ok(lock(&self.partition(partition).place).head.clone()) }.boxed()
    }

    fn append(&self, partition: PartitionId, append: Append) -> TierFuture<'_, ()> {
        async move {
            self.store.room().await?;
            self.append_now(partition, append)
        }
        .boxed()
    }

    fn chunks(&self, partition: PartitionId, after: Tip, max_bytes: usize) -> TierFuture<'_, ChunkRead> {
        async move { self.chunks_now(partition, after, max_bytes) }.boxed()
    }

    fn put_snapshot(&self, partition: PartitionId, snapshot: Snapshot) -> TierFuture<'_, ()> {
        async move {
            self.store.room().await?;
            self.put_snapshot_now(partition, snapshot)
        }
        .boxed()
    }

    fn snapshot(&self, partition: PartitionId) -> TierFuture<'_, Option<Snapshot>> {
        async move { self.snapshot_now(partition) }.boxed()
    }

    fn trim(&self, partition: PartitionId, through: Tip, before_ms: i64) -> TierFuture<'_, ()> {
        async move {
            while self.trim_step(partition, through, before_ms)? {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        .boxed()
    }
}

fn partition_key(kind: u8, partition: PartitionId) -> Vec<u8> {
    let mut key = Vec::with_capacity(19);
    key.push(kind);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

fn chunk_key(kind: u8, partition: PartitionId, id: Tip) -> Vec<u8> {
    let mut key = partition_key(kind, partition);
    key.extend_from_slice(&id.epoch.to_be_bytes());
    key.extend_from_slice(&id.number.to_be_bytes());
    key
}

fn tip_of(key: &[u8]) -> Tip {
    let (rest, number) = key.split_last_chunk::<8>().expect("keys of chunks end with epoch and number");
    let epoch = rest.last_chunk::<8>().expect("keys of chunks end with epoch and number");
    Tip::new(u64::from_be_bytes(*epoch), u64::from_be_bytes(*number))
}

fn source_key(partition: PartitionId, source: &SourceId) -> Vec<u8> {
    let mut key = partition_key(b'a', partition);
    key.extend_from_slice(&codec::to_bytes(source));
    key
}

fn snapshot_epoch(value: &Bytes) -> Result<Epoch, CodecError> {
    let epoch = value.first_chunk::<8>().ok_or(CodecError::Truncated { what: "snapshot", len: value.len() })?;
    Ok(u64::from_le_bytes(*epoch))
}
