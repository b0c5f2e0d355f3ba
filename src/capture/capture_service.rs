//! One source that is captured: what it takes, how it is told to do something, and what it says of itself.
//!
//! Invariant: all of a source's work is one task's; when it ends, the checkpoint stands at what mq has acknowledged, and nothing
//! beyond it needs to be remembered.

use std::sync::Arc;

use chrono_tz::Tz;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::checkpoint::Checkpoints;
use super::mysql::{self, Door};
use super::mysql_settings::SourceSettings;
use super::place::Place;
use super::server;
use super::settings::Settings;
use super::source_service::supervise;
use super::stop::{Stop, Trouble};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::id::Epoch;
use crate::model::position::Position;
use crate::model::schema::Table;
use crate::model::task::SourceOrder;
use crate::mq::Mq;

/// What a source is captured with.
#[derive(Clone)]
pub struct CaptureParts {
    pub source: SourceSettings,
    pub password: Option<String>,
    pub tables: Vec<Captured>,
    pub settings: Arc<Settings>,
    pub partitions: u16,
    /// Of the task's assignment: checkpoints of lower ones are refused.
    pub epoch: Epoch,
    pub mq: Arc<dyn Mq>,
    pub checkpoints: Arc<dyn Checkpoints>,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// A database's table, and the one that its rows become rows of.
#[derive(Debug, Clone, PartialEq)]
pub struct Captured {
    pub database: String,
    pub name: String,
    pub table: Arc<Table>,
}

impl Captured {
    pub fn source(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }
}

/// The tables of a source; an error is the key that is wrong, and why.
pub fn captured(source: &SourceSettings, catalog: &Catalog) -> Result<Vec<Captured>, (&'static str, String)> {
    let wrong = |reason: String| ("tables", reason);
    let find = |text: &String| {
        let (database, name) = text.split_once('.').ok_or_else(|| wrong(format!("'{text}' is not database.table")))?;
        let table =
            catalog.table(name).ok_or_else(|| wrong(format!("there is no [[table]] named '{name}' for '{text}'")))?;
        Ok(Captured { database: database.to_owned(), name: name.to_owned(), table: table.clone() })
    };
    // Rows that are pushed have this name.
    if source.name.is_empty() || source.name.contains('/') || source.name == "push" {
        return Err(("name", format!("'{}' is none for a source: not empty, not 'push', without '/'", source.name)));
    }
    if source.tables.is_empty() {
        return Err(wrong("none is named".into()));
    }
    if source.datetime_zone.parse::<Tz>().is_err() {
        return Err(("datetime_zone", format!("'{}' is no IANA time zone", source.datetime_zone)));
    }
    let tables: Vec<Captured> = source.tables.iter().map(find).collect::<Result<_, _>>()?;
    match tables
        .iter()
        .enumerate()
        .find(|(index, one)| tables[..*index].iter().any(|other| other.table.name == one.table.name))
    {
        Some((_, twice)) => Err(wrong(format!("two are named '{}'", twice.name))),
        None => Ok(tables),
    }
}

/// Can the server be reached, and is it set up for capture? Gives its kind and version.
pub async fn examine(
    source: &SourceSettings,
    password: Option<&str>,
    tables: &[Captured],
    settings: &Settings,
) -> Result<String, Trouble> {
    let door = Door::new(source, password, settings)?;
    let mut conn = door.connect().await?;
    for Captured { database, name, .. } in tables {
        // Is it there?
        mysql::columns(&door, &mut conn, database, name).await?;
    }
    let tables: Vec<_> = tables.iter().map(|table| (table.database.clone(), table.name.clone())).collect();
    let facts = mysql::facts(&door, &mut conn, &tables).await?;
    server::check(&facts, source.server_id(), settings.log_kept)?;
    Ok(facts.product())
}

/// How a source is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CaptureReport {
    pub source: String,
    /// `loading`, `taking back`, `snapshot`, `following`, `moving`, `pausing`, `stopped` or `ended`.
    pub standing: &'static str,
    /// Why it pauses or is stopped, and what to do.
    pub reason: Option<String>,
    /// Only with `stopped`.
    #[serde(skip)]
    pub stop: Option<Stop>,
    /// Rows read, since this process began.
    pub changes: u64,
    /// Up to where mq has everything.
    #[serde(skip)]
    pub position: Position,
    #[serde(skip)]
    pub place: Place,
    /// Everything that the source had before this time was read (Unix milliseconds).
    pub at_ms: i64,
    /// Batches that mq has not acknowledged.
    pub in_flight: usize,
}

/// A source that runs.
pub struct CaptureHandle {
    orders: mpsc::Sender<SourceOrder>,
    reports: watch::Receiver<CaptureReport>,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl CaptureHandle {
    pub fn report(&self) -> CaptureReport {
        self.reports.borrow().clone()
    }

    pub fn reports(&self) -> watch::Receiver<CaptureReport> {
        self.reports.clone()
    }

    /// Orders what a stopped source is to do; false if too many orders wait.
    pub fn order(&self, order: SourceOrder) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Ends it; what mq has by then is in the checkpoint.
    pub async fn stop(self) {
        self.end.send_replace(true);
        // It ends by itself; a panic was logged.
        let _ = self.task.await;
    }

    /// Ends it as a crash would.
    pub fn kill(self) {
        let Self { task, end, .. } = self;
        task.abort();
        // Not before it is gone: without anybody who could end it, it would end in good order.
        tokio::spawn(async move {
            let _ = task.await;
            drop(end);
        });
    }
}

/// Starts a source on the current runtime.
pub fn start(parts: CaptureParts) -> CaptureHandle {
    let (orders, order) = mpsc::channel(4);
    let (report, reports) =
        watch::channel(CaptureReport { source: parts.source.name.clone(), ..CaptureReport::default() });
    let (end, ended) = watch::channel(false);
    let task = tokio::spawn(supervise(parts, order, report, ended));
    CaptureHandle { orders, reports, end, task }
}

#[cfg(test)]
#[path = "capture_service_tests.rs"]
mod tests;
