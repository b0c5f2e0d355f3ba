//! Stands in for capture, whose core is not there yet: reads a source's log, publishes spans, repairs what mq did not
//! acknowledge, and after a crash reads again from its checkpoint, cut differently.
//!
//! Invariant: the checkpoint never passes what mq has not acknowledged (design I2).

use holdfast::model::applied::Progress;
use holdfast::model::id::{PartitionId, SourceId};
use holdfast::model::position::{Position, Span};
use holdfast::mq::Offset;
use holdfast::tier::TierError;

use crate::bugs::Bug;
use crate::calls::{ActorId, Call, What};
use crate::event::Event;
use crate::shop::{self, Change, Orders, PARTITIONS};
use crate::world::{Role, World};

pub const CAPTURE_NODE: usize = 6;
const MOST_UNDER_WAY: usize = 8;

pub struct Capture {
    pub actor: ActorId,
    orders: Orders,
    /// One change at each position, from 1 on.
    log: Vec<Change>,
    cursor: u64,
    sent: [u64; PARTITIONS as usize],
    acknowledged: [Progress; PARTITIONS as usize],
    checkpoint: u64,
}

pub fn source() -> SourceId {
    SourceId::Stream { name: "orders-db/shop.orders".into(), incarnation: 1 }
}

fn span(from: u64, to: u64) -> Span {
    Span::new(Position(from.into()), Position(to.into()))
}

impl Capture {
    pub fn new() -> Self {
        Self {
            actor: 0,
            orders: Orders::default(),
            log: Vec::new(),
            cursor: 0,
            sent: [0; PARTITIONS as usize],
            acknowledged: Default::default(),
            checkpoint: 0,
        }
    }

    fn begin(&mut self, actor: ActorId) {
        let from = self.checkpoint;
        let mut acknowledged = Progress::default();
        acknowledged.add(span(0, from), 0);
        (self.actor, self.cursor, self.sent) = (actor, from, [from; PARTITIONS as usize]);
        self.acknowledged = std::array::from_fn(|_| acknowledged.clone());
    }

    pub fn positions(&self) -> u64 {
        self.log.len() as u64
    }

    fn acknowledged_everywhere(&self) -> u64 {
        self.acknowledged.iter().map(|progress| progress.high().0 as u64).min().unwrap_or(0)
    }
}

impl World {
    pub fn capture_tick(&mut self) {
        let next_ms = self.about(self.plan.capture_every_ms);
        self.after(next_ms, Event::Capture);
        if self.trouble {
            for _ in 0..self.random.between(0, 2) {
                let changes = self.capture.orders.change(&mut self.random, 0);
                self.capture.log.extend(changes);
            }
        }
        let node = &self.nodes[CAPTURE_NODE];
        let busy = self.actors.get(&self.capture.actor).is_none_or(|actor| actor.under_way > MOST_UNDER_WAY);
        if !node.is_up || node.stopped_until_ms > self.now_ms || busy {
            return;
        }
        let step = self.random.between(1, 5) as u64;
        self.capture.cursor = self.capture.positions().min(self.capture.cursor + step);
        for partition in shop::partitions() {
            let (sent, cursor) = (self.capture.sent[usize::from(partition.0)], self.capture.cursor);
            if sent < cursor && self.random.percent(70) {
                self.capture.sent[usize::from(partition.0)] = cursor;
                self.publish_span(partition, sent, cursor);
            }
        }
        self.now_and_then_again();
        if !self.trouble {
            shop::partitions().for_each(|partition| self.publish_again(partition));
        }
        if self.random.percent(30) {
            let is_hasty = self.bug == Some(Bug::CheckpointByCursor);
            let whole = self.capture.acknowledged_everywhere();
            self.capture.checkpoint = if is_hasty { self.capture.cursor } else { whole };
        }
    }

    /// Beside what is live: again what mq has not acknowledged.
    fn now_and_then_again(&mut self) {
        let partition = *self.random.pick(&[PartitionId(0), PartitionId(1)]);
        if self.random.percent(40) {
            self.publish_again(partition);
        }
    }

    fn publish_again(&mut self, partition: PartitionId) {
        let high = self.capture.acknowledged[usize::from(partition.0)].high().0 as u64;
        let sent = self.capture.sent[usize::from(partition.0)];
        if high < sent {
            let to = sent.min(high + self.random.between(1, 7) as u64);
            self.publish_span(partition, high, to);
        }
    }

    fn publish_span(&mut self, partition: PartitionId, from: u64, to: u64) {
        let changes: Vec<(Position, &Change)> = (from..to)
            .map(|index| (Position(u128::from(index) + 1), &self.capture.log[index as usize]))
            .filter(|(_, change)| change.order.partition() == partition)
            .collect();
        let at_ms = self.clock_ms(CAPTURE_NODE);
        let batch = shop::positioned_batch(source(), span(from, to), &changes, at_ms);
        self.send(Call { from: self.capture.actor, partition, what: What::Capture(span(from, to), batch) });
    }

    pub fn captured(&mut self, partition: PartitionId, span: Span, result: Result<Offset, TierError>) {
        if let Ok(offset) = result {
            self.truth.acknowledged(partition, offset, self.now_ms);
            self.capture.acknowledged[usize::from(partition.0)].add(span, self.now_ms);
        }
    }

    pub fn restart_capture(&mut self) {
        let actor = self.new_actor(CAPTURE_NODE, PartitionId(0), Role::Other);
        self.capture.begin(actor);
    }

    /// Does mq have every change of the source?
    pub fn is_captured(&self) -> bool {
        let all = span(0, self.capture.positions());
        let has = |partition| {
            self.truth.applied(partition).admit(&source(), all) == holdfast::model::applied::Admission::None
        };
        self.capture.acknowledged_everywhere() == self.capture.positions() && shop::partitions().all(has)
    }
}
