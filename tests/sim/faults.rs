//! What goes wrong, when the seed says so, and how it is mended.
//!
//! Invariant: every fault is mended when trouble ends; each kind that was hit is counted.

use std::collections::BTreeMap;

use holdfast::model::id::PartitionId;
use holdfast::query::verdict::Quality;
use holdfast::slave::standing::Standing;

use crate::asker::QUERY_NODE;
use crate::assigner::{Kind, Task};
use crate::calls::{TIERS, Tier};
use crate::capture::CAPTURE_NODE;
use crate::checkers::Violation;
use crate::control::trouble::CONTROL_FAULTS;
use crate::event::Event;
use crate::shop;
use crate::world::{Link, NodeId, Role, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    // Made now and then.
    Crash,
    Stop,
    Slow,
    ClockJump,
    Reassign,
    MqDown,
    KvDown,
    HotDown,
    CacheDown,
    SeveralDown,
    TierSlow,
    /// A node does not reach a tier.
    Cut,
    /// A node does not hear a tier.
    CutBack,
    KvLostWrites,
    KvEmptied,
    SnapshotLost,
    SnapshotTorn,
    HotLostWrites,
    HotEmptied,
    CacheEmptied,
    // Of masters, nodes and the connections between them.
    WireBroken,
    /// Some nodes do not reach the others, both ways or one way.
    Apart,
    Deaf,
    ActiveCrash,
    ActiveStop,
    MastersCrash,
    SlowDisk,
    /// By an operator.
    Drain,
    /// A node stops as it should, and is started again.
    Leave,
    // What happens to messages.
    RequestLost,
    RequestLate,
    AnswerLost,
    InFlightLost,
    PushLost,
    PushDoubled,
    PushDelayed,
    OfferLost,
    OfferAnswerLost,
}

/// Those that are made; often repeated is more frequent.
pub const FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::Crash,
    Fault::Crash,
    Fault::Stop,
    Fault::Stop,
    Fault::Slow,
    Fault::ClockJump,
    Fault::Reassign,
    Fault::Reassign,
    Fault::MqDown,
    Fault::KvDown,
    Fault::HotDown,
    Fault::CacheDown,
    Fault::SeveralDown,
    Fault::TierSlow,
    Fault::Cut,
    Fault::CutBack,
    Fault::KvLostWrites,
    Fault::KvLostWrites,
    Fault::KvEmptied,
    Fault::SnapshotLost,
    Fault::SnapshotTorn,
    Fault::HotLostWrites,
    Fault::HotLostWrites,
    Fault::HotEmptied,
    Fault::CacheEmptied,
];

/// What happened in a run.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub faults: BTreeMap<Fault, u64>,
    pub answers: u64,
    pub exact: u64,
    /// Answers of which not even the time is known.
    pub unknown: u64,
    pub served_by: BTreeMap<&'static str, u64>,
    pub accepted: u64,
    pub duplicates: u64,
    pub refused: u64,
    pub copies: u64,
    pub voids: u64,
    pub cut_emissions: u64,
    pub mq_trims: u64,
    /// Partitions that said at the end that something is missing for good.
    pub stated: u64,
    /// Of the control plane.
    pub elections: u64,
    pub restores: u64,
    pub handovers: u64,
    pub releases: u64,
    pub farewells: u64,
    pub moves: u64,
}

impl Tally {
    pub fn hit(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub fn answered(&mut self, quality: &Quality) {
        self.answers += 1;
        self.exact += u64::from(quality.exact);
        self.unknown += u64::from(quality.as_of_ms.is_none());
        for by in &quality.served_by {
            *self.served_by.entry(by.as_str()).or_default() += 1;
        }
    }

    pub fn add(&mut self, other: &Self) {
        other.faults.iter().for_each(|(fault, times)| *self.faults.entry(*fault).or_default() += times);
        other.served_by.iter().for_each(|(by, times)| *self.served_by.entry(by).or_default() += times);
        self.answers += other.answers;
        self.exact += other.exact;
        self.unknown += other.unknown;
        self.accepted += other.accepted;
        self.duplicates += other.duplicates;
        self.refused += other.refused;
        self.copies += other.copies;
        self.voids += other.voids;
        self.cut_emissions += other.cut_emissions;
        self.mq_trims += other.mq_trims;
        self.stated += other.stated;
        self.elections += other.elections;
        self.restores += other.restores;
        self.handovers += other.handovers;
        self.releases += other.releases;
        self.farewells += other.farewells;
        self.moves += other.moves;
    }
}

/// What ends a fault.
#[derive(Debug, Clone, Copy)]
pub enum Repair {
    Start(NodeId),
    Quicken(NodeId),
    Raise(Tier),
    QuickenTier(Tier),
    Join(NodeId, Tier),
}

impl World {
    pub fn fault(&mut self) {
        if !self.trouble || self.plan.faults.is_empty() {
            return;
        }
        let next_ms = self.about(self.plan.fault_every_ms);
        self.after(next_ms, Event::Fault);
        let fault = *self.random.pick(&self.plan.faults);
        self.make(fault);
    }

