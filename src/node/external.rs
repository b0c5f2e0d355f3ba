//! The services behind tiers that are not embedded: whether they fit, how full they are, what is wrong.
//!
//! Invariant: a node starts without a service that cannot be reached, and says so; one that was found unfit is refused with what
//! has to be changed.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use thiserror::Error;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::cache::redis::RedisCache;
use crate::clock::Clock;
use crate::config::{Config, SecretError, TierKind};
use crate::hot::mysql::MysqlHot;
use crate::kv::redis::RedisKv;
use crate::locks::lock;
use crate::model::catalog::Catalog;
use crate::model::mode::Tier;
use crate::model::report::TierReport;
use crate::mq::kafka::{KafkaMq, KafkaMqError, Settings as KafkaSettings};
use crate::mysql_pool::MysqlError;
use crate::redis_dialer::RedisError;
use crate::redis_store::RedisStore;
use crate::tier::TierError;

/// Asking a service for its sizes costs it something.
const MEASURE_EVERY: Duration = Duration::from_secs(15);
/// One that could not be reached, or was lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Used and limit, in bytes.
type Measured = Result<(Option<u64>, Option<u64>), ExternalError>;

/// Why a service cannot be used.
#[derive(Debug, Error)]
pub enum ExternalError {
    #[error(transparent)]
    Kafka(#[from] KafkaMqError),
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("[tiers.hot] {0}")]
    Mysql(#[from] MysqlError),
    #[error("[tiers.hot] password: {0}")]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Tier(#[from] TierError),
}

impl ExternalError {
    /// Is it the configuration that must change?
    pub fn is_config(&self) -> bool {
        match self {
            Self::Kafka(error) => {
                matches!(error, KafkaMqError::Setting { .. } | KafkaMqError::NeedsTls | KafkaMqError::Secret(_))
            }
            Self::Redis(error) => matches!(error, RedisError::Setting { .. }),
            Self::Mysql(error) => matches!(error, MysqlError::Url(_)),
            Self::Secret(_) => true,
            Self::Tier(_) => false,
        }
    }

    /// May it pass without anybody changing anything?
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Kafka(error) => error.is_retryable(),
            Self::Redis(error) => error.is_retryable(),
            Self::Mysql(error) => error.is_retryable(),
            Self::Tier(error) => error.is_retryable(),
            Self::Secret(_) => false,
        }
    }
}

/// What a service's adapter is made of.
pub struct Ground<'a> {
    pub config: &'a Config,
    pub catalog: &'a Catalog,
    /// Relative files of the configuration start here.
    pub secrets: &'a Path,
    pub clock: &'a Clock,
}

/// Those that the configuration names.
#[derive(Clone, Default)]
pub struct Externals {
    pub mq: Option<Arc<KafkaMq>>,
    pub kv: Option<Arc<RedisKv>>,
    pub hot: Option<Arc<MysqlHot>>,
    pub cache: Option<Arc<RedisCache>>,
    pub all: Vec<Arc<External>>,
}

/// One of them, whatever it is.
pub struct External {
    pub tier: Tier,
    pub kind: TierKind,
    pub address: String,
    adapter: Adapter,
    partitions: u16,
    found: Mutex<Found>,
}

enum Adapter {
    Kafka { settings: Box<KafkaSettings>, folder: std::path::PathBuf },
    RedisKv(Arc<RedisKv>),
    RedisCache(Arc<RedisCache>),
    Mysql(Arc<MysqlHot>),
}

/// When it was last looked at.
#[derive(Debug, Clone, Default)]
struct Found {
    used_bytes: Option<u64>,
    limit_bytes: Option<u64>,
    trouble: Option<String>,
}

