//! Group commit: one thread makes everything written so far durable, for all who wait at that moment.
//!
//! Invariant: a waiter hears of a flush that began after it was enqueued; waiters hear in the order in which they came;
//! what nobody waits for is flushed now and then; the queue is bounded.

use std::mem;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::warn;

use crate::locks::lock;
use crate::tier::TierError;

/// What is to be done once the flush is through, or has failed. Runs on the flush thread: short.
pub type Waiter = Box<dyn FnOnce(&Result<(), TierError>) + Send>;

/// Waiters at a time. Each is one write that somebody awaits, so this is far above what callers allow in flight.
const WAITERS_MOST: usize = 65_536;

/// The flush thread of one store.
#[derive(Debug)]
pub struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    waiters: Vec<Waiter>,
    closing: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} waiters, closing: {})", self.waiters.len(), self.closing)
    }
}

impl Flusher {
    /// `flush` blocks until everything that was written before the call is durable; it is called at least `every` so often
    /// and cheap if there is nothing to do.
    pub fn start<F>(tier: &'static str, every: Duration, flush: F) -> Result<Self, TierError>
    where
        F: Fn() -> Result<(), TierError> + Send + 'static,
    {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name(format!("{tier}-flush")).spawn(move || run(&theirs, every, flush));
        let thread = thread.map_err(|error| TierError::Unavailable { tier, reason: error.to_string() })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Is there room for one more waiter? Asked before a write, which could not be taken back.
    pub fn has_room(&self) -> bool {
        lock(&self.shared.queue).waiters.len() < WAITERS_MOST
    }

    /// Calls `waiter` after a flush that covers everything written so far.
    pub fn after_flush(&self, waiter: Waiter) {
        lock(&self.shared.queue).waiters.push(waiter);
        self.shared.wake.notify_one();
    }
}

impl Drop for Flusher {
    /// Serves those who still wait, then ends the thread.
    fn drop(&mut self) {
        lock(&self.shared.queue).closing = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the flush thread does not panic");
        }
    }
}

fn run(shared: &Shared, every: Duration, flush: impl Fn() -> Result<(), TierError>) {
    loop {
        let waiters = {
            let idle = |queue: &mut Queue| queue.waiters.is_empty() && !queue.closing;
            let queue = shared.wake.wait_timeout_while(lock(&shared.queue), every, idle);
            let (mut queue, _) = queue.expect("nobody panics while holding the flush queue");
            if queue.waiters.is_empty() && queue.closing {
                return;
            }
            mem::take(&mut queue.waiters)
        };
        let result = flush();
        if let (Err(error), true) = (&result, waiters.is_empty()) {
            warn!(%error, "what nobody waits for was not flushed");
        }
        for waiter in waiters {
            waiter(&result);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn many_waiters_share_a_flush_that_began_after_the_last_of_them() {
        let flushes = Arc::new(AtomicUsize::new(0));
        let (gate, opened) = mpsc::channel::<()>();
        let counted = Arc::clone(&flushes);
        let flusher = Flusher::start("test", Duration::MAX, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            opened.recv().map_err(|_| TierError::Unavailable { tier: "test", reason: "gone".into() })
        })
        .unwrap();
        let (heard, hears) = mpsc::channel();
        let wait = |number: usize| {
            let heard = heard.clone();
            flusher.after_flush(Box::new(move |result| heard.send((number, result.is_ok())).unwrap()));
        };
        wait(0);
        while flushes.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        (1..100).for_each(wait);
        gate.send(()).unwrap();
        assert_eq!(hears.recv().unwrap(), (0, true));
        assert!(hears.try_recv().is_err(), "a flush under way does not cover later writes");
        gate.send(()).unwrap();
        for number in 1..100 {
            assert_eq!(hears.recv().unwrap(), (number, true));
        }
        assert_eq!(flushes.load(Ordering::SeqCst), 2);
        wait(100);
        drop(gate);
        drop(flusher);
        assert_eq!(hears.recv().unwrap(), (100, false), "closing serves those who wait, and a failure is told");
    }
}