    pub fn make(&mut self, fault: Fault) {
        self.tell(|| format!("fault {fault:?}"));
        self.tally.hit(fault);
        let partition = *self.random.pick(&[PartitionId(0), PartitionId(1)]);
        let node = self.random.below(self.nodes.len());
        let tier = *self.random.pick(&TIERS);
        match fault {
            Fault::Crash => self.crash(node),
            Fault::Stop => self.stop(node),
            Fault::Slow => {
                self.nodes[node].slowness = self.random.between(10, 100);
                let until_ms = self.random.between(300, 3_000);
                self.after(until_ms, Event::Repair(Repair::Quicken(node)));
            }
            Fault::ClockJump => {
                let most_ms = self.plan.clock_off_ms;
                self.nodes[node].clock_off_ms = self.random.between(-most_ms, most_ms);
            }
            Fault::Reassign => {
                let kind = *self.random.pick(&[Kind::Gate, Kind::Slave]);
                self.reassign(Task { kind, partition });
            }
            Fault::MqDown => self.take_down(Tier::Mq),
            Fault::KvDown => self.take_down(Tier::Kv),
            Fault::HotDown => self.take_down(Tier::Hot),
            Fault::CacheDown => self.take_down(Tier::Cache),
            Fault::SeveralDown => {
                let chosen = 1 + self.random.below(15);
                TIERS
                    .into_iter()
                    .filter(|tier| chosen & (1 << *tier as usize) != 0)
                    .for_each(|tier| self.take_down(tier));
            }
            Fault::TierSlow => {
                self.tiers.slowness[tier as usize] = self.random.between(10, 200);
                let until_ms = self.random.between(300, 3_000);
                self.after(until_ms, Event::Repair(Repair::QuickenTier(tier)));
            }
            Fault::Cut | Fault::CutBack => {
                let link = if fault == Fault::Cut { Link::Cut } else { Link::CutBack };
                self.nodes[node].links[tier as usize] = link;
                let until_ms = self.random.between(300, 4_000);
                self.after(until_ms, Event::Repair(Repair::Join(node, tier)));
            }
            fault if CONTROL_FAULTS.contains(&fault) => self.make_control(fault),
            _ => self.lose(fault, partition),
        }
    }

    /// Faults of what tiers hold.
    fn lose(&mut self, fault: Fault, partition: PartitionId) {
        let count = 1 + self.random.below(6);
        let tier = match fault {
            Fault::KvLostWrites => {
                self.tiers.kv.lose_last_writes(partition, count.min(self.young_chunks(partition)));
                Tier::Kv
            }
            Fault::KvEmptied => {
                self.tiers.kv.clear(partition);
                Tier::Kv
            }
            Fault::SnapshotLost => {
                self.tiers.kv.lose_snapshot(partition);
                Tier::Kv
            }
            Fault::SnapshotTorn => {
                self.tiers.kv.tear_snapshot(partition);
                Tier::Kv
            }
            Fault::HotLostWrites => {
                self.tiers.hot.lose_last_writes(partition, count);
                Tier::Hot
            }
            Fault::HotEmptied => {
                self.tiers.hot.clear(partition);
                Tier::Hot
            }
            Fault::CacheEmptied => {
                self.tiers.cache.clear(partition);
                Tier::Cache
            }
            other => panic!("{other:?} happens to messages"),
        };
        self.checkers.lost(&self.tiers, tier, partition);
    }

    /// How many chunks a failover may lose: mq keeps what kv has for a time, and that must not be longer ago.
    fn young_chunks(&self, partition: PartitionId) -> usize {
        let oldest_ms = self.now_ms - self.plan.gate.mq_keep.as_i64() / 2 + 2 * self.plan.clock_off_ms;
        self.tiers.chunks(partition).iter().rev().take_while(|chunk| chunk.at_ms >= oldest_ms).count()
    }

    pub fn take_down(&mut self, tier: Tier) {
        self.tiers.set_up(tier, false);
        let until_ms = self.random.between(100, 4_000);
        self.after(until_ms, Event::Repair(Repair::Raise(tier)));
        if tier == Tier::Mq {
            self.break_waits();
        }
    }

