//! Positions are given once, failed stretches become void, keyed requests are recognised.

use proptest::prelude::*;

use super::super::row_reader::tests::table;
use super::*;

const LIMITS: SequencerLimits = SequencerLimits { holes: 3, acknowledged_keys: 2 };

fn span(from: u128, to: u128) -> Span {
    Span::new(Position(from), Position(to))
}

fn publication(offered: Offered) -> Publication {
    match offered {
        Offered::Publish(publication) => publication,
        other => panic!("{other:?} is not published"),
    }
}

fn offer(sequencer: &mut Sequencer, key: Option<&str>, rows: u32) -> Offered {
    sequencer.offer(&table(), key, rows, &Applied::default())
}

#[test]
fn rows_without_a_key_get_a_dense_sequence() {
    let mut sequencer = Sequencer::new(4, LIMITS);
    let first = publication(offer(&mut sequencer, None, 5));
    let second = publication(offer(&mut sequencer, None, 2));
    assert_eq!(first.source, SourceId::push("orders", 4));
    assert_eq!((first.span, second.span), (span(0, 5), span(5, 7)));
}

#[test]
fn i2_a_failed_stretch_is_published_as_void_until_mq_has_it() {
    let mut sequencer = Sequencer::new(4, LIMITS);
    let tickets: Vec<_> = (0..4).map(|_| publication(offer(&mut sequencer, None, 5)).ticket).collect();
    for (ticket, published) in tickets.into_iter().zip([true, false, false, true]) {
        sequencer.settle(ticket, published);
    }
    let voids = sequencer.voids();
    assert_eq!(voids.iter().map(|void| void.span).collect::<Vec<_>>(), [span(5, 15)], "neighbours are one stretch");
    assert_eq!((sequencer.holes(), sequencer.in_flight(), sequencer.voids()), (0, 1, vec![]));
    sequencer.settle(voids[0].ticket, false);
    let again = sequencer.voids();
    assert_eq!((again.len(), again[0].span), (1, span(5, 15)));
    sequencer.settle(again[0].ticket, true);
    assert_eq!((sequencer.holes(), sequencer.in_flight()), (0, 0));
}

#[test]
fn i4_gaps_of_gates_before_are_voided_once_and_those_of_later_ones_never() {
    let mut sequencer = Sequencer::new(4, LIMITS);
    let mut applied = Applied::default();
    for (source, from, to) in [
        (SourceId::push("orders", 3), 2, 5),
        (SourceId::push("orders", 5), 2, 5),
        (SourceId::request("orders", "a"), 1, 2),
        (SourceId::Stream { name: "db/orders".into(), incarnation: 1 }, 3, 4),
    ] {
        applied.add(&source, span(from, to), 0);
    }
    let voids = sequencer.inherited_voids(&applied);
    assert_eq!(voids.iter().map(|void| (&*void.table, void.span)).collect::<Vec<_>>(), [("orders", span(0, 2))]);
    assert_eq!(sequencer.inherited_voids(&applied), [], "it is under way");
    sequencer.settle(voids[0].ticket, false);
    let again = sequencer.inherited_voids(&applied);
    assert_eq!((again.len(), sequencer.holes()), (1, 0));
    sequencer.settle(again[0].ticket, true);
}

#[test]
fn i6_too_many_failed_stretches_stop_new_ones() {
    let mut sequencer = Sequencer::new(4, LIMITS);
    for published in [false, true, false, true, false] {
        let ticket = publication(offer(&mut sequencer, None, 1)).ticket;
        sequencer.settle(ticket, published);
    }
    assert_eq!(offer(&mut sequencer, None, 1), Offered::TooManyHoles);
    sequencer.voids();
    publication(offer(&mut sequencer, None, 1));
}

#[test]
fn i3_a_retry_of_a_keyed_request_shares_the_outcome_of_the_first() {
    let mut sequencer = Sequencer::new(4, LIMITS);
    let first = publication(offer(&mut sequencer, Some("a"), 5));
    assert_eq!((&first.source, first.span), (&SourceId::request("orders", "a"), span(0, 5)));
    assert_eq!(offer(&mut sequencer, Some("a"), 5), Offered::Wait(first.ticket));
    assert_eq!(offer(&mut sequencer, Some("a"), 6), Offered::KeyReused);
    sequencer.settle(first.ticket, false);
    let second = publication(offer(&mut sequencer, Some("a"), 5));
    assert_eq!(
        (sequencer.voids(), second.span),
        (vec![], first.span),
        "a failed request is not voided: it comes again"
    );
    sequencer.settle(second.ticket, true);
    assert_eq!(offer(&mut sequencer, Some("a"), 5), Offered::Duplicate);
    assert_eq!(offer(&mut sequencer, Some("a"), 4), Offered::KeyReused);
}

#[test]
fn i3_a_request_that_kv_has_is_recognised_by_applied() {
    let mut sequencer = Sequencer::new(4, LIMITS);
    let mut applied = Applied::default();
    applied.add(&SourceId::request("orders", "a"), span(0, 5), 0);
    assert_eq!(sequencer.offer(&table(), Some("a"), 5, &applied), Offered::Duplicate);
    assert_eq!(sequencer.offer(&table(), Some("a"), 6, &applied), Offered::KeyReused);
}

#[test]
fn i6_acknowledged_keys_are_remembered_until_kv_has_them_or_there_are_too_many() {
    let mut sequencer = Sequencer::new(4, LIMITS);
    for key in ["a", "b", "c"] {
        let ticket = publication(offer(&mut sequencer, Some(key), 1)).ticket;
        sequencer.settle(ticket, true);
    }
    assert_eq!(sequencer.requests.len(), 2);
    assert_eq!(offer(&mut sequencer, Some("b"), 1), Offered::Duplicate);
    sequencer.committed([&SourceId::request("orders", "b")]);
    assert_eq!(sequencer.requests.len(), 1, "kv has it now");
}

proptest! {
    #[test]
    fn i2_after_all_is_settled_every_position_is_published_or_void(
        outcomes in prop::collection::vec((1u32..9, any::<bool>(), any::<bool>()), 0..40),
    ) {
        let mut sequencer = Sequencer::new(1, SequencerLimits { holes: 1_000, acknowledged_keys: 10 });
        let mut landed: Vec<Span> = Vec::new();
        for (rows, published, void_now) in outcomes {
            let next = publication(offer(&mut sequencer, None, rows));
            sequencer.settle(next.ticket, published);
            landed.extend(published.then_some(next.span));
            if void_now {
                for void in sequencer.voids() {
                    sequencer.settle(void.ticket, published);
                    landed.extend(published.then_some(void.span));
                }
            }
        }
        landed.extend(sequencer.voids().into_iter().map(|void| void.span));
        landed.sort_unstable();
        let tiled = landed.iter().try_fold(Position::ZERO, |at, span| (span.from == at).then_some(span.to));
        prop_assert!(tiled.is_some(), "{landed:?} do not tile");
    }
}
