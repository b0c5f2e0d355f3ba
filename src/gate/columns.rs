//! The columns of a request as they are read, row after row, and their distribution over partitions.
//!
//! Invariant: a column has one value per row, null or not; distributing keeps the order of rows. A request is read into one
//! set of columns and distributed once, column by column: filling every partition's columns row by row would touch more
//! memory than the processor's nearest cache holds.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::csv_lines::Field;
use super::moment::{self, Today};
use super::spread::Spread;
use super::value::{self, ValueError};
use crate::model::id::{PartitionId, partition_of_int, partition_of_text};
use crate::model::schema::{Column, ColumnType};

const HOUR_MICROS: i64 = 3_600_000_000;

/// A column of a request.
pub struct ColumnRows {
    values: Values,
    /// Per row; empty as long as no value is null.
    valid: Vec<bool>,
}

enum Values {
    Int(Vec<i64>),
    Decimal(Vec<i128>),
    Double(Vec<f64>),
    /// Where each text ends, and all texts.
    Text(Vec<usize>, Vec<u8>),
    Bool(Vec<bool>),
    Timestamp(Vec<i64>),
    Date(Vec<i32>),
}

/// What a value of this type takes in memory, without the bytes of a text.
pub fn fixed_bytes(kind: ColumnType) -> usize {
    match kind {
        ColumnType::Int | ColumnType::Double | ColumnType::Timestamp | ColumnType::Text => 8,
        ColumnType::Decimal { .. } => 16,
        ColumnType::Date => 4,
        ColumnType::Bool => 1,
    }
}

impl ColumnRows {
    pub fn new(kind: ColumnType) -> Self {
        let values = match kind {
            ColumnType::Int => Values::Int(Vec::new()),
            ColumnType::Decimal { .. } => Values::Decimal(Vec::new()),
            ColumnType::Double => Values::Double(Vec::new()),
            ColumnType::Text => Values::Text(Vec::new(), Vec::new()),
            ColumnType::Bool => Values::Bool(Vec::new()),
            ColumnType::Timestamp => Values::Timestamp(Vec::new()),
            ColumnType::Date => Values::Date(Vec::new()),
        };
        Self { values, valid: Vec::new() }
    }

    /// Adds a cell and says how many bytes of text it had.
    #[inline]
    pub fn push(&mut self, column: &Column, cell: Option<&[u8]>) -> Result<usize, ValueError> {
        let Some(cell) = cell else {
            return if column.nullable { Ok(self.push_null()) } else { Err(ValueError::Null) };
        };
        if !self.valid.is_empty() {
            self.valid.push(true);
        }
        match &mut self.values {
            Values::Int(values) => values.push(value::int(cell)?),
            Values::Decimal(values) => {
                let ColumnType::Decimal { precision, scale } = column.kind else {
                    unreachable!("decimals belong to a decimal column");
                };
                values.push(value::decimal(cell, precision, scale)?);
            }
            Values::Double(values) => values.push(value::double(cell)?),
            Values::Text(ends, bytes) => {
                bytes.extend_from_slice(value::text(cell)?.as_bytes());
                ends.push(bytes.len());
                return Ok(cell.len());
            }
            Values::Bool(values) => values.push(value::boolean(cell)?),
            Values::Timestamp(values) => values.push(moment::timestamp(cell)?),
            Values::Date(values) => values.push(moment::date(cell)?),
        }
        Ok(0)
    }

    fn push_null(&mut self) -> usize {
        if self.valid.is_empty() {
            self.valid = vec![true; self.len()];
        }
        self.valid.push(false);
        match &mut self.values {
            Values::Int(values) | Values::Timestamp(values) => values.push(0),
            Values::Decimal(values) => values.push(0),
            Values::Double(values) => values.push(0.0),
            Values::Text(ends, bytes) => ends.push(bytes.len()),
            Values::Bool(values) => values.push(false),
            Values::Date(values) => values.push(0),
        }
        0
    }

    fn len(&self) -> usize {
        match &self.values {
            Values::Int(values) | Values::Timestamp(values) => values.len(),
            Values::Decimal(values) => values.len(),
            Values::Double(values) => values.len(),
            Values::Text(ends, _) => ends.len(),
            Values::Bool(values) => values.len(),
            Values::Date(values) => values.len(),
        }
    }

    /// The partition of a row, by this column; `scratch` saves an allocation.
    #[inline]
    pub fn partition(&self, row: usize, partitions: u16, scratch: &mut Vec<u8>) -> PartitionId {
        match &self.values {
            Values::Int(values) => partition_of_int(values[row], partitions),
            Values::Text(ends, bytes) => {
                let from = row.checked_sub(1).map_or(0, |before| ends[before]);
                let text = std::str::from_utf8(&bytes[from..ends[row]]).expect("it was UTF-8 when it was added");
                partition_of_text(text, partitions, scratch)
            }
            _ => unreachable!("a table is partitioned by an int or a text"),
        }
    }

