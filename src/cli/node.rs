//! `holdfast node`: one process of a cluster, with the roles that it is given.
//!
//! Invariant: what is printed on stdout is true when it is printed: the masters know the node, and what they gave it is ready.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::config::File;
use super::failure::{Exit, Failure};
use super::{Outcome, output, serve};
use crate::config::{Loaded, Override};
use crate::model::task::{NodeName, Role};
use crate::node::Charge;

/// Run one node of a cluster: a process with a name and roles that joins the masters.
///
/// Ends well at Ctrl-C or SIGTERM: its tasks go to other nodes first. To see a whole cluster on this machine:
/// scripts/local-cluster.
#[derive(Debug, Args)]
pub struct Node {
    /// Its name, unique in the cluster [default: its first role with its process number, as slave-4711].
    #[arg(long)]
    name: Option<String>,
    /// What it does: master (decides who does what), gate (takes rows), slave (counts), query (answers), store (lends its
    /// embedded tiers to all others).
    #[arg(long, required = true, value_delimiter = ',', value_parser = role, value_name = "ROLE,…")]
    role: Vec<Role>,
    /// Where the masters listen [default: the configuration's cluster.masters].
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,…")]
    join: Vec<SocketAddr>,
    /// Where other nodes reach this one [default: node.listen for a master, a free port of its host for others].
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Where other nodes are told to reach it, if that is not where it listens: behind a forwarder, or with --listen 0.0.0.0:7071.
    #[arg(long, value_name = "HOST:PORT", value_parser = place)]
    advertise: Option<String>,
    /// Where people reach it [default: a free port of the host of http.listen].
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<SocketAddr>,
    /// Where its data is kept [default: holdfast-data/NAME].
    #[arg(long, env = "HOLDFAST_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    file: File,
}

fn role(text: &str) -> Result<Role, String> {
    let known = Role::ALL.into_iter().find(|role| role.name() == text);
    match known {
        Some(role) => Ok(role),
        None => {
            let names: Vec<_> = Role::ALL.into_iter().map(Role::name).collect();
            Err(format!("there is no such role; roles are {}", names.join(", ")))
        }
    }
}

fn place(text: &str) -> Result<String, String> {
    let is_place = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if is_place { Ok(text.to_owned()) } else { Err("HOST:PORT is needed".to_owned()) }
}

impl Node {
    pub fn run(self) -> Outcome {
        serve::start_logs();
        let loaded = self.load()?;
        let charge = self.charge(&loaded);
        let data = self.data.unwrap_or_else(|| PathBuf::from("holdfast-data").join(&*charge.name.0));
        serve::run(loaded, charge, &data, |node, seconds| {
            let (http, listen) = (node.http(), node.listen());
            output::print(format!(
                "holdfast node is ready ({seconds:.2} s)\n  page    http://{http}/\n  listens {listen}\n"
            ))
        })
    }

    fn load(&self) -> Result<Loaded, Failure> {
        let plain = self.file.load_with(Vec::new())?;
        let http = self.http.unwrap_or_else(|| SocketAddr::new(plain.config.http.listen.ip(), 0));
        let loaded = self.file.load_with(vec![Override::new("--http", ["http", "listen"], http.to_string())])?;
        let masters = self.masters(&loaded);
        if !matches!(masters.len(), 1 | 3 | 5) && self.role.contains(&Role::Master) && self.join.is_empty() {
            let reason = format!("cluster.masters names {} masters; a group has 1, 3 or 5", masters.len());
            return Err(Failure::new(Exit::InvalidConfig, reason));
        }
        Ok(loaded)
    }

    fn masters(&self, loaded: &Loaded) -> Vec<SocketAddr> {
        if self.join.is_empty() { loaded.config.cluster.masters.clone() } else { self.join.clone() }
    }

    fn charge(&self, loaded: &Loaded) -> Charge {
        let roles: BTreeSet<Role> = self.role.iter().copied().collect();
        let first = self.role[0];
        let name = self.name.clone().unwrap_or_else(|| format!("{first}-{}", std::process::id()));
        let free = SocketAddr::new(loaded.config.node.listen.ip(), 0);
        // Others look for a master where it is said to listen; everybody else says where it does.
        let usual = if roles.contains(&Role::Master) { loaded.config.node.listen } else { free };
        let masters = self.masters(loaded).iter().map(SocketAddr::to_string).collect();
        let listen = self.listen.unwrap_or(usual);
        Charge {
            name: NodeName::new(&name),
            roles,
            masters,
            listen,
            may_move: false,
            advertise: self.advertise.clone(),
        }
    }
}
