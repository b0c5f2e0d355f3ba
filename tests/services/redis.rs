//! A private Redis: one server, or a cluster of three primaries with a replica each.
//!
//! Invariant: nothing of the machine's own configuration is read; only loopback reaches it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{end, eventually, free_port, is_there, program, signal, tail};

/// For a server to answer, on a machine that does much else.
const READY: Duration = Duration::from_secs(30);

/// A server, alone or as a node of a cluster. Keeps what it acknowledged when it is killed.
pub struct Redis {
    port: u16,
    options: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
}

impl Redis {
    pub fn installed() -> Result<(), String> {
        for name in ["redis-server", "redis-cli"] {
            program(name).ok_or_else(|| format!("no program {name}: scripts/services install redis"))?;
        }
        Ok(())
    }

    /// `None`, said aloud, where it is not installed: `let Some(server) = Redis::start_if_there() else { return };`
    pub fn start_if_there() -> Option<Self> {
        is_there("redis", Self::installed()).then(Self::start)
    }

    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With options of the server beyond, or instead of, the usual ones: `--maxmemory 5mb`.
    pub fn start_with(options: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder for the server");
        Self::start_in(folder, options)
    }

    /// In a folder that holds files of the test, as certificates.
    pub fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let options = options.iter().flat_map(|option| option.split(' ')).map(str::to_owned).collect();
        let mut server = Self { port: free_port(), options, folder, child: None };
        server.start_again();
        server
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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
        assert!(self.child.is_none(), "the server runs already");
        self.child = Some(self.spawn());
        let begun = Instant::now();
        while self.try_cli(&["ping"]) != Ok("PONG".to_owned()) {
            let ended = self.child.as_mut().expect("just started").try_wait().expect("the process is ours");
            let log = || tail(&self.log());
            assert!(ended.is_none(), "the server ended ({ended:?}):\n{}", log());
            assert!(begun.elapsed() < READY, "the server does not answer:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Killed, its data gone, and started again.
    pub fn wipe(&mut self) {
        self.kill();
        fs::remove_dir_all(self.data()).expect("its data can be removed");
        self.start_again();
    }

    /// What `redis-cli` says; an error if it cannot, or Redis will not.
    pub fn try_cli(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(program("redis-cli").expect("redis is installed"));
        command.args(["-e", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(authority) = self.authority() {
            command.args(["--tls", "--cacert", &authority]);
        }
        let said = command.args(arguments).output().expect("redis-cli runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        match said.status.success() {
            true => Ok(text(&said.stdout)),
            false => Err(text(&said.stdout) + &text(&said.stderr)),
        }
    }

    pub fn cli(&self, arguments: &[&str]) -> String {
        self.try_cli(arguments).unwrap_or_else(|error| panic!("redis-cli {arguments:?}: {error}"))
    }

    /// A value of `INFO`.
    pub fn info(&self, name: &str) -> String {
        let info = self.cli(&["info"]);
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    }

    fn authority(&self) -> Option<String> {
        let at = self.options.iter().position(|option| option == "--tls-ca-cert-file")?;
        self.options.get(at + 1).cloned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn spawn(&self) -> Child {
        fs::create_dir_all(self.data()).expect("a folder can be made");
        let log = File::options().create(true).append(true).open(self.log()).expect("the log opens");
        let ports: [String; 4] = match self.authority() {
            None => ["--port".into(), self.port.to_string(), "--tls-port".into(), "0".into()],
            Some(_) => ["--port".into(), "0".into(), "--tls-port".into(), self.port.to_string()],
        };
        // Every write is in its file before it is acknowledged, as far as a killed process goes.
        Command::new(program("redis-server").expect("redis is installed"))
            .args(if self.authority().is_some() { &ports[..] } else { &ports[..2] })
            .args(["--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", "--daemonize", "no"])
            .args(["--maxmemory-policy", "noeviction", "--databases", "1"])
            .args(&self.options)
            .current_dir(self.data())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file has many handles"))
            .stderr(log)
            .spawn()
            .expect("redis-server starts")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three primaries, and a replica of each.
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    pub fn start_if_there() -> Option<Self> {
        is_there("redis-cluster", Redis::installed()).then(Self::start)
    }

    pub fn start() -> Self {
        let options = [
            "--cluster-enabled yes --cluster-config-file nodes.conf --cluster-node-timeout 1000",
            // A replica that has heard nothing of its primary for long may still take its place.
            "--cluster-replica-validity-factor 0 --repl-diskless-sync-delay 0 --repl-timeout 3",
        ];
        let nodes: Vec<Redis> = (0..6).map(|_| Redis::start_with(&options)).collect();
        let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut arguments = vec!["--cluster", "create"];
        arguments.extend(addresses.iter().map(String::as_str));
        arguments.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let made = Command::new(program("redis-cli").expect("redis is installed")).args(arguments).output();
        let made = made.expect("redis-cli runs");
        assert!(made.status.success(), "redis-cli --cluster create: {}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self { nodes };
        eventually("all nodes agree, and the replicas follow", READY, || {
            cluster.nodes.iter().all(|node| {
                let agrees = node.cli(&["cluster", "info"]).contains("cluster_state:ok");
                let follows = match node.info("role").as_str() {
                    "master" => node.info("connected_slaves") == "1",
                    _ => node.info("master_link_status") == "up",
                };
                agrees && follows
            })
        });
        cluster
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// The node that holds `key`, and its replica: their places in `nodes`.
    pub fn holders(&self, key: &str) -> (usize, usize) {
        let running = self.nodes.iter().find(|node| node.child.is_some()).expect("a node runs");
        let slot: u32 = running.cli(&["cluster", "keyslot", key]).parse().expect("a slot");
        let owner = |node: &Redis| {
            let is_own = |line: &&str| line.contains("myself,master");
            let text = node.cli(&["cluster", "nodes"]);
            let Some(own) = text.lines().find(is_own) else { return false };
            own.split(' ').skip(8).any(|range| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                (from.parse().unwrap_or(u32::MAX)..=to.parse().unwrap_or(0)).contains(&slot)
            })
        };
        let runs = |node: &&(usize, &Redis)| node.1.child.is_some();
        let primary = self.nodes.iter().enumerate().filter(|node| runs(&node)).find(|(_, node)| owner(node));
        let primary = primary.expect("a primary has the slot").0;
        let port = self.nodes[primary].port.to_string();
        let replica = self
            .nodes
            .iter()
            .enumerate()
            .filter(|node| runs(&node))
            .find(|(_, node)| node.info("role") == "slave" && node.info("master_port") == port);
        (primary, replica.expect("it has a replica").0)
    }

    /// The primary of a partition's keys.
    pub fn holder_of(&self, partition: u16) -> usize {
        self.holders(&format!("x{{{partition}}}")).0
    }

    /// From now on the replica gets nothing more, and does not know why.
    pub fn cut_off(&self, replica: usize) {
        let replica = &self.nodes[replica];
        replica.cli(&["config", "set", "masteruser", "nobody"]);
        replica.cli(&["config", "set", "masterauth", "wrong"]);
        replica.cli(&["client", "kill", "type", "master"]);
        eventually("the replica is cut off", READY, || replica.info("master_link_status") == "down");
    }
}
