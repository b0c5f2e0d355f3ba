//! What an operator sets about a Redis server or cluster: `[tiers.kv.redis]` and `[tiers.cache.redis]` of `cluster.toml`.
//!
//! Invariant: every wait and every queue has a limit here; a password in a url is never shown.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use crate::backoff::Backoff;
use crate::config::secret::Secret;
use crate::model::units::Millis;

/// How a tier uses Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// One: a single server. Several: nodes of a Redis Cluster, which name the others. `redis://HOST:PORT`, or
    /// `rediss://HOST:PORT` for TLS. The tier's own key.
    #[serde(skip)]
    pub urls: Vec<RedisUrl>,
    /// An ACL user; without one the user `default`, or the one in the urls.
    pub user: Option<String>,
    /// Of that user; may be in the urls instead.
    pub password: Option<Secret>,
    /// A PEM file with who signs the servers' certificates; without one the system's authorities.
    pub authority: Option<PathBuf>,
    /// All keys begin with it. Two tiers or two clusters of holdfast that share a Redis need two prefixes.
    pub prefix: String,
    /// To each server; partitions share them.
    pub connections: u16,
    /// For a connection to be made.
    pub connect_timeout: Millis,
    /// Pauses while no connection can be made.
    pub reconnect: Backoff,
    /// For one call; then its outcome is unknown.
    pub deadline: Millis,
    /// For a snapshot, and for writes and reads of many megabytes.
    pub long_deadline: Millis,
    /// Calls at once; others wait.
    pub calls_at_once: usize,
    /// Snapshots at once; others wait.
    pub long_at_once: usize,
}

/// A server's url.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct RedisUrl(String);

impl RedisUrl {
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// With the password, if there is one in it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str(&self.0) };
        match rest.rsplit_once('@') {
            None => f.write_str(&self.0),
            Some((credentials, host)) => {
                let user = credentials.split(':').next().unwrap_or_default();
                write!(f, "{scheme}://{user}:(hidden)@{host}")
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for RedisUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        for (url, shown) in [
            ("redis://host:6379/0", "redis://host:6379/0"),
            ("redis://:p@ss@host", "redis://:(hidden)@host"),
            ("rediss://ann:secret@host:1", "rediss://ann:(hidden)@host:1"),
        ] {
            let url = RedisUrl::new(url);
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
        }
    }
}
