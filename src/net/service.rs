//! The services that nodes do for each other, by number, and the switch that finds them.
//!
//! Invariant: a number is never used for two things; a service that a node does not do is refused, not ignored.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::link::{Handler, Link, Peer, Refusal, StreamReader, StreamWriter};

/// Between masters: raft's messages.
pub const RAFT: u16 = 1;
/// Nodes to masters: `control::FromNode` as messages, `control::Ask` as calls.
pub const CONTROL: u16 = 2;
/// A store lends its tiers.
pub const STORE: u16 = 3;
/// Gates tell the owner of a partition what they appended, and that nothing is under way.
pub const PUSH: u16 = 4;
/// Rows that one gate's HTTP took in and another gate owns.
pub const OFFER: u16 = 5;
/// Masters to nodes: `control::FromMaster` as messages. Not the number of the other direction, for a process may be both.
pub const MEMBER: u16 = 6;

/// Finds the link to whoever serves something now; `None` while that is not known.
pub type LinkTo = Arc<dyn Fn() -> Option<Arc<dyn Link>> + Send + Sync>;

/// Hands what peers ask for to the service that does it. Made before the services are: connections need a handler first.
#[derive(Default)]
pub struct Services {
    services: OnceLock<BTreeMap<u16, Arc<dyn Handler>>>,
}

impl Services {
    /// Before anything is listened to or dialed; a second time is a bug.
    pub fn set(&self, services: BTreeMap<u16, Arc<dyn Handler>>) {
        assert!(self.services.set(services).is_ok(), "a node's services are set once");
    }

    fn find(&self, service: u16) -> Option<&Arc<dyn Handler>> {
        self.services.get()?.get(&service)
    }
}

impl Handler for Services {
    fn call<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        match self.find(service) {
            Some(handler) => handler.call(peer, service, body),
            None => Box::pin(std::future::ready(Err(Refusal::no_such_service(service)))),
        }
    }

    fn receive<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, ()> {
        match self.find(service) {
            Some(handler) => handler.receive(peer, service, body),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn stream<'a>(
        &'a self,
        peer: &'a Peer,
        service: u16,
        writer: StreamWriter,
        reader: StreamReader,
    ) -> BoxFuture<'a, ()> {
        match self.find(service) {
            Some(handler) => handler.stream(peer, service, writer, reader),
            None => Box::pin(std::future::ready(())),
        }
    }

    fn connected(&self, link: Arc<dyn Link>) {
        for handler in self.services.get().into_iter().flat_map(BTreeMap::values) {
            handler.connected(link.clone());
        }
    }
}
