//! Publishes the rows that a source has before its log is followed, and takes back what an interrupted attempt had published.
//!
//! Invariant: until all rows of a snapshot are in mq it shows as a gap, so that nobody takes a part for the whole.

use mysql_async::Conn;

use super::capture_service::{CaptureParts, Captured, Worker, of_tier};
use super::checkpoint::{Checkpoint, LogCheckpoint, Stage, source_id, taking_back_id};
use super::following_service::{Following, log_tables, tiling};
use super::mapping::LogTable;
use super::mysql;
use super::mysql_snapshot as rows_of;
use super::publishing_service::Publisher;
use super::server::Facts;
use super::standing::Work;
use super::stop::{Stop, Trouble};
use super::taking_back::{FIRST, LAST, TakingBack, WHOLE};
use super::tiling::{Outgoing, Tiling};
use crate::metrics::SourceLabel;
use crate::model::id::PartitionId;
use crate::model::position::Position;

fn partitions(parts: &CaptureParts) -> impl Iterator<Item = PartitionId> + use<> {
    (0..parts.partitions).map(PartitionId)
}

/// Publishes what is there, if that is wanted, and goes on with the log.
pub async fn snapshot(worker: &mut Worker) -> Result<Work, Trouble> {
    let mut conn = worker.door.connect().await?;
    let facts = worker.check(&mut conn).await?;
    let incarnation = worker.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.incarnation) + 1;
    let server = facts.identity();
    let log = if worker.parts.source.snapshot {
        publish_rows(worker, &mut conn, &facts, incarnation).await?
    } else {
        let at_ms = worker.parts.clock.now_ms();
        let (log, place) = mysql::log_end(&worker.door, &mut conn, facts.log_end_query()).await?;
        let tables = worker.defined(&mut conn).await?;
        LogCheckpoint { log, position: place.position(), at_ms, resume: place, passed: Position::ZERO, tables }
    };
    let checkpoint = Checkpoint { server, incarnation, stage: Stage::Log(log.clone()) };
    let mut following = Following::new(worker, &checkpoint, &log)?;
    if !worker.parts.source.snapshot {
        // Nothing before counts, and that is no gap.
        following.tiling = tiling(&worker.parts, incarnation, Position::ZERO);
        let whole =
            following.tiling.cut(worker.parts.clock.now_ms(), log.position, log.at_ms, no_rows(&worker.parts), true);
        publish(&mut following.publisher, whole).await;
        following.publisher.drain().await;
    }
    save(worker, checkpoint).await?;
    worker.following = Some(following);
    worker.went_well = true;
    Ok(Work::Follow)
}

fn no_rows(parts: &CaptureParts) -> Vec<Vec<super::weighing::Part>> {
    parts.tables.iter().map(|_| Vec::new()).collect()
}

async fn save(worker: &mut Worker, checkpoint: Checkpoint) -> Result<(), Trouble> {
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
    incarnation: u64,
) -> Result<LogCheckpoint, Trouble> {
    let mut mq_from = Vec::new();
    for partition in partitions(&worker.parts) {
        mq_from.push(worker.parts.mq.read(partition, 0, 1).await.map_err(of_tier)?.end);
    }
    // Before anything is published: whoever comes next must know what to take back.
    save(worker, Checkpoint { server: facts.identity(), incarnation, stage: Stage::Snapshot { mq_from } }).await?;
    let at_ms = worker.parts.clock.now_ms();
    let (log, place) = rows_of::begin(&worker.door, conn, facts, &worker.parts.settings).await?;
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
    for index in 0..tables.len() {
        snapshot.table(worker, conn, &mut tables, index).await?;
    }
    let now_ms = worker.parts.clock.now_ms();
    let rest = snapshot.tiling.cut(now_ms, place.position(), at_ms, no_rows(&worker.parts), true);
    publish(&mut snapshot.publisher, rest).await;
    snapshot.publisher.drain().await;
    let last = snapshot.tiling.empty(LAST, at_ms);
    publish(&mut snapshot.publisher, last).await;
    snapshot.publisher.drain().await;
    Ok(LogCheckpoint { log, position: place.position(), at_ms, resume: place, passed: Position::ZERO, tables: defined })
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

/// Takes an interrupted snapshot back; see `taking_back`. Another snapshot follows.
pub async fn take_back(worker: &mut Worker) -> Result<Work, Trouble> {
    let Some(Checkpoint { incarnation, stage: Stage::Snapshot { mq_from }, .. }) = worker.checkpoint.clone() else {
        return Ok(Work::Snapshot);
    };
    if worker.taken_back == Some(incarnation) {
        // Only the attempt after it failed before it began.
        return Ok(Work::Snapshot);
    }
    let parts = &worker.parts;
    let at_ms = parts.clock.now_ms();
    let backs = |captured: &Captured| {
        let (name, table) = (&parts.source.name, captured.source());
        TakingBack::new(
            captured.table.clone(),
            source_id(name, &table, incarnation),
            taking_back_id(name, &table, incarnation),
        )
    };
    let fresh = || parts.tables.iter().map(backs).collect::<Vec<_>>();
    let mut publisher = Publisher::new(parts.mq.clone(), parts.settings.clone());
    // A gap shows from here on, until all is taken back; then nothing more of the interrupted one counts.
    for (span, of_back) in [(FIRST, true), (WHOLE, false)] {
        everywhere(parts, &mut publisher, &fresh(), span, of_back, at_ms).await;
    }
    for (partition, from) in partitions(parts).zip(mq_from) {
        let mut backs = fresh();
        let mut offset = from;
        while !backs.iter().all(TakingBack::is_closed) {
            let read = parts.mq.read(partition, offset, parts.settings.read_bytes.bytes()).await.map_err(of_tier)?;
            if read.low > offset {
                let reason = format!("mq forgot what an interrupted snapshot had published in partition {partition}");
                return Err(Stop::unreadable(
                    reason,
                    "capture it under a new source's name, and the metrics' tables anew",
                )
                .into());
            }
            let next = read.batches.last().map(|(offset, _)| offset + 1);
            // The batches that end it were acknowledged, so they are there.
            offset = next.ok_or_else(|| Trouble::Failed("mq does not give what it acknowledged".into()))?;
            for (_, batch) in &read.batches {
                for (table, back) in backs.iter_mut().enumerate() {
                    let damaged =
                        |error| Stop::unreadable(format!("{error}"), "the snapshot in mq cannot be read back");
                    let batches = back.read(batch).map_err(damaged)?;
                    publish(
                        &mut publisher,
                        batches.into_iter().map(|batch| Outgoing { table, partition, batch }).collect(),
                    )
                    .await;
                }
            }
        }
    }
    publisher.drain().await;
    everywhere(parts, &mut publisher, &fresh(), WHOLE, true, at_ms).await;
    worker.taken_back = Some(incarnation);
    Ok(Work::Snapshot)
}

/// Publishes an empty batch in every partition, and waits until it is there.
async fn everywhere(
    parts: &CaptureParts,
    publisher: &mut Publisher,
    backs: &[TakingBack],
    span: crate::model::position::Span,
    of_back: bool,
    at_ms: i64,
) {
    for (table, back) in backs.iter().enumerate() {
        for partition in partitions(parts) {
            publisher.publish(Outgoing { table, partition, batch: back.empty(span, of_back, at_ms) }).await;
        }
    }
    publisher.drain().await;
}
