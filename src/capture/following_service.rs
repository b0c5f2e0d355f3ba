//! Follows a source's log: events in, batches out, acknowledgements into the checkpoint.
//!
//! Invariant: what was read stays read when a connection is lost; a stop first publishes and saves all that stands before it.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::Conn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::acknowledging::{Acknowledging, Cut};
use super::capture_service::{CaptureParts, CaptureReport, Captured, Worker, ending, of_tier};
use super::checkpoint::{Checkpoint, DefinedTable, LogCheckpoint, Stage, source_id};
use super::layout::Layout;
use super::log::{Log, LogTable, Start};
use super::mysql::{self, Door};
use super::mysql_log::{self, LogEvent, LogStream};
use super::place::Place;
use super::publishing_service::{Acknowledged, Publisher};
use super::server;
use super::standing::{Passed, Work};
use super::stop::{Stop, StopKind, Trouble};
use super::tiling::Tiling;
use super::weighing::Weighing;
use crate::clock::{Clock, instant};
use crate::metrics::SourceLabel;
use crate::model::position::Position;
use crate::tier::TierError;

/// Events that are read before anything else gets its turn.
const MOST_EVENTS: usize = 512;

/// A log that is followed, whatever becomes of connections.
pub struct Following {
    pub tiling: Tiling,
    pub acknowledging: Acknowledging,
    pub publisher: Publisher,
    pub log: Log,
    server: String,
    incarnation: u64,
    /// Everything that the source had before was read.
    at_ms: i64,
    /// Where the log ended at a time; not read up to there yet.
    mark: Option<Mark>,
    layouts: Vec<Arc<Layout>>,
    defined: Arc<Vec<DefinedTable>>,
    /// Not told yet.
    changes: u64,
    /// Acknowledged, and not in a checkpoint yet.
    whole: Option<Cut>,
    saving: JoinSet<Result<Position, TierError>>,
    /// The last position that was saved.
    saved: Position,
}

/// At this time the log ended here.
type Mark = (i64, Place);

/// Where the log ends, asked again and again beside the stream.
struct Ruler {
    marks: watch::Receiver<Option<Mark>>,
    _asking: JoinSet<()>,
}

