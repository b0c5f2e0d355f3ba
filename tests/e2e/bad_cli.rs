//! Bad use of the command line: exit codes and messages that say where and what.
//!
//! Invariant: the exit codes are the interface's; results alone are on stdout.

use std::fs;

use crate::client::{CSV, now_ms};
use crate::sandbox::{Finished, Sandbox, holdfast};
use crate::shop;

const NOBODY: &str = "http://127.0.0.1:1";

fn run(arguments: &[&str]) -> Finished {
    let folder = tempfile::tempdir().expect("a temporary folder");
    holdfast(arguments, folder.path())
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["fly"][..],
        &[],
        &["up", "--nonsense"],
        &["query"],
        &["query", "select 1", "--output", "xml"],
        &["query", "select 1", "--require", "perfect"],
        &["ingest", "orders"],
        &["ingest", "orders", "x.csv", "--format", "xml"],
        &["ingest", "orders", "x.csv", "--batch-rows", "many"],
        &["config", "improve"],
        &["completions", "morse"],
    ] {
        let finished = run(arguments);
        assert_eq!(finished.code(), 2, "{arguments:?}: {}", finished.stderr());
        assert!(finished.output.stdout.is_empty() && !finished.stderr().is_empty(), "{arguments:?}");
    }
}

/// (what, config, the line of the fault, words of the message)
const BAD_CONFIGS: &[(&str, &str, usize, &[&str])] = &[
    ("an unknown key", "[cluster]\nname = \"x\"\nnonsense = 1\n", 3, &["nonsense"]),
    ("an unknown section", "[cluster]\nname = \"x\"\n\n[nonsense]\na = 1\n", 4, &["nonsense"]),
    ("no TOML", "[cluster]\nname = \n", 2, &[]),
    ("the wrong type", "[cluster]\npartitions = \"many\"\n", 2, &["partitions"]),
    ("a number out of range", "[cluster]\npartitions = -1\n", 2, &["partitions"]),
    ("no partitions", "[cluster]\npartitions = 0\n", 2, &["partitions"]),
    ("an unknown zone", "[cluster]\ntimezone = \"Mars/Olympus\"\n", 2, &["Mars/Olympus"]),
    ("a duplicate key", "[cluster]\nname = \"x\"\nname = \"y\"\n", 3, &["name"]),
    ("a tier of no kind", "[tiers.mq]\nkind = \"paper\"\n", 2, &["paper"]),
];

/// The same for tables and metrics: what replaces a part of the shop's config.
const BAD_DEFINITIONS: &[(&str, &str, &str, &[&str])] = &[
    ("a decimal too wide", "decimal(12,2)", "decimal(50,2)", &["decimal", "50"]),
    ("an unknown type", "channel = \"text\"", "channel = \"varchar\"", &["varchar"]),
    ("an unknown key column", "key = [\"order_id\"]", "key = [\"nope\"]", &["nope"]),
    ("an unknown partition column", "partition_by = \"merchant_id\"", "partition_by = \"nope\"", &["nope"]),
    ("a text as time", "time = \"paid_at\"", "time = \"status\"", &["status"]),
    ("a metric over nothing", "table = \"ticks\"", "table = \"nowhere\"", &["nowhere"]),
    ("a broken filter", "status = 'paid'", "status = 'paid", &["where"]),
    ("a filter of unknown columns", "status = 'paid'", "state = 'paid'", &["state"]),
    ("a filter that is no condition", "status = 'paid'", "amount + 1", &[]),
    ("a sum of text", "sum(amount)", "sum(channel)", &["channel"]),
    ("no aggregate", "sum(amount) as gmv", "amount as gmv", &["amount"]),
    ("the same name twice", "avg(amount) as basket", "avg(amount) as gmv", &["gmv"]),
    ("an unknown group", "group_by = [\"channel\"]", "group_by = [\"nope\"]", &["nope"]),
    ("an unknown window", "windows = [\"hour\"]", "windows = [\"fortnight\"]", &["fortnight"]),
    ("no window", "windows = [\"hour\"]", "windows = []", &["windows"]),
    ("a metric twice", "name = \"placed\"", "name = \"gmv\"", &["gmv"]),
];

/// Exit 3, and the message shows line, caret and words. Where the fault is in a text, the caret is below it.
fn assert_invalid(what: &str, config: &str, line: Option<usize>, words: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("bad.toml");
    fs::write(&file, config).expect("writing the config");
    let file = file.to_str().expect("a path");
    let data = folder.path().join("data");
    for arguments in [
        &["config", "check", "--config", file][..],
        &["up", "--config", file, "--http", "127.0.0.1:0", "--data", data.to_str().expect("a path")],
    ] {
        let finished = holdfast(arguments, folder.path());
        let stderr = finished.stderr();
        assert_eq!(finished.code(), 3, "{what}: {arguments:?}: {stderr}");
        assert!(stderr.contains('^'), "{what}: no caret in {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{what}: '{word}' is not in {stderr}");
        }
        if let Some(line) = line {
            let named = stderr.contains(&format!("line {line}")) || stderr.contains(&format!(":{line}:"));
            assert!(named, "{what}: line {line} is not named in {stderr}");
        }
        assert!(!data.exists(), "{what}: a bad config must not begin a data folder");
    }
}

