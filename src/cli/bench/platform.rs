//! `holdfast bench platform`: the platform on real services, from commits in a source to answers: how soon, and how many.
//!
//! Invariant: a change counts as carried once an exact answer has it; what the services use is shown beside what holdfast does.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::cluster::{Answer, Cluster, QUERIES};
use super::machine::{self, Usage};
use super::shop::{Shop, Work};
use super::stats::{Runs, short};
use crate::clock;

/// One of each role, so that each shows what it costs.
const NODES: [&str; 5] = ["master-0", "capture-0", "gate-0", "slave-0", QUERIES[0]];
const COUNT: &str = "select sum(orders) as n from gmv_hour";
/// Not yet counted while the most is measured; more wait in the source.
const BACKLOG: u64 = 200_000;
const POLL: Duration = Duration::from_millis(2);
/// Each look reads every block.
const SELDOM: Duration = Duration::from_secs(1);
const SETTLES: Duration = Duration::from_secs(120);
/// A probe's own merchants.
const PROBES_FROM: u64 = 1_000_000;

/// Where the services are.
#[derive(Debug, Args)]
pub struct Services {
    /// With tiers, and the source `shop.orders`, whose table must not be there yet.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Of a user who may make the table and change its rows: mysql://root@127.0.0.1:3306/shop
    #[arg(long, value_name = "URL")]
    writer: String,
    /// A service's process, whose use is shown, too.
    #[arg(long, value_name = "NAME=PID", value_parser = beside)]
    beside: Vec<(String, u32)>,
    /// How long as much is written as is counted.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Changes a second while freshness is measured.
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    /// Commits that are waited for, one after another.
    #[arg(long, default_value_t = 500)]
    probes: u32,
}

fn beside(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("write it like mariadb=4711")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| format!("'{pid}' is no process number"))?))
}

struct Platform {
    // Dropped first.
    cluster: Cluster,
    services: Services,
}

/// Freshness at a rate, then the most that is carried.
pub async fn platform(services: Services) -> Result<()> {
    println!("{}", machine::describe());
    let given =
        std::fs::read_to_string(&services.config).with_context(|| format!("reading {}", services.config.display()))?;
    Shop::make(&services.writer).await?;
    machine::wait_until_idle().await;
    let folder = tempfile::tempdir()?;
    let definition = format!("{given}\n{}", super::shop::DEFINITION);
    let cluster = Cluster::start(folder.path(), folder.path(), &definition, &NODES).await?;
    let platform = Platform { cluster, services };
    let left = platform.freshness().await?;
    platform.volume(left).await
}

impl Platform {
    async fn ask(&self, sql: &str) -> Result<Answer> {
        let url = self.cluster.url(QUERIES[0], "/api/v1/query");
        Cluster::query(&self.cluster.client, &url, sql).await
    }

    async fn counted(&self, rows: u64) -> Result<()> {
        let begun = clock::instant();
        loop {
            let answer = self.ask(COUNT).await?;
            if answer.is_exact && answer.number == rows {
                return Ok(());
            }
            ensure!(begun.elapsed() < SETTLES, "{rows} rows are not counted within {SETTLES:?}; last: {answer:?}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// From a commit until an answer has it, while others work; gives how many rows there are then.
    async fn freshness(&self) -> Result<u64> {
        let Services { writer, rate, probes, .. } = &self.services;
        let shop = Shop::open(writer, Work::Paced { changes_a_second: *rate }).await?;
        let mut probe = Shop::connect(writer).await?;
        let mut taken = Vec::new();
        for number in 0..u64::from((*probes).max(1)) {
            let merchant = PROBES_FROM + number;
            Shop::order(&mut probe, merchant).await?;
            let committed = clock::instant();
            let sql = format!("{COUNT} where merchant_id = {merchant}");
            while self.ask(&sql).await?.number < 1 {
                ensure!(committed.elapsed() < SETTLES, "a commit is not visible within {SETTLES:?}");
                tokio::time::sleep(POLL).await;
            }
            taken.push(committed.elapsed().as_secs_f64() * 1_000.0);
        }
        let (written, seconds) = (shop.written(), shop.seconds());
        let rows = shop.close().await?.rows() + u64::from((*probes).max(1));
        self.counted(rows).await?;
        let runs = Runs::new(taken);
        let at = |share| short(runs.percentile(share));
        println!(
            "commit to visible in an answer, beside {} changes/s: p50 {} ms, p90 {}, p99 {}, most {} ({probes} commits)",
            short(written.changes() as f64 / seconds),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
        Ok(rows)
    }

    /// As much as is carried: writers wait while too much is not counted yet.
    async fn volume(&self, before: u64) -> Result<()> {
        let used_before = self.used();
        let begun = clock::instant();
        let shop = Shop::open(&self.services.writer, Work::Most).await?;
        while begun.elapsed() < Duration::from_secs(self.services.seconds) {
            let answer = self.ask(COUNT).await?;
            let waiting = (before + shop.written().rows()).saturating_sub(answer.number);
            shop.hold(waiting > BACKLOG);
            tokio::time::sleep(SELDOM).await;
        }
        let written = shop.close().await?;
        let wrote = begun.elapsed();
        self.counted(before + written.rows()).await?;
        let all = begun.elapsed().as_secs_f64();
        println!(
            "carried: {} changes/s for {:.0} s ({} changes; the last ones counted {:.1} s after their commit)",
            short(written.changes() as f64 / all),
            all,
            short(written.changes() as f64),
            all - wrote.as_secs_f64()
        );
        println!("{:<14} {:>6} {:>26} {:>10}", "process", "cores", "changes a core and second", "resident");
        for ((name, now), (_, then)) in self.used().into_iter().zip(used_before) {
            let cpu = (now.cpu_seconds - then.cpu_seconds).max(0.01);
            println!(
                "{name:<14} {:>6.2} {:>26} {:>7} MB",
                cpu / all,
                short(written.changes() as f64 / cpu),
                now.resident_bytes >> 20
            );
        }
        Ok(())
    }

    fn used(&self) -> Vec<(String, Usage)> {
        let mut pids = self.services.beside.clone();
        pids.extend(self.cluster.pids());
        pids.push(("this bench".to_owned(), std::process::id()));
        pids.into_iter().map(|(name, pid)| (name, machine::usage_of(pid))).collect()
    }
}
