//! Connections to MySQL and MariaDB, and what a server says of itself.
//!
//! Invariant: every question has a deadline; an answer that no retry can change is a stop with what to do, all else a failure.

use std::future::Future;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder, Row, SslOpts};

use super::gtid::Gtids;
use super::meaning::Declared;
use super::mysql_settings::SourceSettings;
use super::place::{LogName, Place};
use super::server::{Facts, Flavour, TableFacts};
use super::settings::Settings;
use super::stop::{Stop, StopKind, Trouble};

/// What reaches a server.
#[derive(Debug, Clone)]
pub struct Door {
    opts: Opts,
    answer: Duration,
}

const PRIVILEGES: &str = "grant the user select on the captured tables, replication slave, and replication client (MariaDB: binlog \
    monitor); on MySQL also reload, for the moment in which a snapshot begins";

impl Door {
    pub fn new(source: &SourceSettings, password: Option<&str>, settings: &Settings) -> Result<Self, Stop> {
        let wrong = |error| {
            let reason = format!("the source's url cannot be used: {error}");
            Stop::new(StopKind::Server, reason, "it is mysql://user@host:3306, and the password apart")
        };
        let opts = Opts::from_url(&source.url).map_err(wrong)?;
        let tls = source.tls.then(|| match &source.tls_roots {
            None => SslOpts::default(),
            Some(file) => {
                SslOpts::default().with_root_certs(vec![file.clone().into()]).with_disable_built_in_roots(true)
            }
        });
        let known = opts.pass().map(str::to_owned);
        let session = [
            // Timestamps come in UTC; a slow mq must not end the snapshot.
            "set session time_zone = '+00:00', net_write_timeout = 86400, net_read_timeout = 86400, wait_timeout = 86400",
            "set session sql_mode = ''",
        ];
        let opts = OptsBuilder::from_opts(opts)
            .pass(password.map(str::to_owned).or(known))
            .ssl_opts(tls)
            .prefer_socket(false)
            .max_allowed_packet(Some(settings.packet_bytes.bytes()))
            .wait_timeout(Some(86_400))
            .setup(session.map(str::to_owned).to_vec())
            .tcp_nodelay(true);
        Ok(Self { opts: opts.into(), answer: settings.answer.duration() })
    }

    pub async fn connect(&self) -> Result<Conn, Trouble> {
        answer(self.answer, Conn::new(self.opts.clone())).await
    }

    /// Waits for an answer, but not for ever.
    pub async fn ask<T>(&self, question: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
        answer(self.answer, question).await
    }
}

async fn answer<T>(most: Duration, question: impl Future<Output = Result<T, Error>>) -> Result<T, Trouble> {
    match tokio::time::timeout(most, question).await {
        Ok(result) => result.map_err(trouble),
        Err(_) => Err(Trouble::Failed(format!("the server did not answer within {} ms", most.as_millis()))),
    }
}

/// What to make of an error.
pub fn trouble(error: Error) -> Trouble {
    let Error::Server(server) = &error else { return Trouble::Failed(error.to_string()) };
    let reason = format!("the server says: {} ({})", server.message, server.code);
    let unreadable = ["impossible position", "bogus data", "truncated", "corrupt"];
    match server.code {
        1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1698 | 3118 => Stop::new(StopKind::Server, reason, PRIVILEGES).into(),
        1049 | 1054 | 1146 => Stop::new(StopKind::Server, reason, "change the source's tables, or the database").into(),
        1236 if server.message.contains("same server") => {
            Stop::new(StopKind::Server, reason, "give the [[source]] a server_id that nobody else has").into()
        }
        1236 if unreadable.iter().any(|part| server.message.contains(part)) => {
            Stop::unreadable(reason, "its log is damaged or was reset: capture it under a new source's name").into()
        }
        _ => Trouble::Failed(reason),
    }
}

/// What the server says of itself and of those of these tables that are there.
pub async fn facts(door: &Door, conn: &mut Conn, tables: &[(String, String)]) -> Result<Facts, Trouble> {
    let variables: Vec<(String, Option<String>)> = door.ask(conn.query("show global variables")).await?;
    let lower = |(name, value): (String, Option<String>)| (name.to_lowercase(), value.unwrap_or_default());
    let mut facts = Facts { variables: variables.into_iter().map(lower).collect(), ..Facts::default() };
    for (database, name) in tables {
        let engine: Option<Option<String>> = door
            .ask(conn.exec_first(
                "select engine from information_schema.tables where table_schema = ? and table_name = ?",
                (database, name),
            ))
            .await?;
        let Some(engine) = engine else { continue };
        let cascades = door
            .ask(conn.exec(
                "select constraint_name from information_schema.referential_constraints where constraint_schema = ? and \
                 table_name = ? and (delete_rule in ('CASCADE', 'SET NULL') or update_rule in ('CASCADE', 'SET NULL'))",
                (database, name),
            ))
            .await?;
        let (database, name) = (database.clone(), name.clone());
        facts.tables.push(TableFacts {
            database,
            name,
            engine: engine.unwrap_or_else(|| "none (a view)".into()),
            cascades,
        });
    }
    let end: Option<Row> = door.ask(conn.query_first(facts.log_end_query())).await?;
    if let Some(end) = end {
        let text =
            |index: usize| end.get_opt::<Option<String>, _>(index).and_then(Result::ok).flatten().unwrap_or_default();
        (facts.only_databases, facts.ignored_databases) = (text(2), text(3));
    }
    Ok(facts)
}

