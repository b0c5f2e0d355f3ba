//! The command line: one file per subcommand, each short: read arguments, call the library, show the outcome.
//!
//! Invariant: results go to stdout, everything else to stderr; the exit code says what kind of end it was.

mod bench;
mod client;
mod completions;
mod config;
mod cut;
mod demo;
mod doctor;
mod failure;
mod ingest;
mod node;
mod operate;
mod output;
mod query;
mod serve;
mod shop;
mod status;
mod status_table;
mod table;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::Failure;

/// Per-merchant metrics from row changes, within a second, that say how good they are.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failure, 2 usage, 3 invalid config, 4 unreachable, \
    5 refused (auth, limit, quality asked not met), 10 unhealthy (status), 130 interrupted.\n\
    Logs: HOLDFAST_LOG=info|debug|warn|…, on stderr.";

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Node(node::Node),
    Ingest(ingest::Ingest),
    Query(query::Query),
    Status(status::Status),
    Tier(operate::Tier),
    Drill(operate::Drill),
    NodeDrain(operate::NodeDrain),
    Source(operate::Source),
    #[command(subcommand)]
    Config(config::Config),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    Completions(completions::Completions),
}

/// Runs the command that the process was given.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Command::Up(up) => up.run(),
        Command::Node(node) => node.run(),
        Command::Ingest(ingest) => client::block_on(ingest.run()),
        Command::Query(query) => client::block_on(query.run()),
        Command::Status(status) => client::block_on(status.run()),
        Command::Tier(tier) => client::block_on(tier.run()),
        Command::Drill(drill) => client::block_on(drill.run()),
        Command::NodeDrain(drain) => client::block_on(drain.run()),
        Command::Source(source) => client::block_on(source.run()),
        Command::Config(config) => config.run(),
        Command::Doctor(doctor) => client::block_on(doctor.run()),
        Command::Bench(bench) => bench.run(),
        Command::Completions(completions) => completions.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.show();
            failure.exit.into()
        }
    }
}

/// What a command ends with.
type Outcome = Result<(), Failure>;
