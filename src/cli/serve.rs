//! Runs a node until a signal ends it.
//!
//! Invariant: what is said of a node when it is ready is true then; a second signal ends at once.

use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::Outcome;
use super::failure::{Exit, Failure};
use crate::clock;
use crate::config::Loaded;
use crate::node::{Charge, Node, NodeError};

/// `ready` is called once, with the seconds that it took.
pub fn run(loaded: Loaded, charge: Charge, data: &Path, ready: impl FnOnce(&Node, f64) -> Outcome) -> Outcome {
    actix_web::rt::System::new().block_on(serve(loaded, charge, data, ready))
}

async fn serve(loaded: Loaded, charge: Charge, data: &Path, ready: impl FnOnce(&Node, f64) -> Outcome) -> Outcome {
    let cannot = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let started = clock::instant();
    let name = charge.name.clone();
    let node = Node::start(loaded, charge, data).await.map_err(failure)?;
    tokio::select! {
        () = node.ready() => ready(&node, started.elapsed().as_secs_f64())?,
        code = either(&mut terminate, &mut interrupt) => return end(node, code, terminate, interrupt).await,
    }
    tokio::select! {
        code = either(&mut terminate, &mut interrupt) => end(node, code, terminate, interrupt).await,
        () = node.displaced() => {
            let reason = format!("another process joined the cluster as '{name}'; every node needs a name of its own");
            Err(Failure::failed(reason))
        }
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

/// Logs go to stderr, readable, coloured only for people who want that.
pub fn start_logs() {
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