impl Externals {
    /// Makes the adapters; reaches nobody.
    pub fn open(ground: &Ground<'_>) -> Result<Self, ExternalError> {
        let Ground { config, catalog, secrets, clock } = ground;
        let (tiers, partitions) = (&config.tiers, config.cluster.partitions);
        let mut services = Self::default();
        let service = |tier, kind, address, adapter| {
            Arc::new(External { tier, kind, address, adapter, partitions, found: Mutex::default() })
        };
        let urls = |urls: &[crate::redis_settings::RedisUrl]| {
            urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        if tiers.mq.kind == TierKind::Kafka {
            let settings = tiers.mq.for_kafka();
            services.mq = Some(Arc::new(KafkaMq::open(settings.clone(), partitions, secrets)?));
            let address = settings.brokers.join(", ");
            let adapter = Adapter::Kafka { settings: Box::new(settings), folder: secrets.to_path_buf() };
            services.all.push(service(Tier::Mq, TierKind::Kafka, address, adapter));
        }
        if tiers.kv.kind == TierKind::Redis {
            let kv = Arc::new(RedisKv::new(&tiers.kv.for_redis(), secrets)?);
            services.kv = Some(kv.clone());
            services.all.push(service(Tier::Kv, TierKind::Redis, urls(&tiers.kv.urls), Adapter::RedisKv(kv)));
        }
        if tiers.hot.kind == TierKind::Mysql {
            let password = tiers.hot.password.as_ref().map(|password| password.reveal(secrets)).transpose()?;
            let mut settings = tiers.hot.for_mysql();
            settings.tls_roots = settings.tls_roots.map(|file| secrets.join(file));
            let hot = MysqlHot::open(settings, password.as_deref(), partitions, catalog, (*clock).clone())?;
            let hot = Arc::new(hot);
            services.hot = Some(hot.clone());
            services.all.push(service(Tier::Hot, TierKind::Mysql, tiers.hot.url.clone(), Adapter::Mysql(hot)));
        }
        if tiers.cache.kind == TierKind::Redis {
            let settings = tiers.cache.for_redis();
            let cache = RedisCache::new(&settings, tiers.cache.keep_days, secrets, (*clock).clone())?;
            let cache = Arc::new(cache);
            services.cache = Some(cache.clone());
            let address = urls(&tiers.cache.urls);
            services.all.push(service(Tier::Cache, TierKind::Redis, address, Adapter::RedisCache(cache)));
        }
        Ok(services)
    }

    /// Looks at all; an error is of one that somebody has to change. One that cannot be reached now may come.
    pub async fn check(&self) -> Result<(), ExternalError> {
        for service in &self.all {
            let (tier, kind, address) = (service.tier.name(), service.kind.name(), &service.address);
            match service.check().await {
                Ok(()) => info!(tier, kind, address, "found"),
                Err(error) if error.is_retryable() => {
                    warn!(tier, kind, %error, "cannot be reached; this node starts without it and goes on looking");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keeps what is known of them up to date, for as long as the node lives.
    pub async fn watch(self) {
        futures::future::join_all(self.all.iter().map(|service| service.watch())).await;
    }
}

impl External {
    /// Can it be reached, and does it fit? Makes what is missing: topic, tables.
    pub async fn check(&self) -> Result<(), ExternalError> {
        let checked = match &self.adapter {
            Adapter::Kafka { settings, folder } => {
                KafkaMq::check(settings, self.partitions, folder).await.map_err(ExternalError::from)
            }
            Adapter::RedisKv(kv) => kv.check(self.partitions).await.map_err(ExternalError::from),
            Adapter::RedisCache(cache) => cache.check(self.partitions).await.map_err(ExternalError::from),
            Adapter::Mysql(hot) => hot.check().await.map_err(ExternalError::from),
        };
        lock(&self.found).trouble = checked.as_ref().err().map(ToString::to_string);
        checked
    }

    pub fn report(&self) -> TierReport {
        let Found { used_bytes, limit_bytes, trouble } = lock(&self.found).clone();
        TierReport {
            tier: self.tier,
            kind: self.kind.name().to_owned(),
            holds: false,
            used_bytes,
            limit_bytes,
            trouble,
        }
    }

    async fn watch(&self) {
        loop {
            let was_troubled = lock(&self.found).trouble.is_some();
            let measured = if was_troubled { self.check().await } else { Ok(()) };
            let measured = match measured {
                Ok(()) => self.measure().await,
                Err(error) => Err(error),
            };
            let (tier, kind) = (self.tier.name(), self.kind.name());
            match &measured {
                Ok((used_bytes, limit_bytes)) => {
                    *lock(&self.found) = Found { used_bytes: *used_bytes, limit_bytes: *limit_bytes, trouble: None };
                    if was_troubled {
                        info!(tier, kind, "is there again");
                    }
                }
                Err(error) => {
                    lock(&self.found).trouble = Some(error.to_string());
                    if !was_troubled {
                        warn!(tier, kind, %error, "trouble");
                    }
                }
            }
            sleep(if measured.is_ok() { MEASURE_EVERY } else { LOOK_EVERY }).await;
        }
    }

    fn measure(&self) -> BoxFuture<'_, Measured> {
        async fn of_redis(store: &RedisStore) -> Measured {
            let servers = store.servers().await?;
            let limit = servers.iter().map(|server| server.limit_bytes).sum();
            Ok((Some(servers.iter().map(|server| server.used_bytes).sum()), Some(limit).filter(|limit| *limit > 0)))
        }
        async move {
            match &self.adapter {
                // Brokers do not say it in a way that all versions share; that they answer is worth knowing.
                Adapter::Kafka { settings, folder } => {
                    KafkaMq::check(settings, self.partitions, folder).await?;
                    Ok((None, None))
                }
                Adapter::RedisKv(kv) => of_redis(kv.store()).await,
                Adapter::RedisCache(cache) => of_redis(cache.store()).await,
                Adapter::Mysql(hot) => Ok((Some(hot.usage().await?.disk_bytes), None)),
            }
        }
        .boxed()
    }
}
