//! Calls on their way to tiers and back: how long they take, and what can befall them.
//!
//! Invariant: batches of one sender come to mq in the order in which they were sent; everything else may overtake.

use holdfast::gate::{admission, lane};
use holdfast::model::id::PartitionId;
use holdfast::slave::exchange::Input;

use crate::calls::{ActorId, Call, Reply, Tier, What};
use crate::event::{Event, Fate};
use crate::faults::Fault;
use crate::shop;
use crate::world::{Link, World};

/// A call without an answer for so long has failed.
const PATIENCE_MS: i64 = 1_000;

impl World {
    pub fn send(&mut self, call: Call) {
        let Some(actor) = self.actors.get(&call.from) else { return };
        let (node, published_ms) = (actor.node, actor.published_ms);
        let tier = call.what.tier();
        let slowness = self.nodes[node].slowness * self.tiers.slowness[tier as usize];
        let mut at_ms = self.now_ms + self.random.between(0, 2) * slowness;
        let mut fate = match self.nodes[node].links[tier as usize] {
            Link::Good => self.fate(&call),
            Link::Cut => None,
            Link::CutBack => Some(Fate::AnswerLost),
        };
        if fate == Some(Fate::Good) && at_ms - self.now_ms > PATIENCE_MS {
            fate = Some(Fate::Late);
        }
        if fate == Some(Fate::Late) {
            at_ms = self.now_ms + PATIENCE_MS + self.random.between(0, 3_000);
        }
        let life = self.tiers.lives[tier as usize];
        let actor = self.actors.get_mut(&call.from).expect("just seen");
        actor.under_way += 1;
        let under_way = actor.under_way;
        if call.what.is_publication() {
            at_ms = at_ms.max(published_ms);
            actor.published_ms = at_ms;
        }
        self.check(self.checkers.calls_are_bounded(under_way));
        let Some(fate) = fate else {
            self.tally.hit(Fault::RequestLost);
            return self.fail(&call, PATIENCE_MS, "no answer in time");
        };
        if fate == Fate::Late {
            self.tally.hit(Fault::RequestLate);
            self.fail(&call, PATIENCE_MS, "no answer in time");
        }
        let in_order = call.what.is_publication();
        let event = Event::Arrive { call: Box::new(call), life, fate };
        if in_order { self.in_order(at_ms, event) } else { self.after(at_ms - self.now_ms, event) }
    }

    /// `None`: it is lost.
    fn fate(&mut self, call: &Call) -> Option<Fate> {
        // What waits for mq waits in mq.
        if !self.trouble
            || matches!(call.what, What::AwaitMq { .. })
            || !self.random.permille(self.plan.unsteady_permille)
        {
            return Some(Fate::Good);
        }
        match self.random.below(3) {
            0 => None,
            1 => Some(Fate::Late),
            _ => Some(Fate::AnswerLost),
        }
    }

    fn fail(&mut self, call: &Call, after_ms: i64, reason: &str) {
        let reply = call.failed(reason);
        self.after(after_ms, Event::Reply { to: call.from, reply: Box::new(reply) });
    }

    /// A call comes to its tier.
    pub fn arrive(&mut self, mut call: Call, life: u32, fate: Fate) {
        let (tier, from) = (call.what.tier(), call.from);
        // A crashed sender's batches are lost from some point on.
        let is_orphan = !self.actors.contains_key(&from);
        if is_orphan && call.what.is_publication() && self.random.percent(50) {
            return;
        }
        if life != self.tiers.lives[tier as usize] && fate == Fate::Good {
            self.tally.hit(Fault::InFlightLost);
            return self.fail(&call, 0, "the connection broke");
        }
        let replies = fate == Fate::Good;
        self.before_execution(&mut call);
        let answer = self.execute(&call);
        match answer {
            Some(mut answer) => {
                self.after_execution(&call, &mut answer);
                if fate == Fate::AnswerLost {
                    self.tally.hit(Fault::AnswerLost);
                    self.fail(&call, PATIENCE_MS, "no answer in time");
                } else if replies {
                    let slowness = self.tiers.slowness[tier as usize];
                    let delay_ms = (self.random.between(0, 2) * slowness).min(PATIENCE_MS);
                    self.after(delay_ms, Event::Reply { to: from, reply: Box::new(answer) });
                }
            }
            None => {
                if let What::AwaitMq { from: offset } = call.what {
                    let waiting = self.awaiting.entry(call.partition).or_default();
                    waiting.retain(|(actor, _)| *actor != from);
                    waiting.push((from, offset));
                }
            }
        }
    }

