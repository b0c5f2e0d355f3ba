//! A master's journal in an embedded store.
//!
//! Invariant: a record is one entry, which is there wholly or not at all, and entries survive as a prefix; so after a crash
//! the journal is what some write left.
//!
//! | key | value |
//! |---|---|
//! | `r`, number (u64 be) | `Record`; numbers have no gaps from the last whole record on; what stands before that is removed |

use std::path::Path;
use std::sync::Mutex;

use futures::FutureExt;

use super::journal::{Journal, Record, Stored};
use crate::locks::lock;
use crate::model::codec::{self, CodecError};
use crate::sled_store::{SledStore, StoreOptions, prefixed};
use crate::tier::{TierError, TierFuture};

const TIER: &str = "master";
const RECORD: u8 = b'r';
/// Every record is waited for; this is for removals only.
const FLUSH_EVERY_MS: u64 = 1_000;

/// The journal of one master.
#[derive(Debug)]
pub struct SledJournal {
    store: SledStore,
    numbers: Mutex<Numbers>,
}

/// Of the records.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    /// The last whole one.
    first: u64,
    next: u64,
}

fn key(number: u64) -> Vec<u8> {
    let mut key = vec![RECORD];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

impl SledJournal {
    pub fn open(dir: &Path, partitions: u16, cache_bytes: usize) -> Result<Self, TierError> {
        let options = StoreOptions { tier: TIER, dir, partitions, cache_bytes, flush_every_ms: FLUSH_EVERY_MS };
        let journal = Self { store: SledStore::open(options)?, numbers: Mutex::new(Numbers { first: 0, next: 0 }) };
        let records = journal.read()?;
        let next = records.last().map_or(0, |(number, _)| number + 1);
        let first = records.iter().rev().find(|(_, record)| matches!(record, Record::Whole(_)));
        let first = first.map_or(0, |(number, _)| *number);
        *lock(&journal.numbers) = Numbers { first, next };
        // A crash may have come between a whole record and the removal of those before it.
        journal.remove_before(first)?;
        Ok(journal)
    }

    /// All records in order.
    fn read(&self) -> Result<Vec<(u64, Record)>, TierError> {
        let mut records = Vec::new();
        for found in self.store.scan(prefixed(&[RECORD])) {
            let (key, value) = found?;
            let damaged = |reason| self.store.damaged("journal", CodecError::malformed("record", reason));
            let number: [u8; 8] = key[1..].try_into().map_err(|_| damaged("a key that is none"))?;
            let record: Record = self.store.decoded("journal", codec::decode("record", &value))?;
            records.push((u64::from_be_bytes(number), record));
        }
        Ok(records)
    }

    fn remove_before(&self, number: u64) -> Result<(), TierError> {
        let keys: Vec<_> = self.store.keys(vec![RECORD]..key(number)).collect::<Result<_, _>>()?;
        keys.iter().try_for_each(|key| self.store.remove(key))
    }

    /// Bytes on disk, for status.
    pub fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }
}

impl Journal for SledJournal {
    fn load(&self) -> Result<Option<Stored>, TierError> {
        let first = lock(&self.numbers).first;
        let records: Vec<(u64, Record)> = self.read()?.into_iter().skip_while(|(number, _)| *number < first).collect();
        let has_gap = records.iter().zip(first..).any(|((number, _), expected)| *number != expected);
        let damaged = |reason: String| self.store.damaged("journal", CodecError::malformed("journal", reason));
        if has_gap {
            return Err(damaged("a record is missing".into()));
        }
        let stored = Stored::replay(records.into_iter().map(|(_, record)| record));
        stored.map_err(|error| damaged(error.to_string()))
    }

    fn write(&self, record: &Record) -> TierFuture<'_, ()> {
        let is_whole = matches!(record, Record::Whole(_));
        let written = {
            let mut numbers = lock(&self.numbers);
            let number = numbers.next;
            let put = self.store.put(&key(number), &codec::encode(record));
            numbers.next += 1;
            put.map(|()| number)
        };
        async move {
            let number = written?;
            self.store.flush().await?;
            if is_whole {
                // Not before: until then those before it are what a crash would leave.
                self.remove_before(number)?;
                let mut numbers = lock(&self.numbers);
                numbers.first = numbers.first.max(number);
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use bytes::Bytes;
    use futures::executor::block_on;

    use super::*;
    use crate::master::wire::{EntryKind, HardState, LogEntry};

    fn open(dir: &Path) -> SledJournal {
        SledJournal::open(dir, 64, 1 << 20).expect("opens")
    }

    fn beginning() -> Record {
        let masters = BTreeMap::from([(1, "a:1".to_owned())]);
        Record::Whole(Stored::bootstrap(1, &masters, Bytes::from(vec![7; 50_000])))
    }

    fn step(index: u64) -> Record {
        let data = Bytes::from(vec![index as u8; 500]);
        let entry = LogEntry { index, term: 2, kind: EntryKind::Command, data, context: Bytes::new() };
        Record::Step { hard: HardState { term: 2, vote: 1, commit: index - 1 }, entries: vec![entry] }
    }

    fn write(journal: &SledJournal, record: &Record) {
        block_on(journal.write(record)).expect("is written");
    }

    fn load(journal: &SledJournal) -> Option<Stored> {
        journal.load().expect("is sound")
    }

    #[test]
    fn what_was_written_comes_back_and_a_whole_record_removes_those_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut records = vec![beginning()];
        records.extend((2..=20).map(step));
        {
            let journal = open(dir.path());
            assert_eq!(load(&journal), None);
            records.iter().for_each(|record| write(&journal, record));
        }
        let stored = Stored::replay(records).expect("well formed");
        {
            let journal = open(dir.path());
            assert_eq!(load(&journal), stored);
            let whole = stored.clone().expect("there are records");
            write(&journal, &Record::Whole(whole));
            write(&journal, &step(21));
            assert_eq!(journal.read().map(|records| records.len()), Ok(2));
        }
        let after = load(&open(dir.path())).expect("there are records");
        assert_eq!((after.entries.len(), after.hard.commit), (20, 20));
    }

    #[test]
    fn a_file_cut_anywhere_leaves_a_prefix_or_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let journal = open(dir.path());
        let mut records = vec![beginning()];
        records.extend((2..=40).map(step));
        records.iter().for_each(|record| write(&journal, record));
        let file = fs::read(dir.path().join("db")).expect("the store's file");
        let conf = fs::read(dir.path().join("conf")).expect("the store's settings");
        let prefixes: Vec<Option<Stored>> =
            (0..=records.len()).map(|len| Stored::replay(records[..len].to_vec()).expect("well formed")).collect();
        let mut lengths = std::collections::BTreeSet::new();
        for cut in (0..file.len()).step_by(file.len() / 23) {
            let copy = tempfile::tempdir().expect("a folder");
            fs::write(copy.path().join("db"), &file[..cut]).expect("a copy");
            fs::write(copy.path().join("conf"), &conf).expect("a copy");
            let Ok(journal) = SledJournal::open(copy.path(), 64, 1 << 20) else { continue };
            let Ok(stored) = journal.load() else { continue };
            let prefix = prefixes.iter().position(|prefix| *prefix == stored);
            lengths.insert(prefix.expect("what is left is a prefix"));
        }
        assert!(lengths.len() > 1, "cuts leave more and less: {lengths:?}");
    }
}
