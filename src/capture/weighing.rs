//! Weighted rows of one table as they come, until they are cut into a batch for each partition. Pure.
//!
//! Invariant: each row has a weight and a position; the rows of a partition keep the order of the source. No row exists as an
//! object of its own.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{max, min, take_record_batch};
use arrow::datatypes::{Date32Type, TimestampMicrosecondType};
use chrono_tz::Tz;

use super::cell::Cell;
use super::layout::Layout;
use super::meaning::{self, FitError, Meaning};
use crate::model::id::{PartitionId, partition_of_int, partition_of_text};
use crate::model::position::Position;
use crate::model::rows::body_schema;
use crate::model::schema::{Column, ColumnType, Table};

/// What a row takes in memory besides its values.
const ROW_BYTES: usize = 32;
const HOUR_MICROS: i64 = 3_600_000_000;

/// The rows of a table that are not cut yet.
pub struct Weighing {
    table: Arc<Table>,
    partitions: u16,
    zone: Tz,
    columns: Vec<Values>,
    weights: Vec<i64>,
    positions: Vec<i128>,
    partition_of: Vec<u16>,
    bytes: usize,
    scratch: Vec<u8>,
}

/// The rows of one partition, with weights and positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub partition: PartitionId,
    pub rows: RecordBatch,
    /// First and last hour touched (hours since the Unix epoch, UTC).
    pub hours: Option<(i32, i32)>,
}

/// A column's values, and which of them are there; empty as long as none is null.
#[derive(Default)]
struct Valid(Vec<bool>);

struct Values {
    data: Data,
    valid: Valid,
}

enum Data {
    Int(Vec<i64>),
    Decimal(Vec<i128>),
    Double(Vec<f64>),
    /// Where each text ends, and all texts.
    Text(Vec<i32>, Vec<u8>),
    Bool(Vec<bool>),
    Timestamp(Vec<i64>),
    Date(Vec<i32>),
}

impl Weighing {
    pub fn new(table: Arc<Table>, partitions: u16, zone: Tz) -> Self {
        assert!(partitions > 0, "a cluster has partitions");
        Self {
            columns: table.columns.iter().map(|column| Values::new(column.kind)).collect(),
            partitions,
            zone,
            weights: Vec::new(),
            positions: Vec::new(),
            partition_of: Vec::new(),
            bytes: 0,
            scratch: Vec::new(),
            table,
        }
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    pub fn rows(&self) -> usize {
        self.weights.len()
    }

    /// Bytes that the rows take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row whose cells are in the order of the table's columns. After an error, which names the column, the rows here
    /// are of no use any more.
    pub fn push(
        &mut self,
        layout: &Layout,
        cells: &[Cell<'_>],
        weight: i64,
        position: Position,
    ) -> Result<(), (usize, FitError)> {
        let columns = self.table.columns.iter().zip(&mut self.columns).zip(&layout.used).zip(cells);
        for (index, (((column, values), used), cell)) in columns.enumerate() {
            let pushed = values.push(column, &used.meaning, *cell, self.zone);
            self.bytes += pushed.map_err(|error| (index, error))?;
        }
        let row = self.weights.len();
        let partition = self.columns[self.table.partition_by].partition(row, self.partitions, &mut self.scratch);
        self.partition_of.push(partition.0);
        self.weights.push(weight);
        self.positions.push(position.0 as i128);
        self.bytes += ROW_BYTES;
        Ok(())
    }

    /// Takes all rows, by partition.
    pub fn cut(&mut self) -> Vec<Part> {
        if self.weights.is_empty() {
            return Vec::new();
        }
        let fresh = Self::new(self.table.clone(), self.partitions, self.zone);
        let Self { table, columns, weights, positions, partition_of, .. } = std::mem::replace(self, fresh);
        let kinds = table.columns.iter().map(|column| column.kind);
        let mut arrays: Vec<ArrayRef> =
            columns.into_iter().zip(kinds).map(|(values, kind)| values.array(kind)).collect();
        arrays.push(Arc::new(Int64Array::from(weights)));
        let positions = Decimal128Array::from(positions).with_precision_and_scale(38, 0);
        arrays.push(Arc::new(positions.expect("a position has at most 38 digits")));
        let rows = RecordBatch::try_new(body_schema(&table, true, true), arrays)
            .expect("columns were made by the schema, one value each per row");
        let (order, starts) = order(&partition_of, self.partitions);
        let rows = take_record_batch(&rows, &UInt32Array::from(order)).expect("every index is that of a row");
        let ranges = starts.windows(2).map(|ends| ends[0] as usize..ends[1] as usize).enumerate();
        let part = |(index, range): (usize, std::ops::Range<usize>)| {
            let rows = rows.slice(range.start, range.len());
            Part { partition: PartitionId(index as u16), hours: hours(rows.column(table.time)), rows }
        };
        ranges.filter(|(_, range)| !range.is_empty()).map(part).collect()
    }
}

/// A counting sort: the rows by partition, and where each partition's begin.
fn order(partition_of: &[u16], partitions: u16) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; usize::from(partitions) + 1];
    partition_of.iter().for_each(|partition| starts[usize::from(*partition) + 1] += 1);
    for index in 1..starts.len() {
        starts[index] += starts[index - 1];
    }
    let mut free = starts.clone();
    let mut order = vec![0; partition_of.len()];
    for (row, partition) in partition_of.iter().enumerate() {
        let place = &mut free[usize::from(*partition)];
        order[*place as usize] = row as u32;
        *place += 1;
    }
    (order, starts)
}

