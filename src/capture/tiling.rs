//! Makes batches whose spans tile each partition of each table. Pure.
//!
//! Invariant: the span of a batch begins where the one before it in its partition ended;
//! partitions without changes are told now and then how far the source is.

use std::sync::Arc;

use bytes::Bytes;

use super::weighing::Part;
use crate::model::batch::{Batch, BatchHeader};
use crate::model::id::{PartitionId, SourceId};
use crate::model::position::{Position, Span};
use crate::model::rows::{Compression, encode_rows};
use crate::model::schema::Table;

/// A batch for mq.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Index of the source's table.
    pub table: usize,
    pub partition: PartitionId,
    pub batch: Batch,
}

/// What was sent of each table.
#[derive(Debug)]
struct Sent {
    source: SourceId,
    table: Arc<Table>,
    /// By partition.
    to: Vec<Position>,
}

/// The spans of one source.
#[derive(Debug)]
pub struct Tiling {
    tables: Vec<Sent>,
    heartbeat_ms: i64,
    beat_ms: i64,
}

impl Tiling {
    /// All that lies up to `from` was sent before.
    pub fn new(tables: Vec<(SourceId, Arc<Table>)>, partitions: u16, from: Position, heartbeat_ms: i64) -> Self {
        let sent = |(source, table)| Sent { source, table, to: vec![from; usize::from(partitions)] };
        Self { tables: tables.into_iter().map(sent).collect(), heartbeat_ms, beat_ms: i64::MIN }
    }

    /// Is it time to tell partitions without changes how far the source is?
    pub fn is_due(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.beat_ms) >= self.heartbeat_ms
    }

    /// The batches of all rows up to `to`, by table; every change that the source had before `at_ms` is in them or in
    /// earlier ones. With `all` no partition is left out.
    pub fn cut(&mut self, now_ms: i64, to: Position, at_ms: i64, parts: Vec<Vec<Part>>, all: bool) -> Vec<Outgoing> {
        let beats = all || self.is_due(now_ms);
        if beats {
            self.beat_ms = now_ms;
        }
        let mut outgoing = Vec::new();
        for (index, (sent, parts)) in self.tables.iter_mut().zip(parts).enumerate() {
            for part in parts {
                let span = sent.advance(part.partition, to).expect("rows lie beyond what was sent before");
                outgoing.push(Outgoing {
                    table: index,
                    partition: part.partition,
                    batch: sent.batch(span, at_ms, Some(&part)),
                });
            }
            if !beats {
                continue;
            }
            for partition in (0..sent.to.len() as u16).map(PartitionId) {
                if let Some(span) = sent.advance(partition, to) {
                    outgoing.push(Outgoing { table: index, partition, batch: sent.batch(span, at_ms, None) });
                }
            }
        }
        outgoing
    }

    /// An empty batch with this span for every table and partition, beside what tiles.
    pub fn empty(&self, span: Span, at_ms: i64) -> Vec<Outgoing> {
        let of_table = |(index, sent): (usize, &Sent)| {
            let batch = sent.batch(span, at_ms, None);
            let outgoing =
                move |partition| Outgoing { table: index, partition: PartitionId(partition), batch: batch.clone() };
            (0..sent.to.len() as u16).map(outgoing).collect::<Vec<_>>()
        };
        self.tables.iter().enumerate().flat_map(of_table).collect()
    }
}

impl Sent {
    fn advance(&mut self, partition: PartitionId, to: Position) -> Option<Span> {
        let sent = &mut self.to[usize::from(partition.0)];
        let span = (*sent < to).then(|| Span::new(*sent, to));
        *sent = to.max(*sent);
        span
    }

    fn batch(&self, span: Span, at_ms: i64, part: Option<&Part>) -> Batch {
        let header = BatchHeader {
            source: self.source.clone(),
            span,
            table: self.table.name.clone(),
            schema: self.table.fingerprint,
            rows: part.map_or(0, |part| part.rows.num_rows() as u32),
            weighted: true,
            positioned: true,
            at_ms,
            hours: part.and_then(|part| part.hours),
        };
        let body = part.map_or_else(Bytes::new, |part| encode_rows(&part.rows, Compression::Lz4).into());
        Batch { header, body }
    }
}

#[cfg(test)]
#[path = "tiling_tests.rs"]
mod tests;
