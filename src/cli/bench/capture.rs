//! `holdfast bench capture`: how many rows of a binary log one core reads, from the bytes of events to batches for mq.
//!
//! Invariant: the steps are the product's own functions, and the driver's for the events; only the server and its connection are
//! missing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use chrono_tz::Tz;
use mysql_async::binlog::BinlogVersion;
use mysql_async::binlog::events::{Event, FormatDescriptionEvent};

use super::machine;
use super::orders::{CHANNELS, MERCHANTS, Random};
use super::stages::catalog;
use super::stats::{Runs, short};
use crate::capture::event::kind;
use crate::capture::layout::Layout;
use crate::capture::log::{Log, Start};
use crate::capture::mapping::LogTable;
use crate::capture::meaning::Declared;
use crate::capture::mysql_log::LogEvent;
use crate::capture::place::{LogName, Place};
use crate::capture::settings::Settings;
use crate::capture::tiling::Tiling;
use crate::capture::weighing::Weighing;
use crate::clock;
use crate::model::id::SourceId;
use crate::model::position::Position;

const PARTITIONS: u16 = 64;
const TABLE_ID: u8 = 7;
/// 2026-11-01 00:00:00 UTC.
const DAY: u32 = 1_793_491_200;
const DAY_SECONDS: u64 = 86_400;

const STEPS: [&str; 4] = [
    "events of their bytes (the driver)",
    "rows to columns, with weights and positions",
    "rows by partition",
    "batches (Arrow IPC, LZ4)",
];

/// How transactions are, by what they are called.
struct Shape {
    name: &'static str,
    /// In one rows event, which is one transaction.
    rows: u64,
}

const SHAPES: [Shape; 2] =
    [Shape { name: "100 rows a transaction", rows: 100 }, Shape { name: "a row a transaction", rows: 1 }];

/// The columns of the database's table; one of them nobody asks for.
const COLUMNS: [(&str, &str); 6] = [
    ("order_id", "bigint(20)"),
    ("merchant_id", "int(11)"),
    ("channel", "varchar(20)"),
    ("amount", "decimal(12,2)"),
    ("buyer_id", "bigint(20)"),
    ("paid_at", "timestamp"),
];

/// Reads `rows` rows, `runs` times for each shape of transactions.
pub async fn capture(rows: u64, runs: u32) -> Result<()> {
    println!("{}", machine::describe());
    println!("{} inserted rows of {} columns, {PARTITIONS} partitions, one core", short(rows as f64), COLUMNS.len());
    for shape in SHAPES {
        let bytes = binlog(rows, shape.rows);
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); STEPS.len() + 1];
        for _ in 0..runs.max(1) {
            machine::wait_until_idle().await;
            let taken = read(&bytes, rows)?;
            let nanoseconds = taken.map(|taken| taken.as_secs_f64() * 1e9 / rows as f64);
            nanoseconds.iter().zip(&mut times).for_each(|(taken, times)| times.push(*taken));
            times[STEPS.len()].push(nanoseconds.iter().sum());
        }
        println!("{:<46} {:>28} {:>16}", shape.name, "ns a row", "rows/s");
        for (name, times) in STEPS.iter().chain(&["all"]).zip(times) {
            let runs = Runs::new(times);
            println!("  {name:<44} {:>28} {:>16}", runs.to_string(), short(1e9 / runs.median()));
        }
    }
    Ok(())
}

fn log() -> Result<Log> {
    let catalog = catalog()?;
    let table = catalog.table("orders").context("the table was just defined")?.clone();
    let column = |(name, sql_type): (&str, &str)| Declared {
        name: name.into(),
        sql_type: sql_type.into(),
        charset: Some("utf8mb4".into()),
    };
    let layout = Layout::new(&table, "shop.orders", COLUMNS.map(column).to_vec()).map_err(|stop| anyhow!("{stop}"))?;
    let tables = vec![LogTable {
        database: "shop".into(),
        name: "orders".into(),
        layout: Arc::new(layout),
        weighing: Weighing::new(table, PARTITIONS, Tz::UTC),
    }];
    let start = Start {
        log: LogName { prefix: "binlog".into() },
        place: Place::new(1, 4),
        floor: Position::ZERO,
        passed: Position::ZERO,
        gtids: None,
    };
    Ok(Log::new(start, tables))
}

