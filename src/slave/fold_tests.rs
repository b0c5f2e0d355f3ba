use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::slave::sample::{self, Change};

fn apply(catalog: &Catalog, fold: &mut Fold, changes: &[Change]) {
    let rows = sample::rows(catalog, changes);
    let weights: Vec<i64> = changes.iter().map(|change| change.weight).collect();
    fold.apply(&sample::table(catalog), &rows, Some(&weights)).expect("these rows evaluate");
}

fn blocks(fold: &mut Fold) -> Vec<(BlockKey, Bytes)> {
    let mut names: Vec<BlockKey> = fold.blocks().collect();
    names.sort();
    let encoded = fold.encode(&names);
    names.into_iter().zip(encoded).filter_map(|(name, rows)| Some((name, rows?))).collect()
}

fn read(catalog: &Catalog, fold: &mut Fold) -> std::collections::BTreeMap<sample::RowName, sample::RowValues> {
    let blocks = blocks(fold);
    sample::read(catalog, blocks.iter().map(|(key, rows)| (key, rows)))
}

#[test]
fn a_row_whose_last_source_row_is_taken_away_is_gone_and_its_memory_is_used_again() {
    let catalog = sample::catalog();
    let mut fold = Fold::new(&catalog);
    let change = Change::simple(1, 500);
    apply(&catalog, &mut fold, std::slice::from_ref(&change));
    assert_eq!(fold.settle().len(), 2, "an hour's and a day's block");
    assert_eq!((fold.rows(), fold.groups()), (2, 1));
    apply(&catalog, &mut fold, &[Change { weight: -1, ..change }]);
    let gone = fold.settle();
    assert_eq!(fold.encode(&gone), [None, None]);
    assert_eq!((fold.rows(), fold.groups(), fold.blocks().count()), (0, 0, 0));
    let before = fold.bytes();
    for merchant in 0..100 {
        apply(&catalog, &mut fold, &[Change::simple(merchant, 1)]);
        apply(&catalog, &mut fold, &[Change { weight: -1, ..Change::simple(merchant, 1) }]);
        fold.settle();
    }
    assert_eq!(fold.bytes(), before, "groups that come and go cost nothing");
}

#[test]
fn a_group_whose_weights_cancel_but_not_its_values_is_kept_until_they_do() {
    let catalog = sample::catalog();
    let mut fold = Fold::new(&catalog);
    let (lost, new) = (Change::simple(1, 500), Change::simple(1, 700));
    // The −1 of a row comes before its +1.
    apply(&catalog, &mut fold, &[Change { weight: -1, ..lost.clone() }, new.clone()]);
    fold.settle();
    assert!(read(&catalog, &mut fold).is_empty());
    apply(&catalog, &mut fold, &[lost]);
    assert_eq!(read(&catalog, &mut fold), sample::truth(&catalog, [&new]));
}

#[test]
fn a_batch_of_more_rows_than_are_walked_over_at_once_is_counted_whole() {
    let catalog = sample::catalog();
    let mut fold = Fold::new(&catalog);
    let changes: Vec<Change> = (0..2 * ROWS_AT_ONCE as u64 + 7).map(Change::arbitrary).collect();
    apply(&catalog, &mut fold, &changes);
    assert_eq!(read(&catalog, &mut fold), sample::truth(&catalog, &changes));
}

#[test]
fn rows_that_cannot_be_evaluated_change_nothing() {
    let catalog = sample::catalog();
    let mut fold = Fold::new(&catalog);
    let rows = sample::rows(&catalog, &[Change::simple(1, 500)]).project(&[0, 1, 2, 3]).expect("columns");
    let before = format!("{:?}", fold.metrics);
    let broken =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fold.apply(&sample::table(&catalog), &rows, None)));
    assert!(!matches!(broken, Ok(Ok(()))));
    assert_eq!(format!("{:?}", fold.metrics), before);
}

proptest! {
    /// I3: however rows are cut and ordered, the fold is the sum over them; so is a fold restored in between.
    #[test]
    fn i3_the_fold_of_rows_in_any_order_equals_a_naive_recomputation(
        seeds in prop::collection::vec(any::<u64>(), 1..200),
        cuts in prop::collection::vec(1usize..40, 1..20),
        restore_at in 0usize..20,
    ) {
        let catalog = sample::catalog();
        let changes: Vec<Change> = seeds.iter().map(|seed| Change::arbitrary(*seed)).collect();
        let mut fold = Fold::new(&catalog);
        let mut rest = &changes[..];
        for (step, cut) in cuts.iter().cycle().enumerate() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            apply(&catalog, &mut fold, now);
            rest = later;
            if step % 3 == 0 {
                fold.settle();
            }
            if step == restore_at {
                let bytes = crate::model::codec::encode(&fold.snapshot());
                let snapshot = crate::model::codec::decode("fold", &bytes).expect("it was just encoded");
                fold = Fold::restore(&catalog, snapshot).expect("it is whole");
            }
        }
        prop_assert_eq!(read(&catalog, &mut fold), sample::truth(&catalog, &changes));
    }

    /// I6: only what changed is dirty, however often it changed.
    #[test]
    fn i6_dirty_blocks_are_the_blocks_that_changed(seeds in prop::collection::vec(any::<u64>(), 1..100)) {
        let catalog = sample::catalog();
        let mut fold = Fold::new(&catalog);
        let changes: Vec<Change> = seeds.iter().map(|seed| Change::arbitrary(*seed)).collect();
        apply(&catalog, &mut fold, &changes);
        fold.settle();
        prop_assert!(fold.settle().is_empty());
        let before = read(&catalog, &mut fold);
        apply(&catalog, &mut fold, &changes[..1]);
        apply(&catalog, &mut fold, &changes[..1]);
        let dirty = fold.settle();
        let counted = changes[0].paid && changes[0].at_us.is_some();
        prop_assert_eq!(dirty.len(), if counted { 2 } else { 0 });
        let mut after = read(&catalog, &mut fold);
        after.retain(|name, values| before.get(name) != Some(values));
        prop_assert!(after.len() <= dirty.len(), "one row in each dirty block: {:?}", after);
    }
}
