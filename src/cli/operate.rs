//! `holdfast tier`, `drill`, `node-drain` and `source`: what operators decide.
//!
//! Invariant: success means that a majority of the masters has it; an outcome that nobody knows is a failure that says so.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::client::{Client, Server};
use super::failure::{Exit, Failure};
use super::{Outcome, output, status};
use crate::admin::control_http::{HoldTier, OrderSource, WantedMode, WantedOrder};
use crate::clock;
use crate::model::units::Millis;

/// A joint between the roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TierName {
    Mq,
    Kv,
    Hot,
    Cache,
    Cold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    Normal,
    Degraded,
    /// Nodes decide again, by how the tier does.
    Auto,
}

/// Hold a tier in a mode, or give it back with `auto`.
#[derive(Debug, Args)]
pub struct Tier {
    tier: TierName,
    mode: ModeName,
    /// Give it back after this long, such as 60s.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<Millis>,
    #[command(flatten)]
    server: Server,
}

/// Degrade a tier on purpose, then return: shows that answers go on, and what they lack.
#[derive(Debug, Args)]
pub struct Drill {
    tier: TierName,
    /// How long.
    #[arg(long = "for", value_name = "DURATION", default_value = "30s")]
    duration: Millis,
    #[command(flatten)]
    server: Server,
}

/// Take a node's tasks away, one by one and without loss of time, and wait until it has none.
#[derive(Debug, Args)]
pub struct NodeDrain {
    /// As `holdfast status` names it.
    name: String,
    /// How long to wait for its tasks to move; they go on moving after that.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    deadline: Millis,
    /// Give it tasks again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    server: Server,
}

/// Tell a captured source that stands still what to do.
#[derive(Debug, Args)]
pub struct Source {
    /// As its [[source]] names it.
    name: String,
    order: OrderName,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OrderName {
    /// Try again as it is
    Retry,
    /// Go on past what stopped it; `holdfast status` says what that means
    Pass,
}

const POLL: Duration = Duration::from_millis(200);

impl TierName {
    fn name(self) -> &'static str {
        match self {
            Self::Mq => "mq",
            Self::Kv => "kv",
            Self::Hot => "hot",
            Self::Cache => "cache",
            Self::Cold => "cold",
        }
    }
}

impl Tier {
    pub async fn run(self) -> Outcome {
        let mode = match self.mode {
            ModeName::Normal => WantedMode::Normal,
            ModeName::Degraded => WantedMode::Degraded,
            ModeName::Auto => WantedMode::Auto,
        };
        let wanted = HoldTier { mode, for_ms: self.duration.map(|duration| duration.0) };
        hold(&self.server.connect()?, self.tier, &wanted).await?;
        let tier = self.tier.name();
        output::print(match (self.mode, self.duration) {
            (ModeName::Auto, _) => format!("{tier} is in the hands of the nodes again\n"),
            (mode, None) => format!("{tier} is held {}; give it back with: holdfast tier {tier} auto\n", word(mode)),
            (mode, Some(duration)) => format!("{tier} is held {} for {duration}\n", word(mode)),
        })
    }
}

impl Drill {
    pub async fn run(self) -> Outcome {
        let wanted = HoldTier { mode: WantedMode::Degraded, for_ms: Some(self.duration.0) };
        hold(&self.server.connect()?, self.tier, &wanted).await?;
        let tier = self.tier.name();
        output::print(format!("{tier} is degraded for {}; it returns by itself\n", self.duration))
    }
}

impl NodeDrain {
    pub async fn run(self) -> Outcome {
        let client = self.server.connect()?;
        let path = format!("/api/v1/nodes/{}/drain", encoded(&self.name));
        if self.undo {
            client.send(client.delete(&path)).await?;
            return output::print(format!("{} is given tasks again\n", self.name));
        }
        client.send(client.post(&path)).await?;
        let (started, deadline) = (clock::instant(), Duration::from_millis(self.deadline.0));
        loop {
            let left = tasks_of(&client, &self.name).await?;
            if left == 0 {
                return output::print(format!("{} has no tasks any more and can be stopped\n", self.name));
            }
            if started.elapsed() >= deadline {
                let message =
                    format!("{} still has {left} tasks after {}; they go on moving", self.name, self.deadline);
                return Err(Failure::new(Exit::Failed, message));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Source {
    pub async fn run(self) -> Outcome {
        let order = match self.order {
            OrderName::Retry => WantedOrder::Retry,
            OrderName::Pass => WantedOrder::Pass,
        };
        let client = self.server.connect()?;
        let path = format!("/api/v1/sources/{}/order", encoded(&self.name));
        client.send(client.post(&path).json(&OrderSource { order })).await?;
        output::print(format!("{} was told; `holdfast status` says how it goes on\n", self.name))
    }
}

async fn hold(client: &Client, tier: TierName, wanted: &HoldTier) -> Outcome {
    client.send(client.put(&format!("/api/v1/tiers/{}", tier.name())).json(wanted)).await?;
    Ok(())
}

async fn tasks_of(client: &Client, name: &str) -> Result<usize, Failure> {
    let response = client.send(client.get("/api/v1/cluster")).await?;
    let text = response.text().await.map_err(|error| client.unreachable(&error))?;
    let view = status::read(&text)?;
    Ok(view.tasks.iter().filter(|task| task.owner.as_deref() == Some(name)).count())
}

fn word(mode: ModeName) -> &'static str {
    match mode {
        ModeName::Normal => "normal",
        ModeName::Degraded => "degraded",
        ModeName::Auto => "auto",
    }
}

/// A name as one step of a path (RFC 3986).
fn encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_step_of_the_path() {
        assert_eq!(encoded("slave-1"), "slave-1");
        assert_eq!(encoded("a/b c?"), "a%2Fb%20c%3F");
    }
}
