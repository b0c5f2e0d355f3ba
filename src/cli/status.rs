//! `holdfast status`: the cluster's state, once or again and again.
//!
//! Invariant: shows only what `GET /api/v1/cluster` returns; exit code 10 says that something is not as it should be.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::{Client, Server};
use super::failure::{Exit, Failure};
use super::{Outcome, output, status_table};
use crate::admin::view::ClusterView;

/// Show nodes, masters, tiers, the worst partitions and incidents; exit code 10 if something is not as it should be.
#[derive(Debug, Args)]
pub struct Status {
    /// Show it again every second, until interrupted.
    #[arg(long)]
    watch: bool,
    /// Show every partition, not only the worst.
    #[arg(long)]
    partitions: bool,
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

const PAUSE: Duration = Duration::from_secs(1);
const HOME: &str = "\x1b[H";
const CLEAR_BELOW: &str = "\x1b[J";
/// What is left of a longer line that stood there before.
const CLEAR_REST_OF_LINE: &str = "\x1b[K\n";

impl Status {
    pub async fn run(self) -> Outcome {
        let client = self.server.connect()?;
        if !self.watch {
            let (text, view) = self.look(&client).await?;
            output::print(text)?;
            return verdict(&view);
        }
        let in_place = std::io::stdout().is_terminal() && self.output == Output::Table;
        if in_place {
            output::print(format!("{HOME}{CLEAR_BELOW}"))?;
        }
        loop {
            match self.look(&client).await {
                Ok((text, _)) if in_place => output::print(redrawn(&text))?,
                Ok((text, view)) => {
                    output::print(text)?;
                    if let Err(failure) = verdict(&view) {
                        failure.show();
                    }
                }
                // A server that is restarted comes back; meanwhile what was shown is taken away, since it is old.
                Err(failure) if failure.exit == Exit::Unreachable && in_place => {
                    output::print(redrawn(&format!("{}\n", failure.message)))?;
                }
                Err(failure) if failure.exit == Exit::Unreachable => failure.show(),
                Err(failure) => return Err(failure),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn look(&self, client: &Client) -> Result<(String, ClusterView), Failure> {
        let response = client.send(client.get("/api/v1/cluster")).await?;
        let text = response.text().await.map_err(|error| client.unreachable(&error))?;
        let view = read(&text)?;
        let shown = match self.output {
            Output::Json => text.trim_end().to_owned() + "\n",
            Output::Table => status_table::tables(&view, self.partitions),
        };
        Ok((shown, view))
    }
}

pub fn read(text: &str) -> Result<ClusterView, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::failed(format!("the server's answer cannot be read: {error}")))
}

fn verdict(view: &ClusterView) -> Outcome {
    if view.complaints.is_empty() {
        return Ok(());
    }
    let all: Vec<&str> = view.complaints.iter().map(|complaint| complaint.what.as_str()).collect();
    Err(Failure::new(Exit::Unhealthy, all.join("; ")))
}

/// Over what stands on the screen, without a moment of emptiness.
fn redrawn(text: &str) -> String {
    format!("{HOME}{}{CLEAR_BELOW}", text.replace('\n', CLEAR_REST_OF_LINE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_text_leaves_nothing_of_a_longer_one() {
        assert_eq!(redrawn("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
