//! Sorts the rows of one request by the partitions that they belong to.
//!
//! Invariant: rows of a partition keep the order of the request; a row that failed leaves the whole request unusable, so
//! nothing is ever undone. No row exists as an object of its own.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};

use super::columns::{ColumnRows, fixed_bytes, hours};
use super::csv_lines::Lines;
use super::spread::Places;
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
    places: Places,
    /// By partition.
    changes: Vec<u64>,
    /// Bytes that each row takes besides its texts.
    row_bytes: usize,
    bytes: usize,
    scratch: Vec<u8>,
}

/// Which field of a line holds which column.
#[derive(Debug, Clone)]
pub struct Layout {
    /// By the table's column; `None`: the lines do not have it.
    pub columns: Vec<Option<usize>>,
    pub operation: Option<usize>,
    /// Of a line.
    pub fields: usize,
}

/// The weight that an operation in a line stands for.
pub fn weight(operation: &[u8]) -> Option<i64> {
    match operation {
        b"" | b"insert" => Some(1),
        b"delete" => Some(-1),
        _ => None,
    }
}

impl Scatter {
    pub fn new(table: Arc<Table>, partitions: u16, limits: Limits) -> Self {
        assert!(partitions > 0, "a cluster has partitions");
        Self {
            columns: table.columns.iter().map(|column| ColumnRows::new(column.kind)).collect(),
            weights: Vec::new(),
            places: Places::new(partitions),
            changes: vec![0; usize::from(partitions)],
            row_bytes: 2 + table.columns.iter().map(|column| fixed_bytes(column.kind)).sum::<usize>(),
            bytes: 0,
            scratch: Vec::new(),
            limits: Limits {
                // The offsets of a text column and the numbers of rows are 32 bits.
                decoded_bytes: limits.decoded_bytes.min(i32::MAX as usize / 2),
                ..limits
            },
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
        let key = &self.columns[self.table.partition_by];
        let partition = key.partition(self.places.len(), self.places.partitions(), &mut self.scratch);
        self.places.push(partition);
        self.changes[usize::from(partition.0)] += changes;
        self.bytes += self.row_bytes + text_bytes;
        if self.places.len() as u64 > self.limits.rows {
            return Err(ScatterError::TooManyRows(self.limits.rows));
        }
        if self.bytes > self.limits.decoded_bytes {
            return Err(ScatterError::TooManyBytes(self.limits.decoded_bytes));
        }
        Ok(())
    }

    /// Adds many lines, each one change, if all of them are good and within the limits: the same as `push` for each, only
    /// faster. If not, nothing is added, and `push` will tell which line is at fault.
    #[must_use]
    pub fn push_lines(&mut self, lines: &Lines<'_>, layout: &Layout) -> bool {
        let before = self.places.len();
        let rows = before as u64 + lines.len() as u64;
        let most_bytes = self.bytes + lines.len() * self.row_bytes + lines.bytes().len();
        if rows > self.limits.rows || most_bytes > self.limits.decoded_bytes {
            return false;
        }
        // Delimiters are ASCII: fields are valid if the lines are.
        let valid = std::str::from_utf8(lines.bytes()).is_ok();
        if !(valid && self.fill(lines, layout)) {
            self.columns.iter_mut().for_each(|column| column.truncate(before));
            self.weights.truncate(before);
            return false;
        }
        let key = &self.columns[self.table.partition_by];
        for row in before..before + lines.len() {
            let partition = key.partition(row, self.places.partitions(), &mut self.scratch);
            self.places.push(partition);
            self.changes[usize::from(partition.0)] += 1;
        }
        let texts: usize = self.columns.iter().map(ColumnRows::text_bytes).sum();
        self.bytes = self.places.len() * self.row_bytes + texts;
        true
    }

    fn fill(&mut self, lines: &Lines<'_>, layout: &Layout) -> bool {
        let columns = self.table.columns.iter().zip(&mut self.columns).zip(&layout.columns);
        for ((column, to), field) in columns {
            match field {
                Some(index) if to.fill(column, lines.field(*index)) => {}
                None if column.nullable => to.fill_nulls(lines.len()),
                _ => return false,
            }
        }
        let Some(operations) = layout.operation.map(|index| lines.field(index)) else {
            if !self.weights.is_empty() {
                self.weights.resize(self.weights.len() + lines.len(), 1);
            }
            return true;
        };
        let before = self.places.len();
        for (line, operation) in operations.cells().enumerate() {
            let Some(weight) = weight(operation) else { return false };
            self.weigh_row(before + line, weight);
        }
        true
    }

    fn weigh(&mut self, weight: i64) {
        self.weigh_row(self.places.len(), weight);
    }

    /// `row` is the next one.
    fn weigh_row(&mut self, row: usize, weight: i64) {
        if weight != 1 && self.weights.is_empty() {
            self.weights = vec![1; row];
        }
        if weight != 1 || !self.weights.is_empty() {
            self.weights.push(weight);
        }
    }

    /// The rows by partition; partitions without rows are absent.
    pub fn finish(self) -> Vec<Part> {
        let Self { table, columns, places, changes, weights, .. } = self;
        let spread = places.spread();
        // A column is given back before the next is distributed.
        let columns = columns.into_iter().zip(&table.columns);
        let columns: Vec<_> = columns.map(|(rows, column)| rows.spread(column.kind, &spread)).collect();
        let rows = RecordBatch::try_new(table.schema.clone(), columns)
            .expect("columns were made by the schema, one value each per row");
        let weights = spread.values(&weights);
        let part = |(partition, places): (PartitionId, Range<usize>)| {
            let rows = rows.slice(places.start, places.len());
            let weights = weights.get(places).unwrap_or_default();
            part(&table, partition, rows, weights, changes[usize::from(partition.0)])
        };
        spread.parts().map(part).collect()
    }
}

fn part(table: &Table, partition: PartitionId, rows: RecordBatch, weights: &[i64], changes: u64) -> Part {
    let hours = hours(rows.column(table.time));
    let weighted = weights.iter().any(|weight| *weight != 1);
    let rows = match weighted {
        false => rows,
        true => {
            let mut columns = rows.columns().to_vec();
            columns.push(Arc::new(Int64Array::from(weights.to_vec())));
            RecordBatch::try_new(body_schema(table, true, false), columns).expect("one weight per row")
        }
    };
    Part { partition, rows, weighted, changes, hours }
}
