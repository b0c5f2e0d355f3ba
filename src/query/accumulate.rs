//! Aggregates of a query: one value for each group, over all blocks.
//!
//! Invariant: sums are exact (128 bits, checked); an aggregate over no value is null, but for counts, which are 0.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};

use super::QueryError;
use super::codes::{self, LongTexts};
use super::groups::Distinct;
use super::selected::{Chosen, Fewer};
use super::sums::Sums;
use crate::model::aggregate_call::Function;

/// The largest number of 38 digits, and so the largest decimal of an answer.
const LARGEST: u128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// One aggregate of every group.
#[derive(Debug)]
pub struct Accumulator {
    output: DataType,
    state: State,
}

#[derive(Debug)]
enum State {
    Count(Vec<i64>),
    CountDistinct { counts: Vec<i64>, distinct: Distinct },
    Sum(Sums),
    Avg { sums: Sums, scale: i8 },
    Extreme { codes: Vec<Option<i128>>, largest: bool },
    ExtremeText { texts: Vec<Option<Box<str>>>, largest: bool },
}

impl Accumulator {
    /// `argument` is the type of what is aggregated, `None` for `count(*)`; `output` the type of the result.
    pub fn new(function: Function, argument: Option<&DataType>, output: &DataType) -> Self {
        let text = argument == Some(&DataType::Utf8);
        let state = match function {
            Function::Count => State::Count(Vec::new()),
            Function::CountDistinct => {
                let argument = argument.expect("a distinct count has an argument").clone();
                State::CountDistinct { counts: Vec::new(), distinct: Distinct::new(argument) }
            }
            Function::Sum => State::Sum(Sums::default()),
            Function::Avg => {
                let scale = match argument {
                    Some(DataType::Decimal128(_, scale)) => *scale,
                    _ => 0,
                };
                State::Avg { sums: Sums::default(), scale }
            }
            Function::Min | Function::Max if text => {
                State::ExtremeText { texts: Vec::new(), largest: function == Function::Max }
            }
            Function::Min | Function::Max => State::Extreme { codes: Vec::new(), largest: function == Function::Max },
        };
        Self { output: output.clone(), state }
    }

    /// Adds the rows chosen; `filter` says which of them count. `small`: of the argument, as `sums::are_small` says.
    pub fn update(
        &mut self,
        chosen: Chosen<'_>,
        argument: Option<&dyn Array>,
        small: impl FnOnce() -> bool,
        filter: Option<&BooleanArray>,
    ) -> Result<(), QueryError> {
        let fewer = chosen.counted(argument, filter);
        let chosen = fewer.as_ref().map_or(chosen, Fewer::chosen);
        let (Chosen { selected, numbers, counts: added }, group_count) = (chosen, chosen.counts.len());
        match &mut self.state {
            State::Count(counts) => {
                counts.resize(group_count, 0);
                counts.iter_mut().zip(added).for_each(|(count, more)| *count += more);
            }
            State::CountDistinct { counts, distinct } => {
                counts.resize(group_count, 0);
                let argument = argument.expect("a distinct count has an argument");
                distinct.add(numbers, argument, selected, |group| counts[group as usize] += 1);
            }
            State::Sum(sums) | State::Avg { sums, .. } => {
                sums.resize(group_count);
                add_up(sums, chosen, argument.expect("a sum has an argument"), small)?;
            }
            State::Extreme { codes, largest } => {
                codes.resize(group_count, None);
                let mut values = Vec::new();
                codes::encode(argument.expect("an extreme has an argument"), &mut LongTexts::default(), &mut values);
                let largest = *largest;
                selected.each(|place, row| {
                    let (best, value) = (&mut codes[numbers[place] as usize], values[row]);
                    if best.is_none_or(|best| if largest { value > best } else { value < best }) {
                        *best = Some(value);
                    }
                });
            }
            State::ExtremeText { texts, largest } => {
                texts.resize(group_count, None);
                let values = argument.expect("an extreme has an argument").as_string::<i32>();
                let largest = *largest;
                selected.each(|place, row| {
                    let (best, value) = (&mut texts[numbers[place] as usize], values.value(row));
                    if best.as_deref().is_none_or(|best| if largest { value > best } else { value < best }) {
                        *best = Some(value.into());
                    }
                });
            }
        }
        Ok(())
    }

