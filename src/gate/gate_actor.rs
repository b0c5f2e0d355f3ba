//! Runs one partition's gate: messages and timers in, effects out.
//!
//! Invariant: all decisions are the core's (`lane`). Calls to tiers run beside the actor and come back as inputs; a batch is
//! handed to mq in the step that made it, so the order of positions is the order in mq.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures::channel::oneshot;
use tracing::{debug, error, info, warn};

use super::admission::{self, Note};
pub use super::lane::{Accepted, Counted, GateReport, Offer, OfferError};
use super::lane::{Effect, Input, Lane, OfferId};
use super::sequencer::Ticket;
use super::settings::Settings;
use crate::clock::Clock;
use crate::kv::Kv;
use crate::metrics::{Metrics, PartitionLabel, SourceLabel};
use crate::model::batch::{Batch, Chunk};
use crate::model::id::{Epoch, PartitionId, Tip};
use crate::mq::{Mq, Offset};
use crate::net::message::{Idle, Owners};
use crate::tier::TierError;

/// What a gate is made of.
#[derive(Clone)]
pub struct GateParts {
    pub partition: PartitionId,
    /// Above that of every gate this partition ever had, also of one restarted in this process: it is the incarnation of
    /// the sequences that the gate gives out.
    pub epoch: Epoch,
    pub mq: Arc<dyn Mq>,
    pub kv: Arc<dyn Kv>,
    pub owners: Arc<dyn Owners>,
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub metrics: Metrics,
}

impl Message for Offer {
    type Result = Result<Accepted, OfferError>;
}

/// Asks a gate how it stands.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "GateReport")]
pub struct Observe;

/// Ends the gate; the answer comes when all that was offered is answered and what is on its way to kv is there.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Stop;

type Answer = Result<Accepted, OfferError>;

/// The actor of one partition's gate.
pub struct GateActor {
    parts: GateParts,
    core: Lane,
    offers: OfferId,
    replies: HashMap<OfferId, oneshot::Sender<Answer>>,
    awaiting: Option<SpawnHandle>,
    /// Who waits for the end.
    stopping: Vec<oneshot::Sender<()>>,
}

impl GateActor {
    pub fn new(parts: GateParts) -> Self {
        let core = Lane::new(parts.partition, parts.epoch, parts.settings.clone());
        Self { core, offers: 0, replies: HashMap::new(), awaiting: None, stopping: Vec::new(), parts }
    }

    fn step(&mut self, ctx: &mut Context<Self>, input: Input) {
        for effect in self.core.step(self.parts.clock.now_ms(), input) {
            self.carry_out(ctx, effect);
        }
        if self.core.is_over() {
            self.end(ctx);
        }
    }

    fn end(&mut self, ctx: &mut Context<Self>) {
        for waiting in self.stopping.drain(..) {
            // Who does not wait any more does not mind.
            let _ = waiting.send(());
        }
        ctx.stop();
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>, effect: Effect) {
        let (partition, mq, kv) = (self.parts.partition, self.parts.mq.clone(), self.parts.kv.clone());
        match effect {
            Effect::ReadHead => {
                self.later(ctx, async move { admission::Input::Head(kv.head(partition).await) });
            }
            Effect::ReadMq { from } => self.read_mq(ctx, from),
            Effect::AwaitMq { from } => {
                self.show_lag();
                let arrived = async move { admission::Input::Arrived(mq.arrived(partition, from).await) };
                let awaiting = self.later(ctx, arrived);
                // A wait that an earlier standing began would never end where mq went back.
                if let Some(before) = self.awaiting.replace(awaiting) {
                    ctx.cancel_future(before);
                }
            }
            Effect::Probe { at_ms, from } => {
                let probe = async move { admission::Input::Probed { at_ms, read: mq.read(partition, from, 1).await } };
                self.later(ctx, probe);
            }
            Effect::Append(append) => {
                self.later(ctx, async move { admission::Input::Appended(kv.append(partition, append).await) });
            }
            Effect::Publish(ticket, batch) => self.publish(ctx, ticket, batch),
            Effect::Answer(id, answer) => self.answer(id, answer),
            Effect::Push(chunk) => self.push(ctx, chunk),
            Effect::Idle { tip, at_ms } => self.tell_idle(tip, at_ms),
            Effect::RetryAfter { after_ms } => {
                ctx.run_later(Duration::from_millis(after_ms), |gate, ctx| {
                    gate.step(ctx, Input::Admission(admission::Input::Retry));
                });
            }
            Effect::Trim { before } => self.trim(ctx, before),
            Effect::Note(note) => self.note(&note),
        }
    }

    /// Feeds what the future gives back into the core.
    fn later(&self, ctx: &mut Context<Self>, future: impl Future<Output = admission::Input> + 'static) -> SpawnHandle {
        ctx.spawn(future.into_actor(self).map(|input, gate, ctx| gate.step(ctx, Input::Admission(input))))
    }

