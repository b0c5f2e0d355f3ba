//! The configuration: what every key means, how the layers become one value, and what must fit together.
//!
//! Invariant: every default stands in `cluster.toml` and nowhere else; a `Config` that exists has been checked, its
//! catalog of tables and metrics included.

mod error;
mod layers;
pub mod secret;
mod tiers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use error::{ConfigError, Origin};
pub use layers::{Layers, Override, Source};
pub use secret::{Secret, SecretError};
pub use tiers::{CacheTier, HotTier, KvTier, MqTier, TierKind, TierSettings};

use crate::admin::access::{KeySetting, Scope};
use crate::backoff::Backoff;
use crate::capture::capture_service::captured;
use crate::capture::mysql_settings::SourceSettings;
use crate::model::catalog::{Catalog, CatalogError};
use crate::model::metric::{MetricConfig, MetricError};
use crate::model::schema::TableConfig;
use crate::model::units::Millis;
use crate::model::window::Calendar;
use crate::net::handshake::{MOST_NAME_BYTES, is_name};
use crate::{breaker, capture, gate, master, net, query, slave, store};
use error::{Path as KeyPath, Step, path};
use layers::Stretch;

/// The shipped configuration: the lowest layer, and the documentation of every key.
pub const DEFAULTS: &str = include_str!("../../cluster.toml");

/// The whole configuration. Sections of roles are the roles' own types.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub cluster: ClusterSettings,
    pub node: NodeSettings,
    pub net: net::settings::Settings,
    pub tiers: TierSettings,
    pub http: HttpSettings,
    pub gate: gate::settings::Settings,
    pub slave: slave::settings::Settings,
    pub query: query::settings::Settings,
    pub master: master::settings::Settings,
    pub store: store::settings::Settings,
    pub breaker: breaker::Settings,
    pub alerts: master::webhook_service::AlertSettings,
    pub capture: capture::settings::Settings,
    /// Databases whose changes are captured.
    #[serde(rename = "source", default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceSettings>,
    #[serde(rename = "table")]
    pub tables: Vec<TableConfig>,
    #[serde(rename = "metric")]
    pub metrics: Vec<MetricConfig>,
}

/// What all nodes of a cluster must agree on.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    pub name: String,
    pub partitions: u16,
    /// IANA name.
    pub timezone: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    pub masters: Vec<SocketAddr>,
}

impl ClusterSettings {
    /// What nodes compare when they meet: every key with its value, but the secret, which they have proved by then, and the
    /// masters, whose set may change while nodes run.
    pub fn agreed(&self) -> Vec<(String, String)> {
        let table = toml::Table::try_from(self).expect("plain values are TOML");
        table
            .into_iter()
            .filter(|(key, _)| key != "secret" && key != "masters")
            .map(|(key, value)| (key, value.to_string()))
            .collect()
    }
}

/// What one process spends and how it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// Where other nodes reach this one.
    pub listen: SocketAddr,
    /// How much this node is to be given, in proportion to the others.
    pub weight: u32,
    /// For partitions to write what they hold.
    pub stop_timeout: Millis,
    /// Before a crashed actor starts again.
    pub restart: Backoff,
}

/// The HTTP server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    /// Threads; 0: one per core.
    pub workers: usize,
    pub max_connections: usize,
    pub keep_alive: Millis,
    /// For a request's head to arrive.
    pub request_timeout: Millis,
    /// For open requests to end at shutdown.
    pub shutdown_timeout: Millis,
    /// Open at once: pages and scripts that watch the cluster.
    pub event_streams: usize,
    pub tokens: Vec<TokenSettings>,
}

/// A bearer token and what it may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// Names the token in logs and errors.
    pub name: String,
    pub token: Secret,
    pub scopes: Vec<Scope>,
    /// Binds a token with the one scope `query` to one partition-key value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeySetting>,
}

/// A checked configuration with its catalog.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub catalog: Catalog,
    /// Relative paths of secrets start here.
    pub folder: PathBuf,
}

impl Loaded {
    /// The defaults, then `file`, then the `HOLDFAST_SECTION__KEY` variables of this process, then `overrides`.
    pub fn from_process(file: Option<&Path>, overrides: Vec<Override>) -> Result<Self, ConfigError> {
        let source = file.map(Source::read).transpose()?;
        Self::new(Layers::new(source, std::env::vars_os()).with(overrides))
    }

    pub fn new(layers: Layers) -> Result<Self, ConfigError> {
        let merged = layers.merge()?;
        let config: Config = serde_path_to_error::deserialize(toml::Value::Table(merged)).map_err(|error| {
            let complaint = Complaint::new(KeyPath::from(error.path()), error.inner().message());
            layers.locate(&complaint.path, &complaint.reason, None)
        })?;
        let catalog =
            check(&config).map_err(|complaint| layers.locate(&complaint.path, &complaint.reason, complaint.within))?;
        Ok(Self { config, catalog, folder: layers.folder() })
    }
}

/// A place in the configuration with what is wrong there.
struct Complaint {
    path: KeyPath,
    reason: String,
    /// Of the text at `path`, what is meant.
    within: Option<Stretch>,
}

impl Complaint {
    fn new(path: KeyPath, reason: impl Into<String>) -> Self {
        Self { path, reason: reason.into(), within: None }
    }
}

/// Partitions beyond this cost more than they spread.
const MOST_PARTITIONS: u16 = 4096;

