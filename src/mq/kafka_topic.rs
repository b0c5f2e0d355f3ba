//! Kafka's topic: found, made, and checked for what the message queue promises.
//!
//! Invariant: a topic with another number of partitions, one that forgets within a day, one that is compacted and one that does
//! not take the batches is refused with what to change; holdfast changes no topic that it finds.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use futures::executor::block_on;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::FromClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tracing::{info, warn};

use super::kafka_error::{KafkaMqError, words};
use super::kafka_settings::Settings;
use crate::clock::instant;
use crate::model::units::{ByteSize, Millis};

const DAY_MS: i64 = 86_400_000;
/// Between two looks at whether a topic that was just made is everywhere.
const STEP: Duration = Duration::from_millis(50);

/// What brokers say of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Missing,
    There {
        partitions: usize,
        /// Partitions without a leader take and give nothing.
        leaderless: usize,
        /// Of the partition that has the fewest.
        copies: usize,
    },
}

pub fn find<C: ClientContext>(client: &Client<C>, settings: &Settings, patience: Duration) -> KafkaResult<Found> {
    let metadata = client.fetch_metadata(Some(&settings.topic), patience)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == settings.topic) else {
        return Ok(Found::Missing);
    };
    match topic.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(Found::Missing),
        Some(RDKafkaErrorCode::LeaderNotAvailable) | None => {}
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
    }
    let partitions = topic.partitions();
    Ok(Found::There {
        partitions: partitions.len(),
        leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
        copies: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
    })
}

/// Makes it or checks it. Blocks.
pub fn ensure(settings: &Settings, partitions: u16, folder: &Path) -> Result<(), KafkaMqError> {
    let admin = admin(settings, folder)?;
    let found = find(admin.inner(), settings, settings.deadline.duration());
    match found.map_err(|error| unreachable(settings, &error))? {
        Found::Missing => create(&admin, settings, partitions),
        Found::There { partitions: found, copies, .. } => {
            check_partitions(settings, partitions, found)?;
            if copies < usize::from(settings.replication) {
                let topic = &settings.topic;
                warn!(
                    topic,
                    copies,
                    wanted = settings.replication,
                    "kafka's topic has fewer copies than [tiers.mq] says"
                );
            }
            check_configuration(&admin, settings)
        }
    }
}

/// Makes it, unless somebody was faster. Blocks.
pub fn make(settings: &Settings, partitions: u16, folder: &Path) -> Result<(), KafkaMqError> {
    create(&admin(settings, folder)?, settings, partitions)
}

pub(super) fn admin(settings: &Settings, folder: &Path) -> Result<AdminClient<DefaultClientContext>, KafkaMqError> {
    AdminClient::from_config(&settings.client(folder)?).map_err(KafkaMqError::Client)
}

pub(super) fn options(settings: &Settings) -> AdminOptions {
    let deadline = Some(settings.deadline.duration());
    AdminOptions::new().request_timeout(deadline).operation_timeout(deadline)
}

fn unreachable(settings: &Settings, error: &KafkaError) -> KafkaMqError {
    KafkaMqError::Unreachable { brokers: settings.brokers.join(", "), reason: words(error) }
}

fn refused(settings: &Settings, complaint: impl ToString, change: impl ToString) -> KafkaMqError {
    KafkaMqError::Topic { topic: settings.topic.clone(), complaint: complaint.to_string(), change: change.to_string() }
}

fn create(admin: &AdminClient<DefaultClientContext>, settings: &Settings, partitions: u16) -> Result<(), KafkaMqError> {
    let retention = settings.retention.0.to_string();
    let bytes = settings.batch_bytes.0.to_string();
    // With fewer copies, one broker that is away would stop everything.
    let in_sync = if settings.replication >= 3 { "2" } else { "1" };
    let topic =
        NewTopic::new(&settings.topic, i32::from(partitions), TopicReplication::Fixed(i32::from(settings.replication)))
            .set("cleanup.policy", "delete")
            .set("message.timestamp.type", "CreateTime")
            .set("retention.ms", &retention)
            .set("retention.bytes", "-1")
            .set("max.message.bytes", &bytes)
            .set("min.insync.replicas", in_sync);
    let made = block_on(admin.create_topics([&topic], &options(settings)));
    let made = made.map_err(|error| unreachable(settings, &error))?.into_iter().next();
    match made {
        None | Some(Ok(_)) => info!(topic = settings.topic, partitions, "kafka's topic was made"),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, code @ RDKafkaErrorCode::InvalidReplicationFactor))) => {
            let change = "lower [tiers.mq] replication, or start more brokers";
            let complaint = format!("cannot be made with {} copies: {code}", settings.replication);
            return Err(refused(settings, complaint, change));
        }
        Some(Err((_, code))) => {
            let change = "let this user create topics, or create it: see the keys of [tiers.mq]";
            return Err(refused(settings, format!("cannot be made: {code}"), change));
        }
    }
    await_leaders(admin, settings, partitions)
}

