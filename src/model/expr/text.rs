//! Functions of texts, row by row.
//!
//! Invariant: a column of texts never grows beyond what Arrow can count; characters are counted, not bytes.

use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringBuilder};

use super::EvaluationError;
use super::evaluate::{MAX_TEXT_BYTES, Value};
use super::node::TextFunction;

/// A text or number of a row, of a column or of the one value.
fn row_of(value: &Value, row: usize) -> Option<usize> {
    let row = if value.is_one() { 0 } else { row };
    value.array().is_valid(row).then_some(row)
}

fn text_at(value: &Value, row: usize) -> Option<&str> {
    Some(value.array().as_string::<i32>().value(row_of(value, row)?))
}

fn int_at(value: &Value, row: usize) -> Option<i64> {
    Some(value.array().as_primitive::<Int64Type>().value(row_of(value, row)?))
}

pub(super) fn apply(function: TextFunction, values: &[Value], rows: usize) -> Result<ArrayRef, EvaluationError> {
    if function == TextFunction::Length {
        let lengths = (0..rows).map(|row| text_at(&values[0], row).map(|text| text.chars().count() as i64));
        return Ok(Arc::new(lengths.collect::<Int64Array>()));
    }
    let mut result = StringBuilder::new();
    let mut size = 0;
    for row in 0..rows {
        let made = match function {
            TextFunction::Lower => text_at(&values[0], row).map(str::to_lowercase),
            TextFunction::Upper => text_at(&values[0], row).map(str::to_uppercase),
            TextFunction::Trim => text_at(&values[0], row).map(|text| text.trim_matches(' ').to_string()),
            TextFunction::Substring => substring(values, row),
            TextFunction::Concat | TextFunction::Length => values.iter().map(|value| text_at(value, row)).collect(),
        };
        size += made.as_ref().map_or(0, String::len);
        if size > MAX_TEXT_BYTES {
            return Err(EvaluationError::TooLarge(MAX_TEXT_BYTES));
        }
        result.append_option(made);
    }
    Ok(Arc::new(result.finish()))
}

/// Characters count from 1; those before the first take part of the length, as in the SQL standard.
fn substring(values: &[Value], row: usize) -> Option<String> {
    let (text, from) = (text_at(&values[0], row)?, int_at(&values[1], row)?);
    let end = match values.get(2) {
        Some(length) => from.saturating_add(int_at(length, row)?.max(0)),
        None => i64::MAX,
    };
    let skip = from.max(1).saturating_sub(1);
    let length = end.saturating_sub(from.max(1)).max(0);
    let count = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
    Some(text.chars().skip(count(skip)).take(count(length)).collect())
}
