//! What Linux says of a counting thread: how long it ran, and how long it waited for a processor.
//!
//! Invariant: asked on the thread itself; where the kernel does not say, the thread counts as never waiting.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::crowd::{Crowd, Share, Turns};
use crate::clock;
use crate::locks::lock;

/// Asking costs a few microseconds, and a busy machine does not change faster.
const SELDOM: Duration = Duration::from_millis(100);

/// A thread that partitions share.
#[derive(Debug, Default)]
pub struct SharedThread {
    partitions: AtomicU32,
    crowd: Mutex<(Crowd, Option<Instant>)>,
}

impl SharedThread {
    pub fn set_partitions(&self, partitions: u32) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// What each partition gets of this thread's processor; to be called on the thread.
    pub fn share(&self) -> Share {
        let (crowd, asked) = &mut *lock(&self.crowd);
        let now = clock::instant();
        if asked.is_none_or(|asked| now.duration_since(asked) >= SELDOM) {
            *asked = Some(now);
            if let Some(turns) = turns() {
                crowd.measured(turns);
            }
        }
        crowd.share(self.partitions.load(Ordering::Relaxed))
    }
}

/// The calling thread's first two figures of `schedstat` (Linux, Documentation/scheduler/sched-stats.rst).
fn turns() -> Option<Turns> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut figures = text.split_ascii_whitespace().map(str::parse);
    Some(Turns { run_ns: figures.next()?.ok()?, wait_ns: figures.next()?.ok()? })
}
