//! `holdfast bench scale`, first two parts: the same work by one slave and by two, and what eight slaves cost beside one.
//!
//! Invariant: both sides of a comparison count the same rows, in fresh folders, until an exact answer counts them all.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::fleet::{Cpu, Fleet};
use super::orders::{self, Random};
use super::stats::{Runs, short};
use super::{machine, pipeline};
use crate::admin::view::{ClusterView, TaskKind};
use crate::clock;

/// With eight aggregates each, so much work in the fold that what is around it is about a fifth of it.
const METRICS: u32 = 96;
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// Questions take processor time, too; those over all figures the more, the newer the figures are.
const SELDOM: Duration = Duration::from_millis(500);
/// The same, where the time until then is measured, too: seconds.
const STORED: Duration = Duration::from_millis(100);
/// Reports of nodes come once a second.
const REPORTED: Duration = Duration::from_millis(2_500);

/// One group for a merchant, day and metric, so that the work is in the fold and not in what the store writes.
const MERCHANTS: u64 = 250;

/// The table of all figures, with many metrics of many aggregates: the work of a slave. The first one counts every row.
fn heavy() -> String {
    let table = orders::DEFINITION.split("[[metric]]").next().unwrap_or_default();
    let mut definition = table.to_owned();
    for number in 0..METRICS {
        let _ = write!(
            definition,
            "\n[[metric]]\nname = \"m{number}\"\ntable = \"orders\"\nwhere = \"amount > {number}\"\ngroup_by = []\n\
             select = [\"count(*) as orders\", \"sum(amount) as gmv\", \"avg(amount) as basket\", \
             \"count(amount) as amounts\", \"sum(order_id) as ids\", \"avg(order_id) as id\", \"count(order_id) as known\", \
             \"count(channel) as told\"]\nwindows = [\"day\"]\n"
        );
    }
    definition
}

pub fn compute_owners(view: &ClusterView) -> impl Iterator<Item = &str> {
    let computes = view.tasks.iter().filter(|task| task.kind == TaskKind::Compute);
    computes.filter_map(|task| task.owner.as_deref())
}

/// Waits until every compute task has an owner, of so many.
pub async fn wait_for_slaves(fleet: &Fleet, slaves: usize) -> Result<()> {
    wait_until(fleet, "slaves have not all got tasks", |view| {
        let owners: std::collections::BTreeSet<&str> = compute_owners(view).collect();
        owners.len() == slaves && compute_owners(view).count() == usize::from(view.partitions)
    })
    .await
}

async fn wait_until(fleet: &Fleet, otherwise: &str, is_so: impl Fn(&ClusterView) -> bool) -> Result<()> {
    let start = clock::instant();
    while start.elapsed() < PATIENCE {
        if is_so(&fleet.base.cluster().await?) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("{otherwise} within {PATIENCE:?}");
}

/// One slave and two count the same stored rows.
pub async fn second_slave(rows: u64, runs: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, _) = pipeline::write_file_of(MERCHANTS, folder.path(), rows, 0)?;
    println!("\n{} rows, stored before slaves start; {METRICS} metrics over each row", short(rows as f64));
    machine::wait_until_idle().await;
    let (mut ratios, mut allowed, mut rates) = (vec![], vec![], [vec![], vec![]]);
    for run in 0..runs {
        let (mut taken, mut taken_cpu) = ([0.0; 2], 0.0);
        for slaves in [1, 2] {
            let place = folder.path().join(format!("{run}-{slaves}"));
            let (seconds, cpu) = count_stored(&place, &file, rows, slaves).await?;
            std::fs::remove_dir_all(place)?;
            taken[slaves - 1] = seconds;
            rates[slaves - 1].push(rows as f64 / seconds);
            println!(
                "  {slaves} slave{}: {seconds:.2} s; processor seconds: slaves {:.2}, store and all others {:.2}",
                if slaves == 1 { " " } else { "s" },
                cpu.slaves,
                cpu.base
            );
            taken_cpu = cpu.all();
        }
        // Two slaves share the two cores with the store, which reads for them, and with all else.
        allowed.push(taken[0] / (taken_cpu / 2.0));
        ratios.push(taken[0] / taken[1]);
    }
    let [one, two] = rates;
    println!("one slave with one thread, rows/s:   {}", Runs::new(one));
    println!("two of them, rows/s:                 {}", Runs::new(two));
    println!("times as fast (goal 1.7 or more):    {}", Runs::new(ratios));
    println!("if two cores did nothing else:       {}", Runs::new(allowed));
    Ok(())
}

