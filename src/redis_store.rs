//! Redis as a store of partitions: scripts and commands on one partition's keys, each within a deadline.
//!
//! Invariant: all keys of a partition carry it as hash tag, so that they are in one slot of a cluster and a script can
//! change them in one step. Whatever fails on the way is `Unavailable`: the outcome is unknown, and the tip tells.
//!
//! | key | value |
//! |---|---|
//! | `PREFIX:shape` | what the keys were made for; another number of partitions is refused |
//! | `PREFIX:{partition}:…` | the tier's own |

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, ErrorKind, Script, ServerErrorKind, Value, cmd};
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::warn;

use crate::model::codec::CodecError;
use crate::model::id::PartitionId;
pub use crate::redis_check::ServerInfo;
pub use crate::redis_dialer::RedisError;
use crate::redis_dialer::{Connection, Dialer};
use crate::redis_lane::Lane;
pub use crate::redis_settings::{RedisUrl, Settings};
use crate::tier::{TierError, TierUsage};

/// Calls that carry more have the long deadline.
const LONG_BYTES: usize = 4 << 20;

/// What a tier knows of its Redis.
pub struct RedisStore {
    tier: &'static str,
    settings: Settings,
    dialer: Arc<Dialer>,
    lanes: Vec<Arc<Lane>>,
    calls: Semaphore,
    long: Semaphore,
}

/// A script that servers run in one step.
pub struct Lua {
    code: &'static str,
    hash: String,
}

impl Lua {
    pub fn new(code: &'static str) -> Self {
        Self { code, hash: Script::new(code).get_hash().to_owned() }
    }
}

/// A script with what it is given.
pub struct Call<'a> {
    pub script: &'a Lua,
    pub keys: Vec<String>,
    pub args: Vec<Bytes>,
}

/// Why a call came to nothing.
enum Failure {
    /// The server does not know the script.
    NoScript,
    Other(String),
}

