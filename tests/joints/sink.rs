//! What every sink does: hot and cache alike, as long as nothing is evicted.
//!
//! Invariant: see `holdfast::tier::Sink`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use holdfast::model::applied::Applied;
use holdfast::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use holdfast::model::id::{Key, SourceId, Tip};
use holdfast::model::quality::Record;
use holdfast::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError};

use crate::{P0, P1, source, span, tip, wait};

pub const TABLE: MetricTableId = MetricTableId(7);

/// All of the suite, on a fresh sink each time.
pub fn suite(fresh: &dyn Fn() -> Arc<dyn Sink>) {
    let parts: [fn(Arc<dyn Sink>); 8] = [
        an_untouched_place_is_empty,
        blocks_are_read_by_key_and_by_range_in_order,
        blocks_of_any_size_are_kept_and_replaced,
        blocks_vanish_beside_a_record_only,
        a_write_that_builds_elsewhere_is_refused_and_changes_nothing,
        announcements_merge_and_are_forgotten_by_name,
        blocks_newer_than_the_record_show,
        record_and_blocks_are_read_as_of_one_moment,
    ];
    parts.iter().for_each(|part| part(fresh()));
}

pub fn key(day: Day, key: i64) -> BlockKey {
    BlockKey { table: TABLE, day, key: Key::int(key) }
}

pub fn block(version: Tip, bytes: usize) -> StoredBlock {
    StoredBlock { version, rows: Bytes::from(vec![version.number as u8; bytes]) }
}

pub fn record(version: Tip) -> Record {
    Record {
        version,
        base: Tip::default(),
        as_of_ms: version.number as i64,
        missing: vec![],
        missing_more: 0,
        unavailable: vec![],
    }
}

pub fn query(keys: Option<&[i64]>, days: RangeInclusive<Day>) -> SinkQuery {
    let keys = keys.map(|keys| keys.iter().map(|key| Key::int(*key)).collect());
    SinkQuery { table: TABLE, keys, days }
}

pub fn read(sink: &dyn Sink, keys: Option<&[i64]>, days: RangeInclusive<Day>) -> SinkRead {
    wait(sink.read(P0, query(keys, days))).unwrap()
}

/// A write of blocks with their record.
fn emission(expect: Tip, to: Tip, blocks: Vec<BlockKey>) -> SinkWrite {
    let blocks = blocks.into_iter().map(|key| (key, block(to, 100))).collect();
    SinkWrite { expect, tip: to, blocks, record: Some(record(to)), ..SinkWrite::default() }
}

fn keys_of(read: &SinkRead) -> Vec<BlockKey> {
    read.blocks.iter().map(|(key, _)| key.clone()).collect()
}

fn an_untouched_place_is_empty(sink: Arc<dyn Sink>) {
    assert_eq!(wait(sink.standing(P0)).unwrap(), SinkStanding::default());
    assert_eq!(read(&*sink, None, 0..=9), SinkRead::default());
    assert_eq!(read(&*sink, Some(&[1]), 0..=9), SinkRead::default());
}

fn blocks_are_read_by_key_and_by_range_in_order(sink: Arc<dyn Sink>) {
    let mut blocks: Vec<BlockKey> = [-3, 0, 5].iter().flat_map(|&day| [7, -2, 300].map(|k| key(day, k))).collect();
    blocks.push(BlockKey { table: MetricTableId(8), day: 0, key: Key::int(7) });
    blocks.push(BlockKey { table: MetricTableId(6), day: 0, key: Key::text("x") });
    wait(sink.write(P0, emission(Tip::default(), tip(1, 1), blocks))).unwrap();
    let all = read(&*sink, None, Day::MIN..=Day::MAX);
    let expected: Vec<BlockKey> = [-3, 0, 5].iter().flat_map(|&day| [-2, 7, 300].map(|k| key(day, k))).collect();
    assert_eq!(keys_of(&all), expected);
    assert_eq!(all.record.as_deref(), Some(&record(tip(1, 1))));
    assert!(all.is_vouched() && !all.incomplete);
    assert_eq!(keys_of(&read(&*sink, None, -2..=5)), expected[3..]);
    assert_eq!(
        keys_of(&read(&*sink, Some(&[300, 7, 7, 4]), -3..=0)),
        [key(-3, 7), key(-3, 300), key(0, 7), key(0, 300)]
    );
    assert_eq!(keys_of(&read(&*sink, Some(&[]), -3..=0)), []);
    #[expect(clippy::reversed_empty_ranges, reason = "callers may compute an empty range")]
    let empty = read(&*sink, None, 5..=4);
    assert_eq!(keys_of(&empty), []);
    assert_eq!(wait(sink.read(P1, query(None, -3..=5))).unwrap(), SinkRead::default());
}

