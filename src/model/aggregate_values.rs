//! The values of an argument with their weights, per slot: what min, max and exact distinct counts need to be able to
//! take rows back.
//!
//! Invariant: a value whose weights cancel out is not kept; a value of negative weight (its −1 came before its +1) is
//! kept and never shown.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};

use super::aggregate::Update;
use super::metric::Function;

/// Above this many values a sorted vector gives way to a map.
const FEW: usize = 32;

/// Values with weights, ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Multiset<T: Ord> {
    values: Values<T>,
    /// How many values have a positive weight.
    present: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Values<T: Ord> {
    Few(Vec<(T, i64)>),
    Many(BTreeMap<T, i64>),
}

impl<T: Ord> Default for Multiset<T> {
    fn default() -> Self {
        Self { values: Values::Few(Vec::new()), present: 0 }
    }
}

impl<T: Ord> Multiset<T> {
    fn add<Q: Ord + ToOwned<Owned = T> + ?Sized>(&mut self, value: &Q, weight: i64)
    where
        T: Borrow<Q>,
    {
        if weight == 0 {
            return;
        }
        let before = match &mut self.values {
            Values::Few(few) => match few.binary_search_by(|(known, _)| known.borrow().cmp(value)) {
                Ok(at) => {
                    let before = few[at].1;
                    few[at].1 += weight;
                    if few[at].1 == 0 {
                        few.remove(at);
                    }
                    before
                }
                Err(at) => {
                    few.insert(at, (value.to_owned(), weight));
                    if few.len() > FEW {
                        self.values = Values::Many(std::mem::take(few).into_iter().collect());
                    }
                    0
                }
            },
            Values::Many(many) => match many.get_mut(value) {
                Some(known) => {
                    let before = *known;
                    *known += weight;
                    if *known == 0 {
                        many.remove(value);
                        if many.len() <= FEW / 2 {
                            self.values = Values::Few(std::mem::take(many).into_iter().collect());
                        }
                    }
                    before
                }
                None => {
                    many.insert(value.to_owned(), weight);
                    0
                }
            },
        };
        self.present += u32::from(before <= 0 && before + weight > 0);
        self.present -= u32::from(before > 0 && before + weight <= 0);
    }

    fn is_vacant(&self) -> bool {
        match &self.values {
            Values::Few(few) => few.is_empty(),
            Values::Many(many) => many.is_empty(),
        }
    }

    fn smallest(&self) -> Option<&T> {
        match &self.values {
            Values::Few(few) => few.iter().find(|(_, weight)| *weight > 0).map(|(value, _)| value),
            Values::Many(many) => many.iter().find(|(_, weight)| **weight > 0).map(|(value, _)| value),
        }
    }

    fn largest(&self) -> Option<&T> {
        match &self.values {
            Values::Few(few) => few.iter().rev().find(|(_, weight)| *weight > 0).map(|(value, _)| value),
            Values::Many(many) => many.iter().rev().find(|(_, weight)| **weight > 0).map(|(value, _)| value),
        }
    }

    fn bytes(&self, payload: impl Fn(&T) -> usize) -> usize {
        let entry = size_of::<(T, i64)>();
        match &self.values {
            Values::Few(few) => few.capacity() * entry + few.iter().map(|(value, _)| payload(value)).sum::<usize>(),
            // Nodes are two thirds full on average, and have a header.
            Values::Many(many) => many.len() * entry * 5 / 3 + many.keys().map(payload).sum::<usize>(),
        }
    }
}

/// Multisets of every slot. Int, timestamp, date, bool and double share one form: an i64 in the same order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum ValuesState {
    Word(Vec<Multiset<i64>>),
    Wide(Vec<Multiset<i128>>),
    Text(Vec<Multiset<String>>),
}

