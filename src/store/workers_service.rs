//! Threads that do the store's work, so that a write to disk does not hold up the network.
//!
//! Invariant: work that was begun ends, whoever waits for it; the threads end with the last owner, after what is under way.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Workers {
    workers: Vec<Worker>,
    next: AtomicUsize,
}

struct Worker {
    runtime: Handle,
    /// The thread ends when it is dropped.
    _end: oneshot::Sender<()>,
}

impl Workers {
    /// `threads`: 0 for one per core.
    pub fn start(threads: usize) -> io::Result<Self> {
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let workers = (0..threads).map(Worker::start).collect::<io::Result<_>>()?;
        Ok(Self { workers, next: AtomicUsize::new(0) })
    }

    /// Begins at once, and goes on if the handle is dropped.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.workers[next % self.workers.len()].runtime.spawn(work)
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name(format!("store-{index}")).spawn(move || {
            // An error says that the sender was dropped: that is the end.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, _end: end })
    }
}
