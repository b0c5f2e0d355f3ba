//! What goes wrong with masters, nodes and the connections between them.
//!
//! Invariant: a majority of the masters and a node of each kind come back in the end; messages are lost with connections only.

use super::{Event, MASTERS};
use crate::event;
use crate::faults::{Fault, Repair};
use crate::world::{NodeId, World};

/// Often repeated is more frequent.
pub const CONTROL_FAULTS: &[Fault] = &[
    Fault::WireBroken,
    Fault::WireBroken,
    Fault::WireBroken,
    Fault::Apart,
    Fault::Apart,
    Fault::Deaf,
    Fault::Deaf,
    Fault::ActiveCrash,
    Fault::ActiveStop,
    Fault::MastersCrash,
    Fault::SlowDisk,
    Fault::SlowDisk,
    Fault::Drain,
    Fault::Drain,
    Fault::Leave,
    Fault::Leave,
];

/// Nodes that are never drained and never leave: of each kind somebody can take everything.
const STAY: [NodeId; 2] = [0, 2];

impl World {
    pub fn make_control(&mut self, fault: Fault) {
        let members: Vec<NodeId> = self.control().members.keys().copied().collect();
        match fault {
            Fault::WireBroken => {
                let times = self.random.between(1, 4);
                (0..times).for_each(|_| self.break_one());
            }
            Fault::Apart => self.part(true),
            Fault::Deaf => self.part(false),
            Fault::ActiveCrash => {
                if let Some(active) = self.active_master() {
                    self.crash(active);
                }
            }
            Fault::ActiveStop => {
                if let Some(active) = self.active_master() {
                    self.stop(active);
                }
            }
            Fault::MastersCrash => {
                let chosen = *self.random.pick(&[3, 5, 6, 7, 7]);
                let crashed = MASTERS.into_iter().enumerate().filter(|(index, _)| chosen & (1 << index) != 0);
                crashed.for_each(|(_, node)| self.crash(node));
            }
            Fault::SlowDisk => {
                let node = *self.random.pick(&MASTERS);
                let disk_ms = self.random.between(50, 800);
                self.control().masters.get_mut(&node).expect("a master").disk_ms = disk_ms;
                let for_ms = self.random.between(500, 4_000);
                self.soon(for_ms, Event::QuickenDisk { node });
            }
            Fault::Drain => {
                let may: Vec<NodeId> = members.into_iter().filter(|node| !STAY.contains(node)).collect();
                if may.is_empty() {
                    return;
                }
                let node = *self.random.pick(&may);
                self.soon(0, Event::Drain { node, draining: true });
                if self.random.percent(60) {
                    let for_ms = self.random.between(500, 6_000);
                    self.soon(for_ms, Event::Drain { node, draining: false });
                }
            }
            Fault::Leave => {
                let may: Vec<NodeId> = members.into_iter().filter(|node| !STAY.contains(node)).collect();
                if !may.is_empty() {
                    let node = *self.random.pick(&may);
                    if self.nodes[node].stopped_until_ms <= self.now_ms {
                        self.leave(node);
                    }
                }
            }
            other => panic!("{other:?} is no fault of the control plane"),
        }
    }

    /// Some do not reach the others, or are not heard by them.
    fn part(&mut self, both_ways: bool) {
        let all: Vec<NodeId> =
            (0..self.nodes.len()).filter(|node| self.is_member(*node) || MASTERS.contains(node)).collect();
        let side: Vec<NodeId> = match self.random.below(3) {
            0 => vec![*self.random.pick(&MASTERS)],
            1 => vec![*self.random.pick(&all)],
            _ => all.iter().copied().filter(|_| self.random.percent(40)).collect(),
        };
        let for_ms = self.random.between(200, 5_000);
        for from in &side {
            for to in all.iter().filter(|to| !side.contains(to)) {
                self.cut(*from, *to, for_ms);
                if both_ways {
                    self.cut(*to, *from, for_ms);
                }
            }
        }
    }

    /// From now on all goes well in the control plane; who is stopped goes on when its time has come.
    pub fn end_control_trouble(&mut self) {
        let cuts: Vec<(NodeId, NodeId)> = self.control().wires.cut.iter().copied().collect();
        cuts.into_iter().for_each(|(from, to)| self.heal(from, to));
        MASTERS.into_iter().for_each(|node| self.control().masters.get_mut(&node).expect("a master").disk_ms = 4);
        for node in 0..self.nodes.len() {
            self.nodes[node].slowness = 1;
            self.nodes[node].links = [crate::world::Link::Good; 4];
            self.in_order(self.now_ms, event::Event::Repair(Repair::Start(node)));
        }
    }
}
