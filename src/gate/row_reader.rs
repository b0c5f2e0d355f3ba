//! Reads the rows of one ingest request from slices of its body.
//!
//! Invariant: where the body is cut does not matter; after an error nothing of the request is used; memory is bounded by
//! the limits whatever the body holds.

use std::sync::Arc;

use super::csv_rows::CsvRows;
use super::ndjson_rows::NdjsonRows;
use super::row_error::RowError;
use super::scatter::{Limits, Part, Scatter};
use crate::model::schema::Table;

const BYTE_ORDER_MARK: &[u8; 3] = b"\xef\xbb\xbf";

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Csv,
    Ndjson,
}

/// The rows of a request, by partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parsed {
    pub parts: Vec<Part>,
    /// Changes in the request; an update is one.
    pub changes: u64,
}

enum Rows {
    Csv(CsvRows),
    Ndjson(NdjsonRows),
}

/// Reads one request.
pub struct RowReader {
    scatter: Scatter,
    rows: Rows,
    /// The body's first bytes, until it is clear whether they are a byte order mark.
    start: Option<Vec<u8>>,
}

impl RowReader {
    pub fn new(format: Format, table: Arc<Table>, partitions: u16, limits: Limits) -> Self {
        let rows = match format {
            Format::Csv => Rows::Csv(CsvRows::new(table.clone())),
            Format::Ndjson => Rows::Ndjson(NdjsonRows::new(table.clone())),
        };
        Self { scatter: Scatter::new(table, partitions, limits), rows, start: Some(Vec::new()) }
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, slice: &[u8]) -> Result<(), RowError> {
        let Some(mut start) = self.start.take() else {
            return self.pass(slice);
        };
        let (head, rest) = slice.split_at(slice.len().min(BYTE_ORDER_MARK.len() - start.len()));
        start.extend_from_slice(head);
        if start.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&start) {
            self.start = Some(start);
            return Ok(());
        }
        self.pass(start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start))?;
        self.pass(rest)
    }

    fn pass(&mut self, slice: &[u8]) -> Result<(), RowError> {
        match &mut self.rows {
            Rows::Csv(rows) => rows.feed(slice, &mut self.scatter),
            Rows::Ndjson(rows) => rows.feed(slice, &mut self.scatter),
        }
    }

    /// Bytes of memory that the rows read so far take.
    pub fn memory_bytes(&self) -> usize {
        // Columns grow by doubling: on average a third of their room is empty.
        self.scatter.bytes() / 2 * 3
    }

    /// The body is over.
    pub fn finish(mut self) -> Result<Parsed, RowError> {
        if let Some(start) = self.start.take() {
            self.pass(&start)?;
        }
        match self.rows {
            Rows::Csv(rows) => rows.finish(&mut self.scatter)?,
            Rows::Ndjson(rows) => rows.finish(&mut self.scatter)?,
        }
        let parts = self.scatter.finish();
        Ok(Parsed { changes: parts.iter().map(|part| part.changes).sum(), parts })
    }
}

#[cfg(test)]
#[path = "row_reader_tests.rs"]
pub mod tests;
