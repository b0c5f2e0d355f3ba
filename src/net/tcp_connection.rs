//! Runs one connection: a reader that never waits for a user, a writer, and those who wait for answers.
//!
//! Invariant: when the connection ends, for whatever reason, all who wait on it hear so at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::error::{NetError, Refusal};
use super::frame::{self, FrameKind};
use super::hello::Limits;
use super::incoming::Violation;
use super::link::{Handler, Link, LinkState, Peer};
use super::mux::{Denied, Event, Mux};
use super::stream_state::Half;
use super::streams::Read;
use super::tcp_entry::{Entered, FrameReader, Halves, Writer};
use super::tcp_handlers::Handlers;
use super::tcp_stream::{StreamReader, StreamWakers, StreamWriter, ends};
use crate::clock::instant;
use crate::locks::lock;

/// Written to the socket at once.
const WRITE_BYTES: usize = 128 << 10;
/// How long the last words may take.
const GOODBYE: Duration = Duration::from_millis(500);
/// A process that was itself stopped for a while hears its peer before it blames it.
const SECOND_HEARING: Duration = Duration::from_millis(50);
/// Bodies in flight are counted in units of this.
const UNIT_BYTES: usize = 1 << 10;

pub struct Connection {
    peer: Arc<Peer>,
    number: u64,
    limits: Limits,
    peer_limits: Limits,
    shared: Mutex<Shared>,
    link_state: watch::Sender<LinkState>,
    /// There may be something to write.
    wake: Notify,
    /// Answers have left.
    answers_left: Notify,
    /// For long bodies of calls, in units; and for those who wait for them.
    bulk: Semaphore,
    bulk_places: Semaphore,
    is_closing: Notify,
}

struct Shared {
    mux: Mux,
    waiting: HashMap<u64, oneshot::Sender<Result<Bytes, Refusal>>>,
    streams: HashMap<u64, HeldStream>,
    /// Handlers of the peer's calls.
    serving: HashMap<u64, Option<AbortHandle>>,
    closing: Option<String>,
    ended: Option<String>,
}

/// A stream with an end that a user holds.
struct HeldStream {
    wakers: Arc<StreamWakers>,
    ends: u8,
}

impl Connection {
    /// `number` tells the connections of a process apart.
    pub fn new(entered: &Entered, send_queue: u64, number: u64, link_state: watch::Sender<LinkState>) -> Arc<Self> {
        let Entered { peer, limits, peer_limits, is_dialer, .. } = entered;
        let units = (limits.call_window as usize).div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        let shared = Shared {
            mux: Mux::new(*is_dialer, *limits, *peer_limits, send_queue),
            waiting: HashMap::new(),
            streams: HashMap::new(),
            serving: HashMap::new(),
            closing: None,
            ended: None,
        };
        Arc::new(Self {
            peer: peer.clone(),
            number,
            limits: *limits,
            peer_limits: *peer_limits,
            shared: Mutex::new(shared),
            link_state,
            wake: Notify::new(),
            answers_left: Notify::new(),
            bulk: Semaphore::new(units),
            bulk_places: Semaphore::new(limits.calls as usize),
            is_closing: Notify::new(),
        })
    }

    /// To be called once the connection can be found by those who hear of it.
    pub fn announce(&self) {
        self.link_state.send_replace(LinkState::Up { peer: self.peer.clone(), connection: self.number });
    }

    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub fn peer_name(&self) -> String {
        self.peer.name.clone()
    }

    fn lost(&self, reason: &str) -> NetError {
        NetError::Lost { peer: self.peer_name(), reason: reason.to_owned() }
    }

    fn denied(&self, denied: Denied) -> NetError {
        let peer = self.peer_name();
        match denied {
            Denied::Full(what) => NetError::Full { peer, what },
            Denied::TooLarge { length, limit } => NetError::TooLarge { peer, length, limit },
        }
    }

    /// While the connection lives; then sends what there is to send.
    pub fn with<T>(&self, act: impl FnOnce(&mut Mux) -> T) -> Result<T, NetError> {
        self.with_shared(|shared| act(&mut shared.mux))
    }

    fn with_shared<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> Result<T, NetError> {
        let mut shared = lock(&self.shared);
        if let Some(reason) = shared.ended.as_ref().or(shared.closing.as_ref()) {
            return Err(self.lost(reason));
        }
        let done = act(&mut shared);
        drop(shared);
        self.wake.notify_one();
        Ok(done)
    }

    /// Also what came before the connection ended.
    pub fn read_stream(&self, stream: u64) -> Result<Read, NetError> {
        let mut shared = lock(&self.shared);
        let read = shared.mux.read(stream);
        if let (Read::Wait, Some(reason)) = (&read, &shared.ended) {
            return Err(self.lost(reason));
        }
        drop(shared);
        self.wake.notify_one();
        Ok(read)
    }

