//! Who is connected to this master: processes of nodes, each known by its proved name and its boot number.
//!
//! Invariant: a session is one process; it ends with the last of its connections. Bounded by `[net] connections`. What cannot
//! be sent at once is dropped: whoever misses it says so by what it says next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::duties::Session;
use super::group_service::Event;
use crate::locks::lock;
use crate::net::link::{Link, LinkState, Peer};

/// All of them.
pub struct Sessions {
    open: Mutex<Open>,
    events: mpsc::Sender<Event>,
}

#[derive(Default)]
struct Open {
    last: Session,
    by_peer: BTreeMap<(String, u128), Session>,
    links: BTreeMap<Session, Links>,
}

/// The newest connection last, by its number.
type Links = Vec<(u64, Arc<dyn Link>)>;

impl Sessions {
    pub fn new(events: mpsc::Sender<Event>) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), events })
    }

    pub fn connected(self: &Arc<Self>, link: Arc<dyn Link>) {
        let mut state = link.state();
        let LinkState::Up { peer, connection } = state.borrow_and_update().clone() else { return };
        let key = (peer.name.clone(), peer.boot);
        let peer = peer.clone();
        let session = {
            let mut open = lock(&self.open);
            let Open { last, by_peer, links } = &mut *open;
            let session = *by_peer.entry(key.clone()).or_insert_with(|| {
                *last += 1;
                *last
            });
            links.entry(session).or_default().push((connection, link));
            session
        };
        let sessions = self.clone();
        tokio::spawn(async move {
            // It may be told a moment late, never not at all: a node is lost only after a wait anyway.
            let _ = sessions.events.send(Event::Opened { session, peer }).await;
            let _ = state
                .wait_for(|state| !matches!(state, LinkState::Up { connection: it, .. } if *it == connection))
                .await;
            if sessions.drop_link(&key, session, connection) {
                let _ = sessions.events.send(Event::Closed { session }).await;
            }
        });
    }

    /// Was it the last one?
    fn drop_link(&self, key: &(String, u128), session: Session, connection: u64) -> bool {
        let mut open = lock(&self.open);
        let Open { by_peer, links, .. } = &mut *open;
        let Some(left) = links.get_mut(&session) else { return false };
        left.retain(|(number, _)| *number != connection);
        let is_last = left.is_empty();
        if is_last {
            links.remove(&session);
            by_peer.remove(key);
        }
        is_last
    }

    /// `None` if its connections have just ended.
    pub fn of(&self, peer: &Peer) -> Option<Session> {
        lock(&self.open).by_peer.get(&(peer.name.clone(), peer.boot)).copied()
    }

    pub fn all(&self) -> Vec<Session> {
        lock(&self.open).links.keys().copied().collect()
    }

    /// Through the newest of its connections that takes it.
    pub fn send(&self, session: Session, service: u16, body: &Bytes) {
        let links = lock(&self.open).links.get(&session).cloned().unwrap_or_default();
        let _ = links.iter().rev().find(|(_, link)| link.send(service, body.clone()).is_ok());
    }
}
