//! Pushes between two nodes, with real actors behind their mailboxes.

use std::sync::Mutex;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler as Handles};
use tokio::sync::watch;

use super::super::control::Directory;
use super::super::fixture_tests::{eventually, identity, until_up};
use super::super::link::{Listening, Net};
use super::super::memory::MemoryNet;
use super::super::peers::Peers;
use super::super::service::Services;
use super::super::settings::Settings;
use super::*;
use crate::locks::lock;
use crate::model::batch::{Batch, BatchHeader};
use crate::model::id::{SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::model::task::{Assignment, NodeName, NodeProfile, NodeState};

const HERE: PartitionId = PartitionId(0);
const THERE: PartitionId = PartitionId(1);

type Heard = Arc<Mutex<(Vec<Chunk>, Vec<Idle>)>>;

/// Stands for an owner; may take its time.
struct Owner {
    heard: Heard,
    pause: Duration,
    holds: Vec<PushChunk>,
}

impl Actor for Owner {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(2);
    }
}

impl Handles<PushChunk> for Owner {
    type Result = ();

    fn handle(&mut self, push: PushChunk, context: &mut Context<Self>) {
        use actix::{ActorFutureExt, AsyncContext, WrapFuture};
        lock(&self.heard).0.push(push.chunk.clone());
        if !self.pause.is_zero() {
            self.holds.push(push);
            context.wait(tokio::time::sleep(self.pause).into_actor(self).map(|(), owner, _| owner.holds.clear()));
        }
    }
}

impl Handles<Idle> for Owner {
    type Result = ();

    fn handle(&mut self, idle: Idle, _: &mut Context<Self>) {
        lock(&self.heard).1.push(idle);
    }
}

fn owner(pause: Duration) -> (Addr<Owner>, Heard) {
    let heard = Heard::default();
    (Owner { heard: heard.clone(), pause, holds: Vec::new() }.start(), heard)
}

fn local(partition: PartitionId, owner: &Addr<Owner>, budget: usize) -> LocalOwners {
    let (pushes, idles) = (owner.clone().recipient(), owner.clone().recipient());
    LocalOwners {
        push: Arc::new(move |asked| (asked == partition).then(|| pushes.clone())),
        idle: Arc::new(move |asked| (asked == partition).then(|| idles.clone())),
        budget: PushBudget::new(budget),
    }
}

fn chunk(number: u64, bytes: usize) -> Chunk {
    let header = BatchHeader {
        source: SourceId::push("orders", 1),
        span: Span::new(Position(number.into()), Position(u128::from(number) + 1)),
        table: "orders".into(),
        schema: 1,
        rows: 1,
        weighted: false,
        positioned: false,
        at_ms: 0,
        hours: None,
    };
    let batch = Batch { header, body: vec![number as u8; bytes].into() };
    Chunk { id: Tip::new(1, number), previous: Tip::new(1, number - 1), at_ms: 0, batches: vec![batch] }
}

fn profile(name: &str) -> (NodeProfile, NodeState) {
    let (name, listen) = (NodeName::new(name), Some(format!("{name}:1")));
    let roles = Default::default();
    (NodeProfile { name, boot: 1, roles, listen, http: None, host: None, weight: 100 }, NodeState::Alive)
}

/// Node a owns `HERE`, node b `THERE`.
fn directory() -> Arc<Directory> {
    let owned = |name| Assignment { owner: Some(NodeName::new(name)), standby: None, epoch: 1 };
    let tasks = vec![(Task::Compute(HERE), owned("a")), (Task::Compute(THERE), owned("b"))];
    Arc::new(Directory { version: 1, nodes: vec![profile("a"), profile("b")], tasks, ..Directory::default() })
}

struct Pair {
    owners: ClusterOwners,
    heard_here: Heard,
    heard_there: Heard,
    link: Arc<dyn crate::net::link::Link>,
    _parts: (Listening, watch::Sender<Arc<Directory>>, Arc<dyn Net>),
}

async fn pair(pause: Duration, budget: usize) -> Pair {
    let net = MemoryNet::default();
    let ((here, heard_here), (there, heard_there)) = (owner(Duration::ZERO), owner(pause));
    let services = Arc::new(Services::default());
    let service: Arc<dyn Handler> = Arc::new(PushService { here: local(THERE, &there, budget) });
    services.set([(service::PUSH, service)].into());
    let other = net.node(identity("b"), Settings::for_tests(), services);
    let listening = other.listen("b:1").await.expect("free");
    let peers = Peers::new(net.node(identity("a"), Settings::for_tests(), Arc::new(Services::default())), 8);
    let link = peers.to("b:1").expect("room");
    until_up(&link).await;
    let (sender, directories) = watch::channel(directory());
    let finder = crate::net::peers::Finder { me: NodeName::new("a"), directories, peers };
    let owners = ClusterOwners { here: local(HERE, &here, budget), finder };
    Pair { owners, heard_here, heard_there, link, _parts: (listening, sender, other) }
}

#[actix_rt::test]
async fn chunks_and_idleness_reach_the_owner_wherever_it_lives() {
    let pair = pair(Duration::ZERO, 1 << 20).await;
    for (partition, heard) in [(HERE, &pair.heard_here), (THERE, &pair.heard_there)] {
        for number in 1..=3 {
            assert!(pair.owners.push(partition, chunk(number, 1_000)));
            let wanted = usize::try_from(number).expect("small");
            eventually("it is there", || lock(heard).0.len() == wanted).await;
        }
        let idle = Idle { partition, tip: Tip::new(1, 3), at_ms: 5 };
        pair.owners.idle(idle);
        eventually("it is there", || lock(heard).1 == [idle]).await;
        assert_eq!(lock(heard).0, [chunk(1, 1_000), chunk(2, 1_000), chunk(3, 1_000)]);
    }
}

#[actix_rt::test]
async fn i6_a_slow_owner_elsewhere_loses_pushes_and_takes_no_memory() {
    let pair = pair(Duration::from_millis(300), 64 << 10).await;
    let mut refused = 0;
    for number in 1..200 {
        // As fast as they can be made: the link's queue, the window and the budget all end.
        refused += u32::from(!pair.owners.push(THERE, chunk(number, 20_000)));
    }
    assert!(refused > 100, "the gate hears that the way is full: {refused}");
    eventually("the first is there", || !lock(&pair.heard_there).0.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(lock(&pair.heard_there).0.len() < 5, "what did not fit was dropped");
    // The way is free again: nobody waited for the slow one.
    assert!(pair.owners.push(THERE, chunk(500, 20_000)));
}

#[actix_rt::test]
async fn an_owner_that_cannot_be_reached_is_not_slow() {
    let pair = pair(Duration::ZERO, 1 << 20).await;
    pair.link.close("gone");
    eventually("it is closed", || pair.link.state().borrow().peer().is_none()).await;
    assert!(pair.owners.push(THERE, chunk(1, 10)), "it reads kv when it comes");
    assert!(pair.owners.push(PartitionId(7), chunk(1, 10)), "nobody has it");
    assert!(pair.owners.push(HERE, chunk(1, 10)));
}
