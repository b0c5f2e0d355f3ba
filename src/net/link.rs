//! The joint between those who talk to other nodes and the network: a link to one peer, and the handler on the other side.
//!
//! Invariant: who waits for a peer learns at once that the connection is gone; nothing that is sent or received waits in
//! a queue without a limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use super::error::{NetError, Refusal, RefusalKind};
pub use super::hello::{Fingerprint, Peer};
pub use super::tcp_stream::{StreamReader, StreamWriter};

/// What a node is known by, and what all nodes of its cluster have in common.
#[derive(Clone)]
pub struct Identity {
    pub cluster: String,
    /// Empty: none, which is allowed on loopback.
    pub secret: Vec<u8>,
    pub agreed: Fingerprint,
    pub me: Peer,
}

/// Makes links. Over sockets, or within one process for tests. Its methods are called within a tokio runtime, on which
/// connections and handlers then run.
pub trait Net: Send + Sync {
    /// Takes connections at `address` (host:port) until what it gives is dropped.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listening, NetError>>;

    /// A link to whoever listens at `address` (host:port): connects, and connects again, until it is dropped or closed.
    fn dial(&self, address: &str) -> Arc<dyn Link>;
}

/// A way to one peer. Both sides of a connection have one, and both can call.
pub trait Link: Send + Sync {
    /// Asks the peer's handler. The handler is dropped if the answer is no longer waited for.
    fn call(&self, service: u16, body: Bytes, deadline: Duration) -> BoxFuture<'_, Result<Bytes, NetError>>;

    /// Queues a message to the peer's handler. Messages to one service arrive in order, each at most once.
    fn send(&self, service: u16, body: Bytes) -> Result<(), NetError>;

    /// Opens a stream in both directions to the peer's handler.
    fn open(&self, service: u16) -> Result<(StreamWriter, StreamReader), NetError>;

    fn state(&self) -> watch::Receiver<LinkState>;

    /// Ends the connection, and no other is made.
    fn close(&self, reason: &str);
}

/// Whether there is a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// `connection` is another one for each connection of a process: two changes in a row don't look like none.
    Up {
        peer: Arc<Peer>,
        connection: u64,
    },
    Down {
        reason: Arc<str>,
    },
}

const NOT_TRIED: &str = "not connected yet";

impl LinkState {
    pub fn down(reason: &str) -> Self {
        Self::Down { reason: reason.into() }
    }

    /// Of a link that has not tried yet.
    pub fn fresh() -> Self {
        Self::down(NOT_TRIED)
    }

    /// Has the first attempt to connect not ended yet?
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Down { reason } if &**reason == NOT_TRIED)
    }

    pub fn peer(&self) -> Option<&Arc<Peer>> {
        match self {
            Self::Up { peer, .. } => Some(peer),
            Self::Down { .. } => None,
        }
    }
}

/// What a node does for its peers. Dropped futures end at their next await: work that must not be left half done belongs
/// in a task of its own.
pub trait Handler: Send + Sync {
    fn call<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>>;

    /// Takes a message. The next to the same service is handed over, and the peer's window moves on, when this one ends.
    fn receive<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, ()>;

    /// Takes a stream that the peer has opened. Letting go of a half breaks it off.
    fn stream<'a>(
        &'a self,
        _peer: &'a Peer,
        _service: u16,
        _writer: StreamWriter,
        _reader: StreamReader,
    ) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// A peer has connected to this node; comes before anything that it sends.
    fn connected(&self, _link: Arc<dyn Link>) {}
}

/// Connections are taken until this is dropped; then all of them end.
pub struct Listening {
    /// With the port that was given.
    pub address: String,
    task: JoinHandle<()>,
}

impl Listening {
    pub(super) fn new(address: String, task: JoinHandle<()>) -> Self {
        Self { address, task }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}
