//! One partition's gate: takes offers of rows into mq, and moves what mq has into kv.
//!
//! Invariant: a position is assigned and its batch published in one synchronous step, so the order of positions is the
//! order in mq; an offer is answered only when mq has acknowledged it. All decisions are made by the pure cores
//! (`sequencer`, `admission`); this file carries out their effects.

use std::collections::HashMap;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures::channel::oneshot;
use serde::Serialize;
use thiserror::Error;
use tracing::{debug, error, info, warn};

use super::admission::{Admission, Effect, Input, Note, Standing};
use super::pressure::Pressure;
use super::retention::Retention;
use super::sequencer::{Offered, Publication, Sequencer, Ticket};
use super::settings::Settings;
use crate::clock::Clock;
use crate::kv::{Append, Kv};
use crate::metrics::{Metrics, PartitionLabel, SourceLabel};
use crate::model::batch::{Batch, BatchHeader, Chunk};
use crate::model::id::{Epoch, PartitionId, Tip};
use crate::model::schema::Table;
use crate::mq::{Mq, Offset};
use crate::net::message::{Idle, PushBudget, PushChunk, Route};
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
    pub push: Route<PushChunk>,
    /// Shared by the gates of a process.
    pub push_budget: PushBudget,
    pub idle: Route<Idle>,
    pub settings: Arc<Settings>,
    pub clock: Clock,
    pub metrics: Metrics,
}

/// Rows of one request for one partition; the answer comes when mq has them.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Accepted, OfferError>")]
pub struct Offer {
    pub table: Arc<Table>,
    /// The request's `Idempotency-Key`.
    pub key: Option<Arc<str>>,
    /// The rows in the form of `rows::encode_rows`.
    pub body: Bytes,
    pub rows: u32,
    pub weighted: bool,
    /// First and last hour touched (hours since the Unix epoch, UTC).
    pub hours: Option<(i32, i32)>,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub rows: u32,
    /// The same request was accepted before; these rows count once.
    pub duplicate: bool,
}

/// Why an offer was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OfferError {
    #[error("too many requests wait for mq in this partition")]
    Busy,
    #[error("kv is {batches} batches behind mq in this partition")]
    Backlog { batches: u64 },
    #[error("the key was used for another request before")]
    KeyReused,
    #[error("another gate owns the partition")]
    Fenced,
    /// It is not known whether mq has the rows.
    #[error("{0}")]
    Unavailable(TierError),
}

impl OfferError {
    /// Is it certain that nothing of the offer was taken?
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }

    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::KeyReused)
    }
}

/// Asks a gate how it stands.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "GateReport")]
pub struct Observe;

/// How a gate stands.
#[derive(Debug, Clone, PartialEq, Serialize, MessageResponse)]
pub struct GateReport {
    pub partition: PartitionId,
    pub epoch: Epoch,
    /// `new`, `looking`, `resting`, `reading`, `drained`, `checking`, `appending`, `fenced`.
    pub state: &'static str,
    pub tip: Tip,
    /// The mq offset that kv has.
    pub offset: Offset,
    /// Batches in mq that kv does not have.
    pub mq_lag_batches: u64,
    pub applied_sources: usize,
    pub in_flight: usize,
    pub holes: usize,
    pub counted: Counted,
    pub pushes_dropped: u64,
}

/// What a gate has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub accepted_rows: u64,
    pub duplicate_rows: u64,
    pub committed_rows: u64,
    pub committed_batches: u64,
    pub committed_chunks: u64,
}

struct Waiter {
    rows: u32,
    /// Not the one that was published, but one that came while it was under way.
    follows: bool,
    reply: oneshot::Sender<Result<Accepted, OfferError>>,
}

/// The gate of one partition.
pub struct GateActor {
    parts: GateParts,
    sequencer: Sequencer,
    admission: Admission,
    pressure: Pressure,
    retention: Retention,
    waiters: HashMap<Ticket, Vec<Waiter>>,
    waiting: usize,
    awaiting: Option<SpawnHandle>,
    /// Where mq ends, as far as reads and acknowledgements tell.
    mq_end: Offset,
    counted: Counted,
}

