//! Connections between processes: what is sent over one arrives in order, and with a connection that breaks is lost what it
//! still carried.
//!
//! Invariant: nothing is lost but the end of what a broken connection carried; who dialed knows of the end of one
//! connection before the next one begins.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use holdfast::net::control::{FromMaster, FromNode};

use super::{Event, MASTERS};
use crate::faults::Fault;
use crate::world::{NodeId, World};

/// What is on its way.
#[derive(Debug, Clone)]
pub enum Parcel {
    Raft(Bytes),
    ToMaster(FromNode),
    ToNode(FromMaster),
}

#[derive(Debug)]
pub struct Wire {
    pub dialer: NodeId,
    pub listener: NodeId,
    pub connection: Option<u64>,
    /// The processes that it is between: who dialed, who listens.
    lives: [u64; 2],
    /// To the listener, to the dialer.
    queues: [VecDeque<(i64, Parcel)>; 2],
    dialing: bool,
}

#[derive(Debug, Default)]
pub struct Wires {
    pub all: Vec<Wire>,
    connections: u64,
    /// From, to: nothing gets through.
    pub cut: BTreeSet<(NodeId, NodeId)>,
}

/// A process hears that a connection is there, or is gone.
#[derive(Debug, Clone)]
pub struct Told {
    pub node: NodeId,
    /// The process that it concerns.
    pub life: u64,
    pub peer: NodeId,
    /// Of the process at the other end.
    pub peer_life: u64,
    pub wire: usize,
    pub connection: u64,
    pub is_up: bool,
    /// Is it the one who dialed?
    pub dialed: bool,
}

impl Wires {
    pub fn add(&mut self, dialer: NodeId, listener: NodeId) {
        self.all.push(Wire {
            dialer,
            listener,
            connection: None,
            lives: [0; 2],
            queues: Default::default(),
            dialing: false,
        });
    }

    pub fn between(&self, dialer: NodeId, listener: NodeId) -> usize {
        let is_it = |wire: &Wire| (wire.dialer, wire.listener) == (dialer, listener);
        self.all.iter().position(is_it).expect("who dials whom never changes")
    }

    fn of(&self, node: NodeId) -> Vec<usize> {
        let touches = |index: &usize| self.all[*index].dialer == node || self.all[*index].listener == node;
        (0..self.all.len()).filter(touches).collect()
    }
}

impl World {
    // --- what is sent ---

    /// `up`: from the dialer to the listener.
    pub fn put(&mut self, wire: usize, up: bool, parcel: Parcel) {
        let Wire { dialer, listener, connection, .. } = self.control().wires.all[wire];
        if connection.is_none() {
            return;
        }
        let slowness = self.nodes[dialer].slowness.max(self.nodes[listener].slowness);
        let delay_ms = self.random.between(0, 2) * slowness;
        let at_ms = self.now_ms + delay_ms;
        let queue = &mut self.control().wires.all[wire].queues[usize::from(!up)];
        let at_ms = queue.back().map_or(at_ms, |(last_ms, _)| at_ms.max(*last_ms));
        queue.push_back((at_ms, parcel));
        if queue.len() == 1 {
            self.in_order(at_ms, crate::event::Event::Control(Event::Flow { wire, up }));
        }
    }

    pub fn flow(&mut self, wire: usize, up: bool) {
        loop {
            let now_ms = self.now_ms;
            let Wire { dialer, listener, connection, .. } = self.control().wires.all[wire];
            let (from, to) = if up { (dialer, listener) } else { (listener, dialer) };
            if self.control().wires.cut.contains(&(from, to)) {
                return;
            }
            let stopped_until_ms = self.nodes[to].stopped_until_ms;
            let queue = &mut self.control().wires.all[wire].queues[usize::from(!up)];
            let Some((at_ms, _)) = queue.front() else { return };
            let at_ms = (*at_ms).max(stopped_until_ms);
            if at_ms > now_ms {
                return self.in_order(at_ms, crate::event::Event::Control(Event::Flow { wire, up }));
            }
            let (_, parcel) = queue.pop_front().expect("just seen");
            match parcel {
                Parcel::Raft(message) => self.raft_came(to, message),
                Parcel::ToMaster(message) => self.node_says(wire, connection, to, message),
                Parcel::ToNode(message) => self.master_says(to, from, message),
            }
        }
    }

    // --- connections ---

    pub fn dial_from(&mut self, node: NodeId) {
        for wire in self.control().wires.of(node) {
            if self.control().wires.all[wire].dialer == node {
                self.dial_in(wire, 1);
            }
        }
    }

    fn dial_in(&mut self, wire: usize, delay_ms: i64) {
        if !std::mem::replace(&mut self.control().wires.all[wire].dialing, true) {
            self.soon(delay_ms, Event::Dial { wire });
        }
    }

