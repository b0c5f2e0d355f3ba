//! Runs one source: carries out what `standing` decides, from the checkpoint to the end of the log.
//!
//! Invariant: one piece of work at a time; a driver that panics does not end the source.

use std::sync::Arc;
use std::time::Duration;

use chrono_tz::Tz;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::capture_service::{CaptureParts, CaptureReport, Captured};
use super::checkpoint::{Checkpoint, Stage};
use super::following_service::Following;
use super::moving_service;
use super::mysql::Door;
use super::settings::Settings;
use super::snapshot_service;
use super::standing::{Effect, Input, Machine, Standing, Work};
use super::stop::{Stop, StopKind, Trouble};
use crate::backoff::Retry;
use crate::clock::Clock;
use crate::model::task::SourceOrder;
use crate::tier::TierError;

/// Everything that the pieces of work share.
pub struct Worker {
    pub parts: CaptureParts,
    pub door: Door,
    pub zone: Tz,
    pub report: Arc<watch::Sender<CaptureReport>>,
    pub ended: watch::Receiver<bool>,
    /// What is followed, once it is known.
    pub following: Option<Following>,
    pub checkpoint: Option<Checkpoint>,
    /// The last interrupted snapshot that this process took back, by its incarnation.
    pub taken_back: Option<u64>,
    /// The work in hand got somewhere.
    pub went_well: bool,
}

/// A driver that panics at bytes which it does not expect must not end the source for good.
pub async fn supervise(
    parts: CaptureParts,
    order: mpsc::Receiver<SourceOrder>,
    report: watch::Sender<CaptureReport>,
    mut ended: watch::Receiver<bool>,
) {
    let (report, order) = (Arc::new(report), Arc::new(tokio::sync::Mutex::new(order)));
    let mut failures = 0;
    loop {
        let mut running = tokio::task::JoinSet::new();
        running.spawn(run(parts.clone(), order.clone(), report.clone(), ended.clone()));
        match running.join_next().await {
            Some(Err(panic)) if panic.is_panic() => {}
            _ => return,
        }
        failures += 1;
        let wait = parts.settings.retry().delay(failures);
        error!(source = parts.source.name, wait_ms = wait.0, "capture panicked and will be started again");
        parts.metrics.actor_restarts.inc();
        tokio::select! {
            () = tokio::time::sleep(wait.duration()) => {}
            () = ending(&mut ended) => return,
        }
    }
}

async fn run(
    parts: CaptureParts,
    order: Arc<tokio::sync::Mutex<mpsc::Receiver<SourceOrder>>>,
    report: Arc<watch::Sender<CaptureReport>>,
    mut ended: watch::Receiver<bool>,
) {
    let mut order = order.lock().await;
    let (settings, clock) = (parts.settings.clone(), parts.clock.clone());
    let (mut machine, mut effects) = Machine::new(Retry::new(settings.retry()), settings.retry_most.as_i64());
    let zone = parts.source.datetime_zone.parse().unwrap_or(Tz::UTC);
    let door = match Door::new(&parts.source, parts.password.as_deref(), &settings) {
        Ok(door) => door,
        Err(stop) => {
            machine.step(clock.now_ms(), Input::Stop(stop));
            tell(&report, machine.standing());
            let _ = ended.wait_for(|ended| *ended).await;
            return;
        }
    };
    let mut worker = Worker {
        parts,
        door,
        zone,
        report,
        ended: ended.clone(),
        following: None,
        checkpoint: None,
        taken_back: None,
        went_well: false,
    };
    let mut wake_ms = None;
    loop {
        // Before the effects: one of them may be the end.
        tell(&worker.report, machine.standing());
        let mut work = None;
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Do(next) => work = Some(next),
                Effect::Wake(at_ms) => wake_ms = Some(at_ms),
                Effect::Pass(passed) => {
                    if let Err(trouble) = worker.pass(passed).await {
                        warn!(source = worker.parts.source.name, ?trouble, "what was ordered could not be noted");
                    }
                }
                Effect::End => return,
            }
        }
        let input = match work {
            Some(work) => tokio::select! {
                biased;
                () = given_up(&mut ended, work, &settings) => break,
                result = worker.work(work) => outcome(result),
            },
            None => tokio::select! {
                biased;
                () = ending(&mut ended) => break,
                () = until(&clock, wake_ms) => Input::Tick,
                Some(order) = order.recv() => Input::Order(order),
            },
        };
        if *ended.borrow() {
            break;
        }
        // Orders are for how it stood when they were given.
        while order.try_recv().is_ok() {}
        if std::mem::take(&mut worker.went_well) {
            machine.step(clock.now_ms(), Input::Well);
        }
        note(&worker.parts.source.name, &input);
        effects = machine.step(clock.now_ms(), input);
    }
    tell(&worker.report, &Standing::Ended);
}

