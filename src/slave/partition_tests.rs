use bytes::Bytes;

use super::*;
use crate::kv::ChunkRead;
use crate::model::applied::Applied;
use crate::model::block::BlockKey;
use crate::model::id::SourceId;
use crate::slave::exchange::SinkName;
use crate::slave::horizon::Horizon;
use crate::slave::sample::{self, Change};
use crate::tier::SinkStanding;

fn partition(epoch: Epoch) -> Partition {
    Partition::new(PartitionId(3), epoch, sample::catalog(), Settings::for_tests())
}

fn tip(number: u64) -> Tip {
    Tip::new(1, number)
}

/// Chunk `number` holds one change, at position `number`.
fn chunk(number: u64) -> Chunk {
    let changes = [Change::simple(number as i64, 100)];
    let batch = sample::batch(&sample::catalog(), &SourceId::push("orders", 1), number - 1, &changes);
    let previous = if number == 1 { Tip::default() } else { tip(number - 1) };
    Chunk { id: tip(number), previous, at_ms: 900, batches: vec![batch] }
}

fn head(number: u64) -> Input {
    let tip = if number == 0 { Tip::default() } else { tip(number) };
    Input::HeadRead(Ok(Head { tip, ..Head::default() }))
}

fn next(numbers: std::ops::RangeInclusive<u64>) -> Input {
    Input::ChunksRead(Ok(ChunkRead::Next(numbers.map(chunk).collect())))
}

/// A partition that stands at `number`, with both sinks empty and claimed.
fn counting(number: u64) -> Partition {
    let mut partition = partition(5);
    partition.step(0, Input::Tick);
    partition.step(0, Input::SnapshotRead(Ok(None)));
    partition.step(0, head(number));
    if number > 0 {
        partition.step(0, next(1..=number));
        partition.step(0, at_end());
    }
    for sink in SINKS {
        partition.step(0, Input::Standing(sink, Ok(SinkStanding::default())));
    }
    assert_eq!(*partition.standing(), Standing::Counting);
    partition
}

fn at_end() -> Input {
    Input::ChunksRead(Ok(ChunkRead::Next(Vec::new())))
}

fn reads(effects: &[Effect]) -> Vec<Tip> {
    effects.iter().filter_map(|e| if let Effect::ReadChunks { after } = e { Some(*after) } else { None }).collect()
}

#[test]
fn recovery_reads_snapshot_head_and_chunks_and_is_silent_until_it_has_caught_up() {
    let mut partition = partition(5);
    assert_eq!(partition.step(0, Input::Tick), [Effect::ReadSnapshot]);
    assert_eq!(partition.step(0, Input::SnapshotRead(Ok(None))), [Effect::ReadHead]);
    assert_eq!(partition.step(0, head(3)), [Effect::ReadChunks { after: Tip::default() }]);
    assert_eq!(partition.step(0, next(1..=2)), [Effect::ReadChunks { after: tip(2) }]);
    assert_eq!(partition.step(0, Input::Push(chunk(4))), []);
    let effects = partition.step(0, next(3..=3));
    assert_eq!(*partition.standing(), Standing::Counting);
    let asks = SINKS.map(Effect::AskStanding);
    assert_eq!(effects, [vec![Effect::ReadChunks { after: tip(3) }], asks.into()].concat());
    assert_eq!(partition.rows_applied(), 3);
}

#[test]
fn a_pushed_chunk_that_fits_is_counted_and_any_other_is_read_from_kv() {
    let mut partition = counting(1);
    assert_eq!(reads(&partition.step(0, Input::Push(chunk(2)))), []);
    assert_eq!(reads(&partition.step(0, Input::Push(chunk(1)))), [], "an old one is ignored");
    assert_eq!(partition.rows_applied(), 2);
    assert_eq!(reads(&partition.step(0, Input::Push(chunk(5)))), [tip(2)]);
    assert_eq!(reads(&partition.step(0, Input::Push(chunk(6)))), [], "one read at a time");
    assert_eq!(reads(&partition.step(0, next(3..=6))), [tip(6)]);
    assert_eq!(partition.rows_applied(), 6);
}

