//! A member and masters made for the test, over connections that break.

use std::path::Path;

use super::*;
use crate::model::id::{Epoch, PartitionId};
use crate::model::report::{Freshness, NodeRates};
use crate::model::task::{Assignment, NodeState, SourceOrder, Task};
use crate::net::control::{ClusterState, FromNode};
use crate::net::link::{Fingerprint, Identity, Listening};
use crate::net::memory::MemoryNet;
use crate::net::service::Services;
use crate::net::settings::Settings as NetSettings;
use crate::net::tcp::TcpNet;

const SETTINGS: Settings = Settings { heartbeat: Millis(20), reclaim: Millis(300) };
const SOON: Duration = Duration::from_secs(10);
const TASK: Task = Task::Gate(PartitionId(0));

fn identity(name: &str) -> Identity {
    let me = Peer { name: name.into(), roles: Vec::new(), addresses: Vec::new(), boot: 1 };
    Identity { cluster: "shop".into(), secret: b"secret".to_vec(), agreed: Fingerprint::default(), me }
}

fn profile() -> NodeProfile {
    let (name, roles) = (NodeName::new("n"), Default::default());
    NodeProfile { name, boot: 7, roles, listen: None, http: None, host: None, weight: 100 }
}

/// Says what the test wants, and keeps what it hears.
#[derive(Default)]
struct Master {
    name: String,
    heard: Mutex<Vec<FromNode>>,
    nodes: Mutex<Vec<Arc<dyn Link>>>,
    is_active: Mutex<bool>,
    active_address: Mutex<Option<String>>,
}

impl Master {
    fn tell(&self, message: &FromMaster) {
        for node in lock(&self.nodes).iter() {
            drop(node.send(service::MEMBER, codec::encode(message).into()));
        }
    }

    fn stand(&self, term: u64, is_active: bool) {
        *lock(&self.is_active) = is_active;
        let master = NodeName::new(&self.name);
        self.tell(&FromMaster::Standing { term, master, is_active, active: None });
    }

    fn direct(&self, version: u64, owner: Option<&str>, epoch: Epoch) {
        self.direct_in(NodeState::Alive, version, owner, epoch);
    }

    fn direct_in(&self, state: NodeState, version: u64, owner: Option<&str>, epoch: Epoch) {
        let assignment = Assignment { owner: owner.map(NodeName::new), standby: None, epoch };
        let nodes = vec![(profile(), state)];
        let masters = vec!["m1:1".to_owned(), "m2:1".to_owned()];
        let tasks = vec![(TASK, assignment)];
        let directory = Directory { version, term: 1, nodes, tasks, modes: Vec::new(), masters };
        self.tell(&FromMaster::Directory(Arc::new(directory)));
    }

    fn count(&self, is_it: impl Fn(&FromNode) -> bool) -> usize {
        lock(&self.heard).iter().filter(|message| is_it(message)).count()
    }
}

impl Handler for Master {
    fn call<'a>(&'a self, _peer: &'a Peer, _service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        let _: Ask = codec::decode("a question", &body).expect("a question");
        let answer = match *lock(&self.is_active) {
            true => Answered::State(Box::new(ClusterState {
                active: Some(NodeName::new(&self.name)),
                ..Default::default()
            })),
            false => Answered::NotActive { active: lock(&self.active_address).clone() },
        };
        Box::pin(std::future::ready(Ok(codec::encode(&answer).into())))
    }

    fn receive<'a>(&'a self, _peer: &'a Peer, _service: u16, body: Bytes) -> BoxFuture<'a, ()> {
        lock(&self.heard).push(codec::decode("a node's message", &body).expect("a node's message"));
        Box::pin(std::future::ready(()))
    }

    fn connected(&self, link: Arc<dyn Link>) {
        lock(&self.nodes).push(link);
    }
}

/// What was to be done, and permits to end what is let go.
#[derive(Default)]
struct Done {
    log: Mutex<Vec<String>>,
    may_end: tokio::sync::Notify,
}

struct TestTasks(Arc<Done>);

impl Tasks for TestTasks {
    fn run(&self, work: Work) {
        lock(&self.0.log).push(format!("run {} {}", work.task, work.actor_epoch()));
    }