    pub fn crash(&mut self, node: NodeId) {
        if !self.nodes[node].is_up {
            return;
        }
        self.tell(|| format!("node {node} crashes"));
        self.nodes[node].is_up = false;
        self.nodes[node].stopped_until_ms = i64::MIN;
        for id in self.actors_on(node) {
            self.end_actor(id);
        }
        if self.has_masters() {
            self.end_process(node);
        }
        let detected_ms = self.random.between(100, 1_500);
        let back_ms = self.random.between(100, 4_000);
        self.after(detected_ms, Event::Detect(node));
        self.after(back_ms, Event::Repair(Repair::Start(node)));
    }

    /// The process does not run, and does not know of it. It may be taken for lost.
    pub fn stop(&mut self, node: NodeId) {
        let for_ms = self.random.between(100, 4_000);
        self.nodes[node].stopped_until_ms = self.now_ms + for_ms;
        if self.has_masters() {
            self.let_starve_all_of(node);
        }
        if for_ms > 500 && self.random.percent(60) {
            let detected_ms = self.random.between(500, 1_500);
            self.after(detected_ms, Event::Detect(node));
        }
    }

    pub fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Start(node) => self.start(node),
            Repair::Quicken(node) => self.nodes[node].slowness = 1,
            Repair::Raise(tier) => self.tiers.set_up(tier, true),
            Repair::QuickenTier(tier) => self.tiers.slowness[tier as usize] = 1,
            Repair::Join(node, tier) => self.nodes[node].links[tier as usize] = Link::Good,
        }
    }

    fn start(&mut self, node: NodeId) {
        if std::mem::replace(&mut self.nodes[node].is_up, true) {
            return;
        }
        match node {
            QUERY_NODE => {
                let actor = self.new_actor(node, PartitionId(0), Role::Other);
                self.asker.begin(actor, &self.plan.query);
            }
            CAPTURE_NODE => self.restart_capture(),
            _ if self.has_masters() => self.start_process(node),
            // If nobody took its tasks over, it gets them back.
            _ => self.detect(node),
        }
    }

    /// From now on all goes well; those who lived on as zombies still do.
    pub fn end_trouble(&mut self) {
        self.tell(|| "trouble ends".into());
        self.trouble = false;
        self.tiers.heal();
        if self.has_masters() {
            return self.end_control_trouble();
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].slowness = 1;
            self.nodes[node].links = [Link::Good; 4];
            self.nodes[node].stopped_until_ms = i64::MIN;
            self.start(node);
        }
        for kind in [Kind::Gate, Kind::Slave] {
            for partition in shop::partitions() {
                if self.owner(Task { kind, partition }).is_none() {
                    self.assign(Task { kind, partition });
                }
            }
        }
    }

    /// Is every answer exact again, or is it stated for good what is missing?
    pub fn is_restored(&mut self) -> bool {
        if !self.is_captured() || self.unsettled().is_some() {
            return false;
        }
        shop::partitions().all(|partition| {
            self.checkers.is_restored(&self.tiers, &self.truth, partition) || self.states_its_lack(partition)
        })
    }

    /// What was trimmed and not saved cannot come back; the owner says so.
    fn states_its_lack(&mut self, partition: PartitionId) -> bool {
        let owner = self.owner(Task { kind: Kind::Slave, partition });
        let Some(Role::Slave { core, .. }) = owner.and_then(|id| self.actors.get(&id)).map(|actor| &actor.role) else {
            return false;
        };
        let trims = self.plan.slave.kv_keep.as_i64() < self.plan.trouble_ms;
        let states = trims && core.report().lacks.is_some() && *core.standing() == Standing::Counting;
        self.tally.stated += u64::from(states);
        states
    }

    pub fn not_restored(&self) -> Violation {
        let mut text = format!("captured: {}, unsettled: {:?}", self.is_captured(), self.unsettled());
        for partition in shop::partitions() {
            let owner = self.owner(Task { kind: Kind::Slave, partition });
            if let Some(Role::Slave { core, .. }) = owner.and_then(|id| self.actors.get(&id)).map(|actor| &actor.role) {
                let gaps: Vec<_> = core.applied().gaps().collect();
                let under_way = owner.and_then(|id| self.actors.get(&id)).map_or(0, |actor| actor.under_way);
                text += &format!(
                    "\npartition {partition}: {:?}\n  gaps {gaps:?}, {under_way} calls under way",
                    core.report()
                );
            }
            let gate = self.owner(Task { kind: Kind::Gate, partition });
            if let Some(Role::Gate(core)) = gate.and_then(|id| self.actors.get(&id)).map(|actor| &actor.role) {
                text += &format!("\n  {:?}", core.report());
            }
        }
        Violation { rule: "I4", text }
    }
}
