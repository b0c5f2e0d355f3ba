use std::collections::BTreeMap;

use arrow::array::{Float64Array, StringArray};
use proptest::prelude::*;

use super::*;

const DECIMAL: DataType = DataType::Decimal128(12, 2);
const SUM: DataType = DataType::Decimal128(38, 2);
const AVERAGE: DataType = DataType::Decimal128(38, 6);

fn amounts(values: &[Option<i128>]) -> ArrayRef {
    let values: Decimal128Array = values.iter().copied().collect();
    Arc::new(values.with_precision_and_scale(12, 2).expect("they fit"))
}

fn ints(array: &ArrayRef) -> Vec<Option<i64>> {
    array.as_primitive::<Int64Type>().iter().collect()
}

fn decimals(array: &ArrayRef) -> Vec<Option<i128>> {
    array.as_primitive::<Decimal128Type>().iter().collect()
}

#[test]
fn averages_are_rounded_half_away_from_zero_without_overflow() {
    for (sum, count, digits, expected) in [
        (1, 3, 4, Some(3_333)),
        (2, 3, 4, Some(6_667)),
        (1, 2, 0, Some(1)),
        (-1, 2, 0, Some(-1)),
        (1, -2, 0, Some(-1)),
        (5, 0, 4, None),
        (0, 7, 4, Some(0)),
        (i128::MAX, 1, 0, Some(i128::MAX)),
        (i128::MAX, 1, 4, None),
        (10_i128.pow(37), 3, 1, Some(33_333_333_333_333_333_333_333_333_333_333_333_333)),
    ] {
        assert_eq!(average(sum, count, digits), expected, "{sum} / {count}");
    }
}

#[test]
fn masked_and_null_rows_do_not_count() {
    let values = amounts(&[Some(100), None, Some(300), Some(500)]);
    let mask = BooleanArray::from(vec![Some(true), Some(true), None, Some(true)]);
    let update = Update { slots: &[0, 0, 0, 1], values: Some(&values), weights: None, mask: Some(&mask) };
    let mut sum = State::new(Kind::Sum, Some(&DECIMAL));
    let mut count = State::new(Kind::Count, Some(&DECIMAL));
    for state in [&mut sum, &mut count] {
        state.grow(3);
        state.update(update);
    }
    assert_eq!(decimals(&sum.output(Function::Sum, &[0, 1, 2], &SUM)), [Some(100), Some(500), None]);
    assert_eq!(decimals(&sum.output(Function::Avg, &[1, 0], &AVERAGE)), [Some(5_000_000), Some(1_000_000)]);
    assert_eq!(ints(&count.output(Function::Count, &[0, 1, 2], &DataType::Int64)), [Some(1), Some(1), Some(0)]);
}

#[test]
fn doubles_and_texts_have_their_own_order() {
    let mut doubles = State::new(Kind::Values, Some(&DataType::Float64));
    doubles.grow(1);
    let values: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, 0.0, -2.5, 1e300, f64::NEG_INFINITY]));
    let update = |values, weights| Update { slots: &[0; 5], values: Some(values), weights, mask: None };
    doubles.update(update(&values, None));
    let output = |function| doubles.output(function, &[0], &DataType::Float64);
    assert_eq!(output(Function::Min).as_primitive::<arrow::datatypes::Float64Type>().value(0), f64::NEG_INFINITY);
    assert_eq!(output(Function::Max).as_primitive::<arrow::datatypes::Float64Type>().value(0), 1e300);
    assert_eq!(ints(&doubles.output(Function::CountDistinct, &[0], &DataType::Int64)), [Some(4)]);

    let mut texts = State::new(Kind::Values, Some(&DataType::Utf8));
    texts.grow(1);
    let values: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "größe", "a", "b"]));
    texts.update(update(&values, Some(&[1, 1, 1, -1, 1])));
    assert_eq!(texts.output(Function::Min, &[0], &DataType::Utf8).as_string::<i32>().value(0), "b");
    assert_eq!(texts.output(Function::Max, &[0], &DataType::Utf8).as_string::<i32>().value(0), "größe");
}

proptest! {
    /// I3: what is taken back was never there, whatever the order, for few values and for many.
    #[test]
    fn states_equal_a_naive_recomputation(
        rows in prop::collection::vec((0u32..3, prop::option::weighted(0.9, -60i128..60), -2i64..4), 0..400),
        order in any::<u64>(),
    ) {
        let mut states = [Kind::Count, Kind::Sum, Kind::Values].map(|kind| State::new(kind, Some(&DECIMAL)));
        let mut mixed = rows.clone();
        mixed.sort_by_key(|row| xxhash_rust::xxh3::xxh3_64(format!("{order}{row:?}").as_bytes()));
        for part in mixed.chunks(37) {
            let slots: Vec<u32> = part.iter().map(|row| row.0).collect();
            let values = amounts(&part.iter().map(|row| row.1).collect::<Vec<_>>());
            let weights: Vec<i64> = part.iter().map(|row| row.2).collect();
            for state in &mut states {
                state.grow(3);
                state.update(Update { slots: &slots, values: Some(&values), weights: Some(&weights), mask: None });
            }
        }
        let [count, sum, values] = &states;
        for slot in 0..3 {
            let mut weights: BTreeMap<i128, i64> = BTreeMap::new();
            for (_, value, weight) in rows.iter().filter(|row| row.0 == slot) {
                value.map(|value| *weights.entry(value).or_default() += weight);
            }
            weights.retain(|_, weight| *weight != 0);
            let total: i64 = weights.values().sum();
            let expected: i128 = weights.iter().map(|(value, weight)| value * i128::from(*weight)).sum();
            let present = || weights.iter().filter(|(_, weight)| **weight > 0).map(|(value, _)| *value);
            if states.iter().all(|state| state.len() > slot as usize) {
                prop_assert_eq!(ints(&count.output(Function::Count, &[slot], &DataType::Int64)), [Some(total)]);
                prop_assert_eq!(decimals(&sum.output(Function::Sum, &[slot], &SUM)), [(total != 0).then_some(expected)]);
                prop_assert_eq!(decimals(&values.output(Function::Min, &[slot], &DECIMAL)), [present().min()]);
                prop_assert_eq!(decimals(&values.output(Function::Max, &[slot], &DECIMAL)), [present().max()]);
                let distinct = ints(&values.output(Function::CountDistinct, &[slot], &DataType::Int64));
                prop_assert_eq!(distinct, [Some(present().count() as i64)]);
                prop_assert_eq!(values.is_vacant(slot), weights.is_empty());
                prop_assert_eq!(sum.is_vacant(slot), total == 0 && expected == 0);
            }
        }
        for state in &states {
            let bytes = crate::model::codec::encode(state);
            let restored: State = crate::model::codec::decode("state", &bytes).expect("it was just encoded");
            prop_assert_eq!(&restored, state);
        }
    }
}
