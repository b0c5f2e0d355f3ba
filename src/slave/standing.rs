//! Where a partition's computation stands. Pure.
//!
//! Invariant: nothing is emitted before the state has caught up with kv as it was first looked at, and nothing is
//! counted after a standing that does not pass.

use serde::{Deserialize, Serialize};

use crate::model::id::Tip;

/// Moves go forward only, but for `Stopping`, which may be entered from `Counting` and `Stalled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Looks for a snapshot, then for kv's head.
    Loading,
    /// Reads chunks up to the head as it was first looked at.
    CatchingUp {
        until: Tip,
    },
    Counting,
    /// Cannot count a chunk, for a reason that does not pass by itself. What was counted before is served.
    Stalled {
        reason: String,
    },
    /// Says what is not yet said, saves its state, and ends.
    Stopping,
    Stopped,
    /// Another owner has taken over.
    Fenced {
        found: String,
    },
}

impl Standing {
    /// May chunks be counted?
    pub fn counts(&self) -> bool {
        matches!(self, Self::CatchingUp { .. } | Self::Counting)
    }

    /// May something be emitted?
    pub fn emits(&self) -> bool {
        matches!(self, Self::Counting | Self::Stalled { .. } | Self::Stopping)
    }

    pub fn is_over(&self) -> bool {
        matches!(self, Self::Stopped | Self::Fenced { .. })
    }

    /// The chain's end was reached, or the place where it ended at first.
    pub fn caught_up(&mut self, last: Tip, at_end: bool) {
        if let Self::CatchingUp { until } = self
            && (at_end || last == *until)
        {
            *self = Self::Counting;
        }
    }

    pub fn stall(&mut self, reason: String) {
        assert!(self.counts(), "only counting can stall");
        *self = Self::Stalled { reason };
    }

    pub fn fence(&mut self, found: String) {
        if !self.is_over() {
            *self = Self::Fenced { found };
        }
    }
}