#[test]
fn a_broken_chain_is_read_again_from_the_start_and_counts_nothing_twice() {
    let mut partition = counting(3);
    let effects = partition.step(0, Input::Idle { tip: tip(1), at_ms: 5_000 });
    assert_eq!(reads(&effects), [tip(3)], "kv stands below what was counted");
    let effects = partition.step(0, Input::ChunksRead(Ok(ChunkRead::Broken)));
    assert!(effects.contains(&Effect::ReadHead));
    assert_eq!(reads(&partition.step(0, head(1))), [Tip::default()]);
    partition.step(0, next(1..=1));
    partition.step(0, at_end());
    assert_eq!(partition.rows_applied(), 3);
    // The gate goes on from where kv stands.
    let again = Chunk { id: Tip::new(2, 2), ..chunk(2) };
    partition.step(0, Input::Push(again));
    assert_eq!((partition.rows_applied(), partition.chain.last()), (3, Tip::new(2, 2)));
}

#[test]
fn the_time_of_an_answer_moves_with_batches_and_with_an_idle_gate() {
    let mut partition = counting(1);
    assert_eq!(partition.horizon.as_of_ms(), 1_000);
    partition.step(0, Input::Idle { tip: tip(1), at_ms: 2_000 });
    assert_eq!(partition.horizon.as_of_ms(), 2_000);
    partition.step(0, Input::Idle { tip: tip(2), at_ms: 3_000 });
    assert_eq!(partition.horizon.as_of_ms(), 2_000, "there is more than was counted");
}

#[test]
fn a_chunk_that_cannot_be_counted_stalls_the_partition_and_what_it_said_stays() {
    let mut partition = counting(1);
    let mut bad = chunk(2);
    bad.batches[0].header.table = "refunds".into();
    let effects = partition.step(50, Input::Push(bad));
    let Standing::Stalled { reason } = partition.standing() else { panic!("{:?}", partition.standing()) };
    assert!(reason.contains("refunds"), "{reason}");
    assert_eq!(reads(&effects), []);
    assert_eq!(reads(&partition.step(10_000, Input::Push(chunk(3)))), []);
    assert_eq!(partition.report().as_of_ms, 1_000);
}

#[test]
fn a_state_without_its_beginning_says_unavailable_and_emits_no_block() {
    let mut partition = partition(5);
    partition.step(0, Input::Tick);
    let other = sample::other_catalog();
    let foreign = snapshot::encode(&other, Stand::default(), &Horizon::default(), &Counting::new(&other));
    partition.step(0, Input::SnapshotRead(Ok(Some(Snapshot { epoch: 1, state: foreign }))));
    let head = Head { tip: tip(2), oldest_previous: tip(1), ..Head::default() };
    partition.step(0, Input::HeadRead(Ok(head)));
    partition.step(0, next(2..=2));
    partition.step(0, at_end());
    let effects = partition.step(0, Input::Standing(SinkName::Hot, Ok(SinkStanding::default())));
    let [Effect::Write(SinkName::Hot, write)] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(write.blocks.is_empty());
    let record = write.record.as_ref().expect("a record");
    assert!(!record.is_complete());
    assert!(record.unavailable[0].reason.contains("other definitions"), "{record:?}");
    // Nor does it pass for whole later.
    assert!(!partition.step(10_000, Input::Tick).iter().any(|effect| matches!(effect, Effect::PutSnapshot(_))));
}

#[test]
fn gaps_are_named_up_to_a_limit() {
    let mut partition = counting(0);
    let source = SourceId::push("orders", 1);
    let batches =
        (1..=6).map(|n| sample::batch(&sample::catalog(), &source, n * 10, &[Change::simple(1, 1)])).collect();
    partition.step(0, Input::Push(Chunk { batches, ..chunk(1) }));
    let claim = partition.claim();
    assert_eq!((claim.missing.len(), claim.missing_more), (4, 2));
    assert_eq!(claim.missing[0].table, "orders");
}

