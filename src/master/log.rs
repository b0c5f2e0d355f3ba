//! A master's raft log as raft-rs reads it, in memory: entries after a snapshot, elections' hard state. What is on disk
//! is written beside it (`journal`) and read only at a start.
//!
//! Invariant: entries are contiguous; a few are kept from before the snapshot, so that a standby that lags a little gets
//! entries and not the whole state. Bounded by compaction.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{Entry, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::journal::Stored;
use super::wire::{HardState, LogEntry, LogSnapshot, MasterId};

type Result<T> = raft::Result<T>;

/// The log of one master.
#[derive(Debug)]
pub struct Log {
    hard: HardState,
    snapshot: LogSnapshot,
    /// Index and term of the entry before the first one here.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    /// Of the entries' data, together.
    bytes: usize,
    /// Set where raft-rs can only ask: a peer needs a snapshot that is newer than the one here.
    wants_snapshot: Cell<bool>,
}

fn cost(entry: &Entry) -> usize {
    const FIXED: usize = 64;
    entry.data.len() + entry.context.len() + FIXED
}

impl Log {
    pub fn new(stored: &Stored) -> Self {
        let entries: VecDeque<Entry> = stored.entries.iter().map(Entry::from).collect();
        let bytes = entries.iter().map(cost).sum();
        Self {
            hard: stored.hard,
            snapshot: stored.snapshot.clone(),
            before: stored.before,
            entries,
            bytes,
            wants_snapshot: Cell::new(false),
        }
    }

    /// Everything, to be written down as one.
    pub fn stored(&self, id: MasterId) -> Stored {
        let entries = self.entries.iter().map(LogEntry::from).collect();
        Stored { id, hard: self.hard, snapshot: self.snapshot.clone(), before: self.before, entries }
    }

    pub fn hard(&self) -> HardState {
        self.hard
    }

    pub fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub fn snapshot_index(&self) -> u64 {
        self.snapshot.index
    }

    /// Of all entries here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn first(&self) -> u64 {
        self.before.0 + 1
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let place = index.checked_sub(self.first())?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let reaches = (self.first()..=self.last() + 1).contains(&first.index);
        assert!(reaches, "entries from {} do not join a log of {} to {}", first.index, self.first(), self.last());
        for dropped in self.entries.drain((first.index - self.first()) as usize..) {
            self.bytes -= cost(&dropped);
        }
        self.bytes += entries.iter().map(cost).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// A snapshot from the active master takes the place of everything.
    pub fn restore(&mut self, snapshot: LogSnapshot) {
        self.before = (snapshot.index, snapshot.term);
        self.hard.commit = self.hard.commit.max(snapshot.index);
        self.snapshot = snapshot;
        self.entries.clear();
        self.bytes = 0;
    }

    /// Puts `snapshot`, made from what was applied here, in the place of entries, but for the last ones: at most
    /// `keep_entries`, and fewer if the log is above `keep_bytes`.
    pub fn compact(&mut self, snapshot: LogSnapshot, keep_entries: u64, keep_bytes: usize) {
        assert!(snapshot.index <= self.last(), "a snapshot of what is not in the log");
        while self.before.0 < snapshot.index
            && (snapshot.index - self.before.0 > keep_entries || self.bytes > keep_bytes)
        {
            let entry = self.entries.pop_front().expect("the snapshot is not beyond the log");
            self.before = (entry.index, entry.term);
            self.bytes -= cost(&entry);
        }
        self.hard.commit = self.hard.commit.max(snapshot.index);
        self.snapshot = snapshot;
        self.wants_snapshot.set(false);
    }

    /// Does a peer wait for a newer snapshot?
    pub fn wants_snapshot(&self) -> bool {
        self.wants_snapshot.get()
    }
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard.into(), self.snapshot.conf_state()))
    }

    fn entries(&self, low: u64, high: u64, max: impl Into<Option<u64>>, _: GetEntriesContext) -> Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let places = (low - self.first()) as usize..(high - self.first()) as usize;
        let most = max.into().unwrap_or(u64::MAX);
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in self.entries.range(places) {
            bytes += cost(entry) as u64;
            // The first goes in any case, or a large one would never.
            if bytes > most && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        if index == self.snapshot.index {
            return Ok(self.snapshot.term);
        }
        if index < self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        self.at(index).map(|entry| entry.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let knows = self.snapshot.voters.contains(&to) || self.snapshot.learners.contains(&to);
        // A peer ignores a snapshot from before it was one; it needs one that is made now.
        if self.snapshot.index < request_index.max(1) || !knows {
            self.wants_snapshot.set(true);
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok((&self.snapshot).into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;

    use super::*;
    use crate::master::wire::EntryKind;

    fn log() -> Log {
        let masters: BTreeMap<MasterId, String> = [(1, "a:1".to_owned()), (2, "b:1".to_owned())].into();
        Log::new(&Stored::bootstrap(1, &masters, Bytes::from_static(b"empty")))
    }

    fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
        let entry =
            |index| LogEntry { index, term, kind: EntryKind::Command, data: Bytes::new(), context: Bytes::new() };
        range.map(|index| Entry::from(&entry(index))).collect()
    }

    fn context() -> GetEntriesContext {
        GetEntriesContext::empty(false)
    }

    #[test]
    fn what_is_appended_replaces_what_stood_there() {
        let mut log = log();
        log.append(&entries(2..=9, 1));
        log.append(&entries(6..=7, 2));
        assert_eq!((log.last(), log.term(5), log.term(6), log.term(8).is_err()), (7, Ok(1), Ok(2), true));
        assert_eq!(log.bytes, log.entries.iter().map(cost).sum::<usize>());
    }

    #[test]
    fn compaction_keeps_some_entries_and_the_terms_that_matching_needs() {
        let mut log = log();
        log.append(&entries(2..=20, 3));
        log.compact(LogSnapshot { index: 15, term: 3, voters: vec![1, 2], ..LogSnapshot::default() }, 5, 1 << 20);
        assert_eq!((log.first_index(), log.last_index(), log.term(10)), (Ok(11), Ok(20), Ok(3)));
        assert_eq!(log.entries(10, 12, None, context()), Err(StorageError::Compacted.into()));
        assert_eq!(log.entries(11, 21, None, context()).map(|found| found.len()), Ok(10));
        assert_eq!(log.entries(11, 21, 1, context()).map(|found| found.len()), Ok(1));
        assert_eq!(log.bytes, log.entries.iter().map(cost).sum::<usize>());
        log.compact(LogSnapshot { index: 18, term: 3, voters: vec![1, 2], ..LogSnapshot::default() }, 5, 3 * 64);
        assert_eq!((log.first_index(), log.bytes), (Ok(18), 3 * 64), "bytes count, too");
    }

    #[test]
    fn a_peer_that_the_snapshot_does_not_know_waits_for_a_newer_one() {
        let mut log = log();
        assert!(log.snapshot(0, 2).is_ok() && !log.wants_snapshot());
        assert!(log.snapshot(0, 3).is_err() && log.wants_snapshot());
        log.append(&entries(2..=3, 1));
        log.compact(
            LogSnapshot { index: 3, term: 1, voters: vec![1, 2], learners: vec![3], data: Bytes::new() },
            10,
            1 << 20,
        );
        assert!(log.snapshot(0, 3).is_ok() && !log.wants_snapshot());
        assert!(log.snapshot(4, 3).is_err(), "raft-rs asks for a newer one");
    }
}
