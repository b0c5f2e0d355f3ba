//! A `[[source]]` section of `cluster.toml`: a database whose changes are captured.
//!
//! Invariant: a password is never shown, nor is it part of the url.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::secret::Secret;

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
