//! Links by address, and who does what by the directory.

use std::time::Duration;

use super::super::fixture_tests::{identity, until_up};
use super::super::memory::MemoryNet;
use super::super::service::Services;
use super::super::settings::Settings;
use super::*;
use crate::model::id::PartitionId;
use crate::model::task::{Assignment, NodeProfile, NodeState};

fn node(name: &str, roles: &[Role], state: NodeState) -> (NodeProfile, NodeState) {
    let roles = roles.iter().copied().collect();
    let listen = Some(format!("{name}:1"));
    let name = NodeName::new(name);
    (NodeProfile { name, boot: 1, roles, listen, http: None, host: None, weight: 100 }, state)
}

fn directory(version: u64, nodes: Vec<(NodeProfile, NodeState)>, owner: Option<&str>) -> Arc<Directory> {
    let assignment = Assignment { owner: owner.map(NodeName::new), standby: None, epoch: 1 };
    let tasks = vec![(Task::Gate(PartitionId(0)), assignment)];
    Arc::new(Directory { version, nodes, tasks, ..Directory::default() })
}

fn peers(most: usize) -> Arc<Peers> {
    let services = Arc::new(Services::default());
    Peers::new(MemoryNet::default().node(identity("a"), Settings::for_tests(), services), most)
}

fn is_same(one: &Arc<dyn Link>, other: &Arc<dyn Link>) -> bool {
    Arc::ptr_eq(one, other)
}

#[tokio::test]
async fn an_address_has_one_link_until_no_directory_has_it() {
    let peers = peers(2);
    let (first, other) = (peers.to("b:1").expect("room"), peers.to("c:1").expect("room"));
    assert!(is_same(&first, &peers.to("b:1").expect("it is there")) && !is_same(&first, &other));
    assert!(peers.to("d:1").is_none(), "no more than the limit");
    let (sender, directories) = watch::channel(Arc::default());
    let following = tokio::spawn(peers.clone().follow(directories));
    sender.send_replace(directory(1, vec![node("c", &[], NodeState::Alive), node("b", &[], NodeState::Lost)], None));
    while peers.to("d:1").is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(is_same(&other, &peers.to("c:1").expect("it is there")));
    drop(sender);
    following.await.expect("it ends with the directories");
}

#[tokio::test]
async fn a_link_outlives_the_thread_that_asked_for_it_first() {
    let net = MemoryNet::default();
    let services = || Arc::new(Services::default());
    let there = net.node(identity("b"), Settings::for_tests(), services());
    let _listening = there.listen("b:1").await.expect("free");
    let peers = Peers::new(net.node(identity("a"), Settings::for_tests(), services()), 8);
    let asked = peers.clone();
    let link = std::thread::spawn(move || asked.to("b:1")).join().expect("no panic").expect("room");
    until_up(&link).await;
}

#[tokio::test]
async fn the_store_is_the_first_living_node_that_lends_its_tiers() {
    let peers = peers(8);
    let (sender, directories) = watch::channel(Arc::default());
    let to_store = peers.to_store(directories);
    assert!(to_store().is_none());
    let (lost, lives) = (node("b", &[Role::Store], NodeState::Lost), node("c", &[Role::Store], NodeState::Suspect));
    sender.send_replace(directory(1, vec![node("a", &[Role::Gate], NodeState::Alive), lost, lives], None));
    assert!(is_same(&to_store().expect("c lives"), &peers.to("c:1").expect("room")));
}

#[tokio::test]
async fn a_task_is_where_the_newest_directory_says() {
    let peers = peers(8);
    let (sender, directories) = watch::channel(Arc::default());
    let finder = Finder { me: NodeName::new("a"), directories, peers: peers.clone() };
    let find = || finder.find(&Task::Gate(PartitionId(0)));
    assert!(matches!(find(), Place::Here), "before there is a directory");
    let nodes = || vec![node("a", &[], NodeState::Alive), node("b", &[], NodeState::Alive)];
    sender.send_replace(directory(1, nodes(), Some("a")));
    assert!(matches!(find(), Place::Here));
    sender.send_replace(directory(2, nodes(), Some("b")));
    assert!(matches!(find(), Place::There(link) if is_same(&link, &peers.to("b:1").expect("room"))));
    for owner in [None, Some("nobody")] {
        sender.send_replace(directory(3, nodes(), owner));
        assert!(matches!(find(), Place::Nowhere));
    }
    assert!(matches!(finder.find(&Task::Gate(PartitionId(9))), Place::Nowhere));
}
