//! Whether a node is starting, running or stopping. Pure.
//!
//! Invariant: a node that has begun to stop is never ready again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a node is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Stopping,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

/// Shared by those who know and those who are asked.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicU8>);

const STARTING: u8 = 0;
const RUNNING: u8 = 1;
const STOPPING: u8 = 2;

impl Readiness {
    /// All partitions are served; does nothing while stopping.
    pub fn set_running(&self) {
        // Lost to a stop that came first: that one holds.
        let _ = self.0.compare_exchange(STARTING, RUNNING, Ordering::AcqRel, Ordering::Acquire);
    }

    pub fn set_stopping(&self) {
        self.0.store(STOPPING, Ordering::Release);
    }

    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            STARTING => Phase::Starting,
            RUNNING => Phase::Running,
            _ => Phase::Stopping,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopping_node_never_becomes_ready_again() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        readiness.set_running();
        assert!(readiness.is_ready());
        readiness.set_stopping();
        readiness.set_running();
        assert_eq!(readiness.phase(), Phase::Stopping);
    }
}
