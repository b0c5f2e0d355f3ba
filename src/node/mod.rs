//! A node: opens the tiers, starts the roles' actors, serves HTTP, and ends all of it well.
//!
//! Invariant: a node that is ready does all that it was given; a node that has stopped has lost nothing that it
//! acknowledged. `main` and tests build nodes the same way, alone or many.

mod captures;
mod charge;
mod cluster;
mod data_dir;
pub mod external;
mod http;
mod observe;
mod roles;
mod tiers;
mod wiring;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use thiserror::Error;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::admin_http::AdminState;
use crate::admin::door_http::Door;
use crate::admin::hub_service::Hub;
use crate::admin::readiness::Readiness;
use crate::clock::Clock;
use crate::config::{Loaded, SecretError};
use crate::gate::offer_service::OfferService;
use crate::lending::remote_store::RemoteStore;
use crate::master::master_service::{Master, MasterError, MasterParts};
use crate::member::member_service::{Mailbox, Member, MemberParts, Reporter, Settings as MemberSettings};
use crate::metrics::Metrics;
use crate::model::task::{BootId, NodeProfile, NodeState, Role};
use crate::model::units::Millis;
use crate::net::link::{Handler, Listening, Net, NetError};
use crate::net::peers::{Directories, Finder, Peers};
use crate::net::push_service::PushService;
use crate::net::service::{self, Services};
use crate::net::tcp::TcpNet;
use crate::net::whereabouts;
use crate::store::lender_service::Lender;
use crate::tier::TierError;
pub use charge::Charge;
use cluster::{Cluster, Decisions};
pub use data_dir::{DataDir, DataDirError};
use external::{ExternalError, Ground};
use http::HttpParts;
use observe::{Observed, Observer};
use roles::{Roles, Wanted};
use tiers::{Store, Tiers};

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
    #[error("[[source]] '{name}': password: {source}")]
    Source { name: String, source: SecretError },
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Master(#[from] MasterError),
    #[error(transparent)]
    Tier(#[from] TierError),
    #[error(transparent)]
    External(#[from] ExternalError),
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
            Self::Token { .. } | Self::Secret(_) | Self::Source { .. } => true,
            Self::Net(error) => of_net(error),
            Self::External(error) => error.is_config(),
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
/// How often a leaving node looks whether there is still somebody for its tasks.
const HEIRS_POLL: Duration = Duration::from_millis(100);
/// For the masters to hear that a node goes of its own will.
const FAREWELL: Duration = Duration::from_millis(1_500);

/// The machine's cores, as far as this process may use them.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Node {
    /// Starts the roles that it is charged with; needs a running actix `System`.
    pub async fn start(loaded: Loaded, charge: Charge, folder: &Path) -> Result<Self, NodeError> {
        let Loaded { config, catalog, folder: secrets } = loaded;
        let catalog = Arc::new(catalog);
        let access = wiring::access(&config.http.tokens, &secrets)?;
        let data = DataDir::open(folder, &config)?;
        let (listener, http) = wiring::bind(config.http.listen)?;
        let cannot = |source| NodeError::Listen { address: charge.listen, source, option: "--listen" };
        let reserved = charge.reserve().map_err(cannot)?;
        let (listen, boot) = (reserved.address, getrandom::u64().map_err(NodeError::Random)?);
        let masters = if charge.masters.is_empty() { vec![charge.told(listen)] } else { charge.masters.clone() };

        let (metrics, clock, readiness) = (Metrics::default(), Clock::System, Readiness::default());
        let (services, mailbox) = (Arc::new(Services::default()), Arc::new(Mailbox::default()));
        let identity = wiring::identity(&config, &catalog, &charge, boot, listen, &secrets)?;
        let net = TcpNet::new(identity, config.net.clone(), &secrets, clock.clone(), services.clone())?;
        let net: Arc<dyn Net> = Arc::new(net);
        let (peers, directories) = (Peers::new(net.clone(), config.net.connections), mailbox.directory());
        let finder = Finder { me: charge.name.clone(), directories: directories.clone(), peers: peers.clone() };
        let ground = Ground { config: &config, catalog: &catalog, secrets: &secrets, clock: &clock };
        let store = match charge.has(Role::Store) {
            true => Store::Here(data.path()),
            false => {
                let link = peers.to_store(directories.clone());
                Store::At(RemoteStore::new(link, config.tiers.remote.clone(), config.net.body))
            }
        };
        let tiers = Tiers::open(store, ground).await?;
        let captures = match charge.has(Role::Capture) {
            true => Some(wiring::captures(&config, &catalog, &secrets, &tiers, (&clock, &metrics))?),
            false => None,
        };
        let wanted =
            Wanted { gate: charge.has(Role::Gate), slave: charge.has(Role::Slave), captures: captures.clone() };
        let roles = Roles::start(&config, &catalog, &tiers, finder.clone(), wanted.clone(), (&clock, &metrics));
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
                    sources: config.sources.iter().map(|source| source.name.as_str().into()).collect(),
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
        if let Some(captures) = &captures {
            captures.know(&member);
        }
        let tasks = vec![
            actix_web::rt::spawn(observer.clone().sample()),
            actix_web::rt::spawn(peers.follow(directories.clone())),
            actix_web::rt::spawn(tiers.clone().watch()),
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
            ingest: wiring::ingest(&config, &catalog, &roles, finder, &metrics, wanted.gate),
            query: wiring::query(&config, &catalog, &tiers, &directories, (&clock, &metrics), charge.has(Role::Query)),
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
        self.leave().await;
        if tokio::time::timeout(self.stop_timeout, self.roles.stop_captures()).await.is_err() {
            warn!("not all captures ended in time; what they have not noted is read again");
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

    /// Tells the masters, and waits for its tasks to go to others, as long as there are some.
    async fn leave(&self) {
        if self.is_alone() {
            return;
        }
        let patience = if self.has_heirs() { self.stop_timeout } else { FAREWELL };
        let nobody_is_left = async {
            while self.has_heirs() {
                tokio::time::sleep(HEIRS_POLL).await;
            }
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            has_left = self.member.leave(patience) => {
                if !has_left {
                    warn!("not all tasks went to other nodes in time");
                }
            }
            () = nobody_is_left => {}
        }
    }

    fn is_alone(&self) -> bool {
        let directory = self.directories.borrow();
        directory.nodes.iter().all(|(profile, state)| profile.name == self.charge.name || *state == NodeState::Lost)
    }

    /// Are there others for its tasks? The one that holds embedded tiers takes them along: nobody could go on.
    fn has_heirs(&self) -> bool {
        let directory = self.directories.borrow();
        let stays = |(profile, state): &(NodeProfile, NodeState), role| {
            profile.name != self.charge.name && *state == NodeState::Alive && profile.roles.contains(&role)
        };
        let mut own = directory.tasks.iter().filter(|(_, who)| who.owner.as_ref() == Some(&self.charge.name));
        !self.tiers.holds_any() && own.any(|(task, _)| directory.nodes.iter().any(|node| stays(node, task.role())))
    }
}
