//! Links to other nodes, shared by all in a process that talk to them, and the node that does a task.
//!
//! Invariant: one link for each address, as long as the directory has the address; no more links than the limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;

use super::control::Directory;
use super::link::{Link, Net};
use super::service::LinkTo;
use super::whereabouts;
use crate::locks::lock;
use crate::model::task::{NodeName, Role, Task};

/// The newest directory, for those who look into it and those who wait for the next.
pub type Directories = watch::Receiver<Arc<Directory>>;

/// The links of a process.
pub struct Peers {
    net: Arc<dyn Net>,
    /// Where links run, whoever asks for them first: a thread of actors may end before the node does.
    runtime: Handle,
    most: usize,
    links: Mutex<BTreeMap<String, Arc<dyn Link>>>,
}

impl Peers {
    /// To be called within the runtime on which links are to run.
    pub fn new(net: Arc<dyn Net>, most: usize) -> Arc<Self> {
        Arc::new(Self { net, runtime: Handle::current(), most, links: Mutex::default() })
    }

    /// The link to whoever listens there; dialed when it is asked for first. `None`: there are too many already.
    pub fn to(&self, address: &str) -> Option<Arc<dyn Link>> {
        let mut links = lock(&self.links);
        if let Some(link) = links.get(address) {
            return Some(link.clone());
        }
        if links.len() >= self.most {
            warn!(address, most = self.most, "too many links; this one is not made");
            return None;
        }
        let _within = self.runtime.enter();
        let link = self.net.dial(address);
        links.insert(address.to_owned(), link.clone());
        Some(link)
    }

    /// Lets go of the links to all other addresses. They end when nobody uses them any more.
    pub fn keep(&self, addresses: &BTreeSet<String>) {
        lock(&self.links).retain(|address, _| addresses.contains(address));
    }

    /// Lets go of links whenever the directory has lost their addresses; until nobody tells of directories any more.
    pub async fn follow(self: Arc<Self>, mut directories: Directories) {
        while directories.changed().await.is_ok() {
            let addresses = whereabouts::addresses(&directories.borrow_and_update());
            self.keep(&addresses);
        }
    }

    /// To the node that lends its tiers: the first by name of those that live.
    pub fn to_store(self: &Arc<Self>, directories: Directories) -> LinkTo {
        let peers = self.clone();
        Arc::new(move || {
            let address = {
                let directory = directories.borrow();
                whereabouts::living(&directory, Role::Store).find_map(|node| node.listen.clone())?
            };
            peers.to(&address)
        })
    }
}

/// Where a task is done.
pub enum Place {
    /// In this process; also before there is a directory.
    Here,
    There(Arc<dyn Link>),
    /// Nobody does it, or nobody knows how to reach the one who does.
    Nowhere,
}

/// Finds who does a task, by the newest directory.
#[derive(Clone)]
pub struct Finder {
    pub me: NodeName,
    pub directories: Directories,
    pub peers: Arc<Peers>,
}

impl Finder {
    pub fn find(&self, task: &Task) -> Place {
        let address = {
            let directory = self.directories.borrow();
            let Some(assignment) = whereabouts::assignment(&directory, task) else {
                return if directory.version == 0 { Place::Here } else { Place::Nowhere };
            };
            match &assignment.owner {
                None => return Place::Nowhere,
                Some(owner) if *owner == self.me => return Place::Here,
                Some(owner) => whereabouts::node(&directory, owner).and_then(|(profile, _)| profile.listen.clone()),
            }
        };
        address.and_then(|address| self.peers.to(&address)).map_or(Place::Nowhere, Place::There)
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
