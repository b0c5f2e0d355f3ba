//! Each step gives the exact effects; and whatever fails, kv's chain ends with every batch counted once.

use std::collections::HashSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::applied::Progress;
use crate::model::batch::BatchHeader;
use crate::model::position::{Position, Span};
use crate::tier::check_chain;

const LIMITS: AdmissionLimits = AdmissionLimits {
    chunk_rows: 10,
    chunk_bytes: 1 << 20,
    skipped_offsets: 3,
    keys_remembered: 4,
    keys_remembered_for_ms: 1_000,
    retry_first_ms: 10,
    retry_most_ms: 100,
    head_check_ms: 1_000,
};

fn batch(source: SourceId, from: u128, to: u128) -> Batch {
    let header = BatchHeader {
        source,
        span: Span::new(Position(from), Position(to)),
        table: "orders".into(),
        schema: 1,
        rows: (to - from) as u32,
        weighted: false,
        positioned: false,
        at_ms: 0,
        hours: None,
    };
    Batch { header, body: Bytes::new() }
}

fn push(from: u128, to: u128) -> Batch {
    batch(SourceId::push("orders", 1), from, to)
}

fn read(from: Offset, batches: Vec<Batch>) -> Input {
    let end = from + batches.len() as u64;
    Input::Mq(Ok(MqRead { batches: (from..).zip(batches).collect(), low: 0, end }))
}

fn unavailable() -> TierError {
    TierError::Unavailable { tier: "kv", reason: "away".into() }
}

/// An admission that follows an empty kv.
fn following(limits: AdmissionLimits) -> Admission {
    let mut admission = Admission::new(7, limits);
    assert_eq!(admission.step(0, Input::Start), [Effect::ReadHead]);
    let effects = admission.step(0, Input::Head(Ok(Head::default())));
    let note = Effect::Note(Note::TookOver { tip: Tip::default(), offset: 0 });
    assert_eq!(effects, [note, Effect::ReadMq { from: 0 }]);
    admission
}

/// Beside the batches of a chunk: the offsets that it stands for.
fn with_offsets(mut batches: Vec<Batch>, from: Offset, to: Offset) -> Vec<Batch> {
    batches.push(passed(from, to));
    batches
}

/// What an append says of the stream of pushes.
fn pushed(append: &Append) -> &Progress {
    let stream = SourceId::push("orders", 1);
    &append.applied.iter().find(|(source, _)| *source == stream).expect("it is in the chunk").1
}

fn appended(effects: &[Effect]) -> &Append {
    effects
        .iter()
        .find_map(|effect| if let Effect::Append(append) = effect { Some(append) } else { None })
        .expect("an append")
}

#[test]
fn batches_become_chained_chunks_up_to_the_limits() {
    let mut admission = following(LIMITS);
    let effects = admission.step(5, read(0, vec![push(0, 6), push(6, 9), push(9, 12), push(12, 40)]));
    let first = appended(&effects).clone();
    assert_eq!((first.chunk.id, first.chunk.previous, first.chunk.at_ms), (Tip::new(7, 1), Tip::default(), 5));
    assert_eq!((first.chunk.rows(), first.offset, first.applied.len()), (9, 2, 2));
    assert_eq!(pushed(&first).high(), Position(9));
    let effects = admission.step(6, Input::Appended(Ok(())));
    assert_eq!(effects[0], Effect::Committed(first.chunk));
    let second = appended(&effects).clone();
    assert_eq!((second.chunk.id, second.chunk.previous, second.offset), (Tip::new(7, 2), Tip::new(7, 1), 3));
    let effects = admission.step(7, Input::Appended(Ok(())));
    assert_eq!(appended(&effects).chunk.rows(), 28, "a batch larger than the limit is a chunk of its own");
    let effects = admission.step(8, Input::Appended(Ok(())));
    assert_eq!(effects[1..], [Effect::ReadMq { from: 4 }]);
    assert_eq!(admission.step(9, read(4, vec![])), [Effect::AwaitMq { from: 4 }]);
    assert_eq!(admission.step(9, Input::Arrived(Ok(()))), [Effect::ReadMq { from: 4 }]);
}

#[test]
fn i3_counted_batches_are_skipped_and_their_offset_is_written_now_and_then() {
    let mut admission = following(LIMITS);
    admission.step(0, read(0, vec![push(0, 5)]));
    admission.step(0, Input::Appended(Ok(())));
    assert_eq!(admission.step(0, read(1, vec![push(0, 5), push(2, 4)])), [Effect::ReadMq { from: 3 }]);
    assert_eq!((admission.offset(), admission.persisted()), (3, 1));
    let effects = admission.step(0, read(3, vec![push(1, 5)]));
    let empty = appended(&effects);
    assert_eq!((&empty.chunk.batches, empty.offset), (&with_offsets(vec![], 1, 4), 4));
}

