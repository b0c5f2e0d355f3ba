//! `holdfast up`: every role in this process, on embedded tiers.
//!
//! Invariant: what is printed on stdout is true when it is printed: the address answers and every partition is ready.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::config::File;
use super::failure::Failure;
use super::{Outcome, demo, output, serve};
use crate::config::{Loaded, Override};
use crate::node::{Charge, Node};

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
    /// Where other nodes may join [default: the configuration's node.listen, or any free port if that is taken].
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
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
        serve::start_logs();
        let loaded = self.load()?;
        let charge = Charge::alone(&loaded.config);
        let charge = Charge { may_move: self.listen.is_none(), ..charge };
        let data = self.data.clone();
        let captures = !loaded.config.sources.is_empty();
        serve::run(loaded, charge, &data, |node, seconds| self.ready(node, captures, seconds))
    }

    fn ready(&self, node: &Node, captures: bool, seconds: f64) -> Outcome {
        output::print(self.greeting(node, captures, seconds))?;
        if self.demo {
            let shop = demo::run(node.http(), self.demo_rate);
            actix_web::rt::spawn(async move {
                if let Err(failure) = shop.await {
                    failure.show();
                }
            });
        }
        Ok(())
    }

    fn load(&self) -> Result<Loaded, Failure> {
        let mut overrides = Vec::new();
        if let Some(http) = self.http {
            overrides.push(Override::new("--http", ["http", "listen"], http.to_string()));
        }
        if let Some(listen) = self.listen {
            overrides.push(Override::new("--listen", ["node", "listen"], listen.to_string()));
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

    fn greeting(&self, node: &Node, captures: bool, seconds: f64) -> String {
        let http = node.http();
        let server = if http.port() == 7070 { String::new() } else { format!(" --server http://{http}") };
        let next = if self.demo {
            format!("holdfast query{server} \"{DEMO_QUERY}\"")
        } else if captures {
            format!("holdfast status{server}")
        } else {
            format!("holdfast ingest{server} orders orders.csv")
        };
        format!(
            "holdfast is ready ({seconds:.2} s)\n  page  http://{http}/\n  data  {}\n  join  holdfast node --role slave --join {}\n  \
             try   {next}\n",
            node.data().display(),
            node.listen()
        )
    }
}

/// The shop writes to the shipped table, without a token.
fn check_demo(loaded: &Loaded) -> Outcome {
    let needed = ["order_id", "merchant_id", "status", "channel", "amount", "buyer_id", "paid_at"];
    let fits =
        |columns: &toml::Table| columns.len() == needed.len() && needed.iter().all(|name| columns.contains_key(*name));
    if !loaded.config.tables.iter().any(|table| table.name == "orders" && fits(&table.columns)) {
        return Err(Failure::failed("--demo needs the table `orders` as the shipped cluster.toml defines it"));
    }
    if loaded.catalog.stream("orders").is_some() {
        return Err(Failure::failed("--demo pushes orders, and those of this configuration come from a [[source]]"));
    }
    if !loaded.config.http.tokens.is_empty() {
        return Err(Failure::failed("--demo has no token; run it without [[http.tokens]]"));
    }
    Ok(())
}
