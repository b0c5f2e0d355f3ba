//! Killed at any moment: the process dies by kill -9 again and again; the client goes on with its batch ids.
//!
//! Invariant: what was acknowledged is there, nothing is counted twice, and no answer that says exact was wrong.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;

use crate::client::{Client, Http, now_ms, number};
use crate::expected::assert_tables;
use crate::history::{Batch, History, rfc3339};
use crate::random::{Random, seeds};
use crate::sandbox::{Running, Sandbox, signal};
use crate::{delivery, shop};

const KILLS: usize = 55;
const WORKERS: usize = 6;
const TICKS_A_BATCH: i64 = 10;

/// The client's memory, which survives the server's deaths.
struct Load<'a> {
    batches: &'a [Batch],
    acknowledged: Vec<bool>,
    /// Indexes not yet acknowledged and not under way.
    waiting: Vec<usize>,
    /// Fresh batches that this round may still send; then only known ones are repeated.
    quota: usize,
    /// (when acknowledged, ticks) of every acknowledged batch of ticks.
    ticks: Vec<(i64, i64)>,
    ticks_sent: i64,
    /// Batches of ticks whose fate is unknown.
    ticks_open: Vec<i64>,
    ticks_next: i64,
    random: Random,
    requests: usize,
    repeated: usize,
    exact_answers: usize,
}

type Shared<'a> = RefCell<Load<'a>>;

impl<'a> Load<'a> {
    fn new(batches: &'a [Batch], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut waiting: Vec<usize> = (0..batches.len()).collect();
        random.shuffle(&mut waiting);
        Self {
            batches,
            acknowledged: vec![false; batches.len()],
            waiting,
            quota: 0,
            ticks: Vec::new(),
            ticks_sent: 0,
            ticks_open: Vec::new(),
            ticks_next: 0,
            random,
            requests: 0,
            repeated: 0,
            exact_answers: 0,
        }
    }

    /// A fresh batch, mostly; now and then one that was acknowledged before.
    fn next(&mut self) -> Option<usize> {
        self.requests += 1;
        let known = self.random.index(self.batches.len());
        if self.acknowledged[known] && (self.quota == 0 || self.random.chance(5)) {
            return Some(known);
        }
        self.quota = self.quota.checked_sub(1)?;
        self.waiting.pop()
    }

    /// Nothing fresh to send, and nothing to repeat.
    fn is_over(&self) -> bool {
        self.waiting.is_empty() || (self.quota == 0 && !self.acknowledged.contains(&true))
    }

    fn acknowledge(&mut self, index: usize, accepted: u64, duplicate: u64) {
        let changes = self.batches[index].changes;
        assert_eq!(accepted + duplicate, changes, "batch {index}");
        if self.acknowledged[index] {
            assert_eq!(accepted, 0, "batch {index} was acknowledged before, and is counted again");
            self.repeated += 1;
        }
        self.acknowledged[index] = true;
    }
}

