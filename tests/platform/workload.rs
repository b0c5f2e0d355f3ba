//! A shop that works on its database: orders placed, paid, corrected, moved between hours and merchants, cancelled, rolled back,
//! and its table altered.
//!
//! Invariant: the same seed makes the same statements; whether one happened decides the database, which is the truth. The shop
//! works until it is told to stop, and survives that its database does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts};

pub const CREATE: &str = "create table shop.orders (order_id bigint primary key auto_increment, merchant_id int not null, \
    status varchar(16) not null, channel varchar(16), amount decimal(12,2) not null, buyer_id bigint, paid_at datetime(3)) \
    character set utf8mb4";

/// Above this many rows more are deleted than placed.
const MOST_ORDERS: u64 = 6_000;
const PAUSE: Duration = Duration::from_millis(200);

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A shop at work.
pub struct Shop {
    stop: Arc<AtomicBool>,
    transactions: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Shop {
    pub fn open(url: String, seed: u64) -> Self {
        let (stop, transactions) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (stop.clone(), transactions.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(work(&url, Random(seed), &stopped, &counted));
        });
        Self { stop, transactions, thread: Some(thread) }
    }

    /// Begun, whether they were committed or rolled back.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    pub fn close(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it was opened").join().expect("the shop does not panic");
        self.transactions()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn work(url: &str, mut random: Random, stop: &AtomicBool, transactions: &AtomicU64) {
    let mut conn: Option<Conn> = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut conn else {
            match Conn::new(Opts::from_url(url).expect("the test's own url")).await {
                Ok(opened) => conn = Some(opened),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            continue;
        };
        transactions.fetch_add(1, Ordering::Relaxed);
        match transaction(open, &mut random).await {
            // What the server refused is the server's matter; the shop goes on.
            Ok(()) | Err(Error::Server(_)) => {}
            Err(_) => conn = None,
        }
        tokio::time::sleep(Duration::from_millis(random.below(6))).await;
    }
    if let Some(conn) = conn {
        // Everything was said already.
        let _ = conn.disconnect().await;
    }
}

async fn transaction(conn: &mut Conn, random: &mut Random) -> Result<(), Error> {
    let orders: Option<u64> = conn.query_first("select count(*) from orders").await?;
    match random.below(40) {
        0 => return alter(conn, random).await,
        1 if orders.unwrap_or(0) > MOST_ORDERS => {
            return conn.query_drop("delete from orders order by order_id limit 1500").await;
        }
        _ => {}
    }
    conn.query_drop("start transaction").await?;
    for _ in 0..=random.below(4) {
        let statement = statement(random, orders.unwrap_or(0) > MOST_ORDERS);
        conn.query_drop(statement).await?;
    }
    conn.query_drop(if random.below(8) == 0 { "rollback" } else { "commit" }).await
}

/// Columns that nobody counts come and go between those that are counted.
async fn alter(conn: &mut Conn, random: &mut Random) -> Result<(), Error> {
    conn.query_drop(random.pick(&[
        "alter table orders add column if not exists note varchar(40) default 'x' after status",
        "alter table orders drop column if exists note",
        "alter table orders add column if not exists extra int first",
        "alter table orders drop column if exists extra",
        "alter table orders add index if not exists by_merchant (merchant_id)",
    ]))
    .await
}

fn statement(random: &mut Random, is_full: bool) -> String {
    let some = |random: &mut Random| format!("order by order_id desc limit {}", 1 + random.below(8));
    let merchant = random.below(40) + 1;
    match random.below(if is_full { 12 } else { 16 }) {
        0 | 1 => format!("delete from orders where merchant_id = {merchant} {}", some(random)),
        2 | 3 => {
            let status = random.pick(&["paid", "refunded", "placed"]);
            format!("update orders set status = '{status}' where merchant_id = {merchant} {}", some(random))
        }
        4 => {
            let hours = random.below(5) as i64 - 2;
            format!(
                "update orders set paid_at = paid_at + interval {hours} hour where merchant_id = {merchant} {}",
                some(random)
            )
        }
        5 => {
            let other = random.below(40) + 1;
            format!("update orders set merchant_id = {other} where merchant_id = {merchant} {}", some(random))
        }
        6 => format!(
            "update orders set amount = amount + {}.{:02}, buyer_id = null where merchant_id = {merchant} {}",
            random.below(50),
            random.below(100),
            some(random)
        ),
        7 => format!("update orders set paid_at = null where merchant_id = {merchant} order by order_id limit 1"),
        _ => insert(random),
    }
}

fn insert(random: &mut Random) -> String {
    let row = |random: &mut Random| {
        let channel = random.pick(&["'app'", "'web'", "'söder'", "'店'", "null"]);
        let status = random.pick(&["paid", "paid", "paid", "placed"]);
        let (day, hour, minute) = (10 + random.below(2), random.below(24), random.below(60));
        let buyer = random.below(50);
        format!(
            "({}, '{status}', {channel}, {}.{:02}, {}, '2026-11-{day} {hour:02}:{minute:02}:07.125')",
            random.below(40) + 1,
            random.below(900),
            random.below(100),
            if buyer == 0 { "null".to_owned() } else { buyer.to_string() },
        )
    };
    let rows: Vec<String> = (0..=random.below(12)).map(|_| row(random)).collect();
    let columns = "merchant_id, status, channel, amount, buyer_id, paid_at";
    format!("insert into orders ({columns}) values {}", rows.join(", "))
}