/// The bits of a double in an order-preserving form; all zeros are one value, and all NaNs are one, the largest.
fn word_of_double(value: f64) -> i64 {
    let value = if value.is_nan() { f64::NAN.abs() } else { value + 0.0 };
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn double_of_word(word: i64) -> f64 {
    f64::from_bits((word ^ (((word >> 63) as u64) >> 1) as i64) as u64)
}

impl ValuesState {
    pub fn new(argument: &DataType) -> Self {
        match argument {
            DataType::Utf8 => Self::Text(Vec::new()),
            DataType::Decimal128(..) => Self::Wide(Vec::new()),
            _ => Self::Word(Vec::new()),
        }
    }

    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Word(sets) => sets.len(),
            Self::Wide(sets) => sets.len(),
            Self::Text(sets) => sets.len(),
        }
    }

    pub fn grow(&mut self, slots: usize) {
        let slots = slots.max(self.len());
        match self {
            Self::Word(sets) => sets.resize_with(slots, Multiset::default),
            Self::Wide(sets) => sets.resize_with(slots, Multiset::default),
            Self::Text(sets) => sets.resize_with(slots, Multiset::default),
        }
    }

    pub fn update(&mut self, update: Update<'_>) {
        let values = update.values.expect("min, max and distinct have an argument");
        match self {
            Self::Wide(sets) => {
                let values = values.as_primitive::<Decimal128Type>().values();
                update.each(|row, slot, weight| sets[slot].add(&values[row], weight));
            }
            Self::Text(sets) => {
                let values = values.as_string::<i32>();
                update.each(|row, slot, weight| sets[slot].add(values.value(row), weight));
            }
            Self::Word(sets) => match values.data_type() {
                DataType::Int64 => {
                    let values = values.as_primitive::<Int64Type>().values();
                    update.each(|row, slot, weight| sets[slot].add(&values[row], weight));
                }
                DataType::Timestamp(..) => {
                    let values = values.as_primitive::<TimestampMicrosecondType>().values();
                    update.each(|row, slot, weight| sets[slot].add(&values[row], weight));
                }
                DataType::Date32 => {
                    let values = values.as_primitive::<Date32Type>().values();
                    update.each(|row, slot, weight| sets[slot].add(&i64::from(values[row]), weight));
                }
                DataType::Float64 => {
                    let values = values.as_primitive::<Float64Type>().values();
                    update.each(|row, slot, weight| sets[slot].add(&word_of_double(values[row]), weight));
                }
                DataType::Boolean => {
                    let values = values.as_boolean().values();
                    update.each(|row, slot, weight| sets[slot].add(&i64::from(values.value(row)), weight));
                }
                other => panic!("no column or expression has the type {other}"),
            },
        }
    }

    pub fn output(&self, function: Function, slots: &[u32], output: &DataType) -> ArrayRef {
        match self {
            Self::Word(sets) => {
                if function == Function::CountDistinct {
                    return distinct(sets, slots);
                }
                let words = extremes(sets, function, slots).map(|word| word.copied());
                match output {
                    DataType::Int64 => Arc::new(words.collect::<Int64Array>()),
                    DataType::Timestamp(..) => Arc::new(words.collect::<TimestampMicrosecondArray>()),
                    DataType::Date32 => {
                        Arc::new(words.map(|word| word.map(|word| word as i32)).collect::<Date32Array>())
                    }
                    DataType::Float64 => Arc::new(words.map(|word| word.map(double_of_word)).collect::<Float64Array>()),
                    DataType::Boolean => {
                        Arc::new(words.map(|word| word.map(|word| word != 0)).collect::<BooleanArray>())
                    }
                    other => panic!("min and max have the type of their argument, not {other}"),
                }
            }
            Self::Wide(sets) => {
                if function == Function::CountDistinct {
                    return distinct(sets, slots);
                }
                let values: Decimal128Array = extremes(sets, function, slots).map(|value| value.copied()).collect();
                Arc::new(values.with_data_type(output.clone()))
            }
            Self::Text(sets) => {
                if function == Function::CountDistinct {
                    return distinct(sets, slots);
                }
                Arc::new(extremes(sets, function, slots).collect::<StringArray>())
            }
        }
    }

    pub fn is_vacant(&self, slot: usize) -> bool {
        match self {
            Self::Word(sets) => sets[slot].is_vacant(),
            Self::Wide(sets) => sets[slot].is_vacant(),
            Self::Text(sets) => sets[slot].is_vacant(),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Word(sets) => bytes(sets, |_| 0),
            Self::Wide(sets) => bytes(sets, |_| 0),
            Self::Text(sets) => bytes(sets, String::capacity),
        }
    }
}

fn distinct<T: Ord>(sets: &[Multiset<T>], slots: &[u32]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| i64::from(sets[*slot as usize].present))))
}

fn extremes<'a, T: Ord>(
    sets: &'a [Multiset<T>],
    function: Function,
    slots: &'a [u32],
) -> impl Iterator<Item = Option<&'a T>> {
    slots.iter().map(move |slot| {
        let set = &sets[*slot as usize];
        if function == Function::Min { set.smallest() } else { set.largest() }
    })
}

fn bytes<T: Ord>(sets: &Vec<Multiset<T>>, payload: impl Fn(&T) -> usize) -> usize {
    sets.capacity() * size_of::<Multiset<T>>() + sets.iter().map(|set| set.bytes(&payload)).sum::<usize>()
}
