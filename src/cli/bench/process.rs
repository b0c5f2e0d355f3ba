//! A real `holdfast` that serves, in its own process and folder, to be measured from outside.
//!
//! Invariant: the process and the folder are gone when the value is dropped.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::machine::{self, Usage};
use crate::admin::view::ClusterView;
use crate::clock;

const OFTEN: Duration = Duration::from_millis(20);
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    client: reqwest::Client,
}

impl Server {
    /// Starts this very program on free ports with `definition` appended to nothing but the defaults.
    pub async fn start(folder: &Path, definition: &str) -> Result<Self> {
        Self::start_as(folder, definition, &["up"]).await
    }

    /// Starts it with a command of its own, as `node --role …`.
    pub async fn start_as(folder: &Path, definition: &str, command: &[&str]) -> Result<Self> {
        let config = folder.join("bench.toml");
        std::fs::write(&config, definition)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(folder.join("server.log"))?;
        let child = Command::new(std::env::current_exe()?)
            .args(command)
            .args(["--http", &address.to_string()])
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the server")?;
        let mut server = Self { child, address, client: reqwest::Client::new() };
        server.wait_until_ready(folder).await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self, folder: &Path) -> Result<()> {
        let start = clock::instant();
        while start.elapsed() < START_PATIENCE {
            if let Ok(response) = self.client.get(self.url("/readyz")).send().await
                && response.status().is_success()
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
                bail!("the server ended at once ({status}):\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the server was not ready within {START_PATIENCE:?}");
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn usage(&self) -> Usage {
        machine::usage_of(self.child.id())
    }

    /// Runs `holdfast ingest` on a file and gives its processor seconds.
    pub async fn ingest(&self, table: &str, file: &Path) -> Result<f64> {
        let mut client = Command::new(std::env::current_exe()?)
            .args(["ingest", table, &file.display().to_string(), "--server", &self.url("")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut cpu_seconds = 0.0_f64;
        loop {
            cpu_seconds = cpu_seconds.max(machine::usage_of(client.id()).cpu_seconds);
            if let Some(status) = client.try_wait()? {
                if !status.success() {
                    bail!("holdfast ingest failed: {status}");
                }
                return Ok(cpu_seconds);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn query(&self, sql: &str) -> Result<Value> {
        let body = serde_json::json!({ "sql": sql });
        let response = self.client.post(self.url("/api/v1/query")).json(&body).send().await?;
        let status = response.status();
        let answer: Value = response.json().await?;
        if !status.is_success() {
            bail!("query failed with {status}: {answer}");
        }
        Ok(answer)
    }

    /// Posts rows as CSV, and waits for the acknowledgement.
    pub async fn post_rows(&self, table: &str, rows: String) -> Result<()> {
        let request = self.client.post(self.url(&format!("/api/v1/ingest/{table}"))).header("content-type", "text/csv");
        let response = request.body(rows).send().await?;
        if !response.status().is_success() {
            bail!("rows were refused with {}: {}", response.status(), response.text().await?);
        }
        Ok(())
    }

    /// What `GET /api/v1/cluster` says.
    pub async fn cluster(&self) -> Result<ClusterView> {
        Ok(self.client.get(self.url("/api/v1/cluster")).send().await?.error_for_status()?.json().await?)
    }

    /// How many orders an answer counts, and the answer.
    pub async fn orders(&self) -> Result<(u64, Value)> {
        self.counted("gmv_hour").await
    }

    /// The same of any metric table with a column of orders.
    async fn counted(&self, table: &str) -> Result<(u64, Value)> {
        let answer = self.query(&format!("select sum(orders) as n from {table}")).await?;
        let cell = &answer["rows"][0][0];
        let counted = cell.as_str().and_then(|n| n.parse().ok()).or(cell.as_u64()).unwrap_or(0);
        Ok((counted, answer))
    }

    /// Waits until an exact answer counts `orders` orders.
    pub async fn wait_for_orders(&self, orders: u64) -> Result<()> {
        self.wait_for("gmv_hour", orders, OFTEN).await
    }

    /// Asks again after each `pause`: whoever measures the processors' time asks seldom.
    pub async fn wait_for(&self, table: &str, orders: u64, pause: Duration) -> Result<()> {
        let start = clock::instant();
        let mut last = Value::Null;
        while start.elapsed() < Duration::from_secs(120) {
            let (counted, answer) = self.counted(table).await?;
            last = answer;
            if counted == orders && last["quality"]["exact"] == true {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        bail!("{orders} orders were not counted in time; last answer: {last}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is our child and may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
