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

use super::moment;
use super::value::{self, ValueError};
use crate::model::id::{PartitionId, partition_of_int, partition_of_text};
use crate::model::schema::{Column, ColumnType};

const HOUR_MICROS: i64 = 3_600_000_000;

/// Which partition each row belongs to.
pub struct Spread {
    pub partition_of: Vec<u16>,
    /// Rows by partition.
    pub counts: Vec<usize>,
}

impl Spread {
    /// Distributes one value per row.
    fn values<T: Copy>(&self, values: &[T]) -> Vec<Vec<T>> {
        let mut parts: Vec<Vec<T>> = self.counts.iter().map(|count| Vec::with_capacity(*count)).collect();
        for (value, partition) in values.iter().zip(&self.partition_of) {
            parts[usize::from(*partition)].push(*value);
        }
        parts
    }

    /// Weights by partition; empty where all are +1.
    pub fn weights(&self, weights: &[i64]) -> Vec<Vec<i64>> {
        if weights.is_empty() {
            return vec![Vec::new(); self.counts.len()];
        }
        let mut parts = self.values(weights);
        parts.iter_mut().filter(|part| part.iter().all(|weight| *weight == 1)).for_each(Vec::clear);
        parts
    }
}

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

    /// The partition of the row added last, by this column; `scratch` saves an allocation.
    #[inline]
    pub fn last_partition(&self, partitions: u16, scratch: &mut Vec<u8>) -> PartitionId {
        match &self.values {
            Values::Int(values) => partition_of_int(*values.last().expect("a row was added"), partitions),
            Values::Text(ends, bytes) => {
                let from = ends.len().checked_sub(2).map_or(0, |before| ends[before]);
                let text = std::str::from_utf8(&bytes[from..]).expect("it was UTF-8 when it was added");
                partition_of_text(text, partitions, scratch)
            }
            _ => unreachable!("a table is partitioned by an int or a text"),
        }
    }

    /// The column's rows by partition.
    pub fn spread(self, kind: ColumnType, spread: &Spread) -> Vec<ArrayRef> {
        let valid = match self.valid.is_empty() {
            true => vec![None; spread.counts.len()],
            false => spread.values(&self.valid).into_iter().map(|part| Some(NullBuffer::from(part))).collect(),
        };
        match self.values {
            Values::Int(values) => arrays(spread.values(&values), valid, Int64Array::new),
            Values::Timestamp(values) => arrays(spread.values(&values), valid, TimestampMicrosecondArray::new),
            Values::Date(values) => arrays(spread.values(&values), valid, Date32Array::new),
            Values::Double(values) => arrays(spread.values(&values), valid, Float64Array::new),
            Values::Decimal(values) => arrays(spread.values(&values), valid, |values, valid| {
                Decimal128Array::new(values, valid).with_data_type(kind.arrow())
            }),
            Values::Bool(values) => {
                let parts = spread.values(&values).into_iter().zip(valid);
                parts.map(|(part, valid)| Arc::new(BooleanArray::new(BooleanBuffer::from(part), valid)) as _).collect()
            }
            Values::Text(ends, bytes) => {
                let parts = spread_texts(&ends, &bytes, spread).into_iter().zip(valid);
                parts.map(|((offsets, bytes), valid)| text_array(offsets, bytes, valid)).collect()
            }
        }
    }
}

fn arrays<T, A>(
    parts: Vec<Vec<T>>,
    valid: Vec<Option<NullBuffer>>,
    make: impl Fn(ScalarBuffer<T>, Option<NullBuffer>) -> A,
) -> Vec<ArrayRef>
where
    T: arrow::datatypes::ArrowNativeType,
    A: arrow::array::Array + 'static,
{
    parts.into_iter().zip(valid).map(|(part, valid)| Arc::new(make(part.into(), valid)) as _).collect()
}

fn spread_texts(ends: &[usize], bytes: &[u8], spread: &Spread) -> Vec<(Vec<i32>, Vec<u8>)> {
    let empty = |count: &usize| {
        let mut offsets = Vec::with_capacity(count + 1);
        offsets.push(0);
        (offsets, Vec::with_capacity(bytes.len() / ends.len().max(1) * count))
    };
    let mut parts: Vec<(Vec<i32>, Vec<u8>)> = spread.counts.iter().map(empty).collect();
    let mut from = 0;
    for (end, partition) in ends.iter().zip(&spread.partition_of) {
        let (offsets, texts) = &mut parts[usize::from(*partition)];
        texts.extend_from_slice(&bytes[from..*end]);
        offsets.push(i32::try_from(texts.len()).expect("a request is limited to less than 2 GiB"));
        from = *end;
    }
    parts
}

fn text_array(offsets: Vec<i32>, bytes: Vec<u8>, valid: Option<NullBuffer>) -> ArrayRef {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
    Arc::new(StringArray::new(offsets, Buffer::from_vec(bytes), valid))
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