#[test]
fn a_partly_counted_batch_is_passed_on_as_it_is() {
    let mut admission = following(LIMITS);
    let effects = admission.step(0, read(0, vec![push(0, 5), push(3, 8)]));
    let append = appended(&effects);
    assert_eq!(append.chunk.batches, with_offsets(vec![push(0, 5), push(3, 8)], 0, 2));
    assert_eq!(pushed(append).high(), Position(8));
}

#[test]
fn i5_after_a_failed_append_the_head_is_the_truth_and_the_id_is_never_given_again() {
    let mut admission = following(LIMITS);
    let effects = admission.step(0, read(0, vec![push(0, 5)]));
    let lost = appended(&effects).chunk.clone();
    let effects = admission.step(0, Input::Appended(Err(unavailable())));
    assert_eq!(effects, [Effect::Note(Note::Failed(unavailable())), Effect::RetryAfter { after_ms: 10 }]);
    assert_eq!(admission.step(0, Input::Retry), [Effect::ReadHead]);
    let effects = admission.step(0, Input::Head(Err(unavailable())));
    assert_eq!(effects[1], Effect::RetryAfter { after_ms: 20 });
    admission.step(0, Input::Retry);
    let effects = admission.step(0, Input::Head(Ok(Head::default())));
    assert_eq!(effects[1], Effect::ReadMq { from: 0 }, "it did not happen: again");
    let effects = admission.step(0, read(0, vec![push(0, 5)]));
    assert_eq!(appended(&effects).chunk.id, Tip::new(7, 2));
    assert_ne!(appended(&effects).chunk.id, lost.id);
    // kv went back, or someone else wrote: look at once.
    admission.step(0, Input::Appended(Ok(())));
    admission.step(0, read(1, vec![push(5, 6)]));
    let moved = TierError::Moved { tier: "kv", found: Tip::new(3, 9) };
    assert_eq!(admission.step(0, Input::Appended(Err(moved))), [Effect::ReadHead]);
    admission.step(0, Input::Head(Ok(Head { tip: Tip::new(3, 9), ..Head::default() })));
    let effects = admission.step(0, read(0, vec![push(0, 5)]));
    assert_eq!((appended(&effects).chunk.id, appended(&effects).chunk.previous), (Tip::new(7, 10), Tip::new(3, 9)));
    // Again without success in between: not at once any more.
    let moved = TierError::Moved { tier: "kv", found: Tip::new(3, 8) };
    let effects = admission.step(0, Input::Appended(Err(moved)));
    assert_eq!(effects[1], Effect::RetryAfter { after_ms: 20 });
}

#[test]
fn i5_a_fenced_gate_stops_for_good() {
    let mut admission = following(LIMITS);
    admission.step(0, read(0, vec![push(0, 5)]));
    let found = Tip::new(8, 1);
    let effects = admission.step(0, Input::Appended(Err(TierError::Fenced { tier: "kv", found })));
    assert_eq!(effects, [Effect::Note(Note::Fenced { found })]);
    for input in [Input::Heartbeat, Input::Arrived(Ok(())), Input::Retry] {
        assert_eq!(admission.step(0, input), []);
    }
    for found in [Tip::new(7, 1), Tip::new(8, 0)] {
        let mut late = Admission::new(7, LIMITS);
        late.step(0, Input::Start);
        let head = Head { tip: found, ..Head::default() };
        assert_eq!(late.step(0, Input::Head(Ok(head))), [Effect::Note(Note::Fenced { found })]);
    }
}

#[test]
fn idle_is_said_only_when_a_look_after_the_time_found_nothing() {
    let mut admission = following(LIMITS);
    assert_eq!(admission.step(0, Input::Heartbeat), [], "it is reading");
    admission.step(0, read(0, vec![push(0, 5)]));
    admission.step(0, Input::Appended(Ok(())));
    admission.step(0, read(1, vec![]));
    assert_eq!(admission.step(90, Input::Heartbeat), [Effect::Probe { at_ms: 90, from: 1 }]);
    let empty = MqRead { batches: vec![], low: 0, end: 1 };
    let effects = admission.step(95, Input::Probed { at_ms: 90, read: Ok(empty) });
    assert_eq!(effects, [Effect::Idle { tip: Tip::new(7, 1), at_ms: 90 }]);
    let more = MqRead { batches: vec![(1, push(5, 6))], low: 0, end: 2 };
    assert_eq!(admission.step(99, Input::Probed { at_ms: 98, read: Ok(more) }), []);
    assert_eq!(admission.step(99, Input::Probed { at_ms: 98, read: Err(unavailable()) }), []);
}

