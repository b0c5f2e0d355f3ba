//! What a partition has counted: its fold and the `Applied` that says which changes are in it. Pure.
//!
//! Invariant: a change is in the fold exactly when `applied` has its position, so a replayed span counts once (design
//! I3). A batch counts wholly or not at all; what cannot be read is an error, never skipped.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Decimal128Type, Int64Type};
use thiserror::Error;

use super::fold::Fold;
use crate::model::applied::{Admission, Applied};
use crate::model::batch::Batch;
use crate::model::catalog::Catalog;
use crate::model::codec::CodecError;
use crate::model::expr::EvaluationError;
use crate::model::id::SourceId;
use crate::model::position::{Position, Span};
use crate::model::rows::{POSITION, WEIGHT, body_schema, decode_rows};
use crate::model::schema::Table;

/// Why a batch cannot be counted. None of these passes by itself.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CountError {
    #[error("a batch is of table '{table}', which is not defined")]
    UnknownTable { table: Arc<str> },
    #[error("a batch was written with other columns of table '{table}' than are defined now")]
    OtherSchema { table: Arc<str> },
    #[error("a batch of table '{table}' is damaged: {error}")]
    Damaged { table: Arc<str>, error: CodecError },
    #[error("rows of table '{table}' cannot be evaluated: {error}")]
    Evaluation { table: Arc<str>, error: EvaluationError },
}

/// Everything counted of one partition.
#[derive(Debug)]
pub struct Counting {
    pub fold: Fold,
    pub applied: Applied,
    /// The tables of the streams seen, to name what is missing.
    pub tables: BTreeMap<SourceId, Arc<str>>,
    /// Requests last seen until then may have been forgotten, Unix milliseconds.
    pub forgotten_ms: i64,
    /// Requests of chunks read again, of which nobody knows any more whether they were counted.
    pub doubtful: u64,
    /// Rows that were new.
    pub rows: u64,
}

/// How a chunk's batches are to be taken.
#[derive(Debug, Clone, Copy)]
pub struct ChunkView {
    /// When the gate made the chunk, Unix milliseconds. All owners see the same time, whenever they count.
    pub at_ms: i64,
    /// Is the chunk being read again?
    pub again: bool,
}

impl Counting {
    pub fn new(catalog: &Catalog) -> Self {
        Self {
            fold: Fold::new(catalog),
            applied: Applied::default(),
            tables: BTreeMap::new(),
            forgotten_ms: i64::MIN,
            doubtful: 0,
            rows: 0,
        }
    }

    /// Counts what is new in `batch`; gives how many rows that was, `None` if the whole span was counted before.
    pub fn count(&mut self, catalog: &Catalog, batch: &Batch, view: ChunkView) -> Result<Option<u64>, CountError> {
        let header = &batch.header;
        let admission = self.applied.admit(&header.source, header.span);
        if admission == Admission::None {
            return Ok(None);
        }
        if self.is_doubtful(&header.source, view) {
            // Counting it might count it twice, not counting it might lose it: neither passes for exact.
            self.doubtful += 1;
            return Ok(None);
        }
        let new = if header.rows > 0 { self.fold_rows(catalog, batch, &admission)? } else { 0 };
        if matches!(header.source, SourceId::Stream { .. }) && !self.tables.contains_key(&header.source) {
            self.tables.insert(header.source.clone(), header.table.clone());
        }
        self.applied.add(&header.source, header.span, view.at_ms);
        self.rows += new;
        Ok(Some(new))
    }

    fn is_doubtful(&self, source: &SourceId, view: ChunkView) -> bool {
        let unknown_request = matches!(source, SourceId::Request(_)) && self.applied.get(source).is_none();
        view.again && unknown_request && view.at_ms <= self.forgotten_ms
    }

    fn fold_rows(&mut self, catalog: &Catalog, batch: &Batch, admission: &Admission) -> Result<u64, CountError> {
        let header = &batch.header;
        let table = (catalog.tables().iter()).find(|table| table.name == header.table);
        let table = table.ok_or_else(|| CountError::UnknownTable { table: header.table.clone() })?;
        if table.fingerprint != header.schema {
            return Err(CountError::OtherSchema { table: header.table.clone() });
        }
        let rows = decode(table, batch).map_err(|error| CountError::Damaged { table: header.table.clone(), error })?;
        let rows = match admission {
            Admission::Some(spans) => pick(&rows, header.span.from, spans),
            _ => rows,
        };
        let weights = rows.column_by_name(WEIGHT).map(|column| column.as_primitive::<Int64Type>().values().as_ref());
        let failed = |error| CountError::Evaluation { table: header.table.clone(), error };
        self.fold.apply(table, &rows, weights).map_err(failed)?;
        Ok(rows.num_rows() as u64)
    }

    /// Forgets requests last seen before `before_ms`, and the oldest above `most`.
    pub fn forget_requests(&mut self, before_ms: i64, most: usize) -> Vec<SourceId> {
        let seen_ms: Vec<i64> = self.seen_requests().collect();
        let forgotten = self.applied.forget_requests(before_ms, most);
        if let Some(newest) = seen_ms.into_iter().max().filter(|_| !forgotten.is_empty()) {
            // The oldest go first, so none that is gone was seen after the oldest that is left.
            let until = self.seen_requests().min().unwrap_or(newest);
            self.forgotten_ms = self.forgotten_ms.max(until);
        }
        forgotten
    }

    fn seen_requests(&self) -> impl Iterator<Item = i64> {
        let requests = self.applied.iter().filter(|(source, _)| matches!(source, SourceId::Request(_)));
        requests.map(|(_, progress)| progress.seen_ms())
    }
}

fn decode(table: &Table, batch: &Batch) -> Result<RecordBatch, CodecError> {
    let header = &batch.header;
    let rows = decode_rows(&body_schema(table, header.weighted, header.positioned), &batch.body)?;
    if rows.num_rows() != header.rows as usize {
        return Err(CodecError::malformed("rows", format!("{} rows, not {}", rows.num_rows(), header.rows)));
    }
    Ok(rows)
}

/// The rows whose positions lie in `spans`. Without a position column, row `i` stands at `from + 1 + i`.
fn pick(rows: &RecordBatch, from: Position, spans: &[Span]) -> RecordBatch {
    let is_new = |position: Position| spans.iter().any(|span| span.contains(position));
    let mask: BooleanArray = match rows.column_by_name(POSITION) {
        Some(positions) => {
            let positions = positions.as_primitive::<Decimal128Type>().values();
            positions.iter().map(|position| Some(is_new(Position(*position as u128)))).collect()
        }
        None => (0..rows.num_rows() as u64).map(|row| Some(is_new(from.plus(row + 1)))).collect(),
    };
    filter_record_batch(rows, &mask).expect("the mask has one bit for each row")
}

#[cfg(test)]
#[path = "counting_tests.rs"]
mod tests;
