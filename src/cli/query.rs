//! `holdfast query "SQL"`: asks, and shows the answer as a table, as JSON or as CSV.
//!
//! Invariant: an answer that is not exact says so on stderr, with what is missing.

use clap::{Args, ValueEnum};
use reqwest::header::ACCEPT;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Server;
use super::failure::Failure;
use super::table::{Align, render};
use super::{Outcome, output};
use crate::model::units::Millis;

/// Ask for metrics, e.g. `holdfast query "select * from gmv_hour where merchant_id = 42"`.
#[derive(Debug, Args)]
pub struct Query {
    sql: String,
    /// What is good enough; an answer that is not becomes an error (exit code 5).
    #[arg(long, default_value = "any")]
    require: Require,
    /// How old the answer may be, e.g. 5s.
    #[arg(long)]
    max_age: Option<Millis>,
    #[arg(long, short, default_value = "table")]
    output: Output,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Require {
    Any,
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
    Csv,
}

#[derive(Debug, Deserialize)]
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    quality: Quality,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Quality {
    exact: bool,
    as_of: Option<String>,
    age_ms: Option<u64>,
    missing_changes: Option<u64>,
    #[serde(default)]
    missing: Vec<Missing>,
    #[serde(default)]
    unavailable: Vec<Unavailable>,
}

#[derive(Debug, Deserialize)]
struct Missing {
    table: String,
    partition: u16,
    from: Option<String>,
    to: Option<String>,
    changes: Option<u64>,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Unavailable {
    what: String,
    reason: String,
}

impl Query {
    pub async fn run(self) -> Outcome {
        let client = self.server.connect()?;
        let mut body = json!({ "sql": self.sql });
        if self.require == Require::Exact {
            body["require"] = json!("exact");
        }
        if let Some(age) = self.max_age {
            body["max_age_ms"] = json!(age.0);
        }
        let accept = if self.output == Output::Csv { "text/csv" } else { "application/json" };
        let response = client.send(client.post("/api/v1/query").header(ACCEPT, accept).json(&body)).await?;
        let quality =
            response.headers().get("Holdfast-Quality").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let text = response.text().await.map_err(|error| client.unreachable(&error))?;
        let unreadable = |error| Failure::failed(format!("the server's answer cannot be read: {error}"));
        match self.output {
            Output::Csv => {
                output::print(&text)?;
                if let Some(quality) = quality {
                    note(&serde_json::from_str(&quality).map_err(unreadable)?);
                }
            }
            Output::Json => {
                output::print(text.trim_end().to_owned() + "\n")?;
                note(&serde_json::from_str::<Answer>(&text).map_err(unreadable)?.quality);
            }
            Output::Table => {
                let answer: Answer = serde_json::from_str(&text).map_err(unreadable)?;
                output::print(table(&answer))?;
                note(&answer.quality);
            }
        }
        Ok(())
    }
}

fn table(answer: &Answer) -> String {
    let align = |kind: &str| {
        let is_number = ["int", "decimal", "double"].iter().any(|number| kind.starts_with(number));
        if is_number { Align::Right } else { Align::Left }
    };
    let headings: Vec<_> = answer.columns.iter().map(|column| (column.name.clone(), align(&column.kind))).collect();
    let cell = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let rows: Vec<Vec<String>> = answer.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    render(&headings, &rows)
}

/// Says on stderr what keeps an answer from being exact; nothing about an exact one.
fn note(quality: &Quality) {
    if quality.exact {
        return;
    }
    let mut note = "not exact".to_owned();
    if let Some(as_of) = &quality.as_of {
        note.push_str(&format!(", as of {as_of}"));
    }
    if let Some(age_ms) = quality.age_ms {
        note.push_str(&format!(" ({age_ms} ms ago)"));
    }
    if let Some(changes) = quality.missing_changes.filter(|changes| *changes > 0) {
        note.push_str(&format!(", {changes} changes missing"));
    }
    eprintln!("{note}");
    for missing in &quality.missing {
        let changes = missing.changes.map_or_else(|| "some".into(), |changes| changes.to_string());
        let hours = match (&missing.from, &missing.to) {
            (Some(from), Some(to)) => format!(" from {from} to {to}"),
            _ => String::new(),
        };
        eprintln!(
            "  missing: {changes} changes of {}, partition {}{hours}: {}",
            missing.table, missing.partition, missing.reason
        );
    }
    for unavailable in &quality.unavailable {
        eprintln!("  unavailable: {}: {}", unavailable.what, unavailable.reason);
    }
}
