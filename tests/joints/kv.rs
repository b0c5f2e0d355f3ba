//! What every KV tier does.
//!
//! Invariant: see `holdfast::kv`.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use holdfast::kv::embedded::EmbeddedKv;
use holdfast::kv::memory::MemoryKv;
use holdfast::kv::remote::RemoteKv;
use holdfast::kv::{Append, ChunkRead, Head, Kv, Snapshot};
use holdfast::model::applied::Applied;
use holdfast::model::batch::Chunk;
use holdfast::model::id::{SourceId, Tip};
use holdfast::store::lender_service::Lent;
use holdfast::tier::TierError;
use tempfile::TempDir;

use crate::lent::{Loan, in_memory};
use crate::{CACHE_BYTES, P0, P1, PARTITIONS, chunk, copy_dir, source, span, tip, wait};

fn embedded(dir: &TempDir) -> EmbeddedKv {
    EmbeddedKv::open(dir.path(), PARTITIONS, CACHE_BYTES).unwrap()
}

/// All of the suite, on a fresh tier each time.
pub fn suite(fresh: &dyn Fn() -> Arc<dyn Kv>) {
    let parts: [fn(Arc<dyn Kv>); 6] = [
        the_head_is_what_the_appends_made_it_and_chunks_come_back_in_order,
        a_read_gives_at_least_one_chunk_and_stops_at_its_limit,
        i5_an_append_that_builds_elsewhere_is_refused_and_changes_nothing,
        a_reader_that_stands_outside_the_chain_is_told_so,
        trimming_goes_by_time_and_by_id_and_the_head_says_what_is_gone,
        i5_a_snapshot_of_an_older_epoch_does_not_replace_a_newer_one,
    ];
    parts.iter().for_each(|part| part(fresh()));
}

#[test]
fn the_kv_tier_in_memory_is_one() {
    suite(&|| Arc::new(MemoryKv::new(PARTITIONS)));
}

#[test]
fn the_embedded_kv_tier_is_one() {
    let dirs = RefCell::new(Vec::new());
    suite(&|| {
        let dir = TempDir::new().unwrap();
        let kv = embedded(&dir);
        dirs.borrow_mut().push(dir);
        Arc::new(kv)
    });
}

#[test]
fn a_kv_tier_in_another_process_is_one() {
    let dirs = RefCell::new(Vec::new());
    suite(&|| {
        let dir = TempDir::new().unwrap();
        let kv = Arc::new(embedded(&dir));
        dirs.borrow_mut().push(dir);
        Arc::new(RemoteKv::new(&Loan::of(Lent { kv, ..in_memory(PARTITIONS) }).store()))
    });
    suite(&|| Arc::new(RemoteKv::new(&Loan::of(in_memory(PARTITIONS)).store())));
}

/// Appends chunk after chunk, and remembers what the head must be.
pub struct Writer {
    pub head: Head,
}

impl Writer {
    pub fn new() -> Self {
        Self { head: Head::default() }
    }

    /// The next append of `epoch`; its time is its number.
    pub fn next(&mut self, epoch: u64) -> Append {
        let previous = self.head.tip;
        let id = tip(epoch, previous.number + 1);
        let number = u128::from(id.number);
        let request = SourceId::Request(number);
        self.head.tip = id;
        self.head.offset += 2;
        self.head.applied.add(&source(), span(number - 1, number), number as i64);
        self.head.applied.add(&request, span(0, 5), number as i64);
        let applied = self.head.applied.delta([&source(), &request]);
        let forget = if number > 3 { vec![SourceId::Request(number - 3)] } else { Vec::new() };
        self.head.applied.forget(&forget);
        Append { chunk: chunk(previous, id, number as i64), offset: self.head.offset, applied, forget }
    }

    pub fn append(&mut self, kv: &dyn Kv, epoch: u64, count: usize) {
        for _ in 0..count {
            let append = self.next(epoch);
            wait(kv.append(P0, append)).unwrap();
        }
    }
}

pub fn read_all(kv: &dyn Kv, after: Tip) -> Option<Vec<Chunk>> {
    let (mut all, mut after) = (Vec::new(), after);
    loop {
        match wait(kv.chunks(P0, after, 50_000)).unwrap() {
            ChunkRead::Broken => return None,
            ChunkRead::Next(chunks) if chunks.is_empty() => return Some(all),
            ChunkRead::Next(chunks) => {
                after = chunks.last().unwrap().id;
                all.extend(chunks);
            }
        }
    }
}

