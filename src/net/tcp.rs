//! The network over sockets.
//!
//! Invariant: beyond loopback nothing listens without a secret; the number of peers, of strangers at the door, and what is
//! remembered of refused ones are limited.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::error::NetError;
use super::handshake::is_name;
use super::link::{Handler, Identity, Link, LinkState, Listening, Net};
use super::refusals::{Note, Refusals};
use super::settings::Settings;
use super::tcp_arrivals::Arrivals;
use super::tcp_connection::{AcceptedLink, Connection};
use super::tcp_dialer::{Connect, Dialed, DialedLink};
use super::tcp_entry::{Entered, Entry, EntryError, Halves, Io};
use super::tcp_tls::Tls;
use crate::clock::Clock;
use crate::locks::lock;

/// One node's connections.
pub struct TcpNet {
    local: Arc<Local>,
}

struct Local {
    entry: Entry,
    tls: Option<Tls>,
    settings: Settings,
    handler: Arc<dyn Handler>,
    clock: Clock,
    refusals: Mutex<Refusals>,
    peers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    arrivals: Arrivals,
}

impl TcpNet {
    /// Reads the certificates, if there are to be any; relative files start at `folder`.
    pub fn new(
        identity: Identity,
        settings: Settings,
        folder: &Path,
        clock: Clock,
        handler: Arc<dyn Handler>,
    ) -> Result<Self, NetError> {
        for name in [&identity.me.name, &identity.cluster] {
            if !is_name(name) {
                return Err(NetError::Name { name: name.clone() });
            }
        }
        let tls = settings.tls.as_ref().map(|files| Tls::read(files, folder)).transpose()?;
        let refusals = Refusals::new(settings.refusals_remembered, settings.refusals_remembered_for.as_i64());
        let semaphore = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let (peers, strangers) = (semaphore(settings.connections), semaphore(settings.handshakes));
        let entry = Entry::new(identity, &settings);
        let refusals = Mutex::new(refusals);
        let arrivals = Arrivals::default();
        let local = Local { entry, tls, settings, handler, clock, refusals, peers, strangers, arrivals };
        Ok(Self { local: Arc::new(local) })
    }

    async fn bind(&self, address: &str) -> Result<Listening, NetError> {
        let unusable = |reason: String| NetError::Listen { address: address.to_owned(), reason };
        let found = tokio::net::lookup_host(address).await.map_err(|error| unusable(error.to_string()))?;
        let places: Vec<SocketAddr> = found.collect();
        let is_open = places.iter().any(|place| !place.ip().to_canonical().is_loopback());
        if is_open && self.local.entry.identity.secret.is_empty() {
            return Err(NetError::Insecure { address: address.to_owned() });
        }
        let listener = TcpListener::bind(&places[..]).await.map_err(|error| unusable(error.to_string()))?;
        let bound = listener.local_addr().map_err(|error| unusable(error.to_string()))?;
        Ok(Listening::new(bound.to_string(), tokio::spawn(self.local.clone().take_all(listener))))
    }
}

impl Net for TcpNet {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Listening, NetError>> {
        Box::pin(self.bind(address))
    }

    fn dial(&self, address: &str) -> Arc<dyn Link> {
        DialedLink::start(address, self.local.settings.reconnect, self.local.clone())
    }
}

/// After the system had no socket for a new connection.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(50);

impl Local {
    async fn take_all(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            match listener.accept().await {
                Ok((socket, from)) => {
                    while connections.try_join_next().is_some() {}
                    match self.strangers.clone().try_acquire_owned() {
                        Ok(place) => drop(connections.spawn(self.clone().take(socket, from.ip(), place))),
                        Err(_) => self.refused(from.ip(), "too many handshakes", "too many handshakes are under way"),
                    }
                }
                Err(error) => {
                    warn!(%error, "cannot take a connection");
                    tokio::time::sleep(OUT_OF_SOCKETS).await;
                }
            }
        }
    }

    async fn take(self: Arc<Self>, socket: TcpStream, from: IpAddr, stranger: OwnedSemaphorePermit) {
        let (entered, halves, _place) = match self.welcome(socket).await {
            Ok(entered) => entered,
            Err(error) => return self.refused(from, error.sort(), &error.to_string()),
        };
        drop(stranger);
        lock(&self.refusals).forget(&from.to_string());
        let (link_state, _) = watch::channel(LinkState::fresh());
        let connection = self.begin(&entered, link_state);
        connection.announce();
        info!(peer = entered.peer.name, %from, "connected");
        self.arrivals.arrived(&entered.peer);
        self.handler.connected(Arc::new(AcceptedLink(connection.clone())));
        let reason = connection.run(halves, self.handler.clone(), self.settings.alive_interval.duration()).await;
        info!(peer = entered.peer.name, %from, reason, "disconnected");
    }

    async fn welcome(&self, socket: TcpStream) -> Result<(Entered, Halves, OwnedSemaphorePermit), EntryError> {
        prepare(&socket)?;
        let (io, binding) = match &self.tls {
            None => (Box::new(socket) as Box<dyn Io>, Vec::new()),
            Some(tls) => {
                let within = self.entry.handshake_timeout;
                tokio::time::timeout(within, tls.accept(socket)).await.unwrap_or(Err(EntryError::Late))?
            }
        };
        self.entry.accept(io, binding, || self.peers.clone().try_acquire_owned().ok()).await
    }

    fn begin(&self, entered: &Entered, link_state: watch::Sender<LinkState>) -> Arc<Connection> {
        Connection::new(entered, self.settings.send_queue.0, next_connection(), link_state)
    }

    fn refused(&self, from: IpAddr, sort: &'static str, reason: &str) {
        let note = lock(&self.refusals).note(self.clock.now_ms(), &from.to_string(), sort);
        match note {
            Note::First => warn!(%from, reason, "refused a peer"),
            Note::Overflow => warn!("more peers are refused than are told apart; they are not named"),
            Note::Known => {}
        }
    }

    async fn reach(&self, address: &str) -> Result<(Entered, Halves), EntryError> {
        let within = self.entry.handshake_timeout;
        let connected = async {
            let socket = TcpStream::connect(address).await.map_err(|error| EntryError::Io(error.to_string()))?;
            prepare(&socket)?;
            match &self.tls {
                None => Ok((Box::new(socket) as Box<dyn Io>, Vec::new())),
                Some(tls) => tls.connect(host(address), socket).await,
            }
        };
        let (io, binding) = tokio::time::timeout(within, connected).await.unwrap_or(Err(EntryError::Late))?;
        self.entry.dial(io, binding).await
    }
}

impl Connect for Local {
    fn connect<'a>(
        &'a self,
        address: &'a str,
        link_state: &'a watch::Sender<LinkState>,
    ) -> BoxFuture<'a, Result<Dialed, EntryError>> {
        Box::pin(async move {
            let (entered, halves) = self.reach(address).await?;
            let connection = self.begin(&entered, link_state.clone());
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

/// The number of a connection of this process.
pub fn next_connection() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn prepare(socket: &TcpStream) -> Result<(), EntryError> {
    // Small frames that somebody waits for are sent at once.
    socket.set_nodelay(true).map_err(|error| EntryError::Io(error.to_string()))
}

/// The host of host:port, without an IPv6 address's brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
#[path = "tcp_tests.rs"]
mod tests;
