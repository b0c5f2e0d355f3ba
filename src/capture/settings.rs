//! The `[capture]` section of `cluster.toml`: how sources are read.
//!
//! Invariant: every queue, wait and batch of a capture has a limit here; defaults stand in the shipped file only.

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::model::units::{ByteSize, Millis};

/// How sources are read. Good values: see each key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long a change waits for others at most before it is published ("50ms").
    pub flush: Millis,
    /// Rows of all tables of a source that are published at the latest (10000; an update is two).
    pub batch_rows: usize,
    /// … and their bytes in memory ("8MiB"). A transaction may be larger: its spans follow each other.
    pub batch_bytes: ByteSize,
    /// How often a partition without changes is told how far the source is ("500ms"); checkpoints go by it.
    pub heartbeat: Millis,
    /// How often the checkpoint is saved ("1s").
    pub save: Millis,
    /// Batches of a source that mq has not acknowledged, and their bytes (1000, "64MiB"); reading waits above it.
    pub in_flight: usize,
    pub in_flight_bytes: ByteSize,
    /// For connecting, and for each question to the server ("10s").
    pub answer: Millis,
    /// How long the server may take to stop writers for a moment, where it must ("5s"; MySQL only).
    pub lock_wait: Millis,
    /// How often the server says that there is nothing new ("1s"), and the longest silence ("10s").
    pub server_heartbeat: Millis,
    pub silence: Millis,
    /// The largest packet that is read ("1GiB"): one event, one row of a snapshot.
    pub packet_bytes: ByteSize,
    /// The first and the longest pause after a failure ("200ms", "10s").
    pub retry_first: Millis,
    pub retry_most: Millis,
    /// How much of mq is read at once when an interrupted snapshot is taken back ("4MiB").
    pub read_bytes: ByteSize,
    /// The shortest time that the server must keep its log ("24h").
    pub log_kept: Millis,
}

impl Settings {
    pub fn retry(&self) -> Backoff {
        Backoff { first: self.retry_first, most: self.retry_most }
    }

    /// The values that the keys' descriptions name.
    pub fn usual() -> Self {
        Self {
            flush: Millis(50),
            batch_rows: 10_000,
            batch_bytes: ByteSize(8 << 20),
            heartbeat: Millis(500),
            save: Millis(1_000),
            in_flight: 1_000,
            in_flight_bytes: ByteSize(64 << 20),
            answer: Millis(10_000),
            lock_wait: Millis(5_000),
            server_heartbeat: Millis(1_000),
            silence: Millis(10_000),
            packet_bytes: ByteSize(1 << 30),
            retry_first: Millis(200),
            retry_most: Millis(10_000),
            read_bytes: ByteSize(4 << 20),
            log_kept: Millis(24 * 3_600_000),
        }
    }
}
