//! What a master writes down, and how it comes back: a sequence of records, each of which is there wholly or not at all.
//!
//! Invariant: replaying any prefix of the records gives a log that this master had, with the votes of that moment; so a crash
//! that loses the last records loses only what nobody was told.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::masters::GroupState;
use super::wire::{EntryKind, HardState, LogEntry, LogSnapshot, MasterId};
use crate::model::codec::CodecError;
use crate::tier::{TierError, TierFuture};

/// What one drain of raft-rs wants durable, as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// Takes the place of all records before it: the first one, after a compaction, and when a snapshot came.
    Whole(Stored),
    /// Entries from the first one's index on replace what stood there.
    Step { hard: HardState, entries: Vec<LogEntry> },
}

/// All that a master remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    pub id: MasterId,
    pub hard: HardState,
    pub snapshot: LogSnapshot,
    /// Index and term of the entry before the first one.
    pub before: (u64, u64),
    pub entries: Vec<LogEntry>,
}

#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum JournalError {
    #[error("the first record is not a whole one")]
    NoBeginning,
    #[error("entry {found} follows entry {last}")]
    Gap { last: u64, found: u64 },
}

impl Stored {
    /// The beginning of a cluster. All its first masters must start with the same `masters` and `state`.
    pub fn bootstrap(id: MasterId, masters: &BTreeMap<MasterId, String>, state: Bytes) -> Self {
        let data = GroupState { masters: masters.clone(), state }.encode();
        // Index 1: raft-rs takes zero as "nothing".
        let (index, term) = (1, 1);
        let snapshot = LogSnapshot { index, term, voters: masters.keys().copied().collect(), learners: vec![], data };
        let hard = HardState { term, vote: 0, commit: index };
        Self { id, hard, snapshot, before: (index, term), entries: Vec::new() }
    }

    /// A master that is to be added to a group: it knows nobody until the active master tells it.
    pub fn joining(id: MasterId) -> Self {
        let (hard, snapshot) = (HardState::default(), LogSnapshot::default());
        Self { id, hard, snapshot, before: (0, 0), entries: Vec::new() }
    }

    /// A group of one has nobody to tell where it listens now: writes it down. `false`: it is known, or there are others.
    pub fn move_alone(&mut self, address: &str) -> Result<bool, CodecError> {
        let others_may_be = self.entries.iter().any(|entry| entry.kind != EntryKind::Command);
        if self.snapshot.voters != [self.id] || !self.snapshot.learners.is_empty() || others_may_be {
            return Ok(false);
        }
        let mut group = GroupState::decode(&self.snapshot.data)?;
        let before = group.masters.insert(self.id, address.to_owned());
        self.snapshot.data = group.encode();
        Ok(before.as_deref() != Some(address))
    }

    /// `None` without records.
    pub fn replay(records: impl IntoIterator<Item = Record>) -> Result<Option<Self>, JournalError> {
        let mut stored: Option<Self> = None;
        for record in records {
            match (record, &mut stored) {
                (Record::Whole(whole), _) => stored = Some(whole),
                (Record::Step { .. }, None) => return Err(JournalError::NoBeginning),
                (Record::Step { hard, entries }, Some(stored)) => stored.step(hard, entries)?,
            }
        }
        Ok(stored)
    }

    fn step(&mut self, hard: HardState, entries: Vec<LogEntry>) -> Result<(), JournalError> {
        if let Some(first) = entries.first().map(|entry| entry.index) {
            let last = self.before.0 + self.entries.len() as u64;
            if first <= self.before.0 || first > last + 1 {
                return Err(JournalError::Gap { last, found: first });
            }
            self.entries.truncate((first - self.before.0 - 1) as usize);
            self.entries.extend(entries);
        }
        self.hard = hard;
        Ok(())
    }
}

/// Where a master keeps its records.
pub trait Journal: Send + Sync {
    /// What was written before; `None` if nothing was.
    fn load(&self) -> Result<Option<Stored>, TierError>;

    /// Resolves once the record is durable, and all that were written before it. Records stand in the order of the calls, not of
    /// the resolutions. After an error nothing more may be written: what is on disk is not what the master believes.
    fn write(&self, record: &Record) -> TierFuture<'_, ()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<LogEntry> {
        let entry =
            |index| LogEntry { index, term, kind: EntryKind::Command, data: Bytes::new(), context: Bytes::new() };
        range.map(entry).collect()
    }

    fn step(commit: u64, entries: Vec<LogEntry>) -> Record {
        Record::Step { hard: HardState { term: 2, vote: 1, commit }, entries }
    }

    fn beginning() -> Record {
        Record::Whole(Stored::bootstrap(1, &BTreeMap::from([(1, "a:1".to_owned())]), Bytes::new()))
    }

    #[test]
    fn records_replayed_give_the_log_with_what_was_overwritten_gone() {
        let records = [beginning(), step(1, entries(2..=6, 1)), step(3, entries(4..=4, 2))];
        let stored = Stored::replay(records).expect("well formed").expect("there are records");
        let terms: Vec<(u64, u64)> = stored.entries.iter().map(|entry| (entry.index, entry.term)).collect();
        assert_eq!(terms, [(2, 1), (3, 1), (4, 2)]);
        assert_eq!(stored.hard.commit, 3);
    }

    #[test]
    fn a_whole_record_takes_the_place_of_all_before_it() {
        let whole = Stored { before: (10, 2), entries: entries(11..=12, 2), ..Stored::joining(1) };
        let records = [beginning(), step(1, entries(2..=6, 1)), Record::Whole(whole), step(12, entries(13..=13, 2))];
        let stored = Stored::replay(records).expect("well formed").expect("there are records");
        assert_eq!((stored.before, stored.entries.len(), stored.hard.commit), ((10, 2), 3, 12));
    }

    #[test]
    fn a_master_alone_takes_its_new_address_along_and_one_of_many_does_not() {
        let masters = |stored: &Stored| GroupState::decode(&stored.snapshot.data).expect("a group").masters;
        let mut alone = Stored::bootstrap(1, &BTreeMap::from([(1, "a:1".to_owned())]), Bytes::new());
        assert_eq!((alone.move_alone("a:1"), alone.move_alone("a:2")), (Ok(false), Ok(true)));
        assert_eq!(masters(&alone), BTreeMap::from([(1, "a:2".to_owned())]));
        let two = BTreeMap::from([(1, "a:1".to_owned()), (2, "b:1".to_owned())]);
        let mut one_of_two = Stored::bootstrap(1, &two, Bytes::new());
        assert_eq!(one_of_two.move_alone("a:2"), Ok(false));
        assert_eq!(masters(&one_of_two), two);
    }

    #[test]
    fn a_record_that_does_not_join_is_an_error() {
        assert_eq!(Stored::replay([step(1, vec![])]), Err(JournalError::NoBeginning));
        let gap = Stored::replay([beginning(), step(1, entries(3..=4, 1))]);
        assert_eq!(gap, Err(JournalError::Gap { last: 1, found: 3 }));
        assert_eq!(Stored::replay([]), Ok(None));
    }
}
