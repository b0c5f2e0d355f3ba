//! A node: opens the tiers, starts the roles' actors, serves HTTP, and ends all of it well.
//!
//! Invariant: a node that is ready serves every partition; a node that has stopped has lost nothing that it
//! acknowledged. `main` and tests build nodes the same way.

mod alone;
mod data_dir;
mod http;
mod observe;
mod roles;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::access::{Access, Token};
use crate::admin::admin_http::AdminState;
use crate::admin::admin_state::ViewSource;
use crate::admin::door_http::Door;
use crate::admin::hub_service::Hub;
use crate::admin::readiness::Readiness;
use crate::clock::Clock;
use crate::config::{Loaded, SecretError};
use crate::gate::gate_http::IngestState;
use crate::gate::offer_service::Offers;
use crate::metrics::Metrics;
use crate::model::mode::Modes;
use crate::query::query_service::{self, QueryService};
use crate::tier::TierError;
pub use data_dir::{DataDir, DataDirError};
use http::HttpParts;
use observe::Observer;
use roles::{Roles, Tiers};

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum NodeError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("cannot listen on {address}: {source}{}", advice(source))]
    Listen { address: SocketAddr, source: io::Error },
    #[error("token '{name}': {source}")]
    Token { name: String, source: SecretError },
    #[error(transparent)]
    Tier(#[from] TierError),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; is another holdfast running? choose another port with --http",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need rights",
        _ => "",
    }
}

impl NodeError {
    /// Is it the configuration that must change?
    pub fn is_config(&self) -> bool {
        matches!(self, Self::Token { .. })
    }
}

/// A running node.
pub struct Node {
    http: SocketAddr,
    data: DataDir,
    readiness: Readiness,
    observer: Arc<Observer>,
    roles: Arc<Roles>,
    server: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
    sampling: JoinHandle<()>,
    stop_timeout: Duration,
}

/// How often a starting node looks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(10);
/// How often a stopping node looks whether its gates are drained.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// The machine's cores, as far as this process may use them.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Node {
    /// Starts all roles; needs a running actix `System`.
    pub async fn start(loaded: Loaded, folder: &Path) -> Result<Self, NodeError> {
        let Loaded { config, catalog, folder: secrets } = loaded;
        let catalog = Arc::new(catalog);
        let access = access(&config.http.tokens, &secrets)?;
        let data = DataDir::open(folder, &config)?;
        let listen = |source| NodeError::Listen { address: config.http.listen, source };
        let listener = TcpListener::bind(config.http.listen).map_err(listen)?;
        let http = listener.local_addr().map_err(listen)?;

        let (metrics, clock, readiness) = (Metrics::default(), Clock::System, Readiness::default());
        let tiers = Tiers::open(data.path(), &config)?;
        let query = QueryService::new(query_service::Parts {
            catalog: catalog.clone(),
            partitions: config.cluster.partitions,
            cache: tiers.cache.clone(),
            hot: tiers.hot.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            modes: Arc::new(Modes::default),
            settings: config.query.clone(),
        });
        let roles = Arc::new(Roles::start(&config, &catalog, tiers, data.epoch, &clock, &metrics).await);
        let observer = Arc::new(Observer::new(&config, http, data.epoch, roles.clone(), &clock, &metrics, &readiness));
        let sampling = actix_web::rt::spawn(observer.clone().sample());

        let view: ViewSource = {
            let observer = observer.clone();
            Arc::new(move || observer.clone().view())
        };
        let hub = Hub::new(view.clone(), readiness.clone(), config.http.event_streams);
        let masters = Arc::new(alone::NoMasters);
        let offers = Offers::new(roles.gates(), None, config.gate.publish_timeout);
        let settings = Arc::new(config.gate.clone());
        let ingest = IngestState::new(catalog, config.cluster.partitions, offers, settings, metrics.clone());
        let parts = HttpParts {
            door: Arc::new(Door { access, readiness: readiness.clone() }),
            admin: Data::new(AdminState { readiness: readiness.clone(), metrics, view, hub, masters }),
            ingest: Data::new(ingest),
            query: Data::new(query),
        };
        let server = http::serve(listener, &config.http, parts).map_err(listen)?;
        let (server, serving) = (server.handle(), actix_web::rt::spawn(server));
        info!(%http, data = %data.path().display(), epoch = data.epoch, "node started");
        let stop_timeout = config.node.stop_timeout.duration();
        Ok(Self { http, data, readiness, observer, roles, server, serving, sampling, stop_timeout })
    }

    /// Where the node listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    pub fn data(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    /// Resolves when every partition has caught up and published.
    pub async fn ready(&self) {
        while !self.observer.clone().is_caught_up().await {
            tokio::time::sleep(READY_POLL).await;
        }
        self.readiness.set_running();
    }

    /// Ends well: no more rows come in, gates finish, slaves publish and save, open requests end, tiers are flushed.
    /// What does not end in time is replayed at the next start.
    pub async fn stop(self) {
        self.readiness.set_stopping();
        let drained = async {
            while !self.observer.clone().is_drained().await {
                tokio::time::sleep(DRAIN_POLL).await;
            }
            self.roles.stop_slaves().await;
        };
        if tokio::time::timeout(self.stop_timeout, drained).await.is_err() {
            warn!("not all partitions ended in time; what they have not written is replayed at the next start");
        }
        self.server.stop(true).await;
        if let Ok(Err(error)) = self.serving.await {
            warn!(%error, "the HTTP server did not end well");
        }
        self.sampling.abort();
        if let Err(error) = self.roles.end().await {
            warn!(%error, "a tier was not flushed");
        }
        info!("node stopped");
    }
}

fn access(tokens: &[crate::config::TokenSettings], folder: &Path) -> Result<Access, NodeError> {
    let reveal = |token: &crate::config::TokenSettings| {
        let name = token.name.clone();
        match token.token.reveal(folder) {
            Ok(secret) => Ok(Token { name, secret, scopes: token.scopes.clone(), key: token.key.clone() }),
            Err(source) => Err(NodeError::Token { name, source }),
        }
    };
    Ok(Access::new(tokens.iter().map(reveal).collect::<Result<_, _>>()?))
}