fn blocks_of_any_size_are_kept_and_replaced(sink: Arc<dyn Sink>) {
    let mut at = Tip::default();
    for (round, bytes) in [50_000, 0, 70_000, 16_384, 1_000_000, 10].into_iter().enumerate() {
        let next = tip(1, round as u64 + 1);
        let blocks = vec![(key(1, 1), block(next, bytes)), (key(1, 2), block(next, bytes / 3))];
        let write = SinkWrite { expect: at, tip: next, blocks: blocks.clone(), ..SinkWrite::default() };
        wait(sink.write(P0, write)).unwrap();
        assert_eq!(read(&*sink, None, 1..=1).blocks, blocks);
        assert_eq!(read(&*sink, Some(&[2]), 1..=1).blocks, blocks[1..]);
        at = next;
    }
}

fn blocks_vanish_beside_a_record_only(sink: Arc<dyn Sink>) {
    let blocks = vec![key(1, 1), key(1, 2), key(2, 1)];
    wait(sink.write(P0, emission(Tip::default(), tip(1, 1), blocks))).unwrap();
    let remove = vec![key(1, 2), key(2, 1), key(9, 9)];
    let record = Some(record(tip(1, 2)));
    let write = SinkWrite { expect: tip(1, 1), tip: tip(1, 2), remove, record, ..SinkWrite::default() };
    wait(sink.write(P0, write)).unwrap();
    let left = read(&*sink, None, 0..=9);
    assert_eq!((keys_of(&left), left.incomplete), (vec![key(1, 1)], false));
    assert_eq!(left.record.as_ref().unwrap().version, tip(1, 2));
    wait(sink.write(P0, emission(tip(1, 2), tip(1, 3), vec![key(2, 1)]))).unwrap();
    assert_eq!(keys_of(&read(&*sink, Some(&[1, 2]), 0..=9)), [key(1, 1), key(2, 1)], "a removed block may come back");
}

fn a_write_that_builds_elsewhere_is_refused_and_changes_nothing(sink: Arc<dyn Sink>) {
    let announced = |n: u128| {
        let mut applied = Applied::default();
        applied.add(&source(), span(0, n), 0);
        applied.delta([&source()])
    };
    let mut first = emission(Tip::default(), tip(2, 1), vec![key(1, 1)]);
    first.announce = announced(10);
    wait(sink.write(P0, first)).unwrap();
    let before = (wait(sink.standing(P0)).unwrap(), read(&*sink, None, 0..=9));
    let found = tip(2, 1);
    for (expect, to, fenced) in [
        (Tip::default(), tip(2, 1), false),
        (tip(2, 0), tip(2, 1), false),
        (tip(2, 2), tip(2, 3), false),
        (Tip::default(), tip(3, 1), false),
        (tip(1, 5), tip(1, 6), true),
        (Tip::default(), tip(1, 1), true),
    ] {
        let mut write = emission(expect, to, vec![key(1, 1), key(2, 2)]);
        write.announce = announced(99);
        write.remove = vec![key(1, 1)];
        write.forget = vec![source()];
        match wait(sink.write(P0, write)).unwrap_err() {
            TierError::Fenced { found: at, .. } => assert!(fenced && at == found),
            TierError::Moved { found: at, .. } => assert!(!fenced && at == found),
            other => panic!("{other}"),
        }
        assert_eq!((wait(sink.standing(P0)).unwrap(), read(&*sink, None, 0..=9)), before);
    }
    // A new owner claims by naming the tip it found.
    wait(sink.write(P0, SinkWrite { expect: found, tip: tip(3, 1), ..SinkWrite::default() })).unwrap();
    let late = wait(sink.write(P0, emission(found, tip(2, 2), vec![]))).unwrap_err();
    assert!(matches!(late, TierError::Fenced { found, .. } if found == tip(3, 1)));
}

