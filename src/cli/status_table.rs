//! The cluster's document as text for a terminal.
//!
//! Invariant: what is wrong stands first; every node is shown, and partitions that are not as they should be before others.

use super::output::{grouped, size};
use super::table::{Align, render};
use crate::admin::partitions::{PartitionRow, rows, worst};
use crate::admin::view::{ClusterView, IncidentView, MasterView, NodeView, TierView};
use crate::admin::words::{clock, count, duration};

/// Partitions that are shown, unless all are wanted.
const WORST: usize = 10;
const INCIDENTS_MOST: usize = 10;

pub fn tables(view: &ClusterView, all_partitions: bool) -> String {
    let sections = [
        headline(view),
        nodes(view),
        masters(view),
        tiers(view),
        tasks(view),
        partitions(view, all_partitions),
        incidents(view),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

fn headline(view: &ClusterView) -> String {
    let mut text = format!("{}: ", view.name);
    match &view.complaints[..] {
        [] => text.push_str("all is well\n"),
        complaints => {
            text.push_str(&format!("{} not as it should be\n", plural(complaints.len(), "thing is", "things are")));
            for complaint in complaints {
                let since = complaint.since.as_ref().map(|since| format!(", since {}", clock(since, &view.now)));
                text.push_str(&format!("  {}{}\n", complaint.what, since.unwrap_or_default()));
                text.push_str(&format!("    {}\n", complaint.advice));
            }
        }
    }
    let (rates, fresh) = (view.rates, view.freshness);
    let time = |millis: Option<f64>| millis.map_or_else(|| "nothing new".to_owned(), duration);
    text.push_str(&format!(
        "{} rows/s in, {} counted/s, {} queries/s; visible after {} (p50), {} (p99); oldest results {}; as of {}, by {}\n",
        count(rates.changes_ingested),
        count(rates.changes_applied),
        count(rates.queries),
        time(fresh.p50_ms),
        time(fresh.p99_ms),
        fresh.oldest_ms.map_or_else(|| "none".to_owned(), duration),
        clock(&view.now, ""),
        view.answered_by,
    ));
    text
}

fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
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
        let figure = |text: String| if node.reports { text } else { "-".to_owned() };
        let active = if view.active_master.as_deref() == Some(node.name.as_str()) { " (active)" } else { "" };
        let tasks = match node.standby_tasks {
            0 => node.tasks.to_string(),
            standby => format!("{}+{standby}", node.tasks),
        };
        vec![
            format!("{}{active}", node.name),
            node.state.name().to_owned(),
            node.roles.join(","),
            tasks,
            figure(format!("{:.0}% of {}", node.load * 100.0, node.cores)),
            figure(size(node.resident_bytes)),
            node.http.clone(),
        ]
    };
    let rows: Vec<_> = view.nodes.iter().map(row).collect();
    render(&headings(["node", "state", "roles", ">tasks", ">load", ">memory", "address"]), &rows)
}

fn masters(view: &ClusterView) -> String {
    let row = |master: &MasterView| {
        let standing = match master {
            MasterView { active: true, .. } => "active",
            MasterView { reachable: false, .. } => "not reachable",
            MasterView { votes: false, .. } => "learning",
            _ => "standby",
        };
        vec![master.node.clone().unwrap_or_else(|| "-".to_owned()), master.address.clone(), standing.to_owned()]
    };
    let rows: Vec<_> = view.masters.iter().map(row).collect();
    let active = view.active_master.as_deref().unwrap_or("none");
    format!("active master {active}, term {}\n{}", view.term, render(&headings(["master", "address", "stands"]), &rows))
}

fn tiers(view: &ClusterView) -> String {
    let bytes = |bytes: Option<u64>| bytes.map(size).unwrap_or_default();
    let row = |tier: &TierView| {
        let why = tier.reason.clone().or_else(|| tier.trouble.clone()).unwrap_or_default();
        vec![
            tier.tier.clone(),
            tier.kind.clone(),
            tier.mode.as_str().to_owned(),
            tier.policy.clone(),
            clock(&tier.since, &view.now),
            bytes(tier.used_bytes),
            bytes(tier.limit_bytes),
            why,
        ]
    };
    let rows: Vec<_> = view.tiers.iter().map(row).collect();
    render(&headings(["tier", "kind", "mode", "policy", "since", ">used", ">limit", "why"]), &rows)
}

fn tasks(view: &ClusterView) -> String {
    let counts = view.task_counts().into_iter();
    let counts = counts.map(|((kind, state), count)| format!("{} {} {}", count, kind.name(), state.name()));
    format!("tasks: {}\n", counts.collect::<Vec<_>>().join(", "))
}

fn partitions(view: &ClusterView, is_whole: bool) -> String {
    let all = rows(view);
    let shown = if is_whole { all } else { worst(&all, WORST) };
    let row = |row: &PartitionRow<'_>| {
        vec![
            row.partition.to_string(),
            row.owner().unwrap_or("none").to_owned(),
            row.standby().unwrap_or("-").to_owned(),
            row.gate.and_then(|task| task.owner.clone()).unwrap_or_else(|| "none".to_owned()),
            row.compute.map(|task| task.epoch.to_string()).unwrap_or_default(),
            grouped(row.lag()),
            row.gaps().to_string(),
            row.age_ms.map_or_else(|| "-".to_owned(), |age_ms| duration(age_ms as f64)),
            if row.words.is_empty() { "running".to_owned() } else { row.words.clone() },
        ]
    };
    if shown.is_empty() {
        return format!("partitions: all {} run, none lags\n", view.partitions);
    }
    let table: Vec<_> = shown.iter().map(row).collect();
    let names = [">partition", "owner", "standby", "gate", ">epoch", ">lag", ">gaps", ">age", "state"];
    render(&headings(names), &table)
}

fn incidents(view: &ClusterView) -> String {
    let open = view.incidents.iter().filter(|incident| incident.closed.is_none());
    let row = |incident: &IncidentView| {
        vec![clock(&incident.opened, &view.now), incident.subject.clone(), incident.text.clone()]
    };
    let rows: Vec<_> = open.map(row).collect();
    if rows.is_empty() {
        return "incidents: none is open\n".to_owned();
    }
    let more = rows.len().saturating_sub(INCIDENTS_MOST);
    let table = render(&headings(["open since", "about", "incident"]), &rows[..rows.len() - more]);
    if more == 0 { table } else { format!("{table}and {more} more: GET /api/v1/incidents\n") }
}
