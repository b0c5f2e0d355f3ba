use proptest::prelude::*;

use super::*;
use crate::kv::{ChunkRead, Head, Snapshot};
use crate::lending::answer::{Answer, Failure};
use crate::lending::items::{self, Ended, Opening, Publication, Settled, Watch};
use crate::model::applied::Applied;
use crate::model::batch::{Batch, BatchHeader, Chunk};
use crate::model::block::StoredBlock;
use crate::model::codec;
use crate::model::position::{Position, Span};
use crate::mq::MqRead;
use crate::tier::{SinkRead, TierError};

fn span(from: u128, to: u128) -> Span {
    Span { from: Position(from), to: Position(to) }
}

fn batch(spans: Span, bytes: usize) -> Batch {
    let header = BatchHeader {
        source: SourceId::push("orders", 1),
        span: spans,
        table: "orders".into(),
        schema: 7,
        rows: 3,
        weighted: false,
        positioned: false,
        at_ms: 5,
        hours: Some((1, 2)),
    };
    Batch { header, body: Bytes::from(vec![7; bytes]) }
}

fn chunk(previous: Tip, id: Tip) -> Chunk {
    Chunk { id, previous, at_ms: 9, batches: vec![batch(span(0, 5), 100), batch(span(5, 5), 0)] }
}

fn applied() -> Applied {
    let mut applied = Applied::default();
    applied.add(&SourceId::push("orders", 1), span(0, 10), 1);
    applied.add(&SourceId::push("orders", 1), span(20, 30), 2);
    applied.add(&SourceId::Request(5), span(0, 3), 3);
    applied
}

fn append(chunk: Chunk) -> Append {
    let applied = applied().delta([&SourceId::Request(5)]);
    Append { chunk, offset: 4, applied, forget: vec![SourceId::Request(1)] }
}

fn key(key: Key) -> BlockKey {
    BlockKey { table: MetricTableId(7), day: -1, key }
}

fn write() -> SinkWrite {
    let version = Tip::new(1, 2);
    let record =
        Record { version, base: Tip::new(1, 1), as_of_ms: 7, missing: vec![], missing_more: 0, unavailable: vec![] };
    SinkWrite {
        expect: Tip::new(1, 1),
        tip: version,
        announce: applied().delta([&SourceId::push("orders", 1)]),
        forget: vec![SourceId::Request(9)],
        blocks: (0..5)
            .map(|n| (key(Key::int(n)), StoredBlock { version, rows: vec![n as u8; 10 * n as usize].into() }))
            .collect(),
        remove: vec![key(Key::text("größe"))],
        record: Some(record),
    }
}

fn sealed(ask: Ask, bodies: Vec<Bytes>) -> Bytes {
    Question { partition: PartitionId(3), most_answer: 100, ask }.seal(bodies).to_bytes()
}

fn appending(append: Append) -> Bytes {
    let mut bodies = Vec::new();
    let form = AppendForm::of(append, &mut bodies);
    sealed(Ask::KvAppend(form), bodies)
}

fn writing(write: SinkWrite) -> Bytes {
    let mut bodies = Vec::new();
    let form = WriteForm::of(write, &mut bodies);
    sealed(Ask::Write(SinkName::Hot, form), bodies)
}

/// Does all that a store does with a question before it puts it to a tier.
fn take(bytes: Bytes) -> Result<(), CodecError> {
    let (question, mut bodies) = Question::open(bytes, 4)?;
    match question.ask {
        Ask::KvAppend(form) => drop(form.read(&mut bodies)?),
        Ask::Write(_, form) => drop(form.read(&mut bodies)?),
        Ask::Read(_, form) => drop(form.read()?),
        Ask::KvPutSnapshot { bytes, .. } => drop(bodies.take(bytes)?),
        _ => {}
    }
    bodies.end()
}

