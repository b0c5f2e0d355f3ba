//! Each step is told exactly.

use super::*;
use crate::model::block::MetricTableId;
use crate::model::id::{Key, PartitionId, Tip};

fn key() -> ReadKey {
    ReadKey { table: MetricTableId(1), partition: PartitionId(0), keys: None, days: 0..=9 }
}

/// A read under a record of emission `record`, with a block of emission `block`.
fn read(record: u64, block: u64, as_of_ms: i64) -> SinkRead {
    let tip = |number| Tip::new(1, number);
    let name = BlockKey { table: MetricTableId(1), day: 1, key: Key::int(1) };
    let record = Record { as_of_ms, ..crate::query::fixture::record(record, as_of_ms) };
    SinkRead {
        record: Some(Arc::new(record)),
        blocks: vec![(name, StoredBlock { version: tip(block), rows: Default::default() })],
        incomplete: false,
    }
}

fn down() -> TierError {
    TierError::Unavailable { tier: "cache", reason: "away".into() }
}

fn origin(step: &Step) -> Origin {
    match step {
        Step::Read(origin, _) => *origin,
        other => panic!("{other:?}"),
    }
}

fn done(step: Step) -> (Option<ServedBy>, bool) {
    match step {
        Step::Done(read) => (read.evidence.served_by, read.evidence.doubt.is_none()),
        other => panic!("{other:?}"),
    }
}

const ANY: Freshness = Freshness { max_age_ms: None, skip_cache: false };

#[test]
fn a_fresh_cache_suffices_and_a_stale_one_is_compared_with_hot() {
    let settings = Settings::for_tests();
    let mut reading = Reading::new(1_000, key(), ANY);
    assert_eq!(origin(&reading.start()), Origin::Cache);
    assert_eq!(done(reading.answered(Ok(read(2, 2, 900)), &settings)), (Some(ServedBy::Cache), true));
    for (hot_ms, served_by) in [(5_000, ServedBy::Hot), (900, ServedBy::Cache), (800, ServedBy::Cache)] {
        let mut reading = Reading::new(5_000, key(), ANY);
        assert_eq!(origin(&reading.answered(Ok(read(2, 2, 900)), &settings)), Origin::Hot);
        assert_eq!(done(reading.answered(Ok(read(2, 2, hot_ms)), &settings)), (Some(served_by), true));
    }
}

#[test]
fn i1_an_emission_under_way_is_waited_for_a_few_times_and_never_vouched_for() {
    let settings = Settings { settle_tries: 1, ..Settings::for_tests() };
    let mut reading = Reading::new(1_000, key(), ANY);
    let pause = reading.answered(Ok(read(2, 3, 900)), &settings);
    assert!(matches!(pause, Step::Pause { .. }), "{pause:?}");
    assert_eq!(origin(&reading.paused()), Origin::Cache);
    assert_eq!(origin(&reading.answered(Ok(read(2, 3, 900)), &settings)), Origin::Hot);
    assert_eq!(done(reading.answered(Err(down()), &settings)), (Some(ServedBy::Cache), false));
}

#[test]
fn absent_blocks_of_a_cache_are_looked_for_in_hot() {
    let settings = Settings::for_tests();
    let partial = || SinkRead { incomplete: true, ..read(2, 2, 900) };
    let mut reading = Reading::new(1_000, key(), ANY);
    assert_eq!(origin(&reading.answered(Ok(partial()), &settings)), Origin::Hot);
    assert_eq!(
        done(reading.answered(Ok(read(2, 2, 1)), &settings)),
        (Some(ServedBy::Hot), true),
        "whole, though older"
    );
    let mut reading = Reading::new(1_000, key(), ANY);
    reading.answered(Ok(partial()), &settings);
    assert_eq!(done(reading.answered(Err(down()), &settings)), (Some(ServedBy::Cache), false));
    let mut reading = Reading::new(1_000, key(), ANY);
    reading.answered(Err(down()), &settings);
    assert_eq!(done(reading.answered(Ok(SinkRead::default()), &settings)), (None, false));
    let only_hot = Freshness { skip_cache: true, ..ANY };
    assert_eq!(origin(&Reading::new(1_000, key(), only_hot).start()), Origin::Hot);
}
