//! What is wrong with the cluster, since when, and what to do about it. Pure.
//!
//! Invariant: a healthy cluster has no complaints; the number of complaints does not grow with the number of nodes or
//! partitions.

use super::partitions::{LATE_MS, state_level};
use super::view::{ClusterView, Complaint, Level, NodeState, NodeView, TaskKind, TaskView, TierView};
use super::words::{clock, count, duration, list};
use crate::model::incident::IncidentKind;
use crate::model::mode::Mode;
use crate::model::report::TaskState;

/// Names that a sentence carries; of the others it gives the number.
const NAMES_MOST: usize = 5;
/// Incidents that get a sentence of their own.
const INCIDENTS_MOST: usize = 5;
/// So many seconds of work that wait in mq are a complaint.
const BEHIND_SECONDS: f64 = 10.0;
/// Fewer changes than this are no backlog, however slow.
const BEHIND_CHANGES: u64 = 1_000;

/// Everything that is not as it should be, the worst first.
pub fn complaints(view: &ClusterView) -> Vec<Complaint> {
    let mut found = Found { view, complaints: Vec::new() };
    found.masters();
    view.tiers.iter().for_each(|tier| found.tier(tier));
    found.owners();
    found.nodes();
    found.tasks();
    found.gaps();
    found.pace();
    found.incidents();
    found.own_phase();
    found.complaints.sort_by_key(|complaint| std::cmp::Reverse(complaint.level));
    found.complaints
}

struct Found<'a> {
    view: &'a ClusterView,
    complaints: Vec<Complaint>,
}

