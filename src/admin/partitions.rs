//! The cluster by partition: who has it, how it stands, which ones are worst. Pure.
//!
//! Invariant: every partition is in it once, whether anybody does it or not.

use super::view::{ClusterView, Level, TaskKind, TaskView};
use super::words;
use crate::model::report::TaskState;

/// Results that are older than this are late: heartbeats renew them every second.
pub const LATE_MS: i64 = 15_000;

/// A partition with its two tasks.
#[derive(Debug, Clone)]
pub struct PartitionRow<'a> {
    pub partition: u16,
    pub gate: Option<&'a TaskView>,
    pub compute: Option<&'a TaskView>,
    /// The age of its results.
    pub age_ms: Option<i64>,
    pub level: Level,
    /// What is not as it should be, in few words; empty if all is well.
    pub words: String,
}

impl PartitionRow<'_> {
    pub fn owner(&self) -> Option<&str> {
        self.compute?.owner.as_deref()
    }

    pub fn standby(&self) -> Option<&str> {
        self.compute?.standby.as_deref()
    }

    pub fn lag(&self) -> u64 {
        let lags = [self.gate, self.compute].into_iter().flatten().filter_map(|task| task.lag);
        lags.max().unwrap_or(0)
    }

    pub fn gaps(&self) -> u64 {
        self.compute.map_or(0, |task| task.gaps)
    }

    /// The state in one sign, for those who do not see the colour; empty if all is well.
    pub fn sign(&self) -> &'static str {
        let states = [self.gate, self.compute].map(|task| task.map(|task| (task.owner.is_some(), task.state)));
        let is = |wanted: TaskState| states.contains(&Some((true, wanted)));
        match () {
            () if states.iter().any(|state| state.is_none_or(|(is_owned, _)| !is_owned)) => "✕",
            () if is(TaskState::Failing) => "!",
            () if self.gaps() > 0 => "◌",
            () if is(TaskState::Silent) => "?",
            () if is(TaskState::Fenced) || is(TaskState::Stopping) => "⇄",
            () if is(TaskState::Catching) => "…",
            () if self.level != Level::Good => "◷",
            () => "",
        }
    }
}

/// All partitions in their order.
pub fn rows(view: &ClusterView) -> Vec<PartitionRow<'_>> {
    let mut tasks: Vec<(Option<&TaskView>, Option<&TaskView>)> = vec![(None, None); usize::from(view.partitions)];
    for task in &view.tasks {
        let Some(slot) = task.partition.and_then(|partition| tasks.get_mut(usize::from(partition))) else { continue };
        match task.kind {
            TaskKind::Gate => slot.0 = Some(task),
            TaskKind::Compute => slot.1 = Some(task),
            _ => {}
        }
    }
    let row =
        |(partition, (gate, compute)): (usize, (Option<_>, Option<_>))| row(view, partition as u16, gate, compute);
    tasks.into_iter().enumerate().map(row).collect()
}

fn row<'a>(
    view: &ClusterView,
    partition: u16,
    gate: Option<&'a TaskView>,
    compute: Option<&'a TaskView>,
) -> PartitionRow<'a> {
    let age_ms = compute.and_then(|task| view.age_ms(task.as_of.as_deref()?));
    let (mut level, mut words) = (Level::Good, Vec::new());
    for (name, task) in [("gate", gate), ("compute", compute)] {
        let of_task = task_level(task);
        if of_task != Level::Good {
            level = level.max(of_task);
            words.push(format!("{name} {}", task_words(task)));
        }
    }
    let gaps = compute.map_or(0, |task| task.gaps);
    if gaps > 0 {
        level = Level::Bad;
        words.push(format!("{gaps} gaps"));
    }
    if let Some(late) = age_ms.filter(|age_ms| *age_ms > LATE_MS) {
        level = level.max(Level::Warn);
        words.push(format!("results {} old", words::duration(late as f64)));
    }
    PartitionRow { partition, gate, compute, age_ms, level, words: words.join("; ") }
}

pub fn task_level(task: Option<&TaskView>) -> Level {
    match task {
        None => Level::Bad,
        Some(task) if task.owner.is_none() => Level::Bad,
        Some(task) => state_level(task.state),
    }
}

pub fn state_level(state: TaskState) -> Level {
    match state {
        TaskState::Running => Level::Good,
        TaskState::Failing => Level::Bad,
        TaskState::Catching | TaskState::Fenced | TaskState::Stopping | TaskState::Silent => Level::Warn,
    }
}

fn task_words(task: Option<&TaskView>) -> String {
    match task {
        None => "is not known".to_owned(),
        Some(task) if task.owner.is_none() => "has no owner".to_owned(),
        Some(task) if task.detail.is_empty() => task.state.name().to_owned(),
        Some(task) => format!("{}: {}", task.state.name(), task.detail),
    }
}

/// Those that are not as they should be, and the ones that are furthest behind; at most `most`, the worst first.
pub fn worst<'a>(rows: &[PartitionRow<'a>], most: usize) -> Vec<PartitionRow<'a>> {
    let mut worst: Vec<_> = rows.iter().filter(|row| row.level != Level::Good || row.lag() > 0).cloned().collect();
    worst.sort_by_key(|row| std::cmp::Reverse((row.level, row.gaps(), row.lag(), row.age_ms)));
    worst.truncate(most);
    worst
}
