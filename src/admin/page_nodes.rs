//! Nodes and masters on the page. Pure.
//!
//! Invariant: every node is in the table; what it did not report is a dash, not a zero.

use maud::{Markup, html};

use super::owners::Owners;
use super::page::{state, time};
use super::view::{ClusterView, Level, MasterView, NodeView};
use super::words::{bytes, count};

/// Rows that are shown at once; in a larger cluster those that matter least are folded away.
const SHOWN: usize = 40;

pub fn nodes(view: &ClusterView) -> Markup {
    let owners = Owners::of(view);
    let mut by_need: Vec<&NodeView> = view.nodes.iter().collect();
    // A stable sort: nodes stay in their order within what they need.
    by_need.sort_by_key(|node| std::cmp::Reverse((node.state.level(), !node.reports)));
    let mut shown: Vec<&NodeView> = by_need.iter().take(SHOWN).copied().collect();
    let folded = by_need.get(SHOWN..).unwrap_or_default();
    if folded.is_empty() {
        shown = view.nodes.iter().collect();
    }
    html! {
        (table(view, &owners, &shown))
        @if !folded.is_empty() {
            details #more-nodes {
                summary { (folded.len()) " more nodes, all of them alive or no worse than those above" }
                (table(view, &owners, folded))
            }
        }
    }
}

fn table(view: &ClusterView, owners: &Owners<'_>, nodes: &[&NodeView]) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label="Nodes, a table that scrolls" {
            table {
                caption.hidden { "Nodes with state and load" }
                thead {
                    tr {
                        th scope="col" { "Node" } th scope="col" { "State" } th scope="col" { "Roles" }
                        th scope="col" { "Load" } th.number scope="col" { "Memory" } th.number scope="col" { "Tasks" }
                        th.number scope="col" { "Rows in/s" } th.number scope="col" { "Counted/s" }
                        th.number scope="col" { "Queries/s" }
                    }
                }
                tbody { @for node in nodes { (row(view, owners, node)) } }
            }
        }
    }
}

fn row(view: &ClusterView, owners: &Owners<'_>, node: &NodeView) -> Markup {
    let is_active = view.active_master.as_deref() == Some(node.name.as_str());
    let figure = |value: String| if node.reports { value } else { "–".to_owned() };
    let does = |role: &str| node.roles.iter().any(|own| own == role);
    let rate = |role: &str, rate: f64| if does(role) { figure(count(rate)) } else { String::new() };
    html! {
        tr {
            th scope="row" {
                (owners.badge(&node.name))
                @if node.http.is_empty() { (node.name) } @else { a href={ (node.http) "/" } { (node.name) } }
                @if is_active { " " span.tag { "active master" } }
                @if node.name == view.answered_by { " " span.tag { "this page" } }
            }
            td {
                (state(node.state.level(), node.state.name()))
                @if node.state.level() != Level::Good && !node.since.is_empty() {
                    span.quiet { " since " (time(&node.since, view)) }
                } @else if !node.reports { span.quiet { " no report" } }
            }
            td.quiet { (node.roles.join(", ")) }
            td.load { @if node.reports { (load(node)) } @else { "–" } }
            td.number { (figure(bytes(node.resident_bytes))) }
            td.number { (node.tasks) @if node.standby_tasks > 0 { span.quiet { " +" (node.standby_tasks) } } }
            td.number { (rate("gate", node.rates.changes_ingested)) }
            td.number { (rate("slave", node.rates.changes_applied)) }
            td.number { (rate("query", node.rates.queries)) }
        }
    }
}

/// A bar with its figure beside it.
fn load(node: &NodeView) -> Markup {
    let percent = if node.load.is_finite() { (node.load * 100.0).clamp(0.0, 100.0) } else { 0.0 };
    let level = if percent > 90.0 { Level::Warn } else { Level::Good };
    html! {
        svg.bar.(level.name()) viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect.ground width="100" height="10" rx="3" {}
            rect.fill width=(format!("{percent:.0}")) height="10" rx="3" {}
        }
        " " (format!("{percent:.0}")) "% of " (node.cores)
    }
}

pub fn masters(view: &ClusterView) -> Markup {
    html! {
        p {
            @match &view.active_master {
                Some(active) => { "Active: " b { (active) } ", term " b { (view.term) } "." }
                None => { "No active master is known; the last term was " b { (view.term) } "." }
            }
        }
        @if !view.masters.is_empty() {
            div.wide tabindex="0" role="region" aria-label="Masters, a table that scrolls" {
                table {
                    caption.hidden { "Masters" }
                    thead { tr { th scope="col" { "Master" } th scope="col" { "Address" } th scope="col" { "Stands" } } }
                    tbody {
                        @for master in &view.masters {
                            tr {
                                th scope="row" { (master.node.as_deref().unwrap_or("not known")) }
                                td { (master.address) }
                                td { (standing(master)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn standing(master: &MasterView) -> Markup {
    match master {
        MasterView { active: true, .. } => state(Level::Good, "active"),
        MasterView { reachable: false, .. } => state(Level::Warn, "not reachable"),
        MasterView { votes: false, .. } => state(Level::Warn, "learning, does not vote yet"),
        _ => state(Level::Good, "standby"),
    }
}