impl GateActor {
    pub fn new(parts: GateParts) -> Self {
        let settings = &parts.settings;
        Self {
            sequencer: Sequencer::new(parts.epoch, settings.sequencer_limits()),
            admission: Admission::new(parts.epoch, settings.admission_limits()),
            pressure: Pressure::new(settings.push_pause_first.0, settings.push_pause_most.0),
            retention: Retention::new(settings.mq_keep.as_i64()),
            waiters: HashMap::new(),
            waiting: 0,
            awaiting: None,
            mq_end: 0,
            counted: Counted::default(),
            parts,
        }
    }

    fn step(&mut self, ctx: &mut Context<Self>, input: Input) {
        let effects = self.admission.step(self.parts.clock.now_ms(), input);
        self.mq_end = self.mq_end.max(self.admission.mq_end());
        for effect in effects {
            self.carry_out(ctx, effect);
        }
    }

    fn carry_out(&mut self, ctx: &mut Context<Self>, effect: Effect) {
        let (partition, mq, kv) = (self.parts.partition, self.parts.mq.clone(), self.parts.kv.clone());
        match effect {
            Effect::ReadHead => {
                self.later(ctx, async move { Input::Head(kv.head(partition).await) });
            }
            Effect::ReadMq { from } => self.read_mq(ctx, from),
            Effect::AwaitMq { from } => {
                self.show_lag();
                let arrived = async move { Input::Arrived(mq.arrived(partition, from).await) };
                let awaiting = self.later(ctx, arrived);
                // A wait that an earlier standing began would never end where mq went back.
                if let Some(before) = self.awaiting.replace(awaiting) {
                    ctx.cancel_future(before);
                }
            }
            Effect::Probe { at_ms, from } => {
                let probe = async move { Input::Probed { at_ms, read: mq.read(partition, from, 1).await } };
                self.later(ctx, probe);
            }
            Effect::Append(append) => self.append(ctx, append),
            Effect::Committed(chunk) => self.push(chunk),
            Effect::Idle { tip, at_ms } => self.tell_idle(tip, at_ms),
            Effect::RetryAfter { after_ms } => {
                ctx.run_later(Duration::from_millis(after_ms), |gate, ctx| gate.step(ctx, Input::Retry));
            }
            Effect::Note(note) => self.note(&note),
        }
    }

    /// Feeds what the future gives back into the admission.
    fn later(&self, ctx: &mut Context<Self>, future: impl Future<Output = Input> + 'static) -> SpawnHandle {
        ctx.spawn(future.into_actor(self).map(|input, gate, ctx| gate.step(ctx, input)))
    }

    fn read_mq(&mut self, ctx: &mut Context<Self>, from: Offset) {
        let (partition, mq) = (self.parts.partition, self.parts.mq.clone());
        let max_bytes = self.parts.settings.read_bytes.bytes();
        let read = async move { Input::Mq(mq.read(partition, from, max_bytes).await) };
        match self.pressure.pause_ms() {
            0 => self.later(ctx, read),
            pause_ms => ctx.run_later(Duration::from_millis(pause_ms), |gate, ctx| {
                gate.later(ctx, read);
            }),
        };
    }

    fn append(&mut self, ctx: &mut Context<Self>, append: Append) {
        let (partition, kv) = (self.parts.partition, self.parts.kv.clone());
        self.later(ctx, async move { Input::Appended(kv.append(partition, append).await) });
    }

