//! Does a Redis server fit its job, and if not, what to change.
//!
//! Invariant: what a server says of itself decides; a misfit is named with its remedy.

use std::fmt;

use serde::Serialize;

/// Older ones lack commands that the scripts use.
const OLDEST: (u32, u32) = (6, 2);

/// What a tier needs of its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Redis must refuse writes when it is full, not forget what it holds.
    pub keeps_all: bool,
    /// Several urls were given.
    pub cluster: bool,
}

/// What a server says of itself, for status and doctor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServerInfo {
    /// As the cluster names it; empty for a single server.
    pub address: String,
    pub version: String,
    pub is_primary: bool,
    pub in_cluster: bool,
    pub used_bytes: u64,
    /// 0: none.
    pub limit_bytes: u64,
    /// What happens at the limit.
    pub policy: String,
    /// Is every write logged to disk?
    pub append_only: bool,
}

impl ServerInfo {
    /// Reads the text of `INFO`.
    pub fn parse(address: &str, info: &str) -> Self {
        let value = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim()
        };
        let number = |name| value(name).parse().unwrap_or(0);
        Self {
            address: address.to_owned(),
            version: value("redis_version").to_owned(),
            is_primary: value("role") == "master",
            in_cluster: value("cluster_enabled") == "1",
            used_bytes: number("used_memory"),
            limit_bytes: number("maxmemory"),
            policy: value("maxmemory_policy").to_owned(),
            append_only: value("aof_enabled") == "1",
        }
    }

    /// What must be changed before the server can be used.
    pub fn misfit(&self, need: Need) -> Option<String> {
        let mut numbers = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version < OLDEST {
            let (major, minor) = OLDEST;
            return Some(format!("{self} is too old; at least {major}.{minor} is needed"));
        }
        match (need.cluster, self.in_cluster) {
            (false, true) => {
                return Some(format!("{self} is a node of a Redis Cluster: give the urls of several of its nodes"));
            }
            (true, false) => {
                return Some(format!(
                    "{self} is a single server, but several urls mean a Redis Cluster: give one url, or set \
                     cluster-enabled yes and create the cluster"
                ));
            }
            _ => {}
        }
        if !self.is_primary {
            return Some(format!("{self} is a replica and takes no writes: give the url of its primary"));
        }
        if need.keeps_all && self.policy != "noeviction" {
            return Some(format!(
                "{self} has maxmemory-policy {}, which would forget chunks when memory is short: set \
                 maxmemory-policy noeviction (CONFIG SET, and redis.conf)",
                self.policy
            ));
        }
        None
    }

    /// What would be better otherwise.
    pub fn advice(&self, need: Need) -> Vec<String> {
        let mut advice = Vec::new();
        if self.limit_bytes == 0 {
            advice.push(format!("{self} has no maxmemory: it may take all of its machine's memory"));
        }
        if need.keeps_all && !self.append_only {
            advice.push(format!("{self} loses recent writes in a crash; appendonly yes keeps all but a second's"));
        }
        if !need.keeps_all && self.policy == "noeviction" {
            advice.push(format!(
                "{self} has maxmemory-policy noeviction: a full cache refuses writes; volatile-lru forgets old blocks"
            ));
        }
        advice
    }
}

impl fmt::Display for ServerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis {}", self.version)?;
        if self.address.is_empty() { Ok(()) } else { write!(f, " at {}", self.address) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KV: Need = Need { keeps_all: true, cluster: false };
    const CACHE: Need = Need { keeps_all: false, cluster: true };

    fn info(version: &str, role: &str, cluster: u8, policy: &str) -> ServerInfo {
        let text = format!(
            "# Server\r\nredis_version:{version}\r\nrole:{role}\r\ncluster_enabled:{cluster}\r\nused_memory:1000\r\n\
             used_memory_rss:5\r\nmaxmemory:5000\r\nmaxmemory_policy:{policy}\r\naof_enabled:1\r\n"
        );
        ServerInfo::parse("", &text)
    }

    #[test]
    fn a_server_that_fits_is_taken() {
        assert_eq!(info("6.2.0", "master", 0, "noeviction").misfit(KV), None);
        assert_eq!(info("8.0.2", "master", 1, "volatile-lru").misfit(CACHE), None);
        let found = info("7.0.15", "master", 0, "noeviction");
        assert_eq!((found.used_bytes, found.limit_bytes, found.append_only), (1000, 5000, true));
        assert!(found.advice(KV).is_empty() && found.advice(CACHE).len() == 1);
    }

    #[test]
    fn a_misfit_is_named_with_what_to_change() {
        for (found, need, words) in [
            (info("6.0.16", "master", 0, "noeviction"), KV, "at least 6.2"),
            (info("7.0.0", "master", 1, "noeviction"), KV, "urls of several"),
            (info("7.0.0", "master", 0, "allkeys-lru"), CACHE, "one url"),
            (info("7.0.0", "slave", 0, "noeviction"), KV, "primary"),
            (info("7.0.0", "master", 0, "allkeys-lru"), KV, "maxmemory-policy noeviction"),
            (ServerInfo::parse("", "nonsense"), KV, "too old"),
        ] {
            let misfit = found.misfit(need).expect("it does not fit");
            assert!(misfit.contains(words), "{misfit}");
        }
    }
}
