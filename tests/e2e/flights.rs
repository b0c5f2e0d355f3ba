//! Real input: 336,776 flights, and generated queries whose every value DuckDB confirms.
//!
//! Invariant: the comparison itself is `scripts/flights/compare.py`, which people can run against any server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::now_ms;
use crate::sandbox::{Sandbox, holdfast, run_bounded};

const FLIGHTS: i64 = 336_776;
const CANCELLED: i64 = 8_255;

fn script(name: &str) -> String {
    format!("{}/scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The folder that `scripts/sample-flights` prepared; its own words when it could not.
fn prepared() -> String {
    let output = Command::new(script("sample-flights")).stderr(Stdio::inherit()).output().expect("bash runs");
    assert!(output.status.success(), "scripts/sample-flights could not prepare the flights: see its message above");
    String::from_utf8(output.stdout).expect("a path").trim().to_owned()
}

#[test]
fn real_flights_are_answered_as_an_independent_engine_answers_them() {
    let folder = prepared();
    let config = std::fs::read_to_string(script("flights/flights.toml")).expect("the config of the flights");
    let sandbox = Sandbox::new(&config);
    let running = sandbox.start();
    let started = Instant::now();
    for table in ["flights", "departures"] {
        let file = format!("{folder}/{table}.csv");
        let output = sandbox.run(&["ingest", table, &file]);
        assert!(output.status.success(), "ingest {table}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let ingested = started.elapsed();
    let since_ms = now_ms();
    let settled = |sql: &str| crate::client::number(&running.client.settled(sql, since_ms).rows[0][0]);
    assert_eq!(settled("select sum(flights) from traffic_day"), FLIGHTS);
    assert_eq!(settled("select sum(flights) from arrivals_hour"), FLIGHTS - CANCELLED);
    println!("{FLIGHTS} flights into two tables in {ingested:?}, exact after {:?}", started.elapsed());

    let mut compare = Command::new(format!("{folder}/python/bin/python"));
    compare.args([&script("flights/compare.py"), "--folder", &folder, "--server", &sandbox.url()]);
    let finished = run_bounded(compare, Duration::from_secs(900));
    let stdout = String::from_utf8_lossy(&finished.output.stdout).into_owned();
    assert!(finished.output.status.success(), "{stdout}\n{}", finished.stderr());
    let equal: u64 = stdout.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a count comes first");
    assert!(equal >= 200, "{stdout}");
    print!("{stdout}");
}

#[test]
fn the_flights_config_is_valid() {
    let finished = holdfast(&["config", "check", "--config", &script("flights/flights.toml")], Path::new("/"));
    assert_eq!(finished.code(), 0, "{}", finished.stderr());
}