    /// A hint to the partition's owner: if it is lost, the owner reads kv.
    fn push(&mut self, chunk: Chunk) {
        self.counted.committed_rows += chunk.rows() as u64;
        self.counted.committed_batches += chunk.batches.len() as u64;
        self.counted.committed_chunks += 1;
        self.sequencer.committed(chunk.batches.iter().map(|batch| &batch.header.source));
        match self.parts.push_budget.take(chunk.size()) {
            None => self.pressure.refused(),
            Some(hold) => {
                let push = PushChunk { partition: self.parts.partition, chunk, hold };
                // An owner that is away is not slow: it reads kv when it comes.
                match (self.parts.push)().map(|owner| owner.try_send(push)) {
                    Some(Err(SendError::Full(_))) => self.pressure.refused(),
                    _ => self.pressure.taken(),
                }
            }
        }
        self.show_lag();
    }

    fn tell_idle(&self, tip: Tip, at_ms: i64) {
        if let Some(owner) = (self.parts.idle)() {
            // The next heartbeat says it again.
            let _ = owner.try_send(Idle { partition: self.parts.partition, tip, at_ms });
        }
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

    fn lag_batches(&self) -> u64 {
        self.mq_end.saturating_sub(self.admission.persisted())
    }

    fn show_lag(&self) {
        // mq counts batches; how many changes those are is estimated by what passed so far, and exact when none are left.
        let batches = match self.admission.standing() {
            Standing::Drained | Standing::Checking => 0,
            _ => self.lag_batches(),
        };
        let changes = batches * self.counted.committed_rows.max(1) / self.counted.committed_batches.max(1);
        let label = PartitionLabel { partition: self.parts.partition.0 };
        self.parts.metrics.mq_lag_changes.get_or_create(&label).set(changes as i64);
    }

    fn heartbeat(&mut self, ctx: &mut Context<Self>) {
        self.step(ctx, Input::Heartbeat);
        self.fill_holes(ctx);
        if let Some(before) = self.retention.note(self.parts.clock.now_ms(), self.admission.persisted()) {
            let (partition, mq) = (self.parts.partition, self.parts.mq.clone());
            let trim = async move { mq.trim(partition, before).await };
            ctx.spawn(trim.into_actor(self).map(move |result, _, _| {
                if let Err(error) = result {
                    warn!(%partition, before, %error, "mq was not trimmed");
                }
            }));
        }
    }

    fn fill_holes(&mut self, ctx: &mut Context<Self>) {
        for void in self.sequencer.voids() {
            info!(partition = %self.parts.partition, source = %void.source, span = %void.span, "failed span voided");
            self.publish(ctx, void, None);
        }
    }

    /// Publishes a batch at once; without an offer it is a void.
    fn publish(&mut self, ctx: &mut Context<Self>, publication: Publication, offer: Option<Offer>) {
        let Publication { ticket, source, span, table, schema } = publication;
        let (rows, weighted, hours, body) = match offer {
            Some(offer) => (offer.rows, offer.weighted, offer.hours, offer.body),
            None => (0, false, None, Bytes::new()),
        };
        let at_ms = self.parts.clock.now_ms();
        let header = BatchHeader { source, span, table, schema, rows, weighted, positioned: false, at_ms, hours };
        let published = self.parts.mq.publish(self.parts.partition, Batch { header, body });
        let settled = move |result, gate: &mut Self, ctx: &mut Context<Self>| gate.settle(ctx, ticket, result);
        ctx.spawn(published.into_actor(self).map(settled));
    }

    fn settle(&mut self, ctx: &mut Context<Self>, ticket: Ticket, result: Result<Offset, TierError>) {
        self.sequencer.settle(ticket, result.is_ok());
        match &result {
            Ok(offset) => self.mq_end = self.mq_end.max(offset + 1),
            Err(error) => warn!(partition = %self.parts.partition, %error, "mq did not acknowledge a batch"),
        }
        for waiter in self.waiters.remove(&ticket).unwrap_or_default() {
            self.waiting -= 1;
            let accepted = Accepted { rows: waiter.rows, duplicate: waiter.follows };
            if result.is_ok() {
                self.count(accepted);
            }
            // A client that went away does not wait for its answer.
            let _ = waiter.reply.send(result.clone().map(|_| accepted).map_err(OfferError::Unavailable));
        }
        // mq takes batches again: now the stretches that it refused.
        if result.is_ok() {
            self.fill_holes(ctx);
        }
    }

    fn count(&mut self, accepted: Accepted) {
        if accepted.duplicate {
            self.counted.duplicate_rows += u64::from(accepted.rows);
        } else {
            self.counted.accepted_rows += u64::from(accepted.rows);
            let label = SourceLabel { source: "push".into() };
            self.parts.metrics.changes_ingested.get_or_create(&label).inc_by(u64::from(accepted.rows));
        }
    }

    fn check_room(&self) -> Result<(), OfferError> {
        if *self.admission.standing() == Standing::Fenced {
            return Err(OfferError::Fenced);
        }
        let batches = self.lag_batches();
        if batches >= self.parts.settings.backlog_batches {
            return Err(OfferError::Backlog { batches });
        }
        if self.waiting >= self.parts.settings.in_flight {
            return Err(OfferError::Busy);
        }
        Ok(())
    }

    fn take(&mut self, ctx: &mut Context<Self>, offer: Offer) -> Result<Answer, OfferError> {
        self.check_room()?;
        let rows = offer.rows;
        let applied = self.admission.applied();
        match self.sequencer.offer(&offer.table, offer.key.as_deref(), rows, applied) {
            Offered::Publish(publication) => {
                let answer = self.wait(publication.ticket, rows, false);
                self.publish(ctx, publication, Some(offer));
                Ok(Answer::Later(answer))
            }
            Offered::Wait(ticket) => Ok(Answer::Later(self.wait(ticket, rows, true))),
            Offered::Duplicate => {
                let accepted = Accepted { rows, duplicate: true };
                self.count(accepted);
                Ok(Answer::Now(accepted))
            }
            Offered::KeyReused => Err(OfferError::KeyReused),
            Offered::TooManyHoles => Err(OfferError::Busy),
        }
    }

    fn wait(&mut self, ticket: Ticket, rows: u32, follows: bool) -> oneshot::Receiver<Result<Accepted, OfferError>> {
        let (reply, answer) = oneshot::channel();
        self.waiters.entry(ticket).or_default().push(Waiter { rows, follows, reply });
        self.waiting += 1;
        answer
    }
}

enum Answer {
    Now(Accepted),
    Later(oneshot::Receiver<Result<Accepted, OfferError>>),
}

impl Actor for GateActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.parts.settings.mailbox);
        ctx.run_interval(self.parts.settings.heartbeat.duration(), Self::heartbeat);
        self.step(ctx, Input::Start);
    }
}