impl Ruler {
    fn start(door: &Door, mut conn: Conn, query: &'static str, clock: &Clock, every: Duration) -> Self {
        let (told, marks) = watch::channel(None);
        let (door, clock) = (door.clone(), clock.clone());
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            loop {
                // Before the question: what is committed by now is in the answer.
                let now_ms = clock.now_ms();
                match mysql::log_end(&door, &mut conn, query).await {
                    Ok((_, place)) => told.send_replace(Some((now_ms, place))),
                    // The stream's own connection tells what is wrong.
                    Err(_) => return,
                };
                tokio::time::sleep(every).await;
            }
        });
        Self { marks, _asking: asking }
    }
}

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
        let start = Start { log: at.log.clone(), place: at.resume, floor: at.position, passed: at.passed };
        Ok(Self {
            tiling: tiling(parts, checkpoint.incarnation, at.position),
            acknowledging: Acknowledging::new(parts.tables.len(), parts.partitions, at.position),
            publisher: Publisher::new(parts.mq.clone(), parts.settings.clone()),
            server: checkpoint.server.clone(),
            incarnation: checkpoint.incarnation,
            at_ms: at.at_ms,
            mark: None,
            layouts: tables.iter().map(|table| table.layout.clone()).collect(),
            defined: Arc::new(at.tables.clone()),
            log: Log::new(start, tables),
            changes: 0,
            whole: None,
            saving: JoinSet::new(),
            saved: at.position,
        })
    }

    fn acknowledged(&mut self, landed: Acknowledged) {
        let Acknowledged { table, partition, span } = landed;
        self.acknowledging.acknowledged(table, partition, span);
    }

    /// Publishes all that was read; with `all`, every partition hears of it.
    async fn flush(&mut self, parts: &CaptureParts, all: bool) {
        let now_ms = parts.clock.now_ms();
        if let Some((at_ms, _)) = self.mark.take_if(|(_, place)| *place <= self.log.place()) {
            self.at_ms = at_ms;
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
        self.acknowledging.cut(Cut { to, at_ms, resume, tables });
        for batch in outgoing {
            self.publisher.publish(batch).await;
        }
    }

    /// How tables are defined now.
    fn define(&mut self) -> Arc<Vec<DefinedTable>> {
        let tables = self.log.tables();
        if !tables.iter().zip(&self.layouts).all(|(table, known)| Arc::ptr_eq(&table.layout, known)) {
            self.layouts = tables.iter().map(|table| table.layout.clone()).collect();
            let defined = |table: &LogTable| DefinedTable {
                source: format!("{}.{}", table.database, table.name),
                columns: table.layout.declared.clone(),
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
        };
        Checkpoint { server: self.server.clone(), incarnation: self.incarnation, stage: Stage::Log(log) }
    }

    /// Begins to save what is acknowledged, unless it is being saved.
    fn save(&mut self, parts: &CaptureParts) {
        self.whole = self.acknowledging.take_whole().or(self.whole.take());
        let is_new = |cut: &mut Cut| self.saving.is_empty() && cut.to > self.saved;
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

    fn tell(&mut self, report: &watch::Sender<CaptureReport>) {
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

impl Worker {
    pub async fn follow(&mut self) -> Result<Work, Trouble> {
        let mut following = match self.following.take() {
            Some(following) => following,
            None => self.at_checkpoint()?,
        };
        following.log.begin_again();
        let mut ended = self.ended.clone();
        let result = tokio::select! {
            biased;
            // What is cut but not published by then is read again by the next owner.
            () = ending(&mut ended) => {
                following.settle(self).await;
                return Err(Trouble::Failed("it was ended".into()));
            }
            result = self.follow_log(&mut following) => result,
        };
        if let Err(Trouble::Stop(_)) = &result {
            if following.log.is_whole() {
                following.flush(&self.parts, true).await;
            }
            following.settle(self).await;
            // What comes next begins with the checkpoint.
            self.load_again().await;
        } else {
            self.following = Some(following);
        }
        result
    }

    fn at_checkpoint(&self) -> Result<Following, Trouble> {
        let checkpoint = self.checkpoint.as_ref();
        match checkpoint.map(|checkpoint| (checkpoint, &checkpoint.stage)) {
            Some((checkpoint, Stage::Log(log))) => Ok(Following::new(self, checkpoint, log)?),
            _ => Err(Trouble::Failed("there is no checkpoint in the log".into())),
        }
    }

    async fn load_again(&mut self) {
        // Without an answer it is the one that this began with, which costs time only.
        if let Ok(Some(checkpoint)) = self.parts.checkpoints.load(&self.parts.source.name, self.parts.epoch).await {
            self.checkpoint = Some(checkpoint);
        }
    }

    async fn follow_log(&mut self, following: &mut Following) -> Result<Work, Trouble> {
        let (mut stream, ruler) = self.connect(following).await?;
        let settings = self.parts.settings.clone();
        let (mut flush, mut save) = (interval(settings.flush.duration()), interval(settings.save.duration()));
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = instant();
        loop {
            tokio::select! {
                biased;
                Some(landed) = following.publisher.next() => following.acknowledged(landed),
                Some(saved) = following.saving.join_next() => match saved {
                    Ok(Err(TierError::Fenced { .. })) => return Err(Trouble::Fenced),
                    // Data go on while nobody keeps checkpoints.
                    Ok(Err(error)) => warn!(source = self.parts.source.name, %error, "the checkpoint was not saved"),
                    Ok(Ok(position)) => following.saved = position,
                    Err(_) => {}
                },
                _ = save.tick() => following.save(&self.parts),
                _ = flush.tick() => {
                    if following.mark.is_none() {
                        following.mark = *ruler.marks.borrow();
                    }
                    if ruler.marks.has_changed().is_err() || heard.elapsed() > settings.silence.duration() {
                        return Err(Trouble::Failed("the server is silent".into()));
                    }
                    let begun = instant();
                    following.flush(&self.parts, false).await;
                    // While mq has no room nobody listens to the server.
                    heard += begun.elapsed();
                    following.tell(&self.report);
                }
                event = stream.next() => {
                    heard = instant();
                    self.went_well = true;
                    read(&mut stream, event, &mut following.log, &self.parts)?;
                    let is_full = following.log.rows() >= settings.batch_rows
                        || following.log.bytes() >= settings.batch_bytes.bytes();
                    if is_full {
                        following.flush(&self.parts, false).await;
                    }
                }
            }
        }
    }

    /// Checks the server, and asks it for the log.
    async fn connect(&self, following: &Following) -> Result<(LogStream, Ruler), Trouble> {
        let mut conn = self.door.connect().await?;
        let facts = self.check(&mut conn).await?;
        if facts.identity() != following.server {
            let (known, found) = (&following.server, facts.identity());
            let reason = format!("the source was read from the server {known}, and the url leads to {found}");
            let way_out = "positions of another server's log mean nothing: lead the url back, or capture under a new source's name";
            return Err(Stop::new(StopKind::Server, reason, way_out).into());
        }
        let (log, place) = (following.log.log(), following.log.resume());
        mysql::check_kept(&self.door, &mut conn, log, place).await?;
        let settings = &self.parts.settings;
        let ruler = Ruler::start(&self.door, conn, facts.log_end_query(), &self.parts.clock, settings.flush.duration());
        let conn = self.door.connect().await?;
        let stream = mysql_log::open(&self.door, conn, self.parts.source.server_id, (log, place), settings).await?;
        Ok((stream, ruler))
    }

    /// Is the server set up for it?
    pub async fn check(&self, conn: &mut Conn) -> Result<server::Facts, Trouble> {
        let tables: Vec<_> =
            self.parts.tables.iter().map(|table| (table.database.clone(), table.name.clone())).collect();
        let facts = mysql::facts(&self.door, conn, &tables).await?;
        server::check(&facts, self.parts.source.server_id, self.parts.settings.log_kept)?;
        Ok(facts)
    }

    /// How the tables are defined now.
    pub async fn defined(&self, conn: &mut Conn) -> Result<Vec<DefinedTable>, Trouble> {
        let mut defined = Vec::new();
        for table in &self.parts.tables {
            let columns = mysql::columns(&self.door, conn, &table.database, &table.name).await?;
            defined.push(DefinedTable { source: table.source(), columns });
        }
        Ok(defined)
    }

    /// Notes what an operator let pass.
    pub async fn pass(&mut self, passed: Passed) -> Result<(), Trouble> {
        self.load_again().await;
        let Some(Checkpoint { server, incarnation, stage: Stage::Log(mut log) }) = self.checkpoint.clone() else {
            return Err(Trouble::Failed("there is no checkpoint in the log".into()));
        };
        let place = match passed {
            Passed::Statement(place) | Passed::Lost(place) | Passed::Purged(place) => place,
        };
        if !matches!(passed, Passed::Purged(_)) && log.position < place.position() {
            return Err(Trouble::Failed("mq does not have all that stands before it yet".into()));
        }
        match passed {
            Passed::Statement(place) => log.passed = place.position(),
            Passed::Lost(place) => {
                // A position that no span ever covers.
                (log.passed, log.position) = (place.position(), place.row(u32::MAX));
            }
            Passed::Purged(place) => (log.resume, log.position) = (place, place.position()),
        }
        let mut conn = self.door.connect().await?;
        log.tables = self.defined(&mut conn).await?;
        let checkpoint = Checkpoint { server, incarnation, stage: Stage::Log(log) };
        let CaptureParts { source, epoch, checkpoints, .. } = &self.parts;
        checkpoints.save(&source.name, *epoch, checkpoint.clone()).await.map_err(of_tier)?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }
}

/// Reads an event, and those that are there already.
fn read(
    stream: &mut LogStream,
    first: Result<LogEvent, Trouble>,
    log: &mut Log,
    parts: &CaptureParts,
) -> Result<(), Trouble> {
    let mut next = first;
    for _ in 0..MOST_EVENTS {
        log.read(&next?.event())?;
        if log.rows() >= parts.settings.batch_rows || log.bytes() >= parts.settings.batch_bytes.bytes() {
            return Ok(());
        }
        match stream.next_now() {
            Some(event) => next = event,
            None => return Ok(()),
        }
    }
    Ok(())
}
