//! What stands behind each tier: the `[tiers.…]` sections.
//!
//! Invariant: a tier whose kind is a service has all that is needed to find it, and one that is embedded names no service: nobody
//! believes that their Kafka is used while it is not.

use serde::{Deserialize, Serialize};

use super::Secret;
use crate::hot::mysql_settings;
use crate::model::units::ByteSize;
use crate::redis_settings::{self, RedisUrl};
use crate::{lending, mq};

/// Where the joints between the roles are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierSettings {
    pub mq: MqTier,
    pub kv: KvTier,
    pub hot: HotTier,
    pub cache: CacheTier,
    /// How tiers are used that are in another process.
    pub remote: lending::settings::Settings,
}

/// The message queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqTier {
    pub kind: TierKind,
    pub policy: TierPolicy,
    /// Memory for pages of the embedded store.
    pub page_cache: ByteSize,
    /// Of Kafka.
    pub brokers: Vec<String>,
    pub topic: String,
    pub replication: u16,
    pub kafka: mq::kafka::Settings,
}

/// The chunks and snapshots.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvTier {
    pub kind: TierKind,
    pub policy: TierPolicy,
    pub page_cache: ByteSize,
    /// Of Redis: one of a single server, or several of a cluster.
    pub urls: Vec<RedisUrl>,
    pub redis: redis_settings::Settings,
}

/// The results.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotTier {
    pub kind: TierKind,
    pub policy: TierPolicy,
    pub page_cache: ByteSize,
    /// Of MySQL or MariaDB, without the password.
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Days that MySQL keeps.
    pub keep_days: u32,
    pub mysql: mysql_settings::Settings,
}

/// The results, at hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheTier {
    pub kind: TierKind,
    pub policy: TierPolicy,
    /// Of the embedded one; Redis has its `maxmemory`.
    pub memory_limit: ByteSize,
    pub urls: Vec<RedisUrl>,
    /// Days that Redis keeps.
    pub keep_days: u16,
    pub redis: redis_settings::Settings,
}

/// What stands behind a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum TierKind {
    Embedded,
    Kafka,
    Redis,
    Mysql,
}

/// Who decides when a tier is treated as degraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", rename_all = "lowercase")]
pub enum TierPolicy {
    Auto,
}

impl TierKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
            Self::Redis => "redis",
            Self::Mysql => "mysql",
        }
    }
}

impl TryFrom<String> for TierKind {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let known = [Self::Embedded, Self::Kafka, Self::Redis, Self::Mysql];
        let found = known.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("there is no kind '{text}'; kinds are embedded, kafka, redis, mysql"))
    }
}

impl TryFrom<String> for TierPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            _ => Err(format!("policy '{text}' is not supported by this build; supported: auto")),
        }
    }
}

impl MqTier {
    /// What its adapter is told.
    pub fn for_kafka(&self) -> mq::kafka::Settings {
        let (brokers, topic) = (self.brokers.clone(), self.topic.clone());
        mq::kafka::Settings { brokers, topic, replication: self.replication, ..self.kafka.clone() }
    }
}

impl KvTier {
    pub fn for_redis(&self) -> redis_settings::Settings {
        redis_settings::Settings { urls: self.urls.clone(), ..self.redis.clone() }
    }
}

impl HotTier {
    pub fn for_mysql(&self) -> mysql_settings::Settings {
        mysql_settings::Settings { url: self.url.clone(), keep_days: self.keep_days, ..self.mysql.clone() }
    }
}

impl CacheTier {
    pub fn for_redis(&self) -> redis_settings::Settings {
        redis_settings::Settings { urls: self.urls.clone(), ..self.redis.clone() }
    }
}

/// A key of a tier's section that is wrong, and why.
pub type TierComplaint = (&'static str, &'static str, String);

impl TierSettings {
    /// The kind of each tier, by its name.
    pub fn kinds(&self) -> [(&'static str, TierKind); 4] {
        [("mq", self.mq.kind), ("kv", self.kv.kind), ("hot", self.hot.kind), ("cache", self.cache.kind)]
    }

    /// What decides which data nodes see: all nodes must name the same.
    pub fn agreed(&self) -> Vec<(String, String)> {
        let key = |tier: &str, key: &str| format!("[tiers.{tier}] {key}");
        let mut agreed: Vec<_> = self.kinds().map(|(tier, kind)| (key(tier, "kind"), kind.name().to_owned())).into();
        if self.mq.kind == TierKind::Kafka {
            agreed.push((key("mq", "topic"), self.mq.topic.clone()));
        }
        for (tier, kind, settings) in
            [("kv", self.kv.kind, &self.kv.redis), ("cache", self.cache.kind, &self.cache.redis)]
        {
            if kind == TierKind::Redis {
                agreed.push((key(&format!("{tier}.redis"), "prefix"), settings.prefix.clone()));
            }
        }
        agreed
    }

    /// The first section and key that make no sense, and why.
    pub fn complaint(&self) -> Option<TierComplaint> {
        let Self { mq, kv, hot, cache, .. } = self;
        let tiers = [
            ("mq", mq.kind, TierKind::Kafka, "brokers", mq.brokers.is_empty(), "[\"host:9092\"]"),
            ("kv", kv.kind, TierKind::Redis, "urls", kv.urls.is_empty(), "[\"redis://host:6379\"]"),
            ("hot", hot.kind, TierKind::Mysql, "url", hot.url.is_empty(), "\"mysql://user@host:3306/database\""),
            ("cache", cache.kind, TierKind::Redis, "urls", cache.urls.is_empty(), "[\"redis://host:6379\"]"),
        ];
        for (tier, kind, service, key, is_empty, example) in tiers {
            let name = service.name();
            let complaint = match kind {
                TierKind::Embedded if is_empty => continue,
                TierKind::Embedded => (tier, key, format!("is for kind = \"{name}\", and the kind is \"embedded\"")),
                _ if kind != service => {
                    (tier, "kind", format!("'{}' is not for {tier}, which can be embedded or {name}", kind.name()))
                }
                // At the key that is there: the other one's place is the defaults' own.
                _ if is_empty => (tier, "kind", format!("kind = \"{name}\" also needs {key} = {example}")),
                _ => continue,
            };
            return Some(complaint);
        }
        if mq.kind == TierKind::Kafka
            && let Some((key, reason)) = mq.for_kafka().complaint()
        {
            return Some(("mq", key, reason.to_owned()));
        }
        if kv.kind == TierKind::Redis && cache.kind == TierKind::Redis && kv.redis.prefix == cache.redis.prefix {
            return Some(("cache", "redis", "its prefix is that of [tiers.kv.redis]: each needs its own".to_owned()));
        }
        None
    }
}
