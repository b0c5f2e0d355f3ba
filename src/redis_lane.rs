//! A connection to Redis that is made again when it is lost, or when it seems to be: one that never answers looks the same
//! as one whose other end has vanished.
//!
//! Invariant: one attempt to connect at a time, with growing pauses after failures; nobody waits longer than an attempt.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::runtime::Handle;

use crate::backoff::Backoff;
use crate::clock;
use crate::locks::lock;
use crate::redis_dialer::{Connection, Dialer, RedisError};

pub struct Lane {
    dialer: Arc<Dialer>,
    /// Where connections live: a caller's own arbiter may be busy, or end.
    runtime: Handle,
    reconnect: Backoff,
    state: Mutex<State>,
}

type Dial = Shared<BoxFuture<'static, ()>>;

#[derive(Default)]
struct State {
    current: Option<(u64, Connection)>,
    /// Connections made so far.
    made: u64,
    dial: Option<Dial>,
    failures: u32,
    /// Of the next attempt.
    not_before: Option<Instant>,
    /// So long the connection is good enough though it does not answer: a new one would not do better.
    fresh_until: Option<Instant>,
    trouble: Option<RedisError>,
}

impl State {
    fn is_dialing(&self) -> bool {
        self.dial.as_ref().is_some_and(|dial| dial.peek().is_none())
    }

    fn may_dial(&self) -> bool {
        !self.is_dialing() && self.not_before.is_none_or(|not_before| clock::instant() >= not_before)
    }
}

impl Lane {
    pub fn new(dialer: Arc<Dialer>, runtime: Handle, reconnect: Backoff) -> Arc<Self> {
        Arc::new(Self { dialer, runtime, reconnect, state: Mutex::default() })
    }

    /// The connection with its number. Waits for an attempt under way, fails at once during a pause.
    pub async fn connection(self: &Arc<Self>) -> Result<(u64, Connection), RedisError> {
        let dial = {
            let mut state = lock(&self.state);
            if let Some(current) = &state.current {
                return Ok(current.clone());
            }
            match &state.dial {
                Some(dial) if state.is_dialing() => dial.clone(),
                _ if state.may_dial() => self.start(&mut state),
                _ => return Err(self.trouble(&state)),
            }
        };
        dial.await;
        let state = lock(&self.state);
        state.current.clone().ok_or_else(|| self.trouble(&state))
    }

    fn trouble(&self, state: &State) -> RedisError {
        state.trouble.clone().unwrap_or_else(|| self.dialer.unreachable("the connection was lost"))
    }

    fn start(self: &Arc<Self>, state: &mut State) -> Dial {
        let lane = self.clone();
        let task = self.runtime.spawn(async move {
            let dialed = lane.dialer.dial().await;
            lane.dialed(dialed);
        });
        // A task that ended badly leaves no connection; the next caller starts another.
        let dial = task.map(drop).boxed().shared();
        state.dial = Some(dial.clone());
        dial
    }

    fn dialed(&self, dialed: Result<Connection, RedisError>) {
        let mut state = lock(&self.state);
        match dialed {
            Ok(connection) => {
                state.made += 1;
                state.current = Some((state.made, connection));
                state.failures = 0;
                state.not_before = None;
                state.fresh_until = Some(clock::instant() + self.reconnect.most.duration());
                state.trouble = None;
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.not_before = Some(clock::instant() + self.reconnect.delay(state.failures).duration());
                state.trouble = Some(error);
            }
        }
        state.dial = None;
    }

    /// The connection with this number is of no use any more.
    pub fn lost(self: &Arc<Self>, number: u64) {
        let mut state = lock(&self.state);
        state.current.take_if(|(current, _)| *current == number);
    }

    /// The connection with this number failed, but is kept until there is a better one: the server may be slow, or only
    /// one of a cluster's nodes away.
    pub fn suspect(self: &Arc<Self>, number: u64) {
        let mut state = lock(&self.state);
        let is_current = state.current.as_ref().is_some_and(|(current, _)| *current == number);
        let is_fresh = state.fresh_until.is_some_and(|until| clock::instant() < until);
        if is_current && !is_fresh && state.may_dial() {
            drop(self.start(&mut state));
        }
    }
}
