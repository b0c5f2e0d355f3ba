//! The whole cluster over the last minutes, a sample each second, from what nodes report.
//!
//! Invariant: bounded; times only go forward; a sample is made of reports that were fresh then.

use std::collections::VecDeque;

use super::duties::Group;
use super::roster::Roster;
use crate::model::task::Task;
use crate::net::control::Sample;

pub const INTERVAL_MS: i64 = 1_000;
const SAMPLES_MOST: usize = 600;

#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Takes a sample, if it is time.
    pub fn look(&mut self, now_ms: i64, group: &Group<'_>, roster: &Roster) {
        let last_ms = self.samples.back().map_or(i64::MIN, |sample| sample.at_ms);
        if now_ms.saturating_sub(last_ms) < INTERVAL_MS {
            return;
        }
        if self.samples.len() >= SAMPLES_MOST {
            self.samples.pop_front();
        }
        self.samples.push_back(sample(now_ms, group, roster));
    }

    pub fn after(&self, at_ms: i64) -> Vec<Sample> {
        self.samples.iter().filter(|sample| sample.at_ms > at_ms).copied().collect()
    }
}

fn sample(now_ms: i64, group: &Group<'_>, roster: &Roster) -> Sample {
    let mut sample = Sample { at_ms: now_ms, ..Sample::default() };
    let (mut emissions, mut p50_sum, mut p99) = (0.0, 0.0, 0.0_f64);
    for (node, report, age_ms) in roster.reports(now_ms, group.catalog) {
        sample.ingested += report.rates.ingested;
        sample.applied += report.rates.applied;
        sample.queries += report.rates.queries;
        if report.freshness.samples > 0 {
            let weight = report.freshness.samples as f64;
            (emissions, p50_sum) = (emissions + weight, p50_sum + weight * report.freshness.p50_ms);
            p99 = p99.max(report.freshness.p99_ms);
        }
        for said in &report.tasks {
            let now = group.catalog.task(&said.task);
            if now.is_none_or(|now| now.owner.as_ref() != Some(node)) {
                continue;
            }
            sample.lag = sample.lag.saturating_add(said.lag.unwrap_or(0));
            if let (Task::Compute(_), Some(as_of_ms)) = (&said.task, said.as_of_ms) {
                // Both by the node's clock; since then the master's.
                let old_ms = (report.at_ms.saturating_sub(as_of_ms).max(0) + age_ms) as f64;
                sample.oldest_ms = Some(sample.oldest_ms.map_or(old_ms, |oldest| oldest.max(old_ms)));
            }
        }
    }
    if emissions > 0.0 {
        // The nodes' medians, by their emissions: near enough to theirs together.
        (sample.fresh_p50_ms, sample.fresh_p99_ms) = (Some(p50_sum / emissions), Some(p99));
    }
    sample
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::master::catalog::Catalog;
    use crate::master::masters::Masters;

    #[test]
    fn i6_ten_minutes_are_kept_a_sample_a_second() {
        let (catalog, masters, reachable) = (Catalog::default(), Masters::default(), BTreeSet::new());
        let group =
            Group { catalog: &catalog, index: 1, applied: 1, term: 1, me: 1, masters: &masters, reachable: &reachable };
        let (mut history, roster) = (History::default(), Roster::default());
        for tick in 0..80_000 {
            history.look(tick * 25, &group, &roster);
        }
        assert_eq!(history.after(i64::MIN).len(), SAMPLES_MOST);
        assert_eq!(history.after(80_000 * 25 - 3_000).len(), 2);
    }
}
