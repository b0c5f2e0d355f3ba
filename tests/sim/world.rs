//! The simulated cluster: nodes with production cores, memory tiers, messages between them, in virtual time.
//!
//! Invariant: an event at a time; what happens next is decided by the seed alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use holdfast::gate::exchange::OfferId;
use holdfast::gate::lane::{self, Lane};
use holdfast::model::id::PartitionId;
use holdfast::slave::partition::Partition;

use crate::asker::Asker;
use crate::assigner::{Assigner, Kind, Task};
use crate::bugs::Bug;
use crate::calls::ActorId;
use crate::capture::Capture;
use crate::checkers::{Checked, Checkers, Violation};
use crate::clients::{Clients, DeliveryId};
use crate::control::{Control, MASTERS};
use crate::event::{Event, Scheduled};
use crate::faults::Tally;
use crate::plan::Plan;
use crate::random::Random;
use crate::shop;
use crate::tiers::Tiers;
use crate::truth::Truth;

pub type NodeId = usize;

/// What happens so seldom does not happen.
pub const NEVER_MS: i64 = 1 << 40;

/// 2026-11-22T12:00:00Z
pub const START_MS: i64 = 1_795_348_800_000;

/// A process.
#[derive(Debug, Clone)]
pub struct Node {
    pub kind: Kind,
    pub is_up: bool,
    pub stopped_until_ms: i64,
    pub slowness: i64,
    pub clock_off_ms: i64,
    /// To each tier.
    pub links: [Link; 4],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Good,
    Cut,
    /// Calls get there, their answers do not come back.
    CutBack,
}

/// A production core in a process.
pub struct Actor {
    pub node: NodeId,
    pub partition: PartitionId,
    pub role: Role,
    /// Calls without a reply yet.
    pub under_way: usize,
    /// When the last batch sent to mq gets there.
    pub published_ms: i64,
    steps: u64,
}

pub enum Role {
    Gate(Box<Lane>),
    Slave {
        core: Box<Partition>,
        /// When the timer that is set fires, by the node's clock.
        timer_ms: Option<i64>,
    },
    /// Queries and capture have their state in the world: there is one of each.
    Other,
}

