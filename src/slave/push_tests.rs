//! A gate of one node pushes to partitions that live on another, with real actors on both sides.

use std::sync::Arc;
use std::time::Duration;

use actix::Actor;
use tokio::sync::watch;

use super::sample::{self, Change};
use super::settings::Settings;
use super::slave_actor::{Assign, Directory, ObserveAll, SlaveActor, SlaveParts};
use crate::cache::memory::MemoryCache;
use crate::clock::Clock;
use crate::hot::memory::MemoryHot;
use crate::kv::memory::MemoryKv;
use crate::kv::{Append, Kv};
use crate::metrics::Metrics;
use crate::model::applied::Applied;
use crate::model::batch::Chunk;
use crate::model::id::{PartitionId, SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::model::task::{Assignment, NodeName, NodeProfile, NodeState, Task};
use crate::model::units::Millis;
use crate::net::control;
use crate::net::link::{Fingerprint, Handler, Identity, Net, Peer};
use crate::net::memory::MemoryNet;
use crate::net::message::{Owners, PushBudget};
use crate::net::peers::{Finder, Peers};
use crate::net::push_service::{ClusterOwners, LocalOwners, PushService};
use crate::net::service::{self, Services};

const PARTITION: PartitionId = PartitionId(0);

fn identity(name: &str) -> Identity {
    let me = Peer { name: name.into(), roles: Vec::new(), addresses: Vec::new(), boot: 1 };
    Identity { cluster: "shop".into(), secret: b"secret".to_vec(), agreed: Fingerprint::default(), me }
}

fn owners(directory: &Directory) -> LocalOwners {
    let (pushes, idles) = (directory.clone(), directory.clone());
    LocalOwners {
        push: Arc::new(move |partition| pushes.push_route(partition)()),
        idle: Arc::new(move |partition| idles.idle_route(partition)()),
        budget: PushBudget::new(1 << 20),
    }
}

/// Partition 0 belongs to node b.
fn whereabouts() -> Arc<control::Directory> {
    let (name, listen) = (NodeName::new("b"), Some("b:1".to_owned()));
    let profile = NodeProfile { name, boot: 1, roles: Default::default(), listen, http: None, host: None, weight: 100 };
    let assignment = Assignment { owner: Some(NodeName::new("b")), standby: None, epoch: 1 };
    let (nodes, tasks) = (vec![(profile, NodeState::Alive)], vec![(Task::Compute(PARTITION), assignment)]);
    Arc::new(control::Directory { version: 1, nodes, tasks, ..Default::default() })
}

/// Chunks as a gate makes them.
fn chunks(count: u64) -> Vec<(Chunk, Append)> {
    let (catalog, source, mut applied) = (sample::catalog(), SourceId::push("orders", 1), Applied::default());
    let chunk = |number: u64| {
        let changes = [Change::simple(1, 100), Change::simple(2, 200)];
        let from = (number - 1) * 2;
        let mut batch = sample::batch(&catalog, &source, from, &changes);
        batch.header.at_ms = Clock::System.now_ms();
        applied.add(&source, Span::new(Position(from.into()), Position(u128::from(from) + 2)), 0);
        let previous = if number == 1 { Tip::default() } else { Tip::new(1, number - 1) };
        let chunk = Chunk { id: Tip::new(1, number), previous, at_ms: batch.header.at_ms, batches: vec![batch] };
        let append =
            Append { chunk: chunk.clone(), offset: number, applied: applied.delta([&source]), forget: Vec::new() };
        (chunk, append)
    };
    (1..=count).map(chunk).collect()
}

#[actix_rt::test]
async fn chunks_pushed_from_another_node_are_counted_before_kv_is_looked_into() {
    let (net, kv, directory) = (MemoryNet::default(), Arc::new(MemoryKv::new(1)), Directory::default());
    let slave = SlaveActor::new(
        SlaveParts {
            kv: kv.clone(),
            hot: Arc::new(MemoryHot::new(1)),
            cache: Arc::new(MemoryCache::new(1, 1 << 20)),
            catalog: sample::catalog(),
            // Only pushes can be as fast as this test.
            settings: Settings { kv_poll: Millis(3_600_000), ..Settings::for_tests() },
            clock: Clock::System,
            metrics: Metrics::default(),
        },
        directory.clone(),
    )
    .start();
    slave.send(Assign { partition: PARTITION, epoch: 1 }).await.expect("it lives");
    let services = Arc::new(Services::default());
    let service: Arc<dyn Handler> = Arc::new(PushService { here: owners(&directory) });
    services.set([(service::PUSH, service)].into());
    let there = net.node(identity("b"), crate::net::settings::Settings::for_tests(), services);
    let _listening = there.listen("b:1").await.expect("free");
    let own: Arc<dyn Net> =
        net.node(identity("a"), crate::net::settings::Settings::for_tests(), Arc::new(Services::default()));
    let peers = Peers::new(own, 8);
    let link = peers.to("b:1").expect("room");
    link.state().wait_for(|state| state.peer().is_some()).await.expect("the link lives");
    let (_sender, directories) = watch::channel(whereabouts());
    let gate_side = ClusterOwners {
        here: owners(&Directory::default()),
        finder: Finder { me: NodeName::new("a"), directories, peers },
    };
    let counted = async || match slave.send(ObserveAll).await.expect("it lives").partitions.first() {
        Some(partition) if !partition.behind => partition.rows_applied,
        _ => 0,
    };
    let until = async |rows: u64| {
        let wait = async {
            while counted().await < rows {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect("in time");
    };
    for (number, (chunk, append)) in (1..).zip(chunks(20)) {
        kv.append(PARTITION, append).await.expect("kv is up");
        // One is lost on its way: the next one tells.
        if number != 7 {
            assert!(gate_side.push(PARTITION, chunk));
        }
        if number > 1 && number != 7 {
            until(number * 2).await;
        }
    }
    assert_eq!(counted().await, 40);
}
