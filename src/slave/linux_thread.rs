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
    crowd: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    crowd: Crowd,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl SharedThread {
    pub fn set_partitions(&self, partitions: u32) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// What each partition gets of this thread's processor; to be called on the thread.
    pub fn share(&self) -> Share {
        let asked = &mut *lock(&self.crowd);
        let now = clock::instant();
        if asked.last.is_none_or(|last| now.duration_since(last) >= SELDOM) {
            asked.last = Some(now);
            let first = *asked.first.get_or_insert(now);
            let wall_ns = u64::try_from(now.duration_since(first).as_nanos()).unwrap_or(u64::MAX);
            if let Some(turns) = turns(wall_ns) {
                asked.crowd.measured(turns);
            }
        }
        asked.crowd.share(self.partitions.load(Ordering::Relaxed))
    }
}

/// The calling thread's first two figures of `schedstat` (Linux, Documentation/scheduler/sched-stats.rst).
fn turns(wall_ns: u64) -> Option<Turns> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut figures = text.split_ascii_whitespace().map(str::parse);
    Some(Turns { run_ns: figures.next()?.ok()?, wait_ns: figures.next()?.ok()?, wall_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_long_this_thread_ran() {
        let before = turns(0).expect("Linux says it");
        let begun = clock::instant();
        let mut sum = 0u64;
        while begun.elapsed() < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let after = turns(0).expect("Linux says it");
        let had_ns = after.run_ns + after.wait_ns - before.run_ns - before.wait_ns;
        assert!((20_000_000..2_000_000_000).contains(&had_ns), "{before:?} {after:?}");
    }
}