/// Resolves when the source is to end.
pub async fn ending(ended: &mut watch::Receiver<bool>) {
    // Without anybody who could end it, it has ended.
    let _ = ended.wait_for(|ended| *ended).await;
}

/// When a work must end: following a log is given time to let go.
async fn given_up(ended: &mut watch::Receiver<bool>, work: Work, settings: &Settings) {
    ending(ended).await;
    if work == Work::Follow {
        tokio::time::sleep(settings.answer.duration()).await;
    }
}

fn outcome(result: Result<Work, Trouble>) -> Input {
    match result {
        Ok(work) => Input::Next(work),
        Err(Trouble::Failed(reason)) => Input::Failed(reason),
        Err(Trouble::Stop(stop)) => Input::Stop(stop),
        Err(Trouble::Fenced) => Input::Fenced,
    }
}

fn note(source: &str, input: &Input) {
    match input {
        Input::Next(work) => info!(source, ?work, "capture goes on"),
        Input::Failed(reason) => warn!(source, reason, "capture failed and will try again"),
        Input::Stop(stop) => error!(source, %stop, "capture stopped"),
        Input::Fenced => warn!(source, "another owner captures the source"),
        Input::Order(order) => info!(source, ?order, "capture was given an order"),
        Input::Well | Input::Tick => {}
    }
}

async fn until(clock: &Clock, at_ms: Option<i64>) {
    match at_ms {
        Some(at_ms) => {
            let wait = u64::try_from(at_ms - clock.now_ms()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        None => std::future::pending().await,
    }
}

fn tell(report: &watch::Sender<CaptureReport>, standing: &Standing) {
    let (name, reason, stop) = match standing {
        Standing::Doing(Work::Load) => ("loading", None, None),
        Standing::Doing(Work::TakeBack) => ("taking back", None, None),
        Standing::Doing(Work::Snapshot) => ("snapshot", None, None),
        Standing::Doing(Work::Follow) => ("following", None, None),
        Standing::Doing(Work::Move) => ("moving", None, None),
        Standing::Pausing { reason, .. } => ("pausing", Some(reason.clone()), None),
        Standing::Stopped { stop, .. } => ("stopped", Some(stop.to_string()), Some(stop.clone())),
        Standing::Ended => ("ended", None, None),
    };
    report.send_modify(|report| (report.standing, report.reason, report.stop) = (name, reason, stop));
}

/// What a failed call to a tier means for the source.
pub fn of_tier(error: TierError) -> Trouble {
    match error {
        TierError::Fenced { .. } => Trouble::Fenced,
        TierError::Damaged { .. } => {
            Stop::unreadable(error.to_string(), "what is kept of this source cannot be read").into()
        }
        _ => Trouble::Failed(error.to_string()),
    }
}

impl Worker {
    async fn work(&mut self, work: Work) -> Result<Work, Trouble> {
        match work {
            Work::Load => self.load().await,
            Work::TakeBack => snapshot_service::take_back(self).await,
            Work::Snapshot => snapshot_service::snapshot(self).await,
            Work::Follow => self.follow().await,
            Work::Move => moving_service::move_over(self).await,
        }
    }

    async fn load(&mut self) -> Result<Work, Trouble> {
        self.following = None;
        let loaded = self.parts.checkpoints.load(&self.parts.source.name, self.parts.epoch).await.map_err(of_tier)?;
        let work = match loaded.as_ref().map(|checkpoint| &checkpoint.stage) {
            None => Work::Snapshot,
            Some(Stage::Snapshot { .. }) => Work::TakeBack,
            Some(Stage::Moving { .. }) => Work::Move,
            Some(Stage::Log(log)) => {
                let known = |table: &&Captured| log.tables.iter().any(|known| known.source == table.source());
                if let Some(table) = self.parts.tables.iter().find(|table| !known(table)) {
                    let reason =
                        format!("the table {} is new in the source '{}'", table.source(), self.parts.source.name);
                    return Err(Stop::new(
                        StopKind::Server,
                        reason,
                        "give it a [[source]] of its own, with the same url",
                    )
                    .into());
                }
                Work::Follow
            }
        };
        self.checkpoint = loaded;
        Ok(work)
    }
}
