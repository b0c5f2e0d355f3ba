//! Goes on with the log of another server that has the same transactions: the url leads to a replica now, which was promoted.
//!
//! What was counted beyond the last whole transaction of the checkpoint is taken back, and read again from the new server, under a
//! new incarnation, since positions there are others.
//!
//! Invariant: nothing is taken back before the new server has shown that it has all transactions that stay counted, and no other
//! before them; the partitions show a gap until what the new server has was read.

use mysql_async::Conn;

use super::checkpoint::{Checkpoint, LogCheckpoint, Stage};
use super::finding::{Finding, Found};
use super::gtid::Gtids;
use super::mysql::{self, LogEnd};
use super::mysql_log;
use super::place::Place;
use super::snapshot_service::{publish_empty, save};
use super::source_service::Worker;
use super::standing::Work;
use super::stop::{Stop, Trouble};
use super::taking_back_service::{close, take_back};
use crate::model::position::Position;

/// Notes that the source moves.
pub async fn begin(worker: &mut Worker) -> Result<(), Trouble> {
    let Some(Checkpoint { server, incarnation, stage: Stage::Log(log), open }) = worker.checkpoint.clone() else {
        return Err(Trouble::Failed("there is no checkpoint in the log".into()));
    };
    let stage = Stage::Moving { from: incarnation, log };
    save(worker, Checkpoint { server, incarnation, stage, open }).await
}

/// Finds the place on the server that the url leads to, and takes back what is read again from there on.
pub async fn move_over(worker: &mut Worker) -> Result<Work, Trouble> {
    let Some(Checkpoint { server, incarnation, stage: Stage::Moving { from, log }, open }) = worker.checkpoint.clone()
    else {
        return Ok(Work::Load);
    };
    let mut conn = worker.door.connect().await?;
    let facts = worker.check(&mut conn).await?;
    let gtids = log.gtids.clone().ok_or_else(|| Trouble::Failed("the checkpoint has no GTIDs".into()))?;
    let end = mysql::log_end(&worker.door, &mut conn, facts.log_end_query()).await?;
    let place = find(worker, &mut conn, &end, &gtids).await?;
    let incarnation = incarnation + 1;
    // Before anything is published: whoever comes next must use another incarnation.
    let stage = Stage::Moving { from, log: log.clone() };
    save(worker, Checkpoint { server, incarnation, stage, open: open.clone() }).await?;
    take_back(&worker.parts, from, log.resume.position(), &log.mq_from).await?;
    // It shows as a gap from here on; those before it need not any more.
    let before: Vec<u64> = open.into_iter().filter(|incarnation| *incarnation != from).collect();
    close(&worker.parts, &before).await;
    publish_empty(&worker.parts, incarnation, place.position(), log.at_ms).await;
    let (position, passed) = (place.position(), Position::ZERO);
    let log = LogCheckpoint { log: end.log, position, resume: place, passed, ..log };
    save(worker, Checkpoint { server: facts.identity(), incarnation, stage: Stage::Log(log), open: vec![from] })
        .await?;
    (worker.following, worker.went_well) = (None, true);
    Ok(Work::Follow)
}

/// The place in the server's log after these transactions.
async fn find(worker: &Worker, conn: &mut Conn, end: &LogEnd, read: &Gtids) -> Result<Place, Trouble> {
    let files = mysql::files(&worker.door, conn, &end.log).await?;
    for file in files.iter().rev() {
        if let Found::At(place) = look(worker, end, file.file, read).await? {
            return Ok(place);
        }
    }
    let reason = format!("the server purged its log beyond {read}, up to where the source was read on another server");
    Err(Stop::unreadable(reason, "lead the url to a server that still has it, or capture under a new source's name")
        .into())
}

/// What one file of the log, and those after it, have to say.
async fn look(worker: &Worker, end: &LogEnd, file: u32, read: &Gtids) -> Result<Found, Trouble> {
    let (settings, door) = (&worker.parts.settings, &worker.door);
    let begin = (&end.log, Place::new(file, 4));
    let conn = door.connect().await?;
    let mut stream = mysql_log::open(door, conn, worker.parts.source.server_id(), begin, settings).await?;
    let mut finding = Finding::new(end.log.clone(), read.clone(), file, end.place);
    loop {
        let event = tokio::time::timeout(settings.silence.duration(), stream.next()).await;
        let event = event.map_err(|_| Trouble::Failed("the server is silent".into()))??;
        if let Some(found) = finding.read(&event.event())? {
            stream.close(door).await;
            return Ok(found);
        }
    }
}