impl RedisStore {
    /// Reaches no server. Connections will live on the runtime that this is called in. `keeps_all`: the servers must not
    /// forget anything when they are full.
    pub fn new(tier: &'static str, settings: &Settings, keeps_all: bool, folder: &Path) -> Result<Self, RedisError> {
        if settings.prefix.is_empty() || settings.prefix.contains(['{', '}', ' ']) {
            let reason = format!("{:?} must be a name without braces and spaces", settings.prefix);
            return Err(RedisError::Setting { tier, key: "prefix", reason });
        }
        let dialer = Arc::new(Dialer::new(tier, settings, keeps_all, folder)?);
        let lane = |_| Lane::new(dialer.clone(), Handle::current(), settings.reconnect);
        let lanes = (0..settings.connections.max(1)).map(lane).collect();
        let places = |most: usize| Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS));
        let (calls, long) = (places(settings.calls_at_once), places(settings.long_at_once));
        Ok(Self { tier, settings: settings.clone(), dialer, lanes, calls, long })
    }

    /// Do the servers fit, and were the keys made for as many partitions? Says in the log what would be better.
    pub async fn check(&self, partitions: u16) -> Result<(), RedisError> {
        let servers = self.servers().await?;
        self.dialer.check(&servers)?;
        for advice in servers.iter().flat_map(|server| server.advice(self.dialer.need())) {
            warn!(tier = self.tier, "{advice}");
        }
        let (key, shape) = (format!("{}:shape", self.settings.prefix), format!("format 1, {partitions} partitions"));
        let mut found = self.shape(cmd("GET").arg(&key)).await?;
        if found.is_empty() {
            self.shape(cmd("SET").arg(&key).arg(&shape).arg("NX")).await?;
            found = self.shape(cmd("GET").arg(&key)).await?;
        }
        if !found.is_empty() && found != shape {
            let (prefix, address) = (&self.settings.prefix, self.dialer.address());
            let reason = format!(
                "the keys {prefix}:* in Redis at {address} were made for another cluster ({found}; this one: {shape}): give \
                 it another prefix"
            );
            return Err(RedisError::Misfit { tier: self.tier, reason });
        }
        Ok(())
    }

    async fn shape(&self, command: &Cmd) -> Result<String, RedisError> {
        match self.run(&self.lanes[0], command, self.settings.deadline.duration()).await {
            Ok(value) => crate::redis_reply::text(value).map_err(|error| self.dialer.unreachable(error)),
            Err(failure) => Err(self.dialer.unreachable(failure.reason())),
        }
    }

    /// What the primaries say of themselves, for status and doctor.
    pub async fn servers(&self) -> Result<Vec<ServerInfo>, RedisError> {
        let deadline = self.settings.deadline.duration();
        let asked = async {
            let (number, mut connection) = self.lanes[0].connection().await?;
            connection.servers().await.map_err(|error| {
                // The next who asks makes a new one.
                self.lanes[0].lost(number);
                self.dialer.unreachable(error)
            })
        };
        timeout(deadline, asked).await.map_err(|_| self.dialer.unreachable(late(deadline)))?
    }

    /// Memory of all primaries, whatever else they hold.
    pub async fn usage(&self) -> Result<TierUsage, TierError> {
        let servers = self.servers().await.map_err(|error| self.unavailable(error))?;
        Ok(TierUsage { disk_bytes: 0, memory_bytes: servers.iter().map(|server| server.used_bytes).sum() })
    }

    pub fn long_deadline(&self) -> Duration {
        self.settings.long_deadline.duration()
    }

    /// A place among the long works; await it within a deadline.
    pub async fn long_place(&self) -> Result<SemaphorePermit<'_>, TierError> {
        self.long.acquire().await.map_err(|error| self.unavailable(error))
    }

    pub fn key(&self, partition: PartitionId, name: &str) -> String {
        format!("{}:{{{partition}}}:{name}", self.settings.prefix)
    }

    pub fn unavailable(&self, reason: impl ToString) -> TierError {
        TierError::Unavailable { tier: self.tier, reason: reason.to_string() }
    }

    pub fn damaged(&self, partition: PartitionId, what: &str, source: CodecError) -> TierError {
        TierError::Damaged { tier: self.tier, place: format!("partition {partition} {what}"), source }
    }

    /// Runs a script, which Redis does in one step or, if its first write is refused, not at all.
    pub async fn eval(&self, partition: PartitionId, call: Call<'_>) -> Result<Value, TierError> {
        let bytes: usize = call.args.iter().map(Bytes::len).sum();
        let by_hash = call.command("EVALSHA", &call.script.hash);
        match self.ask(partition, &by_hash, bytes).await {
            // After a restart, and on a primary that was a replica until now.
            Err(Failure::NoScript) => {
                let whole = call.command("EVAL", call.script.code);
                drop(by_hash);
                self.ask(partition, &whole, bytes).await
            }
            done => done,
        }
        .map_err(|failure| self.unavailable(failure.reason()))
    }

    /// Runs a command; `bytes` are on their way, there or back.
    pub async fn command(&self, partition: PartitionId, command: &Cmd, bytes: usize) -> Result<Value, TierError> {
        self.ask(partition, command, bytes).await.map_err(|failure| self.unavailable(failure.reason()))
    }

    async fn ask(&self, partition: PartitionId, command: &Cmd, bytes: usize) -> Result<Value, Failure> {
        let lane = &self.lanes[usize::from(partition.0) % self.lanes.len()];
        let deadline = if bytes > LONG_BYTES { self.settings.long_deadline } else { self.settings.deadline };
        self.run(lane, command, deadline.duration()).await
    }

    async fn run(&self, lane: &Arc<Lane>, command: &Cmd, deadline: Duration) -> Result<Value, Failure> {
        let mut used = None;
        let asked = async {
            let _place = self.calls.acquire().await.map_err(|error| Failure::Other(error.to_string()))?;
            let connected = lane.connection().await;
            let (number, mut connection) = connected.map_err(|error| Failure::Other(error.to_string()))?;
            used = Some(number);
            connection.ask(command).await.map_err(|error| match error.kind() {
                ErrorKind::Server(ServerErrorKind::NoScript) => Failure::NoScript,
                kind => {
                    // A server that became a replica may have left its address to another.
                    let is_replica = kind == ErrorKind::Server(ServerErrorKind::ReadOnly);
                    let is_gone = is_replica || error.is_io_error() || error.is_unrecoverable_error();
                    match connection {
                        Connection::Server(_) if is_gone => lane.lost(number),
                        // One node of several.
                        Connection::Cluster(_) if is_gone => lane.suspect(number),
                        _ => {}
                    }
                    Failure::Other(error.to_string())
                }
            })
        };
        let done = timeout(deadline, asked).await;
        done.unwrap_or_else(|_| {
            if let Some(number) = used {
                lane.suspect(number);
            }
            Err(Failure::Other(late(deadline)))
        })
    }
}

fn late(deadline: Duration) -> String {
    format!("Redis did not answer within {} ms; whether it was done is not known", deadline.as_millis())
}

impl Failure {
    fn reason(self) -> String {
        match self {
            Self::NoScript => "Redis forgets its scripts at once".into(),
            Self::Other(reason) => reason,
        }
    }
}

impl Call<'_> {
    fn command(&self, name: &str, script: &str) -> Cmd {
        let sizes = self.keys.iter().map(String::len).chain(self.args.iter().map(Bytes::len));
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        let mut command = Cmd::with_capacity(count + 3, bytes + script.len() + 64);
        command.arg(name).arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for arg in &self.args {
            command.arg(&arg[..]);
        }
        command
    }
}
