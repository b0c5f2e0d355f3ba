//! A node: opens the tiers, starts the roles' actors, serves HTTP, and ends all of it well.
//!
//! Invariant: a node that is ready does all that it was given; a node that has stopped has lost nothing that it
//! acknowledged. `main` and tests build nodes the same way, alone or many.

mod charge;
mod cluster;
mod data_dir;
mod http;
mod observe;
mod roles;
mod tiers;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::access::{Access, Token};
use crate::admin::admin_http::AdminState;
use crate::admin::door_http::Door;
use crate::admin::hub_service::Hub;
use crate::admin::readiness::Readiness;
use crate::clock::Clock;
use crate::config::{Config, Loaded, SecretError};
use crate::elsewhere_http::Elsewhere;
use crate::gate::gate_http::IngestState;
use crate::gate::offer_service::{self, OfferService, Offers};
use crate::master::master_service::{Master, MasterError, MasterParts};
use crate::member::member_service::{Mailbox, Member, MemberParts, Reporter, Settings as MemberSettings};
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::mode::{Mode, Modes, Tier};
use crate::model::task::{BootId, NodeState, Role};
use crate::model::units::Millis;
use crate::net::link::{Fingerprint, Handler, Identity, Listening, Net, NetError, Peer};
use crate::net::peers::{Directories, Finder, Peers};
use crate::net::push_service::PushService;
use crate::net::service::{self, Services};
use crate::net::tcp::TcpNet;
use crate::net::whereabouts;
use crate::query::query_service::{self, QueryService};
use crate::store::lender_service::Lender;
use crate::tier::TierError;
pub use charge::Charge;
use cluster::{Cluster, Decisions};
pub use data_dir::{DataDir, DataDirError};
use http::{Here, HttpParts};
use observe::{Observed, Observer};
use roles::{Roles, Wanted};
use tiers::Tiers;

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum NodeError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("cannot listen on {address}: {source}{}", advice(source, option))]
    Listen { address: SocketAddr, source: io::Error, option: &'static str },
    #[error("token '{name}': {source}")]
    Token { name: String, source: SecretError },
    #[error("[cluster] secret: {0}")]
    Secret(SecretError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Master(#[from] MasterError),
    #[error(transparent)]
    Tier(#[from] TierError),
    #[error("the system gave no thread: {0}")]
    Thread(io::Error),
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

fn advice(error: &io::Error, option: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("; is another holdfast running? choose another port with {option}"),
        io::ErrorKind::PermissionDenied => "; ports below 1024 need rights".to_owned(),
        _ => String::new(),
    }
}

impl NodeError {
    /// Is it the configuration that must change?
    pub fn is_config(&self) -> bool {
        let of_net = |error: &NetError| {
            matches!(error, NetError::Insecure { .. } | NetError::Name { .. } | NetError::Tls { .. })
        };
        match self {
            Self::Token { .. } | Self::Secret(_) => true,
            Self::Net(error) => of_net(error),
            _ => false,
        }
    }
}

/// A running node.
pub struct Node {
    http: SocketAddr,
    listen: SocketAddr,
    charge: Charge,
    data: DataDir,
    readiness: Readiness,
    observer: Arc<Observer>,
    directories: Directories,
    boot: BootId,
    member: Arc<Member>,
    master: Option<Master>,
    roles: Roles,
    tiers: Tiers,
    server: ServerHandle,
    serving: JoinHandle<io::Result<()>>,
    tasks: Vec<JoinHandle<()>>,
    _listening: Listening,
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
    /// Starts the roles that it is charged with; needs a running actix `System`.
    pub async fn start(loaded: Loaded, charge: Charge, folder: &Path) -> Result<Self, NodeError> {
        let Loaded { config, catalog, folder: secrets } = loaded;
        let catalog = Arc::new(catalog);
        let access = access(&config.http.tokens, &secrets)?;
        let data = DataDir::open(folder, &config)?;
        let (listener, http) = bind(config.http.listen)?;
        let cannot = |source| NodeError::Listen { address: charge.listen, source, option: "--listen" };
        let reserved = charge.reserve().map_err(cannot)?;
        let (listen, boot) = (reserved.address, getrandom::u64().map_err(NodeError::Random)?);
        let masters = if charge.masters.is_empty() { vec![charge.told(listen)] } else { charge.masters.clone() };

        let (metrics, clock, readiness) = (Metrics::default(), Clock::System, Readiness::default());
        let (services, mailbox) = (Arc::new(Services::default()), Arc::new(Mailbox::default()));
        let identity = identity(&config, &catalog, &charge, boot, &secrets)?;
        let net = TcpNet::new(identity, config.net.clone(), &secrets, clock.clone(), services.clone())?;
        let net: Arc<dyn Net> = Arc::new(net);
        let (peers, directories) = (Peers::new(net.clone(), config.net.connections), mailbox.directory());
        let finder = Finder { me: charge.name.clone(), directories: directories.clone(), peers: peers.clone() };
        let tiers = match charge.has(Role::Store) {
            true => Tiers::open(data.path(), &config)?,
            false => Tiers::borrow(peers.to_store(directories.clone()), &config),
        };
        let wanted = Wanted { gate: charge.has(Role::Gate), slave: charge.has(Role::Slave) };
        let roles = Roles::start(&config, &catalog, &tiers, finder.clone(), wanted, (&clock, &metrics));
        let master = match charge.has(Role::Master) {
            true => Some(
                Master::start(MasterParts {
                    settings: config.master.clone(),
                    alerts: config.alerts.clone(),
                    cluster: config.cluster.name.clone(),
                    folder: data.path().join("master"),
                    name: charge.name.clone(),
                    me: charge.told(listen),
                    masters: masters.clone(),
                    partitions: config.cluster.partitions,
                    fingerprint: catalog.fingerprint(),
                    net: net.clone(),
                    clock: clock.clone(),
                    metrics: metrics.clone(),
                })
                .await?,
            ),
            false => None,
        };

        let mut handlers: BTreeMap<u16, Arc<dyn Handler>> = BTreeMap::new();
        handlers.insert(service::MEMBER, mailbox.clone());
        handlers.extend(master.iter().flat_map(Master::handlers));
        if charge.has(Role::Store) {
            let lent = tiers.lent(config.cluster.partitions);
            let lender = Lender::start(lent, config.store.clone(), config.net.body).map_err(NodeError::Thread)?;
            handlers.insert(service::STORE, lender);
        }
        if wanted.slave {
            handlers.insert(service::PUSH, Arc::new(PushService { here: roles.owners.clone() }));
        }
        if wanted.gate {
            let offers = OfferService { catalog: catalog.clone(), gates: roles.gate_directory.gates() };
            handlers.insert(service::OFFER, Arc::new(offers));
        }
        services.set(handlers);
        let listening = net.listen(&reserved.release().to_string()).await?;

        let observer = Arc::new(Observer::new(Observed {
            me: charge.name.clone(),
            roles: roles.clone(),
            tiers: tiers.clone(),
            directories: directories.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        }));
        let reporter: Reporter = {
            let observer = observer.clone();
            Arc::new(move || {
                let observer = observer.clone();
                Box::pin(async move { observer.report().await })
            })
        };
        let member = Arc::new(Member::start(
            &mailbox,
            MemberParts {
                profile: charge.profile(&config, boot, listen, http),
                masters,
                settings: MemberSettings {
                    heartbeat: config.master.node_heartbeat,
                    reclaim: Millis(config.master.handover.0 * 2),
                },
                net,
                tasks: Arc::new(roles.clone()),
                reporter,
                clock: clock.clone(),
            },
        ));
        let tasks = vec![
            actix_web::rt::spawn(observer.clone().sample()),
            actix_web::rt::spawn(peers.follow(directories.clone())),
        ];

        let cluster = Arc::new(Cluster {
            me: charge.name.clone(),
            config: config.clone(),
            member: member.clone(),
            observer: observer.clone(),
            readiness: readiness.clone(),
            clock: clock.clone(),
            alone_since_ms: Mutex::default(),
        });
        let view = Arc::new(move || {
            let cluster = cluster.clone();
            Box::pin(async move { cluster.view().await }) as futures::future::BoxFuture<'static, _>
        });
        let hub = Hub::new(view.clone(), readiness.clone(), config.http.event_streams);
        let admin = AdminState {
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            view,
            hub,
            masters: Arc::new(Decisions(member.clone())),
        };
        let parts = HttpParts {
            door: Arc::new(Door { access, readiness: readiness.clone() }),
            admin: Data::new(admin),
            ingest: ingest(&config, &catalog, &roles, finder, &metrics, wanted.gate),
            query: query(&config, &catalog, &tiers, &directories, (&clock, &metrics), charge.has(Role::Query)),
        };
        let server = http::serve(listener, &config.http, parts).map_err(|source| NodeError::Listen {
            address: http,
            source,
            option: "--http",
        })?;
        let (server, serving) = (server.handle(), actix_web::rt::spawn(server));
        info!(name = %charge.name, %http, %listen, data = %data.path().display(), "node started");
        let stop_timeout = config.node.stop_timeout.duration();
        Ok(Self {
            http,
            listen,
            charge,
            data,
            readiness,
            observer,
            directories,
            boot,
            member,
            master,
            roles,
            tiers,
            server,
            serving,
            tasks,
            _listening: listening,
            stop_timeout,
        })
    }

    /// Where people reach the node.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where other nodes reach it.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    pub fn data(&self) -> PathBuf {
        self.data.path().to_owned()
    }

    /// Resolves when everything that the masters gave to this node has caught up and published.
    pub async fn ready(&self) {
        while !(self.is_settled() && self.observer.is_caught_up().await) {
            tokio::time::sleep(READY_POLL).await;
        }
        self.readiness.set_running();
    }

    /// Do the masters know this process, and has every task that it could do an owner?
    fn is_settled(&self) -> bool {
        let directory = self.directories.borrow();
        let is_known = whereabouts::node(&directory, &self.charge.name)
            .is_some_and(|(profile, state)| profile.boot == self.boot && *state != NodeState::Lost);
        let mut own = directory.tasks.iter().filter(|(task, _)| self.charge.has(task.role()));
        is_known && !directory.tasks.is_empty() && own.all(|(_, who)| who.owner.is_some())
    }

    /// Resolves if another process has taken this one's name: then it does nothing any more.
    pub async fn displaced(&self) {
        self.member.displaced().await;
    }

    /// Ends well: no more rows come in, tasks go to others where there are some, gates finish, slaves publish and save, open
    /// requests end, tiers are flushed. What does not end in time is replayed by whoever comes next.
    pub async fn stop(self) {
        self.readiness.set_stopping();
        if self.can_leave() && !self.member.leave(self.stop_timeout).await {
            warn!("not all tasks went to other nodes in time");
        }
        let drained = async {
            while !self.observer.is_drained().await {
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
        self.tasks.iter().for_each(JoinHandle::abort);
        if tokio::time::timeout(self.stop_timeout, self.roles.stop_gates()).await.is_err() {
            warn!("not all gates ended in time");
        }
        if let Some(master) = self.master {
            master.stop().await;
        }
        if let Err(error) = self.tiers.flush().await {
            warn!(%error, "a tier was not flushed");
        }
        info!("node stopped");
    }

    /// Are there others for its tasks? The one that holds the tiers takes them along: nobody could go on.
    fn can_leave(&self) -> bool {
        let directory = self.directories.borrow();
        let others = |role| whereabouts::living(&directory, role).any(|profile| profile.name != self.charge.name);
        let mut own = directory.tasks.iter().filter(|(_, who)| who.owner.as_ref() == Some(&self.charge.name));
        !self.charge.has(Role::Store) && own.any(|(task, _)| others(task.role()))
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let cannot = |source| NodeError::Listen { address, source, option: "--http" };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    Ok((listener, bound))
}

fn identity(
    config: &Config,
    catalog: &Catalog,
    charge: &Charge,
    boot: BootId,
    secrets: &Path,
) -> Result<Identity, NodeError> {
    let secret = config.cluster.secret.as_ref().map(|secret| secret.reveal(secrets)).transpose();
    let mut agreed = config.cluster.agreed();
    // Nodes that count otherwise would publish other results under the same names.
    agreed.push(("tables and metrics".to_owned(), catalog.fingerprint().to_string()));
    Ok(Identity {
        cluster: config.cluster.name.clone(),
        secret: secret.map_err(NodeError::Secret)?.unwrap_or_default().into_bytes(),
        agreed: Fingerprint::new(agreed),
        me: Peer {
            name: charge.name.to_string(),
            roles: charge.roles.iter().map(|role| role.name().to_owned()).collect(),
            addresses: Vec::new(),
            boot: boot.into(),
        },
    })
}

fn ingest(
    config: &Config,
    catalog: &Arc<Catalog>,
    roles: &Roles,
    finder: Finder,
    metrics: &Metrics,
    is_gate: bool,
) -> Here<IngestState> {
    if !is_gate {
        return Here::No(Elsewhere::rows(nodes_of(finder.directories, Role::Gate)));
    }
    let elsewhere = offer_service::Elsewhere { finder, body_bytes: config.net.body.bytes() };
    let offers = Offers::new(roles.gate_directory.gates(), Some(elsewhere), config.gate.publish_timeout);
    let settings = Arc::new(config.gate.clone());
    Here::Yes(Data::new(IngestState::new(
        catalog.clone(),
        config.cluster.partitions,
        offers,
        settings,
        metrics.clone(),
    )))
}

fn query(
    config: &Config,
    catalog: &Arc<Catalog>,
    tiers: &Tiers,
    directories: &Directories,
    (clock, metrics): (&Clock, &Metrics),
    is_query: bool,
) -> Here<QueryService> {
    if !is_query {
        return Here::No(Elsewhere::queries(nodes_of(directories.clone(), Role::Query)));
    }
    let directories = directories.clone();
    Here::Yes(Data::new(QueryService::new(query_service::Parts {
        catalog: catalog.clone(),
        partitions: config.cluster.partitions,
        cache: tiers.cache.clone(),
        hot: tiers.hot.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        modes: Arc::new(move || modes(&directories)),
        settings: config.query.clone(),
    })))
}

/// Where people reach the nodes of a role.
fn nodes_of(directories: Directories, role: Role) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
    Arc::new(move || {
        let directory = directories.borrow();
        let addresses = whereabouts::living(&directory, role).filter_map(|node| node.http.as_ref());
        addresses.map(|address| format!("http://{address}")).collect()
    })
}

fn modes(directories: &Directories) -> Modes {
    let directory = directories.borrow();
    let mode = |tier| directory.modes.iter().find(|(candidate, _)| *candidate == tier).map_or(Mode::Normal, |it| it.1);
    Modes {
        mq: mode(Tier::Mq),
        kv: mode(Tier::Kv),
        hot: mode(Tier::Hot),
        cache: mode(Tier::Cache),
        cold: mode(Tier::Cold),
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
