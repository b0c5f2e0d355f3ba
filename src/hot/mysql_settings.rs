//! The keys of `[tiers.hot]` with `kind = "mysql"`, but for the password, which is given apart.
//!
//! Invariant: every wait, every queue and every size has a limit here; defaults stand in the shipped file only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::units::{ByteSize, Millis};

/// How the serving database is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `mysql://user@host:3306/database`, without password. The database is made if it is missing and the user may.
    /// `[tiers.hot]`'s own key, as `keep_days`.
    #[serde(skip)]
    pub url: String,
    /// Is the connection encrypted, and the server's certificate checked?
    pub tls: bool,
    /// PEM file with the roots that the server's certificate must come from; without it the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_roots: Option<PathBuf>,
    /// Days before today that keep their rows; 0: all do. Answers that touch days whose rows went say so.
    #[serde(skip)]
    pub keep_days: u32,
    /// For one call, waiting for a connection included; then its outcome is unknown.
    pub deadline: Millis,
    /// For a change of a table that holds rows already, when definitions grow.
    pub migration: Millis,
    /// Connections of this process that write; emissions of different partitions go side by side.
    pub write_connections: usize,
    /// Connections of this process that read.
    pub read_connections: usize,
    /// Calls that wait for a connection, of each kind; more are refused at once.
    pub waiting: usize,
    /// Of one statement; at most half of the server's `max_allowed_packet` is used.
    pub statement: ByteSize,
    /// Of the rows of one read in memory; more is refused.
    pub read_limit: ByteSize,
    /// How often a write is tried again that the server broke off because of a deadlock.
    pub deadlock_retries: u32,
    /// After so much silence the server closes a connection. So long does a node that was stopped in mid-write hold a
    /// partition's place.
    pub idle: Millis,
}