#[test]
fn questions_arrive_as_they_were_put() {
    let (question, mut bodies) = Question::open(appending(append(chunk(Tip::default(), Tip::new(1, 1)))), 4).unwrap();
    let Ask::KvAppend(form) = question.ask else { panic!("it was an append") };
    assert_eq!(form.read(&mut bodies).unwrap(), append(chunk(Tip::default(), Tip::new(1, 1))));
    bodies.end().unwrap();

    let (question, mut bodies) = Question::open(writing(write()), 4).unwrap();
    let Ask::Write(SinkName::Hot, form) = question.ask else { panic!("it was a write to hot") };
    assert_eq!(form.read(&mut bodies).unwrap(), write());
    bodies.end().unwrap();
    assert_eq!(question.partition, PartitionId(3));
}

#[test]
fn questions_that_a_tier_would_take_for_a_bug_are_refused() {
    let refused = |bytes: Bytes, words: &str| {
        let error = take(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    take(appending(append(chunk(Tip::default(), Tip::new(1, 1))))).unwrap();
    take(writing(write())).unwrap();
    let elsewhere = Question { partition: PartitionId(4), most_answer: 0, ask: Ask::KvHead }.seal(vec![]).to_bytes();
    refused(elsewhere, "no such partition");
    refused(appending(append(chunk(Tip::new(1, 1), Tip::new(1, 1)))), "forward");
    refused(writing(SinkWrite { tip: Tip::new(1, 1), ..write() }), "forward");
    refused(writing(SinkWrite { record: None, ..write() }), "beside a record");
    let mut backwards = chunk(Tip::default(), Tip::new(1, 1));
    backwards.batches[0].header.span = span(5, 1);
    refused(appending(append(backwards.clone())), "backwards");
    backwards.batches[0].header.span = span(5, u128::MAX);
    refused(appending(append(backwards)), "positive half");
    let forged = |bytes: &'static [u8]| -> Key {
        codec::from_bytes("key", &[&(bytes.len() as u64).to_le_bytes()[..], bytes].concat()).unwrap()
    };
    for bytes in [&b""[..], b"\x01123", b"\x02\xff", b"\x09x"] {
        refused(writing(SinkWrite { remove: vec![key(forged(bytes))], ..write() }), "partition key");
        let query = SinkQuery { table: MetricTableId(1), keys: Some(vec![forged(bytes)]), days: 0..=1 };
        refused(sealed(Ask::Read(SinkName::Cache, query.into()), vec![]), "partition key");
    }
    // The high mark, two ranges, and when it was seen.
    let forged =
        |ranges: [(u128, u128); 2]| codec::to_bytes(&(Position(10), ranges.map(|(a, b)| span(a, b)).to_vec(), 0i64));
    for ranges in [[(10, 20), (30, 40)], [(20, 30), (30, 40)], [(30, 40), (20, 25)], [(20, 15), (30, 40)]] {
        let progress = codec::from_bytes("progress", &forged(ranges)).unwrap();
        let announce = vec![(SourceId::Request(1), progress)];
        refused(writing(SinkWrite { announce, ..write() }), "out of order");
    }
}

#[test]
fn answers_arrive_as_they_were_given() {
    let open = |answer: Answer, rows: Vec<Bytes>| Answer::open(Envelope::new(&answer, rows).to_bytes()).unwrap();
    let mut rows = Vec::new();
    let read = MqRead { batches: vec![(7, batch(span(0, 3), 10)), (8, batch(span(3, 4), 0))], low: 2, end: 9 };
    let (answer, mut bodies) = open(Answer::mq_read(read.clone(), &mut rows), rows);
    assert_eq!(answer.into_mq_read(&mut bodies).unwrap(), read);

    let head = Head { tip: Tip::new(1, 2), offset: 3, applied: applied(), oldest_previous: Tip::new(1, 1) };
    assert_eq!(open(Answer::head(head.clone()), vec![]).0.into_head().unwrap(), head);

    for chunks in [
        ChunkRead::Broken,
        ChunkRead::Next(vec![]),
        ChunkRead::Next(vec![chunk(Tip::default(), Tip::new(1, 1)), chunk(Tip::new(1, 1), Tip::new(2, 2))]),
    ] {
        let mut rows = Vec::new();
        let (answer, mut bodies) = open(Answer::chunks(chunks.clone(), &mut rows), rows);
        assert_eq!(answer.into_chunks(&mut bodies).unwrap(), chunks);
    }
    for snapshot in [None, Some(Snapshot { epoch: 3, state: Bytes::from_static(b"state") })] {
        let mut rows = Vec::new();
        let (answer, mut bodies) = open(Answer::snapshot(snapshot.clone(), &mut rows), rows);
        assert_eq!(answer.into_snapshot(&mut bodies).unwrap(), snapshot);
    }
    let SinkWrite { blocks, record, .. } = write();
    let read = SinkRead { record: record.map(Into::into), blocks, incomplete: true };
    let mut rows = Vec::new();
    let (answer, mut bodies) = open(Answer::blocks(read.clone(), &mut rows), rows);
    assert_eq!(answer.into_blocks(&mut bodies).unwrap(), read);
    assert!(Answer::Done.into_head().is_err(), "an answer to another question");
}

#[test]
fn a_tiers_error_keeps_its_kind_and_where_the_tier_stands() {
    let found = Tip::new(3, 4);
    let errors = [
        TierError::Fenced { tier: "kv", found },
        TierError::Moved { tier: "kv", found },
        TierError::Unavailable { tier: "kv", reason: "the disk is full".into() },
    ];
    for error in errors {
        assert_eq!(Failure::from(error.clone()).of("kv"), error);
    }
    let source = CodecError::Checksum { what: "chunk" };
    let damaged = TierError::Damaged { tier: "kv", place: "partition 3".into(), source };
    let arrived = Failure::from(damaged.clone()).of("kv");
    assert!(matches!(&arrived, TierError::Damaged { tier: "kv", place, .. } if place == "partition 3"));
    assert!(arrived.to_string().contains("checksum mismatch") && !arrived.is_retryable(), "{arrived}");
}

proptest! {
    /// Whatever bytes come: an error or a value, never a panic.
    #[test]
    fn bytes_of_any_kind_are_refused_or_read(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>(),
    ) {
        let mut rows = Vec::new();
        let SinkWrite { blocks, record, .. } = write();
        let read = SinkRead { record: record.map(Into::into), blocks, incomplete: false };
        let blocks = Envelope::new(&Answer::blocks(read, &mut rows), rows).to_bytes();
        let (publication, _) = Publication::seal(1, PartitionId(1), batch(span(0, 3), 10));
        let sound = [
            appending(append(chunk(Tip::default(), Tip::new(1, 1)))),
            writing(write()),
            blocks,
            publication,
            items::seal::<Vec<Ended>>(&vec![(PartitionId(1), 5, Err(Failure::Moved { found: Tip::default() }))]),
        ];
        for bytes in sound.iter().map(|bytes| bytes.to_vec()).chain([noise]) {
            let mut flipped = bytes.clone();
            if !flipped.is_empty() {
                let at = at.index(flipped.len());
                flipped[at] ^= flip;
            }
            let cut = bytes[..cut.index(bytes.len() + 1)].to_vec();
            for bytes in [flipped, cut, bytes] {
                read_as_everything(bytes.into());
            }
        }
    }
}

fn read_as_everything(bytes: Bytes) {
    let _ = take(bytes.clone());
    if let Ok((publication, mut bodies)) = Publication::open(bytes.clone()) {
        let _ = publication.batch.read(&mut bodies);
    }
    let _ = items::open::<Opening>(&bytes);
    let _ = items::open::<Vec<Settled>>(&bytes);
    let _ = items::open::<Vec<Watch>>(&bytes);
    let _ = items::open::<Vec<Ended>>(&bytes);
    let answer = || Answer::open(bytes.clone());
    let _ = answer().map(|(answer, mut bodies)| answer.into_mq_read(&mut bodies));
    let _ = answer().map(|(answer, mut bodies)| answer.into_chunks(&mut bodies));
    let _ = answer().map(|(answer, mut bodies)| answer.into_snapshot(&mut bodies));
    let _ = answer().map(|(answer, mut bodies)| answer.into_blocks(&mut bodies));
    let _ = answer().map(|(answer, _)| answer.into_head());
    let _ = answer().map(|(answer, _)| answer.into_standing());
}
