//! Incidents on the page: what is open, and what is over. Pure.
//!
//! Invariant: open ones are always shown; past ones are cut at a number.

use maud::{Markup, html};

use super::page::{state, time};
use super::view::{ClusterView, IncidentView, Level, millis};
use super::words::duration;
use crate::model::incident::IncidentKind;

const PAST_MOST: usize = 30;
const OPEN_MOST: usize = 100;

pub fn incidents(view: &ClusterView) -> Markup {
    let (past, open): (Vec<_>, Vec<_>) = view.incidents.iter().partition(|incident| incident.closed.is_some());
    html! {
        @if open.is_empty() {
            p { "None is open." }
        } @else {
            (table(view, "Open incidents", &open[..open.len().min(OPEN_MOST)]))
            @if open.len() > OPEN_MOST { p.quiet { (open.len() - OPEN_MOST) " more are open." } }
        }
        @if !past.is_empty() {
            details #past-incidents {
                summary { "Past incidents (" (past.len()) ")" }
                (table(view, "Past incidents", &past[..past.len().min(PAST_MOST)]))
            }
        }
    }
}

fn table(view: &ClusterView, caption: &str, incidents: &[&IncidentView]) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label={ (caption) ", a table that scrolls" } {
            table {
                caption.hidden { (caption) }
                thead {
                    tr { th scope="col" { "About" } th scope="col" { "What" } th scope="col" { "Since" } th scope="col" { "Until" } }
                }
                tbody { @for incident in incidents { (row(view, incident)) } }
            }
        }
    }
}

fn row(view: &ClusterView, incident: &IncidentView) -> Markup {
    let lasted = incident.closed.as_deref().and_then(|closed| Some(millis(closed)? - millis(&incident.opened)?));
    html! {
        tr {
            th scope="row" { (state(level(incident), &incident.subject)) " " span.quiet { (kind(incident.kind)) } }
            td { (incident.text) }
            td { (time(&incident.opened, view)) }
            td {
                @match &incident.closed {
                    None => "still open",
                    Some(closed) => {
                        (time(closed, view))
                        @if let Some(lasted) = lasted { span.quiet { " after " (duration(lasted as f64)) } }
                    }
                }
            }
        }
    }
}

fn level(incident: &IncidentView) -> Level {
    match (incident.closed.is_some(), incident.kind) {
        (true, _) => Level::Good,
        (false, IncidentKind::TierHeld | IncidentKind::Other) => Level::Warn,
        (false, _) => Level::Bad,
    }
}

fn kind(kind: IncidentKind) -> &'static str {
    match kind {
        IncidentKind::TierDegraded => "tier degraded",
        IncidentKind::TierHeld => "held by an operator",
        IncidentKind::NodeLost => "node lost",
        IncidentKind::Unowned => "without an owner",
        IncidentKind::Gap => "changes missing",
        IncidentKind::Unavailable => "unavailable",
        IncidentKind::Other => "other",
    }
}