    /// The aggregate of each group.
    pub fn finish(self, group_count: usize) -> Result<ArrayRef, QueryError> {
        Ok(match self.state {
            State::Count(mut counts) | State::CountDistinct { mut counts, .. } => {
                counts.resize(group_count, 0);
                Arc::new(Int64Array::from(counts))
            }
            State::Sum(mut sums) => {
                sums.resize(group_count);
                let sum = |(sum, count): (i128, i64)| match count {
                    0 => Ok(None),
                    _ if sum.unsigned_abs() > LARGEST => Err(overflow()),
                    _ => Ok(Some(sum)),
                };
                let sums = sums.sums.into_iter().zip(sums.counts).map(sum).collect::<Result<Decimal128Array, _>>()?;
                Arc::new(sums.with_data_type(self.output))
            }
            State::Avg { mut sums, scale } => {
                sums.resize(group_count);
                let DataType::Decimal128(_, to_scale) = self.output else {
                    unreachable!("an average is a decimal, not {}", self.output)
                };
                let average = |(sum, count)| average(sum, count, (to_scale - scale) as u32);
                let averages =
                    (sums.sums.into_iter().zip(sums.counts)).map(average).collect::<Result<Decimal128Array, _>>()?;
                Arc::new(averages.with_data_type(self.output))
            }
            State::Extreme { mut codes, .. } => {
                codes.resize(group_count, None);
                codes::decode(&self.output, codes.into_iter(), &LongTexts::default())
            }
            State::ExtremeText { mut texts, .. } => {
                texts.resize(group_count, None);
                Arc::new(texts.into_iter().collect::<StringArray>())
            }
        })
    }
}

fn add_up(
    sums: &mut Sums,
    chosen: Chosen<'_>,
    argument: &dyn Array,
    small: impl FnOnce() -> bool,
) -> Result<(), QueryError> {
    let added = match argument.data_type() {
        DataType::Int64 => sums.add(chosen, argument.as_primitive::<Int64Type>().values(), small()),
        DataType::Decimal128(..) => sums.add(chosen, argument.as_primitive::<Decimal128Type>().values(), small()),
        DataType::Null => Ok(()),
        other => unreachable!("a plan does not sum {other}"),
    };
    added.map_err(|_| overflow())
}

fn overflow() -> QueryError {
    QueryError::Value("a sum has more than 38 digits".to_owned())
}

