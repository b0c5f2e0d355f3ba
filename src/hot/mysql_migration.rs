//! Brings a database into the form that the definitions ask for, and says what a person must change if it cannot.
//!
//! Invariant: nothing that holds rows is dropped or retyped here; tables and columns are added, everything else is refused
//! with what to do. One process at a time does it.
//!
//! | table | what |
//! |---|---|
//! | `holdfast_meta` | format of these tables, and the cluster's number of partitions |
//! | `holdfast_place` | per partition: tip, record (as `codec` has it), and the first day that still has its rows |
//! | `holdfast_announced` | per partition and source: what the rows may contain (source and progress as `codec` has them) |
//! | one per metric table | see `mysql_table` |

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::mysql_table::{KEY_BYTES, Table, index_columns, quoted};
use super::mysql_value::write_text;
use crate::mysql_pool::MysqlError;

/// Of the tables' form; a program that writes another refuses these.
const FORMAT: &str = "1";
/// What a statement needs beside its rows.
const LEAST_PACKET: u64 = 1 << 20;
/// For all but the changes of tables that hold rows, however short a call's deadline is.
const SOON: Duration = Duration::from_secs(10);
/// The strictest that the server has: texts that differ in a trailing space are two groups.
const COLLATIONS: [&str; 3] = ["utf8mb4_0900_bin", "utf8mb4_nopad_bin", "utf8mb4_bin"];

const RIGHTS: &str = "select, insert, update, delete, create, alter, index";

/// What was found out about a server that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// The longest statement that it takes.
    pub packet: usize,
}

/// Makes the database if it is not there; for a server that refused a connection because of that.
pub async fn make_database(options: &OptsBuilder) -> Result<(), MysqlError> {
    let opts = Opts::from(options.clone());
    let name = opts.db_name().unwrap_or_default().to_owned();
    within(SOON, async {
        let mut conn = Conn::new(options.clone().db_name(None::<String>)).await?;
        let statement = format!("create database if not exists {} character set utf8mb4", quoted(&name));
        let made = conn.query_drop(statement).await;
        made.map_err(|error| explain(error.into(), &opts))?;
        Ok(conn.disconnect().await?)
    })
    .await
}

/// Checks the server, and makes or changes the tables. `long`: for a change of a table that holds rows.
pub async fn prepare(
    conn: &mut Conn,
    tables: &[&Table],
    partitions: u16,
    long: Duration,
) -> Result<Prepared, MysqlError> {
    let opts = conn.opts().clone();
    let prepared = within(SOON, check_server(conn)).await?;
    let name = format!("holdfast.{:x}", xxh3_64(opts.db_name().unwrap_or_default().as_bytes()));
    let locked = conn.exec_first("select get_lock(?, ?)", (&name, SOON.as_secs() / 2));
    let locked: Option<Option<u8>> = within(SOON, async { Ok(locked.await?) }).await?;
    if locked.flatten() != Some(1) {
        // Whoever it is brings the tables into the same form; the next call looks again.
        return Err(MysqlError::Busy(1));
    }
    let outcome = migrate(conn, tables, partitions, long).await.map_err(|error| explain(error, &opts));
    // If it cannot be released the connection is closed, and the lock is free all the same.
    within(SOON, async { Ok(conn.exec_drop("do release_lock(?)", (&name,)).await?) }).await?;
    outcome.map(|()| prepared)
}

async fn within<T>(limit: Duration, step: impl Future<Output = Result<T, MysqlError>>) -> Result<T, MysqlError> {
    timeout(limit, step).await.unwrap_or(Err(MysqlError::Deadline(limit)))
}

