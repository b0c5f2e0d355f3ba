//! Rows offered from one node to gates of others, which move, die and are out of reach.

use actix::Actor;
use tokio::sync::watch;

use super::super::exchange::OfferError;
use super::super::gate_actor::GateParts;
use super::super::settings::Settings;
use super::*;
use crate::clock::Clock;
use crate::kv::memory::MemoryKv;
use crate::metrics::Metrics;
use crate::model::schema::TableConfig;
use crate::model::task::{Assignment, NodeName, NodeProfile, NodeState};
use crate::model::window::Calendar;
use crate::mq::Mq;
use crate::mq::memory::MemoryMq;
use crate::net::control::Directory;
use crate::net::link::{Fingerprint, Identity, Listening, Net};
use crate::net::memory::MemoryNet;
use crate::net::peers::Peers;
use crate::net::service::Services;

const HERE: PartitionId = PartitionId(0);

fn catalog(columns: &str) -> Arc<Catalog> {
    let table: TableConfig = toml::from_str(&format!(
        r#"
        name = "orders"
        key = ["order_id"]
        partition_by = "merchant_id"
        time = "paid_at"
        columns = {{ order_id = "int", merchant_id = "int", {columns} paid_at = "timestamp" }}
        "#
    ))
    .expect("a table");
    Arc::new(Catalog::new(&[table], &[], Calendar::utc()).expect("a catalog"))
}

fn identity(name: &str) -> Identity {
    let me = Peer { name: name.into(), roles: Vec::new(), addresses: Vec::new(), boot: 1 };
    Identity { cluster: "shop".into(), secret: b"secret".to_vec(), agreed: Fingerprint::default(), me }
}

fn directory(version: u64, owner: Option<&str>) -> Arc<Directory> {
    let node = |name: &str| {
        let (listen, roles) = (Some(format!("{name}:1")), Default::default());
        let name = NodeName::new(name);
        (NodeProfile { name, boot: 1, roles, listen, http: None, host: None, weight: 100 }, NodeState::Alive)
    };
    let assignment = Assignment { owner: owner.map(NodeName::new), standby: None, epoch: version };
    let tasks = vec![(Task::Gate(HERE), assignment)];
    Arc::new(Directory { version, nodes: ["a", "b", "c"].map(node).into(), tasks, ..Directory::default() })
}

/// Node a takes rows in; b and c have a gate of the partition each, with epochs 2 and 3.
struct Stage {
    net: MemoryNet,
    mq: Arc<MemoryMq>,
    offers: Offers,
    directories: watch::Sender<Arc<Directory>>,
    peers: Arc<Peers>,
    gates: [Addr<GateActor>; 2],
    _nodes: Vec<(Arc<dyn Net>, Listening)>,
}

async fn stage(publish_timeout: Millis) -> Stage {
    let (net, mq, kv) = (MemoryNet::default(), Arc::new(MemoryMq::new(1)), Arc::new(MemoryKv::new(1)));
    let start = |epoch| {
        let parts = GateParts {
            partition: HERE,
            epoch,
            mq: mq.clone(),
            kv: kv.clone(),
            owners: Arc::new(()),
            settings: Arc::new(Settings::for_tests()),
            clock: Clock::System,
            metrics: Metrics::default(),
        };
        GateActor::new(parts).start()
    };
    let gates = [start(2), start(3)];
    let mut nodes = Vec::new();
    for (name, gate) in [("b", &gates[0]), ("c", &gates[1])] {
        let services = Arc::new(Services::default());
        let gate = gate.clone();
        let gates: Gates = Arc::new(move |partition| (partition == HERE && gate.connected()).then(|| gate.clone()));
        let service: Arc<dyn Handler> = Arc::new(OfferService { catalog: catalog(""), gates });
        services.set([(service::OFFER, service)].into());
        let node = net.node(identity(name), crate::net::settings::Settings::for_tests(), services);
        let listening = node.listen(&format!("{name}:1")).await.expect("free");
        nodes.push((node, listening));
    }
    let (directories, newest) = watch::channel(directory(1, Some("b")));
    let own = net.node(identity("a"), crate::net::settings::Settings::for_tests(), Arc::new(Services::default()));
    let peers = Peers::new(own, 8);
    let finder = Finder { me: NodeName::new("a"), directories: newest, peers: peers.clone() };
    let here: Gates = Arc::new(|_| None);
    let offers = Offers::new(here, Some(Elsewhere { finder, body_bytes: 4 << 20 }), publish_timeout);
    Stage { net, mq, offers, directories, peers, gates, _nodes: nodes }
}

fn rows(key: Option<&str>, rows: u32) -> Offer {
    let table = catalog("").table("orders").expect("it was just made").clone();
    let body = Bytes::from_static(b"rows");
    Offer { table, key: key.map(Into::into), body, rows, weighted: false, hours: Some((1, 2)) }
}

