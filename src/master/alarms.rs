//! Incidents that the active master opens and closes by itself, from what the catalog, the reports and the connections say.
//!
//! Invariant: an incident opens only after its cause has lasted, and closes only after it has been gone for a while; the
//! subjects are a fixed few, whatever the reports say.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Change;
use super::duties::Group;
use super::roster::Roster;
use crate::model::incident::IncidentKind;
use crate::model::report::TaskState;
use crate::model::task::Task;

/// Of several, so many are named.
const NAMED: usize = 5;

/// Something that may be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub kind: IncidentKind,
    pub subject: String,
    /// What is wrong; `None` if nothing is.
    pub text: Option<String>,
    pub opens_after_ms: i64,
    pub closes_after_ms: i64,
}

/// How long conditions have been as they are.
#[derive(Debug, Default)]
pub struct Alarms {
    since: BTreeMap<String, (bool, i64)>,
}

impl Alarms {
    /// The changes that the conditions call for by now, each with a name of its own.
    pub fn look(&mut self, now_ms: i64, group: &Group<'_>, conditions: Vec<Condition>) -> Vec<(String, Change)> {
        let mut changes = Vec::new();
        for Condition { kind, subject, text, opens_after_ms, closes_after_ms } in conditions {
            let name = format!("{kind:?} {subject}");
            let is_so = text.is_some();
            let since = self.since.entry(name.clone()).or_insert((is_so, now_ms));
            if since.0 != is_so || since.1 > now_ms {
                *since = (is_so, now_ms);
            }
            let lasts_ms = now_ms - since.1;
            let is_open = group.catalog.incidents().find(kind, &subject).is_some();
            match text {
                Some(text) if !is_open && lasts_ms >= opens_after_ms => {
                    changes.push((name, Change::OpenIncident { kind, subject, text }));
                }
                None if is_open && lasts_ms >= closes_after_ms => {
                    changes.push((name, Change::CloseIncident { kind, subject }));
                }
                _ => {}
            }
        }
        changes
    }
}

/// The first few of them, and how many more.
fn listed<T: ToString>(all: &[T]) -> String {
    let mut text = all.iter().take(NAMED).map(T::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}

/// All conditions, as they are now.
pub fn conditions(now_ms: i64, group: &Group<'_>, roster: &Roster, wanted: &BTreeSet<Task>) -> Vec<Condition> {
    let mut conditions = unowned(group, wanted);
    conditions.extend(from_reports(now_ms, group, roster));
    conditions.push(masters(group));
    conditions
}

fn unowned(group: &Group<'_>, wanted: &BTreeSet<Task>) -> Vec<Condition> {
    const KINDS: [(&str, &str); 3] =
        [("gates", "gate"), ("computations", "slave"), ("other tasks", "capture or query")];
    let place = |task: &Task| match task {
        Task::Gate(_) => 0,
        Task::Compute(_) => 1,
        Task::Capture(_) | Task::Archive(_) | Task::AnalyseQueries(_) => 2,
    };
    let mut counts = [0; KINDS.len()];
    let has_owner = |task: &Task| group.catalog.task(task).is_some_and(|now| now.owner.is_some());
    let others = group.catalog.tasks().map(|(task, _)| task).filter(|task| !wanted.contains(*task));
    wanted.iter().chain(others).filter(|task| !has_owner(task)).for_each(|task| counts[place(task)] += 1);
    let condition = |((subject, role), count): ((&str, &str), usize)| Condition {
        kind: IncidentKind::Unowned,
        subject: subject.to_owned(),
        text: (count > 0)
            .then(|| format!("{count} of them are nobody's: no node of role {role} can take them; start one")),
        opens_after_ms: 2_000,
        closes_after_ms: 1_000,
    };
    KINDS.into_iter().zip(counts).map(condition).collect()
}

/// What owners say of their own tasks.
fn from_reports(now_ms: i64, group: &Group<'_>, roster: &Roster) -> [Condition; 2] {
    let (mut gaps, mut failing) = (BTreeSet::new(), Vec::new());
    for (node, report, _) in roster.reports(now_ms, group.catalog) {
        for said in &report.tasks {
            let now = group.catalog.task(&said.task);
            if now.is_none_or(|now| now.owner.as_ref() != Some(node) || now.epoch != said.epoch) {
                continue;
            }
            if let (Task::Gate(partition) | Task::Compute(partition), true) = (&said.task, said.gaps > 0) {
                gaps.insert(partition.0);
            }
            if said.state == TaskState::Failing {
                failing.push(format!("{} on {node}: {}", said.task, said.detail));
            }
        }
    }
    let gaps: Vec<u16> = gaps.into_iter().collect();
    [
        Condition {
            kind: IncidentKind::Gap,
            subject: "partitions".to_owned(),
            text: (!gaps.is_empty()).then(|| format!("changes are missing in {}; answers say so", listed(&gaps))),
            opens_after_ms: 2_000,
            closes_after_ms: 5_000,
        },
        Condition {
            kind: IncidentKind::Other,
            subject: "failing tasks".to_owned(),
            text: (!failing.is_empty()).then(|| listed(&failing)),
            opens_after_ms: 5_000,
            closes_after_ms: 5_000,
        },
    ]
}

fn masters(group: &Group<'_>) -> Condition {
    let away: Vec<&str> = (group.masters.voters.iter().filter(|id| !group.is_reachable(**id)))
        .map(|id| group.masters.addresses.get(id).map_or("one without an address", String::as_str))
        .collect();
    let (all, left) = (group.masters.voters.len(), group.masters.voters.len() - away.len());
    let text = || {
        let spare = left.saturating_sub(all / 2 + 1);
        format!(
            "{left} of {all} are reached, not {}; {spare} more may be lost before nothing can be decided",
            listed(&away)
        )
    };
    Condition {
        kind: IncidentKind::Other,
        subject: "masters".to_owned(),
        text: (!away.is_empty()).then(text),
        opens_after_ms: 5_000,
        closes_after_ms: 3_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::catalog::Catalog;
    use crate::master::command::Command;
    use crate::master::masters::Masters;

    #[test]
    fn an_incident_opens_and_closes_only_after_its_cause_has_lasted() {
        let (mut catalog, masters, reachable) = (Catalog::default(), Masters::default(), BTreeSet::new());
        let mut alarms = Alarms::default();
        let mut opened = 0;
        let mut look = |now_ms: i64, is_so: bool| {
            let condition = Condition {
                kind: IncidentKind::Gap,
                subject: "x".into(),
                text: is_so.then(|| "wrong".into()),
                opens_after_ms: 100,
                closes_after_ms: 300,
            };
            let group = Group {
                catalog: &catalog,
                index: 1,
                applied: 1,
                term: 1,
                me: 1,
                masters: &masters,
                reachable: &reachable,
            };
            let changes = alarms.look(now_ms, &group, vec![condition]);
            opened += changes.len();
            for (_, change) in changes {
                catalog.apply(Command { at_ms: now_ms, change });
            }
            catalog.incidents().open().count()
        };
        assert_eq!([look(0, true), look(99, true), look(100, true), look(150, true)], [0, 0, 1, 1]);
        // It comes and goes.
        for step in 0..10 {
            assert_eq!(look(200 + 50 * step, step % 2 == 0), 1);
        }
        assert_eq!([look(700, false), look(900, false), look(960, false), look(1_100, false)], [1, 1, 0, 0]);
        assert_eq!(opened, 2);
    }
}
