//! How Kafka is used: the keys of `[tiers.mq.kafka]`, and what they mean to librdkafka.
//!
//! Invariant: every queue and every wait of the clients has a limit here; a secret is revealed only into a client's own
//! configuration.

use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};

use super::kafka_error::KafkaMqError;
use crate::config::secret::Secret;
use crate::model::units::{ByteSize, Millis};

/// What a record takes beside the batch, at most.
pub(super) const RECORD_OVERHEAD: usize = 512;
/// A day: what was published in it must still be there, whatever happens to kv.
const LEAST_RETENTION: Millis = Millis(86_400_000);
/// Below this librdkafka would take a busy broker for a dead one.
const LEAST_SOCKET_TIMEOUT: Millis = Millis(2_000);

/// Keys of `[tiers.mq.kafka]`, all but `security` mandatory. The first three are `[tiers.mq]`'s own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `host:port` of some brokers; the others are found through them.
    #[serde(skip)]
    pub brokers: Vec<String>,
    /// Holds the batches, one Kafka partition for each partition of the cluster. Created if it is not there. Of one cluster
    /// only.
    #[serde(skip)]
    pub topic: String,
    /// Copies of each batch, when holdfast creates the topic; not more than there are brokers. With three or more, two have to
    /// have a batch before it is acknowledged.
    #[serde(skip)]
    pub replication: u16,
    /// How long Kafka keeps batches, when holdfast creates the topic; at least "24h".
    pub retention: Millis,
    /// The largest encoded batch. The topic's `max.message.bytes` is set to it, or must allow it.
    pub batch_bytes: ByteSize,
    /// For one read or look; then it is unavailable.
    pub deadline: Millis,
    /// For Kafka to acknowledge a batch; then its outcome is unknown.
    pub publish_deadline: Millis,
    /// Of batches that Kafka has not acknowledged; more are refused at once.
    pub publish_memory: ByteSize,
    /// How long a batch waits for others to travel with.
    pub linger: Millis,
    /// Memory for batches read ahead, for each partition that this process reads; the last one read may go beyond.
    pub prefetch: ByteSize,
    /// Of one answer from a broker, all partitions together.
    pub fetch_bytes: ByteSize,
    /// A partition that nobody reads for so long is no longer read ahead.
    pub idle_after: Millis,
    /// Who waits for a batch is told by its arrival; should that be missed, by looking this often.
    pub watch_interval: Millis,
    /// Between two requests to forget batches, for all partitions together.
    pub trim_interval: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
}

/// How brokers and this process prove themselves. Needs a build with `--features kafka-tls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    pub protocol: Protocol,
    /// PEM file with who signs the brokers' certificates; without it, those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<PathBuf>,
    /// PEM files of this process, where brokers ask for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

