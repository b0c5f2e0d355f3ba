//! The KV tier in an embedded store, with the heads in memory.
//!
//! Invariant: a chunk is appended when its link is written; the link holds all that the chunk changes in the head. So
//! after a crash the head is that of the last link, whatever else was lost.
//!
//! | key | value |
//! |---|---|
//! | `c`, partition (u16 be), epoch, number (u64 be) | the chunk, in the value log; written before its link |
//! | `l`, partition, epoch, number | `Link`: predecessor, time, what changes in the head |
//! | `a`, partition, source (bincode) | progress of a source, as of the checkpoint or later |
//! | `h`, partition | `Checkpoint`: tip and offset; links after it are applied again when the store is opened |
//! | `s`, partition | epoch (u64 le), snapshot, CRC-32 |

use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, RwLock};

use futures::FutureExt;
use tracing::warn;

use super::embedded_place::{Link, Place, chunk_key, partition_key, snapshot_epoch, tip_of};
use super::{Append, ChunkRead, Head, Kv, Snapshot};
use crate::locks::{lock, read, write};
use crate::model::batch::Chunk;
use crate::model::codec::{self, CodecError};
use crate::model::id::{PartitionId, Tip};
use crate::sled_store::{SledStore, StoreOptions};
use crate::tier::{TierError, TierFuture, TierUsage, check_chain};

const TIER: &str = "kv";
/// What a crash may lose; the chain detects it.
const FLUSH_EVERY_MS: u64 = 300;
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

/// How far a trim has come.
enum Trimmed {
    All,
    Some,
    /// A checkpoint waits for a flush.
    NotBeforeFlush,
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
        self.store.append(&chunk_key(b'c', id, chunk.id), &chunk.encode())?;
        self.store.put(&chunk_key(b'l', id, chunk.id), &codec::encode(&link))?;
        place.apply(chunk.id, &link);
        // The chunk is appended whatever becomes of this.
        if let Err(error) = place.tend(&self.store, id) {
            warn!(partition = id.0, %error, "kv checkpoint failed");
        }
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

    /// Forgets a step of the chunks that may go.
    fn trim_step(&self, id: PartitionId, through: Tip, before_ms: i64) -> Result<Trimmed, TierError> {
        let partition = self.partition(id);
        let _sweeping = write(&partition.sweep);
        let mut place = lock(&partition.place);
        let through = through.min(place.head.tip);
        if through <= place.head.oldest_previous {
            return Ok(Trimmed::All);
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
            return Ok(Trimmed::All);
        };
        if place.checkpoint < last {
            place.tend(&self.store, id)?;
        }
        if place.checkpoint < last {
            // These links are the only place where their changes of the head are stored.
            place.prepare(&self.store);
            return Ok(Trimmed::NotBeforeFlush);
        }
        place.head.oldest_previous = last;
        for &chunk in &old {
            self.store.remove(&chunk_key(b'l', id, chunk))?;
            self.store.remove(&chunk_key(b'c', id, chunk))?;
        }
        Ok(if old.len() == TRIM_STEP { Trimmed::Some } else { Trimmed::All })
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
            loop {
                match self.trim_step(partition, through, before_ms)? {
                    Trimmed::All => break,
                    Trimmed::Some => tokio::task::yield_now().await,
                    Trimmed::NotBeforeFlush => self.store.flush().await?,
                }
            }
            while self.store.sweep()? {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        .boxed()
    }
}