#[test]
fn a_bad_config_exits_with_3_and_shows_the_place() {
    for (what, config, line, words) in BAD_CONFIGS {
        assert_invalid(what, config, Some(*line), words);
    }
}

#[test]
fn a_bad_table_or_metric_exits_with_3_and_shows_the_place() {
    let config = shop::config();
    for (what, good, bad, words) in BAD_DEFINITIONS {
        assert!(config.contains(good), "{what}: the config has no {good}");
        let at = config.find(good).expect("it was just found");
        let line = config[..at].matches('\n').count() + 1;
        assert_invalid(what, &config.replacen(good, bad, 1), Some(line), words);
    }
}

#[test]
fn a_config_that_is_not_there_exits_with_3() {
    for arguments in [&["config", "check", "--config", "nowhere.toml"][..], &["up", "--config", "nowhere.toml"]] {
        let finished = run(arguments);
        assert_eq!(finished.code(), 3, "{arguments:?}: {}", finished.stderr());
        assert!(finished.stderr().contains("nowhere.toml"));
    }
}

#[test]
fn a_server_that_nobody_runs_exits_with_4() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("orders.csv");
    fs::write(&file, shop::ORDERS_HEADER.to_owned() + "1,1,paid,web,1.00,7,2026-03-27T10:00:00Z\n")
        .expect("writing rows");
    let file = file.to_str().expect("a path");
    for arguments in [
        &["query", "select 1", "--server", NOBODY][..],
        &["status", "--server", NOBODY],
        &["ingest", "orders", file, "--server", NOBODY],
    ] {
        let finished = run(arguments);
        assert_eq!(finished.code(), 4, "{arguments:?}: {}", finished.stderr());
        assert!(finished.stderr().contains("127.0.0.1:1"), "names the server: {}", finished.stderr());
        assert!(finished.output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_query_that_is_wrong_exits_with_1_and_points_into_its_text() {
    let sandbox = Sandbox::new(&shop::config());
    let _running = sandbox.start();
    let output = sandbox.run(&["query", "select channel, nope from gmv_hour"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("nope") && stderr.contains('^'), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_file_with_a_bad_row_exits_with_1_and_names_the_line_of_the_file() {
    let sandbox = Sandbox::new(&shop::config());
    let running = sandbox.start();
    let file = sandbox.path("orders.csv");
    let good = |id: usize| format!("{id},{},paid,web,1.00,7,2026-03-27T10:00:00Z\n", id % 7);
    let mut text = shop::ORDERS_HEADER.to_owned();
    text.extend((1..=500).map(good));
    text.push_str("501,1,paid,web,1.00,7,2026-02-30T10:00:00Z\n");
    text.extend((502..=600).map(good));
    fs::write(&file, &text).expect("writing rows");
    let path = file.to_str().expect("a path");
    let output = sandbox.run(&["ingest", "orders", path, "--batch-rows", "100"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(":502:") && stderr.contains("paid_at"), "line 502 of the file is bad: {stderr}");
    assert!(!stderr.contains("line 102"), "no lines of a request that nobody but the command has seen: {stderr}");
    // Whole requests were counted or none of it: the bad one brought nothing.
    let orders = running.client.settled_number("select sum(orders) from placed_day");
    assert!(orders % 100 == 0 && orders <= 500 || orders == 599 - 99, "{orders} orders");

    // Corrected and sent again, the rows that were in are not counted twice.
    fs::write(&file, text.replace("2026-02-30", "2026-03-30")).expect("writing rows");
    let output = sandbox.run(&["ingest", "orders", path, "--batch-rows", "100"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("after the corrected file: {}", running.client.settled_number("select sum(orders) from placed_day"));
}

#[test]
fn files_and_tables_that_are_not_there_exit_with_1() {
    let sandbox = Sandbox::new(&shop::config());
    let _running = sandbox.start();
    let file = sandbox.path("orders.csv");
    fs::write(&file, shop::ORDERS_HEADER.to_owned() + "1,1,paid,web,1.00,7,2026-03-27T10:00:00Z\n")
        .expect("writing rows");
    let path = file.to_str().expect("a path");
    for (arguments, word) in
        [(["ingest", "orders", "nowhere.csv"], "nowhere.csv"), (["ingest", "nowhere", path], "nowhere")]
    {
        let output = sandbox.run(&arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}

#[test]
fn results_come_in_every_output_format() {
    let sandbox = Sandbox::new(&shop::config());
    let running = sandbox.start();
    let body = format!("{}1,1,paid,\"a,b\",12.50,7,2026-03-27T10:00:00Z\n", shop::ORDERS_HEADER);
    running.client.ingest("orders", CSV, None, body).receipt();
    let sql = "select merchant_id, channel, gmv from gmv_hour";
    running.client.settled(sql, now_ms());
    let show = |format: &str| {
        let output = sandbox.run(&["query", sql, "--require", "exact", "--output", format]);
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(show("csv").replace('\r', ""), "merchant_id,channel,gmv\n1,\"a,b\",12.50\n");
    let json: serde_json::Value = serde_json::from_str(&show("json")).expect("JSON");
    assert_eq!(json["rows"], serde_json::json!([[1, "a,b", "12.50"]]));
    let table = show("table");
    assert!(["merchant_id", "channel", "gmv", "a,b", "12.50"].iter().all(|text| table.contains(text)), "{table}");
}
