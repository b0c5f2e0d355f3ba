//! A master of this process: started, reached by its handlers, stopped.
//!
//! Invariant: a master's number belongs to its folder: a folder that is empty gets one from the list of the first masters, or by
//! invitation of the active master, and one that has forgotten gets none but by invitation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{info, warn};

use super::catalog::Catalog;
use super::governor::Charter;
use super::group_service::{Event, GroupLoop, GroupParts};
use super::journal::{Journal, Record, Stored};
use super::sessions_service::Sessions;
use super::settings::Settings;
use super::sled::SledJournal;
use super::webhook_service::{AlertSettings, Webhook};
use super::wire::MasterId;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::codec;
use crate::model::task::NodeName;
use crate::net::control::{Answered, Ask, FromNode};
use crate::net::link::{Handler, Link, Net, Peer, Refusal, RefusalKind};
use crate::net::service;
use crate::tier::TierError;

/// Events that wait for the master; then peers wait, each within its own window.
const EVENTS: usize = 1_024;
/// For another to become active before this one stops.
const STEP_ASIDE: Duration = Duration::from_millis(1_500);
const STOP: Duration = Duration::from_secs(5);
/// For a new master to be reached, and to answer.
const INVITE: Duration = Duration::from_secs(3);

/// Why a master cannot start.
#[derive(Debug, Error)]
pub enum MasterError {
    #[error(transparent)]
    Journal(#[from] TierError),
    #[error("cannot use the master's folder {}: {source}", folder.display())]
    Folder { folder: PathBuf, source: std::io::Error },
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

/// What a master is made of.
pub struct MasterParts {
    pub settings: Settings,
    pub alerts: AlertSettings,
    /// For notices.
    pub cluster: String,
    /// Its own.
    pub folder: PathBuf,
    /// The node that it is on.
    pub name: NodeName,
    /// Where this process listens for others, as it stands in `masters`.
    pub me: String,
    /// The first masters, the same list for all of them; without `me` this one waits to be added.
    pub masters: Vec<String>,
    pub partitions: u16,
    /// Whose changes are captured, by name.
    pub sources: Vec<Arc<str>>,
    /// Of tables and metrics.
    pub fingerprint: u64,
    pub net: Arc<dyn Net>,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// What a master says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MasterView {
    /// `None`: it waits to be added to a group.
    pub id: Option<MasterId>,
    pub term: u64,
    pub is_active: bool,
    /// Where the active one listens, if that is known.
    pub active: Option<String>,
    pub incidents_open: usize,
    pub voters: usize,
    /// Of the last command in its catalog.
    pub index: u64,
    /// It has stopped, or must.
    pub is_over: bool,
}

/// From the active master to whoever is to be one: a call to service RAFT, answered by the number that it has then.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Invitation {
    pub id: MasterId,
}

/// A running master.
pub struct Master {
    doors: Doors,
    view: watch::Receiver<MasterView>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What handlers share.
#[derive(Clone)]
struct Doors {
    sessions: Arc<Sessions>,
    events: mpsc::Sender<Event>,
}

impl Master {
    /// Opens its folder and takes part. Its handlers must be in place before anything reaches it.
    pub async fn start(parts: MasterParts) -> Result<Self, MasterError> {
        let MasterParts { settings, alerts, cluster, folder, name, me, masters, partitions, .. } = parts;
        let MasterParts { sources, fingerprint, net, clock, metrics, .. } = parts;
        let life = getrandom::u64().map_err(MasterError::Random)?;
        let cache_bytes = settings.page_cache.bytes();
        let forgot_file = folder.join("forgot");
        let opening = spawn_blocking(move || open(&folder, partitions, cache_bytes, &me, &masters));
        let opened =
            opening.await.map_err(|panic| TierError::Unavailable { tier: "master", reason: panic.to_string() });
        let (journal, stored) = opened??;
        let (events, inbox) = mpsc::channel(EVENTS);
        let (view, seen) = watch::channel(MasterView::default());
        let (stop, stopped) = oneshot::channel();
        let doors = Doors { sessions: Sessions::new(events.clone()), events: events.clone() };
        let webhook = Webhook::start(&alerts, &cluster);
        let charter = Charter { settings, me: name, partitions, sources, fingerprint };
        let sessions = doors.sessions.clone();
        let journal: Arc<dyn Journal> = Arc::new(journal);
        let group = GroupLoop::new(GroupParts {
            charter,
            journal,
            stored,
            forgot_file,
            life,
            net,
            sessions,
            events,
            view,
            webhook,
            clock,
            metrics,
        });
        let task = tokio::spawn(group.run(inbox, stopped));
        Ok(Self { doors, view: seen, stop, task })
    }

    /// By service: for the node's `Services`.
    pub fn handlers(&self) -> Vec<(u16, Arc<dyn Handler>)> {
        let raft: Arc<dyn Handler> = Arc::new(RaftDoor(self.doors.clone()));
        let control: Arc<dyn Handler> = Arc::new(ControlDoor(self.doors.clone()));
        vec![(service::RAFT, raft), (service::CONTROL, control)]
    }

    pub fn view(&self) -> watch::Receiver<MasterView> {
        self.view.clone()
    }

    /// As over the network, for this process itself.
    pub async fn ask(&self, what: Ask) -> Answered {
        ask(&self.doors, what).await.unwrap_or(Answered::Unknown)
    }

