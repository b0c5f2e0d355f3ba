//! Aggregate states, one column of slots per state, that take rows back: a row of weight −1 undoes one of weight +1.
//!
//! Invariant: a state depends on the weighted rows that it was given, never on their order. Sums are exact modulo
//! 2^128: 28-digit arguments cannot overflow below 10^10 rows.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};
use serde::{Deserialize, Serialize};

use super::aggregate_values::ValuesState;
use super::metric::Function;

/// What a state keeps. Functions of the same kind, argument and filter share one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    Count,
    Sum,
    Values,
}

impl Kind {
    pub fn of(function: Function) -> Self {
        match function {
            Function::Count => Self::Count,
            Function::Sum | Function::Avg => Self::Sum,
            Function::Min | Function::Max | Function::CountDistinct => Self::Values,
        }
    }
}

/// The rows of one batch for one state: row `i` goes to `slots[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    pub slots: &'a [u32],
    /// `None` for `count(*)`; null values do not count.
    pub values: Option<&'a ArrayRef>,
    /// `None`: every row weighs +1.
    pub weights: Option<&'a [i64]>,
    /// Rows where it is false or null do not count.
    pub mask: Option<&'a BooleanArray>,
}

impl Update<'_> {
    /// Which rows count; `None`: all.
    fn counted(&self) -> Option<BooleanBuffer> {
        let present = self.values.and_then(|values| values.nulls()).map(NullBuffer::inner);
        let passed = self.mask.map(|mask| match mask.nulls() {
            Some(known) => mask.values() & known.inner(),
            None => mask.values().clone(),
        });
        match (present, passed) {
            (Some(present), Some(passed)) => Some(present & &passed),
            (Some(present), None) => Some(present.clone()),
            (None, passed) => passed,
        }
    }

    /// Calls `add(row, slot, weight)` for each row that counts. Inlined, so that the usual case (all rows, weight +1)
    /// is a loop without branches.
    #[inline(always)]
    pub(super) fn each(&self, mut add: impl FnMut(usize, usize, i64)) {
        let rows = self.slots.iter().map(|slot| *slot as usize).enumerate();
        match (self.counted(), self.weights) {
            (None, None) => rows.for_each(|(row, slot)| add(row, slot, 1)),
            (None, Some(weights)) => rows.zip(weights).for_each(|((row, slot), weight)| add(row, slot, *weight)),
            (Some(counted), weights) => {
                for row in counted.set_indices() {
                    add(row, self.slots[row] as usize, weights.map_or(1, |weights| weights[row]));
                }
            }
        }
    }
}

/// A sum with the weight of the rows that it is of. Packed: millions of groups hold one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C, packed(8))]
struct Sum {
    sum: i128,
    count: i64,
}

/// Sums of every slot, in units of 10^−scale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SumState {
    scale: i8,
    sums: Vec<Sum>,
}

/// One aggregate of every slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State(Form);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Form {
    Count(Vec<i64>),
    Sum(SumState),
    Values(ValuesState),
}

impl State {
    /// `argument`: the type of the values, `None` for `count(*)`.
    pub fn new(kind: Kind, argument: Option<&DataType>) -> Self {
        Self(match kind {
            Kind::Count => Form::Count(Vec::new()),
            Kind::Sum => Form::Sum(SumState {
                scale: match argument {
                    Some(DataType::Decimal128(_, scale)) => *scale,
                    _ => 0,
                },
                sums: Vec::new(),
            }),
            Kind::Values => Form::Values(ValuesState::new(argument.expect("min, max and distinct have an argument"))),
        })
    }

