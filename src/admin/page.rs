//! The admin page: the cluster's document as HTML, in parts that are replaced one by one while it is open. Pure.
//!
//! Invariant: shows only what the document says, asks no other host for anything, and says all of it without scripts.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::view::{ClusterView, Level};
use super::words::clock;
use super::{page_charts, page_flow, page_map, page_nodes, page_past};

/// What the page loads besides itself; all from the same host.
pub const STYLE: &str = include_str!("page.css");
pub const SCRIPT: &str = include_str!("page.js");
pub const ICON: &str = include_str!("page.svg");

/// Without scripts the page is loaded again this often.
const RELOAD_SECONDS: u32 = 10;

/// A piece of the page that changes by itself.
pub struct Part {
    /// Of the element that it is the content of.
    pub id: &'static str,
    /// Where it stands.
    title: Option<&'static str>,
    pub content: String,
}

/// All parts in their order.
pub fn parts(view: &ClusterView) -> Vec<Part> {
    let part = |id, title, content: Markup| Part { id, title, content: content.into_string() };
    vec![
        part("headline", None, headline(view)),
        part("advice", None, advice(view)),
        part("flow", Some("Flow"), page_flow::flow(view)),
        part("charts", Some("Over time"), page_charts::charts(view)),
        part("partitions", Some("Partitions"), page_map::partitions(view)),
        part("nodes", Some("Nodes"), page_nodes::nodes(view)),
        part("masters", Some("Masters"), page_nodes::masters(view)),
        part("incidents", Some("Incidents"), page_past::incidents(view)),
        part("made", None, made(view)),
    ]
}

/// The browser's title: readable from among other tabs.
pub fn title(view: &ClusterView) -> String {
    match view.complaints.first() {
        None => format!("✓ {} – holdfast", view.name),
        Some(first) => format!("{} {} – {}", sign(first.level), first.what, view.name),
    }
}

/// The whole page. `assets` tells versions of style and script apart.
pub fn page(view: &ClusterView, assets: &str) -> Markup {
    let parts = parts(view);
    let content = |id: &str| {
        let part = parts.iter().find(|part| part.id == id);
        PreEscaped(part.map_or("", |part| part.content.as_str()))
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                noscript { meta http-equiv="refresh" content=(RELOAD_SECONDS); }
                title { (title(view)) }
                link rel="icon" href={ "/page.svg?" (assets) } type="image/svg+xml";
                link rel="stylesheet" href={ "/page.css?" (assets) };
                script src={ "/page.js?" (assets) } defer {}
            }
            body {
                a.skip href="#main" { "To the state of the cluster" }
                header {
                    p.brand { b { "holdfast" } " " span { (view.name) } }
                    nav aria-label="Documents" {
                        a href="/docs/" { "API" }
                        a href="/metrics" { "Metrics" }
                        a href="/api/v1/cluster" { "JSON" }
                    }
                    p #live data-state="still" {
                        span.dot aria-hidden="true" {}
                        span #live-words { noscript { "reloads every " (RELOAD_SECONDS) " s" } }
                    }
                }
                main #main tabindex="-1" {
                    div #headline aria-live="polite" aria-atomic="true" { (content("headline")) }
                    section #advice aria-label="What is wrong and what to do" { (content("advice")) }
                    @for part in parts.iter().filter(|part| part.title.is_some()) {
                        section aria-labelledby={ (part.id) "-title" } class={ "card of-" (part.id) } {
                            h2 id={ (part.id) "-title" } { (part.title.unwrap_or_default()) }
                            div id=(part.id) { (PreEscaped(&part.content)) }
                        }
                    }
                }
                footer #made { (content("made")) }
            }
        }
    }
}

/// The state in one sign.
pub fn sign(level: Level) -> &'static str {
    match level {
        Level::Good => "✓",
        Level::Warn => "▲",
        Level::Bad => "✖",
    }
}

fn headline(view: &ClusterView) -> Markup {
    let level = view.level();
    html! {
        div class={ "headline " (level.name()) } {
            span.sign aria-hidden="true" { (sign(level)) }
            div {
                h1 {
                    @match view.complaints.first() {
                        None => "All is well",
                        Some(first) => (first.what),
                    }
                }
                p {
                    @match view.complaints.first() {
                        None => { "Every partition has an owner, every tier works, and results are fresh." }
                        Some(first) => {
                            @if let Some(since) = &first.since { "since " (time(since, view)) ". " }
                            (first.advice)
                            @if view.complaints.len() > 1 { " (" (view.complaints.len() - 1) " more below)" }
                        }
                    }
                }
            }
        }
    }
}

/// The first complaint is the headline.
fn advice(view: &ClusterView) -> Markup {
    html! {
        @if view.complaints.len() > 1 {
            ul.advice {
                @for complaint in &view.complaints[1..] {
                    li class=(complaint.level.name()) {
                        span.sign aria-hidden="true" { (sign(complaint.level)) }
                        div {
                            strong { (complaint.what) }
                            @if let Some(since) = &complaint.since { span.quiet { " since " (time(since, view)) } }
                            p { (complaint.advice) }
                        }
                    }
                }
            }
        }
    }
}

fn made(view: &ClusterView) -> Markup {
    html! {
        p {
            "As of " time datetime=(view.now) { (clock(&view.now, &view.now)) }
            ", answered by " b { (view.answered_by) } ", holdfast " (view.version)
            ". Hours and days begin in " (view.timezone) "."
        }
    }
}

/// A moment, with its full form for machines.
pub fn time(at: &str, view: &ClusterView) -> Markup {
    html! { time datetime=(at) { (clock(at, &view.now)) } }
}

/// A state as a sign and a word: never by colour alone.
pub fn state(level: Level, word: &str) -> Markup {
    html! { span class={ "state " (level.name()) } { span aria-hidden="true" { (sign(level)) " " } (word) } }
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
