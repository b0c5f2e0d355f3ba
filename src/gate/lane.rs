//! One partition's gate: takes offers of rows into mq, and moves what mq has into kv. Pure: `step(now, input)` gives the
//! effects that an actor runs and whose results come back as inputs.
//!
//! Invariant: a position is assigned and its batch published in one step, so the order of positions is the order in mq;
//! an offer is answered only when mq has acknowledged it; who waits is limited (design I2, I6).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::admission::{self, Admission, Note, Standing};
pub use super::exchange::{Accepted, Counted, Effect, GateReport, Input, Offer, OfferError, OfferId};
use super::pressure::Pressure;
use super::retention::Retention;
use super::sequencer::{Offered, Publication, Sequencer, Ticket};
use super::settings::Settings;
use crate::model::batch::{Batch, BatchHeader, Chunk};
use crate::model::id::{Epoch, PartitionId, SourceId};
use crate::mq::Offset;
use crate::tier::TierError;

/// An offer that waits for mq.
#[derive(Debug)]
struct Waiter {
    id: OfferId,
    rows: u32,
    /// Not the one that was published, but one that came while it was under way.
    follows: bool,
}

/// The gate of one partition.
#[derive(Debug)]
pub struct Lane {
    partition: PartitionId,
    epoch: Epoch,
    settings: Arc<Settings>,
    sequencer: Sequencer,
    admission: Admission,
    pressure: Pressure,
    retention: Retention,
    waiters: HashMap<Ticket, Vec<Waiter>>,
    waiting: usize,
    /// Where mq ends, as far as reads and acknowledgements tell.
    mq_end: Offset,
    counted: Counted,
    stopping: bool,
}

