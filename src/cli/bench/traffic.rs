//! Clients of a cluster while processes of it die: one writes with keys, one asks.
//!
//! Invariant: a batch is repeated until it is acknowledged; every exact answer is held against what was acknowledged and what
//! was sent, and the first wrong one ends the measurement.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinHandle;

use super::cluster::{Cluster, GATES, QUERIES};
use super::orders::{CHANNELS, HEADER, MERCHANTS};
use crate::clock::{Clock, instant};
use crate::locks::lock;

const ROWS: u64 = 64;
/// What answers lack under heavy load is another figure.
const PAUSE: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(20);
/// The traffic's own day: few blocks are read, and every partition's record.
const SQL: &str = "select sum(orders) as n from gmv_hour where window_start >= '2026-11-02 00:00:00'";
const GIVES_UP: Duration = Duration::from_secs(60);

/// What the clients have seen.
#[derive(Default)]
pub struct Seen {
    begun: u64,
    /// When each batch was acknowledged.
    acknowledged_ms: Vec<i64>,
    /// The newest exact answer's time.
    pub exact_ms: i64,
    pub wrong: Option<String>,
    /// Of the requests that ended since the last reset.
    pub write: Toll,
    pub ask: Toll,
}

/// What a client had to bear.
#[derive(Debug, Clone, Copy, Default)]
pub struct Toll {
    pub most_attempts: u32,
    pub slowest: Duration,
}

impl Toll {
    fn add(&mut self, attempts: u32, took: Duration) {
        self.most_attempts = self.most_attempts.max(attempts);
        self.slowest = self.slowest.max(took);
    }
}

/// Both clients, until this is dropped.
pub struct Traffic {
    pub seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub fn start(cluster: &Cluster) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let gates = GATES.map(|gate| cluster.url(gate, "/api/v1/ingest/orders"));
        let queries = QUERIES.map(|query| cluster.url(query, "/api/v1/query"));
        let writer = write(cluster.client.clone(), gates, seen.clone());
        let asker = ask(cluster.client.clone(), queries, seen.clone());
        Self { seen, tasks: vec![tokio::spawn(writer), tokio::spawn(asker)] }
    }

    /// Tolls are counted from now on.
    pub fn reset(&self) {
        let mut seen = lock(&self.seen);
        (seen.write, seen.ask) = Default::default();
    }

    /// Waits for an exact answer as of `since_ms` or later.
    pub async fn exact(&self, since_ms: i64) -> Result<()> {
        let begun = instant();
        loop {
            {
                let seen = lock(&self.seen);
                if let Some(wrong) = &seen.wrong {
                    bail!("{wrong}");
                }
                if seen.exact_ms >= since_ms {
                    return Ok(());
                }
            }
            if begun.elapsed() > GIVES_UP {
                bail!("no exact answer within {GIVES_UP:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A batch's rows: merchants all over, so that every partition gets some.
fn rows(batch: u64) -> String {
    let mut text = HEADER.to_owned();
    for row in 0..ROWS {
        let (merchant, channel) =
            ((batch * ROWS + row) * 7_919 % MERCHANTS + 1, CHANNELS[row as usize % CHANNELS.len()]);
        let order = 1_000_000_000 + batch * ROWS + row;
        writeln!(text, "{order},{merchant},{channel},1.00,2026-11-02 10:00:00")
            .expect("writing to a string does not fail");
    }
    text
}

async fn write(client: reqwest::Client, gates: [String; 2], seen: Arc<Mutex<Seen>>) {
    let mut turn = 0;
    for batch in 0.. {
        lock(&seen).begun = batch + 1;
        let (begun, key) = (instant(), format!("bench-{batch}"));
        for attempts in 1.. {
            turn += 1;
            if Cluster::ingest(&client, &gates[turn % 2], &key, rows(batch)).await.is_ok() {
                let mut seen = lock(&seen);
                seen.acknowledged_ms.push(Clock::System.now_ms());
                seen.write.add(attempts, begun.elapsed());
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(client: reqwest::Client, queries: [String; 2], seen: Arc<Mutex<Seen>>) {
    let mut turn = 0;
    loop {
        let begun = instant();
        for attempts in 1.. {
            turn += 1;
            if let Ok(answer) = Cluster::query(&client, &queries[turn % 2], SQL).await {
                let mut seen = lock(&seen);
                seen.ask.add(attempts, begun.elapsed());
                if answer.is_exact {
                    let least = seen.acknowledged_ms.partition_point(|at_ms| *at_ms < answer.as_of_ms) as u64 * ROWS;
                    let most = seen.begun * ROWS;
                    if !(least..=most).contains(&answer.number) {
                        let number = answer.number;
                        seen.wrong =
                            Some(format!("an answer said exact with {number} rows; {least} to {most} would be"));
                    }
                    seen.exact_ms = seen.exact_ms.max(answer.as_of_ms);
                }
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