    fn order(&self, work: &Work, order: SourceOrder) {
        lock(&self.0.log).push(format!("{order:?} {} {}", work.task, work.actor_epoch()));
    }

    fn let_go(&self, work: Work, how: How) -> BoxFuture<'static, ()> {
        lock(&self.0.log).push(format!("{how:?} {} {}", work.task, work.actor_epoch()));
        let done = self.0.clone();
        Box::pin(async move { done.may_end.notified().await })
    }
}

struct Stage {
    net: MemoryNet,
    masters: [Arc<Master>; 2],
    member: Member,
    done: Arc<Done>,
    _listening: Vec<(Arc<dyn Net>, Listening)>,
}

async fn stage() -> Stage {
    let net = MemoryNet::default();
    let master = |name: &str| Arc::new(Master { name: name.into(), ..Default::default() });
    let masters = [master("m1"), master("m2")];
    let mut listening = Vec::new();
    for master in &masters {
        let services = Arc::new(Services::default());
        services.set([(service::CONTROL, master.clone() as Arc<dyn Handler>)].into());
        let node = net.node(identity(&master.name), NetSettings::for_tests(), services);
        let listens = node.listen(&format!("{}:1", master.name)).await.expect("free");
        listening.push((node, listens));
    }
    let (mailbox, services, done) =
        (Arc::new(Mailbox::default()), Arc::new(Services::default()), Arc::new(Done::default()));
    services.set([(service::MEMBER, mailbox.clone() as Arc<dyn Handler>)].into());
    let parts = MemberParts {
        profile: profile(),
        masters: vec!["m1:1".into(), "m2:1".into()],
        settings: SETTINGS,
        net: net.node(identity("n"), NetSettings::for_tests(), services),
        tasks: Arc::new(TestTasks(done.clone())),
        reporter: Arc::new(|| Box::pin(std::future::ready(report()))),
        clock: Clock::System,
    };
    let member = Member::start(&mailbox, parts);
    until("both masters are reached", || masters.iter().all(|master| !lock(&master.nodes).is_empty())).await;
    Stage { net, masters, member, done, _listening: listening }
}

