//! What two nodes tell each other once both are known to belong to the cluster, and whether they fit together. Pure.
//!
//! Invariant: of what a cluster must agree on only hashes travel; a node that differs hears which key it is.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lane::MESSAGE_COST;
use super::settings::Settings;

/// Who a peer is. Its name has been proved, the rest is what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub name: String,
    pub roles: Vec<String>,
    /// Where it can be reached: what for (see `tcp_arrivals`) and host:port.
    pub addresses: Vec<(String, String)>,
    /// Another with each start of the process.
    pub boot: u128,
}

impl Peer {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|candidate| candidate == role)
    }

    pub fn address(&self, purpose: &str) -> Option<&str> {
        self.addresses.iter().find(|(candidate, _)| candidate == purpose).map(|(_, address)| address.as_str())
    }
}

/// The keys that all nodes must agree on, each with a hash of its value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(Vec<(String, [u8; 16])>);

impl Fingerprint {
    pub fn new<K: Into<String>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let hashed = |(key, value): (K, V)| {
            let hash = Sha256::digest(value.as_ref().as_bytes());
            (key.into(), *hash.first_chunk::<16>().expect("SHA-256 has 32 bytes"))
        };
        let mut pairs: Vec<(String, [u8; 16])> = pairs.into_iter().map(hashed).collect();
        pairs.sort();
        Self(pairs)
    }

    /// The first key that only one has, or that both have differently.
    pub fn difference<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let lacks = |theirs: &'a Self, pair: &(String, [u8; 16])| !theirs.0.contains(pair);
        let mine = self.0.iter().filter(|pair| lacks(other, pair));
        let theirs = other.0.iter().filter(|pair| lacks(self, pair));
        mine.chain(theirs).map(|(key, _)| key.as_str()).min()
    }
}

/// What a node takes; its peers keep to it, and a connection on which they do not is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub body: u64,
    pub piece: u64,
    pub calls: u32,
    pub call_window: u64,
    pub send_window: u64,
    pub services: u32,
    pub streams: u32,
    pub stream_window: u64,
    /// How long the peer may say nothing.
    pub silence_ms: u64,
}

/// Below this a piece is mostly head, and the words of a refusal do not fit.
const LEAST_BYTES: u64 = 1 << 10;
const LEAST_WINDOW: u64 = LEAST_BYTES + MESSAGE_COST;
/// A peer that is heard less often than this would have us do nothing but speak.
const LEAST_SILENCE_MS: u64 = 50;

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let body = settings.body.0.max(LEAST_BYTES);
        Self {
            body,
            piece: settings.piece.0.max(LEAST_BYTES),
            calls: count(settings.calls),
            // A body that does not fit the empty window would wait for ever.
            call_window: settings.call_window.0.max(body.saturating_add(MESSAGE_COST)),
            send_window: settings.send_window.0.max(LEAST_WINDOW),
            services: count(settings.services),
            streams: count(settings.streams),
            stream_window: settings.stream_window.0.max(LEAST_WINDOW),
            silence_ms: settings.silence.0.max(LEAST_SILENCE_MS),
        }
    }
}

impl Limits {
    /// Limits that nobody can work with, from a peer that is wrong or hostile.
    pub fn are_possible(&self) -> bool {
        let least_window = self.call_window.min(self.send_window).min(self.stream_window);
        let has_room = self.piece.min(self.body) >= LEAST_BYTES && least_window >= LEAST_WINDOW;
        has_room && self.silence_ms >= LEAST_SILENCE_MS
    }
}

/// The first message after the handshake, from both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub peer: Peer,
    pub agreed: Fingerprint,
    pub limits: Limits,
}

impl Hello {
    /// Why this node does not work with `theirs`, whose proved name is `name`.
    pub fn refuses(&self, theirs: &Self, name: &str) -> Option<String> {
        if theirs.peer.name != name {
            return Some("it says another name than it has proved".into());
        }
        if let Some(key) = self.agreed.difference(&theirs.agreed) {
            return Some(format!("`[cluster] {key}` differs; all nodes of a cluster must have the same"));
        }
        (!theirs.limits.are_possible()).then(|| "its `[net]` limits are too small to work with".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(partitions: &str) -> Hello {
        let peer = Peer { name: "a".into(), roles: vec!["slave".into()], addresses: vec![], boot: 7 };
        let agreed = Fingerprint::new([("partitions", partitions), ("timezone", "UTC")]);
        Hello { peer, agreed, limits: Limits::from(&Settings::for_tests()) }
    }

    #[test]
    fn a_node_that_differs_hears_which_key_it_is() {
        assert_eq!(hello("64").refuses(&hello("64"), "a"), None);
        let reason = hello("64").refuses(&hello("32"), "a").expect("they differ");
        assert!(reason.contains("`[cluster] partitions`"), "{reason}");
    }

    #[test]
    fn a_key_that_only_one_node_has_is_a_difference_for_both() {
        let (few, more) = (Fingerprint::new([("a", "1")]), Fingerprint::new([("a", "1"), ("b", "2")]));
        assert_eq!((few.difference(&more), more.difference(&few)), (Some("b"), Some("b")));
    }

    #[test]
    fn a_name_other_than_the_proved_one_is_refused() {
        assert!(hello("64").refuses(&hello("64"), "b").is_some());
    }

    #[test]
    fn a_body_always_fits_its_window() {
        let mut settings = Settings::for_tests();
        settings.call_window.0 = 1;
        let limits = Limits::from(&settings);
        assert!(limits.call_window > limits.body && limits.are_possible());
    }
}
