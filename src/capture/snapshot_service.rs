//! Publishes the rows that a source has before its log is followed, and takes back what an interrupted attempt had published.
//!
//! Invariant: until all rows of a snapshot are in mq it shows as a gap, so that nobody takes a part for the whole.

use mysql_async::Conn;

use super::capture_service::{CaptureParts, Captured};
use super::checkpoint::{Checkpoint, LogCheckpoint, Stage};
use super::following_service::{Following, log_tables, tiling};
use super::mapping::LogTable;
use super::mysql;
use super::mysql_snapshot as rows_of;
use super::publishing_service::Publisher;
use super::server::Facts;
use super::source_service::{Worker, of_tier};
use super::standing::Work;
use super::stop::{Stop, Trouble};
use super::taking_back::{FIRST, LAST};
use super::taking_back_service::{self, partitions};
use super::tiling::{Outgoing, Tiling};
use crate::metrics::SourceLabel;
use crate::model::position::Position;
use crate::mq::Offset;

/// One attempt at a snapshot.
struct Attempt {
    incarnation: u64,
    /// Incarnations before it that show as gaps.
    open: Vec<u64>,
    /// By partition: where mq ended before it.
    mq_from: Vec<Offset>,
}

/// Publishes what is there, if that is wanted, and goes on with the log.
pub async fn snapshot(worker: &mut Worker) -> Result<Work, Trouble> {
    let mut conn = worker.door.connect().await?;
    let facts = worker.check(&mut conn).await?;
    // Are the tables there? Before anything is noted.
    worker.defined(&mut conn).await?;
    let (before, mut open) = match worker.checkpoint.take() {
        Some(Checkpoint { incarnation, open, .. }) => (incarnation, open),
        None => (0, Vec::new()),
    };
    if before > 0 {
        open.push(before);
    }
    let mut mq_from = Vec::new();
    for partition in partitions(&worker.parts) {
        mq_from.push(worker.parts.mq.read(partition, 0, 1).await.map_err(of_tier)?.end);
    }
    // Before anything is published: whoever comes next must know what to take back, and use another incarnation.
    let (server, incarnation) = (facts.identity(), before + 1);
    let stage = Stage::Snapshot { mq_from: mq_from.clone() };
    save(worker, Checkpoint { server: server.clone(), incarnation, stage, open: open.clone() }).await?;
    let attempt = Attempt { incarnation, open, mq_from };
    let log = if worker.parts.source.snapshot {
        publish_rows(worker, &mut conn, &facts, attempt).await?
    } else {
        publish_nothing(worker, &mut conn, &facts, attempt).await?
    };
    let checkpoint = Checkpoint { server, incarnation, stage: Stage::Log(log.clone()), open: Vec::new() };
    let following = Following::new(worker, &checkpoint, &log)?;
    save(worker, checkpoint).await?;
    worker.following = Some(following);
    worker.went_well = true;
    Ok(Work::Follow)
}

/// Nothing of what is there counts, and that is no gap.
async fn publish_nothing(
    worker: &Worker,
    conn: &mut Conn,
    facts: &Facts,
    attempt: Attempt,
) -> Result<LogCheckpoint, Trouble> {
    let Attempt { incarnation, open, mq_from } = attempt;
    let at_ms = worker.parts.clock.now_ms();
    let end = mysql::log_end(&worker.door, conn, facts.log_end_query()).await?;
    let gtids = worker.gtids(facts, &end).await;
    let tables = worker.defined(conn).await?;
    let (position, resume) = (end.place.position(), end.place);
    publish_empty(&worker.parts, incarnation, position, at_ms).await;
    taking_back_service::close(&worker.parts, &open).await;
    Ok(LogCheckpoint { log: end.log, position, at_ms, resume, passed: Position::ZERO, tables, gtids, mq_from })
}

/// Says that the incarnation has no rows up to a position, and waits until mq has it.
pub async fn publish_empty(parts: &CaptureParts, incarnation: u64, to: Position, at_ms: i64) {
    let mut publisher = Publisher::new(parts.mq.clone(), parts.settings.clone());
    let mut tiling = tiling(parts, incarnation, Position::ZERO);
    publish(&mut publisher, tiling.cut(parts.clock.now_ms(), to, at_ms, no_rows(parts), true)).await;
    publisher.drain().await;
}

fn no_rows(parts: &CaptureParts) -> Vec<Vec<super::weighing::Part>> {
    parts.tables.iter().map(|_| Vec::new()).collect()
}

pub async fn save(worker: &mut Worker, checkpoint: Checkpoint) -> Result<(), Trouble> {
    let CaptureParts { source, epoch, checkpoints, .. } = &worker.parts;
    checkpoints.save(&source.name, *epoch, checkpoint.clone()).await.map_err(of_tier)?;
    worker.checkpoint = Some(checkpoint);
    Ok(())
}

async fn publish(publisher: &mut Publisher, batches: Vec<Outgoing>) {
    for batch in batches {
        publisher.publish(batch).await;
    }
}

