//! What the cache tier does beyond being a sink: it forgets blocks within its limit, and never silently.
//!
//! Invariant: see `holdfast::cache`.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast::cache::memory::MemoryCache;
use holdfast::lending::remote_sink::RemoteSink;
use holdfast::model::block::{BlockKey, Day, StoredBlock};
use holdfast::model::id::{PartitionId, Tip};
use holdfast::model::quality::Record;
use holdfast::tier::{Sink, SinkWrite};
use proptest::prelude::*;

use crate::lent::{Loan, in_memory};
use crate::sink::{TABLE, block, key, query, read, record, suite};
use crate::{P0, PARTITIONS, tip, wait};

#[test]
fn the_cache_in_memory_is_a_sink() {
    suite(&|| Arc::new(MemoryCache::new(PARTITIONS, 64 << 20)));
}

#[test]
fn a_cache_in_another_process_is_a_sink() {
    suite(&|| Arc::new(RemoteSink::cache(&Loan::of(in_memory(PARTITIONS)).store())));
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        partition: u16,
        day: Day,
        key: i64,
        bytes: usize,
    },
    Remove {
        partition: u16,
        day: Day,
        key: i64,
    },
    /// A new owner that knows of nothing: all that was there is gone.
    Claim {
        partition: u16,
    },
    ReadPoint {
        partition: u16,
        keys: Vec<i64>,
        days: (Day, Day),
    },
    ReadRange {
        partition: u16,
        days: (Day, Day),
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = || (0u16..2, 0..12i32, 0..20i64);
    let days = || (-1..13i32, 0..6i32).prop_map(|(from, len)| (from, from + len));
    let step = prop_oneof![
        5 => (place(), 0usize..900).prop_map(|((partition, day, key), bytes)| Step::Put { partition, day, key, bytes }),
        1 => place().prop_map(|(partition, day, key)| Step::Remove { partition, day, key }),
        1 => (0u16..20).prop_map(|n| match n {
            0 | 1 => Step::Claim { partition: n },
            _ => Step::ReadRange { partition: n % 2, days: (0, 20) },
        }),
        3 => (0u16..2, prop::collection::vec(0..20i64, 0..4), days())
            .prop_map(|(partition, keys, days)| Step::ReadPoint { partition, keys, days }),
        1 => (0u16..2, days()).prop_map(|(partition, days)| Step::ReadRange { partition, days }),
    ];
    prop::collection::vec(step, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is evicted: a read is complete and equal to what was written, or says that it is incomplete; and what
    /// it does give is never old.
    #[test]
    fn i1_i6_a_read_is_right_or_incomplete_and_the_limit_is_kept(steps in steps(), limit in 300usize..40_000) {
        let cache = MemoryCache::new(2, limit);
        let mut model: [BTreeMap<BlockKey, StoredBlock>; 2] = Default::default();
        let mut tips = [Tip::default(); 2];
        let mut bases = tips;
        for step in steps {
            match step {
                Step::Put { partition, day, key: number, bytes } => {
                    let at = &mut tips[usize::from(partition)];
                    let version = tip(at.epoch.max(1), at.number + 1);
                    let put = (key(day, number), block(version, bytes));
                    model[usize::from(partition)].insert(put.0.clone(), put.1.clone());
                    let write = SinkWrite { expect: *at, tip: version, blocks: vec![put], ..SinkWrite::default() };
                    wait(cache.write(PartitionId(partition), write)).unwrap();
                    *at = version;
                }
                Step::Remove { partition, day, key: number } => {
                    let at = &mut tips[usize::from(partition)];
                    let version = tip(at.epoch.max(1), at.number + 1);
                    let remove = vec![key(day, number)];
                    model[usize::from(partition)].remove(&remove[0]);
                    let record = Some(Record { base: bases[usize::from(partition)], ..record(version) });
                    let write = SinkWrite { expect: *at, tip: version, remove, record, ..SinkWrite::default() };
                    wait(cache.write(PartitionId(partition), write)).unwrap();
                    *at = version;
                }
                Step::Claim { partition } => {
                    let at = &mut tips[usize::from(partition)];
                    let version = tip(at.epoch + 1, 1);
                    let record = Some(Record { base: version, ..record(version) });
                    let write = SinkWrite { expect: *at, tip: version, record, ..SinkWrite::default() };
                    wait(cache.write(PartitionId(partition), write)).unwrap();
                    model[usize::from(partition)].clear();
                    (*at, bases[usize::from(partition)]) = (version, version);
                }
                Step::ReadPoint { partition, keys, days } => {
                    check(&cache, &model[usize::from(partition)], partition, Some(&keys), days)?;
                }
                Step::ReadRange { partition, days } => {
                    check(&cache, &model[usize::from(partition)], partition, None, days)?;
                }
            }
            let usage = cache.usage();
            prop_assert!(usage.bytes <= usage.limit_bytes, "{usage:?}");
        }
    }
}

fn check(
    cache: &MemoryCache,
    model: &BTreeMap<BlockKey, StoredBlock>,
    partition: u16,
    keys: Option<&[i64]>,
    (from, to): (Day, Day),
) -> Result<(), TestCaseError> {
    let asked = query(keys, from..=to);
    let found = wait(cache.read(PartitionId(partition), asked.clone())).unwrap();
    let wanted = |key: &BlockKey| {
        asked.days.contains(&key.day) && asked.keys.as_ref().is_none_or(|keys| keys.contains(&key.key))
    };
    let expected: Vec<(BlockKey, StoredBlock)> =
        model.iter().filter(|(key, _)| wanted(key)).map(|(key, block)| (key.clone(), block.clone())).collect();
    match found.incomplete {
        false => prop_assert_eq!(found.blocks, expected),
        true => prop_assert!(found.blocks.iter().all(|pair| expected.contains(pair))),
    }
    Ok(())
}

/// Puts one block per key, in one write each.
fn fill(cache: &MemoryCache, keys: std::ops::Range<i64>, bytes: usize) {
    for number in keys {
        let at = wait(cache.standing(P0)).unwrap().tip;
        let version = tip(1, at.number + 1);
        let blocks = vec![(key(1, number), block(version, bytes))];
        let record = Some(record(version));
        wait(cache.write(P0, SinkWrite { expect: at, tip: version, blocks, record, ..SinkWrite::default() })).unwrap();
    }
}

#[test]
fn what_is_read_stays_and_what_is_not_goes_and_the_difference_to_absence_is_known() {
    let cache = MemoryCache::new(1, 1 << 20);
    fill(&cache, 0..100, 1_000);
    for round in 1..40 {
        assert_eq!(read(&cache, Some(&[5]), 1..=1).blocks.len(), 1, "round {round}");
        fill(&cache, round * 100..round * 100 + 100, 1_000);
    }
    let usage = cache.usage();
    assert!(usage.evictions > 2_000 && usage.blocks > 500 && usage.bytes > 1_000_000, "{usage:?}");
    let evicted = read(&cache, Some(&[6]), 1..=1);
    assert!(evicted.blocks.is_empty() && evicted.incomplete);
    assert!(read(&cache, None, 1..=1).incomplete);
    assert!(!read(&cache, None, 2..=9).incomplete, "other days lack nothing");
    fill(&cache, 6..7, 1_000);
    assert!(!read(&cache, Some(&[6]), 1..=1).incomplete);
    cache.clear(P0);
    assert_eq!(read(&cache, Some(&[6]), 1..=1), Default::default());
}

#[test]
fn i6_one_partition_may_use_all_of_the_limit_until_others_need_it() {
    let cache = MemoryCache::new(4, 400_000);
    fill(&cache, 0..1_000, 1_000);
    assert!(cache.usage().bytes > 380_000, "{:?}", cache.usage());
    let blocks = (0..100).map(|number| (key(1, number), block(tip(1, 1), 1_000))).collect();
    let write = SinkWrite { tip: tip(1, 1), blocks, ..SinkWrite::default() };
    wait(cache.write(PartitionId(1), write)).unwrap();
    assert!(cache.usage().bytes <= 400_000, "{:?}", cache.usage());
    let other = wait(cache.read(PartitionId(1), query(None, 1..=1))).unwrap();
    assert_eq!((other.blocks.len(), other.incomplete), (100, false), "the largest gave up its own");
    assert_eq!(other.blocks[0].0.table, TABLE);
}

#[test]
fn i4_an_owner_that_said_everything_again_makes_a_lossy_directory_whole() {
    let cache = MemoryCache::new(1, 100_000);
    fill(&cache, 0..5_000, 1_000);
    assert!(read(&cache, Some(&[77_777]), 1..=1).incomplete, "more went than markers can tell");
    let (at, version) = (wait(cache.standing(P0)).unwrap().tip, tip(2, 1));
    let blocks = vec![(key(1, 1), block(version, 1_000))];
    let record = Some(Record { base: version, ..record(version) });
    wait(cache.write(P0, SinkWrite { expect: at, tip: version, blocks, record, ..SinkWrite::default() })).unwrap();
    let all = read(&cache, None, 0..=9);
    assert_eq!((all.blocks.len(), all.incomplete, cache.usage().blocks), (1, false, 1));
    assert!(!read(&cache, Some(&[77_777]), 0..=9).incomplete);
}
