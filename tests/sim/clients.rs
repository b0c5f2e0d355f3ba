//! Clients that push rows: with and without an `Idempotency-Key`, delivered one to three times, to whom they take for the gate.
//!
//! Invariant: a request with a key always says the same; one without a key may be repeated when its answer was lost, and
//! then it is two.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use holdfast::gate::exchange::{Accepted, Offer, OfferError};
use holdfast::model::id::PartitionId;

use crate::assigner::{Kind, Task};
use crate::event::Event;
use crate::faults::Fault;
use crate::shop::{self, Change, Orders};
use crate::world::World;

pub type DeliveryId = usize;

#[derive(Debug, Default)]
pub struct Clients {
    orders: Orders,
    requests: Vec<Request>,
    deliveries: Vec<(usize, usize)>,
}

#[derive(Debug)]
struct Request {
    tag: i64,
    key: Option<Arc<str>>,
    parts: Vec<Part>,
}

/// The rows of a request that one partition has.
#[derive(Debug)]
struct Part {
    partition: PartitionId,
    body: Bytes,
    rows: u32,
    hours: Option<(i32, i32)>,
    accepted: bool,
    tries: u32,
}

/// Clients give up after as many tries.
const MOST_TRIES: u32 = 12;

impl World {
    /// A client has something to say.
    pub fn shop(&mut self) {
        if !self.trouble {
            return;
        }
        let next_ms = self.about(self.plan.push_every_ms);
        self.after(next_ms, Event::Shop);
        let keyed = self.random.percent(self.plan.keyed_percent);
        self.request(keyed);
    }

    /// Makes a request and sends it.
    fn request(&mut self, keyed: bool) {
        let tag = self.clients.requests.len() as i64 + 1;
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..self.random.between(1, 3) {
            changes.extend(self.clients.orders.change(&mut self.random, tag));
        }
        self.send_request(&changes, keyed);
    }

    /// The changes bear the next request's tag.
    pub fn send_request(&mut self, changes: &[Change], keyed: bool) {
        let tag = self.clients.requests.len() as i64 + 1;
        let mut parts: BTreeMap<PartitionId, Vec<&Change>> = BTreeMap::new();
        for change in changes {
            parts.entry(change.order.partition()).or_default().push(change);
        }
        let part = |(partition, changes): (PartitionId, Vec<&Change>)| Part {
            partition,
            body: shop::body(&changes, None),
            rows: changes.len() as u32,
            hours: shop::hours(&changes),
            accepted: false,
            tries: 0,
        };
        let parts: Vec<Part> = parts.into_iter().map(part).collect();
        let copies = if keyed { 1 + self.random.below(3) } else { 1 };
        let request = self.clients.requests.len();
        for part in 0..parts.len() {
            for copy in 0..copies {
                let delay_ms = if copy == 0 { 0 } else { self.random.between(0, 3_000) };
                self.after(delay_ms, Event::Deliver { request, part, is_retry: false });
            }
        }
        self.tally.copies += copies as u64 - 1;
        let key = keyed.then(|| format!("request {tag}").into());
        self.clients.requests.push(Request { tag, key, parts });
    }

    pub fn deliver(&mut self, request: usize, part: usize, is_retry: bool) {
        let Request { key, parts, .. } = &mut self.clients.requests[request];
        let this = &mut parts[part];
        if is_retry && (this.accepted || this.tries >= MOST_TRIES) {
            return;
        }
        this.tries += 1;
        let partition = this.partition;
        let offer = Offer {
            table: shop::table(),
            key: key.clone(),
            body: this.body.clone(),
            rows: this.rows,
            weighted: true,
            hours: this.hours,
        };
        let keyed = key.is_some();
        // Any node takes requests in, and passes them on.
        let entry = if self.has_masters() { self.random.below(5) } else { 0 };
        let gate = self.believed_owner(entry, Task { kind: Kind::Gate, partition });
        let lost = self.trouble && self.random.permille(self.plan.unsteady_permille);
        if lost {
            self.tally.hit(Fault::OfferLost);
        }
        if keyed || gate.is_none() {
            // Nobody may ever answer.
            let again_ms = self.random.between(2_000, 4_000);
            self.after(again_ms, Event::Deliver { request, part, is_retry: true });
        }
        let Some(to) = gate.filter(|_| !lost) else { return };
        let delivery = self.clients.deliveries.len();
        self.clients.deliveries.push((request, part));
        let delay_ms = self.random.between(0, 3);
        self.after(delay_ms, Event::Offer { to, delivery, offer: Box::new(offer) });
    }

    /// A gate answers.
    pub fn answer(&mut self, delivery: DeliveryId, partition: PartitionId, answer: Result<Accepted, OfferError>) {
        let (request, _) = self.clients.deliveries[delivery];
        if answer.is_ok() {
            let tag = self.clients.requests[request].tag;
            self.check(self.checkers.promised(&self.truth, partition, tag));
        }
        match &answer {
            Ok(Accepted { duplicate: true, .. }) => self.tally.duplicates += 1,
            Ok(_) => self.tally.accepted += 1,
            Err(_) => self.tally.refused += 1,
        }
        if self.trouble && self.random.permille(self.plan.unsteady_permille) {
            return self.tally.hit(Fault::OfferAnswerLost);
        }
        let delay_ms = self.random.between(0, 3);
        self.after(delay_ms, Event::Answer { delivery, answer });
    }

    pub fn answered(&mut self, delivery: DeliveryId, answer: Result<Accepted, OfferError>) {
        let (request, part) = self.clients.deliveries[delivery];
        let keyed = self.clients.requests[request].key.is_some();
        match answer {
            Ok(_) => self.clients.requests[request].parts[part].accepted = true,
            Err(error) => {
                // Without a key a repetition after an unknown outcome may count twice; some clients do it.
                let again = keyed || error.is_refusal() || self.random.percent(30);
                if again && error.is_retryable() {
                    let again_ms = self.random.between(200, 900);
                    self.after(again_ms, Event::Deliver { request, part, is_retry: true });
                }
            }
        }
    }
}