    fn read_mq(&mut self, ctx: &mut Context<Self>, from: Offset) {
        let (partition, mq) = (self.parts.partition, self.parts.mq.clone());
        let max_bytes = self.parts.settings.read_bytes.bytes();
        let read = async move { admission::Input::Mq(mq.read(partition, from, max_bytes).await) };
        match self.core.pause_ms() {
            0 => self.later(ctx, read),
            pause_ms => ctx.run_later(Duration::from_millis(pause_ms), |gate, ctx| {
                gate.later(ctx, read);
            }),
        };
    }

    fn publish(&mut self, ctx: &mut Context<Self>, ticket: Ticket, batch: Batch) {
        let partition = self.parts.partition;
        if batch.header.rows == 0 {
            info!(%partition, source = %batch.header.source, span = %batch.header.span, "failed span voided");
        }
        let published = self.parts.mq.publish(partition, batch);
        let settled = move |result: Result<Offset, TierError>, gate: &mut Self, ctx: &mut Context<Self>| {
            if let Err(error) = &result {
                warn!(%partition, %error, "mq did not acknowledge a batch");
            }
            gate.step(ctx, Input::Published(ticket, result));
        };
        ctx.spawn(published.into_actor(self).map(settled));
    }

    fn answer(&mut self, id: OfferId, answer: Answer) {
        if let Ok(Accepted { rows, duplicate: false }) = answer {
            let label = SourceLabel { source: "push".into() };
            self.parts.metrics.changes_ingested.get_or_create(&label).inc_by(u64::from(rows));
        }
        if let Some(reply) = self.replies.remove(&id) {
            // A client that went away does not wait for its answer.
            let _ = reply.send(answer);
        }
    }

    fn push(&mut self, ctx: &mut Context<Self>, chunk: Chunk) {
        let taken = self.parts.owners.push(self.parts.partition, chunk);
        self.step(ctx, Input::Pushed { taken });
        self.show_lag();
    }

    fn tell_idle(&self, tip: Tip, at_ms: i64) {
        self.parts.owners.idle(Idle { partition: self.parts.partition, tip, at_ms });
    }

    fn trim(&self, ctx: &mut Context<Self>, before: Offset) {
        let (partition, mq) = (self.parts.partition, self.parts.mq.clone());
        let trim = async move {
            if let Err(error) = mq.trim(partition, before).await {
                warn!(%partition, before, %error, "mq was not trimmed");
            }
        };
        ctx.spawn(trim.into_actor(self));
    }

    fn note(&self, note: &Note) {
        let (partition, epoch) = (self.parts.partition.0, self.parts.epoch);
        match note {
            Note::TookOver { tip, offset } => debug!(partition, epoch, %tip, offset, "gate follows kv's head"),
            Note::Failed(error) => warn!(partition, epoch, %error, "gate retries"),
            Note::Fenced { found } => error!(partition, epoch, %found, "a newer gate is there, this one stops"),
            Note::MqTrimmed { from, to } => error!(partition, from, to, "mq lost batches that kv does not have"),
            Note::MqWentBack { offset, end } => {
                warn!(partition, offset, end, "mq ends before kv's offset, it lost writes; reading all it has")
            }
        }
    }

    fn show_lag(&self) {
        let label = PartitionLabel { partition: self.parts.partition.0 };
        self.parts.metrics.mq_lag_changes.get_or_create(&label).set(self.core.lag_changes() as i64);
    }
}

impl Actor for GateActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.parts.settings.mailbox);
        ctx.run_interval(self.parts.settings.heartbeat.duration(), |gate, ctx| gate.step(ctx, Input::Heartbeat));
        self.step(ctx, Input::Start);
    }
}

impl Handler<Offer> for GateActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, offer: Offer, ctx: &mut Context<Self>) -> Self::Result {
        let (reply, answer) = oneshot::channel();
        self.offers += 1;
        self.replies.insert(self.offers, reply);
        self.step(ctx, Input::Offer(self.offers, offer));
        Box::pin(async move { answer.await.unwrap_or(Err(OfferError::Ended)) })
    }
}

impl Handler<Stop> for GateActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) -> Self::Result {
        let (sender, ended) = oneshot::channel();
        self.stopping.push(sender);
        // mq may never say what became of a batch. Nobody waits longer than this for it.
        ctx.run_later(self.parts.settings.publish_timeout.duration(), |gate, ctx| gate.end(ctx));
        self.step(ctx, Input::Stop);
        Box::pin(async move {
            // If the sender is gone, there is nothing more to wait for.
            let _ = ended.await;
        })
    }
}

impl Handler<Observe> for GateActor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.core.report())
    }
}

#[cfg(test)]
#[path = "gate_actor_tests.rs"]
mod tests;
