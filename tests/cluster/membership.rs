//! Who is refused, and links that break and heal.

use std::time::Duration;

use crate::cluster::{Cluster, PARTITIONS, addresses, config, free_port};
use crate::proxy::{Proxy, Weather};

const GATES: [&str; 2] = ["gate-0", "gate-1"];
const QUERIES: [&str; 2] = ["query-0", "query-1"];

#[test]
fn a_node_that_does_not_fit_is_refused_and_told_why() {
    let mut cluster = Cluster::empty();
    let listen = format!("127.0.0.1:{}", free_port());
    cluster.add_process("up", &["up", "--listen", &listen, "--data", "data", "--config", "holdfast.toml"]);
    cluster.wait_ready("up");
    cluster.write("wrong", "another word");
    cluster.write("count.toml", &config(PARTITIONS * 2, "secret"));
    cluster.write("word.toml", &config(PARTITIONS, "wrong"));
    for (file, reason) in [("count.toml", "partitions"), ("word.toml", "secret")] {
        let name = format!("slave-{reason}");
        let arguments =
            ["node", "--role", "slave", "--name", &name, "--data", &name, "--config", file, "--join", &listen];
        cluster.add_process(&name, &arguments);
        cluster.wait(&format!("{name} says why it is refused"), |cluster| {
            let node = cluster.node(&name);
            let log = node.log();
            let is_told = log.lines().any(|line| line.contains("WARN") && line.contains(reason));
            if is_told { Ok(()) } else { Err(log) }
        });
        assert!(cluster.client.get(cluster.http(&name), "/readyz").is_err(), "{name} is not ready");
        cluster.remove(&name);
    }
    cluster.ingest("up", 2);
    cluster.assert_truth(&["up"]);
    let names = cluster.view("up").map(|view| view["nodes"].as_array().map_or(0, Vec::len));
    assert_eq!(names, Ok(1), "refused nodes are none of the cluster");
}

/// All that listens is behind proxies, where `behind` says so.
fn behind_proxies(behind: &[&str]) -> (Cluster, Vec<Proxy>) {
    let mut cluster = Cluster::empty();
    let is_behind = |name: &str| behind.contains(&name);
    let mut proxies = Vec::new();
    let mut place = |name: &str| {
        let listens = free_port();
        let told = match is_behind(name) {
            true => {
                let proxy = Proxy::to(listens);
                proxies.push(proxy);
                proxies.last().map_or(listens, |proxy| proxy.port)
            }
            false => listens,
        };
        (listens, told)
    };
    let masters: Vec<(u16, u16)> = (0..3).map(|index| place(&format!("master-{index}"))).collect();
    let store = place("store");
    cluster.masters = masters.iter().map(|(_, told)| *told).collect();
    for (index, (listens, told)) in masters.into_iter().enumerate() {
        let (listens, told) = (addresses(&[listens]), addresses(&[told]));
        cluster.add(&format!("master-{index}"), &["--listen", &listens, "--advertise", &told]);
    }
    let (listens, told) = (addresses(&[store.0]), addresses(&[store.1]));
    cluster.add("store", &["--listen", &listens, "--advertise", &told]);
    for name in ["gate-0", "gate-1", "slave-0", "slave-1", "query-0", "query-1"] {
        cluster.add(name, &[]);
    }
    cluster.wait_ready_all();
    (cluster, proxies)
}

#[test]
fn links_to_the_store_that_break_heal_by_themselves() {
    let (mut cluster, proxies) = behind_proxies(&["store"]);
    let store = &proxies[0];
    cluster.ingest("gate-0", 5);
    cluster.assert_truth(&QUERIES);
    let owners = cluster.owners("gate-0");
    let flow = cluster.flow(&GATES, &QUERIES);
    for (weather, long_ms) in [(Weather::Cut, 700), (Weather::Silent, 2_500), (Weather::Slow, 2_000)] {
        store.set(weather);
        std::thread::sleep(Duration::from_millis(long_ms));
        store.set(Weather::Fair);
        // As of later than that: all links stand again.
        let since_ms = crate::client::now_ms();
        for query in QUERIES {
            cluster.wait(&format!("{query} is exact after {weather:?}"), |cluster| {
                let answer = cluster.client.query(cluster.http(query))?;
                let is_new = answer.exact && answer.as_of_ms >= since_ms;
                if is_new { Ok(()) } else { Err(format!("{:?}", (answer.exact, answer.as_of_ms))) }
            });
        }
    }
    cluster.next = flow.end().next;
    cluster.assert_truth(&QUERIES);
    // It was the store that could not be reached, and nobody was given its work.
    assert_eq!(cluster.owners("gate-0"), owners);
}

#[test]
fn links_to_the_active_master_that_break_make_another_one_active() {
    let (mut cluster, proxies) = behind_proxies(&["master-0", "master-1", "master-2"]);
    cluster.ingest("gate-0", 5);
    let flow = cluster.flow(&GATES, &QUERIES);
    for weather in [Weather::Cut, Weather::Silent] {
        let active = cluster.wait_active("gate-0", "nobody");
        let index: usize = active.rsplit('-').next().and_then(|it| it.parse().ok()).expect("a master's number");
        // One way only: what the others dial. What it dials itself goes on.
        proxies[index].set(weather);
        std::thread::sleep(Duration::from_millis(2_500));
        proxies[index].set(Weather::Fair);
        cluster.wait("all know the active master", |cluster| {
            let actives: Vec<_> = cluster.names().iter().map(|name| cluster.active(name)).collect();
            let same = actives[0].is_ok() && actives.iter().all(|it| *it == actives[0]);
            if same { Ok(()) } else { Err(format!("{actives:?}")) }
        });
        for name in cluster.names() {
            cluster.wait_state("gate-0", &name, "alive");
        }
    }
    let report = flow.end();
    cluster.next = report.next;
    cluster.assert_truth(&QUERIES);
}