    /// Adds a field of many lines; false if one of them is no value of the column. Then the rows added are some of them,
    /// and `truncate` takes them back.
    pub fn fill(&mut self, column: &Column, field: Field<'_>) -> bool {
        let (valid, nullable) = (&mut self.valid, column.nullable);
        match (&mut self.values, column.kind) {
            (Values::Int(values), _) => fill(values, valid, nullable, field, value::int),
            (Values::Decimal(values), ColumnType::Decimal { precision, scale }) => {
                fill(values, valid, nullable, field, |cell| value::decimal(cell, precision, scale))
            }
            (Values::Decimal(_), _) => unreachable!("decimals belong to a decimal column"),
            (Values::Double(values), _) => fill(values, valid, nullable, field, value::double),
            (Values::Bool(values), _) => fill(values, valid, nullable, field, value::boolean),
            (Values::Timestamp(values), _) => {
                let mut today = Today::default();
                fill(values, valid, nullable, field, |cell| today.timestamp(cell))
            }
            (Values::Date(values), _) => fill(values, valid, nullable, field, moment::date),
            (Values::Text(ends, bytes), _) => fill(ends, valid, nullable, field, |cell| {
                bytes.extend_from_slice(cell);
                Ok(bytes.len())
            }),
        }
    }

    /// Adds as many nulls.
    pub fn fill_nulls(&mut self, count: usize) {
        (0..count).for_each(|_| {
            self.push_null();
        });
    }

    /// Forgets all rows from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.valid.truncate(len);
        match &mut self.values {
            Values::Int(values) | Values::Timestamp(values) => values.truncate(len),
            Values::Decimal(values) => values.truncate(len),
            Values::Double(values) => values.truncate(len),
            Values::Text(ends, bytes) => {
                ends.truncate(len);
                bytes.truncate(ends.last().copied().unwrap_or(0));
            }
            Values::Bool(values) => values.truncate(len),
            Values::Date(values) => values.truncate(len),
        }
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> usize {
        match &self.values {
            Values::Text(_, bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// The column's rows, those of one partition together.
    pub fn spread(self, kind: ColumnType, spread: &Spread) -> ArrayRef {
        let valid = (!self.valid.is_empty()).then(|| NullBuffer::from(spread.values(&self.valid)));
        match self.values {
            Values::Int(values) => Arc::new(Int64Array::new(spread.values(&values).into(), valid)),
            Values::Timestamp(values) => Arc::new(TimestampMicrosecondArray::new(spread.values(&values).into(), valid)),
            Values::Date(values) => Arc::new(Date32Array::new(spread.values(&values).into(), valid)),
            Values::Double(values) => Arc::new(Float64Array::new(spread.values(&values).into(), valid)),
            Values::Decimal(values) => {
                let values = Decimal128Array::new(spread.values(&values).into(), valid);
                Arc::new(values.with_data_type(kind.arrow()))
            }
            Values::Bool(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(spread.values(&values)), valid)),
            Values::Text(ends, bytes) => {
                let (offsets, bytes) = spread.texts(&ends, &bytes);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(StringArray::new(offsets, Buffer::from_vec(bytes), valid))
            }
        }
    }
}

fn fill<T: Copy + Default>(
    values: &mut Vec<T>,
    valid: &mut Vec<bool>,
    nullable: bool,
    field: Field<'_>,
    mut read: impl FnMut(&[u8]) -> Result<T, ValueError>,
) -> bool {
    values.reserve(field.lines());
    for cell in field.cells() {
        if cell.is_empty() {
            if !nullable {
                return false;
            }
            if valid.is_empty() {
                *valid = vec![true; values.len()];
            }
            valid.push(false);
            // What a null hides does not matter, but a text must end where the last one did.
            values.push(values.last().copied().unwrap_or_default());
            continue;
        }
        let Ok(value) = read(cell) else { return false };
        if !valid.is_empty() {
            valid.push(true);
        }
        values.push(value);
    }
    true
}

/// First and last hour (since the Unix epoch, UTC) that a time column touches.
pub fn hours(times: &ArrayRef) -> Option<(i32, i32)> {
    use arrow::array::AsArray;
    use arrow::compute::{max, min};
    use arrow::datatypes::{Date32Type, TimestampMicrosecondType};

    if let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() {
        let hour = |micros: i64| micros.div_euclid(HOUR_MICROS) as i32;
        return Some((hour(min(times)?), hour(max(times)?)));
    }
    let days = times.as_primitive::<Date32Type>();
    Some((min(days)? * 24, max(days)? * 24 + 23))
}
