//! The captures of a process: a source's work for each task that the masters gave it, and its checkpoints with the masters.
//!
//! Invariant: a source runs once here; what this process saved under an assignment is what it loads under it, whichever master
//! answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use tracing::error;

use crate::capture::capture_service::{self, CaptureHandle, CaptureParts, CaptureReport, Captured, captured};
use crate::capture::checkpoint::{Checkpoint, Checkpoints};
use crate::capture::mysql_settings::SourceSettings;
use crate::capture::settings::Settings;
use crate::clock::Clock;
use crate::config::{Config, SecretError};
use crate::locks::lock;
use crate::member::member_service::Member;
use crate::member::work::Work;
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::codec;
use crate::model::id::Epoch;
use crate::model::task::{SourceOrder, Task};
use crate::mq::Mq;
use crate::net::control::{Answered, Ask};
use crate::tier::{TierError, TierFuture};

/// A checkpoint is asked for and saved within this time, or the capture tries again.
const PATIENCE: Duration = Duration::from_secs(5);
const MASTERS: &str = "masters";

/// Sources that can be captured here, and those that are.
#[derive(Clone)]
pub struct Captures {
    shared: Arc<Shared>,
}

struct Shared {
    sources: BTreeMap<Arc<str>, Ready>,
    settings: Arc<Settings>,
    partitions: u16,
    mq: Arc<dyn Mq>,
    checkpoints: Arc<WithMasters>,
    clock: Clock,
    metrics: Metrics,
    running: Mutex<BTreeMap<Arc<str>, Running>>,
}

/// A source as it is configured.
struct Ready {
    source: SourceSettings,
    password: Option<String>,
    tables: Vec<Captured>,
}

struct Running {
    work: Work,
    handle: CaptureHandle,
}

/// What captures work with.
pub struct Ground<'a> {
    pub config: &'a Config,
    pub catalog: &'a Catalog,
    /// Relative files of the configuration start here.
    pub secrets: &'a Path,
    pub mq: Arc<dyn Mq>,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// What was said about a source under an assignment.
type Said = BTreeMap<Arc<str>, (Epoch, Checkpoint)>;

/// Checkpoints with the masters.
#[derive(Default)]
struct WithMasters {
    member: OnceLock<Weak<Member>>,
    /// Saved by this process. A master that was deposed and does not know it yet may have an older one.
    said: Mutex<Said>,
}

impl Captures {
    pub fn new(ground: Ground<'_>) -> Result<Self, (String, SecretError)> {
        let Ground { config, catalog, secrets, mq, clock, metrics } = ground;
        let ready = |source: &SourceSettings| {
            let reveal = source.password.as_ref().map(|password| password.reveal(secrets)).transpose();
            let password = reveal.map_err(|error| (source.name.clone(), error))?;
            let tables = captured(source, catalog).expect("the configuration was checked");
            let tls_roots = source.tls_roots.as_ref().map(|file| secrets.join(file));
            let source = SourceSettings { tls_roots, ..source.clone() };
            Ok((source.name.as_str().into(), Ready { source, password, tables }))
        };
        let shared = Shared {
            sources: config.sources.iter().map(ready).collect::<Result<_, _>>()?,
            settings: Arc::new(config.capture.clone()),
            partitions: config.cluster.partitions,
            mq,
            checkpoints: Arc::default(),
            clock,
            metrics,
            running: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Checkpoints can be had from now on.
    pub fn know(&self, member: &Arc<Member>) {
        // Once for each node.
        let _ = self.shared.checkpoints.member.set(Arc::downgrade(member));
    }

    /// Begins a source in place of an earlier work on it; `false`: there is no such source here.
    pub fn run(&self, work: Work) -> bool {
        let Task::Capture(name) = &work.task else { return false };
        let Some(ready) = self.shared.sources.get(name) else { return false };
        let shared = &self.shared;
        let handle = capture_service::start(CaptureParts {
            source: ready.source.clone(),
            password: ready.password.clone(),
            tables: ready.tables.clone(),
            settings: shared.settings.clone(),
            partitions: shared.partitions,
            // The assignment's own: masters know no other.
            epoch: work.epoch,
            mq: shared.mq.clone(),
            checkpoints: shared.checkpoints.clone(),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
        });
        let name = name.clone();
        if let Some(before) = lock(&shared.running).insert(name, Running { work, handle }) {
            before.handle.kill();
        }
        true
    }

    /// False: it is not this work that is on its source, or too many orders wait.
    pub fn order(&self, work: &Work, order: SourceOrder) -> bool {
        let Task::Capture(name) = &work.task else { return false };
        let running = lock(&self.shared.running);
        running.get(name).is_some_and(|running| running.work == *work && running.handle.order(order))
    }

    /// Ends this work, if it is still the one on its source.
    pub fn let_go(&self, work: &Work) -> BoxFuture<'static, ()> {
        let Task::Capture(name) = &work.task else { return std::future::ready(()).boxed() };
        let mut running = lock(&self.shared.running);
        let is_it = running.get(name).is_some_and(|running| running.work == *work);
        let ended = if is_it { running.remove(name) } else { None };
        async move {
            if let Some(ended) = ended {
                ended.handle.stop().await;
            }
        }
        .boxed()
    }

    /// Ends all; what mq has by then is in the checkpoints.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *lock(&self.shared.running));
        futures::future::join_all(running.into_values().map(|running| running.handle.stop())).await;
    }

