//! Takes back what was counted of a source's incarnation beyond a position: the same rows with the opposite weights. Pure.
//!
//! A snapshot's rows cannot be read a second time as they were, nor those of a log under the positions of another server's. So
//! what counts of them is what stands in mq before an empty batch over all positions from there on: once that is there, nothing
//! that comes later counts. The rows before it are read back, in the order of mq as gates read it, and published again taken
//! away, under a source of their own, which shows as a gap until what replaces the rows is there. Doing it again gives the same
//! rows at the same positions.
//!
//! Invariant: a row that counted is taken away once; one that did not is not.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Decimal128Type, Int64Type};
use bytes::Bytes;

use super::place::LAST_POSITION;
use crate::model::applied::{Admission, Progress};
use crate::model::batch::{Batch, BatchHeader};
use crate::model::codec::CodecError;
use crate::model::id::SourceId;
use crate::model::position::{Position, Span};
use crate::model::rows::{Compression, body_schema, decode_rows, encode_rows};
use crate::model::schema::Table;

/// A snapshot is not whole before this span, which is published last: until then it shows as a gap.
pub const LAST: Span = Span { from: Position::ZERO, to: Position(1) };
/// Published first, so that there is something behind the gap.
pub const FIRST: Span = Span { from: Position(1), to: Position(2) };
/// All that an incarnation may ever have: an owner that does not know yet that it lost the source may go on to the log.
pub const WHOLE: Span = Span { from: Position::ZERO, to: LAST_POSITION };

/// All that an incarnation may have beyond a position.
pub fn beyond(from: Position) -> Span {
    Span::new(from, LAST_POSITION)
}

/// Reads one partition of a table back.
pub struct TakingBack {
    table: Arc<Table>,
    /// The one whose rows are taken back, and the one that takes them away.
    source: SourceId,
    back: SourceId,
    closing: Span,
    counted: Progress,
    is_closed: bool,
}

impl TakingBack {
    /// What lies up to `from` stays.
    pub fn new(table: Arc<Table>, source: SourceId, back: SourceId, from: Position) -> Self {
        let mut counted = Progress::default();
        counted.add(Span::new(Position::ZERO, from), 0);
        Self { table, source, back, closing: beyond(from), counted, is_closed: false }
    }

    /// Was the batch met that ends it?
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// An empty batch of the one, or of the other that takes away.
    pub fn empty(&self, span: Span, of_back: bool, at_ms: i64) -> Batch {
        let source = if of_back { &self.back } else { &self.source };
        Batch { header: self.header(source, span, at_ms), body: Bytes::new() }
    }

    fn header(&self, source: &SourceId, span: Span, at_ms: i64) -> BatchHeader {
        BatchHeader {
            source: source.clone(),
            span,
            table: self.table.name.clone(),
            schema: self.table.fingerprint,
            rows: 0,
            weighted: true,
            positioned: true,
            at_ms,
            hours: None,
        }
    }

    /// The next batch of the partition in mq, whatever it is; what is to be published for it.
    pub fn read(&mut self, batch: &Batch) -> Result<Vec<Batch>, CodecError> {
        let header = &batch.header;
        if header.source != self.source || self.is_closed {
            return Ok(Vec::new());
        }
        if header.span == self.closing {
            self.is_closed = true;
            return Ok(Vec::new());
        }
        let new = match self.counted.admit(header.span) {
            Admission::None => return Ok(Vec::new()),
            Admission::All => vec![header.span],
            Admission::Some(spans) => spans,
        };
        self.counted.add(header.span, 0);
        if header.rows == 0 {
            return Ok(Vec::new());
        }
        if header.schema != self.table.fingerprint {
            let reason = "the table's columns are not those any more that the rows were published with";
            return Err(CodecError::malformed("batch", reason));
        }
        let schema = body_schema(&self.table, header.weighted, header.positioned);
        let rows = decode_rows(&schema, &batch.body)?;
        Ok(new.into_iter().filter_map(|span| self.taken_away(batch, &rows, span)).collect())
    }

    fn taken_away(&self, batch: &Batch, rows: &RecordBatch, span: Span) -> Option<Batch> {
        let last = rows.num_columns() - 1;
        let positions = rows.column(last).as_primitive::<Decimal128Type>();
        let inside: BooleanArray = positions
            .iter()
            .map(|position| position.map(|position| span.contains(Position(position as u128))))
            .collect();
        let rows = filter_record_batch(rows, &inside).expect("one mark per row");
        if rows.num_rows() == 0 {
            return None;
        }
        let mut columns = rows.columns().to_vec();
        let weights = columns[last - 1].as_primitive::<Int64Type>();
        columns[last - 1] = Arc::new(Int64Array::from_iter_values(weights.values().iter().map(|weight| -weight)));
        let rows = RecordBatch::try_new(rows.schema(), columns).expect("the same columns");
        let header = BatchHeader {
            rows: rows.num_rows() as u32,
            hours: batch.header.hours,
            ..self.header(&self.back, span, batch.header.at_ms)
        };
        Some(Batch { header, body: encode_rows(&rows, Compression::Lz4).into() })
    }
}

#[cfg(test)]
#[path = "taking_back_tests.rs"]
mod tests;