impl Lane {
    /// `epoch` must be above that of every gate that this partition ever had: it is the incarnation of the sequences that
    /// the gate gives out.
    pub fn new(partition: PartitionId, epoch: Epoch, settings: Arc<Settings>) -> Self {
        Self {
            partition,
            epoch,
            sequencer: Sequencer::new(epoch, settings.sequencer_limits()),
            admission: Admission::new(epoch, settings.admission_limits()),
            pressure: Pressure::new(settings.push_pause_first.0, settings.push_pause_most.0),
            retention: Retention::new(settings.mq_keep.as_i64()),
            waiters: HashMap::new(),
            waiting: 0,
            mq_end: 0,
            counted: Counted::default(),
            stopping: false,
            settings,
        }
    }

    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Start => self.advance(now_ms, admission::Input::Start, &mut effects),
            Input::Heartbeat => self.beat(now_ms, &mut effects),
            Input::Offer(id, offer) => self.offered(now_ms, id, offer, &mut effects),
            Input::Published(ticket, result) => self.published(now_ms, ticket, result, &mut effects),
            Input::Pushed { taken: true } => self.pressure.taken(),
            Input::Pushed { taken: false } => self.pressure.refused(),
            Input::Admission(input) => self.advance(now_ms, input, &mut effects),
            Input::Stop => self.stopping = true,
        }
        if self.stopping {
            // What mq has, the next gate reads.
            effects.retain(|effect| !matches!(effect, Effect::ReadMq { .. } | Effect::AwaitMq { .. }));
        }
        effects
    }

    /// Was it stopped, all offers are answered, and nothing is on its way to mq or kv?
    pub fn is_over(&self) -> bool {
        let is_appending = matches!(self.admission.standing(), Standing::Appending(_));
        self.stopping && self.sequencer.in_flight() == 0 && !is_appending
    }

    /// How long to wait before more is read from mq.
    pub fn pause_ms(&self) -> u64 {
        self.pressure.pause_ms()
    }

    // --- from mq to kv ---

    fn advance(&mut self, now_ms: i64, input: admission::Input, effects: &mut Vec<Effect>) {
        let moves = self.admission.step(now_ms, input);
        self.mq_end = self.mq_end.max(self.admission.mq_end());
        for effect in moves {
            effects.push(match effect {
                admission::Effect::ReadHead => Effect::ReadHead,
                admission::Effect::ReadMq { from } => Effect::ReadMq { from },
                admission::Effect::AwaitMq { from } => Effect::AwaitMq { from },
                admission::Effect::Probe { at_ms, from } => Effect::Probe { at_ms, from },
                admission::Effect::Append(append) => Effect::Append(append),
                admission::Effect::Committed(chunk) => {
                    self.committed(&chunk);
                    Effect::Push(chunk)
                }
                admission::Effect::Idle { tip, at_ms } => Effect::Idle { tip, at_ms },
                admission::Effect::RetryAfter { after_ms } => Effect::RetryAfter { after_ms },
                admission::Effect::Note(note) => {
                    if let Note::TookOver { offset, .. } = note {
                        self.retention.seen(offset);
                    }
                    Effect::Note(note)
                }
            });
        }
    }

    fn committed(&mut self, chunk: &Chunk) {
        self.counted.committed_rows += chunk.rows() as u64;
        let batches = chunk.batches.iter().filter(|batch| !batch.header.source.is_mq());
        self.counted.committed_batches += batches.count() as u64;
        self.counted.committed_chunks += 1;
        self.sequencer.committed(chunk.batches.iter().map(|batch| &batch.header.source));
    }

    fn beat(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        self.advance(now_ms, admission::Input::Heartbeat, effects);
        self.fill_holes(now_ms, effects);
        self.close_gaps(now_ms, effects);
        // By when kv showed what it has, not by now: it may be away, and come back without its last writes.
        let looked_ms = self.admission.looked_ms();
        let before = looked_ms.and_then(|looked_ms| self.retention.note(looked_ms, self.admission.persisted()));
        effects.extend(before.map(|before| Effect::Trim { before }));
    }

    // --- from clients to mq ---

    fn offered(&mut self, now_ms: i64, id: OfferId, offer: Offer, effects: &mut Vec<Effect>) {
        match self.take(now_ms, id, offer, effects) {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                self.count(accepted);
                effects.push(Effect::Answer(id, Ok(accepted)));
            }
            Err(error) => effects.push(Effect::Answer(id, Err(error))),
        }
    }

    /// `None`: mq decides.
    fn take(
        &mut self,
        now_ms: i64,
        id: OfferId,
        offer: Offer,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Accepted>, OfferError> {
        self.check_room()?;
        let rows = offer.rows;
        match self.sequencer.offer(&offer.table, offer.key.as_deref(), rows, self.admission.applied()) {
            Offered::Publish(publication) => {
                self.wait(publication.ticket, Waiter { id, rows, follows: false });
                effects.push(publish(now_ms, publication, Some(offer)));
                Ok(None)
            }
            Offered::Wait(ticket) => {
                self.wait(ticket, Waiter { id, rows, follows: true });
                Ok(None)
            }
            Offered::Duplicate => Ok(Some(Accepted { rows, duplicate: true })),
            Offered::KeyReused => Err(OfferError::KeyReused),
            Offered::TooManyHoles => Err(OfferError::Busy),
        }
    }

    fn check_room(&self) -> Result<(), OfferError> {
        if *self.admission.standing() == Standing::Fenced {
            return Err(OfferError::Fenced);
        }
        if self.stopping {
            return Err(OfferError::HandedOver);
        }
        let batches = self.lag_batches();
        if batches >= self.settings.backlog_batches {
            return Err(OfferError::Backlog { batches });
        }
        if self.waiting >= self.settings.in_flight {
            return Err(OfferError::Busy);
        }
        Ok(())
    }

    fn wait(&mut self, ticket: Ticket, waiter: Waiter) {
        self.waiters.entry(ticket).or_default().push(waiter);
        self.waiting += 1;
    }

    fn published(&mut self, now_ms: i64, ticket: Ticket, result: Result<Offset, TierError>, effects: &mut Vec<Effect>) {
        self.sequencer.settle(ticket, result.is_ok());
        if let Ok(offset) = &result {
            self.mq_end = self.mq_end.max(offset + 1);
        }
        for Waiter { id, rows, follows } in self.waiters.remove(&ticket).unwrap_or_default() {
            self.waiting -= 1;
            let accepted = Accepted { rows, duplicate: follows };
            if result.is_ok() {
                self.count(accepted);
            }
            let answer = result.clone().map(|_| accepted).map_err(OfferError::Unavailable);
            effects.push(Effect::Answer(id, answer));
        }
        // mq takes batches again: now the stretches that it refused.
        if result.is_ok() {
            self.fill_holes(now_ms, effects);
        }
    }

    fn fill_holes(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        effects.extend(self.sequencer.voids().into_iter().map(|void| publish(now_ms, void, None)));
    }

    /// What a gate before this one could not void any more.
    fn close_gaps(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let applied = self.admission.applied();
        // What mq forgot before kv had it may have been acknowledged: such gaps stay, and are stated.
        let knows_all = applied.get(&SourceId::mq()).is_none_or(|offsets| offsets.beyond().is_empty());
        if *self.admission.standing() == Standing::Drained && knows_all {
            let voids = self.sequencer.inherited_voids(applied);
            effects.extend(voids.into_iter().map(|void| publish(now_ms, void, None)));
        }
    }

    fn count(&mut self, accepted: Accepted) {
        if accepted.duplicate {
            self.counted.duplicate_rows += u64::from(accepted.rows);
        } else {
            self.counted.accepted_rows += u64::from(accepted.rows);
        }
    }

    // --- what is shown ---

    fn lag_batches(&self) -> u64 {
        self.mq_end.saturating_sub(self.admission.persisted())
    }

    /// mq counts batches; how many changes those are is estimated by what passed so far, and exact when none are left.
    pub fn lag_changes(&self) -> u64 {
        let batches = match self.admission.standing() {
            Standing::Drained | Standing::Checking => 0,
            _ => self.lag_batches(),
        };
        batches * self.counted.committed_rows.max(1) / self.counted.committed_batches.max(1)
    }

    pub fn report(&self) -> GateReport {
        GateReport {
            partition: self.partition,
            epoch: self.epoch,
            state: if self.stopping { "stopping" } else { self.admission.standing().name() },
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

/// Without an offer it is a void.
fn publish(now_ms: i64, publication: Publication, offer: Option<Offer>) -> Effect {
    let Publication { ticket, source, span, table, schema } = publication;
    let (rows, weighted, hours, body) = match offer {
        Some(offer) => (offer.rows, offer.weighted, offer.hours, offer.body),
        None => (0, false, None, Bytes::new()),
    };
    let header = BatchHeader { source, span, table, schema, rows, weighted, positioned: false, at_ms: now_ms, hours };
    Effect::Publish(ticket, Batch { header, body })
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