fn hours(times: &ArrayRef) -> Option<(i32, i32)> {
    if let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() {
        let hour = |micros: i64| micros.div_euclid(HOUR_MICROS) as i32;
        return Some((hour(min(times)?), hour(max(times)?)));
    }
    let days = times.as_primitive::<Date32Type>();
    Some((min(days)? * 24, max(days)? * 24 + 23))
}

impl Valid {
    /// `before` is how many values there are.
    #[inline]
    fn push(&mut self, before: usize, is_valid: bool) {
        if !is_valid && self.0.is_empty() {
            self.0 = vec![true; before];
        }
        if !is_valid || !self.0.is_empty() {
            self.0.push(is_valid);
        }
    }
}

impl Values {
    fn new(kind: ColumnType) -> Self {
        let data = match kind {
            ColumnType::Int => Data::Int(Vec::new()),
            ColumnType::Decimal { .. } => Data::Decimal(Vec::new()),
            ColumnType::Double => Data::Double(Vec::new()),
            ColumnType::Text => Data::Text(Vec::new(), Vec::new()),
            ColumnType::Bool => Data::Bool(Vec::new()),
            ColumnType::Timestamp => Data::Timestamp(Vec::new()),
            ColumnType::Date => Data::Date(Vec::new()),
        };
        Self { data, valid: Valid::default() }
    }

    /// Adds a value, and says how many bytes it takes.
    #[inline]
    fn push(&mut self, column: &Column, meaning: &Meaning, cell: Cell<'_>, zone: Tz) -> Result<usize, FitError> {
        let is_null = cell == Cell::Null;
        let valid = &mut self.valid;
        let (is_valid, count, bytes) = match &mut self.data {
            Data::Int(values) => {
                let value = if is_null { None } else { Some(meaning::int(cell, meaning)?) };
                (keep(values, value), values.len(), 8)
            }
            Data::Decimal(values) => {
                let ColumnType::Decimal { precision, scale } = column.kind else {
                    unreachable!("decimals belong to a decimal column");
                };
                let value = if is_null { None } else { Some(meaning::decimal(cell, meaning, precision, scale)?) };
                (keep(values, value), values.len(), 16)
            }
            Data::Double(values) => {
                let value = if is_null { None } else { Some(meaning::double(cell)?) };
                (keep(values, value), values.len(), 8)
            }
            Data::Text(ends, bytes) => {
                let added = if is_null { 0 } else { meaning::text(cell, meaning, bytes)? };
                let end = i32::try_from(bytes.len()).map_err(|_| FitError::Range("a text beyond 2 GiB".into()))?;
                ends.push(end);
                (!is_null, ends.len(), added + 4)
            }
            Data::Bool(values) => {
                let value = if is_null { None } else { Some(meaning::boolean(cell, meaning)?) };
                (keep(values, value), values.len(), 1)
            }
            Data::Timestamp(values) => {
                let value = if is_null { None } else { meaning::timestamp(cell, meaning, zone)? };
                (keep(values, value), values.len(), 8)
            }
            Data::Date(values) => {
                let value = if is_null { None } else { meaning::date(cell)? };
                (keep(values, value), values.len(), 4)
            }
        };
        valid.push(count - 1, is_valid);
        if is_valid || column.nullable { Ok(bytes) } else { Err(FitError::Null) }
    }

    fn partition(&self, row: usize, partitions: u16, scratch: &mut Vec<u8>) -> PartitionId {
        match &self.data {
            Data::Int(values) => partition_of_int(values[row], partitions),
            Data::Text(ends, bytes) => {
                let from = row.checked_sub(1).map_or(0, |before| ends[before] as usize);
                let text = std::str::from_utf8(&bytes[from..ends[row] as usize]).expect("only UTF-8 was added");
                partition_of_text(text, partitions, scratch)
            }
            _ => unreachable!("a table is partitioned by an int or a text"),
        }
    }

    fn array(self, kind: ColumnType) -> ArrayRef {
        let valid = (!self.valid.0.is_empty()).then(|| NullBuffer::from(self.valid.0));
        match self.data {
            Data::Int(values) => Arc::new(Int64Array::new(values.into(), valid)),
            Data::Timestamp(values) => Arc::new(TimestampMicrosecondArray::new(values.into(), valid)),
            Data::Date(values) => Arc::new(Date32Array::new(values.into(), valid)),
            Data::Double(values) => Arc::new(Float64Array::new(values.into(), valid)),
            Data::Decimal(values) => Arc::new(Decimal128Array::new(values.into(), valid).with_data_type(kind.arrow())),
            Data::Bool(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(values), valid)),
            Data::Text(mut ends, bytes) => {
                ends.insert(0, 0);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
                Arc::new(StringArray::new(offsets, Buffer::from_vec(bytes), valid))
            }
        }
    }
}

/// Adds the value, or something in the place of null; is there one?
#[inline]
fn keep<T: Default>(values: &mut Vec<T>, value: Option<T>) -> bool {
    let is_valid = value.is_some();
    values.push(value.unwrap_or_default());
    is_valid
}

#[cfg(test)]
#[path = "weighing_tests.rs"]
mod tests;