impl Handler<Offer> for GateActor {
    type Result = ResponseFuture<Result<Accepted, OfferError>>;

    fn handle(&mut self, offer: Offer, ctx: &mut Context<Self>) -> Self::Result {
        match self.take(ctx, offer) {
            Ok(Answer::Now(accepted)) => Box::pin(ready(Ok(accepted))),
            Ok(Answer::Later(answer)) => Box::pin(async move {
                let gone =
                    || TierError::Unavailable { tier: "mq", reason: "the gate stopped before it answered".into() };
                answer.await.unwrap_or_else(|_| Err(OfferError::Unavailable(gone())))
            }),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }
}

impl Handler<Observe> for GateActor {
    type Result = GateReport;

    fn handle(&mut self, _: Observe, _: &mut Context<Self>) -> GateReport {
        GateReport {
            partition: self.parts.partition,
            epoch: self.parts.epoch,
            state: self.admission.standing().name(),
            tip: self.admission.tip(),
            offset: self.admission.persisted(),
            mq_lag_batches: self.lag_batches(),
            applied_sources: self.admission.applied().len(),
            in_flight: self.sequencer.in_flight(),
            holes: self.sequencer.holes(),
            counted: self.counted,
            pushes_dropped: self.pressure.dropped(),
        }
    }
}

#[cfg(test)]
#[path = "gate_actor_tests.rs"]
mod tests;
