//! A master's journal in memory, for tests and the simulator. Still encodes everything through the codec.
//!
//! Invariant: what was synced survives a crash; of what was not, a crash keeps a prefix, possibly empty.

use std::sync::Mutex;

use futures::FutureExt;

use super::journal::{Journal, Record, Stored};
use crate::locks::lock;
use crate::model::codec::{self, CodecError};
use crate::tier::{TierError, TierFuture};

const TIER: &str = "master";

/// Records as bytes.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    all: Vec<Vec<u8>>,
    /// So many of them are durable.
    synced: usize,
}

impl MemoryJournal {
    /// Writes without making it durable.
    pub fn append(&self, record: &Record) {
        lock(&self.records).all.push(codec::encode(record));
    }

    /// Makes everything written so far durable.
    pub fn sync(&self) {
        let mut records = lock(&self.records);
        records.synced = records.all.len();
    }

    /// Makes the oldest unsynced record durable.
    pub fn sync_one(&self) {
        let mut records = lock(&self.records);
        records.synced = (records.synced + 1).min(records.all.len());
    }

    pub fn unsynced(&self) -> usize {
        let records = lock(&self.records);
        records.all.len() - records.synced
    }

    /// Loses the unsynced records but for the first `kept`; what is left is durable then.
    pub fn lose_unsynced(&self, kept: usize) {
        let mut records = lock(&self.records);
        let left = (records.synced + kept).min(records.all.len());
        records.all.truncate(left);
        records.synced = left;
    }
}

impl Journal for MemoryJournal {
    fn load(&self) -> Result<Option<Stored>, TierError> {
        let records = lock(&self.records);
        let damaged = |source| TierError::Damaged { tier: TIER, place: "journal".into(), source };
        let decoded: Result<Vec<Record>, CodecError> =
            records.all.iter().map(|bytes| codec::decode("record", bytes)).collect();
        let stored = Stored::replay(decoded.map_err(damaged)?);
        stored.map_err(|error| damaged(CodecError::malformed("journal", error)))
    }

    fn write(&self, record: &Record) -> TierFuture<'_, ()> {
        self.append(record);
        self.sync();
        async { Ok(()) }.boxed()
    }
}