/// The columns of a table, in their order.
pub async fn columns(door: &Door, conn: &mut Conn, database: &str, table: &str) -> Result<Vec<Declared>, Trouble> {
    let query = "select column_name, column_type, character_set_name from information_schema.columns where table_schema = ? \
        and table_name = ? order by ordinal_position";
    let rows: Vec<(String, String, Option<String>)> = door.ask(conn.exec(query, (database, table))).await?;
    if rows.is_empty() {
        let reason = format!("there is no table {database}.{table}, or the user may not see it");
        return Err(Stop::new(StopKind::Server, reason, PRIVILEGES).into());
    }
    Ok(rows.into_iter().map(|(name, sql_type, charset)| Declared { name, sql_type, charset }).collect())
}

/// Where a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    pub log: LogName,
    pub place: Place,
    /// The transactions before it, as MySQL says them.
    pub executed: String,
}

pub async fn log_end(door: &Door, conn: &mut Conn, query: &str) -> Result<LogEnd, Trouble> {
    let row: Option<Row> = door.ask(conn.query_first(query)).await?;
    let text = |row: &Row| row.get_opt::<Option<String>, _>(4).and_then(Result::ok).flatten().unwrap_or_default();
    let parts = row.and_then(|row| Some((row.get::<String, _>(0)?, row.get::<u64, _>(1)?, text(&row))));
    let (name, offset, executed) = parts.ok_or_else(no_log)?;
    let (log, place) = named(&name, offset)?;
    Ok(LogEnd { log, place, executed })
}

/// The transactions before a place, if the server names them all.
pub async fn gtids(door: &Door, conn: &mut Conn, facts: &Facts, end: &LogEnd) -> Result<Option<Gtids>, Trouble> {
    match facts.flavour() {
        Flavour::MariaDb => maria_gtids(door, conn, &end.log, end.place).await,
        Flavour::MySql if facts.names_transactions() => Ok(Gtids::parse_mysql(&end.executed).ok()),
        Flavour::MySql => Ok(None),
    }
}

/// MariaDB tells them for any place that it still has.
pub async fn maria_gtids(door: &Door, conn: &mut Conn, log: &LogName, place: Place) -> Result<Option<Gtids>, Trouble> {
    let question = conn.exec_first("select binlog_gtid_pos(?, ?)", (log.file(place.file), place.offset));
    let text: Option<Option<String>> = door.ask(question).await?;
    Ok(text.flatten().and_then(|text| Gtids::parse_maria(&text).ok()))
}

pub(super) fn no_log() -> Stop {
    Stop::new(StopKind::Server, "the server does not say where its log ends", "switch the binary log on: log_bin=ON")
}

pub(super) fn named(name: &str, offset: u64) -> Result<(LogName, Place), Trouble> {
    let wrong = |error: super::place::LogNameError| {
        Stop::new(StopKind::Server, error.to_string(), "name the log's files as servers do: log_bin=mysql-bin")
    };
    let (log, file) = LogName::parse(name).map_err(wrong)?;
    Ok((log, Place::new(file, offset)))
}

/// Where each file of a server's log ends, in their order.
pub async fn files(door: &Door, conn: &mut Conn, log: &LogName) -> Result<Vec<Place>, Trouble> {
    let rows: Vec<Row> = door.ask(conn.query("show binary logs")).await?;
    let file = |row: &Row| Some((row.get::<String, _>(0)?, row.get::<u64, _>(1)?));
    let mut files = Vec::new();
    for (name, size) in rows.iter().filter_map(file) {
        let (found, end) = named(&name, size)?;
        if found != *log {
            let reason = format!("the server's log is named {name} and not {}", log.file(end.file));
            return Err(Stop::unreadable(reason, "capture it under a new source's name").into());
        }
        files.push(end);
    }
    Ok(files)
}

/// Is this place still in the server's log?
pub async fn check_kept(door: &Door, conn: &mut Conn, log: &LogName, place: Place) -> Result<(), Trouble> {
    let files = files(door, conn, log).await?;
    let (first, last) = (files.first().ok_or_else(no_log)?, files.last().ok_or_else(no_log)?);
    if place.file < first.file {
        let first = Place::new(first.file, 4);
        let reason = format!(
            "the server purged its log from {} at {} up to {}: what changed there is lost",
            log.file(place.file),
            place.offset,
            log.file(first.file)
        );
        let way_out = "an order to pass goes on there and leaves a gap that stays stated; or capture it under a new source's name";
        return Err(Stop::new(StopKind::Purged { first }, reason, way_out).at(place).into());
    }
    let end = files.iter().find(|end| end.file == place.file).unwrap_or(last);
    if end.file != place.file || place.offset > end.offset {
        let (asked, name) = (place.offset, log.file(place.file));
        let reason =
            format!("the server's log ends at {} in {}, before {asked} in {name}", end.offset, log.file(end.file));
        return Err(Stop::unreadable(reason, "was it reset or restored? Capture it under a new source's name").into());
    }
    Ok(())
}

/// Is it MariaDB's?
pub fn is_maria(facts: &Facts) -> bool {
    facts.flavour() == Flavour::MariaDb
}