fn report() -> NodeReport {
    NodeReport {
        at_ms: 1,
        started_ms: 1,
        version: "0".into(),
        cores: 1,
        load: 0.0,
        resident_bytes: 1,
        rates: NodeRates::default(),
        freshness: Freshness::default(),
        tasks: Vec::new(),
        tiers: Vec::new(),
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

impl Stage {
    fn log(&self) -> Vec<String> {
        lock(&self.done.log).clone()
    }

    async fn join(&self) {
        self.masters[0].stand(1, true);
        until("it says hello", || self.masters[0].count(|said| matches!(said, FromNode::Hello { .. })) > 0).await;
        self.masters[0].direct(1, Some("n"), 4);
        until("it does what it was told", || self.log() == ["run gate 0 4000000"]).await;
    }
}

#[tokio::test]
async fn a_node_joins_works_reports_and_hands_over() {
    let stage = stage().await;
    stage.join().await;
    let master = &stage.masters[0];
    assert_eq!(stage.member.directory().borrow().version, 1);
    let reports = |said: &FromNode| matches!(said, FromNode::Beat { directory: 1, report: Some(_), .. });
    until("it reports", || master.count(reports) > 0).await;
    master.tell(&FromMaster::Release { task: TASK, epoch: 4 });
    until("it lets go", || stage.log().len() == 2).await;
    assert_eq!(stage.log()[1], "HandOver gate 0 4000000");
    let released = |said: &FromNode| matches!(said, FromNode::Released { epoch: 4, .. });
    sleep(Duration::from_millis(50)).await;
    assert_eq!(master.count(released), 0, "not before it is done");
    stage.done.may_end.notify_one();
    until("it says so", || master.count(released) == 1).await;
    assert_eq!(stage.masters[1].count(|said| !matches!(said, FromNode::Hello { .. })), 0, "standbys are left alone");
}

#[tokio::test]
async fn a_node_finds_the_new_active_master_and_a_lost_connection_again() {
    let stage = stage().await;
    stage.join().await;
    stage.net.cut_both("n", "m1");
    stage.net.break_off("n", "m1");
    stage.masters[1].stand(2, true);
    until("it turns to the new one", || {
        stage.masters[1].count(|said| matches!(said, FromNode::Beat { directory: 1, .. })) > 0
    })
    .await;
    stage.masters[1].direct(2, Some("other"), 5);
    until("it follows", || stage.log().len() == 2).await;
    assert_eq!(stage.log()[1], "Lost gate 0 4000000");
    let hellos = || stage.masters[1].count(|said| matches!(said, FromNode::Hello { .. }));
    let before = hellos();
    stage.net.break_off("n", "m2");
    until("it says hello again", || hellos() > before).await;
}

#[tokio::test]
async fn i7_with_all_masters_away_the_work_goes_on() {
    let stage = stage().await;
    stage.join().await;
    for master in ["m1", "m2"] {
        stage.net.cut_both("n", master);
        stage.net.break_off("n", master);
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.log().len(), 1);
    let asked = stage.member.ask(&Ask::State { history_after_ms: 0 }, Duration::from_millis(200)).await;
    assert!(matches!(asked, Answered::NotActive { .. } | Answered::Unknown), "{asked:?}");
}

#[tokio::test]
async fn a_question_finds_the_active_master() {
    let stage = stage().await;
    // Nobody has said how it stands: it goes by what the asked one says.
    *lock(&stage.masters[1].is_active) = true;
    *lock(&stage.masters[0].active_address) = Some("m2:1".into());
    let ask = Ask::State { history_after_ms: 0 };
    let answer = stage.member.ask(&ask, SOON).await;
    assert!(matches!(answer, Answered::State(state) if state.active == Some(NodeName::new("m2"))));
    *lock(&stage.masters[1].is_active) = false;
    let nobody = stage.member.ask(&ask, Duration::from_millis(200)).await;
    assert_eq!(nobody, Answered::NotActive { active: None });
}

#[tokio::test]
async fn a_leaving_node_waits_until_nothing_is_its_own() {
    let stage = stage().await;
    stage.join().await;
    assert!(!stage.member.leave(Duration::from_millis(100)).await, "nobody has taken over");
    let left = async {
        until("it is heard", || stage.masters[0].count(|said| matches!(said, FromNode::Leaving { .. })) > 0).await;
        stage.masters[0].direct_in(NodeState::Draining, 2, Some("other"), 5);
        until("it lets go", || stage.log().len() == 2).await;
        stage.done.may_end.notify_one();
    };
    let (is_free, ()) = tokio::join!(stage.member.leave(SOON), left);
    assert!(is_free);
}

#[tokio::test]
async fn a_node_may_be_its_own_master() {
    let (mailbox, services, done) =
        (Arc::new(Mailbox::default()), Arc::new(Services::default()), Arc::new(Done::default()));
    let master = Arc::new(Master { name: "n".into(), ..Default::default() });
    services.set(
        [
            (service::CONTROL, master.clone() as Arc<dyn Handler>),
            (service::MEMBER, mailbox.clone() as Arc<dyn Handler>),
        ]
        .into(),
    );
    let net = TcpNet::new(identity("n"), NetSettings::for_tests(), Path::new(""), Clock::System, services);
    let net: Arc<dyn Net> = Arc::new(net.expect("no certificates"));
    let listening = net.listen("127.0.0.1:0").await.expect("a free port");
    let parts = MemberParts {
        profile: profile(),
        masters: vec![listening.address.clone()],
        settings: SETTINGS,
        net,
        tasks: Arc::new(TestTasks(done.clone())),
        reporter: Arc::new(|| Box::pin(std::future::ready(report()))),
        clock: Clock::System,
    };
    let member = Member::start(&mailbox, parts);
    until("it reaches itself", || !lock(&master.nodes).is_empty()).await;
    master.stand(1, true);
    until("it says hello", || master.count(|said| matches!(said, FromNode::Hello { .. })) > 0).await;
    master.direct(1, Some("n"), 4);
    until("it does what it was told", || lock(&done.log).len() == 1).await;
    let answer = member.ask(&Ask::State { history_after_ms: 0 }, SOON).await;
    assert!(matches!(answer, Answered::State(_) | Answered::NotActive { .. }), "{answer:?}");
}
