//! A source's log on its way into mq: what was read is cut, published and, once mq has it, noted in the checkpoint.
//!
//! Invariant: a checkpoint stands where mq has acknowledged everything before it; with it go the definitions that held there.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::acknowledging::{Acknowledging, Cut};
use super::capture_service::{CaptureParts, CaptureReport, Captured};
use super::checkpoint::{Checkpoint, DefinedTable, LogCheckpoint, Stage, source_id};
use super::layout::Layout;
use super::log::{Log, Start};
use super::mapping::LogTable;
use super::place::{Place, without_time};
use super::publishing_service::{Acknowledged, Publisher};
use super::retreat::Retreat;
use super::source_service::Worker;
use super::stop::Stop;
use super::taking_back_service::close;
use super::tiling::Tiling;
use super::weighing::Weighing;
use crate::metrics::SourceLabel;
use crate::model::position::Position;
use crate::tier::TierError;

/// A log that is followed, whatever becomes of connections.
pub struct Following {
    pub tiling: Tiling,
    pub acknowledging: Acknowledging,
    pub publisher: Publisher,
    pub log: Log,
    pub server: String,
    pub incarnation: u64,
    /// Everything that the source had before was read.
    at_ms: i64,
    /// Incarnations that show as gaps until something later than `from_ms` was reached.
    open: Vec<u64>,
    from_ms: i64,
    /// Where the log ended at a time; not read up to there yet.
    pub mark: Option<Mark>,
    layouts: Vec<Arc<Layout>>,
    defined: Arc<Vec<DefinedTable>>,
    /// Not told yet.
    changes: u64,
    /// Where rows from beyond a checkpoint begin in mq.
    retreat: Retreat,
    /// Acknowledged, and not in a checkpoint yet.
    whole: Option<Cut>,
    pub saving: JoinSet<Result<Position, TierError>>,
    /// The last position that was saved.
    pub saved: Position,
}

/// At this time the log ended here.
pub type Mark = (i64, Place);

/// The tables of a source with nothing weighed yet.
pub fn log_tables(
    worker: &Worker,
    columns: impl Fn(&Captured) -> Option<Vec<super::meaning::Declared>>,
) -> Result<Vec<LogTable>, Stop> {
    let CaptureParts { tables, partitions, .. } = &worker.parts;
    let table = |captured: &Captured| {
        let source = captured.source();
        let layout = Layout::new(&captured.table, &source, columns(captured).unwrap_or_default())?;
        Ok(LogTable {
            database: captured.database.clone(),
            name: captured.name.clone(),
            layout: Arc::new(layout),
            weighing: Weighing::new(captured.table.clone(), *partitions, worker.zone),
        })
    };
    tables.iter().map(table).collect()
}

/// The spans of a source from a position on.
pub fn tiling(parts: &CaptureParts, incarnation: u64, from: Position) -> Tiling {
    let name =
        |captured: &Captured| (source_id(&parts.source.name, &captured.source(), incarnation), captured.table.clone());
    let tables = parts.tables.iter().map(name).collect();
    Tiling::new(tables, parts.partitions, from, parts.settings.heartbeat.as_i64())
}

impl Following {
    /// Begins where a checkpoint stands.
    pub fn new(worker: &Worker, checkpoint: &Checkpoint, at: &LogCheckpoint) -> Result<Self, Stop> {
        let defined = |captured: &Captured| {
            let known = at.tables.iter().find(|known| known.source == captured.source())?;
            Some(known.columns.clone())
        };
        let tables = log_tables(worker, defined)?;
        let parts = &worker.parts;
        let (place, floor, gtids) = (at.resume, at.position, at.gtids.clone());
        let start = Start { log: at.log.clone(), place, floor, passed: at.passed, gtids };
        Ok(Self {
            tiling: tiling(parts, checkpoint.incarnation, at.position),
            acknowledging: Acknowledging::new(parts.tables.len(), parts.partitions, at.position),
            publisher: Publisher::new(parts.mq.clone(), parts.settings.clone()),
            server: checkpoint.server.clone(),
            incarnation: checkpoint.incarnation,
            at_ms: at.at_ms,
            open: checkpoint.open.clone(),
            from_ms: at.at_ms,
            mark: None,
            layouts: tables.iter().map(|table| table.layout.clone()).collect(),
            defined: Arc::new(at.tables.clone()),
            log: Log::new(start, tables),
            changes: 0,
            retreat: Retreat::new(at.mq_from.clone()),
            whole: None,
            saving: JoinSet::new(),
            saved: at.position,
        })
    }

    pub fn acknowledged(&mut self, landed: Acknowledged) {
        let Acknowledged { table, partition, span, offset } = landed;
        self.retreat.acknowledged(partition, offset);
        self.acknowledging.acknowledged(table, partition, span);
    }

