//! Connections to a MySQL or MariaDB server: few, shared, and none used again after its work was broken off.
//!
//! Invariant: never more connections than permits, the ones being closed included; who finds no room waits in a bounded
//! queue. Deadlines are the callers': every future here may be dropped at any moment.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Opts, OptsBuilder, ServerError, SslOpts, UrlError};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::locks::lock;

/// To say good-bye to a server; one that does not take it is left without.
const CLOSING: Duration = Duration::from_millis(500);

/// Why a server did not do what it was asked.
#[derive(Debug, Error)]
pub enum MysqlError {
    #[error("url: {0}")]
    Url(#[from] UrlError),
    /// A server or a database that does not fit; it stays so until somebody changes it.
    #[error("{found}; {change}")]
    Unfit { found: String, change: String },
    #[error("no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("{0} calls wait for a connection already")]
    Busy(usize),
    #[error("{0}")]
    Client(mysql_async::Error),
}

impl From<mysql_async::Error> for MysqlError {
    fn from(error: mysql_async::Error) -> Self {
        Self::Client(error)
    }
}

impl MysqlError {
    pub fn unfit(found: impl Into<String>, change: impl Into<String>) -> Self {
        Self::Unfit { found: found.into(), change: change.into() }
    }

    /// What the server said, if it said something.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Client(mysql_async::Error::Server(error)) => Some(error),
            _ => None,
        }
    }

    pub fn code(&self) -> Option<u16> {
        self.server().map(|error| error.code)
    }

    /// May the same call succeed later without anybody changing anything?
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Url(_) | Self::Unfit { .. } => false,
            Self::Deadline(_) | Self::Busy(_) => true,
            Self::Client(mysql_async::Error::Driver(error)) => !matches!(
                error,
                DriverError::UnknownAuthPlugin { .. }
                    | DriverError::MysqlOldPasswordDisabled
                    | DriverError::NoClientSslFlagFromServer
                    | DriverError::CleartextPluginDisabled
            ),
            // Rights and passwords (access denied, to a database, a table, a column, a global right; a host that may not; a
            // password that is to be changed; a locked account).
            Self::Client(mysql_async::Error::Server(error)) => {
                !matches!(error.code, 1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1370 | 1698 | 1820 | 1862 | 3118 | 4151)
            }
            Self::Client(_) => true,
        }
    }
}

/// How a server is reached.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// `mysql://user@host:port/database`; what the client takes beyond that is refused, so that settings stand in one place.
    pub url: &'a str,
    pub password: Option<&'a str>,
    /// TLS, and with which roots: `None` plain, `Some(None)` the public ones, `Some(Some(file))` those of a PEM file.
    pub tls: Option<Option<&'a std::path::Path>>,
}

impl Target<'_> {
    /// Statements of `session` are said once on every new connection.
    pub fn options(&self, session: Vec<String>) -> Result<OptsBuilder, MysqlError> {
        let change = "write it like mysql://user@host:3306/database";
        if self.url.contains('?') {
            return Err(MysqlError::unfit("url: it has parameters", change));
        }
        let read = Opts::from_url(self.url)?;
        if read.pass().is_some_and(|password| !password.is_empty()) {
            return Err(MysqlError::unfit("url: it shows a password", "give the password by the key `password`"));
        }
        if read.user().is_none_or(str::is_empty) || read.db_name().is_none_or(str::is_empty) {
            return Err(MysqlError::unfit("url: user or database is missing", change));
        }
        let tls = self.tls.map(|roots| match roots {
            None => SslOpts::default(),
            Some(file) => {
                SslOpts::default().with_root_certs(vec![file.to_owned().into()]).with_disable_built_in_roots(true)
            }
        });
        Ok(OptsBuilder::from_opts(read)
            .pass(self.password)
            // A server's own word about where its socket is may be of another machine.
            .prefer_socket(false)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .init(session)
            .ssl_opts(tls))
    }
}

/// Shares connections among calls.
pub struct Pool {
    opts: Opts,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Conn>>,
    waiting: AtomicUsize,
    waiting_most: usize,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of its connections are free)", self.permits.available_permits())
    }
}

/// A connection of one's own until it is given back; one that is dropped is closed.
#[derive(Debug)]
pub struct Lease<'a> {
    pool: &'a Pool,
    conn: Option<Conn>,
    permit: Option<OwnedSemaphorePermit>,
}

/// Takes itself off the number of those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// No connection is made yet.
    pub fn new(opts: impl Into<Opts>, connections: usize, waiting_most: usize) -> Self {
        Self {
            opts: opts.into(),
            permits: Arc::new(Semaphore::new(connections.max(1))),
            idle: Mutex::default(),
            waiting: AtomicUsize::new(0),
            waiting_most,
        }
    }

    pub async fn lease(&self) -> Result<Lease<'_>, MysqlError> {
        let permit = self.permit().await?;
        let mut lease = Lease { pool: self, conn: None, permit: Some(permit) };
        while let Some(mut conn) = self.take_idle() {
            // The server may have been started again since.
            let lives = conn.ping().await.is_ok();
            lease.conn = Some(conn);
            if lives {
                return Ok(lease);
            }
        }
        lease.conn = Some(Conn::new(self.opts.clone()).await?);
        Ok(lease)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, MysqlError> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let already = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if already >= self.waiting_most {
            return Err(MysqlError::Busy(already));
        }
        Ok(self.permits.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    fn take_idle(&self) -> Option<Conn> {
        lock(&self.idle).pop()
    }
}

impl Lease<'_> {
    pub fn conn(&mut self) -> &mut Conn {
        self.conn.as_mut().expect("a lease has its connection until it is given back")
    }

    /// Only a connection whose last answer was read whole, and that is in no transaction.
    pub fn give_back(mut self) {
        if let Some(conn) = self.conn.take() {
            lock(&self.pool.idle).push(conn);
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let (Some(conn), permit) = (self.conn.take(), self.permit.take()) else { return };
        // The place is free only once the connection is gone.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = timeout(CLOSING, conn.disconnect()).await;
                drop(permit);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> Result<OptsBuilder, String> {
        let target = Target { url, password: Some("secret"), tls: None };
        target.options(vec![]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_url_says_where_and_who_and_nothing_else() {
        let opts = Opts::from(options("mysql://holdfast@db.example:3307/metrics").unwrap());
        assert_eq!((opts.ip_or_hostname(), opts.tcp_port(), opts.user()), ("db.example", 3307, Some("holdfast")));
        assert_eq!((opts.db_name(), opts.pass()), (Some("metrics"), Some("secret")));
        for (url, complaint) in [
            ("mysql://holdfast:secret@db/metrics", "shows a password"),
            ("mysql://holdfast@db/metrics?pool_max=3", "has parameters"),
            ("mysql://db/metrics", "user or database"),
            ("mysql://holdfast@db", "user or database"),
            ("postgres://holdfast@db/metrics", "scheme"),
            ("db", "url"),
        ] {
            let error = options(url).unwrap_err();
            assert!(error.contains(complaint) && !error.contains("secret@"), "{url}: {error}");
        }
    }
}