/// SASL with a name and a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub mechanism: Mechanism,
    pub user: String,
    pub password: Secret,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Settings {
    /// The first key that makes no sense, and why.
    pub fn complaint(&self) -> Option<(&'static str, &'static str)> {
        let is_broker = |broker: &String| {
            let (host, port) = broker.rsplit_once(':').unwrap_or_default();
            !host.is_empty() && !host.contains([',', ' ']) && port.parse::<u16>().is_ok_and(|port| port != 0)
        };
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let socket_limit = 100 << 20;
        let complaints = [
            (self.brokers.is_empty() || !self.brokers.iter().all(is_broker), "brokers", "each is \"host:port\""),
            (
                !(1..=249).contains(&self.topic.len()) || !self.topic.chars().all(is_letter),
                "topic",
                "1 to 249 letters, digits, dots, underscores and hyphens",
            ),
            (self.replication == 0, "replication", "at least one copy is needed"),
            (self.retention < LEAST_RETENTION, "retention", "at least \"24h\": kv may have to be filled again"),
            (
                !(64 << 10..=socket_limit - (1 << 20)).contains(&self.batch_bytes.0),
                "batch_bytes",
                "between 64KiB and 99MiB: Kafka takes no larger requests",
            ),
            (self.deadline.0 == 0, "deadline", "more than nothing"),
            (self.publish_deadline.0 <= self.linger.0 + 10, "publish_deadline", "well above `linger`"),
            (
                self.publish_memory < self.batch_bytes || self.publish_memory.0 > 256 << 30,
                "publish_memory",
                "at least one batch of `batch_bytes`, at most 256GiB",
            ),
            (self.prefetch.0 < 64 << 10 || self.prefetch.0 > 900 << 20, "prefetch", "between 64KiB and 900MiB"),
            (self.fetch_bytes < self.prefetch || self.fetch_bytes.0 > 1 << 30, "fetch_bytes", "`prefetch` to 1GiB"),
            (self.watch_interval.0 == 0, "watch_interval", "more than nothing"),
        ];
        complaints.into_iter().find_map(|(is_wrong, key, reason)| is_wrong.then_some((key, reason)))
    }

    /// What every client needs. Secrets in relative files start at `folder`.
    pub(super) fn client(&self, folder: &Path) -> Result<ClientConfig, KafkaMqError> {
        if let Some((key, reason)) = self.complaint() {
            return Err(KafkaMqError::Setting { key, reason });
        }
        let mut config = ClientConfig::new();
        let socket_timeout = self.deadline.max(LEAST_SOCKET_TIMEOUT);
        config
            .set("bootstrap.servers", self.brokers.join(","))
            .set("client.id", "holdfast")
            // A topic that Kafka makes up has neither the partitions nor the retention.
            .set("allow.auto.create.topics", "false")
            .set("socket.timeout.ms", socket_timeout.0.to_string())
            .set("socket.connection.setup.timeout.ms", socket_timeout.0.to_string())
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(security) = &self.security {
            security.apply(&mut config, folder)?;
        }
        Ok(config)
    }

    pub(super) fn producer(&self, client: &ClientConfig) -> ClientConfig {
        let mut config = client.clone();
        // Room for what the memory limit lets in, so that librdkafka's own queue is never full.
        let queue_kib = (self.publish_memory.0 / 512).clamp(1 << 10, i32::MAX as u64);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Bodies are compressed already.
            .set("compression.type", "none")
            .set("linger.ms", self.linger.0.to_string())
            .set("message.timeout.ms", self.publish_deadline.0.to_string())
            .set("request.timeout.ms", self.publish_deadline.0.clamp(100, 30_000).to_string())
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "500")
            .set("topic.metadata.propagation.max.ms", self.deadline.0.to_string())
            .set("message.max.bytes", self.batch_bytes.0.to_string())
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", queue_kib.to_string());
        config
    }

    pub(super) fn consumer(&self, client: &ClientConfig) -> ClientConfig {
        let mut config = client.clone();
        config
            // Partitions are assigned by hand; a group is named only because the client wants one.
            .set("group.id", format!("holdfast-{}", self.topic))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            .set("message.max.bytes", self.batch_bytes.0.to_string())
            .set("queued.max.messages.kbytes", (self.prefetch.0 >> 10).to_string())
            .set("fetch.message.max.bytes", self.prefetch.0.to_string())
            .set("fetch.max.bytes", self.fetch_bytes.max(self.batch_bytes).0.to_string())
            .set("receive.message.max.bytes", (self.fetch_bytes.max(self.batch_bytes).0 + (1 << 20)).to_string())
            .set("fetch.wait.max.ms", "500")
            .set("fetch.error.backoff.ms", "50")
            // How soon a partition whose read-ahead was full is fetched again.
            .set("fetch.queue.backoff.ms", "5");
        config
    }
}

impl Security {
    fn apply(&self, config: &mut ClientConfig, folder: &Path) -> Result<(), KafkaMqError> {
        if !cfg!(feature = "kafka-tls") {
            return Err(KafkaMqError::NeedsTls);
        }
        let protocol = match self.protocol {
            Protocol::Ssl => "ssl",
            Protocol::SaslPlaintext => "sasl_plaintext",
            Protocol::SaslSsl => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        let files = [
            ("ssl.ca.location", &self.authority),
            ("ssl.certificate.location", &self.certificate),
            ("ssl.key.location", &self.key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                config.set(key, folder.join(file).to_string_lossy());
            }
        }
        let wants_login = self.protocol != Protocol::Ssl;
        let Some(login) = &self.login else {
            let missing = KafkaMqError::Setting { key: "security.login", reason: "this protocol needs one" };
            return if wants_login { Err(missing) } else { Ok(()) };
        };
        let mechanism = match login.mechanism {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        config
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &login.user)
            .set("sasl.password", login.password.reveal(folder)?);
        Ok(())
    }
}

#[cfg(test)]
#[path = "kafka_settings_tests.rs"]
mod tests;
