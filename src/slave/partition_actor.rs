//! Runs one partition's computation: messages and timers in, effects out.
//!
//! Invariant: all decisions are the core's (`partition`). Calls to tiers run beside the actor and come back as inputs;
//! the state is never touched across an await.

use std::future::Future;
use std::sync::Arc;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, MessageResult, ResponseFuture, SpawnHandle,
    WrapFuture,
};
use tokio::sync::{Semaphore, oneshot};
use tracing::{debug, info, warn};

use super::exchange::{Effect, Input, PartitionReport, SinkName};
use super::linux_thread::SharedThread;
use super::partition::Partition;
use super::settings::Settings;
use super::standing::Standing;
use crate::clock::{self, Clock, timed};
use crate::kv::Kv;
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::id::{Epoch, PartitionId};
use crate::net::message::{Idle, PushChunk};
use crate::tier::Sink;

/// What a partition's computation works with.
#[derive(Clone)]
pub struct PartitionParts {
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub kv: Arc<dyn Kv>,
    pub hot: Arc<dyn Sink>,
    pub cache: Arc<dyn Sink>,
    pub catalog: Arc<Catalog>,
    pub settings: Settings,
    pub clock: Clock,
    pub metrics: Metrics,
    /// The thread that this partition is counted on.
    pub thread: Arc<SharedThread>,
    /// Places for reads of chunks, of all partitions.
    pub reads: Arc<Semaphore>,
}

/// Asks a partition how it is.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "PartitionReport")]
pub struct Observe;

/// Ends the computation; the answer comes when all is emitted and saved that can be.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Stop;

/// The actor of one partition.
pub struct PartitionActor {
    parts: PartitionParts,
    core: Partition,
    /// When the timer that is set fires, Unix milliseconds.
    timer: Option<(i64, SpawnHandle)>,
    /// Who waits for the end.
    waiting: Vec<oneshot::Sender<()>>,
    /// What was last logged and counted.
    standing: Standing,
    rows: u64,
}

impl PartitionActor {
    pub fn new(parts: PartitionParts) -> Self {
        let core = Partition::new(parts.partition, parts.epoch, parts.catalog.clone(), parts.settings.clone());
        Self { parts, core, timer: None, waiting: Vec::new(), standing: Standing::Loading, rows: 0 }
    }

    fn step(&mut self, input: Input, context: &mut Context<Self>) {
        self.core.share_thread(self.parts.thread.share());
        let begun = clock::instant();
        let effects = self.core.step(self.parts.clock.now_ms(), input);
        let spent_us = begun.elapsed().as_micros() as i64;
        let written = effects.iter().filter(|effect| matches!(effect, Effect::Write(..))).count() as i64;
        for effect in effects {
            if let Effect::Write(name, _) = &effect {
                self.core.spent(*name, spent_us / written);
            }
            self.run(effect, context);
        }
        self.tell();
        self.set_timer(context);
    }

    fn run(&mut self, effect: Effect, context: &mut Context<Self>) {
        let partition = self.parts.partition;
        let kv = self.parts.kv.clone();
        match effect {
            Effect::ReadSnapshot => {
                self.call(context, async move { Input::SnapshotRead(kv.snapshot(partition).await) });
            }
            Effect::ReadHead => self.call(context, async move { Input::HeadRead(kv.head(partition).await) }),
            Effect::ReadChunks { after } => {
                let (most_bytes, reads) = (self.parts.settings.kv_read_bytes.bytes(), self.parts.reads.clone());
                let read = async move {
                    // Nobody closes it; without a place a read would still be right.
                    let place = reads.acquire_owned().await.ok();
                    (kv.chunks(partition, after, most_bytes).await, place)
                };
                context.spawn(read.into_actor(self).map(|(read, place), actor, context| {
                    actor.step(Input::ChunksRead(read), context);
                    // Only now the chunks are counted, and gone.
                    drop(place);
                }));
            }
            Effect::AskStanding(name) => {
                let sink = self.sink(name);
                self.call(context, async move { Input::Standing(name, sink.standing(partition).await) });
            }
            Effect::Write(name, write) => {
                let sink = self.sink(name);
                let write = timed(async move { sink.write(partition, write).await });
                context.spawn(write.into_actor(self).map(move |(written, spent), actor, context| {
                    actor.core.spent(name, spent.as_micros() as i64);
                    actor.step(Input::Written(name, written), context);
                }));
            }
            Effect::PutSnapshot(snapshot) => {
                self.call(context, async move { Input::SnapshotPut(kv.put_snapshot(partition, snapshot).await) });
            }
            Effect::Trim { through, before_ms } => {
                let trim = async move {
                    if let Err(error) = kv.trim(partition, through, before_ms).await {
                        debug!(%partition, %error, "kv was not trimmed");
                    }
                };
                context.spawn(trim.into_actor(self));
            }
            Effect::Visible { at_ms } => {
                let now_ms = self.parts.clock.now_ms();
                for at_ms in at_ms {
                    self.parts.metrics.freshness_seconds.observe((now_ms - at_ms).max(0) as f64 / 1_000.0);
                }
            }
            Effect::End => {
                for waiting in self.waiting.drain(..) {
                    // Who does not wait any more does not mind.
                    let _ = waiting.send(());
                }
            }
        }
    }

