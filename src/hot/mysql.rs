//! The hot tier in MySQL or MariaDB: one table per metric table with plain columns, which anybody may read with SQL.
//!
//! Calls run on a thread of this adapter's own, so that connections do not wait for a role that computes, and a call that
//! was begun ends in order though its caller is gone. Statements are of what MySQL 5.7, 8 and 9 and MariaDB share: so `values()`
//! in upserts, which MySQL deprecates since 8.0.20 (a warning, that nobody fetches), and for which MariaDB has nothing else.
//!
//! Invariant: every call ends by its deadline; after one whose outcome is unknown it is `Unavailable`, and its connection
//! is never used again. What other programs read is as whole as `Sink::read`, but for an emission under way.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::mysql_cleaning as cleaning;
use super::mysql_fault::{Fault, Remedy, TIER};
use super::mysql_migration::{Prepared, make_database, prepare};
use super::mysql_read as reading;
use super::mysql_settings::Settings;
use super::mysql_table::tables;
use super::mysql_write::{self as writing, Limits, Tables};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::locks::lock;
use crate::model::catalog::Catalog;
use crate::model::id::{PartitionId, Tip};
use crate::model::units::Millis;
use crate::model::window::Calendar;
use crate::mysql_pool::{Lease, MysqlError, Pool, Target};
use crate::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError, TierFuture, TierUsage};

/// Between looks for days that are older than is kept.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
/// Between attempts to delete what an owner before left.
const SWEEP_AGAIN: Backoff = Backoff { first: Millis(100), most: Millis(30_000) };
/// To a server, with the words at the door.
const CONNECTING: Duration = Duration::from_secs(10);
/// The server's code for that.
const NO_DATABASE: u16 = 1049;
/// Before a transaction that a deadlock ended is tried again, the first time.
const AGAIN_AFTER: Duration = Duration::from_millis(5);

/// The hot tier in a serving database.
#[derive(Debug)]
pub struct MysqlHot {
    shared: Arc<Shared>,
    runtime: Handle,
    /// The thread ends once this is gone.
    _running: oneshot::Sender<()>,
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) partitions: u16,
    pub(super) tables: Tables,
    pub(super) calendar: Calendar,
    pub(super) clock: Clock,
    options: OptsBuilder,
    writers: Pool,
    readers: Pool,
    /// `None` until the server was looked at and the tables are there. Locked while that is done.
    prepared: Arc<tokio::sync::Mutex<Option<Prepared>>>,
    /// Up to which `base` rows that are gone were or are being deleted, per partition.
    swept: Mutex<HashMap<PartitionId, Tip>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({}, {:?}, {:?})", self.settings.url, self.writers, self.readers)
    }
}

/// A call of the trait.
enum Ask {
    Standing,
    Write(SinkWrite),
    Read(SinkQuery),
}

enum Answer {
    Standing(SinkStanding),
    Written,
    Read(SinkRead),
}

impl MysqlHot {
    /// Does not reach for the server yet: that is done by the first call, and by any after a failure. `catalog` are the
    /// definitions whose blocks are written and read.
    pub fn open(
        settings: Settings,
        password: Option<&str>,
        partitions: u16,
        catalog: &Catalog,
        clock: Clock,
    ) -> Result<Self, MysqlError> {
        let tables = tables(catalog)?.into_iter().map(|table| (table.id, table)).collect();
        let tls = settings.tls.then_some(settings.tls_roots.as_deref());
        let target = Target { url: &settings.url, password, tls };
        let readers = target.options(session(&settings, "repeatable read"))?;
        let options = target.options(session(&settings, "read committed"))?;
        let shared = Arc::new(Shared {
            partitions,
            tables,
            calendar: catalog.calendar().clone(),
            clock,
            writers: Pool::new(options.clone(), settings.write_connections, settings.waiting),
            readers: Pool::new(readers, settings.read_connections, settings.waiting),
            options,
            prepared: Arc::default(),
            swept: Mutex::default(),
            settings,
        });
        let (running, stopped) = oneshot::channel();
        let runtime = run(stopped)?;
        let weak = Arc::downgrade(&shared);
        runtime.spawn(async move {
            loop {
                sleep(CLEAN_EVERY).await;
                let Some(shared) = weak.upgrade() else { return };
                if let Err(error) = cleaning::clean(&shared).await {
                    warn!(error = %error.into_tier(), "old days stay for now");
                }
            }
        });
        Ok(Self { shared, runtime, _running: running })
    }

    /// `open`, and checks that the server can be reached and fits; says what to change if it does not.
    pub async fn connect(
        settings: Settings,
        password: Option<&str>,
        partitions: u16,
        catalog: &Catalog,
        clock: Clock,
    ) -> Result<Self, MysqlError> {
        let hot = Self::open(settings, password, partitions, catalog, clock)?;
        hot.check().await?;
        Ok(hot)
    }

