//! Reads a source's log from a server: events in, and in turns all that has to be done beside it.
//!
//! Invariant: what was read stays read when a connection is lost; a stop first publishes and saves all that stands before it.

use std::time::Duration;

use mysql_async::Conn;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::capture_service::CaptureParts;
use super::checkpoint::{DefinedTable, Stage};
use super::following_service::{Following, Mark};
use super::gtid::Gtids;
use super::log::Log;
use super::moving_service;
use super::mysql::{self, Door, LogEnd};
use super::mysql_log::{self, LogEvent, LogStream};
use super::server;
use super::source_service::{Worker, ending};
use super::standing::Work;
use super::stop::{Stop, StopKind, Trouble};
use crate::clock::{Clock, instant};
use crate::tier::TierError;

/// Events that are read before anything else gets its turn.
const MOST_EVENTS: usize = 512;

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
                    Ok(end) => told.send_replace(Some((now_ms, end.place))),
                    // The stream's own connection tells what is wrong.
                    Err(_) => return,
                };
                tokio::time::sleep(every).await;
            }
        });
        Self { marks, _asking: asking }
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
        if !matches!(result, Ok(Work::Move) | Err(Trouble::Stop(_))) {
            self.following = Some(following);
            return result;
        }
        if following.log.is_whole() {
            following.flush(&self.parts, true).await;
        }
        following.settle(self).await;
        // What comes next begins with the checkpoint.
        self.load_again().await;
        if result == Ok(Work::Move) {
            moving_service::begin(self).await?;
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

    pub async fn load_again(&mut self) {
        // Without an answer it is the one that this began with, which costs time only.
        if let Ok(Some(checkpoint)) = self.parts.checkpoints.load(&self.parts.source.name, self.parts.epoch).await {
            self.checkpoint = Some(checkpoint);
        }
    }

    async fn follow_log(&mut self, following: &mut Following) -> Result<Work, Trouble> {
        let Some((mut stream, ruler)) = self.connect(following).await? else { return Ok(Work::Move) };
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
                        heard = instant();
                    }
                }
            }
        }
    }

    /// Checks the server, and asks it for the log; `None`: it is another one, and has the same transactions by their names.
    async fn connect(&self, following: &Following) -> Result<Option<(LogStream, Ruler)>, Trouble> {
        let mut conn = self.door.connect().await?;
        let facts = self.check(&mut conn).await?;
        if facts.identity() != following.server {
            if following.log.gtids().is_some() {
                return Ok(None);
            }
            let (known, found) = (&following.server, facts.identity());
            let reason = format!(
                "the source was read from the server {known}, whose transactions have no GTIDs, and the url leads to {found}"
            );
            let way_out = "positions of another server's log mean nothing: lead the url back, or capture under a new source's name";
            return Err(Stop::new(StopKind::Server, reason, way_out).into());
        }
        let (log, place) = (following.log.log(), following.log.resume());
        mysql::check_kept(&self.door, &mut conn, log, place).await?;
        let settings = &self.parts.settings;
        let ruler = Ruler::start(&self.door, conn, facts.log_end_query(), &self.parts.clock, settings.flush.duration());
        let conn = self.door.connect().await?;
        let stream = mysql_log::open(&self.door, conn, self.parts.source.server_id(), (log, place), settings).await?;
        Ok(Some((stream, ruler)))
    }

    /// Is the server set up for it?
    pub async fn check(&self, conn: &mut Conn) -> Result<server::Facts, Trouble> {
        let tables: Vec<_> =
            self.parts.tables.iter().map(|table| (table.database.clone(), table.name.clone())).collect();
        let facts = mysql::facts(&self.door, conn, &tables).await?;
        server::check(&facts, self.parts.source.server_id(), self.parts.settings.log_kept)?;
        Ok(facts)
    }

    /// The transactions before a place. Without an answer the source is read all the same, from this server only.
    pub async fn gtids(&self, facts: &server::Facts, end: &LogEnd) -> Option<Gtids> {
        let asked = async {
            // The server may have to read much; the connection that the snapshot is read by must not be lost over it.
            let mut conn = self.door.connect().await?;
            mysql::gtids(&self.door, &mut conn, facts, end).await
        };
        asked.await.unwrap_or_else(|trouble: Trouble| {
            warn!(source = self.parts.source.name, ?trouble, "the server did not say which GTIDs stand in its log");
            None
        })
    }

    /// How the tables are defined now.
    pub async fn defined(&self, conn: &mut Conn) -> Result<Vec<DefinedTable>, Trouble> {
        let mut defined = Vec::new();
        for table in &self.parts.tables {
            let columns = mysql::columns(&self.door, conn, &table.database, &table.name).await?;
            let columns = columns.iter().map(|column| column.kept(&table.table)).collect();
            defined.push(DefinedTable { source: table.source(), columns });
        }
        Ok(defined)
    }
}

/// Reads an event, and those that are there already.
fn read(
    stream: &mut LogStream,
    first: Result<LogEvent, Trouble>,
    log: &mut Log,
    parts: &CaptureParts,
) -> Result<(), Trouble> {
    let is_full =
        |log: &Log| log.rows() >= parts.settings.batch_rows || log.bytes() >= parts.settings.batch_bytes.bytes();
    log.read(&first?.event())?;
    // Nothing is taken from the stream that is not read here.
    for _ in 1..MOST_EVENTS {
        if is_full(log) {
            break;
        }
        let Some(next) = stream.next_now() else { break };
        log.read(&next?.event())?;
    }
    Ok(())
}