fn the_head_is_what_the_appends_made_it_and_chunks_come_back_in_order(kv: Arc<dyn Kv>) {
    assert_eq!(wait(kv.head(P0)).unwrap(), Head::default());
    assert_eq!(read_all(&*kv, Tip::default()), Some(Vec::new()));
    let mut writer = Writer::new();
    writer.append(&*kv, 1, 10);
    writer.append(&*kv, 3, 10);
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
    assert_eq!(wait(kv.head(P1)).unwrap(), Head::default());
    let chunks = read_all(&*kv, Tip::default()).unwrap();
    let ids: Vec<Tip> = chunks.iter().map(|chunk| chunk.id).collect();
    assert_eq!(ids, (1..=20).map(|n| tip(if n > 10 { 3 } else { 1 }, n)).collect::<Vec<_>>());
    assert_eq!(chunks[10], chunk(tip(1, 10), tip(3, 11), 11));
    assert_eq!(read_all(&*kv, tip(1, 10)).unwrap().len(), 10);
    assert_eq!(read_all(&*kv, tip(3, 20)), Some(Vec::new()));
}

fn a_read_gives_at_least_one_chunk_and_stops_at_its_limit(kv: Arc<dyn Kv>) {
    let mut writer = Writer::new();
    writer.append(&*kv, 1, 5);
    let size = chunk(Tip::default(), tip(1, 1), 1).size();
    for (limit, expected) in [(0, 1), (size, 1), (size + 1, 2), (usize::MAX, 5)] {
        let ChunkRead::Next(chunks) = wait(kv.chunks(P0, Tip::default(), limit)).unwrap() else {
            panic!("the chain is whole");
        };
        assert_eq!(chunks.len(), expected, "limit {limit}");
    }
}

fn i5_an_append_that_builds_elsewhere_is_refused_and_changes_nothing(kv: Arc<dyn Kv>) {
    let mut writer = Writer::new();
    writer.append(&*kv, 2, 3);
    let refused = |append: Append| {
        let error = wait(kv.append(P0, append)).unwrap_err();
        assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
        assert_eq!(read_all(&*kv, Tip::default()).unwrap().len(), 3);
        error
    };
    let append =
        |previous, id| Append { chunk: chunk(previous, id, 9), offset: 99, applied: vec![], forget: vec![source()] };
    let found = tip(2, 3);
    let moved = TierError::Moved { tier: "kv", found };
    assert_eq!(refused(append(tip(2, 2), tip(2, 3))), moved);
    assert_eq!(refused(append(tip(2, 9), tip(2, 10))), moved);
    assert_eq!(refused(append(Tip::default(), tip(3, 1))), moved);
    assert_eq!(refused(append(tip(1, 7), tip(1, 8))), TierError::Fenced { tier: "kv", found });
    writer.append(&*kv, 3, 1);
}

fn a_reader_that_stands_outside_the_chain_is_told_so(kv: Arc<dyn Kv>) {
    let mut writer = Writer::new();
    writer.append(&*kv, 1, 3);
    writer.append(&*kv, 4, 3);
    for outside in [tip(1, 4), tip(2, 2), tip(4, 7), tip(9, 1), tip(4, 3)] {
        assert_eq!(read_all(&*kv, outside), None, "{outside}");
    }
    assert_eq!(read_all(&*kv, tip(1, 3)).unwrap().len(), 3);
}

fn trimming_goes_by_time_and_by_id_and_the_head_says_what_is_gone(kv: Arc<dyn Kv>) {
    let mut writer = Writer::new();
    writer.append(&*kv, 1, 100);
    wait(kv.trim(P0, tip(1, 90), 41)).unwrap();
    writer.head.oldest_previous = tip(1, 40);
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
    assert_eq!(read_all(&*kv, Tip::default()).unwrap()[0].id, tip(1, 41));
    assert_eq!(read_all(&*kv, tip(1, 40)).unwrap().len(), 60);
    assert_eq!(read_all(&*kv, tip(1, 39)), None, "between are chunks that are gone");
    wait(kv.trim(P0, tip(1, 50), i64::MAX)).unwrap();
    assert_eq!(wait(kv.head(P0)).unwrap().oldest_previous, tip(1, 50));
    wait(kv.trim(P0, tip(1, 10), i64::MAX)).unwrap();
    wait(kv.trim(P0, tip(9, 0), i64::MAX)).unwrap();
    assert_eq!(wait(kv.head(P0)).unwrap().oldest_previous, tip(1, 100));
    assert_eq!(read_all(&*kv, Tip::default()), Some(Vec::new()));
    assert_eq!(read_all(&*kv, tip(1, 100)), Some(Vec::new()));
    assert_eq!(read_all(&*kv, tip(1, 99)), None);
    writer.append(&*kv, 1, 1);
    assert_eq!(read_all(&*kv, Tip::default()).unwrap().len(), 1);
}