async fn check_server(conn: &mut Conn) -> Result<Prepared, MysqlError> {
    let facts: Option<(String, u64, bool)> =
        conn.query_first("select version(), @@global.max_allowed_packet, @@global.log_bin").await?;
    let (version, packet, has_log) = facts.ok_or_else(|| MysqlError::unfit("the server says nothing of itself", ""))?;
    if !is_known(&version, conn.server_version()) {
        let found = format!("the server is {version}");
        return Err(MysqlError::unfit(found, "holdfast needs MySQL 5.7 or later, or MariaDB 10.3 or later"));
    }
    if packet < LEAST_PACKET {
        let found = format!("max_allowed_packet is {packet} bytes");
        return Err(MysqlError::unfit(
            found,
            "set global max_allowed_packet = 16777216, and the same in its configuration",
        ));
    }
    if has_log {
        // Servers that know no other format than rows do not know the variable either.
        let format: Option<String> = conn.query_first("select @@binlog_format").await.ok().flatten();
        if format.is_some_and(|format| format.eq_ignore_ascii_case("statement")) {
            return Err(MysqlError::unfit(
                "binlog_format is STATEMENT, which refuses the isolation that writes use",
                "set global binlog_format = 'ROW', and the same in its configuration",
            ));
        }
    }
    Ok(Prepared { packet: usize::try_from(packet).unwrap_or(usize::MAX) })
}

fn is_known(version: &str, (major, minor, _): (u16, u16, u16)) -> bool {
    (major, minor) >= if version.to_ascii_lowercase().contains("mariadb") { (10, 3) } else { (5, 7) }
}

/// What a person can do about a refusal.
fn explain(error: MysqlError, opts: &Opts) -> MysqlError {
    let Some(server) = error.server() else { return error };
    let (user, database) = (opts.user().unwrap_or_default(), quoted(opts.db_name().unwrap_or_default()));
    let grant = format!("as an administrator: grant {RIGHTS} on {database}.* to '{user}'@'…'");
    match server.code {
        1044 | 1142 | 1143 | 1227 | 1370 => MysqlError::unfit(server.message.clone(), grant),
        _ => error,
    }
}

async fn migrate(conn: &mut Conn, tables: &[&Table], partitions: u16, long: Duration) -> Result<(), MysqlError> {
    let collation = within(SOON, async {
        make_own_tables(conn).await?;
        check_meta(conn, partitions).await?;
        collation(conn).await
    })
    .await?;
    for table in tables {
        let found = within(SOON, columns_of(conn, &table.name)).await?;
        if found.is_empty() {
            within(SOON, async { Ok(conn.query_drop(create(table, &collation)).await?) }).await?;
            continue;
        }
        within(SOON, check_table(conn, table, &found)).await?;
        if let Some(statement) = add_columns(table, &found, &collation) {
            within(long, async { Ok(conn.query_drop(statement).await?) }).await?;
        }
    }
    within(SOON, check_rights(conn)).await
}

async fn make_own_tables(conn: &mut Conn) -> Result<(), MysqlError> {
    let tail = "engine=InnoDB default charset=utf8mb4 row_format=dynamic";
    for statement in [
        format!(
            "create table if not exists holdfast_meta (name varbinary(64) not null primary key, value varbinary(255) \
             not null) {tail} comment='holdfast: about these tables'"
        ),
        format!(
            "create table if not exists holdfast_place (holdfast_partition smallint unsigned not null primary key, \
             holdfast_epoch bigint unsigned not null default 0, holdfast_number bigint unsigned not null default 0, \
             kept_from int null comment 'first day that has its rows', record longblob null comment 'quality record') \
             {tail} comment='holdfast: where each partition stands'"
        ),
        format!(
            "create table if not exists holdfast_announced (holdfast_partition smallint unsigned not null, \
             source_key varbinary({KEY_BYTES}) not null, progress longblob not null, \
             primary key (holdfast_partition, source_key)) {tail} comment='holdfast: what rows may contain'"
        ),
    ] {
        // That they are there already is no news.
        conn.query_drop(statement).await?;
    }
    Ok(())
}

