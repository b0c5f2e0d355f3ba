//! `holdfast bench scale`, last part: how soon a slave that joins has its share, and whether answers stay exact meanwhile.
//!
//! Invariant: rows come and answers are asked for all the time; every answer is looked at.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::fleet::Fleet;
use super::orders::{self, Random};
use super::scale::{some_rows, wait_for_slaves};
use super::stats::{Runs, short};
use super::{machine, pipeline};
use crate::admin::view::{ClusterView, NodeState, TaskKind};
use crate::clock;
use crate::model::report::TaskState;

/// That are there before.
const SLAVES: usize = 3;
const ROWS_A_POST: u64 = 500;
const POST_EVERY: Duration = Duration::from_millis(50);
const ASK_EVERY: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After the join, so that a late fault is seen, too.
const AFTERWARDS: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);
/// Tasks weigh different, so that shares are not quite equal.
const OF_THE_SHARE: f64 = 0.9;

/// Milliseconds from when the masters knew the node.
#[derive(Debug)]
struct Joined {
    given_ms: f64,
    running_ms: f64,
    tasks: usize,
    partitions: u16,
}

/// What was answered meanwhile.
#[derive(Debug, Default)]
struct Answers {
    all: u32,
    not_exact: u32,
    oldest_ms: u64,
}

pub async fn join(rows: u64, runs: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, _) = pipeline::write_file(folder.path(), rows, 0)?;
    let rate = ROWS_A_POST as f64 / POST_EVERY.as_secs_f64();
    println!("\na slave joins {SLAVES} with {} rows counted, {} rows/s coming in", short(rows as f64), short(rate));
    machine::wait_until_idle().await;
    let (mut given, mut running, mut answers) = (vec![], vec![], Answers::default());
    for run in 0..runs {
        let place = folder.path().join(run.to_string());
        let (joined, asked) = measure(&place, &file, rows).await?;
        std::fs::remove_dir_all(place)?;
        println!(
            "  {} of {} tasks: its own after {:.0} ms, said to run after {:.0} ms",
            joined.tasks, joined.partitions, joined.given_ms, joined.running_ms
        );
        given.push(joined.given_ms);
        running.push(joined.running_ms);
        answers.all += asked.all;
        answers.not_exact += asked.not_exact;
        answers.oldest_ms = answers.oldest_ms.max(asked.oldest_ms);
    }
    println!("from known to its share, ms (goal 2,000 or less):                   {}", Runs::new(given));
    println!("until a report says that all of it runs (one comes every 1,000 ms): {}", Runs::new(running));
    println!(
        "answers meanwhile: {}, not exact: {} (goal 0), the oldest {} ms old",
        answers.all, answers.not_exact, answers.oldest_ms
    );
    Ok(())
}

async fn measure(folder: &Path, file: &Path, rows: u64) -> Result<(Joined, Answers)> {
    let mut fleet = Fleet::start(folder, orders::DEFINITION).await?;
    for _ in 0..SLAVES {
        fleet.add_slave()?;
    }
    wait_for_slaves(&fleet, SLAVES).await?;
    fleet.base.ingest("orders", file).await?;
    fleet.base.wait_for_orders(rows).await?;
    let name = fleet.add_slave()?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let watched = async {
        let joined = watch(&fleet, &name).await;
        tokio::time::sleep(AFTERWARDS).await;
        stop.send_replace(true);
        joined
    };
    let is_over = || *stopped.borrow();
    let (joined, posted, answers) = tokio::join!(watched, post(&fleet, rows, is_over), ask(&fleet, is_over));
    fleet.base.wait_for_orders(rows + posted?).await?;
    Ok((joined?, answers?))
}

fn tasks_of(view: &ClusterView, name: &str) -> (usize, usize) {
    let own = view.tasks.iter().filter(|task| task.kind == TaskKind::Compute && task.owner.as_deref() == Some(name));
    own.fold((0, 0), |(all, run), task| (all + 1, run + usize::from(task.state == TaskState::Running)))
}

async fn watch(fleet: &Fleet, name: &str) -> Result<Joined> {
    let start = clock::instant();
    let mut known: Option<Instant> = None;
    let mut given_ms = None;
    while start.elapsed() < PATIENCE {
        let view = fleet.base.cluster().await?;
        let now = clock::instant();
        if view.nodes.iter().any(|node| node.name == name && node.state == NodeState::Alive) {
            let since_ms = now.duration_since(*known.get_or_insert(now)).as_secs_f64() * 1e3;
            let (tasks, running) = tasks_of(&view, name);
            let share = f64::from(view.partitions) / (SLAVES + 1) as f64 * OF_THE_SHARE;
            if tasks as f64 >= share {
                let given_ms = *given_ms.get_or_insert(since_ms);
                if running == tasks {
                    return Ok(Joined { given_ms, running_ms: since_ms, tasks, partitions: view.partitions });
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("{name} did not get its share within {PATIENCE:?}");
}

/// Gives how many rows were acknowledged.
async fn post(fleet: &Fleet, first: u64, is_over: impl Fn() -> bool) -> Result<u64> {
    let (mut random, mut posted) = (Random::new(7), 0);
    let mut ticks = tokio::time::interval(POST_EVERY);
    while !is_over() {
        ticks.tick().await;
        fleet.base.post_rows("orders", some_rows(&mut random, first + posted, ROWS_A_POST)).await?;
        posted += ROWS_A_POST;
    }
    Ok(posted)
}

async fn ask(fleet: &Fleet, is_over: impl Fn() -> bool) -> Result<Answers> {
    let (mut answers, mut before) = (Answers::default(), 0);
    let mut ticks = tokio::time::interval(ASK_EVERY);
    while !is_over() {
        ticks.tick().await;
        let (counted, answer) = fleet.base.orders().await?;
        let quality = &answer["quality"];
        answers.all += 1;
        answers.not_exact += u32::from(quality["exact"] != true);
        answers.oldest_ms = answers.oldest_ms.max(quality["age_ms"].as_u64().unwrap_or(0));
        if counted < before {
            bail!("an answer counts {counted} orders after one that counted {before}");
        }
        before = counted;
    }
    Ok(answers)
}
