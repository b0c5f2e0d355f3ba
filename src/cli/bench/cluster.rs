//! A cluster of real processes on loopback, to be killed and stopped from outside.
//!
//! Invariant: only what was started here is signalled, and all of it is gone when the value is dropped.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::clock;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);
/// Below the ports that systems give away by themselves: a killed node's ports are free when it comes back.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

/// One process.
struct Node {
    arguments: Vec<String>,
    http: u16,
    child: Option<Child>,
}

/// All of them, and a client.
pub struct Cluster {
    folder: PathBuf,
    logs: PathBuf,
    nodes: BTreeMap<String, Node>,
    pub client: reqwest::Client,
}

/// Of the processes that measurements use: a role, a dash, a number.
pub const MASTERS: [&str; 3] = ["master-0", "master-1", "master-2"];
pub const GATES: [&str; 2] = ["gate-0", "gate-1"];
pub const SLAVES: [&str; 3] = ["slave-0", "slave-1", "slave-2"];
pub const QUERIES: [&str; 2] = ["query-0", "query-1"];

/// How an answer is, and the number in its one row.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub number: u64,
    pub is_exact: bool,
    pub as_of_ms: i64,
}

fn role(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let start = PORTS.start + (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
    let free =
        (start..PORTS.end).chain(PORTS.start..start).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = free.take(count).collect();
    ensure!(ports.len() == count, "not enough free ports");
    Ok(ports)
}

impl Cluster {
    /// Processes of this very program with these names, the masters first; whole. Their logs go to `logs`.
    pub async fn start(folder: &Path, logs: &Path, definition: &str, names: &[&str]) -> Result<Self> {
        std::fs::write(folder.join("bench.toml"), format!("{definition}\n[http]\nworkers = 1\n"))?;
        let masters = names.iter().filter(|name| role(name) == "master").count();
        let ports = free_ports(names.len() + masters)?;
        let (masters, http) = ports.split_at(masters);
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let join = masters.iter().map(address).collect::<Vec<_>>().join(",");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?;
        let mut cluster = Self { folder: folder.to_owned(), logs: logs.to_owned(), nodes: BTreeMap::new(), client };
        for (index, (name, port)) in names.iter().zip(http).enumerate() {
            let mut arguments =
                ["node", "--config", "bench.toml", "--role", role(name), "--name", name, "--data", name]
                    .map(str::to_owned)
                    .to_vec();
            arguments.extend(["--join".to_owned(), join.clone(), "--http".to_owned(), address(port)]);
            if let Some(listen) = masters.get(index) {
                arguments.extend(["--listen".to_owned(), address(listen)]);
            }
            cluster.nodes.insert((*name).to_owned(), Node { arguments, http: *port, child: None });
            cluster.run(name)?;
        }
        cluster.wait_until_whole().await?;
        Ok(cluster)
    }

    /// Starts a process that does not run.
    pub fn run(&mut self, name: &str) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.logs.join(format!("{name}.log")))?;
        let folder = self.folder.clone();
        let node = self.node(name)?;
        let child = Command::new(std::env::current_exe()?)
            .args(&node.arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        node.child = Some(child.with_context(|| format!("starting {name}"))?);
        Ok(())
    }

    fn node(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.get_mut(name).with_context(|| format!("there is no {name}"))
    }

    /// `kill -9`.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let mut child = self.node(name)?.child.take().with_context(|| format!("{name} does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// `kill -NAME`.
    pub fn signal(&mut self, name: &str, signal: &str) -> Result<()> {
        let child = self.node(name)?.child.as_ref().with_context(|| format!("{name} does not run"))?;
        let sent = Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status()?;
        ensure!(sent.success(), "kill -{signal} failed");
        Ok(())
    }

    /// The processes that run.
    pub fn pids(&self) -> Vec<(String, u32)> {
        let pid = |(name, node): (&String, &Node)| Some((name.clone(), node.child.as_ref()?.id()));
        self.nodes.iter().filter_map(pid).collect()
    }

    pub fn url(&self, name: &str, path: &str) -> String {
        let port = self.nodes.get(name).map_or(0, |node| node.http);
        format!("http://127.0.0.1:{port}{path}")
    }

    pub async fn view(&self, name: &str) -> Result<Value> {
        Ok(self.client.get(self.url(name, "/api/v1/cluster")).send().await?.json().await?)
    }

    pub async fn active(&self) -> Result<String> {
        let view = self.view(QUERIES[0]).await?;
        view["active_master"].as_str().map(str::to_owned).context("there is no active master")
    }

    /// Waits until everything runs, is connected, and has its share.
    pub async fn wait_until_whole(&mut self) -> Result<()> {
        let begun = clock::instant();
        loop {
            for (name, node) in &mut self.nodes {
                if let Some(status) = node.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                    let log = std::fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default();
                    let lines: Vec<&str> = log.lines().collect();
                    bail!("{name} ended ({status}):\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
                }
            }
            let lacks = self.lacks().await;
            let Some(lack) = lacks else { return Ok(()) };
            ensure!(begun.elapsed() < PATIENCE, "the cluster did not become whole within {PATIENCE:?}: {lack}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is missing.
    async fn lacks(&self) -> Option<String> {
        for name in self.nodes.keys() {
            match self.client.get(self.url(name, "/readyz")).send().await {
                Ok(response) if response.status().is_success() => {}
                Ok(response) => {
                    return Some(format!("{name} is not ready: {}", response.text().await.unwrap_or_default()));
                }
                Err(_) => return Some(format!("{name} does not answer")),
            }
        }
        let Ok(view) = self.view(QUERIES[0]).await else { return Some("a query node does not answer".to_owned()) };
        let list = |name: &str| view[name].as_array().cloned().unwrap_or_default();
        let (nodes, masters, tasks) = (list("nodes"), list("masters"), list("tasks"));
        let alive = nodes.iter().filter(|node| node["state"] == "alive").count();
        if alive < self.nodes.len() || view["active_master"].is_null() {
            return Some(format!("{alive} nodes are alive"));
        }
        let of_role = |wanted: &'static str| self.nodes.keys().filter(move |name| role(name) == wanted);
        if masters.iter().filter(|master| master["reachable"] == true || master["active"] == true).count()
            < of_role("master").count()
        {
            return Some("a master is not connected".to_owned());
        }
        let share = |owner: &String| tasks.iter().filter(|task| task["owner"] == **owner).count();
        let shares: Vec<usize> = of_role("slave").map(share).collect();
        let gates: Vec<usize> = of_role("gate").map(share).collect();
        // Shares go by what tasks weigh, not by their number alone.
        let has_share =
            |shares: &[usize]| shares.iter().all(|it| it * shares.len() * 2 >= shares.iter().sum::<usize>());
        let is_owned = !tasks.is_empty() && tasks.iter().all(|task| !task["owner"].is_null());
        (!(is_owned && has_share(&shares) && has_share(&gates)))
            .then(|| format!("slaves have {shares:?}, gates {gates:?}"))
    }

    /// A decision that is committed when this is `true`; it changes nothing.
    pub async fn decides(client: reqwest::Client, url: String) -> bool {
        let decided = client.put(url).json(&json!({ "mode": "auto" })).send().await;
        decided.is_ok_and(|response| response.status().is_success())
    }

    pub async fn ingest(client: &reqwest::Client, url: &str, key: &str, rows: String) -> Result<()> {
        let request = client.post(url).header("content-type", "text/csv").header("idempotency-key", key);
        let response = request.body(rows).send().await?;
        let status = response.status();
        ensure!(status.is_success(), "{status}: {}", response.text().await.unwrap_or_default());
        Ok(())
    }

    pub async fn query(client: &reqwest::Client, url: &str, sql: &str) -> Result<Answer> {
        let response = client.post(url).json(&json!({ "sql": sql })).send().await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        ensure!(status.is_success(), "{status}: {answer}");
        let number = &answer["rows"][0][0];
        let number = number.as_str().and_then(|text| text.parse().ok()).or(number.as_u64()).unwrap_or(0);
        let as_of =
            answer["quality"]["as_of"].as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
        Ok(Answer {
            number,
            is_exact: answer["quality"]["exact"] == true,
            as_of_ms: as_of.map_or(0, |at| at.timestamp_millis()),
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.values_mut().filter_map(|node| node.child.as_mut()) {
            // It may have ended by itself; either way it is gone afterwards.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
