//! Sorts the rows of one request by the partitions that they belong to.
//!
//! Invariant: rows of a partition keep the order of the request; a row that failed leaves the whole request unusable, so
//! nothing is ever undone. No row exists as an object of its own.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use super::columns::{ColumnRows, Spread, fixed_bytes, hours};
use super::value::ValueError;
use crate::model::id::PartitionId;
use crate::model::rows::body_schema;
use crate::model::schema::Table;

/// Where a row's values come from. Indexes are those of the table's columns; `None` is null.
pub trait Cells {
    fn cell(&self, column: usize) -> Result<Option<Cow<'_, [u8]>>, ValueError>;
}

/// What one request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest row, as it stands in the body.
    pub row_bytes: usize,
    /// The most rows of one request; an update is two.
    pub rows: u64,
    /// The most bytes of all rows in memory, decoded.
    pub decoded_bytes: usize,
}

/// Why a row could not be put anywhere.
#[derive(Debug, PartialEq, Eq)]
pub enum ScatterError {
    /// The cell of this column is not a value of it.
    Cell(usize, ValueError),
    TooManyRows(u64),
    TooManyBytes(usize),
}

/// The rows of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    pub partition: PartitionId,
    /// The table's columns, and the weights if `weighted`.
    pub rows: RecordBatch,
    pub weighted: bool,
    /// How many changes of the request these rows are; an update counts where its row after belongs.
    pub changes: u64,
    /// First and last hour touched (hours since the Unix epoch, UTC).
    pub hours: Option<(i32, i32)>,
}

/// The rows of one request.
pub struct Scatter {
    table: Arc<Table>,
    limits: Limits,
    columns: Vec<ColumnRows>,
    /// Per row; empty as long as all are +1.
    weights: Vec<i64>,
    spread: Spread,
    /// By partition.
    changes: Vec<u64>,
    /// Bytes that each row takes besides its texts.
    row_bytes: usize,
    bytes: usize,
    scratch: Vec<u8>,
}

impl Scatter {
    pub fn new(table: Arc<Table>, partitions: u16, limits: Limits) -> Self {
        assert!(partitions > 0, "a cluster has partitions");
        let by_partition = usize::from(partitions);
        Self {
            columns: table.columns.iter().map(|column| ColumnRows::new(column.kind)).collect(),
            weights: Vec::new(),
            spread: Spread { partition_of: Vec::new(), counts: vec![0; by_partition] },
            changes: vec![0; by_partition],
            row_bytes: 2 + table.columns.iter().map(|column| fixed_bytes(column.kind)).sum::<usize>(),
            bytes: 0,
            scratch: Vec::new(),
            // The offsets of a text column are 32 bits.
            limits: Limits { decoded_bytes: limits.decoded_bytes.min(i32::MAX as usize / 2), ..limits },
            table,
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of all rows so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row with a weight; `changes` is how many changes it stands for.
    pub fn push(&mut self, cells: &impl Cells, weight: i64, changes: u64) -> Result<(), ScatterError> {
        let mut text_bytes = 0;
        for (index, (column, to)) in self.table.columns.iter().zip(&mut self.columns).enumerate() {
            let pushed = cells.cell(index).and_then(|cell| to.push(column, cell.as_deref()));
            text_bytes += pushed.map_err(|error| ScatterError::Cell(index, error))?;
        }
        self.weigh(weight);
        let partitions = self.changes.len() as u16;
        let partition = self.columns[self.table.partition_by].last_partition(partitions, &mut self.scratch);
        self.spread.partition_of.push(partition.0);
        self.spread.counts[usize::from(partition.0)] += 1;
        self.changes[usize::from(partition.0)] += changes;
        self.bytes += self.row_bytes + text_bytes;
        if self.spread.partition_of.len() as u64 > self.limits.rows {
            return Err(ScatterError::TooManyRows(self.limits.rows));
        }
        if self.bytes > self.limits.decoded_bytes {
            return Err(ScatterError::TooManyBytes(self.limits.decoded_bytes));
        }
        Ok(())
    }

    fn weigh(&mut self, weight: i64) {
        if weight != 1 && self.weights.is_empty() {
            self.weights = vec![1; self.spread.partition_of.len()];
            self.weights.push(weight);
        } else if !self.weights.is_empty() {
            self.weights.push(weight);
        }
    }

    /// The rows by partition; partitions without rows are absent.
    pub fn finish(self) -> Vec<Part> {
        let Self { table, columns, spread, changes, .. } = self;
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::with_capacity(columns.len() + 1); changes.len()];
        // A column is given back before the next is distributed.
        for (rows, column) in columns.into_iter().zip(&table.columns) {
            let arrays = rows.spread(column.kind, &spread);
            parts.iter_mut().zip(arrays).for_each(|(part, array)| part.push(array));
        }
        let weights = spread.weights(&self.weights);
        let parts = parts.into_iter().zip(weights).zip(changes).enumerate();
        let filled = parts.filter(|(index, _)| spread.counts[*index] > 0);
        filled
            .map(|(index, ((columns, weights), changes))| part(&table, index as u16, columns, weights, changes))
            .collect()
    }
}

fn part(table: &Table, partition: u16, mut columns: Vec<ArrayRef>, weights: Vec<i64>, changes: u64) -> Part {
    let hours = hours(&columns[table.time]);
    let weighted = !weights.is_empty();
    if weighted {
        columns.push(Arc::new(Int64Array::from(weights)));
    }
    let rows = RecordBatch::try_new(body_schema(table, weighted, false), columns)
        .expect("columns were made by the schema, one value each per row");
    Part { partition: PartitionId(partition), rows, weighted, changes, hours }
}
