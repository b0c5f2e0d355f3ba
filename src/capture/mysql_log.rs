//! The stream of a server's binary log.
//!
//! Invariant: each event of the log comes once, in order, as its bytes.

use futures::{FutureExt, StreamExt};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn};

use super::event::Event;
use super::mysql::{self, Door};
use super::place::{LogName, Place};
use super::settings::Settings;
use super::stop::{Stop, Trouble};

/// An event with its bytes.
pub struct LogEvent(pub mysql_async::binlog::events::Event);

impl LogEvent {
    pub fn event(&self) -> Event<'_> {
        let header = self.0.header();
        Event {
            kind: header.event_type_raw(),
            timestamp: header.timestamp(),
            server: header.server_id(),
            size: header.event_size(),
            end: header.log_pos(),
            flags: header.flags_raw(),
            body: self.0.data(),
        }
    }
}

/// Events as they come.
pub struct LogStream {
    stream: BinlogStream,
}

/// Asks for the log from a place on.
pub async fn open(
    door: &Door,
    mut conn: Conn,
    server_id: u32,
    (log, place): (&LogName, Place),
    settings: &Settings,
) -> Result<LogStream, Trouble> {
    if place.offset > u64::from(u32::MAX) {
        return Err(Stop::unreadable("a transaction begins beyond 4 GiB of its file", "the server cannot send it")
            .at(place)
            .into());
    }
    let nanoseconds = settings.server_heartbeat.0.saturating_mul(1_000_000);
    // The capability makes MariaDB send its own events as they are.
    let session = format!("set @master_heartbeat_period = {nanoseconds}, @mariadb_slave_capability = 4");
    door.ask(conn.query_drop(session)).await?;
    let file = log.file(place.file);
    let request = BinlogStreamRequest::new(server_id).with_filename(file.as_bytes()).with_pos(place.offset);
    let stream = door.ask(conn.get_binlog_stream(request)).await?;
    Ok(LogStream { stream })
}

impl LogStream {
    /// The next event; nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Result<LogEvent, Trouble> {
        given(self.stream.next().await)
    }

    /// An event that is there already.
    pub fn next_now(&mut self) -> Option<Result<LogEvent, Trouble>> {
        self.stream.next().now_or_never().map(given)
    }

    pub async fn close(self, door: &Door) {
        // A server that is gone needs no goodbye.
        let _ = door.ask(self.stream.close()).await;
    }
}

fn given(event: Option<mysql_async::Result<mysql_async::binlog::events::Event>>) -> Result<LogEvent, Trouble> {
    match event {
        Some(Ok(event)) => Ok(LogEvent(event)),
        Some(Err(error)) => Err(mysql::trouble(error)),
        None => Err(Trouble::Failed("the server ended the log's stream".into())),
    }
}
