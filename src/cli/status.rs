//! `holdfast status`: the cluster's state, once or again and again.
//!
//! Invariant: shows only what `GET /api/v1/cluster` returns; exit code 10 says that something is not as it should be.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::{Client, Server};
use super::failure::{Exit, Failure};
use super::table::{Align, render};
use super::{Outcome, output};
use crate::admin::view::{ClusterView, NodeView, TaskKind, TaskView, TierView};

/// Show nodes, tiers and partitions; exit code 10 if something is not as it should be.
#[derive(Debug, Args)]
pub struct Status {
    /// Show it again every second, until interrupted.
    #[arg(long)]
    watch: bool,
    #[arg(long, short, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";
const PAUSE: Duration = Duration::from_secs(1);

impl Status {
    pub async fn run(self) -> Outcome {
        let client = self.server.connect()?;
        if !self.watch {
            return self.show(&client, "").await;
        }
        let before = if std::io::stdout().is_terminal() && self.output == Output::Table { CLEAR_SCREEN } else { "" };
        loop {
            match self.show(&client, before).await {
                // A server that is restarted comes back.
                Err(failure) if matches!(failure.exit, Exit::Unreachable | Exit::Unhealthy) => failure.show(),
                outcome => outcome?,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn show(&self, client: &Client, before: &str) -> Outcome {
        let response = client.send(client.get("/api/v1/cluster")).await?;
        let text = response.text().await.map_err(|error| client.unreachable(&error))?;
        let view: ClusterView = serde_json::from_str(&text)
            .map_err(|error| Failure::failed(format!("the server's answer cannot be read: {error}")))?;
        match self.output {
            Output::Json => output::print(text.trim_end().to_owned() + "\n")?,
            Output::Table => output::print(before.to_owned() + &tables(&view))?,
        }
        let complaints = view.complaints();
        if complaints.is_empty() {
            return Ok(());
        }
        Err(Failure::new(Exit::Unhealthy, complaints.join("; ")))
    }
}

fn tables(view: &ClusterView) -> String {
    let state = if view.ready { "ready" } else { "not ready" };
    let rates = view.rates;
    format!(
        "{} is {state} at {}; {:.0} changes/s in, {:.0} counted/s, {:.0} queries/s, {} resident\n\n{}\n{}\n{}",
        view.name,
        view.now,
        rates.changes_ingested,
        rates.changes_applied,
        rates.queries,
        output::size(view.memory.resident_bytes),
        nodes(view),
        tiers(view),
        partitions(view),
    )
}

/// Headings; those that begin with `>` stand to the right.
fn headings<const N: usize>(names: [&str; N]) -> [(String, Align); N] {
    names.map(|name| match name.strip_prefix('>') {
        Some(name) => (name.to_owned(), Align::Right),
        None => (name.to_owned(), Align::Left),
    })
}

fn nodes(view: &ClusterView) -> String {
    let row = |node: &NodeView| {
        let load = format!("{:.0}% of {} cores", node.load * 100.0, node.cores);
        vec![node.name.clone(), node.roles.join(","), node.state.name().into(), node.http.clone(), load]
    };
    render(&headings(["node", "roles", "state", "http", "load"]), &view.nodes.iter().map(row).collect::<Vec<_>>())
}

fn tiers(view: &ClusterView) -> String {
    let bytes = |bytes: Option<u64>| bytes.map(output::size).unwrap_or_default();
    let row = |tier: &TierView| {
        let mode = tier.mode.as_str().to_owned();
        vec![tier.tier.clone(), tier.kind.clone(), mode, bytes(tier.used_bytes), bytes(tier.limit_bytes)]
    };
    let rows: Vec<_> = view.tiers.iter().map(row).collect();
    render(&headings(["tier", "kind", "mode", ">used", ">limit"]), &rows)
}

fn partitions(view: &ClusterView) -> String {
    let of = |kind: TaskKind, partition: u16| {
        view.tasks.iter().find(move |task| task.kind == kind && task.partition == partition)
    };
    let state = |task: Option<&TaskView>| task.map_or("none", |task| task.state.name()).to_owned();
    let rows: Vec<Vec<String>> = (0..view.partitions)
        .map(|partition| {
            let (gate, compute) = (of(TaskKind::Gate, partition), of(TaskKind::Compute, partition));
            vec![
                partition.to_string(),
                compute.map(|task| task.owner.clone()).unwrap_or_default(),
                compute.map(|task| task.epoch.to_string()).unwrap_or_default(),
                state(gate),
                state(compute),
                gate.and_then(|task| task.lag).map(|lag| lag.to_string()).unwrap_or_default(),
                compute.map_or(0, |task| task.gaps).to_string(),
                compute.and_then(|task| task.as_of.clone()).unwrap_or_default(),
            ]
        })
        .collect();
    render(&headings([">partition", "owner", ">epoch", "gate", "compute", ">lag", ">gaps", "as of"]), &rows)
}
