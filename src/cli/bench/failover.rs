//! `holdfast bench failover`: how long a cluster of real processes lacks what was killed or stopped, beside the goals.
//!
//! Invariant: rows flow and answers are checked all the time; a figure is taken from a whole cluster, by a client, from the
//! moment of the signal.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::cluster::{Cluster, GATES, MASTERS, QUERIES, SLAVES};
use super::machine;
use super::orders::{self, Random};
use super::stats::{Runs, short};
use super::traffic::Traffic;
use crate::clock::{Clock, instant};
use crate::locks::lock;

const ROWS_A_REQUEST: u64 = 100_000;
/// A decision is asked for this often, of one node after the other.
const ASK_EVERY: Duration = Duration::from_millis(20);
const GIVES_UP: Duration = Duration::from_secs(60);
/// After a process was replaced and goes on: time to do harm.
const HARM: Duration = Duration::from_millis(500);
/// For clients to meet what was killed.
const MEET: Duration = Duration::from_millis(1_500);

/// What happens to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    MasterKilled,
    MasterStopped,
    SlaveKilled,
    SlaveStopped,
    GateKilled,
    QueryKilled,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::MasterKilled => "active master killed: the next one commits",
            Self::MasterStopped => "active master stopped: the next one commits",
            Self::SlaveKilled => "slave killed: all is exact as of later",
            Self::SlaveStopped => "slave stopped: all is exact as of later",
            Self::GateKilled => "gate killed: its clients' slowest request",
            Self::QueryKilled => "query node killed: its clients' slowest question",
        }
    }

    /// Milliseconds at p99.
    fn goal(self) -> Option<f64> {
        match self {
            Self::MasterKilled => Some(800.0),
            Self::MasterStopped | Self::SlaveKilled => Some(1_500.0),
            Self::SlaveStopped => Some(3_000.0),
            Self::GateKilled | Self::QueryKilled => None,
        }
    }
}

/// Does it `kills` times for each kind, with `rows` rows of state; none: all kinds.
/// The processes' logs go to `logs`, with a list of all kills.
pub async fn failover(kills: u32, rows: u64, kinds: Vec<Kind>, logs: Option<PathBuf>) -> Result<()> {
    println!("{}", machine::describe());
    machine::wait_until_idle().await;
    let folder = tempfile::tempdir()?;
    let list = match &logs {
        None => None,
        Some(logs) => {
            std::fs::create_dir_all(logs).with_context(|| format!("creating {}", logs.display()))?;
            Some(File::create(logs.join("kills.txt"))?)
        }
    };
    let names = [MASTERS.as_slice(), &["store"], &GATES, &SLAVES, &QUERIES].concat();
    let logs = logs.as_deref().unwrap_or(folder.path());
    let cluster = Cluster::start(folder.path(), logs, orders::DEFINITION, &names).await?;
    let mut bench = Failover { traffic: Traffic::start(&cluster), cluster, list, most_attempts: 0, turn: 0 };
    bench.load(rows).await?;
    println!(
        "{} masters, a store, {} gates, {} slaves, {} query nodes; {} rows of state; each kind {kills} times",
        MASTERS.len(),
        GATES.len(),
        SLAVES.len(),
        QUERIES.len(),
        short(rows as f64)
    );
    println!("{:<50} {:>8} {:>8} {:>8} {:>16} {:>8}", "ms", "median", "p99", "most", "spread", "goal p99");
    let kinds = if kinds.is_empty() { Kind::value_variants().to_vec() } else { kinds };
    let mut missed = Vec::new();
    for kind in kinds {
        let runs = bench.measure(kind, kills).await.with_context(|| kind.words())?;
        let p99 = runs.percentile(0.99);
        let (least, most) = (runs.percentile(0.0), runs.percentile(1.0));
        let goal = kind.goal().map_or("–".to_owned(), short);
        let spread = format!("{}–{}", short(least), short(most));
        let (median, shown) = (short(runs.median()), short(p99));
        println!("{:<50} {median:>8} {shown:>8} {:>8} {spread:>16} {goal:>8}", kind.words(), short(most));
        if kind.goal().is_none() {
            println!("{:<50} {:>8}", "  attempts that a request needed at most (goal 2)", bench.most_attempts);
            missed.extend((bench.most_attempts > 2).then(|| kind.words()));
        }
        missed.extend(kind.goal().filter(|goal| p99 > *goal).map(|_| kind.words()));
    }
    match missed[..] {
        [] => Ok(()),
        _ => bail!("goals not met: {}", missed.join("; ")),
    }
}

struct Failover {
    // Before the cluster: its clients end first.
    traffic: Traffic,
    cluster: Cluster,
    list: Option<File>,
    /// Of the kind that was measured last.
    most_attempts: u32,
    turn: usize,
}

