//! The `[store]` section of `cluster.toml`.
//!
//! Invariant: what peers may make this process hold has a limit here; defaults stand in the shipped file only.

use serde::{Deserialize, Serialize};

use crate::model::units::{ByteSize, Millis};

/// How a store lends its tiers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// That do the work; 0: one per core.
    pub threads: usize,
    /// Of questions that are longer than one call, while they are being received.
    pub long_memory: ByteSize,
    /// For the next part of such a question, before the peer counts as gone.
    pub stall: Millis,
    /// Publications of one peer that mq has not acknowledged yet.
    pub publications: usize,
    /// Writers that are remembered, so that none of their publications is done after later ones.
    pub writers: usize,
}
