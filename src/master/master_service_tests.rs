use std::collections::BTreeMap;
use std::sync::Mutex;

use tempfile::TempDir;

use super::*;
use crate::backoff::Backoff;
use crate::clock::instant;
use crate::locks::lock;
use crate::model::task::{NodeProfile, NodeState, Role};
use crate::model::units::Millis;
use crate::net::control::{ClusterState, Directory, FromMaster};
use crate::net::link::{Fingerprint, Identity, LinkState, Listening};
use crate::net::memory::MemoryNet;
use crate::net::service::Services;
use crate::net::settings::Settings as NetSettings;

const SOON: Duration = Duration::from_secs(20);
const PARTITIONS: u16 = 6;

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let begun = instant();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn identity(name: &str) -> Identity {
    let me = Peer { name: name.into(), roles: vec![], addresses: Vec::new(), boot: 1 };
    Identity { cluster: "shop".into(), secret: "secret".into(), agreed: Fingerprint::default(), me }
}

fn address(number: u8) -> String {
    format!("m{number}:1")
}

struct Running {
    master: Option<Master>,
    _listening: Listening,
    _net: Arc<dyn Net>,
}

/// Masters m1, m2, … on one memory network, each with a folder that outlives it.
struct Test {
    net: MemoryNet,
    folders: BTreeMap<u8, TempDir>,
    first: Vec<String>,
    running: BTreeMap<u8, Running>,
}

impl Test {
    async fn new(count: u8) -> Self {
        let first = (1..=count).map(address).collect();
        let mut test = Self { net: MemoryNet::default(), folders: BTreeMap::new(), first, running: BTreeMap::new() };
        for number in 1..=count {
            test.start(number).await;
        }
        test
    }

    async fn start(&mut self, number: u8) {
        let services = Arc::new(Services::default());
        let name = format!("m{number}");
        let net = self.net.node(identity(&name), NetSettings::for_tests(), services.clone());
        let folder = self.folders.entry(number).or_insert_with(|| tempfile::tempdir().expect("a folder"));
        let retry = Backoff { first: Millis(5), most: Millis(10) };
        let alerts = AlertSettings { webhook: String::new(), timeout: Millis(100), attempts: 1, retry, waiting: 1 };
        let parts = MasterParts {
            settings: Settings::for_tests(),
            alerts,
            cluster: "shop".into(),
            folder: folder.path().to_owned(),
            name: NodeName::new(&name),
            me: address(number),
            masters: self.first.clone(),
            partitions: PARTITIONS,
            sources: vec![],
            fingerprint: 7,
            net: net.clone(),
            clock: Clock::System,
            metrics: Metrics::default(),
        };
        let master = Master::start(parts).await.expect("it starts");
        services.set(master.handlers().into_iter().collect());
        let listening = net.listen(&address(number)).await.expect("free");
        self.running.insert(number, Running { master: Some(master), _listening: listening, _net: net });
    }

    /// As a kill would: nothing is handed over.
    async fn kill(&mut self, number: u8) {
        let mut running = self.running.remove(&number).expect("it runs");
        let master = running.master.take().expect("it runs");
        drop(running);
        let _ = master.stop.send(());
        master.task.await.expect("no panic");
    }

    async fn stop(&mut self, number: u8) {
        let mut running = self.running.remove(&number).expect("it runs");
        running.master.take().expect("it runs").stop().await;
    }

    fn view(&self, number: u8) -> MasterView {
        self.running[&number].master.as_ref().expect("it runs").view.borrow().clone()
    }

    fn active(&self) -> Option<u8> {
        let active: Vec<u8> = self.running.keys().copied().filter(|it| self.view(*it).is_active).collect();
        active.into_iter().max_by_key(|number| self.view(*number).term)
    }

    async fn until_active(&self) -> u8 {
        eventually("a master is active", || self.active().is_some()).await;
        self.active().expect("just seen")
    }

