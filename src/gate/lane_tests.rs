//! Each step gives the exact effects.

use super::super::row_reader::tests::table;
use super::*;
use crate::kv::Head;
use crate::model::id::{SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::mq::MqRead;

const HERE: PartitionId = PartitionId(3);

fn offer(key: Option<&str>, rows: u32) -> Offer {
    Offer {
        table: table(),
        key: key.map(Into::into),
        body: Bytes::from_static(b"rows"),
        rows,
        weighted: false,
        hours: Some((1, 2)),
    }
}

fn batch(source: SourceId, span: (u128, u128), offer: Option<&Offer>, at_ms: i64) -> Batch {
    let header = BatchHeader {
        source,
        span: Span::new(Position(span.0), Position(span.1)),
        table: table().name.clone(),
        schema: table().fingerprint,
        rows: offer.map_or(0, |offer| offer.rows),
        weighted: false,
        positioned: false,
        at_ms,
        hours: offer.and_then(|offer| offer.hours),
    };
    Batch { header, body: offer.map_or(Bytes::new(), |offer| offer.body.clone()) }
}

/// A gate that follows an empty kv and an empty mq.
fn drained(settings: Settings) -> Lane {
    let mut lane = Lane::new(HERE, 7, Arc::new(settings));
    assert_eq!(lane.step(0, Input::Start), [Effect::ReadHead]);
    lane.step(0, Input::Admission(admission::Input::Head(Ok(Head::default()))));
    let await_mq = lane.step(0, Input::Admission(admission::Input::Mq(Ok(MqRead::default()))));
    assert_eq!(await_mq, [Effect::AwaitMq { from: 0 }]);
    lane
}

fn down() -> TierError {
    TierError::Unavailable { tier: "mq", reason: "away".into() }
}

fn ticket(effects: &[Effect]) -> Ticket {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Publish(ticket, _) => Some(*ticket),
            _ => None,
        })
        .expect("something is published")
}

#[test]
fn an_offer_is_published_in_its_step_and_answered_when_mq_has_it() {
    let mut lane = drained(Settings::for_tests());
    let rows = offer(None, 4);
    let effects = lane.step(5, Input::Offer(1, rows.clone()));
    let first = ticket(&effects);
    assert_eq!(effects, [Effect::Publish(first, batch(SourceId::push("orders", 7), (0, 4), Some(&rows), 5))]);
    let accepted = Accepted { rows: 4, duplicate: false };
    assert_eq!(lane.step(6, Input::Published(first, Ok(0))), [Effect::Answer(1, Ok(accepted))]);
    assert_eq!((lane.report().counted.accepted_rows, lane.report().mq_lag_batches), (4, 1));
}

#[test]
fn i3_a_request_that_is_under_way_is_not_published_again() {
    let mut lane = drained(Settings::for_tests());
    let first = ticket(&lane.step(0, Input::Offer(1, offer(Some("a"), 2))));
    assert_eq!(lane.step(0, Input::Offer(2, offer(Some("a"), 2))), []);
    assert_eq!(
        lane.step(0, Input::Offer(3, offer(Some("a"), 3))),
        [Effect::Answer(3, Err(OfferError::KeyReused))],
        "another request"
    );
    let answers =
        [(1, false), (2, true)].map(|(id, duplicate)| Effect::Answer(id, Ok(Accepted { rows: 2, duplicate })));
    assert_eq!(lane.step(0, Input::Published(first, Ok(0))), answers);
    let later = Effect::Answer(4, Ok(Accepted { rows: 2, duplicate: true }));
    assert_eq!(lane.step(0, Input::Offer(4, offer(Some("a"), 2))), [later]);
}

#[test]
fn i2_what_mq_did_not_take_is_answered_so_and_voided_when_mq_takes_batches_again() {
    let mut lane = drained(Settings::for_tests());
    let lost = ticket(&lane.step(0, Input::Offer(1, offer(None, 2))));
    let kept = ticket(&lane.step(0, Input::Offer(2, offer(None, 3))));
    let refused = Effect::Answer(1, Err(OfferError::Unavailable(down())));
    assert_eq!(lane.step(0, Input::Published(lost, Err(down()))), [refused]);
    assert_eq!(lane.report().holes, 1);
    let effects = lane.step(9, Input::Published(kept, Ok(0)));
    let void = batch(SourceId::push("orders", 7), (0, 2), None, 9);
    let accepted = Accepted { rows: 3, duplicate: false };
    assert_eq!(effects, [Effect::Answer(2, Ok(accepted)), Effect::Publish(ticket(&effects), void)]);
}