    /// A stream's end has been dropped.
    pub fn let_go(&self, stream: u64, half: Half) {
        let mut shared = lock(&self.shared);
        shared.mux.abandon(stream, half);
        if let Some(held) = shared.streams.get_mut(&stream) {
            held.ends -= 1;
            if held.ends == 0 {
                shared.streams.remove(&stream);
            }
        }
        drop(shared);
        self.wake.notify_one();
    }

    /// The ends of a stream that the mux has just opened, here or there.
    fn stream_ends(self: &Arc<Self>, shared: &mut Shared, id: u64) -> (StreamWriter, StreamReader) {
        let wakers = Arc::new(StreamWakers::default());
        shared.streams.insert(id, HeldStream { wakers: wakers.clone(), ends: 2 });
        ends(self, id, &wakers)
    }

    async fn ask(&self, service: u16, body: Bytes, deadline: Duration) -> Result<Bytes, NetError> {
        let after_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let asked = async {
            // Held until the answer is here: bodies of calls take bounded memory, those that wait stay with their callers.
            let _room = self.bulk_room(body.len()).await?;
            let (sender, receiver) = oneshot::channel();
            let called = self.with_shared(|shared| -> Result<u64, Denied> {
                let id = shared.mux.call(service, body)?;
                shared.waiting.insert(id, sender);
                Ok(id)
            })?;
            let id = called.map_err(|denied| self.denied(denied))?;
            let _call = OpenCall { connection: self, id };
            match receiver.await {
                Ok(outcome) => outcome.map_err(|refusal| NetError::Refused { peer: self.peer_name(), refusal }),
                Err(_) => Err(self.lost(lock(&self.shared).ended.as_deref().unwrap_or("it ended"))),
            }
        };
        match timeout(deadline, asked).await {
            Ok(outcome) => outcome,
            Err(_) => Err(NetError::Timeout { peer: self.peer_name(), after_ms }),
        }
    }

    async fn bulk_room(&self, length: usize) -> Result<Option<tokio::sync::SemaphorePermit<'_>>, NetError> {
        if length <= self.limits.piece.min(self.peer_limits.piece) as usize || length as u64 > self.limits.body {
            return Ok(None);
        }
        let Ok(_place) = self.bulk_places.try_acquire() else {
            return Err(self.denied(Denied::Full("long calls that wait")));
        };
        let units = u32::try_from(length.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        match self.bulk.acquire_many(units).await {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => Err(self.lost(lock(&self.shared).ended.as_deref().unwrap_or("it ended"))),
        }
    }

    /// Until the connection ends; gives the reason, which all who waited have heard.
    pub async fn run(self: &Arc<Self>, halves: Halves, handler: Arc<dyn Handler>, alive: Duration) -> String {
        // Also when this future is dropped.
        let mut end = EndOfConnection { connection: self, reason: "this side ended it".into() };
        let Halves { reader, writer } = halves;
        let alive = alive.min(Duration::from_millis(self.peer_limits.silence_ms) / 3);
        end.reason = tokio::select! {
            reason = self.read(reader, handler) => reason,
            reason = self.write(writer, alive) => reason,
            reason = self.closed_long_ago() => reason,
        };
        end.reason.clone()
    }

    async fn closed_long_ago(&self) -> String {
        self.is_closing.notified().await;
        tokio::time::sleep(GOODBYE).await;
        lock(&self.shared).closing.clone().unwrap_or_default()
    }

    async fn read(self: &Arc<Self>, mut reader: FrameReader, handler: Arc<dyn Handler>) -> String {
        let silence = Duration::from_millis(self.limits.silence_ms);
        let mut handlers = Handlers::new(self.clone(), handler);
        loop {
            let mut heard = reader.next(silence).await;
            if matches!(heard, Ok(None)) {
                heard = reader.next(SECOND_HEARING).await;
            }
            let frame = match heard {
                Ok(Some(frame)) => frame,
                Ok(None) => return format!("it said nothing for {} ms", silence.as_millis()),
                Err(error) => return error.to_string(),
            };
            match self.accept(frame, &mut handlers) {
                Ok(None) => {}
                Ok(Some(goodbye)) => return format!("closed by the peer: {goodbye}"),
                Err(violation) => return violation.to_string(),
            }
        }
    }

    fn accept(self: &Arc<Self>, frame: frame::Frame, handlers: &mut Handlers) -> Result<Option<String>, Violation> {
        let event = {
            let mut shared = lock(&self.shared);
            let event = shared.mux.accept(frame)?;
            wake_streams(&mut shared);
            event
        };
        self.wake.notify_one();
        match event {
            None => {}
            Some(Event::Call { id, service, body }) => {
                // First, for the handler may end before `start_call` does.
                lock(&self.shared).serving.insert(id, None);
                let abort = handlers.start_call(id, service, body);
                if let Some(handle) = lock(&self.shared).serving.get_mut(&id) {
                    *handle = Some(abort);
                }
            }
            Some(Event::Answered { id, outcome }) => {
                if let Some(waiting) = lock(&self.shared).waiting.remove(&id) {
                    // Who does not wait any more has dropped the other end.
                    let _ = waiting.send(outcome);
                }
            }
            Some(Event::Cancelled { id }) => {
                let abort = lock(&self.shared).serving.get_mut(&id).and_then(Option::take);
                abort.iter().for_each(AbortHandle::abort);
            }
            Some(Event::Message { service, body }) => handlers.receive(service, body),
            Some(Event::Opened { stream, service }) => {
                let (writer, reader) = self.stream_ends(&mut lock(&self.shared), stream);
                handlers.start_stream(service, writer, reader);
            }
            Some(Event::Goodbye { reason }) => return Ok(Some(reason)),
        }
        Ok(None)
    }

