//! The flow on the page: stations in their order, with mode, rate, and what waits in front of each. Pure.
//!
//! Invariant: a station is as bad as the worst of what it stands for, and says in words why.

use maud::{Markup, html};

use super::page::sign;
use super::partitions::state_level;
use super::view::{ClusterView, Level, TaskKind, TierView};
use super::words::{bytes, count, duration};
use crate::model::mode::Mode;
use crate::model::report::TaskState;

/// A stop on the way.
struct Station {
    name: &'static str,
    /// A role works, a tier holds.
    is_tier: bool,
    job: &'static str,
    level: Level,
    state: String,
    /// The figure that matters there, and what it is of.
    figure: Option<(String, &'static str)>,
    notes: Vec<String>,
}

pub fn flow(view: &ClusterView) -> Markup {
    let tier = |name: &str, job| view.tiers.iter().find(|tier| tier.tier == name).map(|found| tier_station(found, job));
    let one = |station: Station| vec![station];
    let columns: Vec<Vec<Station>> = [
        Some(one(intake(view))),
        tier("mq", "log of changes")
            .map(|station| one(Station { figure: Some((count(view.freshness.lag as f64), "waiting")), ..station })),
        Some(one(role(view, "gate", "admits each change once", TaskKind::Gate))),
        tier("kv", "today's chunks").map(one),
        Some(one(slaves(view))),
        Some(
            [tier("hot", "results"), tier("cache", "recent blocks"), tier("cold", "closed days")]
                .into_iter()
                .flatten()
                .collect(),
        ),
        Some(one(query(view))),
    ]
    .into_iter()
    .flatten()
    .filter(|column| !column.is_empty())
    .collect();
    html! {
        ol.flow {
            @for column in &columns {
                li { @for station in column { (show(station)) } }
            }
        }
        p.quiet { "Rates are rows or queries per second over the last second. Rounded stations are roles, square ones tiers." }
    }
}

fn show(station: &Station) -> Markup {
    let shape = if station.is_tier { "tier" } else { "role" };
    html! {
        div class={ "station " (shape) " " (station.level.name()) } {
            h3 { (station.name) }
            p.job { (station.job) }
            @if let Some((figure, of)) = &station.figure { p.figure { b { (figure) } " " (of) } }
            p.word { span aria-hidden="true" { (sign(station.level)) " " } (station.state) }
            @for note in &station.notes { p.note { (note) } }
        }
    }
}

fn intake(view: &ClusterView) -> Station {
    let captures = view.tasks.iter().filter(|task| task.kind == TaskKind::Capture);
    let level = captures.map(|task| state_level(task.state)).max().unwrap_or_default();
    Station {
        name: "intake",
        is_tier: false,
        job: "capture and push",
        level,
        state: if level == Level::Good { "takes rows".to_owned() } else { "a source fails".to_owned() },
        figure: Some((count(view.rates.changes_ingested), "rows/s in")),
        notes: Vec::new(),
    }
}

/// How the tasks of a role stand, in words: what is not running is named.
fn role(view: &ClusterView, name: &'static str, job: &'static str, kind: TaskKind) -> Station {
    let tasks = || view.tasks.iter().filter(|task| task.kind == kind);
    let unowned = tasks().filter(|task| task.owner.is_none()).count();
    let mut troubles: Vec<String> = Vec::new();
    let mut level = if unowned > 0 { Level::Bad } else { Level::Good };
    if unowned > 0 {
        troubles.push(format!("{unowned} unowned"));
    }
    for state in [TaskState::Failing, TaskState::Silent, TaskState::Fenced, TaskState::Catching, TaskState::Stopping] {
        let number = tasks().filter(|task| task.owner.is_some() && task.state == state).count();
        if number > 0 {
            troubles.push(format!("{number} {}", state.name()));
            level = level.max(state_level(state));
        }
    }
    let all = tasks().count();
    let is_behind = kind == TaskKind::Gate && view.complaints.iter().any(|it| it.what.starts_with("Gates are behind"));
    if is_behind {
        level = level.max(Level::Warn);
        troubles.push("slow: work waits in mq".to_owned());
    }
    let state = if troubles.is_empty() { format!("all {all} running") } else { troubles.join(", ") };
    let figure = (kind == TaskKind::Gate).then(|| (count(view.freshness.lag as f64), "to take"));
    Station { name, is_tier: false, job, level, state, figure, notes: Vec::new() }
}

fn slaves(view: &ClusterView) -> Station {
    let mut station = role(view, "slave", "counts and publishes", TaskKind::Compute);
    station.figure = Some((count(view.rates.changes_applied), "rows/s counted"));
    if let Some(fresh) = view.freshness.p99_ms {
        station.notes.push(format!("visible after {} (p99)", duration(fresh)));
    }
    station
}

fn query(view: &ClusterView) -> Station {
    let nodes = || view.nodes.iter().filter(|node| node.roles.iter().any(|role| role == "query"));
    let all = nodes().count();
    let up = nodes().filter(|node| node.state.level() == Level::Good || node.name == view.answered_by).count();
    let level = match up {
        0 => Level::Bad,
        up if up < all => Level::Warn,
        _ => Level::Good,
    };
    Station {
        name: "query",
        is_tier: false,
        job: "answers, with their quality",
        level,
        state: if up == all { format!("{all} serving") } else { format!("{up} of {all} serving") },
        figure: Some((count(view.rates.queries), "queries/s")),
        notes: view.freshness.oldest_ms.map(|age| format!("oldest results {}", duration(age))).into_iter().collect(),
    }
}

fn tier_station(tier: &TierView, job: &'static str) -> Station {
    let level = match tier.mode {
        Mode::Degraded => Level::Bad,
        Mode::Recovering => Level::Warn,
        Mode::Normal if tier.troubled_nodes.is_empty() => Level::Good,
        Mode::Normal => Level::Warn,
    };
    let mut notes = Vec::new();
    if tier.policy != "auto" {
        notes.push(format!("by an operator ({})", tier.policy));
    }
    match (tier.used_bytes, tier.limit_bytes) {
        (Some(used), Some(limit)) => notes.push(format!("{} of {}", bytes(used), bytes(limit))),
        (Some(used), None) => notes.push(bytes(used)),
        (None, _) => {}
    }
    notes.push(tier.kind.clone());
    let name = match tier.tier.as_str() {
        "mq" => "mq",
        "kv" => "kv",
        "hot" => "hot",
        "cache" => "cache",
        _ => "cold",
    };
    Station { name, is_tier: true, job, level, state: tier.mode.as_str().to_owned(), figure: None, notes }
}
