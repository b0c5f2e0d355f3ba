//! What every hot tier does beyond being a sink: it keeps everything, and keeps it when it is opened again.
//!
//! Invariant: see `holdfast::hot`.

use std::cell::RefCell;
use std::sync::Arc;

use holdfast::hot::embedded::EmbeddedHot;
use holdfast::hot::memory::MemoryHot;
use holdfast::lending::remote_sink::RemoteSink;
use holdfast::model::applied::Applied;
use holdfast::model::id::Tip;
use holdfast::store::lender_service::Lent;
use holdfast::tier::{Sink, SinkStanding, SinkWrite, TierError};
use tempfile::TempDir;

use crate::lent::{Loan, in_memory};
use crate::sink::{block, key, read, record, suite};
use crate::{CACHE_BYTES, P0, PARTITIONS, copy_dir, source, span, tip, wait};

fn embedded(dir: &TempDir) -> EmbeddedHot {
    EmbeddedHot::open(dir.path(), PARTITIONS, CACHE_BYTES).unwrap()
}

#[test]
fn the_embedded_hot_tier_is_a_sink() {
    let dirs = RefCell::new(Vec::new());
    suite(&|| {
        let dir = TempDir::new().unwrap();
        let hot = embedded(&dir);
        dirs.borrow_mut().push(dir);
        Arc::new(hot)
    });
}

#[test]
fn a_hot_tier_in_another_process_is_a_sink() {
    let dirs = RefCell::new(Vec::new());
    suite(&|| {
        let dir = TempDir::new().unwrap();
        let hot = Arc::new(embedded(&dir));
        dirs.borrow_mut().push(dir);
        Arc::new(RemoteSink::hot(&Loan::of(Lent { hot, ..in_memory(PARTITIONS) }).store()))
    });
    suite(&|| Arc::new(RemoteSink::hot(&Loan::of(in_memory(PARTITIONS)).store())));
}

#[test]
fn the_hot_tier_in_memory_is_a_sink() {
    suite(&|| Arc::new(MemoryHot::new(PARTITIONS)));
}

/// One emission after the other, each with an announcement, blocks of two days, and a removal.
fn emit(hot: &dyn Sink, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let mut said = Applied::default();
        said.add(&source(), span(0, u128::from(number)), 0);
        let version = tip(1, number);
        wait(hot.write(
            P0,
            SinkWrite {
                expect: if number == 1 { Tip::default() } else { tip(1, number - 1) },
                tip: version,
                announce: said.delta([&source()]),
                forget: vec![],
                blocks: vec![
                    (key(1, number as i64), block(version, 30_000)),
                    (key(number as i32, 0), block(version, 50)),
                ],
                remove: if number > 1 { vec![key(number as i32 - 1, 0)] } else { vec![] },
                record: Some(record(version)),
            },
        ))
        .unwrap();
    }
}

#[test]
fn everything_is_there_after_reopening_and_after_a_crash() {
    let (dir, crashed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hot = embedded(&dir);
    emit(&hot, 1..=30);
    let (standing, all) = (wait(hot.standing(P0)).unwrap(), read(&hot, None, 0..=99));
    assert_eq!(all.blocks.len(), 31);
    wait(hot.flush()).unwrap();
    copy_dir(dir.path(), crashed.path());
    drop(hot);
    for dir in [&dir, &crashed] {
        let hot = embedded(dir);
        assert_eq!((wait(hot.standing(P0)).unwrap(), read(&hot, None, 0..=99)), (standing.clone(), all.clone()));
        assert_eq!(read(&hot, Some(&[0, 4]), 0..=99).blocks.len(), 2, "the days are found again");
        assert!(hot.usage().disk_bytes > 0);
    }
}

#[test]
fn i5_lost_writes_are_detected_by_the_next_one() {
    let (dir, older) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hot = embedded(&dir);
    emit(&hot, 1..=5);
    wait(hot.flush()).unwrap();
    copy_dir(dir.path(), older.path());
    let before = read(&hot, None, 0..=99);
    emit(&hot, 6..=7);
    drop(hot);
    let hot = embedded(&older);
    assert_eq!(read(&hot, None, 0..=99), before);
    is_moved_from(&hot, tip(1, 7), tip(1, 5));

    let hot = MemoryHot::new(PARTITIONS);
    emit(&hot, 1..=5);
    emit(&hot, 6..=7);
    hot.lose_last_writes(P0, 2);
    assert_eq!(read(&hot, None, 0..=99), before);
    is_moved_from(&hot, tip(1, 7), tip(1, 5));
    hot.clear(P0);
    assert_eq!(wait(hot.standing(P0)).unwrap(), SinkStanding::default());
    hot.set_up(false);
    assert!(wait(hot.standing(P0)).unwrap_err().is_retryable());
}

fn is_moved_from(hot: &dyn Sink, expect: Tip, found: Tip) {
    let write = SinkWrite { expect, tip: tip(1, expect.number + 1), ..SinkWrite::default() };
    let error = wait(hot.write(P0, write)).unwrap_err();
    assert_eq!(error, TierError::Moved { tier: "hot", found });
}
