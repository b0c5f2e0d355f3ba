//! `holdfast bench pipeline`: a CSV file to queryable, exact results through the real process on durable tiers; and
//! `holdfast bench memory`: what that leaves resident.
//!
//! Invariant: a run ends only when an exact answer counts every row of the file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::machine;
use super::orders::{self, Random};
use super::process::Server;
use super::stats::{Runs, short};
use crate::clock;

const ROWS_A_WRITE: u64 = 50_000;
const SETTLE_STEP: Duration = Duration::from_secs(8);
const SETTLE_TRIES: u32 = 8;

/// Writes day `day` of the load with `rows` rows and gives the file and its size.
pub fn write_file(folder: &Path, rows: u64, day: u64) -> Result<(PathBuf, u64)> {
    write_file_of(orders::MERCHANTS, folder, rows, day)
}

/// The same of fewer merchants, or more.
pub fn write_file_of(merchants: u64, folder: &Path, rows: u64, day: u64) -> Result<(PathBuf, u64)> {
    let path = folder.join(format!("orders-{day}.csv"));
    let mut file = BufWriter::new(File::create(&path)?);
    file.write_all(orders::HEADER.as_bytes())?;
    let mut random = Random::new(day + 1);
    let mut text = String::new();
    for first in (0..rows).step_by(ROWS_A_WRITE as usize) {
        text.clear();
        let count = ROWS_A_WRITE.min(rows - first);
        let orders = day * rows + first..day * rows + first + count;
        orders::append_rows_of(merchants, &mut text, &mut random, orders, rows, day);
        file.write_all(text.as_bytes())?;
    }
    file.flush()?;
    let bytes = std::fs::metadata(&path)?.len();
    Ok((path, bytes))
}

/// Loads the file `runs` times into fresh servers.
pub async fn pipeline(rows: u64, runs: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, bytes) = write_file(folder.path(), rows, 0)?;
    println!("{}", machine::describe());
    println!(
        "{} rows, {} MB of CSV, {} merchants x 4 channels x 24 hours",
        short(rows as f64),
        bytes / 1_000_000,
        orders::MERCHANTS
    );
    let (mut rates, mut server_cpu, mut client_cpu) = (vec![], vec![], vec![]);
    for run in 0..runs {
        let data = folder.path().join(format!("run-{run}"));
        std::fs::create_dir_all(&data)?;
        let server = Server::start(&data, orders::DEFINITION).await?;
        machine::wait_until_idle().await;
        let (before, start) = (server.usage(), clock::instant());
        let client = server.ingest("orders", &file).await?;
        server.wait_for_orders(rows).await?;
        let seconds = start.elapsed().as_secs_f64();
        rates.push(rows as f64 / seconds);
        server_cpu.push((server.usage().cpu_seconds - before.cpu_seconds) * 1e9 / rows as f64);
        client_cpu.push(client * 1e9 / rows as f64);
        drop(server);
        std::fs::remove_dir_all(&data)?;
    }
    println!("file to exact, queryable results, rows/s: {}", Runs::new(rates));
    println!("server processor time, ns a row:          {}", Runs::new(server_cpu));
    println!("client processor time, ns a row:          {}", Runs::new(client_cpu));
    Ok(())
}

/// Loads one day, then a second one, and says what stays resident after each.
pub async fn memory(rows: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    println!("{}", machine::describe());
    let server = Server::start(folder.path(), orders::DEFINITION).await?;
    let mut before = settled(&server).await;
    println!("resident when empty:      {} MB", before / 1_000_000);
    for day in 0..2 {
        let (file, _) = write_file(folder.path(), rows, day)?;
        server.ingest("orders", &file).await?;
        server.wait_for_orders(rows * (day + 1)).await?;
        let groups = server.query("select count(*) as n from gmv_hour").await?["rows"][0][0].as_u64().unwrap_or(0);
        let at_once = server.usage().resident_bytes;
        let resident = settled(&server).await;
        let added = resident.saturating_sub(before) as f64;
        println!(
            "resident after {} rows: {} MB, {} MB once it has settled; {} groups; this load added {} bytes a row, {} a group",
            short((rows * (day + 1)) as f64),
            at_once / 1_000_000,
            resident / 1_000_000,
            short(groups as f64),
            short(added / rows as f64),
            short(added / (groups / (day + 1)).max(1) as f64),
        );
        before = resident;
        std::fs::remove_file(file)?;
    }
    Ok(())
}

/// What stays resident once the allocator has given back what it keeps for a while.
async fn settled(server: &Server) -> u64 {
    let mut before = server.usage().resident_bytes;
    for _ in 0..SETTLE_TRIES {
        tokio::time::sleep(SETTLE_STEP).await;
        let resident = server.usage().resident_bytes;
        if resident.abs_diff(before) < before / 100 {
            return resident;
        }
        before = resident;
    }
    before
}