impl Stage {
    async fn batches(&self) -> Vec<crate::model::batch::Batch> {
        let read = self.mq.read(HERE, 0, usize::MAX).await.expect("mq is up");
        read.batches.into_iter().map(|(_, batch)| batch).filter(|batch| batch.header.rows > 0).collect()
    }
}

#[actix::test]
async fn rows_come_to_the_gate_of_another_node_as_they_were_taken_in() {
    let stage = stage(Millis(5_000)).await;
    assert_eq!(stage.offers.offer(HERE, &rows(None, 3)).await, Ok(Accepted { rows: 3, duplicate: false }));
    assert_eq!(stage.offers.offer(HERE, &rows(Some("k"), 4)).await, Ok(Accepted { rows: 4, duplicate: false }));
    assert_eq!(stage.offers.offer(HERE, &rows(Some("k"), 4)).await, Ok(Accepted { rows: 4, duplicate: true }));
    let refused = stage.offers.offer(HERE, &rows(Some("k"), 5)).await;
    assert_eq!(refused, Err(Failure::Refused(OfferError::KeyReused)));
    let batches = stage.batches().await;
    assert_eq!(batches.iter().map(|batch| batch.header.rows).collect::<Vec<_>>(), [3, 4]);
    assert!(batches.iter().all(|batch| &batch.body[..] == b"rows" && batch.header.hours == Some((1, 2))));
}

#[actix::test]
async fn rows_follow_a_partition_that_moves() {
    let stage = stage(Millis(5_000)).await;
    let key = Some("moving");
    stage.offers.offer(HERE, &rows(None, 1)).await.expect("b has it");
    stage.gates[0].send(super::super::gate_actor::Stop).await.expect("it lives");
    let first = rows(None, 2);
    let (unkeyed, keyed) = (stage.offers.offer(HERE, &first), rows(key, 3));
    let moved = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        stage.directories.send_replace(directory(2, Some("c")));
    };
    let (unkeyed, keyed, ()) = futures::join!(unkeyed, stage.offers.offer(HERE, &keyed), moved);
    assert!(unkeyed.is_ok() && keyed.is_ok(), "{unkeyed:?} {keyed:?}");
    let mut counts: Vec<u32> = stage.batches().await.iter().map(|batch| batch.header.rows).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3]);
}

#[actix::test]
async fn when_a_gate_is_lost_midway_only_rows_with_a_key_are_offered_again() {
    let stage = stage(Millis(5_000)).await;
    stage.offers.offer(HERE, &rows(None, 1)).await.expect("b has it");
    // mq takes the rows, and does not say so.
    stage.net.cut("b", "a");
    let (keyed, unkeyed) = (rows(Some("k"), 3), rows(None, 2));
    let (keyed, unkeyed) = (stage.offers.offer(HERE, &keyed), stage.offers.offer(HERE, &unkeyed));
    let killed = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.directories.send_replace(directory(2, Some("c")));
        stage.net.break_off("a", "b");
    };
    let (keyed, unkeyed, ()) = futures::join!(keyed, unkeyed, killed);
    assert_eq!(keyed.map(|accepted| accepted.rows), Ok(3));
    assert!(matches!(&unkeyed, Err(failure @ Failure::Lost(_)) if !failure.is_refusal()), "{unkeyed:?}");
    let unkeyed_batches = stage.batches().await.iter().filter(|batch| batch.header.rows == 2).count();
    assert!(unkeyed_batches <= 1);
}

#[actix::test]
async fn who_cannot_be_reached_in_time_has_taken_nothing() {
    let stage = stage(Millis(300)).await;
    for owner in [None, Some("a"), Some("nobody")] {
        stage.directories.send_replace(directory(2, owner));
        let failed = stage.offers.offer(HERE, &rows(Some("k"), 1)).await;
        assert!(matches!(&failed, Err(failure @ Failure::Away(_)) if failure.is_refusal()), "{owner:?}: {failed:?}");
    }
    assert!(stage.batches().await.is_empty());
    assert!(stage.offers.most_bytes(HERE).is_some_and(|most| most < 4 << 20));
}

#[actix::test]
async fn a_node_with_another_table_of_that_name_takes_nothing() {
    let stage = stage(Millis(2_000)).await;
    let table = catalog("status = \"text\",").table("orders").expect("it was just made").clone();
    let failed = stage.offers.offer(HERE, &Offer { table, ..rows(None, 1) }).await;
    assert!(matches!(failed, Err(Failure::Impossible(_))), "{failed:?}");
    let link = stage.peers.to("b:1").expect("room");
    let malformed = link.call(service::OFFER, Bytes::from_static(b"no offer"), Duration::from_secs(5)).await;
    assert!(matches!(malformed, Err(NetError::Refused { refusal, .. }) if refusal.kind == RefusalKind::Malformed));
    assert!(stage.batches().await.is_empty());
}
