use arrow::array::{Date32Array, Decimal128Array, Int64Array};

use super::*;

fn columns() -> Vec<ArrayRef> {
    let amounts = Decimal128Array::from(vec![Some(-5), Some(0), None, Some(-5), Some(0), None]);
    vec![
        Arc::new(Int64Array::from(vec![-1, -1, 7, -1, -1, 7])),
        Arc::new(StringArray::from(vec![
            Some("app"),
            None,
            Some("a partner store"),
            Some("app"),
            Some(""),
            Some("app"),
        ])),
        Arc::new(amounts.with_precision_and_scale(5, 1).expect("they fit")),
        Arc::new(Date32Array::from(vec![Some(-3), None, Some(0), Some(-3), None, Some(0)])),
    ]
}

fn types() -> Vec<DataType> {
    columns().iter().map(|column| column.data_type().clone()).collect()
}

fn numbers(groups: &mut Groups) -> Vec<u32> {
    let mut numbers = Vec::new();
    groups.number(&columns(), &mut numbers);
    numbers
}

#[test]
fn equal_values_have_one_number_and_nulls_are_values_of_their_own() {
    let mut groups = Groups::new(types());
    assert_eq!(numbers(&mut groups), [0, 1, 2, 0, 3, 4]);
    assert_eq!(numbers(&mut groups), [0, 1, 2, 0, 3, 4]);
    assert_eq!(groups.len(), 5);
    assert_eq!((groups.key(0), groups.key(2)), (Key::int(-1), Key::int(7)));
    for (index, column) in columns().iter().enumerate() {
        assert_eq!(&groups.output(index, &[0, 1, 2, 0, 3, 4]), column);
    }
}

#[test]
fn no_rows_have_no_numbers() {
    let mut groups = Groups::new(types());
    let none: Vec<ArrayRef> = columns().iter().map(|column| column.slice(0, 0)).collect();
    let mut numbers = vec![7];
    groups.number(&none, &mut numbers);
    assert_eq!((numbers.as_slice(), groups.len()), ([].as_slice(), 0));
}

#[test]
fn groups_are_ordered_by_their_values_with_nulls_first() {
    let mut groups = Groups::new(types());
    let mut order = numbers(&mut groups);
    order.sort_by(|a, b| groups.compare(*a, *b));
    assert_eq!(order, [1, 3, 0, 0, 2, 4]);
}

#[test]
fn a_number_without_references_is_given_away_with_its_texts() {
    let mut groups = Groups::new(types());
    for number in numbers(&mut groups) {
        groups.retain(number);
    }
    let full = groups.bytes();
    groups.release(2);
    assert!(groups.bytes() < full);
    groups.release(0);
    assert_eq!(groups.len(), 4, "the first group has another reference");
    let mut found = Vec::new();
    let other: Vec<ArrayRef> = columns().iter().map(|column| column.slice(2, 1)).collect();
    groups.number(&other, &mut found);
    assert_eq!(found, [2]);
}

#[test]
fn a_restored_table_knows_its_groups_and_a_damaged_one_is_refused() {
    let mut groups = Groups::new(types());
    for number in numbers(&mut groups) {
        groups.retain(number);
    }
    groups.release(4);
    let mut restored = Groups::restore(types(), groups.snapshot()).expect("it is whole");
    assert_eq!(restored.len(), 4);
    assert_eq!(numbers(&mut restored), [0, 1, 2, 0, 3, 4]);
    let mut damaged = groups.snapshot();
    damaged.texts.clear();
    assert!(Groups::restore(types(), damaged).is_none());
    let mut short = groups.snapshot();
    short.references.pop();
    assert!(Groups::restore(types(), short).is_none());
}
