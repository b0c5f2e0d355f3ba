//! What an operator can set about slaves: the `[slave]` section of `cluster.toml`.
//!
//! Invariant: every key is mandatory here; defaults stand in `cluster.toml` alone.

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::model::units::{ByteSize, Millis};

/// The `[slave]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Threads that share the partitions of a process.
    pub threads: u16,
    /// Messages that wait for one partition; what does not fit is read from kv.
    pub mailbox: u16,
    /// Changed blocks go to hot and cache this often.
    pub emit_interval: Millis,
    /// An emission is followed by a pause, so that those of all partitions of a thread take this share of its time, or what
    /// counting leaves of it if that is more.
    pub emit_percent: u8,
    /// The longest such pause: what load may add to the age of answers.
    pub emit_pause_most: Millis,
    /// The longest pause where it is the sink that is busy: so much older may answers be that only this sink can give.
    pub sink_pause_most: Millis,
    /// One atomic write to a sink carries about as many bytes of blocks.
    pub emit_bytes: ByteSize,
    /// Without changes, the quality record is written this often, so that answers do not look old.
    pub heartbeat: Millis,
    /// The state of a partition is saved in kv this often.
    pub snapshot_interval: Millis,
    /// Chunks are kept in kv this long, though a snapshot holds what they say.
    pub kv_keep: Millis,
    /// A partition that hears nothing from its gate looks into kv this often.
    pub kv_poll: Millis,
    /// One read of chunks from kv is about as large.
    pub kv_read_bytes: ByteSize,
    /// Of such reads of all partitions together.
    pub kv_read_memory: ByteSize,
    /// Idempotency keys are recognised this long …
    pub remember_requests: Millis,
    /// … as long as a partition has no more of them than this.
    pub remember_requests_most: usize,
    /// Gaps that a quality record names one by one; of the others it gives the number.
    pub missing_most: usize,
    /// Waits after failures of a tier.
    pub retry: Backoff,
}

#[cfg(test)]
impl Settings {
    /// Small limits, so that tests reach them.
    pub fn for_tests() -> Self {
        Self {
            threads: 1,
            mailbox: 64,
            emit_interval: Millis(10),
            emit_percent: 50,
            emit_pause_most: Millis(200),
            sink_pause_most: Millis(200),
            emit_bytes: ByteSize(2_000),
            heartbeat: Millis(50),
            snapshot_interval: Millis(100),
            kv_keep: Millis(60_000),
            kv_poll: Millis(50),
            kv_read_bytes: ByteSize(4_000),
            kv_read_memory: ByteSize(32_000),
            remember_requests: Millis(60_000),
            remember_requests_most: 1_000,
            missing_most: 4,
            retry: Backoff { first: Millis(5), most: Millis(40) },
        }
    }
}
