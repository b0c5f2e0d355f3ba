//! Keeps a node's membership: links to the masters, what they say, the heartbeat, and the tasks at their word.
//!
//! Invariant: one task takes all inputs, one after the other, from a queue with a limit; what takes long (a report, letting
//! a task go) runs beside it and comes back as an input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, error, info, warn};

use super::membership::{Effect, Input, Membership, Pace};
use super::work::{How, Work};
use crate::backoff::Backoff;
use crate::clock::{Clock, instant};
use crate::locks::lock;
use crate::model::codec;
use crate::model::report::NodeReport;
use crate::model::task::{NodeName, NodeProfile, SourceOrder};
use crate::model::units::Millis;
use crate::net::control::{Answered, Ask, Directory, FromMaster};
use crate::net::error::{NetError, Refusal};
use crate::net::link::{Handler, Link, LinkState, Net, Peer};
use crate::net::service;

/// Does tasks at the masters' word. What one call begins is in order before the next call: neither waits.
pub trait Tasks: Send + Sync {
    /// Actors' epochs begin at `work.actor_epoch()`. Takes the place of an earlier work on the task that is still ending.
    fn run(&self, work: Work);

    /// An operator's order to a source that stands still.
    fn order(&self, work: &Work, order: SourceOrder);

    /// Resolves when all is published and saved that can be. Concerns this work only, not a later one on the task.
    fn let_go(&self, work: Work, how: How) -> BoxFuture<'static, ()>;
}

/// Makes a report of this process.
pub type Reporter = Arc<dyn Fn() -> BoxFuture<'static, NodeReport> + Send + Sync>;

#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// `[master] node_heartbeat`.
    pub heartbeat: Millis,
    /// Twice the masters' patience with a handover, or more.
    pub reclaim: Millis,
}

/// What a membership is made of.
pub struct MemberParts {
    pub profile: NodeProfile,
    /// host:port, as configured.
    pub masters: Vec<String>,
    pub settings: Settings,
    pub net: Arc<dyn Net>,
    pub tasks: Arc<dyn Tasks>,
    pub reporter: Reporter,
    pub clock: Clock,
}

/// Inputs that wait.
const QUEUE: usize = 1_024;
const REPORT_EVERY: Millis = Millis(1_000);
const REPORT_WITHIN: Duration = Duration::from_secs(2);
/// Between attempts to ask.
const ASK_PAUSES: Backoff = Backoff { first: Millis(20), most: Millis(200) };
/// For one master's answer, if there is time for another.
const ASK_ONE: Duration = Duration::from_secs(2);

/// A node's membership. It ends when this is dropped.
pub struct Member {
    inputs: mpsc::Sender<Input>,
    directory: watch::Receiver<Arc<Directory>>,
    told: watch::Receiver<Told>,
    links: Links,
    running: JoinHandle<()>,
}

/// What users of a member want to know beside the directory.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Where the active master listens.
    active: Option<String>,
    is_free: bool,
    is_displaced: bool,
}

/// By address.
type Links = Arc<Mutex<BTreeMap<String, Arc<dyn Link>>>>;

/// What masters say, on its way to the member. Made before the member is: connections need a handler first.
pub struct Mailbox {
    inputs: mpsc::Sender<Input>,
    waiting: Mutex<Option<mpsc::Receiver<Input>>>,
    directory: watch::Sender<Arc<Directory>>,
}

impl Default for Mailbox {
    fn default() -> Self {
        let (inputs, waiting) = mpsc::channel(QUEUE);
        Self { inputs, waiting: Mutex::new(Some(waiting)), directory: watch::Sender::default() }
    }
}

impl Mailbox {
    /// The newest directory; an empty one of version zero before there is one. For those who are made before the member.
    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.subscribe()
    }
}

