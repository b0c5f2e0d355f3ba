//! Changes: an order history in any order of delivery, every batch one to three times, several at once.
//!
//! Invariant: what remains is what the final rows say, whatever the way there.

use std::time::{Duration, Instant};

use crate::expected::assert_tables;
use crate::history::History;
use crate::random::{Random, seeds};
use crate::sandbox::Sandbox;
use crate::{delivery, shop};

#[test]
fn a_history_delivered_in_any_order_and_repeatedly_ends_in_the_final_rows() {
    for seed in seeds(&[1, 2, 3, 4]) {
        let mut random = Random::new(seed);
        let history = History::generate(seed, 6_000);
        let batches = history.batches(&mut random, 120);
        let sandbox = Sandbox::new(&shop::config());
        let running = sandbox.start();
        let started = Instant::now();
        running.client.block_on(delivery::shuffled(&running.client.http, &batches, "batch", &mut random, 8));
        let delivered = started.elapsed();
        assert_tables(&running.client, &history.state, &format!("seed {seed}"));

        let status = running.terminate(Duration::from_secs(20));
        assert!(status.success(), "seed {seed}: {status}");
        let running = sandbox.start();
        assert_tables(&running.client, &history.state, &format!("seed {seed}, after a restart"));
        println!(
            "seed {seed}: {} changes in {} batches, each one to three times, in {delivered:?}; {} orders remain; equal",
            history.changes.len(),
            batches.len(),
            history.state.len()
        );
    }
}

#[test]
fn a_history_taken_back_leaves_no_rows() {
    let sandbox = Sandbox::new(&shop::config());
    let running = sandbox.start();
    let mut random = Random::new(5);
    let history = History::generate(5, 1_500);
    let batches = history.batches(&mut random, 100);
    running.client.block_on(delivery::shuffled(&running.client.http, &batches, "there", &mut random, 4));
    let mut back = History { changes: Vec::new(), state: Default::default() };
    back.changes.extend(history.state.values().cloned().map(crate::history::Change::Delete));
    let batches = back.batches(&mut random, 100);
    running.client.block_on(delivery::shuffled(&running.client.http, &batches, "back", &mut random, 4));
    assert_tables(&running.client, &back.state, "everything deleted");
}
