//! The control plane: masters (production consensus, catalog and governor on memory journals) and members (production
//! membership) in the simulated processes, which run tasks exactly as members say.
//!
//! ```text
//!   masters ──wires──▶ members ──Run, LetGo──▶ actors of gates and slaves
//!      ╰───wires───╯
//! ```
//!
//! Invariant: nothing is decided here that a core decides; where masters are, nobody else gives out tasks.

pub mod masters;
pub mod members;
pub mod trouble;
pub mod watch;
pub mod wires;

use std::collections::BTreeMap;

use holdfast::master::settings::Settings;
use holdfast::model::task::{BootId, NodeName};

use crate::assigner::Kind;
use crate::world::{NodeId, World};
use masters::Master;
use members::Member;
use watch::Watch;
use wires::{Told, Wires};

/// Beside the nodes of every world.
pub const MASTERS: [NodeId; 3] = [7, 8, 9];

pub struct Control {
    pub settings: Settings,
    pub masters: BTreeMap<NodeId, Master>,
    pub members: BTreeMap<NodeId, Member>,
    pub wires: Wires,
    pub watch: Watch,
    boots: BootId,
    /// When somebody plants a bug: what was true before.
    pub past: Option<std::sync::Arc<holdfast::net::control::Directory>>,
}

/// What happens in it.
pub enum Event {
    /// A master's and a member's time passes.
    MasterTick {
        node: NodeId,
        life: u64,
    },
    MemberTick {
        node: NodeId,
        boot: BootId,
    },
    /// A master's disk has written.
    Synced {
        node: NodeId,
        life: u64,
        number: u64,
    },
    /// Something may have come to the end of a wire.
    Flow {
        wire: usize,
        up: bool,
    },
    Told(Told),
    Dial {
        wire: usize,
    },
    /// Nothing was heard on it for so long that its ends give it up.
    Starve {
        wire: usize,
        connection: u64,
    },
    Ended {
        node: NodeId,
        boot: BootId,
        work: holdfast::member::work::Work,
    },
    Heal {
        from: NodeId,
        to: NodeId,
    },
    QuickenDisk {
        node: NodeId,
    },
    /// An operator takes a node away, or gives it back.
    Drain {
        node: NodeId,
        draining: bool,
    },
}

impl Control {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            masters: BTreeMap::new(),
            members: BTreeMap::new(),
            wires: Wires::default(),
            watch: Watch::default(),
            boots: 0,
            past: None,
        }
    }
}

pub fn name(node: NodeId) -> NodeName {
    NodeName::new(&format!("n{node}"))
}

/// By its name.
pub fn node_of(name: &NodeName) -> NodeId {
    name.0[1..].parse().expect("a name of this world")
}

pub fn address(node: NodeId) -> String {
    format!("n{node}:1")
}

impl World {
    pub fn control(&mut self) -> &mut Control {
        self.control.as_mut().expect("this world has masters")
    }

    pub fn has_masters(&self) -> bool {
        self.control.is_some()
    }

    pub fn is_member(&self, node: NodeId) -> bool {
        matches!(self.nodes[node].kind, Kind::Gate | Kind::Slave)
    }

    pub fn next_boot(&mut self) -> BootId {
        let control = self.control();
        control.boots += 1;
        control.boots
    }

    pub fn begin_control(&mut self) {
        self.make_masters();
        let members: Vec<NodeId> = (0..self.nodes.len()).filter(|node| self.is_member(*node)).collect();
        for dialer in members.iter().chain(&MASTERS) {
            for listener in MASTERS {
                if *dialer != listener {
                    self.control().wires.add(*dialer, listener);
                }
            }
        }
        for node in members.into_iter().chain(MASTERS) {
            self.start_process(node);
        }
    }

    /// A process of the control plane begins: its links are dialed.
    pub fn start_process(&mut self, node: NodeId) {
        if self.nodes[node].kind == Kind::Master {
            self.start_master(node);
        } else if self.is_member(node) {
            self.start_member(node);
        }
        self.dial_from(node);
    }

    pub fn end_process(&mut self, node: NodeId) {
        let control = self.control();
        if let Some(master) = control.masters.get_mut(&node) {
            master.end();
        }
        control.members.remove(&node);
        let kept = self.random.below(3);
        if let Some(master) = self.control().masters.get_mut(&node) {
            master.lose_unsynced(kept);
        }
        self.break_wires_of(node);
    }

    /// A number that each start of a process draws anew; none while it is down.
    pub fn life_of(&self, node: NodeId) -> Option<u64> {
        let control = self.control.as_ref()?;
        let master = control.masters.get(&node).and_then(Master::life);
        master.or_else(|| control.members.get(&node).map(|member| member.boot))
    }

    pub fn happen(&mut self, event: Event) {
        let whose = match &event {
            Event::MasterTick { node, .. } | Event::MemberTick { node, .. } => Some((*node, 1)),
            Event::Synced { node, .. } | Event::Ended { node, .. } => Some((*node, 0)),
            Event::Told(told) => Some((told.node, 0)),
            _ => None,
        };
        if let Some((node, later_ms)) = whose {
            let until_ms = self.nodes[node].stopped_until_ms;
            if until_ms > self.now_ms {
                // What has arrived by then comes before the process looks at the clock.
                return self.in_order(until_ms + later_ms, crate::event::Event::Control(event));
            }
        }
        match event {
            Event::MasterTick { node, life } => self.master_tick(node, life),
            Event::MemberTick { node, boot } => self.member_tick(node, boot),
            Event::Synced { node, life, number } => self.synced(node, life, number),
            Event::Flow { wire, up } => self.flow(wire, up),
            Event::Told(told) => self.told(&told),
            Event::Dial { wire } => self.dial(wire),
            Event::Starve { wire, connection } => self.starve(wire, connection),
            Event::Ended { node, boot, work } => self.work_ended(node, boot, work),
            Event::Heal { from, to } => self.heal(from, to),
            Event::QuickenDisk { node } => self.control().masters.get_mut(&node).expect("a master").disk_ms = 4,
            Event::Drain { node, draining } => self.drain(node, draining),
        }
    }

    pub fn soon(&mut self, delay_ms: i64, event: Event) {
        self.in_order(self.now_ms + delay_ms, crate::event::Event::Control(event));
    }
}