fn check(config: &Config) -> Result<Catalog, Complaint> {
    let cluster = &config.cluster;
    let complain = |keys, reason: String| Err(Complaint::new(path(keys), reason));
    if cluster.name.trim().is_empty() {
        return complain(["cluster", "name"], "the cluster needs a name".into());
    }
    if !(1..=MOST_PARTITIONS).contains(&cluster.partitions) {
        return complain(["cluster", "partitions"], format!("between 1 and {MOST_PARTITIONS} partitions are possible"));
    }
    if !matches!(cluster.masters.len(), 1 | 3 | 5) {
        return complain(["cluster", "masters"], "1, 3 or 5 masters make a majority".into());
    }
    if config.http.max_connections == 0 {
        return complain(["http", "max_connections"], "at least one connection is needed".into());
    }
    if !is_name(&cluster.name) {
        return complain(["cluster", "name"], format!("at most {MOST_NAME_BYTES} bytes without control characters"));
    }
    if let Some((key, reason)) = config.net.complaint() {
        return complain(["net", key], reason.into());
    }
    if let Err((key, reason)) = config.master.check() {
        return complain(["master", key], reason.into());
    }
    if let Err((key, reason)) = config.alerts.check() {
        return complain(["alerts", key], reason.into());
    }
    if let Some((tier, key, reason)) = config.tiers.complaint() {
        return Err(Complaint::new(path(["tiers", tier, key]), reason));
    }
    check_tokens(&config.http)?;
    let calendar = Calendar::new(&cluster.timezone)
        .map_err(|error| Complaint::new(path(["cluster", "timezone"]), error.to_string()))?;
    let mut catalog =
        Catalog::new(&config.tables, &config.metrics, calendar).map_err(|error| complaint_of(config, error))?;
    for (index, source) in config.sources.iter().enumerate() {
        add_source(config, index, source, &mut catalog).map_err(|(key, reason)| {
            let mut place = path(["source"]);
            place.0.extend([Step::Index(index), Step::Key(key.to_owned())]);
            Complaint::new(place, reason)
        })?;
    }
    Ok(catalog)
}

/// Rows that come by HTTP have this for a source ([`crate::model::id::SourceId::push`]).
const PUSHED: &str = "push";

/// An error is the source's key that is wrong, and why.
fn add_source(
    config: &Config,
    index: usize,
    source: &SourceSettings,
    catalog: &mut Catalog,
) -> Result<(), (&'static str, String)> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !(1..=MOST_NAME_BYTES).contains(&source.name.len()) || !source.name.chars().all(is_plain) {
        return Err(("name", format!("1 to {MOST_NAME_BYTES} letters, digits, hyphens, dots and underscores")));
    }
    if source.name == PUSHED {
        return Err(("name", format!("'{PUSHED}' is what rows are from that come by HTTP")));
    }
    if config.sources[..index].iter().any(|other| other.name == source.name) {
        return Err(("name", format!("two sources are named '{}'", source.name)));
    }
    for captured in captured(source, catalog)? {
        let name = captured.table.name.clone();
        if let Some(stream) = catalog.stream(&name) {
            return Err(("tables", format!("the rows of '{name}' come from {stream} already")));
        }
        catalog.capture(name, format!("{}/{}", source.name, captured.source()).into());
    }
    Ok(())
}

fn check_tokens(http: &HttpSettings) -> Result<(), Complaint> {
    for (index, token) in http.tokens.iter().enumerate() {
        let complain = |key: &str, reason: &str| {
            let mut place = path(["http", "tokens"]);
            place.0.extend([Step::Index(index), Step::Key(key.to_owned())]);
            Err(Complaint::new(place, reason))
        };
        if token.scopes.is_empty() {
            return complain("scopes", "a token without a scope may do nothing");
        }
        if token.key.is_some() && token.scopes != [Scope::Query] {
            return complain("key", "only a token with the one scope \"query\" can be bound to a key");
        }
    }
    if http.tokens.is_empty() && !http.listen.ip().is_loopback() {
        let reason = format!(
            "{} can be reached from other machines, where every request needs a token, and there are no tokens; add \
             [[http.tokens]] or listen on 127.0.0.1",
            http.listen
        );
        return Err(Complaint::new(path(["http", "listen"]), reason));
    }
    Ok(())
}

/// The key of a definition that the catalog refuses, and the place in its text.
fn complaint_of(config: &Config, error: CatalogError) -> Complaint {
    let entry = |list: &str, index: Option<usize>, field: &str| {
        let mut place = path([list]);
        place.0.extend(index.map(Step::Index));
        place.0.push(Step::Key(field.to_owned()));
        place
    };
    match error {
        // The last of that name: of two, the second is the one too many.
        CatalogError::Table(error) => {
            let index = config.tables.iter().rposition(|table| table.name == error.table);
            let mut place = entry("table", index, error.field);
            let columns = index.map(|index| &config.tables[index].columns).filter(|_| error.field == "columns");
            let meant = |name: &&String| error.reason.contains(&format!("'{name}'"));
            place.0.extend(columns.and_then(|columns| columns.keys().find(meant)).map(|name| Step::Key(name.clone())));
            Complaint::new(place, error.reason)
        }
        CatalogError::Metric { metric, field, error } => {
            let index = config.metrics.iter().rposition(|candidate| candidate.name == metric);
            let mut place = entry("metric", index, field);
            let MetricError::Sql(error) = error else {
                return Complaint::new(place, error.to_string());
            };
            let selects = index.map_or(&[][..], |index| &config.metrics[index].select);
            if let Some(item) = selects.iter().position(|item| field == "select" && *item == error.text) {
                place.0.push(Step::Index(item));
            }
            let within = Some(Stretch { line: error.line, column: error.column });
            Complaint { path: place, reason: error.message, within }
        }
    }
}
