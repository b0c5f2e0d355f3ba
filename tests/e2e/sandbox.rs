//! A real holdfast process on a free port with a data folder of its own.
//!
//! Invariant: a process is ended by its own id, at the latest on drop; every wait has an end and says what it saw last.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Client;

pub const BINARY: &str = env!("CARGO_BIN_EXE_holdfast");
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One process at a time: the tests measure memory and times, and share few cores.
static MACHINE: Mutex<()> = Mutex::new(());

/// Configuration and data that outlive the processes that run on them.
pub struct Sandbox {
    folder: TempDir,
    port: u16,
    _machine: MutexGuard<'static, ()>,
}

/// A running process.
pub struct Running {
    child: Child,
    log: PathBuf,
    pub client: Client,
}

impl Sandbox {
    pub fn new(config: &str) -> Self {
        let machine = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("holdfast.toml"), config).expect("writing the config");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        Self { folder, port, _machine: machine }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the process; it need not be ready yet.
    pub fn spawn(&self) -> Running {
        let log = self.path("holdfast.log");
        let output = File::options().create(true).append(true).open(&log).expect("the log opens");
        let child = Command::new(BINARY)
            .arg("up")
            .args(["--http", &format!("127.0.0.1:{}", self.port)])
            .arg("--data")
            .arg(self.path("data"))
            .arg("--config")
            .arg(self.path("holdfast.toml"))
            .current_dir(self.folder.path())
            // Tests look at what holdfast holds, not at what its allocator has not given back yet.
            .env("MIMALLOC_PURGE_DELAY", "0")
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("holdfast starts");
        Running { child, log, client: Client::new(self.url()) }
    }

    pub fn start(&self) -> Running {
        let mut running = self.spawn();
        running.wait_ready();
        running
    }

    /// Runs a client command against this sandbox's server.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).env("HOLDFAST_SERVER", self.url()).current_dir(self.folder.path());
        run_bounded(command, Duration::from_secs(120)).output
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn wait_ready(&mut self) {
        let started = Instant::now();
        while !self.client.is_ready() {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                panic!("holdfast ended with {status} before it was ready:\n{}", self.log_tail());
            }
            let waited = started.elapsed();
            assert!(waited < READY_WITHIN, "not ready after {waited:?}:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.child.wait().expect("the process is ours");
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_none()
    }

    /// SIGTERM; the process has to end by itself.
    pub fn terminate(self, within: Duration) -> ExitStatus {
        signal(self.pid(), "TERM");
        self.wait(within)
    }

    /// Waits until the process has ended by itself.
    pub fn wait(mut self, within: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                return status;
            }
            assert!(started.elapsed() < within, "still there after {within:?}:\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The largest resident size so far.
    pub fn peak_bytes(&self) -> u64 {
        peak_bytes(self.pid()).expect("the process runs")
    }

    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the end of holdfast's log:\n{}\n---", self.log_tail());
        }
    }
}

/// Sends a signal to a process that the test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().expect("kill runs");
    assert!(sent.success(), "kill -{name} {pid}");
}

/// `VmHWM` of a process; `None` once it is gone.
pub fn peak_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// What a command left behind.
pub struct Finished {
    pub output: Output,
    pub peak_bytes: u64,
}

impl Finished {
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }
}

pub fn holdfast(arguments: &[&str], folder: &Path) -> Finished {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(folder).env_remove("HOLDFAST_SERVER");
    run_bounded(command, Duration::from_secs(60))
}

/// Runs a command to its end, its memory watched; ends it when it takes too long.
pub fn run_bounded(mut command: Command, limit: Duration) -> Finished {
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().expect("a second handle")).stderr(stderr.try_clone().expect("a second handle"));
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let started = Instant::now();
    let mut peak = 0;
    let status = loop {
        peak = peak_bytes(child.id()).unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().expect("the process can be asked") {
            break status;
        }
        if started.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end within {limit:?}; stderr:\n{}", read_back(&mut stderr));
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    let output =
        Output { status, stdout: read_back(&mut stdout).into_bytes(), stderr: read_back(&mut stderr).into_bytes() };
    Finished { output, peak_bytes: peak }
}

fn read_back(file: &mut File) -> String {
    use std::io::{Read, Seek};
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("the output can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
