//! Reads the rows that tables have, all as of one place in the log, while others go on writing.
//!
//! MariaDB gives the place with the snapshot itself (`binlog_snapshot_file`, `binlog_snapshot_position`): nobody waits. MySQL
//! does not: there, writers are held (`flush tables with read lock`) for the moment between the snapshot's beginning and the question
//! for the place, and no longer than `lock_wait`.
//!
//! Invariant: the rows are those that all changes up to the place, and none after it, have left.

use std::collections::HashMap;

use futures::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, ResultSetStream, Row, Value};

use super::cell::{Cell, CellError, Civil, decimal_text};
use super::layout::Layout;
use super::meaning::Meaning;
use super::mysql::{self, Door, LogEnd};
use super::server::Facts;
use super::settings::Settings;
use super::stop::{Stop, Trouble};
use crate::model::schema::Table;

/// Begins the transaction that sees the rows, and says as of where.
pub async fn begin(door: &Door, conn: &mut Conn, facts: &Facts, settings: &Settings) -> Result<LogEnd, Trouble> {
    door.ask(conn.query_drop("set session transaction isolation level repeatable read")).await?;
    if mysql::is_maria(facts) {
        door.ask(conn.query_drop("start transaction with consistent snapshot")).await?;
        let status: Vec<(String, String)> = door.ask(conn.query("show status like 'binlog_snapshot_%'")).await?;
        let status: HashMap<String, String> =
            status.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
        let offset = status.get("binlog_snapshot_position").and_then(|offset| offset.parse().ok());
        let file = status.get("binlog_snapshot_file").filter(|file| !file.is_empty());
        let (file, offset) = file.zip(offset).ok_or_else(mysql::no_log)?;
        let (log, place) = mysql::named(file, offset)?;
        return Ok(LogEnd { log, place, executed: String::new() });
    }
    let seconds = settings.lock_wait.0.div_ceil(1_000).max(1);
    door.ask(conn.query_drop(format!("set session lock_wait_timeout = {seconds}"))).await?;
    door.ask(conn.query_drop("flush tables with read lock")).await?;
    // Whatever fails now, the lock ends with the connection, which the caller drops.
    door.ask(conn.query_drop("start transaction with consistent snapshot")).await?;
    let end = mysql::log_end(door, conn, facts.log_end_query()).await?;
    door.ask(conn.query_drop("unlock tables")).await?;
    Ok(end)
}

/// The rows of one table.
pub struct SnapshotRows<'c> {
    rows: ResultSetStream<'c, 'c, 'static, Row, mysql_async::BinaryProtocol>,
}

fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Begins to read the columns that are needed.
pub async fn rows<'c>(
    door: &Door,
    conn: &'c mut Conn,
    (database, name): (&str, &str),
    layout: &Layout,
) -> Result<SnapshotRows<'c>, Trouble> {
    let columns: Vec<String> = layout.used.iter().map(|used| quoted(&layout.declared[used.index].name)).collect();
    let query = format!("select {} from {}.{}", columns.join(", "), quoted(database), quoted(name));
    let rows = door.ask(conn.exec_stream::<Row, _, _>(query, ())).await?;
    Ok(SnapshotRows { rows })
}

impl SnapshotRows<'_> {
    pub async fn next(&mut self, door: &Door) -> Result<Option<Row>, Trouble> {
        door.ask(async { self.rows.next().await.transpose() }).await
    }
}

/// The cells of a row, in the order of the `[[table]]`'s columns.
pub fn cells<'r>(row: &'r Row, layout: &Layout, source: &str, table: &Table) -> Result<Vec<Cell<'r>>, Stop> {
    let cell = |(index, used): (usize, &super::layout::Used)| {
        let value = row.as_ref(index).unwrap_or(&Value::NULL);
        cell(value, &used.meaning).map_err(|reason| {
            let reason = format!("{source}.{}: {reason}", table.columns[index].name);
            Stop::unreadable(reason, "this version of holdfast cannot read the value")
        })
    };
    layout.used.iter().enumerate().map(cell).collect()
}

fn cell<'r>(value: &'r Value, meaning: &Meaning) -> Result<Cell<'r>, String> {
    Ok(match value {
        Value::NULL => Cell::Null,
        Value::Int(value) => Cell::Int(*value),
        Value::UInt(value) => Cell::Uint(*value),
        Value::Float(value) => Cell::Float(*value),
        Value::Double(value) => Cell::Double(*value),
        Value::Date(year, month, day, hour, minute, second, micros) => {
            let (year, month, day, hour, minute, second, micros) =
                (*year, *month, *day, *hour, *minute, *second, *micros);
            let civil = Civil { year, month, day, hour, minute, second, micros };
            if *meaning == Meaning::Date { Cell::Date(civil) } else { Cell::DateTime(civil) }
        }
        Value::Time(negative, days, hours, minutes, seconds, micros) => Cell::Time {
            negative: *negative,
            hours: days * 24 + u32::from(*hours),
            minutes: *minutes,
            seconds: *seconds,
            micros: *micros,
        },
        Value::Bytes(bytes) => match meaning {
            Meaning::Decimal => {
                let read = decimal_text(bytes).ok_or("not a decimal")?;
                read.map_err(|error: CellError| error.to_string())?
            }
            Meaning::Bit => Cell::Bits(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))),
            Meaning::Utf8 | Meaning::Latin1 | Meaning::Enum(_) | Meaning::Set(_) => {
                Cell::Text(std::str::from_utf8(bytes).map_err(|error| error.to_string())?)
            }
            _ => return Err("a value of an unexpected form".into()),
        },
    })
}
