//! The tiers that a node's roles work on: embedded ones of its own or of the node with the role store, and services.
//!
//! Invariant: roles cannot tell which; only who holds embedded tiers lends them and flushes them.

use std::path::Path;
use std::sync::Arc;

use super::NodeError;
use super::external::{Externals, Ground};
use crate::cache::memory::MemoryCache;
use crate::hot::embedded::EmbeddedHot;
use crate::kv::Kv;
use crate::kv::embedded::EmbeddedKv;
use crate::kv::remote::RemoteKv;
use crate::lending::remote_sink::RemoteSink;
use crate::lending::remote_store::RemoteStore;
use crate::model::mode::Tier;
use crate::model::report::TierReport;
use crate::mq::Mq;
use crate::mq::embedded::EmbeddedMq;
use crate::mq::remote::RemoteMq;
use crate::query::guard_service::Guard;
use crate::store::lender_service::Lent;
use crate::tier::{Sink, TierError};

/// The joints between the roles.
#[derive(Clone)]
pub struct Tiers {
    pub mq: Arc<dyn Mq>,
    pub kv: Arc<dyn Kv>,
    pub hot: Arc<dyn Sink>,
    pub cache: Arc<dyn Sink>,
    /// As queries ask them.
    pub guarded: Guarded,
    own: Own,
    services: Externals,
}

/// Sinks behind breakers.
#[derive(Clone)]
pub struct Guarded {
    pub hot: Arc<Guard>,
    pub cache: Arc<Guard>,
}

/// The embedded ones that this process holds.
#[derive(Clone, Default)]
struct Own {
    mq: Option<Arc<EmbeddedMq>>,
    kv: Option<Arc<EmbeddedKv>>,
    hot: Option<Arc<EmbeddedHot>>,
    cache: Option<Arc<MemoryCache>>,
}

/// Where embedded tiers are.
pub enum Store<'a> {
    /// In this folder.
    Here(&'a Path),
    /// With another node.
    At(Arc<RemoteStore>),
}

impl Tiers {
    /// Externals are looked at, and must fit if they can be reached.
    pub async fn open(store: Store<'_>, ground: Ground<'_>) -> Result<Self, NodeError> {
        let services = Externals::open(&ground)?;
        services.check().await?;
        let (partitions, tiers) = (ground.config.cluster.partitions, &ground.config.tiers);
        let mut own = Own::default();
        let mq: Arc<dyn Mq> = match (&services.mq, &store) {
            (Some(kafka), _) => kafka.clone(),
            (None, Store::At(store)) => Arc::new(RemoteMq::start(store)),
            (None, Store::Here(folder)) => {
                let mq = EmbeddedMq::open(&folder.join("mq"), partitions, tiers.mq.page_cache.bytes())?;
                own.mq.insert(Arc::new(mq)).clone()
            }
        };
        let kv: Arc<dyn Kv> = match (&services.kv, &store) {
            (Some(redis), _) => redis.clone(),
            (None, Store::At(store)) => Arc::new(RemoteKv::new(store)),
            (None, Store::Here(folder)) => {
                let kv = EmbeddedKv::open(&folder.join("kv"), partitions, tiers.kv.page_cache.bytes())?;
                own.kv.insert(Arc::new(kv)).clone()
            }
        };
        let hot: Arc<dyn Sink> = match (&services.hot, &store) {
            (Some(mysql), _) => mysql.clone(),
            (None, Store::At(store)) => Arc::new(RemoteSink::hot(store)),
            (None, Store::Here(folder)) => {
                let hot = EmbeddedHot::open(&folder.join("hot"), partitions, tiers.hot.page_cache.bytes())?;
                own.hot.insert(Arc::new(hot)).clone()
            }
        };
        let cache: Arc<dyn Sink> = match (&services.cache, &store) {
            (Some(redis), _) => redis.clone(),
            (None, Store::At(store)) => Arc::new(RemoteSink::cache(store)),
            (None, Store::Here(_)) => {
                let cache = MemoryCache::new(partitions, tiers.cache.memory_limit.bytes());
                own.cache.insert(Arc::new(cache)).clone()
            }
        };
        let guard = |tier: Tier, sink: &Arc<dyn Sink>| {
            Arc::new(Guard::new(tier.name(), sink.clone(), ground.config.breaker, ground.clock.clone()))
        };
        let guarded = Guarded { hot: guard(Tier::Hot, &hot), cache: guard(Tier::Cache, &cache) };
        Ok(Self { mq, kv, hot, cache, guarded, own, services })
    }

    /// What others may use.
    pub fn lent(&self, partitions: u16) -> Lent {
        let (mq, kv, hot, cache) = (self.mq.clone(), self.kv.clone(), self.hot.clone(), self.cache.clone());
        Lent { mq, kv, hot, cache, partitions }
    }

    /// Is anything here that goes with this process?
    pub fn holds_any(&self) -> bool {
        let Own { mq, kv, hot, cache } = &self.own;
        mq.is_some() || kv.is_some() || hot.is_some() || cache.is_some()
    }

    pub fn reports(&self) -> Vec<TierReport> {
        let Own { mq, kv, hot, cache } = &self.own;
        let disk = |tier, used: Option<u64>| embedded(tier, used.is_some(), used, None);
        let cached = cache.as_ref().map(|cache| cache.usage());
        let embedded = vec![
            disk(Tier::Mq, mq.as_ref().map(|mq| mq.usage().disk_bytes)),
            disk(Tier::Kv, kv.as_ref().map(|kv| kv.usage().disk_bytes)),
            disk(Tier::Hot, hot.as_ref().map(|hot| hot.usage().disk_bytes)),
            embedded(Tier::Cache, cached.is_some(), cached.map(|it| it.bytes), cached.map(|it| it.limit_bytes)),
        ];
        let service = |report: TierReport| {
            let service = self.services.all.iter().find(|service| service.tier == report.tier);
            let report = service.map_or(report, |service| service.report());
            let guard = match report.tier {
                Tier::Hot => Some(&self.guarded.hot),
                Tier::Cache => Some(&self.guarded.cache),
                _ => None,
            };
            let trouble = report.trouble.or_else(|| guard.and_then(|guard| guard.trouble()));
            TierReport { trouble, ..report }
        };
        embedded.into_iter().map(service).collect()
    }

    /// Keeps what is known of services up to date, for as long as the node lives.
    pub async fn watch(self) {
        self.services.watch().await;
    }

    /// Makes durable what this process holds.
    pub async fn flush(&self) -> Result<(), TierError> {
        let Own { mq, kv, hot, .. } = &self.own;
        if let Some(mq) = mq {
            mq.flush().await?;
        }
        if let Some(kv) = kv {
            kv.flush().await?;
        }
        match hot {
            Some(hot) => hot.flush().await,
            None => Ok(()),
        }
    }
}

fn embedded(tier: Tier, holds: bool, used_bytes: Option<u64>, limit_bytes: Option<u64>) -> TierReport {
    TierReport { tier, kind: "embedded".to_owned(), holds, used_bytes, limit_bytes, trouble: None }
}