    /// Carries a call out and shows the checkers what it changed.
    pub fn execute(&mut self, call: &Call) -> Option<Reply> {
        let partition = call.partition;
        if let What::TrimMq { before } = &call.what
            && self.tiers.is_up(Tier::Mq)
        {
            self.check_trim(partition, *before);
        }
        let answer = self.tiers.execute(call.clone())?;
        match (&call.what, &answer) {
            (What::Publish(_, batch), Reply::Gate(lane::Input::Published(_, Ok(offset))))
            | (What::Capture(_, batch), Reply::Capture(_, _, Ok(offset))) => {
                self.truth.landed(partition, *offset, batch);
                self.mark(self.truth.set_digest(partition));
                self.announce_arrival(partition, *offset + 1);
            }
            (What::Append(append), Reply::Gate(lane::Input::Admission(admission::Input::Appended(Ok(()))))) => {
                self.mark(append.chunk.id.number);
                let checked = self.checkers.appended(&self.truth, partition, append);
                self.check(checked);
            }
            (What::Write(name, write), Reply::Slave(Input::Written(_, Ok(())))) => {
                self.mark(write.tip.number);
                let wrote = self.checkers.wrote(&self.truth, partition, *name, write);
                if wrote == Ok(true) {
                    let looked = self.checkers.look(&self.tiers, &self.truth, partition, *name);
                    self.check(looked);
                }
                self.check(wrote.map(|_| ()));
            }
            (What::PutSnapshot(snapshot), Reply::Slave(Input::SnapshotPut(Ok(())))) => {
                let checked = self.checkers.saved(partition, snapshot.epoch);
                self.check(checked);
            }
            _ => {}
        }
        Some(answer)
    }

    fn check_trim(&mut self, partition: PartitionId, before: u64) {
        let low = self.tiers.mq_end(partition).low;
        if low < before {
            self.tally.mq_trims += 1;
            let mut forgotten = crate::tiers::now(holdfast::mq::Mq::read(&self.tiers.mq, partition, low, usize::MAX))
                .expect("mq is up");
            forgotten.batches.retain(|(offset, _)| *offset < before);
            let head = self.tiers.head(partition);
            self.check(self.checkers.trimmed(partition, &forgotten, &head));
        }
    }

    fn announce_arrival(&mut self, partition: PartitionId, end: u64) {
        let Some(waiting) = self.awaiting.get_mut(&partition) else { return };
        let (heard, still): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|(_, from)| end > *from);
        *waiting = still;
        for (actor, _) in heard {
            self.arrived(actor, Ok(()));
        }
    }

    fn arrived(&mut self, to: ActorId, result: Result<(), holdfast::tier::TierError>) {
        let reply = Reply::Gate(lane::Input::Admission(admission::Input::Arrived(result)));
        let delay_ms = self.random.between(0, 2);
        self.after(delay_ms, Event::Reply { to, reply: Box::new(reply) });
    }

    /// mq went away: nobody can wait there any more.
    pub fn break_waits(&mut self) {
        for partition in shop::partitions() {
            for (actor, _) in self.awaiting.remove(&partition).unwrap_or_default() {
                self.arrived(actor, Err(Tier::Mq.failure("it is down")));
            }
        }
    }

    pub fn replied(&mut self, to: ActorId, reply: Reply) {
        if let Some(actor) = self.actors.get_mut(&to) {
            actor.under_way = actor.under_way.saturating_sub(1);
        }
        match reply {
            Reply::Gate(input) => self.step_gate(to, input),
            Reply::Slave(input) => self.step_slave(to, input),
            Reply::Query(query, answer) => self.read_answered(query, answer),
            Reply::Capture(partition, span, result) => self.captured(partition, span, result),
            Reply::Nothing => {}
        }
    }
}