    async fn ask(&self, number: u8, what: Ask) -> Answered {
        self.running[&number].master.as_ref().expect("it runs").ask(what).await
    }

    async fn state(&self) -> ClusterState {
        let active = self.until_active().await;
        match self.ask(active, Ask::State { history_after_ms: 0 }).await {
            Answered::State(state) => *state,
            other => panic!("a state, not {other:?}"),
        }
    }
}

/// A node as far as masters see it: it says hello and beats to the active one, and lets go when it is asked.
struct Node {
    newest: Mutex<Directory>,
    links: Mutex<Vec<Arc<dyn Link>>>,
    name: NodeName,
}

struct NodeDoor(Arc<Node>);

impl Handler for NodeDoor {
    fn call<'a>(&'a self, _: &'a Peer, service: u16, _: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(std::future::ready(Err(Refusal::no_such_service(service))))
    }

    fn receive<'a>(&'a self, _: &'a Peer, _: u16, body: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match codec::decode("message of a master", &body).expect("as it was sent") {
                FromMaster::Directory(directory) => {
                    let mut newest = lock(&self.0.newest);
                    if directory.version > newest.version {
                        *newest = Directory::clone(&directory);
                    }
                }
                FromMaster::Release { task, epoch } => {
                    self.0.say(&FromNode::Released { node: self.0.name.clone(), boot: 5, task, epoch });
                }
                FromMaster::Standing { .. } | FromMaster::Order { .. } => {}
            }
        })
    }
}

