//! Clients that never slow down, stall, or never ask the same twice: memory stays within the configured limits.
//!
//! Invariant: what was acknowledged in the flood is counted once; what was refused is not counted.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::client::{CSV, Http, now_ms};
use crate::sandbox::Sandbox;
use crate::shop;

const FLOOD: Duration = Duration::from_secs(3);
const ROUNDS: usize = 7;
/// By then the rows' groups are all there, and the stores' own caches are full.
const FILLED: usize = 4;
const CONNECTIONS: usize = 24;
const ROWS: i64 = 5_000;
/// What the small limits below, the stores' buffers, some fifty threads and the process itself may take together.
const PEAK: u64 = 512 << 20;
/// What the same flood may add once everything is filled: its rows fall into the same groups.
const GROWTH: u64 = 64 << 20;

const SMALL: &str = r#"
[gate]
ingest_memory = "8MiB"
ingest_wait = "100ms"
backlog_batches = 40
in_flight = 8
mailbox = 16
body_idle = "2s"
request_bytes = "1MiB"
chunk_bytes = "256KiB"
push_memory = "8MiB"
read_bytes = "256KiB"

[slave]
mailbox = 4
kv_read_bytes = "1MiB"
kv_read_memory = "16MiB"

[query]
block_memory = "16MiB"
plan_memory = "2MiB"

[tiers.mq]
page_cache = "8MiB"
[tiers.kv]
page_cache = "8MiB"
[tiers.hot]
page_cache = "8MiB"
[tiers.cache]
memory_limit = "16MiB"
"#;

fn body(first: i64) -> String {
    let mut text = shop::ORDERS_HEADER.to_owned();
    for id in first..first + ROWS {
        let (merchant, buyer, hour) = (id % 500, id % 1_000, id % 24);
        text.push_str(&format!("{id},{merchant},paid,web,1.00,{buyer},2026-03-27T{hour:02}:00:00Z\n"));
    }
    text
}

struct Flood {
    accepted: Cell<i64>,
    refused: Cell<u64>,
    next: Cell<i64>,
    longest: Cell<Duration>,
}

/// Sends as fast as it can, refused or not.
async fn pour(http: &Http, flood: &Flood, end: Instant) {
    while Instant::now() < end {
        let first = flood.next.replace(flood.next.get() + ROWS);
        let started = Instant::now();
        let reply = http.ingest("orders", CSV, None, body(first)).await.expect("the server answers");
        flood.longest.set(flood.longest.get().max(started.elapsed()));
        if reply.is_busy() {
            reply.assert_problem(reply.status, "a refusal");
            flood.refused.set(flood.refused.get() + 1);
        } else {
            flood.accepted.set(flood.accepted.get() + reply.receipt().accepted as i64);
        }
    }
}

#[test]
fn clients_that_never_slow_down_are_held_off_in_bounded_memory() {
    let sandbox = Sandbox::new(&shop::config_with(SMALL));
    let mut running = sandbox.start();
    let before = running.peak_bytes();
    let flood =
        Flood { accepted: Cell::new(0), refused: Cell::new(0), next: Cell::new(1), longest: Cell::new(Duration::ZERO) };
    let mut peaks = Vec::new();
    for _ in 0..ROUNDS {
        let end = Instant::now() + FLOOD;
        running.client.block_on(join_all((0..CONNECTIONS).map(|_| pour(&running.client.http, &flood, end))));
        assert_eq!(running.client.settled_number("select sum(orders) from placed_day"), flood.accepted.get());
        peaks.push(running.peak_bytes());
    }
    let (accepted, refused) = (flood.accepted.get(), flood.refused.get());
    println!(
        "{accepted} rows accepted and counted, {refused} requests refused, longest wait {:?}; {} MiB before, peaks {:?} MiB",
        flood.longest.get(),
        before >> 20,
        peaks.iter().map(|peak| peak >> 20).collect::<Vec<_>>()
    );
    assert!(accepted > 0, "some of it gets through");
    // Held off: either refused, or made to wait for longer than one request's own work takes, some milliseconds.
    assert!(refused > 0 || flood.longest.get() > Duration::from_millis(25), "nobody was held off: {accepted} rows");
    let (filled, last) = (peaks[FILLED - 1], peaks[ROUNDS - 1]);
    assert!(last < PEAK, "{} MiB", last >> 20);
    assert!(last < filled + GROWTH, "the same load goes on growing: {peaks:?}");
    assert!(running.is_alive());
}

#[test]
fn clients_that_stall_in_mid_body_hold_nobody_up_for_good() {
    use std::io::Write;
    let sandbox = Sandbox::new(&shop::config_with(SMALL));
    let running = sandbox.start();
    let half = body(1);
    let mut stalled = Vec::new();
    for _ in 0..64 {
        let address = sandbox.url();
        let mut socket =
            std::net::TcpStream::connect(address.trim_start_matches("http://")).expect("the server listens");
        socket.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let head = format!(
            "POST /api/v1/ingest/orders HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ncontent-length: {}\r\n\r\n",
            half.len() + 1_000
        );
        // A server that refuses at once may close before all is written.
        let _ = socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(half.as_bytes()));
        stalled.push(socket);
    }
    let started = Instant::now();
    let row = format!("{}1,1,paid,web,1.00,7,2026-03-27T10:00:00Z\n", shop::ORDERS_HEADER);
    loop {
        let reply = running.client.ingest("orders", CSV, None, row.clone());
        if !reply.is_busy() {
            assert_eq!(reply.receipt().accepted, 1);
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "still held up: {reply:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(running.client.settled_number("select sum(orders) from placed_day"), 1, "half a body counts nothing");
    drop(stalled);
    assert!(running.peak_bytes() < PEAK);
}

#[test]
fn queries_that_are_never_the_same_do_not_fill_the_memory() {
    let sandbox = Sandbox::new(&shop::config_with(SMALL));
    let running = sandbox.start();
    running.client.ingest("orders", CSV, None, body(1)).receipt();
    running.client.settled("select sum(orders) from placed_day", now_ms());
    let ask = |number: usize| {
        // Another shape each time: neither text nor plan can be had from a cache.
        let terms: String = (0..10).map(|bit| if number >> bit & 1 == 1 { " + orders" } else { " - buyers" }).collect();
        let more: String = (0..5).map(|bit| if number >> (10 + bit) & 1 == 1 { " * 2" } else { " * gmv" }).collect();
        let sql = format!(
            "select sum(orders{terms}) as x{number}, max(largest{more}) from gmv_hour where merchant_id = {number}"
        );
        let reply = running.client.query(&sql);
        assert!(reply.status < 500 || reply.is_busy(), "{sql}: {reply:?}");
    };
    (0..1_000).for_each(ask);
    let early = running.peak_bytes();
    (1_000..6_000).for_each(ask);
    let late = running.peak_bytes();
    assert!(late < early + (48 << 20), "{} MiB, then {} MiB", early >> 20, late >> 20);
    println!("peak {} MiB after 1,000 different queries, {} MiB after 6,000", early >> 20, late >> 20);
}