fn i5_a_snapshot_of_an_older_epoch_does_not_replace_a_newer_one(kv: Arc<dyn Kv>) {
    assert_eq!(wait(kv.snapshot(P0)).unwrap(), None);
    let snapshot = |epoch, bytes: usize| Snapshot { epoch, state: Bytes::from(vec![epoch as u8; bytes]) };
    for stored in [snapshot(2, 3_000_000), snapshot(2, 10), snapshot(3, 0), snapshot(5, 5_000)] {
        wait(kv.put_snapshot(P0, stored.clone())).unwrap();
        assert_eq!(wait(kv.snapshot(P0)).unwrap(), Some(stored));
    }
    let refused = wait(kv.put_snapshot(P0, snapshot(4, 1))).unwrap_err();
    assert!(matches!(refused, TierError::Fenced { tier: "kv", found } if found.epoch == 5));
    assert_eq!(wait(kv.snapshot(P0)).unwrap(), Some(snapshot(5, 5_000)));
    assert_eq!(wait(kv.snapshot(P1)).unwrap(), None);
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = TempDir::new().unwrap();
    let mut writer = Writer::new();
    for round in 1..=4 {
        let kv = embedded(&dir);
        assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
        // Enough for a checkpoint in between.
        writer.append(&kv, round, 600);
        let through = tip(round, writer.head.tip.number - 50);
        wait(kv.trim(P0, through, i64::MAX)).unwrap();
        writer.head.oldest_previous = through;
        wait(kv.put_snapshot(P0, Snapshot { epoch: round, state: Bytes::from(vec![7; 40_000]) })).unwrap();
    }
    let kv = embedded(&dir);
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
    assert_eq!(read_all(&kv, Tip::default()).unwrap().len(), 50);
    assert_eq!(wait(kv.snapshot(P0)).unwrap().unwrap().epoch, 4);
    let refused = wait(kv.put_snapshot(P0, Snapshot { epoch: 3, state: Bytes::new() }));
    assert!(matches!(refused, Err(TierError::Fenced { .. })));
    wait(kv.trim(P0, writer.head.tip, i64::MAX)).unwrap();
    drop(kv);
    writer.head.oldest_previous = writer.head.tip;
    assert_eq!(wait(embedded(&dir).head(P0)).unwrap(), writer.head, "with no chunk left, too");
}

#[test]
fn a_store_killed_right_after_its_first_append_opens_again_and_again() {
    let mut dir = TempDir::new().unwrap();
    for _ in 0..3 {
        let crashed = TempDir::new().unwrap();
        let kv = embedded(&dir);
        let mut writer = Writer::new();
        writer.head = wait(kv.head(P0)).unwrap();
        writer.append(&kv, writer.head.tip.epoch + 1, 1);
        // What sled has not flushed is not in its file yet.
        copy_dir(dir.path(), crashed.path());
        drop(kv);
        dir = crashed;
    }
    drop(embedded(&dir));
}

#[test]
fn i5_lost_appends_are_detected_and_said_again() {
    let (dir, older) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let kv = embedded(&dir);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 5);
    wait(kv.flush()).unwrap();
    copy_dir(dir.path(), older.path());
    let kept = writer.head.clone();
    writer.append(&kv, 1, 2);
    drop(kv);
    says_again(&embedded(&older), &mut writer, kept);

    let kv = MemoryKv::new(PARTITIONS);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 5);
    let kept = writer.head.clone();
    writer.append(&kv, 1, 2);
    kv.lose_last_writes(P0, 2);
    says_again(&kv, &mut writer, kept);
    kv.clear(P0);
    assert_eq!(wait(kv.head(P0)).unwrap(), Head::default());
    kv.set_up(false);
    assert!(wait(kv.head(P0)).unwrap_err().is_retryable());
}

/// The writer believes that seven chunks are there; kv has come back with five.
pub fn says_again(kv: &dyn Kv, writer: &mut Writer, kept: Head) {
    assert_eq!(wait(kv.head(P0)).unwrap(), kept);
    let next = writer.next(1);
    assert_eq!(wait(kv.append(P0, next)), Err(TierError::Moved { tier: "kv", found: tip(1, 5) }));
    assert_eq!(read_all(kv, tip(1, 7)), None, "a slave that folded what was lost reads all again");
    writer.head = kept;
    writer.append(kv, 2, 1);
    assert_eq!(read_all(kv, tip(1, 5)).unwrap()[0].id, tip(2, 6));
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
}

#[test]
fn a_source_forgotten_and_seen_again_is_what_it_was_last() {
    let dir = TempDir::new().unwrap();
    let kv = embedded(&dir);
    let request = SourceId::Request(1);
    let mut applied = Applied::default();
    let mut previous = Tip::default();
    for (number, to) in [(1, 10), (2, 0), (3, 4)] {
        let id = tip(1, number);
        let mut append = Append { chunk: chunk(previous, id, 1), offset: 0, applied: vec![], forget: vec![] };
        if to == 0 {
            append.forget = vec![request.clone()];
            applied.forget(&append.forget);
        } else {
            applied.add(&request, span(0, to), 1);
            append.applied = applied.delta([&request]);
        }
        wait(kv.append(P0, append)).unwrap();
        previous = id;
    }
    assert_eq!(wait(kv.head(P0)).unwrap().applied, applied);
    drop(kv);
    let kv = embedded(&dir);
    assert_eq!(wait(kv.head(P0)).unwrap().applied, applied);
    wait(kv.trim(P0, tip(1, 2), i64::MAX)).unwrap();
    drop(kv);
    assert_eq!(wait(embedded(&dir).head(P0)).unwrap().applied, applied);
}