pub struct World {
    pub plan: Plan,
    pub bug: Option<Bug>,
    pub random: Random,
    pub now_ms: i64,
    numbers: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    pub nodes: Vec<Node>,
    pub actors: HashMap<ActorId, Actor>,
    actors_ever: ActorId,
    pub tiers: Tiers,
    pub truth: Truth,
    pub checkers: Checkers,
    /// Gives out tasks by itself; in worlds without masters only.
    pub assigner: Assigner,
    pub control: Option<Control>,
    pub clients: Clients,
    pub capture: Capture,
    pub asker: Asker,
    pub tally: Tally,
    /// Do faults happen, and do sources change?
    pub trouble: bool,
    /// Actors that wait for mq to get beyond an offset.
    pub awaiting: HashMap<PartitionId, Vec<(ActorId, u64)>>,
    pub offers: HashMap<(ActorId, OfferId), DeliveryId>,
    pub offers_ever: OfferId,
    pub broken: Option<Violation>,
    trace: u64,
    pub is_told: bool,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub trace: u64,
    pub simulated_ms: i64,
    pub tally: Tally,
    pub restored_after_ms: i64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self::with_plan(seed, Plan::of_seed(seed))
    }

    pub fn with_plan(seed: u64, plan: Plan) -> Self {
        let mut random = Random::new(seed);
        let mut kinds = vec![Kind::Gate, Kind::Gate, Kind::Slave, Kind::Slave, Kind::Slave, Kind::Query, Kind::Capture];
        if plan.masters.is_some() {
            kinds.extend(MASTERS.map(|_| Kind::Master));
        }
        let node = |kind| Node {
            kind,
            is_up: true,
            stopped_until_ms: i64::MIN,
            slowness: 1,
            links: [Link::Good; 4],
            clock_off_ms: random.between(-plan.clock_off_ms, plan.clock_off_ms),
        };
        let nodes: Vec<Node> = kinds.into_iter().map(node).collect();
        let tiers = Tiers::new(plan.cache_bytes, plan.gate.read_bytes.bytes(), plan.slave.kv_read_bytes.bytes());
        let mut world = Self {
            bug: None,
            now_ms: START_MS,
            numbers: 0,
            events: BinaryHeap::new(),
            nodes,
            actors: HashMap::new(),
            actors_ever: 0,
            tiers,
            truth: Truth::new(),
            checkers: Checkers::new(2 * plan.clock_off_ms),
            assigner: Assigner::default(),
            control: plan.masters.clone().map(Control::new),
            clients: Clients::default(),
            capture: Capture::new(),
            asker: Asker::new(&plan.query),
            tally: Tally::default(),
            trouble: true,
            awaiting: HashMap::new(),
            offers: HashMap::new(),
            offers_ever: 0,
            broken: None,
            trace: seed,
            is_told: false,
            random,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.asker.actor = self.new_actor(5, PartitionId(0), Role::Other);
        self.capture.actor = self.new_actor(6, PartitionId(0), Role::Other);
        if self.has_masters() {
            self.begin_control();
        } else {
            let tasks =
                shop::partitions().flat_map(|partition| [Kind::Gate, Kind::Slave].map(|kind| Task { kind, partition }));
            tasks.for_each(|task| self.assign(task));
        }
        if self.plan.push_every_ms < NEVER_MS {
            self.after(1, Event::Shop);
        }
        if self.plan.capture_every_ms < NEVER_MS {
            self.after(1, Event::Capture);
        }
        self.after(1, Event::Ask);
        self.after(self.plan.fault_every_ms, Event::Fault);
    }

    // --- time ---

    pub fn after(&mut self, delay_ms: i64, event: Event) {
        let tie = (self.random.next() >> 33) as u32 + 1;
        self.schedule(self.now_ms + delay_ms.max(0), tie, event);
    }

    /// At a time, in the order of calls among those of the same moment.
    pub fn in_order(&mut self, at_ms: i64, event: Event) {
        self.schedule(at_ms, 0, event);
    }

    fn schedule(&mut self, at_ms: i64, tie: u32, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse(Scheduled { at_ms, tie, number: self.numbers, event }));
    }

    /// A time around the mean.
    pub fn about(&mut self, mean_ms: i64) -> i64 {
        self.random.between(1, 2 * mean_ms.max(1) - 1)
    }

    /// Runs until the faults end and everything is exact again.
    pub fn run(&mut self) -> Result<Outcome, Violation> {
        self.run_for(self.plan.trouble_ms)?;
        self.settle()
    }

    pub fn run_for(&mut self, span_ms: i64) -> Result<(), Violation> {
        self.run_until(self.now_ms + span_ms)
    }

    /// The faults end; runs until everything is exact again.
    pub fn settle(&mut self) -> Result<Outcome, Violation> {
        let trouble_until_ms = self.now_ms;
        self.end_trouble();
        // Twice in a row: last retries of clients may come in between.
        let mut times = 0;
        while times < 2 {
            if self.now_ms >= trouble_until_ms + self.plan.restored_within_ms {
                return Err(self.not_restored());
            }
            self.run_for(250)?;
            times = if self.is_restored() { times + 1 } else { 0 };
        }
        let restored_after_ms = self.now_ms - trouble_until_ms;
        let simulated_ms = self.now_ms - START_MS;
        Ok(Outcome { trace: self.trace, simulated_ms, tally: self.tally.clone(), restored_after_ms })
    }

    fn run_until(&mut self, until_ms: i64) -> Result<(), Violation> {
        while self.events.peek().is_some_and(|Reverse(next)| next.at_ms <= until_ms) {
            let Reverse(next) = self.events.pop().expect("just seen");
            self.now_ms = self.now_ms.max(next.at_ms);
            self.handle(next.event);
            if let Some(violation) = self.broken.take() {
                return Err(violation);
            }
        }
        self.now_ms = self.now_ms.max(until_ms);
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        if let Some(actor) = event.addressee() {
            let Some(Actor { node, .. }) = self.actors.get(&actor) else { return };
            let stopped_until_ms = self.nodes[*node].stopped_until_ms;
            if stopped_until_ms > self.now_ms {
                return self.meet_stopped(stopped_until_ms, event);
            }
        }
        self.mark(event.number());
        match event {
            Event::Arrive { call, life, fate } => self.arrive(*call, life, fate),
            Event::Reply { to, reply } => self.replied(to, *reply),
            Event::Beat { to } => self.beat(to),
            Event::Retry { to } => self.step_gate(to, lane::Input::Admission(holdfast::gate::admission::Input::Retry)),
            Event::ReadMq { call, .. } => self.send(*call),
            Event::Wake { to, at_ms } => self.wake(to, at_ms),
            Event::Stop { to } => self.step_slave(to, holdfast::slave::exchange::Input::Stop),
            Event::Push { to, chunk } => self.pushed(to, *chunk),
            Event::Idle { to, tip, at_ms } => {
                self.step_slave(to, holdfast::slave::exchange::Input::Idle { tip, at_ms })
            }
            Event::Offer { to, delivery, offer } => self.offered(to, delivery, *offer),
            Event::Answer { delivery, answer } => self.answered(delivery, answer),
            Event::Shop => self.shop(),
            Event::Deliver { request, part, is_retry } => self.deliver(request, part, is_retry),
            Event::Capture => self.capture_tick(),
            Event::Ask => self.ask(),
            Event::AskAgain { query } => self.ask_again(query),
            Event::Fault => self.fault(),
            Event::Repair(repair) => self.repair(repair),
            Event::Detect(node) => self.detect(node),
            Event::Control(event) => self.happen(event),
        }
    }

    /// A stopped process takes nothing until it goes on; what is only a hint may not fit into its mailbox.
    fn meet_stopped(&mut self, until_ms: i64, event: Event) {
        if matches!(event, Event::Push { .. } | Event::Idle { .. }) && self.random.percent(50) {
            return;
        }
        self.in_order(until_ms, event);
    }

    // --- nodes and actors ---

    pub fn new_actor(&mut self, node: NodeId, partition: PartitionId, role: Role) -> ActorId {
        self.actors_ever += 1;
        let actor = Actor { node, partition, role, under_way: 0, published_ms: 0, steps: 0 };
        self.actors.insert(self.actors_ever, actor);
        self.actors_ever
    }

    /// What a node's clock shows.
    pub fn clock_ms(&self, node: NodeId) -> i64 {
        self.now_ms + self.nodes[node].clock_off_ms
    }

    /// Counts an actor's steps; true now and then.
    pub fn is_inspected(&mut self, id: ActorId) -> bool {
        let actor = self.actors.get_mut(&id).expect("it has just made a step");
        actor.steps += 1;
        actor.steps.is_multiple_of(16)
    }

    // --- what is noticed ---

    pub fn check(&mut self, checked: Checked) {
        if let Err(violation) = checked
            && self.broken.is_none()
        {
            self.tell(|| format!("BROKEN {violation:?}"));
            self.broken = Some(violation);
        }
    }

    /// Mixes something into the trace: two runs are the same if their traces are.
    pub fn mark(&mut self, what: u64) {
        let mixed = (self.trace ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.now_ms as u64;
        self.trace = mixed.rotate_left(29);
    }

    pub fn tell(&self, text: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>7} ms  {}", self.now_ms - START_MS, text());
        }
    }
}
