//! Real processes to be measured: one with the tiers, masters, gates and queries, and slaves beside it, with one thread each.
//!
//! Invariant: the processes are gone when the value is dropped.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::machine;
use super::process::Server;

/// Snapshots come by the clock, not by the work; none is taken while it is measured.
const SETTINGS: &str = "\n[slave]\nthreads = 1\nsnapshot_interval = \"1h\"\n";

/// A cluster on loopback.
pub struct Fleet {
    folder: PathBuf,
    join: String,
    pub base: Server,
    slaves: Vec<Child>,
}

/// Processor seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cpu {
    pub base: f64,
    pub slaves: f64,
}

impl Cpu {
    pub fn all(self) -> f64 {
        self.base + self.slaves
    }

    pub fn since(self, before: Self) -> Self {
        Self { base: self.base - before.base, slaves: self.slaves - before.slaves }
    }
}

pub fn slave_name(number: usize) -> String {
    format!("slave-{number}")
}

impl Fleet {
    /// Starts everything but slaves.
    pub async fn start(folder: &Path, definition: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let join = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let command =
            ["node", "--name", "base", "--role", "master,gate,query,store", "--join", &join, "--listen", &join];
        let base = Server::start_as(folder, &format!("{definition}{SETTINGS}"), &command).await?;
        Ok(Self { folder: folder.to_owned(), join, base, slaves: Vec::new() })
    }

    /// Starts one more, and gives its name.
    pub fn add_slave(&mut self) -> Result<String> {
        let name = slave_name(self.slaves.len() + 1);
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["node", "--name", &name, "--role", "slave", "--join", &self.join])
            .arg("--data")
            .arg(self.folder.join(&name))
            .arg("--config")
            .arg(self.folder.join("bench.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting a slave")?;
        self.slaves.push(child);
        Ok(name)
    }

    /// Of all processes, since they were started.
    pub fn cpu(&self) -> Cpu {
        let slaves = self.slaves.iter().map(|slave| machine::usage_of(slave.id()).cpu_seconds).sum();
        Cpu { base: self.base.usage().cpu_seconds, slaves }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for slave in &mut self.slaves {
            // They are our children and may have ended by themselves; either way they are gone afterwards.
            let _ = slave.kill();
            let _ = slave.wait();
        }
    }
}