    fn sink(&self, name: SinkName) -> Arc<dyn Sink> {
        match name {
            SinkName::Hot => self.parts.hot.clone(),
            SinkName::Cache => self.parts.cache.clone(),
        }
    }

    /// Runs a call to a tier beside the actor; its result is the core's next input.
    fn call(&self, context: &mut Context<Self>, call: impl Future<Output = Input> + 'static) {
        context.spawn(call.into_actor(self).map(|input, actor, context| actor.step(input, context)));
    }

    fn tell(&mut self) {
        let rows = self.core.rows_applied();
        // A restored snapshot, or a fenced owner's empty state, is no progress.
        if matches!(self.standing, Standing::CatchingUp { .. } | Standing::Counting) && rows > self.rows {
            self.parts.metrics.changes_applied.inc_by(rows - self.rows);
        }
        self.rows = rows;
        if *self.core.standing() == self.standing {
            return;
        }
        self.standing = self.core.standing().clone();
        let (partition, epoch, standing) = (self.parts.partition, self.parts.epoch, &self.standing);
        match standing {
            Standing::Stalled { reason } => warn!(%partition, epoch, reason, "partition stalled"),
            Standing::Fenced { found } => warn!(%partition, epoch, found, "fenced by a newer owner"),
            Standing::Counting => info!(%partition, epoch, "partition has caught up"),
            _ => debug!(%partition, epoch, ?standing, "partition moved on"),
        }
    }

    fn set_timer(&mut self, context: &mut Context<Self>) {
        let Some(wake_ms) = self.core.wake_ms() else { return };
        if self.timer.is_some_and(|(set_ms, _)| set_ms <= wake_ms) {
            return;
        }
        if let Some((_, handle)) = self.timer.take() {
            context.cancel_future(handle);
        }
        let wait_ms = wake_ms.saturating_sub(self.parts.clock.now_ms()).max(1) as u64;
        let handle = context.run_later(std::time::Duration::from_millis(wait_ms), |actor, context| {
            actor.timer = None;
            actor.step(Input::Tick, context);
        });
        self.timer = Some((wake_ms, handle));
    }
}

impl Actor for PartitionActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(usize::from(self.parts.settings.mailbox));
        self.step(Input::Tick, context);
    }
}

impl Handler<PushChunk> for PartitionActor {
    type Result = ();

    fn handle(&mut self, push: PushChunk, context: &mut Context<Self>) {
        assert_eq!(push.partition, self.parts.partition, "routed to the wrong partition");
        self.step(Input::Push(push.chunk), context);
    }
}

impl Handler<Idle> for PartitionActor {
    type Result = ();

    fn handle(&mut self, idle: Idle, context: &mut Context<Self>) {
        assert_eq!(idle.partition, self.parts.partition, "routed to the wrong partition");
        self.step(Input::Idle { tip: idle.tip, at_ms: idle.at_ms }, context);
    }
}

impl Handler<Observe> for PartitionActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.core.report())
    }
}

impl Handler<Stop> for PartitionActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, context: &mut Context<Self>) -> Self::Result {
        let (sender, ended) = oneshot::channel();
        if !self.core.standing().is_over() {
            self.waiting.push(sender);
            self.step(Input::Stop, context);
        }
        Box::pin(async move {
            // If the sender is gone, there is nothing more to wait for.
            let _ = ended.await;
        })
    }
}

#[cfg(test)]
#[path = "partition_actor_tests.rs"]
mod tests;
