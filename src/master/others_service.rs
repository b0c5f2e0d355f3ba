//! This master's own connections to the other masters.
//!
//! Invariant: one link for each other master whose address is known; what cannot be sent at once is dropped, for raft says it
//! again; that a connection has ended is told before anything is sent over the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::group_service::Event;
use super::wire::MasterId;
use crate::net::link::{Link, LinkState, Net};
use crate::net::service;

struct Other {
    address: String,
    link: Arc<dyn Link>,
    watch: JoinHandle<()>,
}

impl Drop for Other {
    fn drop(&mut self) {
        self.watch.abort();
        self.link.close("it is no master any more, or has another address");
    }
}

/// All of them.
pub struct Others {
    net: Arc<dyn Net>,
    events: mpsc::Sender<Event>,
    others: BTreeMap<MasterId, Other>,
    reachable: BTreeSet<MasterId>,
}

impl Others {
    pub fn new(net: Arc<dyn Net>, events: mpsc::Sender<Event>) -> Self {
        Self { net, events, others: BTreeMap::new(), reachable: BTreeSet::new() }
    }

    /// Keeps links to exactly these.
    pub fn set(&mut self, me: MasterId, addresses: &BTreeMap<MasterId, String>) {
        self.others.retain(|id, other| addresses.get(id) == Some(&other.address));
        self.reachable.retain(|id| self.others.contains_key(id));
        for (id, address) in addresses.iter().filter(|(id, _)| **id != me) {
            if !self.others.contains_key(id) {
                let link = self.net.dial(address);
                let watch = tokio::spawn(watch(*id, link.clone(), self.events.clone()));
                self.others.insert(*id, Other { address: address.clone(), link, watch });
            }
        }
    }

    pub fn reachable(&self) -> &BTreeSet<MasterId> {
        &self.reachable
    }

    /// False if it was known to be so.
    pub fn is_up(&mut self, id: MasterId, is_up: bool) -> bool {
        match is_up && self.others.contains_key(&id) {
            true => self.reachable.insert(id),
            false => self.reachable.remove(&id),
        }
    }

    /// False if there is no link to it.
    pub fn send(&self, to: MasterId, message: Bytes) -> bool {
        let other = self.others.get(&to);
        other.is_some_and(|other| other.link.send(service::RAFT, message).is_ok())
    }
}

async fn watch(master: MasterId, link: Arc<dyn Link>, events: mpsc::Sender<Event>) {
    let mut state = link.state();
    let mut known = None;
    loop {
        let now = match &*state.borrow_and_update() {
            LinkState::Up { connection, .. } => Some(*connection),
            LinkState::Down { .. } => None,
        };
        if now != known {
            // Another connection: the one before has ended, even if nobody saw it.
            if known.is_some() && events.send(Event::Other { master, is_up: false }).await.is_err() {
                return;
            }
            if now.is_some() && events.send(Event::Other { master, is_up: true }).await.is_err() {
                return;
            }
            known = now;
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