/// Sends batches until the server is gone or nothing is left.
async fn work(http: &Http, load: &Shared<'_>) {
    loop {
        let Some(index) = load.borrow_mut().next() else {
            if load.borrow().is_over() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let batches = load.borrow().batches;
        match delivery::send(http, "orders", &format!("order-batch-{index}"), &batches[index].body).await {
            Ok(receipt) => load.borrow_mut().acknowledge(index, receipt.accepted, receipt.duplicate),
            Err(_) => {
                let mut load = load.borrow_mut();
                if !load.acknowledged[index] {
                    load.waiting.push(index);
                }
                return;
            }
        }
    }
}

/// Sends ticks, and after each a query whose answer, if it says exact, must hold all that were acknowledged up to its
/// `as_of`, and no more than were sent.
async fn tick(http: &Http, load: &Shared<'_>) {
    loop {
        let first = {
            let mut load = load.borrow_mut();
            load.ticks_open.pop().unwrap_or_else(|| {
                let first = load.ticks_next;
                load.ticks_next += TICKS_A_BATCH;
                load.ticks_sent = load.ticks_next;
                first
            })
        };
        match delivery::send(http, "ticks", &format!("ticks-{first}"), &ticks(first)).await {
            Ok(_) => load.borrow_mut().ticks.push((now_ms(), TICKS_A_BATCH)),
            Err(_) => return load.borrow_mut().ticks_open.push(first),
        }
        let Ok(reply) = http.query("select sum(ticks) from ticking_hour").await else { return };
        if !reply.is_busy() {
            check_honest(&reply.answer(), &mut load.borrow_mut());
        }
    }
}

fn ticks(first: i64) -> String {
    let tick = |id: i64| {
        format!("{{\"tick_id\":{id},\"shop_id\":{},\"at\":\"{}\"}}\n", id % 23, rfc3339(1_774_569_600 + id * 60))
    };
    (first..first + TICKS_A_BATCH).map(tick).collect()
}

fn check_honest(answer: &crate::client::Answer, load: &mut Load<'_>) {
    let (true, Some(as_of_ms)) = (answer.exact, answer.as_of_ms) else { return };
    load.exact_answers += 1;
    let counted = number(answer.rows[0].first().unwrap_or(&Value::Null));
    // Strictly before: both are whole milliseconds.
    let acknowledged: i64 = load.ticks.iter().filter(|(at_ms, _)| *at_ms < as_of_ms).map(|(_, ticks)| ticks).sum();
    assert!(
        (acknowledged..=load.ticks_sent).contains(&counted),
        "an answer says exact as of {as_of_ms} with {counted} ticks; {acknowledged} had been acknowledged, {} sent: {}",
        load.ticks_sent,
        answer.quality
    );
}

/// Load for a while, then `end`; the workers see the connection break and note what they do not know.
async fn load_until_killed(http: &Http, load: &Shared<'_>, delay: Duration, end: impl FnOnce()) {
    let workers = async {
        futures::join!(join_all((0..WORKERS).map(|_| work(http, load))), tick(http, load));
    };
    let mut workers = Box::pin(workers);
    tokio::select! {
        () = &mut workers => panic!("the server was gone before anybody ended it"),
        () = tokio::time::sleep(delay) => {}
    }
    end();
    tokio::time::timeout(Duration::from_secs(10), workers).await.expect("broken connections are noticed");
}

fn finish(client: &Client, load: &Shared<'_>) {
    load.borrow_mut().quota = usize::MAX;
    let left: Vec<usize> = load.borrow_mut().waiting.drain(..).collect();
    let batches = load.borrow().batches;
    client.block_on(async {
        for index in left {
            let body = &batches[index].body;
            let receipt = delivery::send(&client.http, "orders", &format!("order-batch-{index}"), body).await;
            let receipt = receipt.expect("the server lives");
            load.borrow_mut().acknowledge(index, receipt.accepted, receipt.duplicate);
        }
        let open: Vec<i64> = load.borrow_mut().ticks_open.drain(..).collect();
        for first in open {
            let receipt = delivery::send(&client.http, "ticks", &format!("ticks-{first}"), &ticks(first)).await;
            receipt.expect("the server lives");
            load.borrow_mut().ticks.push((now_ms(), TICKS_A_BATCH));
        }
    });
}

fn assert_everything_is_there(client: &Client, history: &History, load: &Shared<'_>, what: &str) {
    assert!(load.borrow().acknowledged.iter().all(|acknowledged| *acknowledged));
    assert_tables(client, &history.state, what);
    let sent = load.borrow().ticks_sent;
    assert_eq!(client.settled_number("select sum(ticks) from ticking_hour"), sent, "{what}");
    assert_eq!(client.settled_number("select sum(ids) from ticking_hour"), sent * (sent - 1) / 2, "{what}");
}

#[test]
fn a_process_killed_at_any_moment_has_everything_that_it_acknowledged() {
    for seed in seeds(&[2026]) {
        println!("HOLDFAST_SEED={seed}");
        let mut random = Random::new(seed);
        let history = History::generate(seed, 30_000);
        let batches = history.batches(&mut random, 40);
        let load = RefCell::new(Load::new(&batches, seed + 1));
        let sandbox = Sandbox::new(&shop::config());
        let started = Instant::now();
        let (mut during_start, mut slowest_start) = (0, Duration::ZERO);
        for round in 0..KILLS {
            let spawned = Instant::now();
            let mut running = sandbox.spawn();
            if random.chance(25) {
                during_start += 1;
                std::thread::sleep(Duration::from_millis(random.between(0, 150) as u64));
                running.kill();
                continue;
            }
            running.wait_ready();
            slowest_start = slowest_start.max(spawned.elapsed());
            load.borrow_mut().quota = batches.len() * 3 / 2 / KILLS;
            let delay = Duration::from_millis(random.between(5, 400) as u64);
            load_then_kill(running, &load, delay);
            assert!(load.borrow().requests > 0, "round {round}");
        }
        let mut running = sandbox.start();
        let open = load.borrow().waiting.len();
        finish(&running.client, &load);
        assert_everything_is_there(&running.client, &history, &load, &format!("seed {seed}"));
        assert!(running.is_alive());
        // A last start, after which nobody sends anything: all of it comes from the disk.
        running.kill();
        let running = sandbox.start();
        assert_everything_is_there(&running.client, &history, &load, &format!("seed {seed}, at rest"));
        let load = load.borrow();
        println!(
            "{KILLS} kills, {during_start} of them during the start, in {:?}: {} of {} batches sent before the last start, \
             {} repeated, {} ticks, {} exact answers checked, slowest start {slowest_start:?}; equal",
            started.elapsed(),
            batches.len() - open,
            batches.len(),
            load.repeated,
            load.ticks_sent,
            load.exact_answers
        );
    }
}

fn load_then_kill(running: Running, load: &Shared<'_>, delay: Duration) {
    let http = running.client.http.clone();
    let pid = running.pid();
    running.client.block_on(load_until_killed(&http, load, delay, || signal(pid, "KILL")));
    running.kill();
}

#[test]
fn sigterm_ends_with_success_and_everything_is_there() {
    let seed = 77;
    let mut random = Random::new(seed);
    let history = History::generate(seed, 6_000);
    let batches = history.batches(&mut random, 40);
    let load = RefCell::new(Load::new(&batches, seed + 1));
    let sandbox = Sandbox::new(&shop::config());
    for round in 0..5 {
        let running = sandbox.start();
        load.borrow_mut().quota = batches.len() / 6;
        let http = running.client.http.clone();
        let pid = running.pid();
        let delay = Duration::from_millis(300);
        running.client.block_on(load_until_killed(&http, &load, delay, || signal(pid, "TERM")));
        let status = running.wait(Duration::from_secs(20));
        assert!(status.success(), "round {round}: {status}");
    }
    let running = sandbox.start();
    finish(&running.client, &load);
    assert_everything_is_there(&running.client, &history, &load, "after five orderly ends");
}

#[test]
fn one_data_folder_has_one_process() {
    let sandbox = Sandbox::new(&shop::config());
    let _running = sandbox.start();
    let second = crate::sandbox::holdfast(
        &[
            "up",
            "--http",
            "127.0.0.1:0",
            "--data",
            sandbox.path("data").to_str().expect("a path"),
            "--config",
            sandbox.path("holdfast.toml").to_str().expect("a path"),
        ],
        &sandbox.path(""),
    );
    assert_eq!(second.code(), 1, "{}", second.stderr());
    assert!(second.stderr().contains("data"), "says which folder is in use: {}", second.stderr());
}
