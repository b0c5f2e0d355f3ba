//! What a node's parts are made of, from its configuration: doors, identity, the state of HTTP handlers.
//!
//! Invariant: decides nothing; a role that the node lacks gets routes that say who has it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use actix_web::web::Data;

use super::captures::{self, Captures};
use super::http::Here;
use super::roles::Roles;
use super::tiers::Tiers;
use super::{Charge, NodeError};
use crate::admin::access::{Access, Token};
use crate::clock::Clock;
use crate::config::{Config, TokenSettings};
use crate::elsewhere_http::Elsewhere;
use crate::gate::gate_http::IngestState;
use crate::gate::offer_service::{self, Offers};
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::mode::{Mode, Modes, Tier};
use crate::model::task::{BootId, Role};
use crate::net::link::{Fingerprint, Identity, Peer};
use crate::net::peers::{Directories, Finder};
use crate::net::tcp_arrivals::LISTENS_AT;
use crate::net::whereabouts;
use crate::query::query_service::{self, QueryService};

pub fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let cannot = |source| NodeError::Listen { address, source, option: "--http" };
    let listener = TcpListener::bind(address).map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    Ok((listener, bound))
}

pub fn identity(
    config: &Config,
    catalog: &Catalog,
    charge: &Charge,
    boot: BootId,
    listen: SocketAddr,
    secrets: &Path,
) -> Result<Identity, NodeError> {
    let secret = config.cluster.secret.as_ref().map(|secret| secret.reveal(secrets)).transpose();
    let mut agreed = config.cluster.agreed();
    // Nodes that look elsewhere would neither find nor fence each other.
    agreed.extend(config.tiers.agreed());
    let sources = config.sources.iter().map(|source| format!("{} of {}", source.tables.join(", "), source.name));
    agreed.push(("[[source]] tables".to_owned(), sources.collect::<Vec<_>>().join("; ")));
    // Nodes that count otherwise would publish other results under the same names.
    agreed.push(("tables and metrics".to_owned(), catalog.fingerprint().to_string()));
    Ok(Identity {
        cluster: config.cluster.name.clone(),
        secret: secret.map_err(NodeError::Secret)?.unwrap_or_default().into_bytes(),
        agreed: Fingerprint::new(agreed),
        me: Peer {
            name: charge.name.to_string(),
            roles: charge.roles.iter().map(|role| role.name().to_owned()).collect(),
            addresses: vec![(LISTENS_AT.to_owned(), charge.told(listen))],
            boot: boot.into(),
        },
    })
}

pub fn ingest(
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

pub fn captures(
    config: &Config,
    catalog: &Catalog,
    secrets: &Path,
    tiers: &Tiers,
    (clock, metrics): (&Clock, &Metrics),
) -> Result<Captures, NodeError> {
    let (mq, clock, metrics) = (tiers.mq.clone(), clock.clone(), metrics.clone());
    let ground = captures::Ground { config, catalog, secrets, mq, clock, metrics };
    Captures::new(ground).map_err(|(name, source)| NodeError::Source { name, source })
}

pub fn query(
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
        cache: tiers.guarded.cache.clone(),
        hot: tiers.guarded.hot.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        modes: Arc::new(move || modes(&directories)),
        settings: config.query.clone(),
    })))
}

/// Where people reach the nodes of a role.
pub fn nodes_of(directories: Directories, role: Role) -> Arc<dyn Fn() -> Vec<String> + Send + Sync> {
    Arc::new(move || {
        let directory = directories.borrow();
        let addresses = whereabouts::living(&directory, role).filter_map(|node| node.http.as_ref());
        addresses.map(|address| format!("http://{address}")).collect()
    })
}

pub fn modes(directories: &Directories) -> Modes {
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

pub fn access(tokens: &[TokenSettings], folder: &Path) -> Result<Access, NodeError> {
    let reveal = |token: &TokenSettings| {
        let name = token.name.clone();
        match token.token.reveal(folder) {
            Ok(secret) => Ok(Token { name, secret, scopes: token.scopes.clone(), key: token.key.clone() }),
            Err(source) => Err(NodeError::Token { name, source }),
        }
    };
    Ok(Access::new(tokens.iter().map(reveal).collect::<Result<_, _>>()?))
}
