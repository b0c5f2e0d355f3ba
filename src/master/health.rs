//! The modes of tiers, from how the nodes say that they look from there.
//!
//! Invariant: a mode changes only after most of those who use the tier have said the same for a while; one node's own trouble
//! is not the tier's.

use super::command::Change;
use super::duties::Group;
use super::roster::Roster;
use crate::model::mode::{Mode, Policy, Tier};

/// Trouble that lasts.
const TRIP_MS: i64 = 2_000;
/// No trouble for so long.
const CLEAR_MS: i64 = 3_000;

/// How long tiers have looked as they do.
#[derive(Debug, Default)]
pub struct Health {
    since: [Option<(bool, i64)>; 5],
}

impl Health {
    pub fn look(&mut self, now_ms: i64, group: &Group<'_>, roster: &Roster) -> Vec<(Tier, Change)> {
        let mut changes = Vec::new();
        for tier in Tier::ALL {
            let (mut users, mut troubled, mut words) = (0, 0, None);
            for (node, report, _) in roster.reports(now_ms, group.catalog) {
                let Some(said) = report.tiers.iter().find(|said| said.tier == tier) else { continue };
                users += 1;
                if let Some(trouble) = &said.trouble {
                    troubled += 1;
                    words.get_or_insert_with(|| format!("{node}: {trouble}"));
                }
            }
            let since = &mut self.since[tier as usize];
            if users == 0 {
                *since = None;
                continue;
            }
            let is_down = 2 * troubled >= users;
            match since {
                Some((was_down, since_ms)) if *was_down == is_down && *since_ms <= now_ms => {}
                _ => *since = Some((is_down, now_ms)),
            }
            let lasts_ms = since.map_or(0, |(_, since_ms)| now_ms - since_ms);
            let standing = group.catalog.tier(tier);
            let mode = if is_down { Mode::Degraded } else { Mode::Normal };
            let is_due = lasts_ms >= if is_down { TRIP_MS } else { CLEAR_MS };
            if standing.policy == Policy::Auto && standing.mode != mode && is_due {
                let reason = words.unwrap_or_else(|| "no node has trouble with it any more".to_owned());
                changes.push((tier, Change::SetMode { tier, mode, reason }));
            }
        }
        changes
    }
}
