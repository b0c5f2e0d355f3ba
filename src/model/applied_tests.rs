//! Properties of `Applied` against the plainest model there is: a set of positions.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::model::codec;

fn span(from: u128, to: u128) -> Span {
    Span::new(Position(from), Position(to))
}

fn spans() -> impl Strategy<Value = Vec<(u128, u128)>> {
    prop::collection::vec((0u128..40, 0u128..12).prop_map(|(from, len)| (from, from + len)), 0..20)
}

fn counted(spans: &[(u128, u128)]) -> (Progress, BTreeSet<u128>) {
    let (mut progress, mut set) = (Progress::default(), BTreeSet::new());
    for (from, to) in spans {
        progress.add(span(*from, *to), 0);
        set.extend(from + 1..=*to);
    }
    (progress, set)
}

proptest! {
    #[test]
    fn i3_a_span_admits_exactly_the_positions_not_yet_counted(before in spans(), from in 0u128..50, len in 0u128..15) {
        let (progress, set) = counted(&before);
        let asked: BTreeSet<u128> = (from + 1..=from + len).collect();
        let new: BTreeSet<u128> = asked.difference(&set).copied().collect();
        let admitted: BTreeSet<u128> = match progress.admit(span(from, from + len)) {
            Admission::None => BTreeSet::new(),
            Admission::All => asked.clone(),
            Admission::Some(parts) => parts.iter().flat_map(|part| part.from.0 + 1..=part.to.0).collect(),
        };
        prop_assert_eq!(&admitted, &new);
        if new == asked && !asked.is_empty() {
            prop_assert_eq!(progress.admit(span(from, from + len)), Admission::All);
        }
    }

    #[test]
    fn i3_the_order_and_number_of_deliveries_does_not_matter(
        (given, shuffled) in spans().prop_flat_map(|s| (Just(s.clone()), Just([s.clone(), s].concat()).prop_shuffle())),
    ) {
        prop_assert_eq!(counted(&given).0, counted(&shuffled).0);
    }

    #[test]
    fn i2_gaps_are_exactly_the_missing_positions_below_the_top(before in spans()) {
        let (progress, set) = counted(&before);
        let gaps: BTreeSet<u128> = progress.gaps().flat_map(|gap| gap.from.0 + 1..=gap.to.0).collect();
        let top = set.last().copied().unwrap_or(0);
        prop_assert_eq!(progress.top(), Position(top));
        prop_assert_eq!(gaps, (1..=top).filter(|p| !set.contains(p)).collect::<BTreeSet<_>>());
    }

    #[test]
    fn covering_is_being_a_superset_and_merging_is_the_union(a in spans(), b in spans()) {
        let ((one, ones), (two, twos)) = (counted(&a), counted(&b));
        prop_assert_eq!(one.covers(&two), ones.is_superset(&twos));
        let mut merged = one.clone();
        merged.merge(&two);
        prop_assert_eq!(merged, counted(&[a, b].concat()).0);
    }

    #[test]
    fn gaps_are_found_whatever_was_added_merged_and_forgotten_before(
        steps in prop::collection::vec((0u8..4, 0u64..4, 0u128..40, 0u128..12), 0..40),
    ) {
        let (mut applied, mut other) = (Applied::default(), Applied::default());
        for (what, source, from, length) in steps {
            let source = if source == 0 { SourceId::push("orders", 1) } else { SourceId::Request(source.into()) };
            match what {
                0 => applied.add(&source, span(from, from + length), from as i64),
                1 => other.add(&source, span(from, from + length), 0),
                2 => applied.merge_delta(&other.delta([&source])),
                _ => drop(applied.forget_requests(from as i64 / 2, 2)),
            }
            let kept: Applied = codec::decode("applied", &codec::encode(&applied)).expect("what was encoded");
            let all: Vec<(&SourceId, Span)> =
                applied.iter().flat_map(|(source, progress)| progress.gaps().map(move |span| (source, span))).collect();
            prop_assert_eq!(applied.gaps().collect::<Vec<_>>(), all.clone());
            prop_assert_eq!(kept.gaps().collect::<Vec<_>>(), all.clone());
            prop_assert_eq!(applied.is_gapless(), all.is_empty());
        }
    }
}

#[test]
fn requests_are_forgotten_oldest_first_and_streams_never() {
    let mut applied = Applied::default();
    applied.add(&SourceId::push("orders", 1), span(0, 5), 0);
    for (id, seen_ms) in [(1, 100), (2, 200), (3, 300), (4, 400)] {
        applied.add(&SourceId::Request(id), span(0, 1), seen_ms);
    }
    assert_eq!(applied.forget_requests(150, 10), [SourceId::Request(1)]);
    assert_eq!(applied.forget_requests(0, 1), [SourceId::Request(2), SourceId::Request(3)]);
    assert_eq!(applied.len(), 2);
    assert_eq!(applied.admit(&SourceId::push("orders", 1), span(0, 5)), Admission::None);
}