/// Service `MEMBER`.
impl Handler for Mailbox {
    fn call<'a>(&'a self, _peer: &'a Peer, service: u16, _body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(std::future::ready(Err(Refusal::no_such_service(service))))
    }

    fn receive<'a>(&'a self, peer: &'a Peer, _service: u16, body: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match codec::decode::<FromMaster>("a master's message", &body) {
                Ok(message) => {
                    let from = NodeName::new(&peer.name);
                    // Fails only when the member has ended.
                    let _ = self.inputs.send(Input::Heard { from, message }).await;
                }
                Err(error) => warn!(peer = peer.name, %error, "not a master's message"),
            }
        })
    }
}

impl Member {
    /// Begins; to be called within a tokio runtime, once for a mailbox.
    pub fn start(mailbox: &Mailbox, parts: MemberParts) -> Self {
        let waiting = lock(&mailbox.waiting).take().expect("a mailbox has one member");
        let pace = Pace { report_ms: REPORT_EVERY.as_i64(), reclaim_ms: parts.settings.reclaim.as_i64() };
        let core = Membership::new(parts.profile.clone(), &parts.masters, pace);
        let (directory, directories) = (mailbox.directory.clone(), mailbox.directory());
        let (told, hears) = watch::channel(Told::default());
        let links = Links::default();
        let inputs = mailbox.inputs.clone();
        let masters: BTreeSet<String> = parts.masters.iter().cloned().collect();
        let run = Run { core, parts, inputs: inputs.clone(), links: links.clone(), directory, told };
        run.dial(&masters);
        let running = tokio::spawn(run.run(waiting));
        Self { inputs, directory: directories, told: hears, links, running }
    }

