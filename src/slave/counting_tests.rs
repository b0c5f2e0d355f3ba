use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::slave::sample::{self, Change};

const VIEW: ChunkView = ChunkView { at_ms: 10, again: false };

fn source() -> SourceId {
    SourceId::push("orders", 1)
}

fn read(catalog: &Catalog, counting: &mut Counting) -> BTreeMap<sample::RowName, sample::RowValues> {
    let names: Vec<_> = counting.fold.blocks().collect();
    let rows = counting.fold.encode(&names);
    let blocks = names.iter().zip(&rows).filter_map(|(name, rows)| Some((name, rows.as_ref()?)));
    sample::read(catalog, blocks)
}

#[test]
fn what_cannot_be_counted_is_an_error_and_counts_nothing() {
    let catalog = sample::catalog();
    let mut counting = Counting::new(&catalog);
    let good = sample::batch(&catalog, &source(), 0, &[Change::simple(1, 5)]);
    let mut unknown = good.clone();
    unknown.header.table = "refunds".into();
    let mut other = good.clone();
    other.header.schema += 1;
    let mut short = good.clone();
    short.header.rows = 2;
    let mut damaged = good.clone();
    damaged.body = damaged.body.slice(..40);
    for (batch, text) in [(unknown, "not defined"), (other, "other columns"), (short, "damaged"), (damaged, "damaged")]
    {
        let error = counting.count(&catalog, &batch, VIEW).expect_err("it is refused");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!((counting.rows, counting.applied.len()), (0, 0));
    }
    assert_eq!(counting.count(&catalog, &good, VIEW), Ok(Some(1)));
    assert_eq!(counting.count(&catalog, &good, VIEW), Ok(None));
}

#[test]
fn a_request_read_again_after_it_may_have_been_forgotten_is_doubtful() {
    let catalog = sample::catalog();
    let mut counting = Counting::new(&catalog);
    let request = |key| sample::batch(&catalog, &SourceId::request("orders", key), 0, &[Change::simple(1, 5)]);
    for (at_ms, key) in [(10, "a"), (20, "b"), (30, "c")] {
        counting.count(&catalog, &request(key), ChunkView { at_ms, again: false }).expect("it counts");
    }
    assert_eq!(counting.forget_requests(15, 9), [SourceId::request("orders", "a")]);
    assert_eq!(counting.forgotten_ms, 20);
    let again = |at_ms| ChunkView { at_ms, again: true };
    assert_eq!(counting.count(&catalog, &request("c"), again(30)), Ok(None), "known");
    assert_eq!(counting.doubtful, 0);
    assert_eq!(counting.count(&catalog, &request("a"), again(10)), Ok(None), "forgotten");
    assert_eq!((counting.doubtful, counting.rows), (1, 3));
    // Not read again, or made after everything that was forgotten: new for certain.
    assert_eq!(counting.count(&catalog, &request("d"), again(21)), Ok(Some(1)));
    assert_eq!(counting.count(&catalog, &request("e"), ChunkView { at_ms: 10, again: false }), Ok(Some(1)));
}

proptest! {
    /// I3: spans that overlap, repeat and come in any order count each position once.
    #[test]
    fn i3_a_replayed_span_is_counted_once(
        seeds in prop::collection::vec(any::<u64>(), 1..60),
        spans in prop::collection::vec((0usize..60, 0usize..30), 1..30),
    ) {
        let catalog = sample::catalog();
        let changes: Vec<Change> = seeds.iter().map(|seed| Change::arbitrary(*seed)).collect();
        let mut counting = Counting::new(&catalog);
        let mut seen = vec![false; changes.len()];
        for (from, len) in spans {
            let from = from.min(changes.len());
            let to = (from + len).min(changes.len());
            let batch = sample::batch(&catalog, &source(), from as u64, &changes[from..to]);
            counting.count(&catalog, &batch, VIEW).expect("it counts");
            seen[from..to].fill(true);
        }
        let counted = changes.iter().zip(&seen).filter(|(_, seen)| **seen).map(|(change, _)| change);
        prop_assert_eq!(counting.rows, seen.iter().filter(|seen| **seen).count() as u64);
        prop_assert_eq!(read(&catalog, &mut counting), sample::truth(&catalog, counted));
    }
}
