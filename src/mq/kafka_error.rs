//! Why Kafka cannot be used as it is set up, and what its errors are to those who use the tier.
//!
//! Invariant: what people have to change is said; what can pass is `Unavailable`.

use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::config::secret::SecretError;
use crate::tier::TierError;

pub(super) const TIER: &str = "mq";

/// Why there is no adapter.
#[derive(Debug, Error)]
pub enum KafkaMqError {
    #[error("[tiers.mq] {key}: {reason}")]
    Setting { key: &'static str, reason: &'static str },
    #[error(
        "[tiers.mq.security]: this build has no TLS and no SASL for Kafka; build with `cargo build --release --features \
         kafka-tls` (needs OpenSSL's headers: on Debian `apt-get install libssl-dev pkg-config`), or remove the section"
    )]
    NeedsTls,
    #[error("[tiers.mq.security] login: {0}")]
    Secret(#[from] SecretError),
    #[error("kafka's client cannot be made: {0}")]
    Client(KafkaError),
    #[error("kafka cannot be reached at {brokers}: {reason}; check [tiers.mq] brokers, and that Kafka runs")]
    Unreachable { brokers: String, reason: String },
    /// The topic is not what it must be.
    #[error("kafka's topic {topic}: {complaint}; {change}")]
    Topic { topic: String, complaint: String, change: String },
}

impl KafkaMqError {
    /// May it pass without anybody changing anything?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

pub(super) fn unavailable(reason: impl ToString) -> TierError {
    TierError::Unavailable { tier: TIER, reason: reason.to_string() }
}

/// The error without the client's own words around it.
pub(super) fn words(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}