/// Until brokers tell of it.
fn await_leaders(
    admin: &AdminClient<DefaultClientContext>,
    settings: &Settings,
    partitions: u16,
) -> Result<(), KafkaMqError> {
    let (begun, deadline) = (instant(), settings.deadline.duration());
    loop {
        let found = find(admin.inner(), settings, deadline).map_err(|error| unreachable(settings, &error))?;
        match found {
            Found::There { partitions: found, leaderless: 0, .. } if found > 0 => {
                return check_partitions(settings, partitions, found);
            }
            _ if begun.elapsed() >= deadline => {
                let reason = "the topic was made, but its partitions have no leaders yet".into();
                return Err(KafkaMqError::Unreachable { brokers: settings.brokers.join(", "), reason });
            }
            _ => std::thread::park_timeout(STEP),
        }
    }
}

fn check_partitions(settings: &Settings, wanted: u16, found: usize) -> Result<(), KafkaMqError> {
    if found == usize::from(wanted) {
        return Ok(());
    }
    let complaint = format!("has {found} partitions, and [cluster] partitions is {wanted}");
    Err(refused(settings, complaint, "name another [tiers.mq] topic: the number is fixed once there are batches"))
}

fn check_configuration(admin: &AdminClient<DefaultClientContext>, settings: &Settings) -> Result<(), KafkaMqError> {
    let resource = ResourceSpecifier::Topic(&settings.topic);
    let described = block_on(admin.describe_configs([&resource], &options(settings)));
    let described = described.map_err(|error| unreachable(settings, &error))?.into_iter().next();
    let entries: HashMap<String, String> = match described {
        Some(Ok(resource)) => {
            resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
        }
        Some(Err(code)) => {
            let change = "let this user describe the topic's configuration (DescribeConfigs)";
            return Err(refused(settings, format!("cannot be checked: {code}"), change));
        }
        None => HashMap::new(),
    };
    if let Some(bytes) = entries.get("retention.bytes").filter(|bytes| *bytes != "-1") {
        let topic = &settings.topic;
        warn!(topic, bytes, "kafka's topic has retention.bytes: a busy partition may be forgotten within a day");
    }
    match complaint(&entries, settings.batch_bytes) {
        Some((complaint, change)) => Err(refused(settings, complaint, change)),
        None => Ok(()),
    }
}

/// What is wrong with a topic's configuration, and what to do.
fn complaint(entries: &HashMap<String, String>, batch_bytes: ByteSize) -> Option<(String, String)> {
    let number = |key: &str| entries.get(key).and_then(|value| value.parse::<i64>().ok());
    let alter = |key: &str, value: &str| format!("kafka-configs.sh --alter --add-config {key}={value}");
    if let Some(policy) = entries.get("cleanup.policy").filter(|policy| *policy != "delete") {
        let change = alter("cleanup.policy", "delete");
        return Some((format!("has cleanup.policy={policy}, which takes batches out of the log"), change));
    }
    if let Some(times) = entries.get("message.timestamp.type").filter(|times| *times != "CreateTime") {
        let complaint =
            format!("has message.timestamp.type={times}, so that new batches look like ones it had already");
        return Some((complaint, alter("message.timestamp.type", "CreateTime")));
    }
    if let Some(kept) = number("retention.ms").filter(|kept| (0..DAY_MS).contains(kept)) {
        let complaint = format!("keeps batches for {}, and a day is needed to fill kv again", Millis(kept as u64));
        return Some((complaint, alter("retention.ms", &DAY_MS.to_string())));
    }
    if let Some(most) = number("max.message.bytes").filter(|most| *most < batch_bytes.0 as i64) {
        let complaint = format!("takes {most} bytes at once, and [tiers.mq] batch_bytes is \"{batch_bytes}\"");
        let change = alter("max.message.bytes", &batch_bytes.0.to_string());
        return Some((complaint, format!("{change}, or lower batch_bytes together with [gate] request_bytes")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_would_lose_batches_is_refused_with_the_command_that_helps() {
        let good = [("cleanup.policy", "delete"), ("retention.ms", "86400000"), ("max.message.bytes", "8388608")];
        let complaint_with = |changed: &[(&str, &str)]| {
            let entries = good.iter().chain(changed).map(|(key, value)| (key.to_string(), value.to_string()));
            complaint(&entries.collect(), ByteSize(8 << 20))
        };
        assert_eq!(complaint_with(&[]), None);
        assert_eq!(complaint_with(&[("retention.ms", "-1")]), None, "for ever");
        for (key, value, change) in [
            ("cleanup.policy", "compact", "cleanup.policy=delete"),
            ("cleanup.policy", "compact,delete", "cleanup.policy=delete"),
            ("retention.ms", "3600000", "retention.ms=86400000"),
            ("message.timestamp.type", "LogAppendTime", "message.timestamp.type=CreateTime"),
            ("max.message.bytes", "1048588", "max.message.bytes=8388608"),
        ] {
            let (_, told) = complaint_with(&[(key, value)]).expect("it is refused");
            assert!(told.contains(change), "{told}");
        }
    }
}