fn announcements_merge_and_are_forgotten_by_name(sink: Arc<dyn Sink>) {
    let mut expected = Applied::default();
    let mut at = Tip::default();
    let other = SourceId::Request(5);
    for (number, (who, from, to)) in
        [(source(), 0, 10), (source(), 20, 30), (other.clone(), 0, 3), (source(), 10, 20)].into_iter().enumerate()
    {
        // Each announcement alone says less than what stands there already.
        let mut said = Applied::default();
        said.add(&who, span(from, to), number as i64);
        expected.add(&who, span(from, to), number as i64);
        let next = tip(1, number as u64 + 1);
        let announce = said.delta([&who]);
        wait(sink.write(P0, SinkWrite { expect: at, tip: next, announce, ..SinkWrite::default() })).unwrap();
        at = next;
        assert_eq!(wait(sink.standing(P0)).unwrap(), SinkStanding { tip: at, announced: expected.clone() });
    }
    let forget = vec![other.clone(), SourceId::Request(99)];
    wait(sink.write(P0, SinkWrite { expect: at, tip: tip(1, 9), forget, ..SinkWrite::default() })).unwrap();
    expected.forget(&[other]);
    assert_eq!(wait(sink.standing(P0)).unwrap().announced, expected);
}

fn blocks_newer_than_the_record_show(sink: Arc<dyn Sink>) {
    wait(sink.write(P0, emission(Tip::default(), tip(1, 1), vec![key(1, 1), key(1, 2)]))).unwrap();
    let blocks = vec![(key(1, 2), block(tip(1, 2), 10))];
    wait(sink.write(P0, SinkWrite { expect: tip(1, 1), tip: tip(1, 2), blocks, ..SinkWrite::default() })).unwrap();
    assert!(!read(&*sink, None, 0..=9).is_vouched());
    assert!(read(&*sink, Some(&[1]), 0..=9).is_vouched());
    assert!(!read(&*sink, Some(&[2]), 0..=9).is_vouched());
}

/// A writer moves all blocks of a version at once, and removes and brings back one of them; no reader may see two
/// versions, nor a record of another.
fn record_and_blocks_are_read_as_of_one_moment(sink: Arc<dyn Sink>) {
    const KEYS: i64 = 8;
    /// Writes at least, and at most if the readers are slow.
    const WRITES: (u64, u64) = (300, 20_000);
    const READS: u64 = 300;
    let done = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (sink, done, reads) = (Arc::clone(&sink), Arc::clone(&done), Arc::clone(&reads));
            thread::spawn(move || {
                let all: Vec<i64> = (0..KEYS).collect();
                while !done.load(Ordering::Acquire) {
                    let found = read(&*sink, (reader > 0).then_some(&all), 1..=2);
                    if let Some(record) = &found.record {
                        let even = record.version.number.is_multiple_of(2);
                        assert_eq!(found.blocks.len() as i64, if even { KEYS - 1 } else { KEYS });
                        assert!(found.blocks.iter().all(|(_, block)| block.version == record.version));
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                    thread::yield_now();
                }
            })
        })
        .collect();
    let mut number = 0;
    while number < WRITES.0 || (number < WRITES.1 && reads.load(Ordering::Relaxed) < READS) {
        number += 1;
        let even = number.is_multiple_of(2);
        let kept = if even { 1..KEYS } else { 0..KEYS };
        let mut write =
            emission(tip(1, number - 1), tip(1, number), kept.map(|k| key(1 + (k % 2) as Day, k)).collect());
        write.expect = if number == 1 { Tip::default() } else { write.expect };
        write.remove = if even { vec![key(1, 0)] } else { vec![] };
        wait(sink.write(P0, write)).unwrap();
    }
    done.store(true, Ordering::Release);
    for reader in readers {
        reader.join().unwrap();
    }
}
