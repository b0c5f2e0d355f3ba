//! The `[tiers.remote]` section of `cluster.toml`.
//!
//! Invariant: every wait and every queue has a limit here; defaults stand in the shipped file only.

use serde::{Deserialize, Serialize};

use crate::model::units::{ByteSize, Millis};

/// How this process uses the tiers of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// For one call; then its outcome is unknown.
    pub deadline: Millis,
    /// Calls at once; others wait.
    pub calls_at_once: usize,
    /// For what does not fit one call.
    pub long_deadline: Millis,
    /// Of those at once; others wait.
    pub long_at_once: usize,
    /// Of batches that mq has not acknowledged; more are refused at once.
    pub publish_memory: ByteSize,
}