impl Found<'_> {
    fn add(&mut self, level: Level, what: String, since: Option<String>, advice: impl Into<String>) {
        self.complaints.push(Complaint { level, what, since, advice: advice.into() });
    }

    fn masters(&mut self) {
        let voters = self.view.masters.iter().filter(|master| master.votes);
        let (here, away): (Vec<_>, Vec<_>) = voters.partition(|master| master.reachable || master.active);
        let addresses: Vec<String> = away.iter().map(|master| master.address.clone()).collect();
        let names = list(&addresses, NAMES_MOST);
        if self.view.active_master.is_none() {
            let away = if names.is_empty() { String::new() } else { format!(" Not reachable from here: {names}.") };
            let advice = format!(
                "Queries are answered and rows are counted as before; only lost nodes are not replaced and modes do not \
                 change. A new master is elected by itself; if it lasts, start the missing masters again.{away}"
            );
            return self.add(Level::Bad, "No active master".to_owned(), self.view.no_master_since.clone(), advice);
        }
        if !away.is_empty() {
            let spare = here.len().saturating_sub((here.len() + away.len()) / 2 + 1);
            let left = match spare {
                0 => "one more, and nothing can be reassigned".to_owned(),
                spare => format!("{spare} more may fail"),
            };
            let what = format!("{} of {} masters not reachable", away.len(), here.len() + away.len());
            self.add(Level::Warn, what, None, format!("Start again: {names}. Until then {left}."));
        }
    }

    fn owners(&mut self) {
        let view = self.view;
        let of = |kind: TaskKind| -> Vec<String> {
            view.tasks.iter().filter(|task| task.owner.is_none() && task.kind == kind).map(subject).collect()
        };
        for (kind, role) in [
            (TaskKind::Compute, "slave"),
            (TaskKind::Gate, "gate"),
            (TaskKind::Capture, "capture"),
            (TaskKind::Archive, "slave"),
            (TaskKind::Analyse, "query"),
        ] {
            let unowned = of(kind);
            if !unowned.is_empty() {
                let what = match kind {
                    TaskKind::Compute => format!("Nobody computes {}", partitions(&unowned)),
                    TaskKind::Gate => format!("No gate for {}", partitions(&unowned)),
                    _ => format!("Nobody does {} of {}", kind.name(), list(&unowned, NAMES_MOST)),
                };
                let advice = format!("Start a node with the role {role}: holdfast node --role {role} --join …");
                self.add(Level::Bad, what, None, advice);
            }
        }
    }

    fn tier(&mut self, tier: &TierView) {
        let name = &tier.tier;
        let since = Some(tier.since.clone());
        let reason = tier.reason.as_ref().or(tier.trouble.as_ref());
        let reason = reason.map(|why| format!("Reason: {why}. ")).unwrap_or_default();
        if tier.mode == Mode::Normal {
            if !tier.troubled_nodes.is_empty() {
                let nodes = list(&tier.troubled_nodes, NAMES_MOST);
                let why = tier.trouble.as_deref().unwrap_or("no reason given");
                let advice = format!("It says: {why}. It is tried again by itself; look at {name} if it lasts.");
                self.add(Level::Warn, format!("{name} fails for {nodes}"), None, advice);
            }
            return;
        }
        let advice = match tier.policy.as_str() {
            "hold" => format!("An operator holds it there. To give it back: holdfast tier {name} auto"),
            "drill" => {
                let until = tier.until.as_deref().map(|until| clock(until, &self.view.now)).unwrap_or_default();
                format!("A drill: it ends by itself at {until}.")
            }
            _ if tier.mode == Mode::Recovering => "It is back and being brought up to date; nothing to do.".to_owned(),
            _ => format!("Bring {name} back; it is used again by itself. Answers go on and say what they lack."),
        };
        let level = if tier.mode == Mode::Degraded { Level::Bad } else { Level::Warn };
        self.add(level, format!("{name} is {}", tier.mode.as_str()), since, reason + &advice);
    }

    fn nodes(&mut self) {
        for (state, level) in [(NodeState::Lost, Level::Bad), (NodeState::Suspect, Level::Warn)] {
            let of: Vec<&NodeView> = self.view.nodes.iter().filter(|node| node.state == state).collect();
            let names: Vec<String> = of.iter().map(|node| node.name.clone()).collect();
            if let Some(since) = of.iter().map(|node| node.since.clone()).min() {
                let what = match &names[..] {
                    [name] => format!("Node {name} is {}", state.name()),
                    names => format!("{} nodes are {}: {}", names.len(), state.name(), list(names, NAMES_MOST)),
                };
                let (its, it) = if names.len() == 1 { ("Its", "it") } else { ("Their", "them") };
                let advice = match state {
                    NodeState::Lost => format!("{its} tasks are given to others. Start {it} again."),
                    _ => "The connection was closed. In a moment it is back, or the tasks are given to others."
                        .to_owned(),
                };
                self.add(level, what, Some(since), advice);
            }
        }
        let quiet = |node: &&NodeView| node.state == NodeState::Alive && !node.reports;
        let names: Vec<String> = self.view.nodes.iter().filter(quiet).map(|node| node.name.clone()).collect();
        if !names.is_empty() {
            let what = format!("No report of {}", list(&names, NAMES_MOST));
            self.add(
                Level::Warn,
                what,
                None,
                "They live, but do not say how they are; look at their logs if it lasts.",
            );
        }
    }

    fn tasks(&mut self) {
        for ((kind, state), _) in self.view.task_counts() {
            if state == TaskState::Running {
                continue;
            }
            let is_it = |task: &&TaskView| task.kind == kind && task.state == state && task.owner.is_some();
            let of: Vec<&TaskView> = self.view.tasks.iter().filter(is_it).collect();
            let Some(first) = of.first() else { continue };
            let subjects: Vec<String> = of.iter().map(|task| subject(task)).collect();
            let detail = if first.detail.is_empty() { String::new() } else { format!("It says: {}. ", first.detail) };
            let what = format!("{} is {} {}", capital(kind.name()), state.name(), places(kind, &subjects));
            let node = first.owner.as_deref().unwrap_or("its node");
            let advice = match state {
                TaskState::Failing => format!("It goes on by itself once that ends. The log of {node} says more."),
                TaskState::Catching => "It reads what was there before; nothing to do.".to_owned(),
                TaskState::Fenced => "A newer owner works on it; nothing to do.".to_owned(),
                _ => format!("It is busy or about to move; if it lasts, look at the log of {node}."),
            };
            self.add(state_level(state), what, None, detail + &advice);
        }
    }

    fn gaps(&mut self) {
        let with_gaps: Vec<String> = self.view.tasks.iter().filter(|task| task.gaps > 0).map(subject).collect();
        if !with_gaps.is_empty() {
            let what = format!("Changes are missing {}", places(TaskKind::Compute, &with_gaps));
            let advice = "Answers over them say that they are not exact. They close by themselves when the source sends the \
                          missing changes again.";
            self.add(Level::Bad, what, None, advice);
        }
    }

    /// Which stage is slow.
    fn pace(&mut self) {
        let lag = self.view.freshness.lag;
        let seconds = lag as f64 / self.view.rates.changes_applied.max(1.0);
        if lag >= BEHIND_CHANGES && seconds > BEHIND_SECONDS {
            let what = format!("Gates are behind: {} changes wait in mq", count(lag as f64));
            let work = duration(seconds * 1e3);
            let advice =
                format!("About {work} of work. More nodes with the roles gate and slave take their share at once.");
            self.add(Level::Warn, what, None, advice);
        }
        let age = |task: &TaskView| self.view.age_ms(task.as_of.as_deref()?);
        let is_late = |task: &&TaskView| task.state == TaskState::Running && age(task).is_some_and(|it| it > LATE_MS);
        let late: Vec<&TaskView> = self.view.tasks.iter().filter(is_late).collect();
        if let Some(oldest) = late.iter().max_by_key(|task| age(task)) {
            let subjects: Vec<String> = late.iter().map(|task| subject(task)).collect();
            let by = duration(age(oldest).unwrap_or_default() as f64);
            let what = format!("Results are up to {by} old {}", places(TaskKind::Compute, &subjects));
            let owner = oldest.owner.as_deref().unwrap_or("nobody");
            let advice = format!("Partition {} is the oldest, computed by {owner}: see its load.", subject(oldest));
            self.add(Level::Warn, what, oldest.as_of.clone(), advice);
        }
    }

    /// Those that nothing above speaks of.
    fn incidents(&mut self) {
        let has_gaps = self.view.tasks.iter().any(|task| task.gaps > 0);
        let open = self.view.incidents.iter().filter(|incident| incident.closed.is_none());
        let own: Vec<_> = open
            .filter(|incident| match incident.kind {
                IncidentKind::Gap => !has_gaps,
                IncidentKind::Unavailable | IncidentKind::Other => true,
                _ => false,
            })
            .collect();
        for incident in own.iter().take(INCIDENTS_MOST) {
            let level = if incident.kind == IncidentKind::Other { Level::Warn } else { Level::Bad };
            let what = format!("{}: {}", incident.subject, incident.text);
            self.add(level, what, Some(incident.opened.clone()), "It closes by itself when that is over.");
        }
        if own.len() > INCIDENTS_MOST {
            let what = format!("{} more incidents are open", own.len() - INCIDENTS_MOST);
            self.add(Level::Warn, what, None, "They are listed under incidents.");
        }
    }

    fn own_phase(&mut self) {
        if !self.view.ready {
            let own = self.view.nodes.iter().find(|node| node.name == self.view.answered_by);
            let state = own.map_or("starting", |node| node.state.name());
            let what = format!("Not ready: node {} is {state}", self.view.answered_by);
            self.add(Level::Warn, what, None, "It takes no requests meanwhile.");
        }
    }
}

fn subject(task: &TaskView) -> String {
    match (task.partition, &task.subject) {
        (Some(partition), _) => partition.to_string(),
        (None, subject) => subject.clone().unwrap_or_default(),
    }
}

fn places(kind: TaskKind, subjects: &[String]) -> String {
    match kind {
        TaskKind::Gate | TaskKind::Compute => format!("in {}", partitions(subjects)),
        _ => format!("of {}", list(subjects, NAMES_MOST)),
    }
}

fn partitions(subjects: &[String]) -> String {
    let names = list(subjects, NAMES_MOST);
    match subjects.len() {
        1 => format!("partition {names}"),
        len if len > NAMES_MOST => format!("{len} partitions ({names})"),
        _ => format!("partitions {names}"),
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
