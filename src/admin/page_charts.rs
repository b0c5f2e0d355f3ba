//! Throughput, freshness and backlog over time on the page. Pure.
//!
//! Invariant: charts show the samples of the document, nothing else.

use maud::{Markup, html};

use super::chart::{Chart, Line};
use super::view::{ClusterView, SampleView};
use super::words::{count, duration};

pub fn charts(view: &ClusterView) -> Markup {
    let line = |name, class, of: fn(&SampleView) -> Option<f64>| Line {
        name,
        class,
        points: view.history.iter().map(|sample| (sample.at_ms, of(sample))).collect(),
    };
    let charts = [
        Chart {
            title: "Rows per second",
            lines: vec![
                line("in", "one", |it| Some(it.rates.changes_ingested)),
                line("counted", "two", |it| Some(it.rates.changes_applied)),
            ],
            unit: count,
        },
        Chart {
            title: "Time until visible",
            lines: vec![
                line("half within", "one", |it| it.freshness.p50_ms),
                line("99 % within", "two", |it| it.freshness.p99_ms),
            ],
            unit: duration,
        },
        Chart {
            title: "Age of the oldest results",
            lines: vec![line("age", "one", |it| it.freshness.oldest_ms)],
            unit: duration,
        },
        Chart {
            title: "Queries per second",
            lines: vec![line("queries", "one", |it| Some(it.rates.queries))],
            unit: count,
        },
    ];
    html! { div.charts { @for chart in &charts { (chart.show()) } } }
}