impl Node {
    async fn start(test: &Test, name: &str, masters: u8) -> Arc<Self> {
        let node = Arc::new(Self { newest: Mutex::default(), links: Mutex::default(), name: NodeName::new(name) });
        let services = Arc::new(Services::default());
        let door: Arc<dyn Handler> = Arc::new(NodeDoor(node.clone()));
        services.set([(service::MEMBER, door)].into());
        let net = test.net.node(identity(name), NetSettings::for_tests(), services);
        *lock(&node.links) = (1..=masters).map(|number| net.dial(&address(number))).collect();
        let beating = Arc::downgrade(&node);
        tokio::spawn(async move {
            // The network lives as long as its node.
            let _net = net;
            while let Some(node) = beating.upgrade() {
                node.beat();
                drop(node);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        node
    }

    /// To all masters: those that are not active do nothing with it.
    fn say(&self, message: &FromNode) {
        let body: Bytes = codec::encode(message).into();
        lock(&self.links).iter().for_each(|link| drop(link.send(service::CONTROL, body.clone())));
    }

    fn beat(&self) {
        let newest = self.directory();
        let is_known = newest.nodes.iter().any(|(profile, _)| profile.name == self.name);
        if !is_known {
            let roles = [Role::Gate, Role::Slave].into();
            let name = self.name.clone();
            let profile = NodeProfile { name, boot: 5, roles, listen: None, http: None, host: None, weight: 100 };
            self.say(&FromNode::Hello { profile });
        }
        let node = self.name.clone();
        self.say(&FromNode::Beat { node, boot: 5, directory: newest.version, report: None });
    }

    fn directory(&self) -> Directory {
        lock(&self.newest).clone()
    }

    fn owned(&self) -> usize {
        self.directory().tasks.iter().filter(|(_, it)| it.owner.as_ref() == Some(&self.name)).count()
    }
}

#[tokio::test]
async fn a_single_master_is_active_at_once_and_remembers() {
    let mut test = Test::new(1).await;
    test.until_active().await;
    let node = Node::start(&test, "n1", 1).await;
    eventually("it has all tasks", || node.owned() == 2 * usize::from(PARTITIONS)).await;
    let before = node.directory();
    test.kill(1).await;
    test.start(1).await;
    let state = test.state().await;
    assert_eq!(state.tasks, before.tasks, "restored from disk, with the same epochs");
    let down: Vec<_> = lock(&node.links).iter().map(|link| link.state()).collect();
    for mut state in down {
        state.wait_for(|state| matches!(state, LinkState::Up { .. })).await.expect("it comes back");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.directory().tasks, before.tasks, "nothing moves because the master was away");
    test.stop(1).await;
}

#[tokio::test]
async fn three_masters_elect_one_and_its_loss_changes_no_assignment() {
    let mut test = Test::new(3).await;
    let active = test.until_active().await;
    let (one, other) = (Node::start(&test, "n1", 3).await, Node::start(&test, "n2", 3).await);
    let share = usize::from(PARTITIONS);
    eventually("both have their share", || one.owned() == share && other.owned() == share).await;
    let before = one.directory().tasks;

    test.kill(active).await;
    let next = test.until_active().await;
    assert_ne!(next, active);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = test.state().await;
    assert_eq!(state.tasks, before);
    assert!(state.nodes.iter().all(|node| node.state == NodeState::Alive));

    // One more, and there is no majority: nothing is decided, and nothing is lost.
    test.kill(next).await;
    let last = *test.running.keys().next().expect("one is left");
    eventually("it does not take itself for the active one", || !test.view(last).is_active).await;
    let answer = test.ask(last, Ask::Drain { node: NodeName::new("n1"), draining: true }).await;
    assert!(matches!(answer, Answered::NotActive { .. } | Answered::Unknown), "{answer:?}");
    test.start(active).await;
    let state = test.state().await;
    assert_eq!(state.tasks, before);
}

#[tokio::test]
async fn a_drain_goes_through_and_a_master_that_stops_hands_over_first() {
    let mut test = Test::new(3).await;
    let active = test.until_active().await;
    let (one, other) = (Node::start(&test, "n1", 3).await, Node::start(&test, "n2", 3).await);
    let share = usize::from(PARTITIONS);
    eventually("both have their share", || one.owned() == share && other.owned() == share).await;
    assert_eq!(test.ask(active, Ask::Drain { node: one.name.clone(), draining: true }).await, Answered::Done);
    eventually("all is the other's", || one.owned() == 0 && other.owned() == 2 * share).await;
    let standby = *test.running.keys().find(|number| **number != active).expect("two of them");
    eventually("it knows", || test.view(standby).active == Some(address(active))).await;
    let ask = Ask::Drain { node: one.name.clone(), draining: false };
    assert_eq!(test.ask(standby, ask).await, Answered::NotActive { active: Some(address(active)) });
    test.stop(active).await;
    let begun = instant();
    test.until_active().await;
    assert!(begun.elapsed() < Duration::from_millis(500), "nobody waited for the silence of the one that stopped");
}

#[tokio::test]
async fn masters_are_added_and_removed_while_they_run() {
    let mut test = Test::new(1).await;
    let active = test.until_active().await;
    let node = Node::start(&test, "n1", 1).await;
    eventually("it has a directory", || node.owned() > 0).await;
    test.start(2).await;
    assert_eq!(test.view(2).id, None);
    let nowhere = test.ask(active, Ask::AddMaster { address: "m9:1".into() }).await;
    assert!(matches!(nowhere, Answered::Refused { .. }), "{nowhere:?}");
    assert_eq!(test.ask(active, Ask::AddMaster { address: address(2) }).await, Answered::Done);
    assert!(test.view(2).id.is_some_and(|id| id > 1_000));
    eventually("nodes hear of it", || node.directory().masters == [address(1), address(2)]).await;
    // It votes, and knows its number after a restart.
    test.kill(2).await;
    test.start(2).await;
    assert_eq!(test.state().await.masters.iter().filter(|it| it.votes).count(), 2);
    let begun = instant();
    loop {
        let active = test.until_active().await;
        let answer = test.ask(active, Ask::RemoveMaster { address: address(2) }).await;
        if answer == Answered::Done {
            break;
        }
        assert!(begun.elapsed() < SOON, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("one is left", || test.active().is_some_and(|it| test.view(it).voters == 1)).await;
}