#[test]
fn i4_a_kv_that_went_back_while_all_was_quiet_is_filled_again() {
    let mut admission = following(LIMITS);
    admission.step(0, read(0, vec![push(0, 5)]));
    admission.step(0, Input::Appended(Ok(())));
    admission.step(0, read(1, vec![]));
    let head = |number| Input::Head(Ok(Head { tip: Tip::new(7, number), offset: number, ..Head::default() }));
    assert_eq!(admission.step(1_000, Input::Heartbeat), [Effect::ReadHead]);
    assert_eq!(admission.step(1_000, Input::Arrived(Ok(()))), [], "it reads anyway");
    assert_eq!(admission.step(1_000, head(1)), [Effect::ReadMq { from: 1 }]);
    admission.step(1_000, read(1, vec![]));
    assert!(matches!(admission.step(1_500, Input::Heartbeat)[..], [Effect::Probe { .. }]));
    assert_eq!(admission.step(2_000, Input::Heartbeat), [Effect::ReadHead]);
    let effects = admission.step(2_000, Input::Head(Ok(Head::default())));
    assert_eq!(effects[1], Effect::ReadMq { from: 0 });
}

#[test]
fn an_mq_that_lost_or_trimmed_batches_is_noticed_and_read_where_it_can_be() {
    let mut admission = following(LIMITS);
    let trimmed = Input::Mq(Ok(MqRead { batches: vec![(4, push(9, 12))], low: 4, end: 5 }));
    let effects = admission.step(0, trimmed);
    assert_eq!(effects, [Effect::Note(Note::MqTrimmed { from: 0, to: 4 }), Effect::ReadMq { from: 4 }]);
    let effects = admission.step(0, Input::Mq(Ok(MqRead { batches: vec![(4, push(9, 12))], low: 4, end: 5 })));
    assert!(!pushed(appended(&effects)).beyond().is_empty(), "the gap shows by itself");
    assert_eq!(appended(&effects).chunk.batches, with_offsets(vec![push(9, 12)], 4, 5), "and so does what mq forgot");
    assert!(!admission.applied().get(&SourceId::mq()).expect("it is counted").beyond().is_empty());
    admission.step(0, Input::Appended(Ok(())));
    let effects = admission.step(0, Input::Mq(Ok(MqRead { batches: vec![], low: 2, end: 3 })));
    assert_eq!(effects, [Effect::Note(Note::MqWentBack { offset: 5, end: 3 }), Effect::ReadMq { from: 2 }]);
    // Also while it waits.
    admission.step(0, read(2, vec![]));
    admission.step(0, Input::Heartbeat);
    let effects = admission.step(0, Input::Probed { at_ms: 0, read: Ok(MqRead { batches: vec![], low: 0, end: 1 }) });
    assert_eq!(effects, [Effect::ReadMq { from: 2 }]);
}

#[test]
fn i6_keys_are_forgotten_by_age_when_mq_is_drained_and_by_number_always() {
    let mut admission = following(AdmissionLimits { chunk_rows: 1, ..LIMITS });
    let keyed = |ids: std::ops::Range<u128>| ids.map(|id| batch(SourceId::Request(id), 0, 1)).collect::<Vec<_>>();
    let mut forgotten = Vec::new();
    let mut effects = admission.step(0, read(0, keyed(0..8)));
    while let Some(Effect::Append(append)) = effects.last() {
        forgotten.extend(append.forget.clone());
        effects = admission.step(0, Input::Appended(Ok(())));
    }
    assert_eq!(forgotten, (0..4).map(SourceId::Request).collect::<Vec<_>>());
    let effects = admission.step(5_000, read(8, keyed(8..9)));
    assert_eq!(appended(&effects).forget, (4..8).map(SourceId::Request).collect::<Vec<_>>());
    assert_eq!(admission.applied().len(), 2, "of requests the newest; and the offsets");
}

/// mq and kv as plain data, with the ways they fail.
#[derive(Default)]
struct World {
    mq: Vec<Batch>,
    head: Head,
    chunks: Vec<Chunk>,
    /// The head before each chunk.
    past: Vec<Head>,
    ids: HashSet<Tip>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The write happens, its answer is lost.
    AnswerLost,
    Refused,
    /// kv fails over to a replica that lacks this many of the last chunks.
    WentBack(usize),
    Crash,
}

impl World {
    fn append(&mut self, append: Append) -> Result<(), TierError> {
        assert!(self.ids.insert(append.chunk.id), "chunk id {} was given twice", append.chunk.id);
        check_chain("kv", self.head.tip, append.chunk.previous, append.chunk.id)?;
        self.past.push(self.head.clone());
        self.head.tip = append.chunk.id;
        self.head.offset = append.offset;
        self.head.applied.merge_delta(&append.applied);
        self.chunks.push(append.chunk);
        Ok(())
    }