    /// Can the server be reached, and does it fit? Makes tables that are missing.
    pub async fn check(&self) -> Result<(), MysqlError> {
        let shared = Arc::clone(&self.shared);
        let checked = self.runtime.spawn(async move {
            shared.forget_prepared().await;
            shared.prepared().await.map(drop)
        });
        joined(checked.await).unwrap_or_else(going_down)
    }

    /// Deletes the rows of days that are no longer kept; gives how many. Done by itself now and then.
    pub async fn clean(&self) -> Result<u64, TierError> {
        let shared = Arc::clone(&self.shared);
        let cleaned = self.runtime.spawn(async move { cleaning::clean(&shared).await });
        joined(cleaned.await).unwrap_or_else(going_down).map_err(Fault::into_tier)
    }

    /// What the tables take on the server's disk, as it estimates it.
    pub async fn usage(&self) -> Result<TierUsage, TierError> {
        let shared = Arc::clone(&self.shared);
        let limit = shared.settings.deadline.duration();
        let asked = self.runtime.spawn(async move {
            match timeout(limit, shared.disk_bytes()).await {
                Ok(found) => found,
                Err(_) => Err(MysqlError::Deadline(limit).into()),
            }
        });
        let disk_bytes = joined(asked.await).unwrap_or_else(going_down).map_err(Fault::into_tier)?;
        Ok(TierUsage { disk_bytes, memory_bytes: 0 })
    }

    /// On the adapter's own thread, within the deadline.
    fn call(&self, partition: PartitionId, ask: Ask) -> TierFuture<'_, Answer> {
        async move {
            let shared = Arc::clone(&self.shared);
            let limit = shared.settings.deadline.duration();
            let called = self.runtime.spawn(async move {
                match timeout(limit, shared.perform(partition, &ask)).await {
                    Ok(done) => {
                        if let (Ok(Answer::Written), Ask::Write(SinkWrite { record: Some(record), .. })) = (&done, &ask)
                        {
                            sweep_later(&shared, partition, record.base);
                        }
                        done
                    }
                    Err(_) => Err(MysqlError::Deadline(limit).into()),
                }
            });
            joined(called.await).unwrap_or_else(going_down).map_err(Fault::into_tier)
        }
        .boxed()
    }
}