    /// How each source is that is captured here, with its assignment's epoch.
    pub fn reports(&self) -> BTreeMap<Arc<str>, (Epoch, CaptureReport)> {
        let running = lock(&self.shared.running);
        running.iter().map(|(name, running)| (name.clone(), (running.work.epoch, running.handle.report()))).collect()
    }
}

impl WithMasters {
    async fn ask(&self, ask: Ask) -> Result<Answered, TierError> {
        let Some(member) = self.member.get().and_then(Weak::upgrade) else {
            return Err(unavailable("this node is only starting"));
        };
        match member.ask(&ask, PATIENCE).await {
            // It may be that the master does not know of the assignment yet; whoever lost a task is told so.
            Answered::Refused { reason } => Err(unavailable(reason)),
            Answered::NotActive { .. } => Err(unavailable("no master is active")),
            Answered::Unknown => Err(unavailable("the outcome is not known")),
            answer => Ok(answer),
        }
    }
}

fn unavailable(reason: impl Into<String>) -> TierError {
    TierError::Unavailable { tier: MASTERS, reason: reason.into() }
}

impl Checkpoints for WithMasters {
    fn load<'a>(&'a self, source: &'a str, epoch: Epoch) -> TierFuture<'a, Option<Checkpoint>> {
        async move {
            if let Some((_, said)) = lock(&self.said).get(source).filter(|(of, _)| *of == epoch) {
                return Ok(Some(said.clone()));
            }
            match self.ask(Ask::Checkpoint { source: source.into(), epoch }).await? {
                Answered::Checkpoint { state } if state.is_empty() => Ok(None),
                Answered::Checkpoint { state } => codec::decode("a checkpoint", &state).map(Some).map_err(|error| {
                    TierError::Damaged { tier: MASTERS, place: format!("the checkpoint of {source}"), source: error }
                }),
                answer => {
                    error!(source, ?answer, "not an answer to what was asked");
                    Err(unavailable("a master answers something else"))
                }
            }
        }
        .boxed()
    }

    fn save<'a>(&'a self, source: &'a str, epoch: Epoch, checkpoint: Checkpoint) -> TierFuture<'a, ()> {
        async move {
            let source: Arc<str> = source.into();
            let state = Bytes::from(codec::encode(&checkpoint));
            // Until it is known what became of it, nothing is.
            lock(&self.said).remove(&source);
            self.ask(Ask::SaveCheckpoint { source: source.clone(), epoch, state }).await?;
            lock(&self.said).insert(source, (epoch, checkpoint));
            Ok(())
        }
        .boxed()
    }
}
