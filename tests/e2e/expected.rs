//! What the metric tables must hold, recomputed from the final rows: once here in plain Rust, once by SQLite.
//!
//! Invariant: both recomputations agree before holdfast is compared with them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use chrono::{DateTime, NaiveTime, TimeZone, Timelike, Utc};
use serde_json::{Value, json};

use crate::client::{Client, now_ms};
use crate::history::{Order, decimal, rfc3339};
use crate::shop::ZONE;

/// Table name → rows, each value as its text; sorted.
pub type Tables = BTreeMap<String, Vec<Vec<Option<String>>>>;

const METRICS: [&str; 4] = ["gmv_day", "gmv_hour", "placed_day", "placed_hour"];

#[derive(Default)]
struct Group {
    cents: Vec<i64>,
    buyers: BTreeSet<i64>,
}

/// Recomputes the four tables from the rows that are there in the end.
pub fn recomputed(state: &BTreeMap<i64, Order>) -> Tables {
    let mut tables = Tables::new();
    for name in METRICS {
        let mut groups: BTreeMap<Vec<Option<String>>, Group> = BTreeMap::new();
        for order in state.values() {
            let Some(second) = order.paid_at else { continue };
            if name.starts_with("gmv") && order.status != "paid" {
                continue;
            }
            let start = if name.ends_with("hour") { second - second.rem_euclid(3_600) } else { start_of_day(second) };
            let mut key = vec![Some(rfc3339(start)), Some(order.merchant_id.to_string())];
            if name.starts_with("gmv") {
                key.push(order.channel.map(str::to_owned));
            }
            let group = groups.entry(key).or_default();
            group.cents.push(order.cents);
            group.buyers.extend(order.buyer_id);
        }
        let mut rows: Vec<_> = groups.into_iter().map(|(key, group)| row(key, &group)).collect();
        rows.sort();
        tables.insert(name.to_owned(), rows);
    }
    tables
}

fn row(key: Vec<Option<String>>, group: &Group) -> Vec<Option<String>> {
    let count = group.cents.len() as i64;
    let total: i64 = group.cents.iter().sum();
    // Half away from zero, to six digits: cents are 10^-2.
    let scaled = total * 10_000;
    let average = (2 * scaled.abs() + count) / (2 * count) * scaled.signum();
    let micro =
        format!("{}{}.{:06}", if average < 0 { "-" } else { "" }, average.abs() / 1_000_000, average.abs() % 1_000_000);
    let smallest = *group.cents.iter().min().expect("a group has rows");
    let largest = *group.cents.iter().max().expect("a group has rows");
    let values =
        [count.to_string(), decimal(total), micro, decimal(smallest), decimal(largest), group.buyers.len().to_string()];
    key.into_iter().chain(values.map(Some)).collect()
}

/// The second at which the local day began that `second` is in.
fn start_of_day(second: i64) -> i64 {
    let local =
        ZONE.from_utc_datetime(&DateTime::from_timestamp(second, 0).expect("a second of this century").naive_utc());
    let midnight = local.date_naive().and_time(NaiveTime::MIN);
    ZONE.from_local_datetime(&midnight).single().expect("Berlin has each midnight once").with_timezone(&Utc).timestamp()
}