    /// Lets another be active first, if there is one; then ends, with everything written.
    pub async fn stop(mut self) {
        let (is_active, voters) = {
            let view = self.view.borrow();
            (view.is_active, view.voters)
        };
        if is_active && voters > 1 && self.doors.events.send(Event::StepAside).await.is_ok() {
            // Until the next one is heard: it may need this one's vote, and a majority for its first entry.
            let aside = self.view.wait_for(|view| (!view.is_active && view.active.is_some()) || view.is_over);
            if timeout(STEP_ASIDE, aside).await.is_err() {
                warn!("no other master has become active; this one stops anyway");
            }
        }
        let _ = self.stop.send(());
        if timeout(STOP, self.task).await.is_err() {
            warn!("the master did not end in time");
        }
    }
}

/// The journal, and what is in it, or what a first start puts there.
fn open(
    folder: &Path,
    partitions: u16,
    cache_bytes: usize,
    me: &str,
    masters: &[String],
) -> Result<(SledJournal, Option<Stored>), MasterError> {
    let unusable = |source| MasterError::Folder { folder: folder.to_owned(), source };
    let (log, forgot) = (folder.join("log"), folder.join("forgot"));
    let has_forgotten = forgot.exists();
    // A number that was given by invitation since then is kept: the mark is removed after it was written.
    if has_forgotten && log.exists() {
        std::fs::remove_dir_all(&log).map_err(unusable)?;
    }
    std::fs::create_dir_all(&log).map_err(unusable)?;
    let journal = SledJournal::open(&log, partitions, cache_bytes)?;
    if let Some(mut stored) = journal.load()? {
        let damaged = |source| TierError::Damaged { tier: "master", place: log.display().to_string(), source };
        if stored.move_alone(me).map_err(damaged)? {
            block_on(journal.write(&Record::Whole(stored.clone())))?;
        }
        return Ok((journal, Some(stored)));
    }
    let first: BTreeMap<MasterId, String> = (1..).zip(masters.iter().cloned()).collect();
    let own = first.iter().find(|(_, address)| *address == me).map(|(id, _)| *id);
    let Some(id) = own.filter(|_| !has_forgotten) else {
        info!(me, "this master waits to be added to a group");
        return Ok((journal, None));
    };
    let stored = Stored::bootstrap(id, &first, Catalog::default().encode());
    block_on(journal.write(&Record::Whole(stored.clone())))?;
    Ok((journal, Some(stored)))
}

/// Asks whoever listens at `address` to be a master; gives the number that it has then.
pub async fn invite(net: Arc<dyn Net>, address: &str, invitation: Invitation) -> Result<MasterId, String> {
    let link = net.dial(address);
    let mut state = link.state();
    let up = timeout(INVITE, state.wait_for(|state| state.peer().is_some())).await.is_ok_and(|up| up.is_ok());
    if !up {
        return Err(format!("{address} is not reached; start a node of role master there first"));
    }
    let answer = link.call(service::RAFT, codec::encode(&invitation).into(), INVITE).await;
    link.close("the invitation was answered");
    let answer = answer.map_err(|error| error.to_string())?;
    codec::decode::<Result<MasterId, String>>("answer", &answer).map_err(|error| error.to_string())?
}

async fn ask(doors: &Doors, what: Ask) -> Option<Answered> {
    let (reply, answer) = oneshot::channel();
    doors.events.send(Event::Asked { what, reply }).await.ok()?;
    answer.await.ok()
}

fn malformed(error: codec::CodecError) -> Refusal {
    Refusal::new(RefusalKind::Malformed, error.to_string())
}

/// Service RAFT.
struct RaftDoor(Doors);

impl Handler for RaftDoor {
    fn call<'a>(&'a self, _: &'a Peer, _: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let invitation: Invitation = codec::decode("invitation", &body).map_err(malformed)?;
            let (reply, answer) = oneshot::channel();
            let gone = || Refusal::new(RefusalKind::Failed, "this master has stopped");
            self.0.events.send(Event::Invitation { invitation, reply }).await.map_err(|_| gone())?;
            let answer = answer.await.map_err(|_| gone())?;
            Ok(codec::encode(&answer).into())
        })
    }

    fn receive<'a>(&'a self, peer: &'a Peer, _: u16, message: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let session = self.0.sessions.of(peer);
            // A master that has stopped hears nothing.
            let _ = self.0.events.send(Event::Raft { session, message }).await;
        })
    }
}

/// Service CONTROL.
struct ControlDoor(Doors);

impl Handler for ControlDoor {
    fn call<'a>(&'a self, _: &'a Peer, _: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let what: Ask = codec::decode("question to a master", &body).map_err(malformed)?;
            // A master that ends meanwhile may or may not have done it.
            let answer = ask(&self.0, what).await.unwrap_or(Answered::Unknown);
            Ok(codec::encode(&answer).into())
        })
    }

    fn receive<'a>(&'a self, peer: &'a Peer, _: u16, body: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let message: FromNode = match codec::decode("message of a node", &body) {
                Ok(message) => message,
                Err(error) => return warn!(peer = peer.name, %error, "refused a message"),
            };
            let (FromNode::Hello { profile: crate::model::task::NodeProfile { name: node, .. } }
            | FromNode::Beat { node, .. }
            | FromNode::Released { node, .. }
            | FromNode::Leaving { node, .. }) = &message;
            if *node.0 != *peer.name {
                return warn!(peer = peer.name, %node, "refused a message that is in another's name");
            }
            if let Some(session) = self.0.sessions.of(peer) {
                let _ = self.0.events.send(Event::Heard { session, message }).await;
            }
        })
    }

    fn connected(&self, link: Arc<dyn Link>) {
        self.0.sessions.connected(link);
    }
}

#[cfg(test)]
#[path = "master_service_tests.rs"]
mod tests;
