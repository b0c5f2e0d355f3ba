//! What a process is to be: its name, its roles, where it listens and whom it obeys.
//!
//! Invariant: a node that others must find has an address before anything is told of it.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::config::Config;
use crate::model::task::{NodeName, NodeProfile, Role};

/// What a node is told when it is started.
#[derive(Debug, Clone)]
pub struct Charge {
    pub name: NodeName,
    pub roles: BTreeSet<Role>,
    /// The first masters; empty: this process is its own only one.
    pub masters: Vec<String>,
    /// Where others reach it; if that is taken, and `may_move`, any free port.
    pub listen: SocketAddr,
    pub may_move: bool,
    /// What others are told, where it is not where the node listens: behind a forwarder, or where it listens everywhere.
    pub advertise: Option<String>,
}

/// An address that is kept free until it is listened on.
pub struct Reserved {
    pub address: SocketAddr,
    held: TcpListener,
}

impl Charge {
    /// Every role in one process, which is its own master.
    pub fn alone(config: &Config) -> Self {
        Self {
            name: NodeName::new("local"),
            roles: [Role::Master, Role::Capture, Role::Gate, Role::Slave, Role::Query, Role::Store].into(),
            masters: Vec::new(),
            listen: config.node.listen,
            may_move: true,
            advertise: None,
        }
    }

    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    pub fn reserve(&self) -> io::Result<Reserved> {
        let held = match TcpListener::bind(self.listen) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && self.may_move => {
                TcpListener::bind((self.listen.ip(), 0))
            }
            bound => bound,
        }?;
        Ok(Reserved { address: held.local_addr()?, held })
    }

    /// Where others look for a node that listens there.
    pub fn told(&self, listen: SocketAddr) -> String {
        self.advertise.clone().unwrap_or_else(|| listen.to_string())
    }

    pub fn profile(&self, config: &Config, boot: u64, listen: SocketAddr, http: SocketAddr) -> NodeProfile {
        NodeProfile {
            name: self.name.clone(),
            boot,
            roles: self.roles.clone(),
            listen: Some(self.told(listen)),
            http: Some(http.to_string()),
            host: crate::admin::linux::host_name(),
            weight: config.node.weight,
        }
    }
}

impl Reserved {
    /// Lets go of it, to be listened on at once.
    pub fn release(self) -> SocketAddr {
        drop(self.held);
        self.address
    }
}