/// A bug of the task is a bug of the caller; `None`: the adapter is going down.
fn joined<T>(outcome: Result<T, tokio::task::JoinError>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// The answer to who asks while the adapter ends.
fn going_down<T, E: From<MysqlError>>() -> Result<T, E> {
    Err(MysqlError::unfit("the adapter is going down", "start it again").into())
}

/// The thread that the connections live on.
fn run(stopped: oneshot::Receiver<()>) -> Result<Handle, MysqlError> {
    let failed = |error: std::io::Error| MysqlError::unfit(format!("no thread for the serving database: {error}"), "");
    let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let thread = std::thread::Builder::new().name("hot-mysql".into());
    thread.spawn(move || runtime.block_on(stopped)).map_err(failed)?;
    Ok(handle)
}

/// What every connection is told first, so that nothing depends on the server's or the user's settings.
fn session(settings: &Settings, isolation: &str) -> Vec<String> {
    let seconds = |millis: u64| millis.div_ceil(1_000).max(1);
    vec![
        format!("set session transaction isolation level {isolation}"),
        format!(
            "set time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1, \
             innodb_lock_wait_timeout = {}, wait_timeout = {}",
            seconds(settings.deadline.0),
            seconds(settings.idle.0),
        ),
    ]
}

/// Until it is done, or another owner says everything anew: after a load no emission comes that could see to it.
fn sweep_later(shared: &Arc<Shared>, partition: PartitionId, base: Tip) {
    let before = lock(&shared.swept).insert(partition, base);
    if before == Some(base) || base == Tip::default() {
        return;
    }
    let weak = Arc::downgrade(shared);
    tokio::spawn(async move {
        for failures in 1.. {
            let Some(shared) = weak.upgrade().filter(|shared| lock(&shared.swept).get(&partition) == Some(&base))
            else {
                return;
            };
            let Err(error) = cleaning::sweep(&shared, partition, base).await else { return };
            drop(shared);
            let (error, wait) = (error.into_tier(), SWEEP_AGAIN.delay(failures));
            warn!(%partition, %error, wait_ms = wait.0, "rows that are gone stay in the serving database for now");
            sleep(wait.duration()).await;
        }
    });
}

impl Shared {
    /// A connection to write with, to a server that was looked at.
    pub(super) async fn writer(self: &Arc<Self>) -> Result<Lease<'_>, MysqlError> {
        self.prepared().await?;
        self.writers.lease().await
    }

    async fn forget_prepared(&self) {
        *self.prepared.lock().await = None;
    }

    async fn prepared(self: &Arc<Self>) -> Result<Prepared, MysqlError> {
        loop {
            match self.prepared.clone().try_lock_owned() {
                Ok(guard) => return self.prepared_under(guard).await,
                // Somebody is at it.
                Err(_) => drop(self.prepared.lock().await),
            }
        }
    }

    /// On a task of its own: it may take longer than the call that needs it has time, and goes on without it.
    async fn prepared_under(
        self: &Arc<Self>,
        mut prepared: OwnedMutexGuard<Option<Prepared>>,
    ) -> Result<Prepared, MysqlError> {
        if let Some(prepared) = *prepared {
            return Ok(prepared);
        }
        let shared = Arc::clone(self);
        let preparing = tokio::spawn(async move {
            let found = shared.prepare().await?;
            *prepared = Some(found);
            Ok::<_, MysqlError>(found)
        });
        joined(preparing.await).unwrap_or_else(going_down)
    }

    async fn prepare(&self) -> Result<Prepared, MysqlError> {
        let lease = async || match timeout(CONNECTING, self.writers.lease()).await {
            Ok(leased) => leased,
            Err(_) => Err(MysqlError::Deadline(CONNECTING)),
        };
        let mut lease = match lease().await {
            Err(error) if error.code() == Some(NO_DATABASE) => {
                make_database(&self.options).await?;
                lease().await?
            }
            leased => leased?,
        };
        let tables: Vec<_> = self.tables.values().collect();
        let long = self.settings.migration.duration();
        let found = prepare(lease.conn(), &tables, self.partitions, long).await?;
        lease.give_back();
        Ok(found)
    }

    async fn perform(self: &Arc<Self>, partition: PartitionId, ask: &Ask) -> Result<Answer, Fault> {
        let (mut again, mut repaired) = (0, false);
        loop {
            let fault = match self.once(partition, ask).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => fault,
            };
            match fault.remedy() {
                Remedy::Again if again < self.settings.deadlock_retries => {
                    again += 1;
                    sleep(AGAIN_AFTER * again).await;
                }
                Remedy::Prepare if !repaired => {
                    repaired = true;
                    self.forget_prepared().await;
                }
                _ => return Err(fault),
            }
        }
    }

    async fn once(self: &Arc<Self>, partition: PartitionId, ask: &Ask) -> Result<Answer, Fault> {
        let Prepared { packet } = self.prepared().await?;
        let pool = if matches!(ask, Ask::Write(_)) { &self.writers } else { &self.readers };
        let mut lease = pool.lease().await?;
        let limits = Limits { statement: self.settings.statement.bytes().min(packet / 2), packet };
        match self.ask(lease.conn(), partition, ask, limits).await {
            Ok(answer) => {
                lease.give_back();
                Ok(answer)
            }
            Err(fault) => {
                if fault.leaves_sound() && lease.conn().query_drop("rollback").await.is_ok() {
                    lease.give_back();
                }
                Err(fault)
            }
        }
    }

    async fn ask(&self, conn: &mut Conn, partition: PartitionId, ask: &Ask, limits: Limits) -> Result<Answer, Fault> {
        Ok(match ask {
            Ask::Standing => Answer::Standing(reading::standing(conn, partition).await?),
            Ask::Write(write) => {
                writing::write(conn, &self.tables, partition, write, limits).await?;
                Answer::Written
            }
            Ask::Read(query) => {
                let most_bytes = self.settings.read_limit.bytes();
                Answer::Read(reading::read(conn, &self.tables, partition, query, most_bytes).await?)
            }
        })
    }

    async fn disk_bytes(&self) -> Result<u64, Fault> {
        let mut lease = self.readers.lease().await?;
        // Otherwise MySQL 8 tells what it found within a day; others do not know the variable, and say so.
        let told = lease.conn().query_drop("set session information_schema_stats_expiry = 0").await;
        told.or_else(|error| if error.is_fatal() { Err(error) } else { Ok(()) })?;
        let names: Vec<String> = self.tables.values().map(|table| format!("'{}'", table.name)).collect();
        let found: Option<Option<u64>> = lease
            .conn()
            .query_first(format!(
                "select cast(sum(data_length + index_length) as unsigned) from information_schema.tables where \
                 table_schema = database() and (table_name in ({}) or table_name like 'holdfast\\_%')",
                names.join(",")
            ))
            .await?;
        lease.give_back();
        Ok(found.flatten().unwrap_or_default())
    }
}

impl Sink for MysqlHot {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        async move {
            match self.call(partition, Ask::Standing).await? {
                Answer::Standing(standing) => Ok(standing),
                _ => Err(other_answer()),
            }
        }
        .boxed()
    }

    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()> {
        async move { self.call(partition, Ask::Write(write)).await.map(drop) }.boxed()
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        async move {
            match self.call(partition, Ask::Read(query)).await? {
                Answer::Read(read) => Ok(read),
                _ => Err(other_answer()),
            }
        }
        .boxed()
    }
}

fn other_answer() -> TierError {
    TierError::Unavailable { tier: TIER, reason: "an answer to another question".into() }
}