    /// A handler has ended.
    pub(super) fn answer(&self, id: u64, outcome: Result<Bytes, Refusal>) {
        let mut shared = lock(&self.shared);
        shared.serving.remove(&id);
        shared.mux.answer(id, outcome);
        drop(shared);
        self.wake.notify_one();
    }

    /// Handlers start while the peer takes its answers.
    pub(super) async fn answers_room(&self) {
        loop {
            let left = self.answers_left.notified();
            if lock(&self.shared).mux.answers_held() <= self.limits.call_window {
                return;
            }
            left.await;
        }
    }

    async fn write(&self, mut io: Writer, alive: Duration) -> String {
        let mut out = BytesMut::with_capacity(WRITE_BYTES);
        let mut spoke = instant();
        loop {
            let closing = {
                let mut shared = lock(&self.shared);
                shared.mux.produce(&mut out, WRITE_BYTES);
                wake_streams(&mut shared);
                shared.closing.clone()
            };
            if out.is_empty() && closing.is_none() {
                // It is woken by whatever it hears, too: that must not keep it silent.
                let left = alive.saturating_sub(spoke.elapsed());
                if !left.is_zero() && timeout(left, self.wake.notified()).await.is_ok() {
                    continue;
                }
                frame::encode(FrameKind::Alive, &[], &mut out);
            }
            let written = async {
                io.write_all(&out).await?;
                io.flush().await
            };
            if let Err(error) = written.await {
                return error.to_string();
            }
            out.clear();
            spoke = instant();
            self.answers_left.notify_waiters();
            if let Some(reason) = closing {
                // The peer may be gone already.
                let _ = io.shutdown().await;
                return reason;
            }
        }
    }

    fn end(&self, reason: &str) {
        let mut shared = lock(&self.shared);
        shared.ended.get_or_insert_with(|| reason.to_owned());
        // Their senders are dropped: callers see that the connection has ended.
        shared.waiting.clear();
        shared.streams.drain().for_each(|(_, held)| held.wakers.wake());
        shared.serving.clear();
        drop(shared);
        self.bulk.close();
        self.link_state.send_replace(LinkState::down(reason));
    }
}

fn wake_streams(shared: &mut Shared) {
    for id in shared.mux.take_changed() {
        if let Some(held) = shared.streams.get(&id) {
            held.wakers.wake();
        }
    }
}

/// A call whose caller waits; cancelled if the caller does not any more.
struct OpenCall<'a> {
    connection: &'a Connection,
    id: u64,
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        let mut shared = lock(&self.connection.shared);
        // Answered calls are not known any more.
        if shared.waiting.remove(&self.id).is_some() {
            shared.mux.cancel(self.id);
            drop(shared);
            self.connection.wake.notify_one();
        }
    }
}

struct EndOfConnection<'a> {
    connection: &'a Connection,
    reason: String,
}

impl Drop for EndOfConnection<'_> {
    fn drop(&mut self) {
        self.connection.end(&self.reason);
    }
}

/// What users hold of a connection that this node accepted.
pub struct AcceptedLink(pub Arc<Connection>);

impl Link for AcceptedLink {
    fn call(&self, service: u16, body: Bytes, deadline: Duration) -> BoxFuture<'_, Result<Bytes, NetError>> {
        Box::pin(self.0.ask(service, body, deadline))
    }

    fn send(&self, service: u16, body: Bytes) -> Result<(), NetError> {
        self.0.with(|mux| mux.send(service, body))?.map_err(|denied| self.0.denied(denied))
    }

    fn open(&self, service: u16) -> Result<(StreamWriter, StreamReader), NetError> {
        let opened = self.0.with_shared(|shared| -> Result<_, Denied> {
            let id = shared.mux.open(service)?;
            Ok(self.0.stream_ends(shared, id))
        })?;
        opened.map_err(|denied| self.0.denied(denied))
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.0.link_state.subscribe()
    }

    fn close(&self, reason: &str) {
        let mut shared = lock(&self.0.shared);
        if shared.closing.is_none() && shared.ended.is_none() {
            shared.mux.goodbye(reason);
            shared.closing = Some(reason.to_owned());
            drop(shared);
            self.0.wake.notify_one();
            self.0.is_closing.notify_one();
        }
    }
}