/// Tables of another form, or of a cluster of another cut, are not touched.
async fn check_meta(conn: &mut Conn, partitions: u16) -> Result<(), MysqlError> {
    conn.query_drop(format!(
        "insert ignore into holdfast_meta values ('format', '{FORMAT}'), ('partitions', '{partitions}')"
    ))
    .await?;
    let found: Vec<(String, String)> = conn.query("select name, value from holdfast_meta").await?;
    let found: HashMap<String, String> = found.into_iter().collect();
    let change = "give another database in the url, or drop this one's tables to start anew";
    if found.get("format").is_some_and(|format| format != FORMAT) {
        return Err(MysqlError::unfit("the database's tables are of another version of holdfast", change));
    }
    match found.get("partitions") {
        Some(count) if *count != partitions.to_string() => Err(MysqlError::unfit(
            format!("the database was created with {count} partitions, and the cluster has {partitions}"),
            change,
        )),
        _ => make_places(conn, partitions).await,
    }
}

async fn make_places(conn: &mut Conn, partitions: u16) -> Result<(), MysqlError> {
    let rows: Vec<String> = (0..partitions).map(|partition| format!("({partition})")).collect();
    if !rows.is_empty() {
        let statement = format!("insert ignore into holdfast_place (holdfast_partition) values {}", rows.join(","));
        conn.query_drop(statement).await?;
    }
    Ok(())
}

async fn collation(conn: &mut Conn) -> Result<String, MysqlError> {
    let names = COLLATIONS.map(|name| format!("'{name}'")).join(",");
    let statement =
        format!("select collation_name from information_schema.collations where collation_name in ({names})");
    let found: Vec<String> = conn.query(statement).await?;
    let best = COLLATIONS.iter().find(|name| found.iter().any(|found| found == *name));
    best.map(|name| (*name).to_owned()).ok_or_else(|| {
        MysqlError::unfit("the server does not know utf8mb4_bin", "take one that was built with utf8mb4")
    })
}

/// Name (in lower case) and type of a table's columns; none if there is no such table.
async fn columns_of(conn: &mut Conn, table: &str) -> Result<HashMap<String, String>, MysqlError> {
    let found: Vec<(String, String)> = conn
        .exec(
            "select column_name, column_type from information_schema.columns \
             where table_schema = database() and table_name = ?",
            (table,),
        )
        .await?;
    Ok(found.into_iter().map(|(name, kind)| (name.to_ascii_lowercase(), plain_type(&kind))).collect())
}

/// Without the display widths that some servers show beside integers.
fn plain_type(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    match (kind.find("int("), kind.find(')')) {
        (Some(open), Some(close)) => format!("{}{}", &kind[..open + 3], &kind[close + 1..]),
        _ => kind,
    }
}

fn definition(column: &super::mysql_table::Column, collation: &str) -> String {
    let mut text = format!("{} {}", quoted(&column.name), column.kind);
    if column.kind.starts_with("varchar") {
        text.push_str(&format!(" character set utf8mb4 collate {collation}"));
    }
    text.push_str(if column.nullable { " null" } else { " not null" });
    let mut comment = Vec::new();
    write_text(&mut comment, &column.comment);
    text.push_str(&format!(" comment {}", String::from_utf8_lossy(&comment)));
    text
}

fn create(table: &Table, collation: &str) -> String {
    let columns: Vec<String> = table.columns.iter().map(|column| definition(column, collation)).collect();
    let key: Vec<String> = table.primary_key.iter().map(|name| quoted(name)).collect();
    let mut comment = Vec::new();
    write_text(&mut comment, &table.comment);
    format!(
        "create table {} ({}, primary key ({}), key holdfast_by_key ({})) engine=InnoDB default charset=utf8mb4 \
         collate={collation} row_format=dynamic comment={}",
        quoted(&table.name),
        columns.join(", "),
        key.join(","),
        index_columns(table).join(","),
        String::from_utf8_lossy(&comment)
    )
}

