//! A line chart as SVG. Pure.
//!
//! Invariant: whatever the figures (none, one, zeros, not a number), the drawing has only finite numbers; its size is
//! bounded by its width, not by the number of samples.

use maud::{Markup, html};

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 150.0;
/// Room for the scale's words.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 20.0;
const TOP: f64 = 8.0;
/// More points than this cannot be told apart; neighbours become one.
const POINTS_MOST: usize = 150;

/// One figure over time.
pub struct Line {
    pub name: &'static str,
    /// The style sheet's class: colour and dashes.
    pub class: &'static str,
    /// When (Unix milliseconds), and the value where there was one; in the order of time.
    pub points: Vec<(i64, Option<f64>)>,
}

/// A chart.
pub struct Chart {
    pub title: &'static str,
    pub lines: Vec<Line>,
    /// How values are written.
    pub unit: fn(f64) -> String,
}

impl Chart {
    pub fn show(&self) -> Markup {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let values = || all().filter_map(|(_, value)| value.filter(|value| value.is_finite()));
        let (from, to) = all().fold((i64::MAX, i64::MIN), |(from, to), (at, _)| (from.min(*at), to.max(*at)));
        let top = ceiling(values().fold(0.0, f64::max));
        html! {
            figure.chart {
                figcaption {
                    span.title { (self.title) }
                    @for line in &self.lines {
                        span.key {
                            svg viewBox="0 0 24 8" aria-hidden="true" focusable="false" { path.(line.class) d="M0 4H24" {} }
                            (line.name) " " b { (latest(line).map_or_else(|| "–".to_owned(), self.unit)) }
                        }
                    }
                }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.words()) {
                    @for part in [0.0, 0.5, 1.0] {
                        @let y = height(part * top, top);
                        path.grid d=(format!("M{LEFT} {y:.1}H{WIDTH}")) {}
                        text.scale x=(LEFT - 6.0) y=(format!("{:.1}", y + 4.0)) text-anchor="end" { ((self.unit)(part * top)) }
                    }
                    @if values().next().is_none() {
                        text.empty x=(LEFT + (WIDTH - LEFT) / 2.0) y=(HEIGHT / 2.0) text-anchor="middle" { "nothing yet" }
                    } @else {
                        text.scale x=(LEFT) y=(HEIGHT - 4.0) { (ago(to - from)) }
                        text.scale x=(WIDTH) y=(HEIGHT - 4.0) text-anchor="end" { "now" }
                        @for line in &self.lines { path.line.(line.class) d=(path(line, from, to, top)) {} }
                    }
                }
            }
        }
    }

    /// The chart for those who do not see it.
    fn words(&self) -> String {
        let words = self.lines.iter().map(|line| {
            let values = || line.points.iter().filter_map(|(_, value)| value.filter(|value| value.is_finite()));
            match latest(line) {
                None => format!("{}: nothing yet", line.name),
                Some(now) => format!(
                    "{}: now {}, between {} and {}",
                    line.name,
                    (self.unit)(now),
                    (self.unit)(values().fold(f64::INFINITY, f64::min)),
                    (self.unit)(values().fold(0.0, f64::max))
                ),
            }
        });
        format!("{}. {}", self.title, words.collect::<Vec<_>>().join(". "))
    }
}

fn latest(line: &Line) -> Option<f64> {
    line.points.iter().rev().take(5).find_map(|(_, value)| value.filter(|value| value.is_finite()))
}

fn ago(span_ms: i64) -> String {
    format!("{} ago", super::words::duration(span_ms as f64))
}

/// The next round number whose half is round, too.
fn ceiling(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 3.0, 4.0, 6.0, 8.0]
        .into_iter()
        .map(|step| step * power)
        .find(|ceiling| *ceiling >= value)
        .unwrap_or(10.0 * power)
}

fn height(value: f64, top: f64) -> f64 {
    let part = (value / top).clamp(0.0, 1.0);
    TOP + (1.0 - part) * (HEIGHT - TOP - BOTTOM)
}

/// A path that breaks where there is no value.
fn path(line: &Line, from: i64, to: i64, top: f64) -> String {
    let span = (to - from).max(1) as f64;
    let each = line.points.len().div_ceil(POINTS_MOST).max(1);
    let (mut path, mut is_open) = (String::new(), false);
    for group in line.points.chunks(each) {
        // Of neighbours the highest: a peak is not lost.
        let highest = group.iter().filter_map(|(_, value)| value.filter(|value| value.is_finite())).reduce(f64::max);
        let Some(value) = highest else {
            is_open = false;
            continue;
        };
        let at = group.last().map_or(from, |(at, _)| *at);
        let x = LEFT + (at - from) as f64 / span * (WIDTH - LEFT);
        let y = height(value, top);
        // A point alone is a dot, thanks to round ends.
        path.push_str(&if is_open { format!("L{x:.1} {y:.1}") } else { format!("M{x:.1} {y:.1}h.01") });
        is_open = true;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(points: Vec<(i64, Option<f64>)>) -> String {
        let line = Line { name: "rows", class: "one", points };
        Chart { title: "Rows", lines: vec![line], unit: crate::admin::words::count }.show().into_string()
    }

    #[test]
    fn no_figures_make_no_numbers_that_are_none() {
        let odd = vec![(5, Some(f64::NAN)), (5, Some(f64::INFINITY)), (5, None)];
        for points in [vec![], vec![(5, None)], vec![(5, Some(0.0))], vec![(5, Some(-3.0)), (5, Some(7.0))], odd] {
            let svg = drawn(points.clone());
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?}: {svg}");
        }
        assert!(drawn(vec![]).contains("nothing yet"));
        assert!(drawn(vec![(5, Some(0.0))]).contains("now 0"), "zero is a figure");
    }

    #[test]
    fn many_samples_draw_as_much_as_few_and_keep_their_peaks() {
        let mut points: Vec<(i64, Option<f64>)> = (0..100_000).map(|at| (at, Some(1.0))).collect();
        points[777].1 = Some(50.0);
        let svg = drawn(points);
        assert!(svg.len() < 8_000, "{} bytes", svg.len());
        assert!(svg.contains(&format!(" {TOP:.1}")), "the peak touches the top: {svg}");
    }

    #[test]
    fn a_line_breaks_where_nothing_is_known() {
        let points = vec![(0, Some(1.0)), (1, Some(2.0)), (2, None), (3, Some(1.0))];
        let line = Line { name: "rows", class: "one", points };
        assert_eq!(path(&line, 0, 3, 2.0).matches('M').count(), 2);
    }

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0.0, 0.7, 1.0, 1.2, 4.9, 5.1, 930.0].map(ceiling), [1.0, 0.8, 1.0, 2.0, 6.0, 6.0, 1_000.0]);
    }
}
