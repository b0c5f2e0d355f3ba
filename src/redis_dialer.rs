//! Makes connections to a Redis server or cluster, and looks at the servers before anything is entrusted to them.
//!
//! Invariant: a connection to a single server led to one that fits. A cluster's nodes come and go, also those that are away
//! while it is dialed: they are looked at when the tier is opened.

use std::path::Path;

use ::redis::aio::MultiplexedConnection;
use ::redis::cluster::ClusterClient;
use ::redis::cluster_async::ClusterConnection;
use ::redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisResult,
    TlsCertificates, Value, cmd,
};
use thiserror::Error;
use tokio::time::timeout;

use crate::config::secret::SecretError;
use crate::redis_check::{Need, ServerInfo};
use crate::redis_reply as reply;
use crate::redis_settings::Settings;

/// Why Redis cannot be used.
#[derive(Debug, Clone, Error)]
pub enum RedisError {
    #[error("{tier}: redis {key}: {reason}")]
    Setting { tier: &'static str, key: &'static str, reason: String },
    #[error("{tier}: cannot reach Redis at {address}: {reason}")]
    Unreachable { tier: &'static str, address: String, reason: String },
    #[error("{tier}: {reason}")]
    Misfit { tier: &'static str, reason: String },
}

impl RedisError {
    /// May it pass without anybody changing anything?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// To a server, or to all servers of a cluster. Clones share it.
#[derive(Clone)]
pub enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub async fn ask(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// What its primaries say of themselves.
    pub async fn servers(&mut self) -> RedisResult<Vec<ServerInfo>> {
        match self {
            Self::Server(connection) => {
                let info: String = cmd("INFO").query_async(connection).await?;
                Ok(vec![ServerInfo::parse("", &info)])
            }
            Self::Cluster(connection) => {
                let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let answers = connection.route_command(cmd("INFO"), primaries).await?;
                let Value::Map(answers) = answers else { return Ok(Vec::new()) };
                let server = |(address, info)| {
                    let (address, info) = (reply::text(address).ok()?, reply::text(info).ok()?);
                    Some(ServerInfo::parse(&address, &info))
                };
                Ok(answers.into_iter().filter_map(server).collect())
            }
        }
    }
}

enum Way {
    Server(Client),
    Cluster(ClusterClient),
}

/// Knows the way to the servers.
pub struct Dialer {
    tier: &'static str,
    way: Way,
    settings: Settings,
    need: Need,
    /// Without credentials.
    address: String,
}

impl Dialer {
    /// Relative files start at `folder`. Reads secret and authority; reaches no server.
    pub fn new(tier: &'static str, settings: &Settings, keeps_all: bool, folder: &Path) -> Result<Self, RedisError> {
        let wrong = |key, reason: String| RedisError::Setting { tier, key, reason };
        let mut nodes = Vec::with_capacity(settings.urls.len());
        for url in &settings.urls {
            nodes.push(node(settings, url.reveal(), folder).map_err(|(key, reason)| wrong(key, reason))?);
        }
        let Some(first) = nodes.first() else {
            return Err(wrong("urls", "there is none; redis://HOST:PORT of a server".into()));
        };
        let address = nodes.iter().map(|node| node.addr().to_string()).collect::<Vec<_>>().join(", ");
        let authority = match &settings.authority {
            None => None,
            Some(file) => {
                let file = folder.join(file);
                let pem = std::fs::read(&file);
                let pem =
                    pem.map_err(|error| wrong("authority", format!("cannot read {}: {error}", file.display())))?;
                Some(TlsCertificates { client_tls: None, root_cert: Some(pem) })
            }
        };
        if authority.is_some() && !matches!(first.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(wrong("authority", "it is for TLS, and the urls are not rediss://".into()));
        }
        let need = Need { keeps_all, cluster: nodes.len() > 1 };
        let way = if need.cluster { cluster(settings, nodes, authority) } else { server(first.clone(), authority) };
        let way = way.map_err(|error| wrong("urls", error.to_string()))?;
        Ok(Self { tier, way, settings: settings.clone(), need, address })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn need(&self) -> Need {
        self.need
    }

    pub fn unreachable(&self, reason: impl ToString) -> RedisError {
        RedisError::Unreachable { tier: self.tier, address: self.address.clone(), reason: reason.to_string() }
    }

    /// Connects and looks at the servers.
    pub async fn dial(&self) -> Result<Connection, RedisError> {
        // A cluster's nodes that are away cost up to two attempts to connect.
        let limit = self.settings.connect_timeout.duration() * 4;
        let late = |_| self.unreachable(format!("no connection within {} ms", limit.as_millis()));
        timeout(limit, self.dial_now()).await.map_err(late)?
    }

    async fn dial_now(&self) -> Result<Connection, RedisError> {
        let connect_timeout = self.settings.connect_timeout.duration();
        let mut connection = match &self.way {
            Way::Server(client) => {
                let config = AsyncConnectionConfig::new();
                // Each call has a deadline of its own.
                let config = config.set_connection_timeout(Some(connect_timeout)).set_response_timeout(None);
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::Server)
            }
            Way::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
        }
        .map_err(|error| self.refused(&error))?;
        if !self.need.cluster {
            let servers = connection.servers().await.map_err(|error| self.unreachable(error))?;
            self.check(&servers)?;
        }
        Ok(connection)
    }

    fn refused(&self, error: &::redis::RedisError) -> RedisError {
        match error.to_string() {
            said if said.contains("cluster support disabled") => RedisError::Misfit {
                tier: self.tier,
                reason: format!("{} are no cluster, which several urls mean: give one url ({said})", self.address),
            },
            said => self.unreachable(said),
        }
    }

    pub fn check(&self, servers: &[ServerInfo]) -> Result<(), RedisError> {
        match servers.iter().find_map(|server| server.misfit(self.need)) {
            Some(reason) => {
                Err(RedisError::Misfit { tier: self.tier, reason: format!("{} ({})", reason, self.address) })
            }
            None => Ok(()),
        }
    }
}

/// A server's address with who we are to it.
fn node(settings: &Settings, url: &str, folder: &Path) -> Result<ConnectionInfo, (&'static str, String)> {
    let info = url.into_connection_info().map_err(|error| ("urls", error.to_string()))?;
    let mut access = info.redis_settings().clone();
    if let Some(user) = &settings.user {
        access = access.set_username(user);
    }
    if let Some(password) = &settings.password {
        let password = password.reveal(folder).map_err(|error: SecretError| ("password", error.to_string()))?;
        access = access.set_password(password);
    }
    Ok(info.set_redis_settings(access).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

fn server(node: ConnectionInfo, authority: Option<TlsCertificates>) -> RedisResult<Way> {
    let client = match authority {
        None => Client::open(node),
        Some(authority) => Client::build_with_tls(node, authority),
    };
    client.map(Way::Server)
}

fn cluster(settings: &Settings, nodes: Vec<ConnectionInfo>, authority: Option<TlsCertificates>) -> RedisResult<Way> {
    let mut builder = ClusterClient::builder(nodes)
        .tcp_settings(TcpSettings::default().set_nodelay(true))
        .connection_timeout(settings.connect_timeout.duration())
        // Each call has a deadline of its own. This one must never come first: the client would say the call once more.
        .response_timeout(settings.long_deadline.duration() * 2)
        .overall_response_timeout(None)
        // For MOVED, ASK, TRYAGAIN and a node that has just gone; the deadline ends them.
        .retries(4)
        .min_retry_wait(20)
        .max_retry_wait(200);
    if let Some(authority) = authority {
        builder = builder.certs(authority);
    }
    builder.build().map(Way::Cluster)
}
