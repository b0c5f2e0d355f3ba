//! `holdfast up`: every role in this process, on embedded tiers.
//!
//! Invariant: what is printed on stdout is true when it is printed: the address answers and every partition is ready.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::config::File;
use super::failure::{Exit, Failure};
use super::{Outcome, demo, output};
use crate::clock;
use crate::config::{Loaded, Override};
use crate::node::{Node, NodeError};

/// Run everything in one process.
#[derive(Debug, Args)]
pub struct Up {
    /// Threads that compute partitions [default: one per core].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    slaves: Option<u16>,
    /// Where the data is kept.
    #[arg(long, default_value = "holdfast-data", env = "HOLDFAST_DATA", value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    file: File,
    /// Where to listen; port 0 takes a free one [default: the configuration's http.listen].
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<SocketAddr>,
    /// Open a built-in shop: its orders are placed, paid and refunded now.
    #[arg(long)]
    demo: bool,
    /// New orders of the shop per second.
    #[arg(long, default_value_t = 50.0, requires = "demo")]
    demo_rate: f64,
}

/// What to try first.
const DEMO_QUERY: &str =
    "select channel, sum(orders) as orders, sum(gmv) as gmv from gmv_hour group by channel order by gmv desc";

impl Up {
    pub fn run(self) -> Outcome {
        start_logs();
        let loaded = self.load()?;
        actix_web::rt::System::new().block_on(self.serve(loaded))
    }

    fn load(&self) -> Result<Loaded, Failure> {
        let mut overrides = Vec::new();
        if let Some(http) = self.http {
            overrides.push(Override::new("--http", ["http", "listen"], http.to_string()));
        }
        if let Some(slaves) = self.slaves {
            overrides.push(Override::new("--slaves", ["slave", "threads"], slaves.to_string()));
        }
        let loaded = self.file.load_with(overrides)?;
        if self.demo {
            check_demo(&loaded)?;
        }
        Ok(loaded)
    }

    async fn serve(self, loaded: Loaded) -> Outcome {
        let cannot = |error| Failure::failed(format!("cannot listen for signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let started = clock::instant();
        let node = Node::start(loaded, &self.data).await.map_err(failure)?;
        tokio::select! {
            () = node.ready() => {}
            code = either(&mut terminate, &mut interrupt) => return end(node, code, terminate, interrupt).await,
        }
        output::print(self.greeting(&node, started.elapsed().as_secs_f64()))?;
        if self.demo {
            let shop = demo::run(node.http(), self.demo_rate);
            actix_web::rt::spawn(async move {
                if let Err(failure) = shop.await {
                    failure.show();
                }
            });
        }
        let code = either(&mut terminate, &mut interrupt).await;
        end(node, code, terminate, interrupt).await
    }

    fn greeting(&self, node: &Node, seconds: f64) -> String {
        let http = node.http();
        let server = if http.port() == 7070 { String::new() } else { format!(" --server http://{http}") };
        let next = if self.demo {
            format!("holdfast query{server} \"{DEMO_QUERY}\"")
        } else {
            format!("holdfast ingest{server} orders orders.csv")
        };
        format!(
            "holdfast is ready ({seconds:.2} s)\n  page  http://{http}/\n  data  {}\n  try   {next}\n",
            node.data().display()
        )
    }
}

/// Ends well; a second signal ends at once.
async fn end(node: Node, code: i32, mut terminate: Signal, mut interrupt: Signal) -> Outcome {
    info!(code, "signal received, stopping; a second one stops at once");
    tokio::select! {
        () = node.stop() => Ok(()),
        code = either(&mut terminate, &mut interrupt) => std::process::exit(code),
    }
}

/// Waits for one of the signals; gives the exit code of a process that it ended.
async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> i32 {
    tokio::select! {
        _ = terminate.recv() => 143,
        _ = interrupt.recv() => 130,
    }
}

fn failure(error: NodeError) -> Failure {
    let exit = if error.is_config() { Exit::InvalidConfig } else { Exit::Failed };
    Failure::new(exit, error.to_string())
}

/// The shop writes to the shipped table, without a token.
fn check_demo(loaded: &Loaded) -> Outcome {
    let needed = ["order_id", "merchant_id", "status", "channel", "amount", "buyer_id", "paid_at"];
    let fits =
        |columns: &toml::Table| columns.len() == needed.len() && needed.iter().all(|name| columns.contains_key(*name));
    if !loaded.config.tables.iter().any(|table| table.name == "orders" && fits(&table.columns)) {
        return Err(Failure::failed("--demo needs the table `orders` as the shipped cluster.toml defines it"));
    }
    if !loaded.config.http.tokens.is_empty() {
        return Err(Failure::failed("--demo has no token; run it without [[http.tokens]]"));
    }
    Ok(())
}

/// Logs go to stderr, readable, coloured only for people who want that.
fn start_logs() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let wanted = std::env::var("HOLDFAST_LOG")
        .unwrap_or_else(|_| "info,actix_server=warn,holdfast::slave::partition_actor=warn".to_owned());
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(wanted))
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
}