    /// The newest directory; an empty one of version zero before there is one.
    pub fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.clone()
    }

    /// Resolves if another process has taken this node's name: this one does nothing any more.
    pub async fn displaced(&self) {
        let mut told = self.told.clone();
        if told.wait_for(|told| told.is_displaced).await.is_err() {
            std::future::pending().await
        }
    }

    /// Gives everything away; `false`: not all of it in time.
    pub async fn leave(&self, deadline: Duration) -> bool {
        let mut told = self.told.clone();
        let left = async {
            self.inputs.send(Input::Leave).await.is_ok()
                && told.wait_for(|told| told.is_free || told.is_displaced).await.is_ok()
        };
        timeout(deadline, left).await.unwrap_or(false)
    }

    /// Asks the active master, whichever that is, until the deadline.
    pub async fn ask(&self, ask: &Ask, deadline: Duration) -> Answered {
        let begun = instant();
        let body = Bytes::from(codec::encode(ask));
        let (mut attempts, mut hint, mut outcome) = (0_u32, None, Answered::NotActive { active: None });
        loop {
            let left = deadline.saturating_sub(begun.elapsed());
            if let Some(link) = self.link_to_ask(hint.take(), attempts as usize) {
                match link.call(service::CONTROL, body.clone(), left.min(ASK_ONE)).await {
                    Ok(answer) => match codec::decode::<Answered>("a master's answer", &answer) {
                        Ok(Answered::NotActive { active }) => hint = active,
                        Ok(answer) => return answer,
                        Err(error) => {
                            warn!(%error, "not a master's answer");
                            return Answered::Unknown;
                        }
                    },
                    // It may have been done; the same can be asked again.
                    Err(NetError::Lost { .. } | NetError::Timeout { .. }) => outcome = Answered::Unknown,
                    Err(error) => debug!(%error, "a master was not asked"),
                }
            }
            attempts += 1;
            let pause = ASK_PAUSES.delay(attempts).duration();
            if begun.elapsed() + pause >= deadline {
                return outcome;
            }
            sleep(pause).await;
        }
    }

    /// The master that was named, or that is active as far as is known, or any that is connected.
    fn link_to_ask(&self, hint: Option<String>, attempts: usize) -> Option<Arc<dyn Link>> {
        let links = lock(&self.links);
        let named = hint.or_else(|| self.told.borrow().active.clone());
        let connected = |link: &&Arc<dyn Link>| link.state().borrow().peer().is_some();
        let found = named.and_then(|address| links.get(&address)).filter(connected);
        found.cloned().or_else(|| {
            let others: Vec<_> = links.values().filter(connected).collect();
            others.get(attempts % others.len().max(1)).map(|link| (*link).clone())
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.running.abort();
    }
}

struct Run {
    core: Membership,
    parts: MemberParts,
    inputs: mpsc::Sender<Input>,
    links: Links,
    directory: watch::Sender<Arc<Directory>>,
    told: watch::Sender<Told>,
}

impl Run {
    async fn run(mut self, mut waiting: mpsc::Receiver<Input>) {
        let mut ticks = interval(self.parts.settings.heartbeat.duration());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                // A heartbeat is never late because others have much to say.
                biased;
                _ = ticks.tick() => Input::Tick,
                input = waiting.recv() => match input {
                    Some(input) => input,
                    None => return,
                },
            };
            for effect in self.core.step(self.parts.clock.now_ms(), input) {
                self.carry_out(effect);
            }
            let active = self.core.active();
            self.told.send_if_modified(|told| {
                let is_new = told.active.as_deref() != active;
                told.active = active.map(str::to_owned);
                is_new
            });
        }
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                let Some(link) = lock(&self.links).get(&to).cloned() else { return };
                // What is lost is said again: at the next heartbeat, or under the next connection.
                if let Err(error) = link.send(service::CONTROL, codec::encode(&message).into()) {
                    debug!(%error, "a master was not told");
                }
            }
            Effect::MakeReport => {
                let report = (self.parts.reporter)();
                self.later(async move { Input::Reported(timeout(REPORT_WITHIN, report).await.ok().map(Box::new)) });
            }
            Effect::DirectoryIs(directory) => {
                debug!(version = directory.version, term = directory.term, "directory");
                self.directory.send_replace(directory);
            }
            Effect::LetGo(work, how) => {
                debug!(task = %work.task, epoch = work.epoch, ?how, "task let go");
                let ended = self.parts.tasks.let_go(work.clone(), how);
                self.later(async move {
                    // A panic in there must not leave the task for ever.
                    let _ = tokio::spawn(ended).await;
                    Input::Ended(work)
                });
            }
            Effect::Order(work, order) => {
                info!(task = %work.task, ?order, "an operator's order");
                self.parts.tasks.order(&work, order);
            }
            Effect::Run(work) => {
                debug!(task = %work.task, epoch = work.epoch, turn = work.turn, "task begun");
                self.parts.tasks.run(work);
            }
            Effect::Dial(masters) => self.dial(&masters),
            Effect::FreeToGo => self.told.send_modify(|told| told.is_free = true),
            Effect::Displaced { boot } => {
                let node = &self.parts.profile.name;
                error!(%node, boot, "another process has this node's name, and this one stops to work; names must be unique");
                self.told.send_modify(|told| told.is_displaced = true);
            }
        }
    }

    fn later(&self, input: impl Future<Output = Input> + Send + 'static) {
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let input = input.await;
            // Fails only when the member has ended.
            let _ = inputs.send(input).await;
        });
    }

    fn dial(&self, masters: &BTreeSet<String>) {
        let mut links = lock(&self.links);
        links.retain(|address, _| masters.contains(address));
        for address in masters {
            links.entry(address.clone()).or_insert_with(|| {
                let link = self.parts.net.dial(address);
                tokio::spawn(watch_link(address.clone(), link.state(), self.inputs.clone()));
                link
            });
        }
    }
}

/// Until the link is dropped.
async fn watch_link(address: String, mut state: watch::Receiver<LinkState>, inputs: mpsc::Sender<Input>) {
    loop {
        let input = match &*state.borrow_and_update() {
            LinkState::Up { peer, connection } => {
                Input::Up { address: address.clone(), peer: NodeName::new(&peer.name), connection: *connection }
            }
            LinkState::Down { .. } => Input::Down { address: address.clone() },
        };
        if inputs.send(input).await.is_err() || state.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "member_service_tests.rs"]
mod tests;