    fn go_back(&mut self, by: usize) {
        for _ in 0..by {
            self.chunks.pop();
            self.head = self.past.pop().unwrap_or_default();
        }
    }

    fn answer(&mut self, effect: Effect, fault: Fault) -> Option<Input> {
        let failed = matches!(fault, Fault::Refused | Fault::AnswerLost);
        match effect {
            Effect::ReadHead => Some(Input::Head(if failed { Err(unavailable()) } else { Ok(self.head.clone()) })),
            Effect::ReadMq { .. } if failed => Some(Input::Mq(Err(unavailable()))),
            Effect::ReadMq { from } => {
                let batches = (from..).zip(self.mq.iter().skip(from as usize).take(3).cloned()).collect();
                Some(Input::Mq(Ok(MqRead { batches, low: 0, end: self.mq.len() as u64 })))
            }
            Effect::Append(_) if fault == Fault::Refused => Some(Input::Appended(Err(unavailable()))),
            Effect::Append(append) => {
                let result = self.append(append);
                Some(Input::Appended(if failed { Err(unavailable()) } else { result }))
            }
            Effect::RetryAfter { .. } => Some(Input::Retry),
            Effect::AwaitMq { .. }
            | Effect::Committed(_)
            | Effect::Note(_)
            | Effect::Probe { .. }
            | Effect::Idle { .. } => None,
        }
    }
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        2 => Just(Fault::AnswerLost),
        2 => Just(Fault::Refused),
        1 => (1usize..4).prop_map(Fault::WentBack),
        1 => Just(Fault::Crash),
    ]
}

/// Batches of two sources in order, some of them more than once, some cut differently.
fn any_log() -> impl Strategy<Value = Vec<Batch>> {
    prop::collection::vec((any::<bool>(), 1u128..5, 0u128..4, 1usize..3), 1..25).prop_map(|steps| {
        let mut ends = [0u128; 2];
        let mut log = Vec::new();
        for (which, rows, back, times) in steps {
            let end = &mut ends[usize::from(which)];
            let from = end.saturating_sub(back);
            *end += rows;
            let source = SourceId::push(if which { "a" } else { "b" }, 1);
            log.extend(std::iter::repeat_n(batch(source, from, *end), times));
        }
        log
    })
}

/// Runs until mq is drained and no faults are left.
fn run(world: &mut World, faults: &[Fault]) -> Admission {
    let mut faults = faults.iter().copied();
    let mut epoch = 1;
    let mut admission = Admission::new(epoch, LIMITS);
    let mut effects = admission.step(0, Input::Start);
    for now_ms in (0..10_000).map(|step| step * 1_000) {
        let fault = faults.next().unwrap_or(Fault::None);
        match fault {
            Fault::Crash => {
                epoch += 1;
                admission = Admission::new(epoch, LIMITS);
                effects = admission.step(now_ms, Input::Start);
            }
            Fault::WentBack(by) => world.go_back(by),
            _ => {}
        }
        let input = effects.into_iter().find_map(|effect| world.answer(effect, fault));
        let Some(input) = input else {
            assert_eq!(*admission.standing(), Standing::Drained);
            if fault == Fault::None && faults.len() == 0 && world.head.tip == admission.tip() {
                return admission;
            }
            effects = admission.step(now_ms, Input::Heartbeat);
            continue;
        };
        effects = admission.step(now_ms, input);
    }
    panic!("it never came to rest");
}

proptest! {
    #[test]
    fn i2_i3_whatever_fails_every_batch_is_in_the_chain_and_counts_once(
        log in any_log(),
        faults in prop::collection::vec(any_fault(), 0..60),
    ) {
        let mut world = World { mq: log, ..World::default() };
        run(&mut world, &faults);
        // The chain holds exactly what its head says, in order.
        let mut previous = Tip::default();
        let mut counted = Applied::default();
        for chunk in &world.chunks {
            prop_assert_eq!(chunk.previous, previous);
            previous = chunk.id;
            for batch in &chunk.batches {
                prop_assert_ne!(counted.admit(&batch.header.source, batch.header.span), Admitted::None);
                counted.add(&batch.header.source, batch.header.span, 0);
            }
        }
        prop_assert_eq!(previous, world.head.tip);
        let mut all = Applied::default();
        all.add(&SourceId::mq(), Span::new(Position(0), Position(world.head.offset.into())), 0);
        world.mq.iter().for_each(|batch| all.add(&batch.header.source, batch.header.span, 0));
        prop_assert!(counted.covers(&all) && all.covers(&counted), "{counted:?} is not {all:?}");
        prop_assert!(world.head.applied.covers(&all));
        prop_assert!(world.head.offset + LIMITS.skipped_offsets > world.mq.len() as u64);
    }
}
