//! One partition's place in the embedded KV tier: its head in memory, and how that is found again.
//!
//! Invariant: a link is applied to the head only if its chunk is there; a checkpoint covers only what is durable, so that
//! a crash never leaves a checkpoint beyond the chunks.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Head;
use crate::model::applied::{AppliedDelta, Progress};
use crate::model::codec::{self, CodecError};
use crate::model::id::{Epoch, PartitionId, SourceId, Tip};
use crate::mq::Offset;
use crate::sled_store::{SledStore, Ticket, prefixed};
use crate::tier::TierError;

/// Links to apply again when the store is opened, and sources to write at a checkpoint.
const CHECKPOINT_LINKS: usize = 1024;
const CHECKPOINT_SOURCES: usize = 4096;

#[derive(Debug, Default)]
pub struct Place {
    pub head: Head,
    pub snapshot_epoch: Option<Epoch>,
    /// Up to where the stored sources certainly are.
    pub checkpoint: Tip,
    links_since: usize,
    /// Sources that changed, or were forgotten, since the checkpoint that is prepared or written.
    dirty: BTreeSet<SourceId>,
    prepared: Option<Prepared>,
}

/// A checkpoint that waits until all that it covers is durable.
#[derive(Debug)]
struct Prepared {
    at: Checkpoint,
    sources: Vec<(SourceId, Option<Progress>)>,
    ticket: Ticket,
}

/// What a chunk changes in the head.
#[derive(Debug, Serialize, Deserialize)]
pub struct Link {
    pub previous: Tip,
    pub at_ms: i64,
    pub offset: Offset,
    pub applied: AppliedDelta,
    pub forget: Vec<SourceId>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Checkpoint {
    tip: Tip,
    offset: Offset,
}

impl Place {
    pub fn open(store: &SledStore, id: PartitionId) -> Result<Self, TierError> {
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
            let tip = tip_of(&key);
            if store.is_lost(&chunk_key(b'c', id, tip))? {
                break;
            }
            place.apply(tip, &store.decoded(named("link"), codec::decode("link", &value))?);
        }
        if let Some(value) = store.get_first(&partition_key(b's', id))? {
            place.snapshot_epoch = Some(store.decoded(named("snapshot"), snapshot_epoch(&value))?);
        }
        place.remove_unlinked(store, id)?;
        Ok(place)
    }

    /// Removes what a crash left: links without their chunk, and chunks being appended or being trimmed.
    fn remove_unlinked(&self, store: &SledStore, id: PartitionId) -> Result<(), TierError> {
        let after = |kind| (Bound::Excluded(chunk_key(kind, id, self.head.tip)), prefixed(&partition_key(kind, id)).1);
        let (first, _) = prefixed(&partition_key(b'c', id));
        let trimmed = (first, Bound::Included(chunk_key(b'c', id, self.head.oldest_previous)));
        let keys = store.keys(after(b'l')).chain(store.keys(trimmed)).chain(store.keys(after(b'c')));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        keys.iter().try_for_each(|key| store.remove(key))
    }

    /// Moves the head by a link.
    pub fn apply(&mut self, id: Tip, link: &Link) {
        self.head.tip = id;
        self.head.offset = link.offset;
        self.head.applied.merge_delta(&link.applied);
        self.head.applied.forget(&link.forget);
        self.dirty.extend(link.applied.iter().map(|(source, _)| source.clone()));
        self.dirty.extend(link.forget.iter().cloned());
        self.links_since += 1;
    }

    /// Prepares a checkpoint when enough has changed, and writes one whose time has come.
    pub fn tend(&mut self, store: &SledStore, id: PartitionId) -> Result<(), TierError> {
        if self.links_since >= CHECKPOINT_LINKS || self.dirty.len() >= CHECKPOINT_SOURCES {
            self.prepare(store);
        }
        match &self.prepared {
            Some(prepared) if store.is_durable(prepared.ticket) => self.write(store, id),
            _ => Ok(()),
        }
    }

    /// Prepares a checkpoint of the head as it is, unless one waits. `tend` writes it after a flush.
    pub fn prepare(&mut self, store: &SledStore) {
        if self.prepared.is_some() {
            return;
        }
        let applied = &self.head.applied;
        let dirty = std::mem::take(&mut self.dirty).into_iter();
        let sources =
            dirty.map(|source| (applied.get(&source).cloned(), source)).map(|(progress, source)| (source, progress));
        let at = Checkpoint { tip: self.head.tip, offset: self.head.offset };
        self.prepared = Some(Prepared { at, sources: sources.collect(), ticket: store.ticket() });
        self.links_since = 0;
    }

    /// Writes the sources that changed, then how far that is.
    fn write(&mut self, store: &SledStore, id: PartitionId) -> Result<(), TierError> {
        let Some(Prepared { at, sources, .. }) = &self.prepared else { return Ok(()) };
        for (source, progress) in sources {
            let key = source_key(id, source);
            match progress {
                Some(progress) => store.put(&key, &codec::encode(&(source, progress)))?,
                None => store.remove(&key)?,
            }
        }
        store.put(&partition_key(b'h', id), &codec::encode(at))?;
        self.checkpoint = at.tip;
        self.prepared = None;
        Ok(())
    }
}

pub fn partition_key(kind: u8, partition: PartitionId) -> Vec<u8> {
    let mut key = Vec::with_capacity(19);
    key.push(kind);
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

pub fn chunk_key(kind: u8, partition: PartitionId, id: Tip) -> Vec<u8> {
    let mut key = partition_key(kind, partition);
    key.extend_from_slice(&id.epoch.to_be_bytes());
    key.extend_from_slice(&id.number.to_be_bytes());
    key
}

pub fn tip_of(key: &[u8]) -> Tip {
    let (rest, number) = key.split_last_chunk::<8>().expect("keys of chunks end with epoch and number");
    let epoch = rest.last_chunk::<8>().expect("keys of chunks end with epoch and number");
    Tip::new(u64::from_be_bytes(*epoch), u64::from_be_bytes(*number))
}

fn source_key(partition: PartitionId, source: &SourceId) -> Vec<u8> {
    let mut key = partition_key(b'a', partition);
    key.extend_from_slice(&codec::to_bytes(source));
    key
}

pub fn snapshot_epoch(value: &Bytes) -> Result<Epoch, CodecError> {
    let epoch = value.first_chunk::<8>().ok_or(CodecError::Truncated { what: "snapshot", len: value.len() })?;
    Ok(u64::from_le_bytes(*epoch))
}
