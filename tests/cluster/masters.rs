//! Masters that are killed and stopped while rows flow.

use std::time::Duration;

use crate::cluster::Cluster;

const GATES: [&str; 2] = ["gate-0", "gate-1"];
const QUERIES: [&str; 2] = ["query-0", "query-1"];

#[test]
fn any_node_shows_the_same_cluster_and_either_query_node_the_truth() {
    let mut cluster = Cluster::full();
    cluster.ingest("gate-0", 5);
    cluster.ingest("gate-1", 5);
    cluster.assert_truth(&QUERIES);
    let (owners, active) = (cluster.owners("gate-0"), cluster.active("gate-0"));
    assert!(owners.as_ref().is_ok_and(|owners| owners.len() == 16), "{owners:?}");
    for node in ["slave-0", "slave-1", "gate-0", "gate-1"] {
        cluster.wait_share("store", node, 4);
    }
    for name in cluster.names() {
        assert_eq!((cluster.owners(&name), cluster.active(&name)), (owners.clone(), active.clone()), "{name}");
        cluster.wait(&format!("{name} sees ten nodes and nothing wrong"), |cluster| {
            let view = cluster.view(&name)?;
            let nodes = view["nodes"].as_array().map_or(0, Vec::len);
            let is_well = nodes == 10 && view["complaints"].as_array().is_some_and(Vec::is_empty);
            if is_well { Ok(()) } else { Err(format!("{nodes} nodes, {}", view["complaints"])) }
        });
    }
}

#[test]
fn the_active_master_dies_and_nobody_who_counts_notices() {
    let mut cluster = Cluster::full();
    let owners = cluster.owners("gate-0").expect("a gate answers");
    let flow = cluster.flow(&GATES, &QUERIES);
    for how in ["KILL", "STOP", "KILL"] {
        let active = cluster.active("gate-0").expect("there is an active master");
        match how {
            "KILL" => cluster.node(&active).kill(),
            how => cluster.node(&active).signal(how),
        }
        cluster.wait_active("gate-0", &active);
        assert_eq!(cluster.owners("gate-0").as_ref(), Ok(&owners), "tasks moved because of a master");
        match how {
            "KILL" => cluster.node(&active).start(),
            _ => cluster.node(&active).signal("CONT"),
        }
        cluster.wait_ready(&active);
        // The one that comes back is behind, and agrees.
        cluster.wait("all name the same active master", |cluster| {
            let names = cluster.names();
            let actives: Vec<_> = names.iter().map(|name| cluster.active(name)).collect();
            let same = actives[0].is_ok() && actives.iter().all(|it| *it == actives[0]);
            if same { Ok(()) } else { Err(format!("{actives:?}")) }
        });
    }
    let report = flow.end();
    assert_eq!(report.errors, [] as [&str; 0], "writers noticed it");
    assert!(report.exact > 0 && report.oldest < Duration::from_secs(10), "{report:?}");
    cluster.next = report.next;
    cluster.assert_truth(&QUERIES);
    assert_eq!(cluster.owners("gate-0"), Ok(owners));
}

#[test]
fn without_a_majority_of_masters_rows_and_answers_go_on_and_nothing_moves() {
    let mut cluster = Cluster::full();
    let owners = cluster.owners("gate-0").expect("a gate answers");
    let flow = cluster.flow(&GATES, &QUERIES);
    cluster.node("master-0").kill();
    cluster.node("master-1").kill();
    cluster.wait("the last master knows that it is alone", |cluster| match cluster.active("master-2") {
        Err(_) => Ok(()),
        Ok(active) => Err(active),
    });
    cluster.next = flow.end().next;
    let before = cluster.next;
    let flow = cluster.flow(&GATES, &QUERIES);
    std::thread::sleep(Duration::from_secs(2));
    let report = flow.end();
    assert_eq!(report.errors, [] as [&str; 0], "writers noticed it");
    assert!(report.next > before + 10 && report.exact > 10, "{report:?}");
    cluster.next = report.next;
    cluster.assert_truth(&QUERIES);
    for name in ["gate-0", "slave-1", "master-2"] {
        assert_eq!(cluster.owners(name).as_ref(), Ok(&owners), "{name}");
    }
    cluster.node("master-0").start();
    cluster.node("master-1").start();
    cluster.wait_ready_all();
    cluster.wait_active("gate-0", "nobody");
    cluster.ingest("gate-0", 2);
    cluster.assert_truth(&QUERIES);
    assert_eq!(cluster.owners("gate-0"), Ok(owners));
}
