//! The `[gate]` section of `cluster.toml`.
//!
//! Invariant: every queue, wait and request of a gate has a limit here; defaults stand in the shipped file only.

use serde::{Deserialize, Serialize};

use super::admission::AdmissionLimits;
use super::scatter::Limits;
use super::sequencer::SequencerLimits;
use crate::model::units::{ByteSize, Millis};

/// How gates behave. What each value is for stands beside its default in `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Messages that wait in front of one partition's gate.
    pub mailbox: usize,
    /// Requests of one partition that wait for mq's acknowledgement.
    pub in_flight: usize,
    /// Batches of one partition in mq that kv does not have; more are refused.
    pub backlog_batches: u64,
    /// Stretches of failed sequence numbers that one partition remembers until mq has them as void.
    pub holes: usize,

    /// How much of mq one partition reads at once.
    pub read_bytes: ByteSize,
    pub chunk_rows: u64,
    pub chunk_bytes: ByteSize,
    /// Offsets of skipped batches after which the new offset is written to kv without rows.
    pub skipped_offsets: u64,
    /// Requests with an `Idempotency-Key` that one partition recognises again.
    pub keys_remembered: usize,
    pub keys_remembered_for: Millis,
    /// How often an idle gate tells the partition's owner that all is counted.
    pub heartbeat: Millis,
    /// How often an idle gate looks whether kv lost writes.
    pub head_check: Millis,
    /// The first and the longest pause after a failure of mq or kv.
    pub retry_first: Millis,
    pub retry_most: Millis,
    /// Memory of chunks that were pushed and are not yet counted, of all partitions together.
    pub push_memory: ByteSize,
    /// The first and the longest pause while the slave takes no pushes.
    pub push_pause_first: Millis,
    pub push_pause_most: Millis,
    /// How long mq keeps what kv has.
    pub mq_keep: Millis,

    /// Memory of all ingest requests under way together.
    pub ingest_memory: ByteSize,
    /// How long a request waits for that memory.
    pub ingest_wait: Millis,
    /// How long a client may send nothing.
    pub body_idle: Millis,
    /// How long a request waits for the gates and mq.
    pub publish_timeout: Millis,
    pub request_bytes: ByteSize,
    pub request_rows: u64,
    /// The most memory that one request's rows take once read.
    pub request_memory: ByteSize,
    pub row_bytes: ByteSize,
}

impl Settings {
    pub fn row_limits(&self) -> Limits {
        Limits {
            row_bytes: self.row_bytes.bytes(),
            rows: self.request_rows,
            decoded_bytes: self.request_memory.bytes(),
        }
    }

    pub fn admission_limits(&self) -> AdmissionLimits {
        AdmissionLimits {
            chunk_rows: self.chunk_rows,
            chunk_bytes: self.chunk_bytes.bytes(),
            skipped_offsets: self.skipped_offsets,
            keys_remembered: self.keys_remembered,
            keys_remembered_for_ms: self.keys_remembered_for.as_i64(),
            retry_first_ms: self.retry_first.0,
            retry_most_ms: self.retry_most.0,
            head_check_ms: self.head_check.as_i64(),
        }
    }

    pub fn sequencer_limits(&self) -> SequencerLimits {
        SequencerLimits { holes: self.holes, acknowledged_keys: self.keys_remembered }
    }

    /// For tests: small and quick.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self {
            mailbox: 64,
            in_flight: 64,
            backlog_batches: 1_000,
            holes: 100,
            read_bytes: ByteSize(1 << 20),
            chunk_rows: 1_000,
            chunk_bytes: ByteSize(1 << 20),
            skipped_offsets: 10,
            keys_remembered: 100,
            keys_remembered_for: Millis(60_000),
            heartbeat: Millis(10),
            head_check: Millis(50),
            retry_first: Millis(1),
            retry_most: Millis(20),
            push_memory: ByteSize(8 << 20),
            push_pause_first: Millis(1),
            push_pause_most: Millis(10),
            mq_keep: Millis(60_000),
            ingest_memory: ByteSize(8 << 20),
            ingest_wait: Millis(100),
            body_idle: Millis(1_000),
            publish_timeout: Millis(5_000),
            request_bytes: ByteSize(1 << 20),
            request_rows: 10_000,
            request_memory: ByteSize(4 << 20),
            row_bytes: ByteSize(4 << 10),
        }
    }
}
