//! A private Kafka: one node that is broker and controller (KRaft), with a small heap.
//!
//! Invariant: it ends with this process, however that ends: a shell between the two kills it when its input is closed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::{copy_folder, free_port, is_there, program, tail};

/// For a server to answer, on a machine that does much else.
const READY: Duration = Duration::from_secs(90);
/// Sixteen bytes as Kafka writes them.
const FIRST_CLUSTER: &str = "holdfastholdfastholdfA";
/// Runs a program in the background, tells its number, and kills it when the input ends.
const LEASH: &str = r#"exec 3<&0; log=$1; shift
"$@" </dev/null >>"$log" 2>&1 3<&- &
child=$!; echo $child; exec 1>&- 2>/dev/null; cat <&3 >/dev/null; kill -9 $child 2>/dev/null; wait $child"#;

pub struct Kafka {
    port: u16,
    controller_port: u16,
    options: Vec<(String, String)>,
    folder: TempDir,
    /// Elsewhere than in the folder if a test puts it on a file system of its own.
    data: PathBuf,
    running: Option<Running>,
}

struct Running {
    shell: Child,
    leash: ChildStdin,
    pid: u32,
}

/// Where `scripts/services install kafka` puts its jars.
fn jars() -> Option<PathBuf> {
    let script = include_str!("../../scripts/services.d/kafka");
    let version = script.lines().find_map(|line| line.strip_prefix("kafka_version="))?;
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    let folder = cache.join("holdfast").join(format!("kafka-{version}"));
    // Written last.
    folder.join("complete").is_file().then_some(folder)
}

impl Kafka {
    pub fn installed() -> Result<(), String> {
        program("java").ok_or("no program java: scripts/services install kafka")?;
        jars().ok_or("no jars of Kafka: scripts/services install kafka")?;
        Ok(())
    }

    /// `None`, said aloud, where it is not installed: `let Some(server) = Kafka::start_if_there() else { return };`
    pub fn start_if_there() -> Option<Self> {
        is_there("kafka", Self::installed()).then(Self::start)
    }

    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With lines of server.properties beyond, or instead of, the usual ones.
    pub fn start_with(options: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a folder for the server");
        let data = folder.path().join("data");
        Self::start_in(folder, data, options)
    }

    /// With its data in a folder that the test brings.
    pub fn start_at(data: &Path, options: &[(&str, &str)]) -> Self {
        Self::start_in(TempDir::new().expect("a folder for the server"), data.to_owned(), options)
    }

    fn start_in(folder: TempDir, data: PathBuf, options: &[(&str, &str)]) -> Self {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (port, controller_port) = (free_port(), free_port());
        let mut server = Self { port, controller_port, options, folder, data, running: None };
        server.format();
        server.start_again();
        server
    }

    /// What a client starts from: `host:port`.
    pub fn url(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(Running { mut shell, leash, .. }) = self.running.take() {
            drop(leash);
            let _ = shell.wait();
        }
    }

    /// SIGSTOP: it answers nothing, and its connections stay.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// As a full disk: no file of it grows beyond so many bytes, until it is started again.
    pub fn limit_files(&self, bytes: u64) {
        super::limit_files(self.running.as_ref().expect("the server runs").pid, Some(bytes));
    }

    fn signal(&self, name: &str) {
        let pid = self.running.as_ref().expect("the server runs").pid.to_string();
        let sent = Command::new("kill").args([format!("-{name}"), pid]).status().expect("kill runs");
        assert!(sent.success(), "kill -{name}");
    }

    /// On the same port, with what it stored; returns once it answers.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the server runs already");
        self.running = Some(self.spawn());
        let client = ClientConfig::new().set("bootstrap.servers", self.url()).create::<BaseConsumer>();
        let client = client.expect("a client");
        let begun = Instant::now();
        // A broker that is not ready yet names none.
        while !client.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|found| !found.brokers().is_empty()) {
            let log = || tail(&self.log());
            assert!(self.is_alive(), "the server ended:\n{}", log());
            assert!(begun.elapsed() < READY, "the server does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Killed, its data gone, and started again: another cluster, on the same port.
    pub fn wipe(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).expect("its data can be removed");
        self.format();
        self.start_again();
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn is_alive(&self) -> bool {
        let Some(running) = &self.running else { return false };
        let stat = fs::read_to_string(format!("/proc/{}/stat", running.pid)).unwrap_or_default();
        // Behind the name in brackets stands the state; a zombie has ended.
        stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
    }

    fn properties(&self) -> String {
        let Self { port, controller_port, data, .. } = self;
        let mut text = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={}
auto.create.topics.enable=true
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.segment.delete.delay.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controlled.shutdown.enable=false
",
            data.display()
        );
        for (key, value) in &self.options {
            text.push_str(&format!("{key}={value}\n"));
        }
        text
    }

    fn java(&self) -> Command {
        let mut java = Command::new(program("java").expect("java is installed"));
        self.add_options(&mut java);
        java
    }

    fn add_options(&self, command: &mut Command) {
        command
            .args(["-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
            .args(["-Djava.awt.headless=true", "-Dlog4j2.level=WARN"])
            .arg("-cp")
            .arg(jars().expect("the jars are installed").join("*"));
    }

    /// A new data folder, copied from one that was made once: that takes a Java of its own, for seconds.
    fn format(&self) {
        static FRESH: OnceLock<TempDir> = OnceLock::new();
        let file = self.folder.path().join("server.properties");
        fs::write(&file, self.properties()).expect("its configuration can be written");
        let fresh = FRESH.get_or_init(|| {
            let mut format = self.java();
            format.args(["kafka.tools.StorageTool", "format", "--cluster-id", FIRST_CLUSTER, "--config"]).arg(&file);
            let made = format.output().expect("java runs");
            let said = String::from_utf8_lossy(&made.stderr).into_owned() + &String::from_utf8_lossy(&made.stdout);
            assert!(made.status.success(), "kafka.tools.StorageTool: {said}");
            let fresh = TempDir::new().expect("a folder for data");
            copy_folder(&self.data, fresh.path());
            fresh
        });
        copy_folder(fresh.path(), &self.data);
        // Another cluster each time, as one that people set up anew.
        static CLUSTERS: AtomicU64 = AtomicU64::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed) * 100_000 + u64::from(std::process::id() % 100_000);
        let file = self.data.join("meta.properties");
        let text = fs::read_to_string(&file).expect("it was formatted");
        assert!(text.contains(FIRST_CLUSTER), "{text}");
        let text = text.replace(FIRST_CLUSTER, &format!("holdfast{number:0>13}A"));
        fs::write(&file, text).expect("it can be written");
    }

    fn spawn(&self) -> Running {
        let mut leashed = Command::new("sh");
        leashed.args(["-c", LEASH, "sh"]).arg(self.log()).arg(program("java").expect("java is installed"));
        self.add_options(&mut leashed);
        leashed.arg("kafka.Kafka").arg(self.folder.path().join("server.properties"));
        let mut shell = leashed.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell starts");
        let mut pid = String::new();
        let said = shell.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut pid).expect("the shell tells a number");
        let leash = shell.stdin.take().expect("it is piped");
        Running { shell, leash, pid: pid.trim().parse().expect("a number") }
    }

    /// Adds a line to the server's log, so that what a test did stands among what the server says.
    pub fn note(&self, line: &str) {
        let log = File::options().create(true).append(true).open(self.log());
        let _ = log.and_then(|mut log| writeln!(log, "--- {line}"));
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- kafka:\n{}", tail(&self.log()));
        }
    }
}