fn read(mut bytes: &[u8], rows: u64) -> Result<[Duration; STEPS.len()]> {
    let (mut log, settings) = (log()?, Settings::usual());
    let table = log.tables()[0].weighing.table().clone();
    let source = SourceId::Stream { name: "orders-db/shop.orders".into(), incarnation: 1 };
    let mut tiling = Tiling::new(vec![(source, table)], PARTITIONS, Position::ZERO, i64::MAX);
    let description = FormatDescriptionEvent::new(BinlogVersion::Version4);
    let mut taken = [Duration::ZERO; STEPS.len()];
    let mut read = 0;
    while !bytes.is_empty() {
        // As many events as become one flush: the clock must not cost as much as what it measures.
        let start = clock::instant();
        let mut events = Vec::new();
        let mut size = 0;
        while !bytes.is_empty() && size < settings.batch_bytes.bytes() / 16 {
            let event = LogEvent(Event::read(&description, &mut bytes)?);
            size += event.event().body.len();
            events.push(event);
        }
        taken[0] += start.elapsed();

        let start = clock::instant();
        for event in &events {
            log.read(&event.event()).map_err(|stop| anyhow!("{stop}"))?;
        }
        taken[1] += start.elapsed();
        if log.rows() < settings.batch_rows && !bytes.is_empty() {
            continue;
        }
        read += log.rows() as u64;

        let start = clock::instant();
        let parts = log.cut();
        taken[2] += start.elapsed();

        let start = clock::instant();
        let batches = tiling.cut(0, log.position(), 0, parts, false);
        taken[3] += start.elapsed();
        drop(batches);
    }
    anyhow::ensure!(read == rows, "{read} of {rows} rows came out");
    Ok(taken)
}

/// The bytes of a log with so many rows.
fn binlog(rows: u64, rows_a_transaction: u64) -> Vec<u8> {
    let (mut bytes, mut random) = (Vec::new(), Random::new(1));
    let mut begun = 0;
    while begun < rows {
        let end = rows.min(begun + rows_a_transaction);
        event(&mut bytes, kind::MARIA_GTID, &[&begun.to_le_bytes()[..], &[0; 11]].concat());
        event(&mut bytes, kind::TABLE_MAP, &table_map());
        let mut body = vec![TABLE_ID, 0, 0, 0, 0, 0, 1, 0, COLUMNS.len() as u8, 0xff];
        (begun..end).for_each(|order| row(&mut body, &mut random, order, rows));
        event(&mut bytes, kind::WRITE_ROWS_V1, &body);
        event(&mut bytes, kind::XID, &begun.to_le_bytes());
        begun = end;
    }
    bytes
}

/// A header, and the body; no checksum.
fn event(bytes: &mut Vec<u8>, kind: u8, body: &[u8]) {
    const HEADER_BYTES: usize = 19;
    const MAGIC_BYTES: usize = 4;
    let size = HEADER_BYTES + body.len();
    let end = (MAGIC_BYTES + bytes.len() + size) as u32;
    bytes.extend_from_slice(&DAY.to_le_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&(size as u32).to_le_bytes());
    bytes.extend_from_slice(&end.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(body);
}

fn table_map() -> Vec<u8> {
    let mut body = vec![TABLE_ID, 0, 0, 0, 0, 0, 1, 0];
    body.extend_from_slice(b"\x04shop\0\x06orders\0");
    // bigint, int, varchar of 80 bytes, decimal(12,2), bigint, timestamp(0).
    body.extend_from_slice(&[COLUMNS.len() as u8, 8, 3, 15, 246, 8, 17]);
    body.extend_from_slice(&[5, 80, 0, 12, 2, 0]);
    body.push(0);
    body
}

fn row(body: &mut Vec<u8>, random: &mut Random, order: u64, total: u64) {
    let channel = CHANNELS[random.below(CHANNELS.len() as u64) as usize];
    let cents = random.below(50_000) + 100;
    let second = DAY + (order * DAY_SECONDS / total) as u32;
    // No nulls; bits beyond the last column are set.
    body.push(0xc0);
    body.extend_from_slice(&order.to_le_bytes());
    body.extend_from_slice(&(random.below(MERCHANTS) as u32 + 1).to_le_bytes());
    body.push(channel.len() as u8);
    body.extend_from_slice(channel.as_bytes());
    // One digit, nine, and two after the point; the highest bit says that it is positive.
    body.push(0x80);
    body.extend_from_slice(&((cents / 100) as u32).to_be_bytes());
    body.push((cents % 100) as u8);
    body.extend_from_slice(&random.below(1_000_000).to_le_bytes());
    body.extend_from_slice(&second.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_that_is_measured_is_read_whole() {
        for shape in SHAPES {
            assert!(read(&binlog(1_234, shape.rows), 1_234).is_ok(), "{}", shape.name);
        }
    }
}
