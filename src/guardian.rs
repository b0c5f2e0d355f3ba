//! Starts an actor again after a panic, later and later if it goes on panicking.
//!
//! Invariant: a ward has at most one living actor. A panic is noticed by a guard that lives in the actor's context: the
//! unwinding that ends the context drops it. An actor that ends otherwise is not started again.

use std::sync::{Arc, Mutex};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use actix_rt::ArbiterHandle;
use tokio::sync::{oneshot, watch};
use tracing::{error, info};

use crate::backoff::Backoff;
use crate::clock::instant;
use crate::locks::lock;
use crate::metrics::Metrics;
use crate::net::message::Route;

/// A guarded actor. Cheap to clone; all clones are the same ward.
pub struct Ward<A: Actor<Context = Context<A>>> {
    inner: Arc<Inner<A>>,
}

struct Inner<A: Actor<Context = Context<A>>> {
    name: String,
    arbiter: ArbiterHandle,
    make: Box<dyn Fn() -> A + Send + Sync>,
    current: Mutex<Option<Addr<A>>>,
    stopped: watch::Sender<bool>,
}

impl<A: Actor<Context = Context<A>>> Clone for Ward<A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

/// How an actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Panicked,
    Stopped,
}

/// Tells how the context that it lives in ended.
struct Guard(Option<oneshot::Sender<End>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let end = if std::thread::panicking() { End::Panicked } else { End::Stopped };
        if let Some(ended) = self.0.take() {
            // Nobody waits any more when the arbiter ends.
            let _ = ended.send(end);
        }
    }
}

impl<A: Actor<Context = Context<A>>> Ward<A> {
    /// Starts the actor that `make` makes, in `arbiter`, and keeps it alive.
    pub fn start(
        arbiter: ArbiterHandle,
        name: String,
        backoff: Backoff,
        metrics: Metrics,
        make: impl Fn() -> A + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner {
            name,
            arbiter: arbiter.clone(),
            make: Box::new(make),
            current: Mutex::new(None),
            stopped: watch::Sender::new(false),
        };
        let ward = Self { inner: Arc::new(inner) };
        let ended = ward.launch();
        arbiter.spawn(ward.clone().keep_alive(ended, backoff, metrics));
        ward
    }

    /// The living actor; `None` while it waits to be started again, and after the end.
    pub fn addr(&self) -> Option<Addr<A>> {
        lock(&self.inner.current).clone().filter(Addr::connected)
    }

    /// Where to send `M`, looked up for each message.
    pub fn route<M>(&self) -> Route<M>
    where
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let ward = self.clone();
        Arc::new(move || ward.addr().map(Addr::recipient))
    }

    /// Ends the guarding, and the actor once nobody else has its address.
    pub fn stop(&self) {
        self.inner.stopped.send_replace(true);
        lock(&self.inner.current).take();
    }

    fn launch(&self) -> oneshot::Receiver<End> {
        let (sender, ended) = oneshot::channel();
        let guard = Guard(Some(sender));
        let inner = self.inner.clone();
        let mut stopped = self.inner.stopped.subscribe();
        let addr = A::start_in_arbiter(&self.inner.arbiter, move |context| {
            // In here from the start, so that a panic of `make` is noticed too.
            let guard = guard;
            let actor = (inner.make)();
            let watching = async move {
                let _guard = guard;
                // Fails only if the ward is gone, which is as good as stopped.
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            context.spawn(watching.into_actor(&actor));
            actor
        });
        *lock(&self.inner.current) = Some(addr);
        ended
    }

    async fn keep_alive(self, mut ended: oneshot::Receiver<End>, backoff: Backoff, metrics: Metrics) {
        let name = self.inner.name.as_str();
        let mut stopped = self.inner.stopped.subscribe();
        let mut failures = 0;
        loop {
            let started = instant();
            let end = ended.await.unwrap_or(End::Stopped);
            lock(&self.inner.current).take();
            if end == End::Stopped || *stopped.borrow() {
                return;
            }
            // An actor that lived for longer than the longest wait had recovered.
            failures = if started.elapsed() > backoff.most.duration() { 1 } else { failures + 1 };
            let wait = backoff.delay(failures);
            error!(actor = name, failures, wait_ms = wait.0, "actor panicked and will be started again");
            metrics.actor_restarts.inc();
            tokio::select! {
                () = tokio::time::sleep(wait.duration()) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            ended = self.launch();
            if *stopped.borrow() {
                // Stopped between the wait and the launch.
                lock(&self.inner.current).take();
                return;
            }
            info!(actor = name, "actor started again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Millis;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    struct Fragile(u32);

    impl Actor for Fragile {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct WhichLife;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Die;

    impl Handler<WhichLife> for Fragile {
        type Result = u32;

        fn handle(&mut self, _: WhichLife, _: &mut Context<Self>) -> u32 {
            self.0
        }
    }

    impl Handler<Die> for Fragile {
        type Result = ();

        fn handle(&mut self, _: Die, _: &mut Context<Self>) {
            panic!("asked to die");
        }
    }

    const BACKOFF: Backoff = Backoff { first: Millis(2), most: Millis(20) };

    fn ward(metrics: &Metrics, dies_at_birth: &'static [u32]) -> Ward<Fragile> {
        let lives = AtomicU32::new(0);
        Ward::start(actix_rt::Arbiter::current(), "fragile".into(), BACKOFF, metrics.clone(), move || {
            let life = lives.fetch_add(1, Ordering::Relaxed);
            assert!(!dies_at_birth.contains(&life), "dies at birth");
            Fragile(life)
        })
    }

    async fn life(ward: &Ward<Fragile>) -> u32 {
        loop {
            if let Some(addr) = ward.addr()
                && let Ok(life) = addr.send(WhichLife).await
            {
                return life;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[actix_rt::test]
    async fn an_actor_that_panics_in_a_handler_is_started_again_and_found_by_its_route() {
        let metrics = Metrics::default();
        let ward = ward(&metrics, &[]);
        let route = ward.route::<Die>();
        for expected in 0..3 {
            assert_eq!(life(&ward).await, expected);
            let recipient = route().expect("it is alive");
            assert!(recipient.send(Die).await.is_err());
            assert!(!recipient.connected());
        }
        assert_eq!(life(&ward).await, 3);
        assert_eq!(metrics.actor_restarts.get(), 3);
    }

    #[actix_rt::test]
    async fn an_actor_that_cannot_even_be_made_is_tried_again() {
        let metrics = Metrics::default();
        let ward = ward(&metrics, &[0, 1]);
        assert_eq!(life(&ward).await, 2);
        assert_eq!(metrics.actor_restarts.get(), 2);
    }

    #[actix_rt::test]
    async fn a_stopped_ward_lets_its_actor_end_and_does_not_start_it_again() {
        let metrics = Metrics::default();
        let ward = ward(&metrics, &[]);
        assert_eq!(life(&ward).await, 0);
        let weak = ward.addr().expect("it is alive").downgrade();
        ward.stop();
        assert!(ward.addr().is_none());
        while weak.upgrade().is_some_and(|addr| addr.connected()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(BACKOFF.most.duration()).await;
        assert!(ward.addr().is_none());
        assert_eq!(metrics.actor_restarts.get(), 0);
    }
}
