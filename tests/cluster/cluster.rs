//! A cluster of real processes on loopback, in a folder of its own.
//!
//! Invariant: one cluster at a time in a test binary, since they share the machine; waits are for conditions, with a limit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Answer, Client, now_ms};
use crate::flow::Flow;
use crate::process::Process;
use crate::truth::{Batch, TABLES, recomputed};

pub const PARTITIONS: u16 = 8;
/// For what takes a second or two on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);

pub struct Cluster {
    // Dropped first: no process outlives the folder.
    nodes: BTreeMap<String, Process>,
    pub masters: Vec<u16>,
    pub client: Client,
    /// The next batch.
    pub next: u64,
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// (kind, partition) → (owner, epoch).
pub type Owners = BTreeMap<(String, u64), (Option<String>, u64)>;

/// A free port that the system gives to nobody by itself: it must be free again after a kill.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 12_000 + (std::process::id() % 18_000) as u16;
    loop {
        let port = 12_000 + (start - 12_000 + NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub fn addresses(ports: &[u16]) -> String {
    ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
}

/// Small, so that unoptimised processes are quick.
pub fn config(partitions: u16, secret: &str) -> String {
    format!(
        "[cluster]\nname = \"shop\"\npartitions = {partitions}\nsecret = {{ file = \"{secret}\" }}\n[http]\nworkers = 1\n\
         [slave]\nthreads = 1\n{TABLES}"
    )
}

impl Cluster {
    /// Its folder and configuration, and no process yet.
    pub fn empty() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        // A test that failed has left nothing behind.
        let alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cluster =
            Self { nodes: BTreeMap::new(), masters: Vec::new(), client: Client::new(), next: 0, folder, _alone: alone };
        cluster.write("secret", "a word for tests");
        cluster.write("holdfast.toml", &config(PARTITIONS, "secret"));
        cluster
    }

    /// Three masters, a store, two gates, two slaves, two query nodes; all ready.
    pub fn full() -> Self {
        let mut cluster = Self::empty();
        cluster.masters = (0..3).map(|_| free_port()).collect();
        for index in 0..3 {
            cluster.add_master(index, &[]);
        }
        for name in ["store", "gate-0", "gate-1", "slave-0", "slave-1", "query-0", "query-1"] {
            cluster.add(name, &[]);
        }
        cluster.wait_ready_all();
        cluster
    }

    pub fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).expect("writing into the folder");
    }

    /// A master with a place among the first ones.
    pub fn add_master(&mut self, index: usize, more: &[&str]) {
        let listen = addresses(&[self.masters[index]]);
        let more = [&["--listen", listen.as_str()], more].concat();
        self.add(&format!("master-{index}"), &more);
    }

    /// A node; its name begins with its role.
    pub fn add(&mut self, name: &str, more: &[&str]) {
        let (masters, data) = (addresses(&self.masters), format!("data-{name}"));
        let role = name.split('-').next().unwrap_or(name);
        let own = ["node", "--role", role, "--name", name, "--data", &data, "--config", "holdfast.toml"];
        let join = if more.contains(&"--join") { Vec::new() } else { vec!["--join", masters.as_str()] };
        self.add_process(name, &[&own[..], &join, more].concat());
    }

    pub fn add_process(&mut self, name: &str, arguments: &[&str]) {
        let mut process = Process::new(name, arguments, free_port(), self.folder.path());
        process.start();
        self.nodes.insert(name.to_owned(), process);
    }

