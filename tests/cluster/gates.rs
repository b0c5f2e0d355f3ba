//! Gates and query nodes that die while clients use them.

use std::time::Duration;

use crate::cluster::Cluster;

const GATES: [&str; 2] = ["gate-0", "gate-1"];
const QUERIES: [&str; 2] = ["query-0", "query-1"];

#[test]
fn a_gate_dies_and_its_clients_need_one_retry_that_counts_once() {
    let mut cluster = Cluster::full();
    cluster.ingest("gate-0", 2);
    let flow = cluster.flow(&GATES, &QUERIES);
    for victim in GATES {
        cluster.node(victim).kill();
        cluster.wait_state("query-0", victim, "lost");
        cluster.node(victim).start();
        cluster.wait_ready(victim);
        cluster.wait_share("query-0", victim, 4);
    }
    let report = flow.end();
    // The client takes the gates in turn: the next attempt is at the other one.
    assert!(report.most_attempts <= 2, "{report:?}");
    assert!(report.slowest < Duration::from_secs(10), "{report:?}");
    cluster.next = report.next;
    cluster.assert_truth(&QUERIES);
}

#[test]
fn a_query_node_dies_and_the_other_one_answers() {
    let mut cluster = Cluster::full();
    cluster.ingest("gate-0", 2);
    cluster.node("query-0").kill();
    cluster.assert_truth(&["query-1"]);
    cluster.node("query-0").start();
    cluster.wait_ready("query-0");
    cluster.assert_truth(&QUERIES);
}