    /// Publishes all that was read; with `all`, every partition hears of it.
    pub async fn flush(&mut self, parts: &CaptureParts, all: bool) {
        let now_ms = parts.clock.now_ms();
        self.retreat.look(now_ms, self.mark);
        if let Some((at_ms, place)) = self.mark.take_if(|(_, place)| *place <= self.log.place()) {
            self.at_ms = at_ms;
            if self.tiling.is_due(now_ms) {
                self.log.quiet(place, at_ms);
            }
        }
        // Not by the times that events have: a session may set what they say.
        let at_ms = self.at_ms;
        let changes = self.log.take_changes();
        self.changes += changes;
        if changes > 0 {
            let label = SourceLabel { source: parts.source.name.clone() };
            parts.metrics.changes_ingested.get_or_create(&label).inc_by(changes);
        }
        let (to, resume) = (self.log.position(), self.log.resume());
        let rows = self.log.cut();
        let outgoing = self.tiling.cut(now_ms, to, at_ms, rows, all);
        let tables = self.define();
        let (gtids, mq_from) = (self.log.gtids().cloned(), self.retreat.at(resume));
        self.acknowledging.cut(Cut { to, at_ms, resume, tables, gtids, mq_from });
        for batch in outgoing {
            self.publisher.publish(batch).await;
        }
        if !self.open.is_empty() && self.at_ms > self.from_ms {
            self.close_gaps(parts).await;
        }
    }

    /// What replaces the rows that were taken back is there.
    async fn close_gaps(&mut self, parts: &CaptureParts) {
        while let Some(landed) = self.publisher.next().await {
            self.acknowledged(landed);
        }
        close(parts, &self.open).await;
        // Not before: a checkpoint that does not name them leaves gaps that were not closed.
        self.open.clear();
    }

    /// How tables are defined now.
    fn define(&mut self) -> Arc<Vec<DefinedTable>> {
        let tables = self.log.tables();
        if !tables.iter().zip(&self.layouts).all(|(table, known)| Arc::ptr_eq(&table.layout, known)) {
            self.layouts = tables.iter().map(|table| table.layout.clone()).collect();
            let defined = |table: &LogTable| DefinedTable {
                source: format!("{}.{}", table.database, table.name),
                columns: table.layout.declared.iter().map(|column| column.kept(table.weighing.table())).collect(),
            };
            self.defined = Arc::new(tables.iter().map(defined).collect());
        }
        self.defined.clone()
    }

    fn checkpoint(&self, cut: &Cut) -> Checkpoint {
        let log = LogCheckpoint {
            log: self.log.log().clone(),
            position: cut.to,
            at_ms: cut.at_ms,
            resume: cut.resume,
            passed: self.log.passed(),
            tables: cut.tables.to_vec(),
            gtids: cut.gtids.clone(),
            mq_from: cut.mq_from.to_vec(),
        };
        let (server, incarnation, open) = (self.server.clone(), self.incarnation, self.open.clone());
        Checkpoint { server, incarnation, stage: Stage::Log(log), open }
    }

    /// Begins to save what is acknowledged, unless it is being saved.
    pub fn save(&mut self, parts: &CaptureParts) {
        self.whole = self.acknowledging.take_whole().or(self.whole.take());
        // That time went by is not worth a checkpoint.
        let is_new = |cut: &mut Cut| self.saving.is_empty() && without_time(cut.to) > without_time(self.saved);
        let Some(cut) = self.whole.take_if(is_new) else { return };
        let (checkpoint, parts) = (self.checkpoint(&cut), parts.clone());
        self.saving.spawn(async move {
            parts.checkpoints.save(&parts.source.name, parts.epoch, checkpoint).await?;
            Ok(cut.to)
        });
    }

    /// Waits until mq has what was handed to it, and saves.
    pub async fn settle(&mut self, worker: &Worker) {
        while let Some(landed) = self.publisher.next().await {
            self.acknowledged(landed);
        }
        while let Some(saved) = self.saving.join_next().await {
            self.saved = saved.ok().and_then(Result::ok).unwrap_or(self.saved);
        }
        self.save(&worker.parts);
        while let Some(saved) = self.saving.join_next().await {
            if let Ok(Err(error)) = saved {
                warn!(source = worker.parts.source.name, %error, "the checkpoint was not saved");
            }
        }
    }

    pub fn tell(&mut self, report: &watch::Sender<CaptureReport>) {
        let changes = std::mem::take(&mut self.changes);
        report.send_modify(|report| {
            report.changes += changes;
            report.position = self.acknowledging.high();
            report.place = self.log.place();
            report.at_ms = self.at_ms;
            report.in_flight = self.publisher.under_way();
        });
    }
}