/// The same by SQLite, through Python's standard library.
pub fn by_sqlite(state: &BTreeMap<i64, Order>) -> Tables {
    let orders: Vec<Value> = (state.values())
        .map(|o| json!([o.order_id, o.merchant_id, o.status, o.channel, o.cents, o.buyer_id, o.paid_at]))
        .collect();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/recompute.py");
    let mut child = Command::new("python3")
        .args([script, &ZONE.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs: it is needed for the independent recomputation");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(Value::from(orders).to_string().as_bytes()).expect("the script reads");
    drop(input);
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "recompute.py failed");
    let mut tables: Tables = serde_json::from_slice(&output.stdout).expect("the script writes JSON");
    tables.values_mut().for_each(|rows| rows.sort());
    tables
}

/// Reads the four tables, everything acknowledged so far included, and compares each value with both recomputations.
pub fn assert_tables(client: &Client, state: &BTreeMap<i64, Order>, what: &str) {
    let expected = recomputed(state);
    assert_same(&expected, &by_sqlite(state), "Rust and SQLite disagree");
    let since_ms = now_ms();
    let mut found = Tables::new();
    for name in METRICS {
        let answer = client.settled(&format!("select * from {name} order by window_start, merchant_id"), since_ms);
        let mut types: Vec<&str> = vec!["timestamp", "int", "text", "int", "decimal(38,2)", "decimal(38,6)"];
        types.extend(["decimal(12,2)", "decimal(12,2)", "int"]);
        if name.starts_with("placed") {
            types.remove(2);
        }
        assert_eq!(answer.columns.iter().map(|column| column.1.as_str()).collect::<Vec<_>>(), types, "{what}: {name}");
        let mut rows: Vec<Vec<_>> = answer.rows.iter().map(|row| row.iter().map(text).collect()).collect();
        rows.iter_mut().for_each(|row| row[0] = row[0].as_deref().map(whole_seconds));
        rows.sort();
        found.insert(name.to_owned(), rows);
    }
    assert_same(&expected, &found, what);
}

/// A timestamp as `rfc3339` writes it.
fn whole_seconds(text: &str) -> String {
    let at = DateTime::parse_from_rfc3339(text).unwrap_or_else(|_| panic!("not RFC 3339: {text}"));
    assert_eq!(at.nanosecond(), 0, "windows begin at whole seconds: {text}");
    rfc3339(at.timestamp())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn assert_same(expected: &Tables, found: &Tables, what: &str) {
    for (name, rows) in expected {
        let other = &found[name];
        let missing: Vec<_> = rows.iter().filter(|row| !other.contains(row)).take(5).collect();
        let surplus: Vec<_> = other.iter().filter(|row| !rows.contains(row)).take(5).collect();
        assert!(
            rows == other,
            "{what}: {name} differs ({} rows expected, {} found)\nexpected, not found: {missing:#?}\nfound, not expected: {surplus:#?}",
            rows.len(),
            other.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Change, History};
    use crate::random::Random;

    #[test]
    fn rust_and_sqlite_recompute_the_same_tables() {
        for seed in 1..=5 {
            let history = History::generate(seed, 4_000);
            let tables = recomputed(&history.state);
            assert_same(&tables, &by_sqlite(&history.state), "Rust and SQLite disagree");
            assert!(tables["gmv_hour"].len() > 200, "{}", tables["gmv_hour"].len());
        }
    }

    #[test]
    fn a_history_has_every_kind_of_change_and_leads_to_its_state() {
        let history = History::generate(7, 4_000);
        let mut state = BTreeMap::new();
        let (mut inserts, mut returns, mut deletes, mut updates, mut moved) = (0, 0, 0, 0, 0);
        let mut seen = BTreeSet::new();
        for change in &history.changes {
            match change {
                Change::Insert(row) => {
                    inserts += 1;
                    returns += i32::from(!seen.insert(row.order_id));
                    assert_eq!(state.insert(row.order_id, row.clone()), None);
                }
                Change::Delete(row) => {
                    deletes += 1;
                    assert_eq!(state.remove(&row.order_id).as_ref(), Some(row));
                }
                Change::Update { before, after } => {
                    updates += 1;
                    moved += i32::from(before.merchant_id != after.merchant_id);
                    assert_eq!(state.insert(after.order_id, after.clone()).as_ref(), Some(before));
                }
            }
        }
        assert_eq!(state, history.state);
        let counts = [inserts, returns, deletes, updates, moved];
        assert!(counts.iter().all(|count| *count > 80), "{counts:?}");
        let batches = history.batches(&mut Random::new(1), 120);
        assert_eq!(batches.iter().map(|batch| batch.changes).sum::<u64>(), 4_000);
        for line in batches.iter().flat_map(|batch| batch.body.lines()) {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    }
}
