//! Honesty of merged records: what is not known to be exact is never called so.

use proptest::prelude::*;

use super::*;
use crate::model::id::{SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::model::quality::Unavailable;

const ASKED: Asked<'static> = Asked { metric_table: "gmv_hour", table: "orders", from_ms: 0, to_ms: 10 * HOUR_MS };

fn gap(table: &str, hours_ms: Option<(i64, i64)>, changes: Option<u64>) -> Missing {
    Missing {
        source: SourceId::push(table, 1),
        table: table.into(),
        span: Span::new(Position(0), Position(5)),
        hours_ms,
        changes,
        reason: "shed".into(),
    }
}

fn record(as_of_ms: i64) -> Record {
    Record {
        version: Tip::new(1, 1),
        base: Tip::default(),
        as_of_ms,
        missing: Vec::new(),
        missing_more: 0,
        unavailable: Vec::new(),
    }
}

fn evidence(record: Option<Record>) -> Evidence {
    let served_by = Some(ServedBy::Cache);
    Evidence { partition: PartitionId(7), served_by, record: record.map(Arc::new), doubt: None }
}

fn quality(evidence: &[Evidence]) -> Quality {
    Quality::of(evidence, ASKED, Modes::default(), 10_000)
}

#[test]
fn the_oldest_partition_gives_the_time_and_the_newest_stands_beside_it() {
    let found = quality(&[evidence(Some(record(4_000))), evidence(Some(record(9_500)))]);
    assert!(found.exact);
    assert_eq!((found.as_of_ms, found.as_of_newest_ms), (Some(4_000), Some(9_500)));
    assert_eq!((found.age_ms, found.served_by), (Some(6_000), vec![ServedBy::Cache]));
}

#[test]
fn gaps_of_other_tables_and_other_hours_do_not_matter_and_unknown_ones_do() {
    let with = |gap| Record { missing: vec![gap], ..record(1) };
    let exact = |gap| quality(&[evidence(Some(with(gap)))]).exact;
    assert!(exact(gap("other", None, Some(1))));
    assert!(!exact(gap("", None, None)), "it may be of any table");
    assert!(exact(gap("orders", Some((10 * HOUR_MS, 11 * HOUR_MS)), Some(1))));
    assert!(exact(gap("orders", Some((-3 * HOUR_MS, -HOUR_MS)), Some(1))));
    assert!(!exact(gap("orders", Some((9 * HOUR_MS, 10 * HOUR_MS)), Some(1))));
    assert!(!exact(gap("orders", None, None)));
    let found =
        quality(&[evidence(Some(with(gap("orders", None, None)))), evidence(Some(with(gap("orders", None, Some(3)))))]);
    assert_eq!((found.missing_changes, found.missing.len(), found.missing_unknown), (3, 2, true));
    let more = quality(&[evidence(Some(Record { missing_more: 2, ..record(1) }))]);
    assert_eq!((more.exact, more.missing_more), (false, 2));
}

#[test]
fn what_is_demanded_and_not_met_is_an_error_that_says_why() {
    let told = |quality: &Quality, demand| match quality.check(demand) {
        Err(QueryError::QualityNotMet(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let with_gap = quality(&[evidence(Some(Record { missing: vec![gap("orders", None, Some(3))], ..record(1_000) }))]);
    let any = Demand::default();
    assert_eq!(with_gap.check(any), Ok(()));
    assert!(told(&with_gap, Demand { exact: true, ..any }).contains("shed"));
    assert_eq!(with_gap.check(Demand { max_missing: Some(3), max_age_ms: Some(9_000), ..any }), Ok(()));
    assert!(told(&with_gap, Demand { max_missing: Some(2), ..any }).starts_with("3 changes are missing"));
    assert!(told(&with_gap, Demand { max_age_ms: Some(8_999), ..any }).contains("9000 ms old"));
    let nothing = quality(&[evidence(None)]);
    assert!(!nothing.exact && nothing.as_of_ms.is_none());
    assert!(nothing.check(Demand { max_age_ms: Some(u64::MAX), ..any }).is_err());
    let uncounted = quality(&[evidence(Some(Record { missing: vec![gap("orders", None, None)], ..record(1) }))]);
    assert!(uncounted.check(Demand { max_missing: Some(u64::MAX), ..any }).is_err());
}

proptest! {
    #[test]
    fn i1_one_doubt_or_gap_anywhere_makes_the_answer_inexact(
        flaws in prop::collection::vec(prop::option::weighted(0.2, 0..5u8), 1..8),
    ) {
        let parts: Vec<_> = flaws.iter().map(|flaw| {
            let mut one = evidence(Some(record(5)));
            let known = record(5);
            match flaw {
                None => {}
                Some(0) => one.record = None,
                Some(1) => one.doubt = Some("emission under way".into()),
                Some(2) => one.record = Some(Arc::new(Record { missing_more: 1, ..known })),
                Some(3) => one.record = Some(Arc::new(Record { missing: vec![gap("orders", None, None)], ..known })),
                Some(_) => {
                    let unavailable = vec![Unavailable { what: "gmv_day".into(), reason: "bypass".into() }];
                    one.record = Some(Arc::new(Record { unavailable, ..known }));
                }
            }
            one
        }).collect();
        prop_assert_eq!(quality(&parts).exact, flaws.iter().all(Option::is_none));
    }
}
