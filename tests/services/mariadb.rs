//! A private MariaDB: the serving database of tests, and a source of changes (binlog in rows, whole images, names).
//!
//! Invariant: nothing of the machine's own configuration is read; root has no password, and only loopback reaches it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{copy_folder, end, free_port, is_there, program, signal, tail};

/// For a server to answer, on a machine that does much else.
const READY: Duration = Duration::from_secs(60);

pub struct MariaDb {
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
    /// Elsewhere than in the folder if a test puts it on a file system of its own.
    data: PathBuf,
    child: Option<Child>,
}

impl MariaDb {
    pub fn installed() -> Result<(), String> {
        for name in ["mariadbd", "mariadb-install-db", "mariadb"] {
            program(name).ok_or_else(|| format!("no program {name}: scripts/services install mariadb"))?;
        }
        Ok(())
    }

    /// `None`, said aloud, where it is not installed: `let Some(server) = MariaDb::start_if_there() else { return };`
    pub fn start_if_there() -> Option<Self> {
        is_there("mariadb", Self::installed()).then(Self::start)
    }

    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With options of the server beyond, or instead of, the usual ones: `--max-connections=5`.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder for the server");
        let data = folder.path().join("data");
        Self::start_in(folder, data, options)
    }

    /// With its data in a folder that the test brings.
    pub fn start_at(data: &Path, options: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a folder for the server"), data.to_owned(), options)
    }

    fn start_in(folder: TempDir, data: PathBuf, options: &[&str]) -> Self {
        let arguments = options.iter().map(|it| (*it).to_owned()).collect();
        let mut server = Self { port: free_port(), arguments, folder, data, child: None };
        server.fill();
        server.start_again();
        server.sql("create database holdfast character set utf8mb4; create database shop character set utf8mb4");
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of root, who has no password here, in the database `holdfast`.
    pub fn url(&self) -> String {
        self.url_of("root", "holdfast")
    }

    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            end(&mut child);
        }
    }

    /// SIGSTOP: it answers nothing, and its connections stay.
    pub fn stop(&self) {
        signal(self.child.as_ref().expect("the server runs"), "STOP");
    }

    pub fn cont(&self) {
        signal(self.child.as_ref().expect("the server runs"), "CONT");
    }

    /// On the same port, with what it stored; returns once it answers.
    pub fn start_again(&mut self) {
        self.start_again_with(&[]);
    }

    /// With more options, this time.
    pub fn start_again_with(&mut self, options: &[&str]) {
        assert!(self.child.is_none(), "the server runs already");
        // A port that was free may be another's by now; only before anybody was told of it another is taken.
        self.child = Some(self.spawn(options));
        let begun = Instant::now();
        while let Err(error) = self.try_sql("select 1") {
            let ended = self.child.as_mut().expect("just started").try_wait().expect("the process is ours");
            let log = || tail(&self.log());
            assert!(ended.is_none(), "the server ended ({ended:?}):\n{}", log());
            assert!(begun.elapsed() < READY, "the server does not answer: {error}\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Killed, its data gone, and started again; the databases are there and empty.
    pub fn wipe(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).expect("its data can be removed");
        self.fill();
        self.start_again();
        self.sql("create database holdfast character set utf8mb4; create database shop character set utf8mb4");
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A new data folder, copied from one that was made once.
    fn fill(&self) {
        static FRESH: OnceLock<TempDir> = OnceLock::new();
        let fresh = FRESH.get_or_init(|| {
            let folder = TempDir::new().expect("a folder for data");
            let made = Command::new(program("mariadb-install-db").expect("mariadb is installed"))
                .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
                .args(["--innodb-log-file-size=16M", &format!("--user={}", user())])
                .arg(format!("--datadir={}", folder.path().join("data").display()))
                .output()
                .expect("mariadb-install-db runs");
            let said = String::from_utf8_lossy(&made.stderr).into_owned() + &String::from_utf8_lossy(&made.stdout);
            assert!(made.status.success(), "mariadb-install-db: {said}");
            folder
        });
        copy_folder(&fresh.path().join("data"), &self.data);
    }

    fn spawn(&self, options: &[&str]) -> Child {
        let log = File::options().create(true).append(true).open(self.log()).expect("the log opens");
        Command::new(program("mariadbd").expect("mariadb is installed"))
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", &format!("--user={}", user())])
            .arg(format!("--datadir={}", self.data.display()))
            .arg(format!("--port={}", self.port))
            // The socket's name counts from the data folder: whole paths may be too long for one.
            .args(["--socket=mariadbd.sock", "--pid-file=mariadbd.pid", "--character-set-server=utf8mb4"])
            .args(["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-fast-shutdown=2"])
            .args(["--server-id=1", "--log-bin=binlog", "--binlog-format=ROW", "--binlog-row-image=FULL"])
            .args(["--binlog-row-metadata=FULL", "--gtid-strict-mode=ON", "--max-connections=150"])
            .args(&self.arguments)
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("mariadbd starts")
    }

    /// Statements as root, separated by semicolons; gives what they print, columns by tabs, without names.
    pub fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    pub fn try_sql(&self, statements: &str) -> Result<String, String> {
        let mut client = Command::new(program("mariadb").expect("mariadb is installed"))
            .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root", "--connect-timeout=2"])
            .args([
                "--default-character-set=utf8mb4",
                "--skip-column-names",
                "--batch",
                &format!("--port={}", self.port),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let mut input = client.stdin.take().expect("it is piped");
        // It may have ended already, for want of a server.
        let _ = input.write_all(statements.as_bytes());
        drop(input);
        let output = client.wait_with_output().expect("the client ends");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- mariadb:\n{}", tail(&self.log()));
        }
    }
}

/// Who runs the tests: as root the server wants to be told.
fn user() -> String {
    let said = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}
