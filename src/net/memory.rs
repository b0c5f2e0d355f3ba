//! The network within one process, for tests: the same frames, handshakes and windows as over sockets, through pipes that
//! can be delayed, cut in one or both directions, and broken; and messages and calls that get lost.
//!
//! Invariant: above the pipes nothing differs from `tcp`; a test that passes here meets the protocol itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::error::{NetError, Refusal};
use super::link::{Handler, Identity, Link, LinkState, Listening, Net, Peer};
use super::memory_relay::{Faults, join};
use super::settings::Settings;
use super::tcp::next_connection;
use super::tcp_arrivals::Arrivals;
use super::tcp_connection::{AcceptedLink, Connection};
use super::tcp_dialer::{Connect, Dialed, DialedLink};
use super::tcp_entry::{Entry, EntryError};
use super::tcp_stream::{StreamReader, StreamWriter};
use crate::locks::lock;

/// All nodes of a test, and what is between them. Nodes are named as in their identities.
#[derive(Clone, Default)]
pub struct MemoryNet {
    faults: Faults,
    doors: Arc<Mutex<HashMap<String, Door>>>,
}

/// Where a node listens.
#[derive(Clone)]
struct Door {
    node: String,
    bell: mpsc::Sender<DuplexStream>,
}

/// Connections that wait to be taken.
const BACKLOG: usize = 64;
const PIPE_BYTES: usize = 64 << 10;

impl MemoryNet {
    pub fn node(&self, identity: Identity, settings: Settings, handler: Arc<dyn Handler>) -> Arc<dyn Net> {
        let handler = Arc::new(Lossy { handler, faults: self.faults.clone(), me: identity.me.name.clone() });
        let entry = Entry::new(identity, &settings);
        Arc::new(MemoryNode(Arc::new(Local {
            net: self.clone(),
            entry,
            settings,
            handler,
            arrivals: Arrivals::default(),
        })))
    }

    /// Nothing gets from one node to the other; what is sent waits, as long as the connection lasts.
    pub fn cut(&self, from: &str, to: &str) {
        self.faults.set(from, to, |fault| fault.is_cut = true);
    }

    pub fn cut_both(&self, one: &str, other: &str) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub fn delay(&self, from: &str, to: &str, delay: Duration) {
        self.faults.set(from, to, |fault| fault.delay = delay);
    }

    /// One message or call of `every` from one node to the other is lost; zero: none.
    pub fn lose(&self, from: &str, to: &str, every: u64) {
        self.faults.set(from, to, |fault| fault.lose_every = every);
    }

    /// Ends the connections between two nodes; they may make new ones.
    pub fn break_off(&self, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            self.faults.set(from, to, |fault| fault.breaks += 1);
        }
    }

    /// Ends cuts, delays and losses between two nodes.
    pub fn heal(&self, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            self.faults.set(from, to, |fault| {
                (fault.is_cut, fault.delay, fault.lose_every) = (false, Duration::ZERO, 0);
            });
        }
    }
}

struct MemoryNode(Arc<Local>);

struct Local {
    net: MemoryNet,
    entry: Entry,
    settings: Settings,
    handler: Arc<Lossy>,
    arrivals: Arrivals,
}

impl Net for MemoryNode {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listening, NetError>> {
        Box::pin(async move {
            let (bell, rings) = mpsc::channel(BACKLOG);
            let mut doors = lock(&self.0.net.doors);
            if doors.get(address).is_some_and(|door| !door.bell.is_closed()) {
                return Err(NetError::Listen { address: address.to_owned(), reason: "the address is in use".into() });
            }
            doors.insert(address.to_owned(), Door { node: self.0.entry.identity.me.name.clone(), bell });
            Ok(Listening::new(address.to_owned(), tokio::spawn(self.0.clone().take_all(rings))))
        })
    }

    fn dial(&self, address: &str) -> Arc<dyn Link> {
        DialedLink::start(address, self.0.settings.reconnect, self.0.clone())
    }
}

impl Local {
    async fn take_all(self: Arc<Self>, mut rings: mpsc::Receiver<DuplexStream>) {
        let mut connections = JoinSet::new();
        while let Some(pipe) = rings.recv().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(self.clone().take(pipe));
        }
    }

    async fn take(self: Arc<Self>, pipe: DuplexStream) {
        let Ok((entered, halves, ())) = self.entry.accept(Box::new(pipe), Vec::new(), || Some(())).await else {
            return;
        };
        let (link_state, _) = watch::channel(LinkState::fresh());
        let connection = Connection::new(&entered, self.settings.send_queue.0, next_connection(), link_state);
        connection.announce();
        self.arrivals.arrived(&entered.peer);
        self.handler.connected(Arc::new(AcceptedLink(connection.clone())));
        connection.run(halves, self.handler.clone(), self.settings.alive_interval.duration()).await;
    }
}

impl Connect for Local {
    fn connect<'a>(
        &'a self,
        address: &'a str,
        link_state: &'a watch::Sender<LinkState>,
    ) -> BoxFuture<'a, Result<Dialed, EntryError>> {
        Box::pin(async move {
            let nobody = || EntryError::Io("nobody listens there".into());
            let door = lock(&self.net.doors).get(address).cloned().ok_or_else(nobody)?;
            let (ours, our_end) = tokio::io::duplex(PIPE_BYTES);
            let (theirs, their_end) = tokio::io::duplex(PIPE_BYTES);
            door.bell.try_send(theirs).map_err(|_| nobody())?;
            join(&self.net.faults, (&self.entry.identity.me.name, our_end), (&door.node, their_end));
            let (entered, halves) = self.entry.dial(Box::new(ours), Vec::new()).await?;
            let number = next_connection();
            let connection = Connection::new(&entered, self.settings.send_queue.0, number, link_state.clone());
            let (handler, alive) = (self.handler.clone(), self.settings.alive_interval.duration());
            let running = connection.clone();
            let run = Box::pin(async move { running.run(halves, handler, alive).await });
            Ok(Dialed { connection, run })
        })
    }

    fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }
}

/// A handler that some messages and calls do not reach.
struct Lossy {
    handler: Arc<dyn Handler>,
    faults: Faults,
    me: String,
}

impl Handler for Lossy {
    fn call<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        if self.faults.loses(&peer.name, &self.me) {
            // Until the caller gives up.
            return Box::pin(std::future::pending());
        }
        self.handler.call(peer, service, body)
    }

    fn receive<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, ()> {
        if self.faults.loses(&peer.name, &self.me) {
            return Box::pin(std::future::ready(()));
        }
        self.handler.receive(peer, service, body)
    }

    fn stream<'a>(
        &'a self,
        peer: &'a Peer,
        service: u16,
        writer: StreamWriter,
        reader: StreamReader,
    ) -> BoxFuture<'a, ()> {
        self.handler.stream(peer, service, writer, reader)
    }

    fn connected(&self, link: Arc<dyn Link>) {
        self.handler.connected(link);
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
