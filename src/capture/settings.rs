//! The `[[source]]` and `[capture]` sections of `cluster.toml`.
//!
//! Invariant: every queue, wait and batch of a capture has a limit here; defaults stand in the shipped file only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::config::secret::Secret;
use crate::model::units::{ByteSize, Millis};

/// One database whose changes are captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Part of the changes' names: another name is another source, whose rows count anew.
    pub name: String,
    pub kind: SourceKind,
    /// `mysql://user@host:3306`, without the password.
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Is the connection encrypted, and the server's certificate checked? Without it: no.
    #[serde(default)]
    pub tls: bool,
    /// PEM file with the roots that the server's certificate must come from; without it the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_roots: Option<PathBuf>,
    /// `shop.orders`: its rows become those of the `[[table]]` with the same name.
    pub tables: Vec<String>,
    /// Read the rows that are there already before the log. If not, only what changes from the first start on counts.
    #[serde(default = "yes")]
    pub snapshot: bool,
    /// Unique among the server and all its replicas. Without it one that is made of the source's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<u32>,
    /// The zone of `datetime` values, which have none of their own: an IANA name; without it `UTC`.
    #[serde(default = "utc")]
    pub datetime_zone: String,
}

fn yes() -> bool {
    true
}

fn utc() -> String {
    "UTC".to_owned()
}

impl SourceSettings {
    /// The id that the source shows itself with to the server: the one that was given, or one far above those that people
    /// give, the same at every start.
    pub fn server_id(&self) -> u32 {
        self.server_id.unwrap_or_else(|| crc32fast::hash(self.name.as_bytes()) | 1 << 31)
    }
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// MySQL 5.7, 8 and later, and MariaDB 10.4 and later.
    Mysql,
}

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
