//! Makes the document once a second for all who watch, as long as somebody does, and hands everybody the newest.
//!
//! Invariant: the number of watchers is bounded, and each holds one frame at most: who is slow misses frames, never gets them
//! late; when the node stops, every watcher's stream ends.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::admin_state::ViewSource;
use super::page;
use super::readiness::{Phase, Readiness};
use super::view::ClusterView;
use super::words::clock;
use crate::locks::lock;

const EVERY: Duration = Duration::from_secs(1);
/// How soon an open stream learns that the node stops.
const LOOK: Duration = Duration::from_millis(200);

/// What all watchers share.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    view: ViewSource,
    readiness: Readiness,
    every: Duration,
    places: Arc<Semaphore>,
    newest: watch::Sender<Option<Arc<Frame>>>,
    /// Runs while somebody watches.
    maker: Mutex<Option<JoinHandle<()>>>,
}

/// The document at one time, in the forms that watchers want.
struct Frame {
    now: String,
    title: String,
    document: Bytes,
    incidents: Bytes,
    /// With a fingerprint each: a watcher gets those that it does not have.
    parts: Vec<(u64, page::Part)>,
}

/// What a watcher wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The document, and incidents when they change.
    Documents,
    /// The page's parts that changed.
    Parts,
}

#[derive(Serialize)]
struct Parts<'a> {
    now: &'a str,
    title: &'a str,
    parts: Vec<PartNews<'a>>,
}

#[derive(Serialize)]
struct PartNews<'a> {
    id: &'a str,
    content: &'a str,
}

/// One watcher.
struct Watcher {
    hub: Hub,
    form: Form,
    newest: watch::Receiver<Option<Arc<Frame>>>,
    /// Fingerprints of what it has.
    has: Vec<u64>,
    has_begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Hub {
    /// At most `most` watch at a time.
    pub fn new(view: ViewSource, readiness: Readiness, most: usize) -> Self {
        Self::with_pace(view, readiness, most, EVERY)
    }

    fn with_pace(view: ViewSource, readiness: Readiness, most: usize, every: Duration) -> Self {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        let newest = watch::Sender::new(None);
        Self(Arc::new(Shared { view, readiness, every, places, newest, maker: Mutex::default() }))
    }

    /// A stream of server-sent events; `None` if too many watch.
    pub fn watch(&self, form: Form) -> Option<impl Stream<Item = Bytes> + use<>> {
        let place = self.0.places.clone().try_acquire_owned().ok()?;
        let mut maker = lock(&self.0.maker);
        // Under the lock: the maker ends only when it has seen, under the same lock, that nobody watches.
        let mut newest = self.0.newest.subscribe();
        newest.mark_changed();
        if maker.as_ref().is_none_or(JoinHandle::is_finished) {
            // What the last maker left is old.
            self.0.newest.send_replace(None);
            *maker = Some(tokio::spawn(self.clone().make()));
        }
        drop(maker);
        let watcher = Watcher { hub: self.clone(), form, newest, has: Vec::new(), has_begun: false, _place: place };
        Some(stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await?, watcher)) }))
    }

    fn is_stopping(&self) -> bool {
        self.0.readiness.phase() == Phase::Stopping
    }

    async fn make(self) {
        let mut ticks = tokio::time::interval(self.0.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.is_stopping() {
                return;
            }
            let view = (self.0.view)().await;
            self.0.newest.send_replace(Some(Arc::new(Frame::of(&view))));
            let mut maker = lock(&self.0.maker);
            if self.0.newest.receiver_count() == 0 {
                *maker = None;
                return;
            }
        }
    }
}

impl Frame {
    fn of(view: &ClusterView) -> Self {
        let parts = page::parts(view).into_iter().map(|part| (fingerprint(&part.content), part));
        Self {
            now: clock(&view.now, &view.now),
            title: page::title(view),
            document: json(view),
            incidents: json(&view.incidents()),
            parts: parts.collect(),
        }
    }
}

fn json(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).expect("a document is plain data").into()
}

fn fingerprint(content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

impl Watcher {
    /// Waits for what is new; `None` when the node stops.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.has_begun {
            self.has_begun = true;
            // Says at once that the stream is open, and when to come again after it has ended.
            return Some(Bytes::from_static(b"retry: 1000\n\n"));
        }
        loop {
            if self.hub.is_stopping() {
                return None;
            }
            let Ok(changed) = tokio::time::timeout(LOOK, self.newest.changed()).await else { continue };
            changed.ok()?;
            let frame = self.newest.borrow_and_update().clone();
            if let Some(frame) = frame {
                return Some(self.news(&frame));
            }
        }
    }

    fn news(&mut self, frame: &Frame) -> Bytes {
        match self.form {
            Form::Documents => {
                let mut events = event("cluster", &frame.document);
                let incidents = fingerprint(&frame.incidents);
                if self.has != [incidents] {
                    events.extend(event("incidents", &frame.incidents));
                    self.has = vec![incidents];
                }
                events.into()
            }
            Form::Parts => {
                let is_new = |index: usize, print: &u64| self.has.get(index) != Some(print);
                let changed = frame.parts.iter().enumerate().filter(|(index, (print, _))| is_new(*index, print));
                let parts = changed.map(|(_, (_, part))| PartNews { id: part.id, content: &part.content }).collect();
                let news = json(&Parts { now: &frame.now, title: &frame.title, parts });
                self.has = frame.parts.iter().map(|(print, _)| *print).collect();
                event("parts", &news).into()
            }
        }
    }
}

/// JSON has no line breaks of its own, so one line of data holds it.
fn event(name: &str, data: &[u8]) -> Vec<u8> {
    [b"event: ", name.as_bytes(), b"\ndata: ", data, b"\n\n"].concat()
}

#[cfg(test)]
#[path = "hub_service_tests.rs"]
mod tests;