    pub fn dial(&mut self, wire: usize) {
        self.control().wires.all[wire].dialing = false;
        let Wire { dialer, listener, connection, .. } = self.control().wires.all[wire];
        let Some(life) = self.life_of(dialer).filter(|_| connection.is_none()) else { return };
        let is_awake = |node: NodeId| self.nodes[node].stopped_until_ms <= self.now_ms;
        let awake = is_awake(dialer) && is_awake(listener);
        let cut = &self.control().wires.cut;
        let reaches = !cut.contains(&(dialer, listener)) && !cut.contains(&(listener, dialer));
        let Some(peer_life) = self.life_of(listener).filter(|_| awake && reaches) else {
            let again_ms = self.random.between(40, 120);
            return self.dial_in(wire, again_ms);
        };
        let wires = &mut self.control().wires;
        wires.connections += 1;
        let connection = wires.connections;
        (wires.all[wire].connection, wires.all[wire].lives) = (Some(connection), [life, peer_life]);
        let told = Told { node: dialer, life, peer: listener, peer_life, wire, connection, is_up: true, dialed: true };
        let other = Told { node: listener, life: peer_life, peer: dialer, peer_life: life, dialed: false, ..told };
        self.told(&told);
        self.told(&other);
    }

    /// The connection ends; each side that lives hears of it after a while.
    pub fn break_wire(&mut self, wire: usize, hidden: bool) {
        let it = &mut self.control().wires.all[wire];
        let [first, second] = [(it.dialer, it.lives[0]), (it.listener, it.lives[1])];
        let Some(connection) = it.connection.take() else { return };
        it.queues = Default::default();
        for ((node, life), (peer, peer_life), dialed) in [(first, second, true), (second, first, false)] {
            let delay_ms = if hidden { self.random.between(800, 1_600) } else { self.random.between(0, 10) };
            let told = Told { node, life, peer, peer_life, wire, connection, is_up: false, dialed };
            self.soon(delay_ms, Event::Told(told));
        }
    }

    pub fn break_wires_of(&mut self, node: NodeId) {
        // A machine that vanishes says no farewell.
        let hidden = self.random.percent(25);
        for wire in self.control().wires.of(node) {
            self.break_wire(wire, hidden);
        }
    }

    pub fn told(&mut self, told: &Told) {
        if self.life_of(told.node) != Some(told.life) {
            return;
        }
        if MASTERS.contains(&told.node) {
            match told.dialed {
                true => self.other_is(told.node, told.peer, told.is_up),
                false => self.session_is(told),
            }
        } else {
            self.link_is(told);
        }
        if told.dialed && !told.is_up {
            let delay_ms = self.random.between(1, 60);
            self.dial_in(told.wire, delay_ms);
        }
    }

    // --- what goes wrong with them ---

    pub fn break_one(&mut self) {
        let wire = self.random.below(self.control.as_ref().map_or(0, |control| control.wires.all.len()));
        self.tally.hit(Fault::WireBroken);
        self.break_wire(wire, false);
    }

    /// Nothing gets from one to the other; if it lasts, both give their connections up.
    pub fn cut(&mut self, from: NodeId, to: NodeId, for_ms: i64) {
        self.control().wires.cut.insert((from, to));
        self.soon(for_ms, Event::Heal { from, to });
        let touches = |it: &Wire| (it.dialer, it.listener) == (from, to) || (it.dialer, it.listener) == (to, from);
        let wires: Vec<usize> = (0..self.control().wires.all.len())
            .filter(|wire| touches(&self.control.as_ref().expect("it has").wires.all[*wire]))
            .collect();
        wires.into_iter().for_each(|wire| self.let_starve(wire));
    }

    /// Of a stopped process, or one that is not reached.
    pub fn let_starve_all_of(&mut self, node: NodeId) {
        for wire in self.control().wires.of(node) {
            self.let_starve(wire);
        }
    }

    fn let_starve(&mut self, wire: usize) {
        if let Some(connection) = self.control().wires.all[wire].connection {
            let delay_ms = self.random.between(1_000, 2_500);
            self.soon(delay_ms, Event::Starve { wire, connection });
        }
    }

    pub fn starve(&mut self, wire: usize, connection: u64) {
        let Wire { dialer, listener, connection: now, .. } = self.control().wires.all[wire];
        let cut = &self.control().wires.cut;
        let is_cut = cut.contains(&(dialer, listener)) || cut.contains(&(listener, dialer));
        let is_stopped = [dialer, listener].iter().any(|node| self.nodes[*node].stopped_until_ms > self.now_ms);
        if now == Some(connection) && (is_cut || is_stopped) {
            self.break_wire(wire, false);
        }
    }

    pub fn heal(&mut self, from: NodeId, to: NodeId) {
        if !self.control().wires.cut.remove(&(from, to)) {
            return;
        }
        for wire in 0..self.control().wires.all.len() {
            let Wire { dialer, listener, .. } = self.control().wires.all[wire];
            if (dialer, listener) == (from, to) || (dialer, listener) == (to, from) {
                self.soon(0, Event::Flow { wire, up: true });
                self.soon(0, Event::Flow { wire, up: false });
            }
        }
    }
}
