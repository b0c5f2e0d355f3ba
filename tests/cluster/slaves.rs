//! Slaves that die, stop, come back, join and leave.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, SOON};

const GATES: [&str; 2] = ["gate-0", "gate-1"];
const QUERIES: [&str; 2] = ["query-0", "query-1"];

#[test]
fn a_slave_dies_and_what_it_had_is_exact_elsewhere() {
    let mut cluster = Cluster::full();
    cluster.ingest("gate-0", 20);
    let flow = cluster.flow(&GATES, &QUERIES);
    for victim in ["slave-0", "slave-1"] {
        cluster.node(victim).kill();
        cluster.wait_state("gate-0", victim, "lost");
        let other = if victim == "slave-0" { "slave-1" } else { "slave-0" };
        cluster.wait_share("gate-0", other, 8);
        cluster.node(victim).start();
        cluster.wait_ready(victim);
        cluster.wait_share("gate-0", victim, 4);
    }
    let report = flow.end();
    assert_eq!(report.errors, [] as [&str; 0], "writers noticed it");
    assert!(report.oldest < Duration::from_secs(10), "{report:?}");
    cluster.next = report.next;
    cluster.assert_truth(&QUERIES);
}

#[test]
fn a_slave_that_stood_still_and_was_replaced_changes_nothing_when_it_goes_on() {
    let mut cluster = Cluster::full();
    cluster.ingest("gate-0", 20);
    let flow = cluster.flow(&GATES, &QUERIES);
    cluster.node("slave-0").signal("STOP");
    cluster.wait_state("gate-0", "slave-0", "lost");
    cluster.wait_share("gate-0", "slave-1", 8);
    cluster.next = flow.end().next;
    cluster.assert_truth(&QUERIES);
    // All that it still holds is written at once now; readers look all the time.
    let flow = cluster.flow(&GATES, &QUERIES);
    cluster.node("slave-0").signal("CONT");
    cluster.wait_state("gate-0", "slave-0", "alive");
    cluster.wait_share("gate-0", "slave-0", 4);
    let report = flow.end();
    assert_eq!(report.errors, [] as [&str; 0], "writers noticed it");
    cluster.next = report.next;
    cluster.assert_truth(&QUERIES);
}

#[test]
fn a_slave_joins_what_runs_in_one_process_and_leaves_it() {
    let mut cluster = Cluster::empty();
    let listen = format!("127.0.0.1:{}", crate::cluster::free_port());
    cluster.add_process("up", &["up", "--listen", &listen, "--data", "data", "--config", "holdfast.toml"]);
    cluster.wait_ready("up");
    cluster.ingest("up", 10);
    let flow = cluster.flow(&["up"], &["up"]);
    cluster.add("slave-0", &["--join", &listen]);
    cluster.wait_ready("slave-0");
    cluster.wait_share("slave-0", "slave-0", 4);
    let begun = Instant::now();
    cluster.node("slave-0").signal("TERM");
    let status = cluster.node("slave-0").wait(SOON);
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?} to leave", begun.elapsed());
    cluster.wait_share("up", "local", 16);
    let report = flow.end();
    assert_eq!(report.errors, [] as [&str; 0], "writers noticed it");
    assert!(report.oldest < Duration::from_secs(10), "{report:?}");
    cluster.next = report.next;
    cluster.assert_truth(&["up"]);
}
