//! The tiers that a node's roles work on: its own embedded ones, or those of the node with the role store.
//!
//! Invariant: roles cannot tell which; only who holds tiers lends them, reports their size and flushes them.

use std::path::Path;
use std::sync::Arc;

use crate::cache::memory::MemoryCache;
use crate::config::{Config, StoreTier};
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
use crate::net::service::LinkTo;
use crate::store::lender_service::Lent;
use crate::tier::{Sink, TierError};

/// The joints between the roles.
#[derive(Clone)]
pub struct Tiers {
    pub mq: Arc<dyn Mq>,
    pub kv: Arc<dyn Kv>,
    pub hot: Arc<dyn Sink>,
    pub cache: Arc<dyn Sink>,
    own: Option<Own>,
}

/// Those that this process holds.
#[derive(Clone)]
struct Own {
    mq: Arc<EmbeddedMq>,
    kv: Arc<EmbeddedKv>,
    hot: Arc<EmbeddedHot>,
    cache: Arc<MemoryCache>,
}

impl Tiers {
    /// Of this process.
    pub fn open(folder: &Path, config: &Config) -> Result<Self, TierError> {
        let (partitions, tiers) = (config.cluster.partitions, &config.tiers);
        let bytes = |tier: &StoreTier| tier.page_cache.bytes();
        let mq = Arc::new(EmbeddedMq::open(&folder.join("mq"), partitions, bytes(&tiers.mq))?);
        let kv = Arc::new(EmbeddedKv::open(&folder.join("kv"), partitions, bytes(&tiers.kv))?);
        let hot = Arc::new(EmbeddedHot::open(&folder.join("hot"), partitions, bytes(&tiers.hot))?);
        let cache = Arc::new(MemoryCache::new(partitions, tiers.cache.memory_limit.bytes()));
        let own = Own { mq: mq.clone(), kv: kv.clone(), hot: hot.clone(), cache: cache.clone() };
        Ok(Self { mq, kv, hot, cache, own: Some(own) })
    }

    /// Of the node that `store` leads to.
    pub fn borrow(store: LinkTo, config: &Config) -> Self {
        let store = RemoteStore::new(store, config.tiers.remote.clone(), config.net.body);
        Self {
            mq: Arc::new(RemoteMq::start(&store)),
            kv: Arc::new(RemoteKv::new(&store)),
            hot: Arc::new(RemoteSink::hot(&store)),
            cache: Arc::new(RemoteSink::cache(&store)),
            own: None,
        }
    }

    /// What others may use.
    pub fn lent(&self, partitions: u16) -> Lent {
        let (mq, kv, hot, cache) = (self.mq.clone(), self.kv.clone(), self.hot.clone(), self.cache.clone());
        Lent { mq, kv, hot, cache, partitions }
    }

    pub fn reports(&self) -> Vec<TierReport> {
        let report = |tier, used_bytes, limit_bytes| TierReport {
            tier,
            kind: "embedded".to_owned(),
            holds: self.own.is_some(),
            used_bytes,
            limit_bytes,
            trouble: None,
        };
        let Some(own) = &self.own else {
            return [Tier::Mq, Tier::Kv, Tier::Hot, Tier::Cache].map(|tier| report(tier, None, None)).into();
        };
        let cache = own.cache.usage();
        vec![
            report(Tier::Mq, Some(own.mq.usage().disk_bytes), None),
            report(Tier::Kv, Some(own.kv.usage().disk_bytes), None),
            report(Tier::Hot, Some(own.hot.usage().disk_bytes), None),
            report(Tier::Cache, Some(cache.bytes), Some(cache.limit_bytes)),
        ]
    }

    /// Makes durable what this process holds.
    pub async fn flush(&self) -> Result<(), TierError> {
        let Some(own) = &self.own else { return Ok(()) };
        own.mq.flush().await?;
        own.kv.flush().await?;
        own.hot.flush().await
    }
}