    pub fn node(&mut self, name: &str) -> &mut Process {
        self.nodes.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    pub fn remove(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    pub fn http(&self, name: &str) -> u16 {
        self.nodes.get(name).unwrap_or_else(|| panic!("there is no {name}")).http
    }

    pub fn names(&self) -> Vec<String> {
        self.nodes.keys().cloned().collect()
    }

    // Conditions.

    /// Waits until `found` finds something; the failure says what it saw last.
    pub fn wait<T>(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> Result<T, String>) -> T {
        let begun = Instant::now();
        loop {
            match found(self) {
                Ok(found) => return found,
                Err(last) => assert!(begun.elapsed() < SOON, "{what}: not within {SOON:?}; last: {last}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait_ready(&mut self, name: &str) {
        let name = name.to_owned();
        self.wait(&format!("{name} is ready"), |cluster| {
            if let Some(status) = cluster.node(&name).ended() {
                panic!("{name} ended with {status} before it was ready");
            }
            cluster.client.get(cluster.http(&name), "/readyz")
        });
    }

    pub fn wait_ready_all(&mut self) {
        self.names().iter().for_each(|name| self.wait_ready(name));
    }

    pub fn view(&self, name: &str) -> Result<Value, String> {
        self.client.get(self.http(name), "/api/v1/cluster")
    }

    /// The active master, as this node has it.
    pub fn active(&self, name: &str) -> Result<String, String> {
        let view = self.view(name)?;
        view["active_master"].as_str().map(str::to_owned).ok_or_else(|| "no active master".to_owned())
    }

    /// Waits for another active master than `before`.
    pub fn wait_active(&mut self, by: &str, before: &str) -> String {
        self.wait("another master is active", |cluster| match cluster.active(by)? {
            active if active == before => Err(active),
            active => Ok(active),
        })
    }

    /// (kind, partition) → (owner, epoch), as this node has it.
    pub fn owners(&self, name: &str) -> Result<Owners, String> {
        let view = self.view(name)?;
        let tasks = view["tasks"].as_array().ok_or("no tasks")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let task = |task: &Value| {
            let key = (text(&task["kind"])?, task["partition"].as_u64()?);
            Some((key, (text(&task["owner"]), task["epoch"].as_u64()?)))
        };
        Ok(tasks.iter().filter_map(task).collect())
    }

    /// Waits until every task has an owner, and this node `share` of them.
    pub fn wait_share(&mut self, by: &str, node: &str, share: usize) {
        self.wait(&format!("{node} has {share} tasks"), |cluster| {
            let owners = cluster.owners(by)?;
            let count = owners.values().filter(|(owner, _)| owner.as_deref() == Some(node)).count();
            let whole = owners.values().all(|(owner, _)| owner.is_some());
            if whole && count == share { Ok(()) } else { Err(format!("{count} tasks; {owners:?}")) }
        });
    }

    /// Waits until the active master has this node in this state.
    pub fn wait_state(&mut self, by: &str, node: &str, state: &str) {
        self.wait(&format!("{node} is {state}"), |cluster| {
            let view = cluster.view(by)?;
            let nodes = view["nodes"].as_array().ok_or("no nodes")?;
            let found = nodes.iter().find(|it| it["name"] == node).map(|it| it["state"].clone());
            match (found, view["active_master"].is_null()) {
                (Some(found), false) if found == state => Ok(()),
                found => Err(format!("{found:?}")),
            }
        });
    }

    // Rows and answers.

    /// So many batches through this gate.
    pub fn ingest(&mut self, gate: &str, batches: u64) {
        for _ in 0..batches {
            let sent = self.client.ingest(self.http(gate), &Batch(self.next));
            sent.unwrap_or_else(|error| panic!("{gate} takes no rows: {error}"));
            self.next += 1;
        }
    }

    pub fn flow(&self, gates: &[&str], queries: &[&str]) -> Flow {
        let ports = |names: &[&str]| names.iter().map(|name| self.http(name)).collect();
        Flow::start(self.next, ports(gates), ports(queries))
    }

    /// The first exact answer as of now or later has to be the truth: there is no second try. How long it took.
    pub fn assert_truth(&mut self, queries: &[&str]) -> Duration {
        let (begun, since_ms) = (Instant::now(), now_ms());
        let truth = recomputed((0..self.next).map(Batch));
        for query in queries {
            let answer: Answer = self.wait(&format!("an exact answer of {query}"), |cluster| {
                let answer = cluster.client.query(cluster.http(query))?;
                match answer.exact && answer.as_of_ms >= since_ms {
                    true => Ok(answer),
                    false => Err(format!("exact: {}, {} ms old", answer.exact, now_ms() - answer.as_of_ms)),
                }
            });
            assert_eq!(answer.table, truth, "{query}");
        }
        begun.elapsed()
    }
}