    /// Makes room for `slots` slots; new ones are vacant.
    pub fn grow(&mut self, slots: usize) {
        match &mut self.0 {
            Form::Count(counts) => grow(counts, slots),
            Form::Sum(state) => grow(&mut state.sums, slots),
            Form::Values(values) => values.grow(slots),
        }
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Count(counts) => counts.len(),
            Form::Sum(state) => state.sums.len(),
            Form::Values(values) => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn update(&mut self, update: Update<'_>) {
        match &mut self.0 {
            Form::Count(counts) => update.each(|_, slot, weight| counts[slot] += weight),
            Form::Sum(state) => state.update(update),
            Form::Values(values) => values.update(update),
        }
    }

    /// The results of `slots`, as `function` sees them and of the type `output`.
    pub fn output(&self, function: Function, slots: &[u32], output: &DataType) -> ArrayRef {
        match &self.0 {
            Form::Count(counts) => {
                Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| counts[*slot as usize])))
            }
            Form::Sum(state) => state.output(function, slots, output),
            Form::Values(values) => values.output(function, slots, output),
        }
    }

    /// Does the slot hold what a new slot holds? Only then may it be given away.
    pub fn is_vacant(&self, slot: u32) -> bool {
        let slot = slot as usize;
        match &self.0 {
            Form::Count(counts) => counts[slot] == 0,
            Form::Sum(state) => state.sums[slot] == Sum::default(),
            Form::Values(values) => values.is_vacant(slot),
        }
    }

    /// Is `other` a state for the same kind and type? A saved state may not be.
    pub fn is_like(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Count(_), Form::Count(_)) => true,
            (Form::Sum(one), Form::Sum(two)) => one.scale == two.scale,
            (Form::Values(one), Form::Values(two)) => one.is_like(two),
            _ => false,
        }
    }

    /// An estimate of the memory held.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Form::Count(counts) => counts.capacity() * size_of::<i64>(),
            Form::Sum(state) => state.sums.capacity() * size_of::<Sum>(),
            Form::Values(values) => values.bytes(),
        }
    }
}

fn grow<T: Default + Clone>(column: &mut Vec<T>, slots: usize) {
    if slots > column.len() {
        column.resize(slots, T::default());
    }
}

impl SumState {
    fn update(&mut self, update: Update<'_>) {
        let values = update.values.expect("a sum has an argument");
        let sums = &mut self.sums;
        let mut add = |slot: usize, value: i128, weight: i64| {
            let sum = &mut sums[slot];
            sum.sum = sum.sum.wrapping_add(value.wrapping_mul(i128::from(weight)));
            sum.count += weight;
        };
        match values.data_type() {
            DataType::Int64 => {
                let values = values.as_primitive::<Int64Type>().values();
                update.each(|row, slot, weight| add(slot, i128::from(values[row]), weight));
            }
            DataType::Decimal128(..) => {
                let values = values.as_primitive::<Decimal128Type>().values();
                update.each(|row, slot, weight| add(slot, values[row], weight));
            }
            other => panic!("a sum of {other} is refused where metrics are checked"),
        }
    }

    fn output(&self, function: Function, slots: &[u32], output: &DataType) -> ArrayRef {
        let DataType::Decimal128(precision, scale) = output else { panic!("sums and averages are decimals: {output}") };
        let digits = u32::try_from(scale - self.scale).expect("results have at least the scale of their argument");
        let sums = slots.iter().map(|slot| self.sums[*slot as usize]);
        let results: Decimal128Array = match function {
            Function::Avg => sums.map(|sum| average(sum.sum, sum.count, digits)).collect(),
            _ => sums.map(|sum| (sum.count != 0).then(|| sum.sum.wrapping_mul(10_i128.pow(digits)))).collect(),
        };
        Arc::new(results.with_precision_and_scale(*precision, *scale).expect("the type was checked with the metric"))
    }
}

/// `sum / count` with `digits` more decimal digits, rounded half away from zero; `None` without rows. By long
/// division, since `sum × 10^digits` need not fit. What would not fit the result either is `None`.
fn average(sum: i128, count: i64, digits: u32) -> Option<i128> {
    let (dividend, divisor) = (sum.unsigned_abs(), u128::from(count.unsigned_abs()));
    let mut quotient = dividend.checked_div(divisor)?;
    let mut rest = dividend % divisor;
    for _ in 0..digits {
        quotient = quotient.checked_mul(10)?.checked_add(rest * 10 / divisor)?;
        rest = rest * 10 % divisor;
    }
    if rest * 2 >= divisor {
        quotient += 1;
    }
    let magnitude = i128::try_from(quotient).ok()?;
    Some(if (sum < 0) != (count < 0) { -magnitude } else { magnitude })
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