async fn publish_rows(
    worker: &mut Worker,
    conn: &mut Conn,
    facts: &Facts,
    attempt: Attempt,
) -> Result<LogCheckpoint, Trouble> {
    let Attempt { incarnation, open, mq_from } = attempt;
    let at_ms = worker.parts.clock.now_ms();
    let end = rows_of::begin(&worker.door, conn, facts, &worker.parts.settings).await?;
    let gtids = worker.gtids(facts, &end).await;
    let (position, resume) = (end.place.position(), end.place);
    let defined = worker.defined(conn).await?;
    let columns = |captured: &Captured| {
        let found = defined.iter().find(|table| table.source == captured.source())?;
        Some(found.columns.clone())
    };
    let mut tables = log_tables(worker, columns)?;
    let mut snapshot = Snapshot {
        tiling: tiling(&worker.parts, incarnation, FIRST.to),
        publisher: Publisher::new(worker.parts.mq.clone(), worker.parts.settings.clone()),
        read: FIRST.to,
        at_ms,
    };
    let first = snapshot.tiling.empty(FIRST, at_ms);
    publish(&mut snapshot.publisher, first).await;
    snapshot.publisher.drain().await;
    // From here on it is this one that shows as a gap.
    taking_back_service::close(&worker.parts, &open).await;
    for index in 0..tables.len() {
        snapshot.table(worker, conn, &mut tables, index).await?;
    }
    let now_ms = worker.parts.clock.now_ms();
    let rest = snapshot.tiling.cut(now_ms, position, at_ms, no_rows(&worker.parts), true);
    publish(&mut snapshot.publisher, rest).await;
    snapshot.publisher.drain().await;
    let last = snapshot.tiling.empty(LAST, at_ms);
    publish(&mut snapshot.publisher, last).await;
    snapshot.publisher.drain().await;
    let (log, tables) = (end.log, defined);
    Ok(LogCheckpoint { log, position, at_ms, resume, passed: Position::ZERO, tables, gtids, mq_from })
}

/// A snapshot on its way into mq.
struct Snapshot {
    tiling: Tiling,
    publisher: Publisher,
    /// The position of the last row.
    read: Position,
    at_ms: i64,
}

impl Snapshot {
    async fn table(
        &mut self,
        worker: &Worker,
        conn: &mut Conn,
        tables: &mut [LogTable],
        index: usize,
    ) -> Result<(), Trouble> {
        let (settings, captured) = (&worker.parts.settings, &worker.parts.tables[index]);
        let (source, layout) = (captured.source(), tables[index].layout.clone());
        let mut rows = rows_of::rows(&worker.door, conn, (&captured.database, &captured.name), &layout).await?;
        while let Some(row) = rows.next(&worker.door).await? {
            let cells = rows_of::cells(&row, &layout, &source, &captured.table)?;
            self.read = self.read.plus(1);
            let weighing = &mut tables[index].weighing;
            weighing.push(&layout, &cells, 1, self.read).map_err(|(column, error)| {
                let name = &captured.table.columns[column].name;
                let way_out = format!("change the column's type in [[table]] '{}', or the value", captured.table.name);
                Stop::unreadable(format!("{source}.{name}: {error}"), way_out)
            })?;
            if weighing.rows() >= settings.batch_rows || weighing.bytes() >= settings.batch_bytes.bytes() {
                self.cut(worker, tables).await;
            }
        }
        self.cut(worker, tables).await;
        Ok(())
    }

    async fn cut(&mut self, worker: &Worker, tables: &mut [LogTable]) {
        let rows = tables.iter().map(|table| table.weighing.rows() as u64).sum();
        let label = SourceLabel { source: worker.parts.source.name.clone() };
        worker.parts.metrics.changes_ingested.get_or_create(&label).inc_by(rows);
        worker.report.send_modify(|report| report.changes += rows);
        let parts = tables.iter_mut().map(|table| table.weighing.cut()).collect();
        let batches = self.tiling.cut(worker.parts.clock.now_ms(), self.read, self.at_ms, parts, false);
        publish(&mut self.publisher, batches).await;
        // What has landed needs no place any more.
        while let Some(Some(_)) = futures::FutureExt::now_or_never(self.publisher.next()) {}
    }
}

/// Takes an interrupted snapshot back. Another snapshot follows, and closes the gap that this leaves.
pub async fn take_back(worker: &mut Worker) -> Result<Work, Trouble> {
    let Some(Checkpoint { incarnation, stage: Stage::Snapshot { mq_from }, open, .. }) = worker.checkpoint.clone()
    else {
        return Ok(Work::Snapshot);
    };
    // If only the attempt after it failed before it began, it is done.
    if worker.taken_back != Some(incarnation) {
        taking_back_service::take_back(&worker.parts, incarnation, Position::ZERO, &mq_from).await?;
        // It shows as a gap from here on; those before it need not any more.
        taking_back_service::close(&worker.parts, &open).await;
        worker.taken_back = Some(incarnation);
    }
    worker.checkpoint.iter_mut().for_each(|checkpoint| checkpoint.open.clear());
    Ok(Work::Snapshot)
}