/// `sum / count` with `more` further decimal digits, rounded half away from zero; `None` for no values.
fn average(sum: i128, count: i64, more: u32) -> Result<Option<i128>, QueryError> {
    if count == 0 {
        return Ok(None);
    }
    let (count, power) = (u128::from(count.unsigned_abs()), 10u128.pow(more));
    // Whole and remainder apart: the sum times the power may not fit, the average mostly does.
    let (whole, rest) = (sum.unsigned_abs() / count, sum.unsigned_abs() % count);
    let rest = rest.checked_mul(power).ok_or_else(overflow)?;
    let rounded = rest / count + u128::from(rest % count >= count.div_ceil(2));
    let value = whole.checked_mul(power).and_then(|whole| whole.checked_add(rounded)).filter(|v| *v <= LARGEST);
    let value = value.ok_or_else(|| QueryError::Value("an average has more than 38 digits".to_owned()))? as i128;
    Ok(Some(if sum < 0 { -value } else { value }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Float64Type};

    /// All rows of a block whose groups are these.
    fn all(numbers: &[u32], groups: usize) -> Fewer {
        Fewer::all(numbers, groups)
    }

    #[test]
    fn averages_are_rounded_half_away_from_zero() {
        for (sum, count, more, expected) in [
            (10, 4, 1, 25),
            (1, 8, 2, 13),
            (-1, 8, 2, -13),
            (2, 3, 4, 6667),
            (-2, 3, 4, -6667),
            (1, 3, 0, 0),
            (1, 2, 0, 1),
            (3, 2, 0, 2),
            (-3, 2, 0, -2),
            (5, 3, 0, 2),
        ] {
            assert_eq!(average(sum, count, more), Ok(Some(expected)), "{sum}/{count}");
        }
        assert_eq!(average(0, 0, 4), Ok(None));
        assert!(average(i128::MAX, 1, 6).is_err());
        assert!(average(i128::MAX - 1, i64::MAX, 6).is_ok());
    }

    #[test]
    fn a_sum_beyond_38_digits_is_an_error_and_never_wraps() {
        let decimal = DataType::Decimal128(38, 2);
        let two = all(&[0, 0], 1);
        let large = Decimal128Array::from(vec![LARGEST as i128, 1]).with_data_type(decimal.clone());
        let mut sum = Accumulator::new(Function::Sum, Some(&decimal), &decimal);
        sum.update(two.chosen(), Some(&large), || false, None).expect("128 bits hold it");
        assert!(sum.finish(1).is_err());
        let mut sum = Accumulator::new(Function::Sum, Some(&decimal), &decimal);
        sum.update(two.chosen(), Some(&large), || false, None).expect("128 bits hold it");
        assert!(sum.update(two.chosen(), Some(&large), || false, None).is_err());
    }

    #[test]
    fn nulls_and_filtered_rows_do_not_count() {
        let values = Int64Array::from(vec![Some(1), None, Some(5), Some(7)]);
        let filter = BooleanArray::from(vec![Some(true), Some(true), None, Some(true)]);
        let groups = [0, 0, 0, 1];
        let run = |function, output: &DataType| {
            let mut accumulator = Accumulator::new(function, Some(&DataType::Int64), output);
            accumulator.update(all(&groups, 2).chosen(), Some(&values), || true, Some(&filter)).expect("no overflow");
            accumulator.finish(3).expect("no overflow")
        };
        let counts = run(Function::Count, &DataType::Int64);
        assert_eq!(counts.as_primitive::<Int64Type>(), &Int64Array::from(vec![1, 1, 0]));
        let counts = run(Function::CountDistinct, &DataType::Int64);
        assert_eq!(counts.as_primitive::<Int64Type>(), &Int64Array::from(vec![1, 1, 0]));
        let sums = run(Function::Sum, &DataType::Decimal128(38, 0));
        let sums: Vec<_> = sums.as_primitive::<Decimal128Type>().iter().collect();
        assert_eq!(sums, [Some(1), Some(7), None]);
        let most = run(Function::Max, &DataType::Int64);
        assert_eq!(most.as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(1), Some(7), None]));
    }

    #[test]
    fn extremes_of_texts_and_doubles() {
        let texts = StringArray::from(vec![Some("b"), Some("a much longer text than fifteen"), None, Some("c")]);
        let mut least = Accumulator::new(Function::Min, Some(&DataType::Utf8), &DataType::Utf8);
        least.update(all(&[0; 4], 1).chosen(), Some(&texts), || false, None).expect("texts compare");
        let found = least.finish(1).expect("a text");
        assert_eq!(found.as_string::<i32>().value(0), "a much longer text than fifteen");
        let doubles = arrow::array::Float64Array::from(vec![1.5, f64::NAN, -3.0]);
        let mut least = Accumulator::new(Function::Min, Some(&DataType::Float64), &DataType::Float64);
        least.update(all(&[0; 3], 1).chosen(), Some(&doubles), || false, None).expect("doubles compare");
        assert_eq!(least.finish(1).expect("a double").as_primitive::<Float64Type>().value(0), -3.0);
    }
}
