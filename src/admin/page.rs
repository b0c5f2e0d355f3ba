//! The status page: the cluster's document as HTML, without scripts. Pure.
//!
//! Invariant: shows only what the document says, and asks no other host for anything.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::view::{ClusterView, TaskKind, TaskView};
use crate::model::mode::Mode;

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --quiet: #777; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } .number { text-align: right; } .quiet { color: var(--quiet); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
nav a { margin-right: 1rem; }
";

/// The whole page.
pub fn page(view: &ClusterView) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content="5";
                title { "holdfast: " (view.name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(view))
                (figures(view))
                (tiers(view))
                (partitions(view))
            }
        }
    }
}

fn head(view: &ClusterView) -> Markup {
    let complaints = view.complaints();
    html! {
        h1 { "holdfast: " (view.name) }
        p {
            @if complaints.is_empty() {
                span.good { "All is well." }
            } @else {
                span.bad { (complaints.join("; ")) "." }
            }
            " " span.quiet { (view.now) ", version " (view.version) }
        }
        nav {
            a href="/docs/" { "API" }
            a href="/metrics" { "Metrics" }
            a href="/api/v1/cluster" { "This as JSON" }
        }
    }
}

fn figures(view: &ClusterView) -> Markup {
    html! {
        h2 { "Node" }
        table {
            tr { th { "name" } th { "roles" } th { "state" } th.number { "load" } th.number { "memory" }
                 th.number { "changes in/s" } th.number { "counted/s" } th.number { "queries/s" } }
            @for node in &view.nodes {
                tr {
                    td { (node.name) }
                    td { (node.roles.join(", ")) }
                    td { (node.state.name()) }
                    td.number { (format!("{:.0}% of {} cores", node.load * 100.0, node.cores)) }
                    td.number { (mebibytes(view.memory.resident_bytes)) }
                    td.number { (format!("{:.0}", view.rates.changes_ingested)) }
                    td.number { (format!("{:.0}", view.rates.changes_applied)) }
                    td.number { (format!("{:.0}", view.rates.queries)) }
                }
            }
        }
    }
}

fn tiers(view: &ClusterView) -> Markup {
    html! {
        h2 { "Tiers" }
        table {
            tr { th { "tier" } th { "kind" } th { "mode" } th { "since" } th.number { "used" } }
            @for tier in &view.tiers {
                tr {
                    td { (tier.tier) }
                    td { (tier.kind) }
                    td.good[tier.mode == Mode::Normal].bad[tier.mode != Mode::Normal] { (tier.mode.as_str()) }
                    td.quiet { (tier.since) }
                    td.number {
                        @if let Some(used) = tier.used_bytes { (mebibytes(used)) }
                        @if let Some(limit) = tier.limit_bytes { " of " (mebibytes(limit)) }
                    }
                }
            }
        }
    }
}

fn partitions(view: &ClusterView) -> Markup {
    let of = |kind: TaskKind, partition: u16| {
        view.tasks.iter().find(move |task| task.kind == kind && task.partition == partition)
    };
    html! {
        h2 { "Partitions" }
        table {
            tr { th.number { "partition" } th { "gate" } th { "compute" } th.number { "lag" } th.number { "gaps" }
                 th { "results as of" } th { "" } }
            @for partition in 0..view.partitions {
                @let compute = of(TaskKind::Compute, partition);
                @let gate = of(TaskKind::Gate, partition);
                tr {
                    td.number { (partition) }
                    td { (state(gate)) }
                    td { (state(compute)) }
                    td.number { (number(gate.and_then(|task| task.lag))) }
                    td.number { (compute.map_or(0, |task| task.gaps)) }
                    td { (compute.and_then(|task| task.as_of.as_deref()).unwrap_or("not yet")) }
                    td.quiet { (compute.map_or("", |task| task.detail.as_str())) }
                }
            }
        }
    }
}

fn state(task: Option<&TaskView>) -> &'static str {
    task.map_or("none", |task| task.state.name())
}

fn number(count: Option<u64>) -> String {
    count.map_or_else(String::new, |count| count.to_string())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
