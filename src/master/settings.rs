//! The `[master]` section of `cluster.toml`.
//!
//! Invariant: every wait and every queue of a master has a limit here; defaults stand in the shipped file only.

use serde::{Deserialize, Serialize};

use crate::model::units::{ByteSize, Millis};

/// How masters behave. What each value is for stands beside its default in `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub tick: Millis,
    pub heartbeat: Millis,
    pub lease: Millis,
    pub silence: Millis,
    pub rank_step: Millis,
    pub closed_step: Millis,

    pub requests: usize,
    pub request_timeout: Millis,
    pub change_timeout: Millis,
    pub command_bytes: ByteSize,
    pub message_bytes: ByteSize,
    pub uncommitted_bytes: ByteSize,
    pub in_flight: usize,
    pub snapshot_retry: Millis,

    pub compact_entries: u64,
    pub compact_bytes: ByteSize,
    pub keep_entries: u64,
    pub keep_bytes: ByteSize,
    pub page_cache: ByteSize,

    pub node_heartbeat: Millis,
    pub node_grace: Millis,
    pub node_silence: Millis,
    pub node_return: Millis,
    pub balance_slack_percent: u32,
    pub balance_interval: Millis,
    pub handover: Millis,
    pub handovers: usize,
}

/// What elections go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectionSettings {
    pub tick: Millis,
    pub heartbeat: Millis,
    pub lease: Millis,
    pub silence: Millis,
    pub rank_step: Millis,
    pub closed_step: Millis,
}

/// What a detector of lost nodes goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectorSettings {
    /// Between two looks.
    pub tick: Millis,
    /// From a closed connection until the node is lost.
    pub grace: Millis,
    /// From the last heartbeat until the node is lost.
    pub silence: Millis,
    /// For all nodes to say hello to a new active master.
    pub return_time: Millis,
}

impl Settings {
    pub fn elections(&self) -> ElectionSettings {
        let Self { tick, heartbeat, lease, silence, rank_step, closed_step, .. } = *self;
        ElectionSettings { tick, heartbeat, lease, silence, rank_step, closed_step }
    }

    pub fn detector(&self) -> DetectorSettings {
        DetectorSettings {
            tick: self.tick,
            grace: self.node_grace,
            silence: self.node_silence,
            return_time: self.node_return,
        }
    }

    /// What does not fit together: the key and why.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let positive = [("tick", self.tick), ("heartbeat", self.heartbeat), ("node_heartbeat", self.node_heartbeat)];
        if let Some((key, _)) = positive.iter().find(|(_, value)| value.0 == 0) {
            return Err((key, "must be more than nothing"));
        }
        if self.heartbeat < self.tick {
            return Err(("heartbeat", "cannot come more often than a tick"));
        }
        if self.lease.0 < 3 * self.heartbeat.0 {
            return Err(("lease", "must be three heartbeats or more: single ones get lost"));
        }
        if self.silence < self.lease {
            return Err(("silence", "must not be shorter than the lease: nobody would vote"));
        }
        if self.node_silence.0 < 3 * self.node_heartbeat.0 {
            return Err(("node_silence", "must be three of the nodes' heartbeats or more: single ones get lost"));
        }
        if self.uncommitted_bytes < self.message_bytes || self.uncommitted_bytes < self.command_bytes {
            return Err(("uncommitted_bytes", "must hold at least one message and one command"));
        }
        if self.requests == 0 || self.in_flight == 0 {
            return Err(("requests", "at least one must be possible"));
        }
        if self.handovers == 0 {
            return Err(("handovers", "at least one must be possible"));
        }
        Ok(())
    }
}

#[cfg(test)]
impl ElectionSettings {
    pub fn for_tests() -> Self {
        Settings::for_tests().elections()
    }
}

impl Settings {
    /// For tests: the times of the shipped file, and limits that are reached quickly.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self {
            tick: Millis(25),
            heartbeat: Millis(100),
            lease: Millis(700),
            silence: Millis(800),
            rank_step: Millis(150),
            closed_step: Millis(100),
            requests: 64,
            request_timeout: Millis(5_000),
            change_timeout: Millis(30_000),
            command_bytes: ByteSize(64 << 10),
            message_bytes: ByteSize(1 << 10),
            uncommitted_bytes: ByteSize(256 << 10),
            in_flight: 8,
            snapshot_retry: Millis(1_000),
            compact_entries: 20,
            compact_bytes: ByteSize(64 << 10),
            keep_entries: 5,
            keep_bytes: ByteSize(16 << 10),
            page_cache: ByteSize(1 << 20),
            node_heartbeat: Millis(200),
            node_grace: Millis(250),
            node_silence: Millis(1_500),
            node_return: Millis(3_000),
            balance_slack_percent: 0,
            balance_interval: Millis(5_000),
            handover: Millis(2_000),
            handovers: 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_do_not_fit_together_are_refused_by_key() {
        let sound = Settings::for_tests();
        assert_eq!(sound.check(), Ok(()));
        for (changed, key) in [
            (Settings { tick: Millis(0), ..sound.clone() }, "tick"),
            (Settings { heartbeat: Millis(10), ..sound.clone() }, "heartbeat"),
            (Settings { lease: Millis(200), ..sound.clone() }, "lease"),
            (Settings { silence: Millis(600), ..sound.clone() }, "silence"),
            (Settings { node_silence: Millis(500), ..sound.clone() }, "node_silence"),
            (Settings { uncommitted_bytes: ByteSize(1), ..sound.clone() }, "uncommitted_bytes"),
        ] {
            assert_eq!(changed.check().map_err(|(key, _)| key), Err(key));
        }
    }
}