#[test]
fn a_stopping_partition_says_and_saves_everything_and_then_ends() {
    let mut partition = counting(1);
    for sink in SINKS {
        partition.step(0, Input::Written(sink, Ok(())));
    }
    partition.step(1, Input::Push(chunk(2)));
    let effects = partition.step(1, Input::Stop);
    let kinds: Vec<&str> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Write(SinkName::Hot, _) => "hot",
            Effect::Write(SinkName::Cache, _) => "cache",
            Effect::PutSnapshot(_) => "snapshot",
            _ => "other",
        })
        .collect();
    assert_eq!(kinds, ["hot", "cache", "snapshot"]);
    partition.step(2, Input::Written(SinkName::Hot, Ok(())));
    let unavailable = TierError::Unavailable { tier: "cache", reason: "it is down".into() };
    assert_eq!(partition.step(2, Input::Written(SinkName::Cache, Err(unavailable))), []);
    let effects = partition.step(2, Input::SnapshotPut(Ok(())));
    assert!(matches!(effects.as_slice(), [Effect::Trim { .. }, Effect::End]), "{effects:?}");
    assert_eq!((partition.standing(), partition.wake_ms()), (&Standing::Stopped, None));
}

#[test]
fn a_snapshot_gives_the_whole_state_back() {
    let mut before = counting(3);
    before.horizon.pushed(7_000);
    let state = snapshot::encode(&before.catalog, before.stand(), &before.horizon, &before.counting);
    let mut after = partition(6);
    after.step(0, Input::Tick);
    after.step(0, Input::SnapshotRead(Ok(Some(Snapshot { epoch: 5, state }))));
    after.step(0, head(3));
    assert_eq!(*after.standing(), Standing::Counting, "there is nothing to read");
    assert_eq!((after.stand(), &after.horizon), (before.stand(), &before.horizon));
    assert_eq!(after.counting.applied, before.counting.applied);
    let mut names: Vec<BlockKey> = before.counting.fold.blocks().collect();
    names.sort();
    assert_eq!(after.counting.fold.encode(&names), before.counting.fold.encode(&names));
}

#[test]
fn i4_a_damaged_snapshot_is_not_asked_for_again_and_the_chunks_say_the_same() {
    let mut partition = partition(5);
    partition.step(0, Input::Tick);
    let source = crate::model::codec::CodecError::malformed("snapshot", "torn");
    let damaged = TierError::Damaged { tier: "kv", place: "snapshot".into(), source };
    assert_eq!(partition.step(0, Input::SnapshotRead(Err(damaged))), [Effect::ReadHead]);
    assert_eq!(partition.step(0, head(1)), [Effect::ReadChunks { after: Tip::default() }]);
    assert!(partition.report().kv_trouble.is_some_and(|trouble| trouble.contains("torn")));
}

fn saving() -> Partition {
    let mut partition = counting(1);
    let effects = partition.step(100, Input::Tick);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::PutSnapshot(_))), "{effects:?}");
    partition
}

#[test]
fn a_newer_owner_ends_an_older_one_wherever_it_shows() {
    let fenced = || TierError::Fenced { tier: "kv", found: Tip::new(6, 1) };
    let by_snapshot = || Input::SnapshotRead(Ok(Some(Snapshot { epoch: 6, state: Bytes::new() })));
    let mut loading = partition(5);
    loading.step(0, Input::Tick);
    let standing = SinkStanding { tip: Tip::new(6, 1), announced: Applied::default() };
    for (mut partition, input) in [
        (loading, by_snapshot()),
        (saving(), Input::SnapshotPut(Err(fenced()))),
        (counting(1), Input::Written(SinkName::Cache, Err(fenced()))),
        (counting(0), Input::Standing(SinkName::Hot, Ok(standing))),
    ] {
        if let Input::Standing(name, _) = &input {
            partition.sinks[*name as usize] = Emission::new(5, &partition.settings);
            partition.sinks[*name as usize].asked();
        }
        assert_eq!(partition.step(0, input), [Effect::End]);
        assert!(matches!(partition.standing(), Standing::Fenced { .. }));
        assert_eq!(partition.step(0, Input::Push(chunk(2))), []);
        assert_eq!((partition.report().metric_rows, partition.wake_ms()), (0, None));
    }
}

#[test]
fn without_work_a_partition_sleeps_until_it_polls_kv() {
    let mut partition = counting(0);
    assert_eq!(partition.wake_ms(), Some(50), "nothing to say yet");
    partition.step(10, Input::Idle { tip: Tip::default(), at_ms: 10 });
    for sink in SINKS {
        partition.step(10, Input::Written(sink, Ok(())));
    }
    assert_eq!(partition.wake_ms(), Some(60));
    assert_eq!(partition.step(60, Input::Tick), [Effect::ReadChunks { after: Tip::default() }]);
    assert_eq!(partition.wake_ms(), None, "the answer wakes it");
}
