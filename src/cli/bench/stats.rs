//! Medians, spreads and percentiles of repeated measurements. Pure.
//!
//! Invariant: a figure never stands without how many runs it comes from and how far they lie apart.

use std::fmt;

/// Several runs of one measurement.
#[derive(Debug, Clone)]
pub struct Runs(Vec<f64>);

impl Runs {
    /// At least one run.
    pub fn new(mut runs: Vec<f64>) -> Self {
        assert!(!runs.is_empty(), "a measurement has runs");
        runs.sort_by(f64::total_cmp);
        Self(runs)
    }

    pub fn median(&self) -> f64 {
        self.percentile(0.5)
    }

    /// The value that `share` of the runs do not exceed (nearest rank).
    pub fn percentile(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }
}

/// Median and the range of all runs.
impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0[0], self.0[self.0.len() - 1]);
        write!(f, "{} ({}–{}, {} runs)", short(self.median()), short(least), short(most), self.0.len())
    }
}

/// Three or so significant digits, thousands grouped.
pub fn short(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_percentiles_are_values_that_were_measured() {
        let runs = Runs::new(vec![5.0, 1.0, 3.0]);
        assert_eq!((runs.median(), runs.percentile(0.99), runs.percentile(0.0)), (3.0, 5.0, 1.0));
        assert_eq!(runs.to_string(), "3.00 (1.00–5.00, 3 runs)");
        assert_eq!(short(1_234_567.8), "1,234,568");
    }
}
