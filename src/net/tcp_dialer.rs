//! A link that connects, and connects again when the connection is lost.
//!
//! Invariant: at most one connection at a time; between connections calls fail at once instead of waiting; the pauses grow
//! up to a limit while the peer cannot be reached or does not take this node. A peer that could not be reached and now
//! connects by itself is there again: no pause is waited for then.

use std::future::Future;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::error::NetError;
use super::link::{Link, LinkState};
use super::tcp_arrivals::Arrivals;
use super::tcp_connection::{AcceptedLink, Connection};
use super::tcp_entry::EntryError;
use super::tcp_stream::{StreamReader, StreamWriter};
use crate::backoff::Backoff;
use crate::locks::lock;

/// A connection, and what runs it until it ends and then tells why.
pub struct Dialed {
    pub connection: Arc<Connection>,
    pub run: BoxFuture<'static, String>,
}

/// Makes one connection.
pub trait Connect: Send + Sync + 'static {
    fn connect<'a>(
        &'a self,
        address: &'a str,
        link_state: &'a watch::Sender<LinkState>,
    ) -> BoxFuture<'a, Result<Dialed, EntryError>>;

    /// Of peers that connect to this node.
    fn arrivals(&self) -> &Arrivals;
}

pub struct DialedLink {
    address: Arc<str>,
    current: Arc<Mutex<Current>>,
    link_state: watch::Sender<LinkState>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Current {
    connection: Option<Arc<Connection>>,
    closed: Option<String>,
}

impl DialedLink {
    pub fn start(address: &str, backoff: Backoff, connector: Arc<dyn Connect>) -> Arc<Self> {
        let (link_state, _) = watch::channel(LinkState::fresh());
        let current = Arc::new(Mutex::new(Current::default()));
        let dialing = Dialing {
            address: address.into(),
            backoff,
            connector,
            current: Arc::downgrade(&current),
            link_state: link_state.clone(),
        };
        let task = tokio::spawn(dialing.run());
        Arc::new(Self { address: address.into(), current, link_state, task })
    }

    fn connection(&self) -> Result<AcceptedLink, NetError> {
        let current = lock(&self.current);
        match (&current.closed, &current.connection) {
            (None, Some(connection)) => Ok(AcceptedLink(connection.clone())),
            (Some(reason), _) => Err(self.lost(reason)),
            (None, None) => match &*self.link_state.borrow() {
                LinkState::Down { reason } => Err(self.lost(reason)),
                LinkState::Up { .. } => Err(self.lost("it is just ending")),
            },
        }
    }

    fn lost(&self, reason: &str) -> NetError {
        NetError::Lost { peer: self.address.to_string(), reason: reason.to_owned() }
    }
}

impl Link for DialedLink {
    fn call(&self, service: u16, body: Bytes, deadline: Duration) -> BoxFuture<'_, Result<Bytes, NetError>> {
        Box::pin(async move { self.connection()?.call(service, body, deadline).await })
    }

    fn send(&self, service: u16, body: Bytes) -> Result<(), NetError> {
        self.connection()?.send(service, body)
    }

    fn open(&self, service: u16) -> Result<(StreamWriter, StreamReader), NetError> {
        self.connection()?.open(service)
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.link_state.subscribe()
    }

    fn close(&self, reason: &str) {
        let mut current = lock(&self.current);
        if current.closed.is_some() {
            return;
        }
        current.closed = Some(reason.to_owned());
        match current.connection.take() {
            // The dialing task ends with the connection, which first says goodbye.
            Some(connection) => AcceptedLink(connection).close(reason),
            None => {
                self.task.abort();
                self.link_state.send_replace(LinkState::down(reason));
            }
        }
    }
}

impl Drop for DialedLink {
    fn drop(&mut self) {
        // A link that was closed still says goodbye.
        if lock(&self.current).closed.is_none() {
            self.task.abort();
        }
    }
}

struct Dialing {
    address: Arc<str>,
    backoff: Backoff,
    connector: Arc<dyn Connect>,
    /// Gone with the link.
    current: Weak<Mutex<Current>>,
    link_state: watch::Sender<LinkState>,
}

/// A connection that lasted shorter than this was not worth an immediate new one.
const SETTLED: Duration = Duration::from_secs(1);
/// The pause before a peer is dialed that has arrived. Two that end each other's connections would dial all the time.
const ARRIVED: Duration = Duration::from_millis(50);

impl Dialing {
    async fn run(self) {
        let mut failures = 0;
        let mut logged = None;
        loop {
            let mut begun = None;
            let mut arrival = self.connector.arrivals().next_of(&self.address);
            let reason = match self.connector.connect(&self.address, &self.link_state).await {
                Ok(Dialed { connection, run }) => {
                    info!(address = %self.address, peer = connection.peer().name, "connected");
                    logged = None;
                    begun = Some(crate::clock::instant());
                    let reason = self.keep(connection, run).await;
                    // It was there all the time: only what comes now is new.
                    arrival = self.connector.arrivals().next_of(&self.address);
                    reason
                }
                Err(error) => {
                    self.link_state.send_if_modified(|state| update_reason(state, &error.to_string()));
                    error.to_string()
                }
            };
            let Some(current) = self.current.upgrade() else { return };
            if lock(&current).closed.is_some() {
                return;
            }
            drop(current);
            if logged.as_ref() != Some(&reason) {
                warn!(address = %self.address, reason, "no connection; trying again");
                logged = Some(reason);
            }
            let has_settled = begun.is_some_and(|begun| begun.elapsed() >= SETTLED);
            failures = if has_settled { 1 } else { failures + 1 };
            self.pause(failures, arrival).await;
        }
    }

    /// Until the next attempt.
    async fn pause(&self, failures: u32, arrival: impl Future<Output = ()>) {
        let whole = self.backoff.delay(failures).duration();
        let least = whole.min(ARRIVED);
        tokio::time::sleep(least).await;
        tokio::select! {
            () = tokio::time::sleep(whole.saturating_sub(least)) => {}
            () = arrival => {}
        }
    }

    async fn keep(&self, connection: Arc<Connection>, run: impl Future<Output = String>) -> String {
        let Some(current) = self.current.upgrade() else { return String::new() };
        let closed = {
            let mut current = lock(&current);
            if current.closed.is_none() {
                current.connection = Some(connection.clone());
            }
            current.closed.clone()
        };
        drop(current);
        match closed {
            Some(reason) => AcceptedLink(connection).close(&reason),
            // Now whoever hears of it finds it.
            None => connection.announce(),
        }
        let reason = run.await;
        if let Some(current) = self.current.upgrade() {
            lock(&current).connection = None;
        }
        reason
    }
}

/// Watchers hear of a new reason, not of each attempt.
fn update_reason(state: &mut LinkState, reason: &str) -> bool {
    let new = LinkState::down(reason);
    let is_new = *state != new;
    *state = new;
    is_new
}
