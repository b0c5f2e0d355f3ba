//! `holdfast bench NAME`: prints the figures that the README claims.
//!
//! Invariant: every figure in the README is printed by one of these names.

mod capture;
mod client;
mod cluster;
mod engine;
mod failover;
mod fleet;
mod http;
mod join;
mod machine;
mod orders;
mod pipeline;
mod placement;
mod platform;
mod process;
mod scale;
mod shop;
mod stages;
mod stats;
mod traffic;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::Outcome;
use super::failure::Failure;

/// Measure this machine.
#[derive(Debug, Args)]
pub struct Bench {
    #[command(subcommand)]
    name: Name,
}

#[derive(Debug, Subcommand)]
enum Name {
    /// A CSV file to exact, queryable results, through the real process on durable tiers.
    Pipeline {
        #[arg(long, default_value_t = 5_000_000)]
        rows: u64,
        #[arg(long, default_value_t = 3)]
        runs: u32,
    },
    /// What each step of the pipeline costs alone, on one core.
    Stages {
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        #[arg(long, default_value_t = 3)]
        runs: u32,
        /// On the services that this configuration names, where mq, kv and hot are ones; they keep what is written.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// A binary log's bytes to batches for mq, on one core.
    Capture {
        #[arg(long, default_value_t = 2_000_000)]
        rows: u64,
        #[arg(long, default_value_t = 5)]
        runs: u32,
    },
    /// The query engine alone: filter, group and order over a block of 1,000 rows with a cached plan.
    Engine {
        #[arg(long, default_value_t = 5)]
        runs: u32,
    },
    /// Queries a second over HTTP against a handler that returns a constant.
    Http {
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// The active master's plans for a large cluster: 4,096 partitions on 200 nodes.
    Placement {
        #[arg(long, default_value_t = 9)]
        runs: u32,
    },
    /// Many processes: a second slave, what eight of them cost, and how soon a joining one has its share.
    Scale {
        #[arg(long, default_value_t = 3_000_000)]
        rows: u64,
        #[arg(long, default_value_t = 3)]
        runs: u32,
    },
    /// How long a cluster of processes lacks what was killed or stopped: masters, slaves, gates, query nodes.
    Failover {
        /// Of each kind.
        #[arg(long, default_value_t = 100)]
        kills: u32,
        /// Of state that slaves have to take over.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
        /// Only these [default: all].
        #[arg(long, value_delimiter = ',')]
        kinds: Vec<failover::Kind>,
        /// Keeps the processes' logs in this folder, and notes there each kill: when, who, and how long it took.
        #[arg(long, value_name = "FOLDER")]
        logs: Option<PathBuf>,
    },
    /// The platform on real services: from commits in a MariaDB to answers; `scripts/bench-on-services` brings them.
    Platform(platform::Services),
    /// Resident memory after one and two days of the same load.
    Memory {
        #[arg(long, default_value_t = 5_000_000)]
        rows: u64,
    },
}

impl Bench {
    pub fn run(self) -> Outcome {
        actix_web::rt::System::new().block_on(self.measure()).map_err(|error| Failure::failed(format!("{error:#}")))
    }

    async fn measure(self) -> Result<()> {
        match self.name {
            Name::Pipeline { rows, runs } => pipeline::pipeline(rows, runs).await,
            Name::Stages { rows, runs, config } => stages::stages(rows, runs, config).await,
            Name::Capture { rows, runs } => capture::capture(rows, runs).await,
            Name::Engine { runs } => engine::engine(runs).await,
            Name::Http { rounds } => http::http(rounds).await,
            Name::Placement { runs } => {
                placement::placement(runs.max(1)).await;
                Ok(())
            }
            Name::Scale { rows, runs } => {
                println!("{}", machine::describe());
                scale::second_slave(rows, runs.max(1)).await?;
                scale::eight_slaves(rows, runs.max(1)).await?;
                join::join(rows, runs.max(1)).await
            }
            Name::Failover { kills, rows, kinds, logs } => failover::failover(kills, rows, kinds, logs).await,
            Name::Platform(services) => platform::platform(services).await,
            Name::Memory { rows } => pipeline::memory(rows).await,
        }
    }
}