/// From the first task that a slave was given to an exact answer over all rows.
async fn count_stored(folder: &Path, file: &Path, rows: u64, slaves: usize) -> Result<(f64, Cpu)> {
    let mut fleet = Fleet::start(folder, &heavy()).await?;
    fleet.base.ingest("orders", file).await?;
    tokio::time::sleep(REPORTED).await;
    wait_until(&fleet, "gates did not bring all rows to kv", |view| view.freshness.lag == 0).await?;
    let before = fleet.cpu();
    for _ in 0..slaves {
        fleet.add_slave()?;
    }
    wait_until(&fleet, "no slave has got a task", |view| compute_owners(view).next().is_some()).await?;
    let start = clock::instant();
    fleet.base.wait_for("m0_day", rows, STORED).await?;
    Ok((start.elapsed().as_secs_f64(), fleet.cpu().since(before)))
}

const MANY: usize = 8;

/// Of the load under which one slave is compared with eight, rows a second: one slave carries it. Loaded as fast as it goes, one is
/// late, and saves by being so what eight spend on fresher results.
const RATE: u64 = 250_000;
const ROWS_A_REQUEST: u64 = 10_000;

/// One slave and eight count the same rows as they come; what all processes take of the processors.
pub async fn eight_slaves(rows: u64, runs: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rate = short(RATE as f64);
    println!("\n{} rows, {rate} a second by HTTP while slaves count; the usual metric", short(rows as f64));
    machine::wait_until_idle().await;
    let (mut more, mut costs) = (vec![], [vec![], vec![]]);
    for run in 0..runs {
        for (index, slaves) in [1, MANY].into_iter().enumerate() {
            let place = folder.path().join(format!("{run}-{slaves}"));
            let cpu = count_live(&place, rows, slaves).await?;
            std::fs::remove_dir_all(place)?;
            costs[index].push(cpu.all() * 1e9 / rows as f64);
            println!("  {slaves} slaves: processor seconds: slaves {:.2}, all others {:.2}", cpu.slaves, cpu.base);
        }
        let last = |index: usize| costs[index].last().copied().unwrap_or_default();
        more.push((last(1) / last(0) - 1.0) * 100.0);
    }
    let [one, many] = costs;
    println!("processor time with one slave, ns a row:     {}", Runs::new(one));
    println!("processor time with {MANY} slaves, ns a row:      {}", Runs::new(many));
    println!("more, percent (goal 15 or less):             {}", Runs::new(more));
    Ok(())
}

async fn count_live(folder: &Path, rows: u64, slaves: usize) -> Result<Cpu> {
    let mut fleet = Fleet::start(folder, orders::DEFINITION).await?;
    for _ in 0..slaves {
        fleet.add_slave()?;
    }
    wait_for_slaves(&fleet, slaves).await?;
    fleet.base.wait_for_orders(0).await?;
    // What starting took is over.
    tokio::time::sleep(REPORTED).await;
    let (before, begun, mut random) = (fleet.cpu(), clock::instant(), Random::new(1));
    for first in (0..rows).step_by(ROWS_A_REQUEST as usize) {
        let mut text = orders::HEADER.to_owned();
        orders::append_rows(&mut text, &mut random, first, ROWS_A_REQUEST.min(rows - first), rows, 0);
        let due = Duration::from_secs_f64(first as f64 / RATE as f64);
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        fleet.base.post_rows("orders", text).await?;
    }
    fleet.base.wait_for("gmv_hour", rows, SELDOM).await?;
    Ok(fleet.cpu().since(before))
}

/// Rows of so many orders from number `first` on, with their header.
pub fn some_rows(random: &mut Random, first: u64, count: u64) -> String {
    let mut text = orders::HEADER.to_owned();
    orders::append_rows(&mut text, random, first, count, 1_000_000, 0);
    text
}