fn add_columns(table: &Table, found: &HashMap<String, String>, collation: &str) -> Option<String> {
    let missing: Vec<String> = (table.columns.iter())
        .filter(|column| !found.contains_key(&column.name.to_ascii_lowercase()))
        .map(|column| format!("add column {}", definition(column, collation)))
        .collect();
    (!missing.is_empty()).then(|| format!("alter table {} {}", quoted(&table.name), missing.join(", ")))
}

/// May this table be the metric's, as far as it goes?
async fn check_table(conn: &mut Conn, table: &Table, found: &HashMap<String, String>) -> Result<(), MysqlError> {
    let name = &table.name;
    let is_there = |column: &str| found.contains_key(&column.to_ascii_lowercase());
    if let Some(column) = table.columns.iter().find(|column| !column.nullable && !is_there(&column.name)) {
        return Err(MysqlError::unfit(
            format!("table {name}: it has no column {}, so it is of something else", column.name),
            format!("rename the metric, or the table: rename table {0} to {0}_old", quoted(name)),
        ));
    }
    for column in &table.columns {
        let Some(kind) = found.get(&column.name.to_ascii_lowercase()).filter(|kind| **kind != column.kind) else {
            continue;
        };
        let (column_name, new) = (&column.name, &column.kind);
        let own = table.primary_key.contains(&column.name) || column.name.starts_with(super::mysql_table::OWN);
        let change = match own {
            false => format!(
                "name the new one otherwise, or let it be made anew, filled by the next emission: alter table {} drop \
                 column {}",
                quoted(name),
                quoted(column_name)
            ),
            true => format!("rename the metric, or make the table anew: drop table {}", quoted(name)),
        };
        let found = format!("table {name}: column {column_name} is {kind}, by the definitions it is {new}");
        return Err(MysqlError::unfit(found, change));
    }
    let key: Vec<String> = conn
        .exec(
            "select column_name from information_schema.statistics where table_schema = database() and table_name = ? \
             and index_name = 'PRIMARY' order by seq_in_index",
            (name,),
        )
        .await?;
    if !key
        .iter()
        .map(|column| column.to_ascii_lowercase())
        .eq(table.primary_key.iter().map(|it| it.to_ascii_lowercase()))
    {
        return Err(MysqlError::unfit(
            format!("table {name}: its primary key is ({}), not ({})", key.join(", "), table.primary_key.join(", ")),
            format!("rename the metric, or make the table anew: drop table {}", quoted(name)),
        ));
    }
    Ok(())
}

/// Does what writes do, and leaves nothing.
async fn check_rights(conn: &mut Conn) -> Result<(), MysqlError> {
    for statement in [
        "insert into holdfast_meta values ('rights', '0') on duplicate key update value = values(value)",
        "update holdfast_meta set value = '1' where name = 'rights'",
        "delete from holdfast_meta where name = 'rights'",
    ] {
        conn.query_drop(statement).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_compared_without_the_widths_that_some_servers_show() {
        for (shown, plain) in [
            ("bigint(20)", "bigint"),
            ("smallint(5) unsigned", "smallint unsigned"),
            ("BIGINT UNSIGNED", "bigint unsigned"),
            ("tinyint(1)", "tinyint"),
            ("decimal(38,2)", "decimal(38,2)"),
            ("datetime(6)", "datetime(6)"),
            ("varchar(255)", "varchar(255)"),
        ] {
            assert_eq!(plain_type(shown), plain);
        }
    }

    #[test]
    fn old_servers_are_told_apart_from_new_ones() {
        for (version, numbers, known) in [
            ("10.11.6-MariaDB-0+deb12u1-log", (10, 11, 6), true),
            ("11.4.2-MariaDB", (11, 4, 2), true),
            ("10.2.44-MariaDB", (10, 2, 44), false),
            ("8.0.36", (8, 0, 36), true),
            ("5.7.44-log", (5, 7, 44), true),
            ("5.6.51", (5, 6, 51), false),
        ] {
            assert_eq!(is_known(version, numbers), known, "{version}");
        }
    }
}