#[test]
fn i4_the_gap_of_a_gate_that_died_is_voided_when_all_of_mq_is_counted() {
    let head = |offsets: &[(u128, u128)]| {
        let mut head = Head { tip: Tip::new(3, 9), offset: 8, ..Head::default() };
        head.applied.add(&SourceId::push("orders", 3), Span::new(Position(4), Position(6)), 0);
        for (from, to) in offsets {
            head.applied.add(&SourceId::mq(), Span::new(Position(*from), Position(*to)), 0);
        }
        head
    };
    let publishes = |head: Head| {
        let mut lane = Lane::new(HERE, 7, Arc::new(Settings::for_tests()));
        lane.step(0, Input::Start);
        lane.step(0, Input::Admission(admission::Input::Head(Ok(head))));
        let early = lane.step(0, Input::Heartbeat);
        assert!(!early.iter().any(|effect| matches!(effect, Effect::Publish(..))), "mq is not read yet");
        let empty = MqRead { end: 8, ..MqRead::default() };
        lane.step(0, Input::Admission(admission::Input::Mq(Ok(empty))));
        let effects = lane.step(5, Input::Heartbeat);
        effects.into_iter().filter_map(|effect| match effect {
            Effect::Publish(_, batch) => Some(batch.header.span),
            _ => None,
        })
    };
    assert_eq!(publishes(head(&[(0, 8)])).collect::<Vec<_>>(), [Span::new(Position(0), Position(4))]);
    assert_eq!(publishes(head(&[(5, 8)])).count(), 0, "mq may have had it");
}

#[test]
fn i6_offers_beyond_the_limits_are_refused() {
    let mut lane = drained(Settings { in_flight: 2, backlog_batches: 3, ..Settings::for_tests() });
    let tickets = [1, 2].map(|id| ticket(&lane.step(0, Input::Offer(id, offer(None, 1)))));
    assert_eq!(lane.step(0, Input::Offer(3, offer(None, 1))), [Effect::Answer(3, Err(OfferError::Busy))]);
    for (offset, ticket) in tickets.into_iter().enumerate() {
        lane.step(0, Input::Published(ticket, Ok(offset as u64 + 1)));
    }
    let full = Err(OfferError::Backlog { batches: 3 });
    assert_eq!(lane.step(0, Input::Offer(4, offer(None, 1))), [Effect::Answer(4, full)]);
}

#[test]
fn a_chunk_that_kv_has_is_pushed_and_reading_pauses_while_the_owner_takes_none() {
    let mut lane = drained(Settings::for_tests());
    let admission = |input| Input::Admission(input);
    lane.step(0, admission(admission::Input::Arrived(Ok(()))));
    let batches = vec![(0, batch(SourceId::push("orders", 7), (0, 2), Some(&offer(None, 2)), 0))];
    let effects = lane.step(0, admission(admission::Input::Mq(Ok(MqRead { batches, low: 0, end: 1 }))));
    let [Effect::Append(append)] = effects.as_slice() else { panic!("{effects:?}") };
    let effects = lane.step(0, admission(admission::Input::Appended(Ok(()))));
    assert_eq!(effects, [Effect::Push(append.chunk.clone()), Effect::ReadMq { from: 1 }]);
    assert_eq!((append.chunk.id, lane.pause_ms()), (Tip::new(7, 1), 0));
    lane.step(0, Input::Pushed { taken: false });
    assert!(lane.pause_ms() > 0);
    lane.step(0, Input::Pushed { taken: true });
    assert_eq!((lane.pause_ms(), lane.report().pushes_dropped), (0, 1));
}

#[test]
fn i6_what_kv_has_had_for_long_enough_is_trimmed() {
    let keep = crate::model::units::Millis(100);
    let mut lane = drained(Settings { mq_keep: keep, head_check: keep, ..Settings::for_tests() });
    lane.step(0, Input::Admission(admission::Input::Arrived(Ok(()))));
    let batches = vec![(0, batch(SourceId::push("orders", 7), (0, 2), Some(&offer(None, 2)), 0))];
    lane.step(0, Input::Admission(admission::Input::Mq(Ok(MqRead { batches, low: 0, end: 1 }))));
    lane.step(0, Input::Admission(admission::Input::Appended(Ok(()))));
    let drained = MqRead { low: 0, end: 1, ..MqRead::default() };
    lane.step(0, Input::Admission(admission::Input::Mq(Ok(drained))));
    let trims = |effects: Vec<Effect>| effects.contains(&Effect::Trim { before: 1 });
    assert!(!trims(lane.step(0, Input::Heartbeat)));
    assert!(lane.step(100, Input::Heartbeat).contains(&Effect::ReadHead));
    assert!(!trims(lane.step(100, Input::Heartbeat)), "kv may have lost it by now");
    let head = Head { tip: Tip::new(7, 1), offset: 1, ..Head::default() };
    lane.step(101, Input::Admission(admission::Input::Head(Ok(head))));
    assert!(trims(lane.step(101, Input::Heartbeat)));
}