impl Failover {
    /// State of one day, spread over all partitions.
    async fn load(&self, rows: u64) -> Result<()> {
        let mut random = Random::new(1);
        for first in (0..rows).step_by(ROWS_A_REQUEST as usize) {
            let mut text = orders::HEADER.to_owned();
            orders::append_rows(&mut text, &mut random, first, ROWS_A_REQUEST.min(rows - first), rows, 0);
            let url = self.cluster.url(GATES[0], "/api/v1/ingest/orders");
            Cluster::ingest(&self.cluster.client, &url, &format!("state-{first}"), text).await?;
        }
        self.traffic.exact(Clock::System.now_ms()).await
    }

    async fn measure(&mut self, kind: Kind, kills: u32) -> Result<Runs> {
        self.most_attempts = 0;
        let mut taken = Vec::new();
        for _ in 0..kills.max(1) {
            self.cluster.wait_until_whole().await?;
            self.traffic.exact(Clock::System.now_ms()).await?;
            self.turn += 1;
            let took = match kind {
                Kind::MasterKilled => self.master("KILL").await,
                Kind::MasterStopped => self.master("STOP").await,
                Kind::SlaveKilled => self.slave("KILL").await,
                Kind::SlaveStopped => self.slave("STOP").await,
                Kind::GateKilled => self.client_of(GATES[self.turn % GATES.len()]).await,
                Kind::QueryKilled => self.client_of(QUERIES[self.turn % QUERIES.len()]).await,
            };
            taken.push(took?.as_secs_f64() * 1e3);
        }
        self.cluster.wait_until_whole().await?;
        self.traffic.exact(Clock::System.now_ms()).await?;
        Ok(Runs::new(taken))
    }

    fn end(&mut self, name: &str, signal: &str) -> Result<()> {
        if signal == "KILL" { self.cluster.kill(name) } else { self.cluster.signal(name, signal) }
    }

    /// Notes in the list that `victim` was killed or stopped `took` ago.
    fn note(&mut self, kind: Kind, victim: &str, took: Duration) -> Result<()> {
        let Some(list) = &mut self.list else { return Ok(()) };
        let at_ms = Clock::System.now_ms() - took.as_millis() as i64;
        let at = chrono::DateTime::from_timestamp_millis(at_ms).unwrap_or_default();
        Ok(writeln!(list, "{} {victim} {kind:?} {} ms", at.format("%FT%T%.3fZ"), took.as_millis())?)
    }

    fn bring_back(&mut self, name: &str, signal: &str) -> Result<()> {
        if signal == "KILL" { self.cluster.run(name) } else { self.cluster.signal(name, "CONT") }
    }

    async fn master(&mut self, signal: &str) -> Result<Duration> {
        let active = self.cluster.active().await?;
        let begun = instant();
        self.end(&active, signal)?;
        let others = MASTERS.iter().chain(&GATES).chain(&QUERIES).filter(|name| **name != active);
        let others: Vec<String> = others.map(|name| self.cluster.url(name, "/api/v1/tiers/cold")).collect();
        let mut asked = tokio::task::JoinSet::new();
        let mut due = tokio::time::interval(ASK_EVERY);
        let mut others = others.into_iter().cycle();
        let took = loop {
            tokio::select! {
                Some(decided) = asked.join_next() => if decided.unwrap_or(false) { break begun.elapsed() },
                _ = due.tick() => {
                    let url = others.next().context("there are other nodes")?;
                    asked.spawn(Cluster::decides(self.cluster.client.clone(), url));
                }
            }
            if begun.elapsed() > GIVES_UP {
                bail!("nobody decides within {GIVES_UP:?}");
            }
        };
        drop(asked);
        self.note(if signal == "KILL" { Kind::MasterKilled } else { Kind::MasterStopped }, &active, took)?;
        self.bring_back(&active, signal)?;
        Ok(took)
    }

    async fn slave(&mut self, signal: &str) -> Result<Duration> {
        let victim = SLAVES[self.turn % SLAVES.len()];
        let (begun, begun_ms) = (instant(), Clock::System.now_ms());
        self.end(victim, signal)?;
        self.traffic.exact(begun_ms + 1).await?;
        let took = begun.elapsed();
        self.note(if signal == "KILL" { Kind::SlaveKilled } else { Kind::SlaveStopped }, victim, took)?;
        self.bring_back(victim, signal)?;
        if signal != "KILL" {
            tokio::time::sleep(HARM).await;
            self.traffic.exact(Clock::System.now_ms()).await?;
        }
        Ok(took)
    }

    /// What clients notice of the loss of a node that they talk to.
    async fn client_of(&mut self, victim: &str) -> Result<Duration> {
        self.traffic.reset();
        self.cluster.kill(victim)?;
        tokio::time::sleep(MEET).await;
        self.traffic.exact(Clock::System.now_ms()).await?;
        let toll = {
            let seen = lock(&self.traffic.seen);
            if victim.starts_with("gate") { seen.write } else { seen.ask }
        };
        self.most_attempts = self.most_attempts.max(toll.most_attempts);
        self.cluster.run(victim)?;
        Ok(toll.slowest)
    }
}
