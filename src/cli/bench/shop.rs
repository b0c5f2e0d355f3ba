//! The shop whose database is captured while the platform is measured: orders placed, corrected and cancelled in transactions
//! of many rows.
//!
//! Invariant: what is written is counted once it is committed; writers end when the shop is closed.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use tokio::task::JoinSet;

use super::orders::{CHANNELS, MERCHANTS, Random};
use crate::clock;

const WRITERS: u64 = 4;
const NAP: Duration = Duration::from_millis(2);

pub const DEFINITION: &str = r#"
[[table]]
name = "orders"
key = ["order_id"]
partition_by = "merchant_id"
time = "paid_at"
columns = { order_id = "int", merchant_id = "int", status = "text", channel = "text", amount = "decimal(12,2)", buyer_id = "int", paid_at = "timestamp" }

[[metric]]
name = "gmv"
table = "orders"
group_by = ["channel"]
select = ["count(*) as orders", "sum(amount) as gmv", "avg(amount) as basket"]
windows = ["hour", "day"]
"#;

const CREATE: &str = "create table orders (order_id bigint primary key, merchant_id int not null, status varchar(16) not null, \
    channel varchar(16), amount decimal(12,2) not null, buyer_id bigint, paid_at datetime not null)";

/// How much is written.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    Paced { changes_a_second: u64 },
    Most,
}

/// Committed so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    inserted: u64,
    updated: u64,
    deleted: u64,
}

impl Written {
    pub fn changes(self) -> u64 {
        self.inserted + self.updated + self.deleted
    }

    /// How many rows more there are.
    pub fn rows(self) -> u64 {
        self.inserted - self.deleted
    }
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    held: AtomicBool,
    inserted: AtomicU64,
    updated: AtomicU64,
    deleted: AtomicU64,
}

/// Writers at work.
pub struct Shop {
    shared: Arc<Shared>,
    writers: JoinSet<Result<()>>,
    begun: Instant,
}

impl Shop {
    /// Makes the table; an error if it is there: whose rows they are is not known.
    pub async fn make(url: &str) -> Result<()> {
        let mut conn = Self::connect(url).await?;
        conn.query_drop(CREATE).await.context("making the table orders, which must not be there yet")?;
        Ok(conn.disconnect().await?)
    }

    pub async fn connect(url: &str) -> Result<Conn> {
        let opts = Opts::from_url(url).context("--writer")?;
        Conn::new(opts).await.with_context(|| format!("connecting to {url}"))
    }

    pub async fn open(url: &str, work: Work) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut writers = JoinSet::new();
        for number in 0..WRITERS {
            let conn = Self::connect(url).await?;
            let writer =
                Writer { shared: shared.clone(), random: Random::new(number), next: fresh_id(number), turn: 0 };
            writers.spawn(writer.run(conn, work));
        }
        Ok(Self { shared, writers, begun: clock::instant() })
    }

    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Relaxed);
    }

    pub fn written(&self) -> Written {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        // Deletions first: never more of them than there were rows.
        let deleted = read(&self.shared.deleted);
        Written { deleted, inserted: read(&self.shared.inserted), updated: read(&self.shared.updated) }
    }

    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Ends the writers, and gives what they have committed.
    pub async fn close(mut self) -> Result<Written> {
        self.shared.closed.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.context("a writer")??;
        }
        Ok(self.written())
    }

    /// One order of a merchant's, committed.
    pub async fn order(conn: &mut Conn, merchant: u64) -> Result<()> {
        let id = fresh_id(WRITERS) + merchant % 1_000;
        let row = format!("({id}, {merchant}, 'paid', 'app', 1.00, 1, utc_timestamp())");
        Ok(conn.query_drop(format!("insert into orders values {row}")).await?)
    }
}

struct Writer {
    shared: Arc<Shared>,
    random: Random,
    /// The next order's number.
    next: u64,
    turn: u64,
}

/// Above all that this writer had before, and apart from those of others: their transactions do not meet.
fn fresh_id(writer: u64) -> u64 {
    writer * 1_000_000_000_000_000_000 + clock::Clock::System.now_ms() as u64 * 10_000
}

impl Writer {
    async fn run(mut self, mut conn: Conn, work: Work) -> Result<()> {
        // Of a transaction. At a rate there are many smaller ones, as applications make them.
        let rows = match work {
            Work::Paced { changes_a_second } => (changes_a_second / 200).clamp(1, 500),
            Work::Most => 500,
        };
        let begun = clock::instant();
        let mut changes = 0;
        while !self.shared.closed.load(Ordering::Relaxed) {
            let is_ahead = match work {
                Work::Paced { changes_a_second } => {
                    changes as f64 * WRITERS as f64 > begun.elapsed().as_secs_f64() * changes_a_second as f64
                }
                Work::Most => self.shared.held.load(Ordering::Relaxed),
            };
            if is_ahead {
                tokio::time::sleep(NAP).await;
                continue;
            }
            changes += self.transaction(&mut conn, rows).await?;
        }
        Ok(conn.disconnect().await?)
    }

    /// Four transactions place orders; the fifth corrects some of them, and cancels a few.
    async fn transaction(&mut self, conn: &mut Conn, rows: u64) -> Result<u64> {
        let count = |counter: &AtomicU64, rows: u64| counter.fetch_add(rows, Ordering::Relaxed);
        self.turn += 1;
        if !self.turn.is_multiple_of(5) {
            conn.query_drop(self.insert(rows)).await?;
            self.next += rows;
            count(&self.shared.inserted, rows);
            return Ok(rows);
        }
        let (corrected, cancelled) = (self.next - rows, self.next - rows - rows / 10);
        let range = |from: u64, to: u64| format!("order_id >= {from} and order_id < {to}");
        conn.query_drop("start transaction").await?;
        conn.query_drop(format!("update orders set amount = amount + 0.01 where {}", range(corrected, self.next)))
            .await?;
        let updated = conn.affected_rows();
        conn.query_drop(format!("delete from orders where {}", range(cancelled, corrected))).await?;
        let deleted = conn.affected_rows();
        conn.query_drop("commit").await?;
        count(&self.shared.updated, updated);
        count(&self.shared.deleted, deleted);
        Ok(updated + deleted)
    }

    fn insert(&mut self, rows: u64) -> String {
        let mut text = "insert into orders values ".to_owned();
        let now_ms = clock::Clock::System.now_ms();
        for number in self.next..self.next + rows {
            let merchant = self.random.below(MERCHANTS) + 1;
            let channel = CHANNELS[self.random.below(4) as usize];
            let cents = self.random.below(50_000) + 100;
            let (buyer, minutes) = (self.random.below(100_000), self.random.below(90));
            let paid_at = chrono::DateTime::from_timestamp_millis(now_ms - minutes as i64 * 60_000).unwrap_or_default();
            let comma = if number > self.next { ", " } else { "" };
            write!(
                text,
                "{comma}({number}, {merchant}, 'paid', '{channel}', {}.{:02}, {buyer}, '{}')",
                cents / 100,
                cents % 100,
                paid_at.format("%F %T")
            )
            .expect("writing to a string does not fail");
        }
        text
    }
}
