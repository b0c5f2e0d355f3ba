//! The `[net]` section of `cluster.toml`.
//!
//! Invariant: every queue, wait and body on a connection has a limit here; defaults stand in the shipped file only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::model::units::{ByteSize, Millis};

/// How nodes talk. What each value is for stands beside its default in `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Peers that are connected to this node at once.
    pub connections: usize,
    /// Strangers that are being asked for their proof at once.
    pub handshakes: usize,
    /// For a connection to be made and both sides to prove themselves.
    pub handshake_timeout: Millis,
    /// The longest message of somebody who has not proved himself.
    pub handshake_bytes: ByteSize,
    pub reconnect: Backoff,
    /// How long a node may have nothing to send before it says that it is still there.
    pub alive_interval: Millis,
    /// How long a peer may say nothing.
    pub silence: Millis,

    /// The longest body of a call, an answer, a message or an item of a stream.
    pub body: ByteSize,
    /// The length of the pieces that bodies are cut in.
    pub piece: ByteSize,
    /// Calls of one connection under way.
    pub calls: usize,
    /// Bodies of calls that a peer may have sent without an answer, and of answers under way.
    pub call_window: ByteSize,
    /// Messages of one service that a peer may have sent and that are not yet received.
    pub send_window: ByteSize,
    /// Messages of one service that wait here for a connection's turn.
    pub send_queue: ByteSize,
    /// Services that messages of one connection may go to.
    pub services: usize,
    pub streams: usize,
    /// Items of one stream that a peer may have sent and that are not yet read.
    pub stream_window: ByteSize,
    /// Refused peers that are remembered, so that each is logged once.
    pub refusals_remembered: usize,
    pub refusals_remembered_for: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsFiles>,
}

/// Certificates in PEM files. Both sides show one, and both check the other's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// This node's certificate, and those between it and the authority. Names the host that others dial.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who signs the certificates of all nodes.
    pub authority: PathBuf,
}

impl Settings {
    /// The first key that makes no sense, and why.
    pub fn complaint(&self) -> Option<(&'static str, &'static str)> {
        let counts = [
            ("connections", self.connections),
            ("handshakes", self.handshakes),
            ("calls", self.calls),
            ("services", self.services),
            ("streams", self.streams),
        ];
        if let Some((key, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Some((key, "at least one is needed"));
        }
        let lengths = [("body", self.body), ("piece", self.piece), ("handshake_bytes", self.handshake_bytes)];
        if let Some((key, _)) = lengths.iter().find(|(_, length)| !(1 << 10..=1 << 30).contains(&length.0)) {
            return Some((key, "between 1KiB and 1GiB"));
        }
        if self.silence.0 < 50 {
            return Some(("silence", "at least 50ms"));
        }
        if self.alive_interval.0 == 0 || self.alive_interval.0 > self.silence.0 / 2 {
            return Some((
                "alive_interval",
                "more than nothing and at most half of `silence`, so that one loss is no end",
            ));
        }
        None
    }

    /// For tests: small and quick.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self {
            connections: 8,
            handshakes: 4,
            handshake_timeout: Millis(1_000),
            handshake_bytes: ByteSize(1 << 10),
            reconnect: Backoff { first: Millis(5), most: Millis(50) },
            alive_interval: Millis(100),
            silence: Millis(1_000),
            body: ByteSize(4 << 20),
            piece: ByteSize(16 << 10),
            calls: 32,
            call_window: ByteSize(5 << 20),
            send_window: ByteSize(256 << 10),
            send_queue: ByteSize(256 << 10),
            services: 4,
            streams: 4,
            stream_window: ByteSize(128 << 10),
            refusals_remembered: 16,
            refusals_remembered_for: Millis(60_000),
            tls: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let broken = |change: fn(&mut Settings)| {
            let mut settings = Settings::for_tests();
            change(&mut settings);
            settings.complaint().map(|(key, _)| key)
        };
        assert_eq!(broken(|_| {}), None);
        assert_eq!(broken(|settings| settings.streams = 0), Some("streams"));
        assert_eq!(broken(|settings| settings.piece.0 = 8), Some("piece"));
        assert_eq!(broken(|settings| settings.silence.0 = 1), Some("silence"));
        assert_eq!(broken(|settings| settings.alive_interval.0 = 600), Some("alive_interval"));
    }
}
