//! Steps of the production cores, and what becomes of their effects: what the actors do in production.
//!
//! Invariant: no decision is made here that a core makes.

use holdfast::gate::exchange::Offer;
use holdfast::gate::lane;
use holdfast::model::batch::Chunk;
use holdfast::slave::exchange::{self, Input};

use crate::assigner::{Kind, Task};
use crate::calls::{ActorId, Call, What};
use crate::checkers::GateBounds;
use crate::clients::DeliveryId;
use crate::event::Event;
use crate::faults::Fault;
use crate::world::{Role, World};

impl World {
    // --- gates ---

    pub fn step_gate(&mut self, id: ActorId, input: lane::Input) {
        let Some(actor) = self.actors.get_mut(&id) else { return };
        let (node, partition) = (actor.node, actor.partition);
        let now_ms = self.now_ms + self.nodes[node].clock_off_ms;
        if let lane::Input::Published(_, Ok(offset)) = &input {
            self.truth.acknowledged(partition, *offset, self.now_ms);
        }
        let Role::Gate(core) = &mut actor.role else { panic!("actor {id} is no gate") };
        let effects = core.step(now_ms, input);
        let is_over = core.is_over();
        for effect in effects {
            self.run_gate_effect(id, effect);
        }
        if is_over {
            self.actor_ended(id);
        }
        if self.is_inspected(id) {
            self.inspect_gate(id);
        }
    }

    fn inspect_gate(&mut self, id: ActorId) {
        if let Some(Role::Gate(core)) = self.actors.get(&id).map(|actor| &actor.role) {
            let gate = &self.plan.gate;
            let most = GateBounds { in_flight: gate.in_flight, holes: gate.holes, backlog: gate.backlog_batches };
            let checked = self.checkers.gate_is_bounded(&core.report(), most);
            self.check(checked);
        }
    }

    fn run_gate_effect(&mut self, id: ActorId, effect: lane::Effect) {
        let (node, partition) = (self.actors[&id].node, self.actors[&id].partition);
        let call = |what| Call { from: id, partition, what };
        match effect {
            lane::Effect::ReadHead => self.send(call(What::ReadHead)),
            lane::Effect::ReadMq { from } => {
                let Role::Gate(core) = &self.actors[&id].role else { panic!("actor {id} is no gate") };
                match core.pause_ms() {
                    0 => self.send(call(What::ReadMq { from })),
                    pause_ms => {
                        let call = Box::new(call(What::ReadMq { from }));
                        self.after(pause_ms as i64, Event::ReadMq { to: id, call });
                    }
                }
            }
            lane::Effect::AwaitMq { from } => self.send(call(What::AwaitMq { from })),
            lane::Effect::Probe { at_ms, from } => self.send(call(What::Probe { at_ms, from })),
            lane::Effect::Append(append) => self.send(call(What::Append(append))),
            lane::Effect::Publish(ticket, batch) => {
                self.tally.voids += u64::from(batch.header.rows == 0);
                self.send(call(What::Publish(ticket, batch)));
            }
            lane::Effect::Answer(offer, answer) => {
                if let Some(delivery) = self.offers.remove(&(id, offer)) {
                    self.answer(delivery, partition, answer);
                }
            }
            lane::Effect::Push(chunk) => self.push(id, chunk),
            lane::Effect::Idle { tip, at_ms } => {
                if let Some(to) = self.believed_owner(node, Task { kind: Kind::Slave, partition }) {
                    let delay_ms = self.message_delay();
                    self.after(delay_ms, Event::Idle { to, tip, at_ms });
                }
            }
            lane::Effect::RetryAfter { after_ms } => self.after(after_ms as i64, Event::Retry { to: id }),
            lane::Effect::Trim { before } => self.send(call(What::TrimMq { before })),
            lane::Effect::Note(note) => self.tell(|| format!("gate {id} of {partition}: {note:?}")),
        }
    }

    fn message_delay(&mut self) -> i64 {
        if self.trouble && self.random.permille(self.plan.unsteady_permille) {
            self.tally.hit(Fault::PushDelayed);
            return self.random.between(100, 3_000);
        }
        self.random.between(0, 2)
    }

    /// A hint: it may be lost, come twice, late, or to the wrong one.
    fn push(&mut self, id: ActorId, chunk: Chunk) {
        let (node, partition) = (self.actors[&id].node, self.actors[&id].partition);
        let unsteady = self.plan.unsteady_permille * u64::from(self.trouble);
        let refused = self.random.permille(unsteady);
        let lost = self.random.permille(unsteady) || self.plan.pushes_lost;
        let copies = if lost { 0 } else { 1 + usize::from(self.random.permille(unsteady)) };
        if copies == 0 {
            self.tally.hit(Fault::PushLost);
        }
        if copies == 2 {
            self.tally.hit(Fault::PushDoubled);
        }
        for _ in 0..copies {
            if let Some(to) = self.believed_owner(node, Task { kind: Kind::Slave, partition }).filter(|_| !refused) {
                let delay_ms = self.message_delay();
                self.after(delay_ms, Event::Push { to, chunk: Box::new(chunk.clone()) });
            }
        }
        self.step_gate(id, lane::Input::Pushed { taken: !refused });
    }

    pub fn beat(&mut self, id: ActorId) {
        let every_ms = self.plan.gate.heartbeat.as_i64();
        self.after(every_ms, Event::Beat { to: id });
        self.step_gate(id, lane::Input::Heartbeat);
    }

    pub fn offered(&mut self, id: ActorId, delivery: DeliveryId, offer: Offer) {
        self.offers_ever += 1;
        self.offers.insert((id, self.offers_ever), delivery);
        self.step_gate(id, lane::Input::Offer(self.offers_ever, offer));
    }

    // --- slaves ---

    pub fn pushed(&mut self, id: ActorId, mut chunk: Chunk) {
        self.before_counting(id, &mut chunk);
        self.step_slave(id, Input::Push(chunk));
    }

    pub fn step_slave(&mut self, id: ActorId, input: Input) {
        let Some(actor) = self.actors.get_mut(&id) else { return };
        let (node, partition) = (actor.node, actor.partition);
        let now_ms = self.now_ms + self.nodes[node].clock_off_ms;
        let Role::Slave { core, .. } = &mut actor.role else { panic!("actor {id} is no slave") };
        let effects = core.step(now_ms, input);
        for effect in &effects {
            if let exchange::Effect::Write(name, write) = effect {
                self.checkers.says(&self.truth, partition, *name, write, core.applied());
            }
        }
        for effect in effects {
            self.run_slave_effect(id, effect);
        }
        if self.is_inspected(id) {
            self.inspect_slave(id);
        }
        self.set_timer(id);
    }

    fn inspect_slave(&mut self, id: ActorId) {
        if let Some(Role::Slave { core, .. }) = self.actors.get(&id).map(|actor| &actor.role) {
            let checked = self.checkers.slave_is_bounded(&core.report());
            self.check(checked);
        }
    }

    fn run_slave_effect(&mut self, id: ActorId, effect: exchange::Effect) {
        let partition = self.actors[&id].partition;
        let what = match effect {
            exchange::Effect::ReadSnapshot => What::ReadSnapshot,
            exchange::Effect::ReadHead => What::LookAtHead,
            exchange::Effect::ReadChunks { after } => What::ReadChunks { after },
            exchange::Effect::AskStanding(name) => What::AskStanding(name),
            exchange::Effect::Write(name, write) => {
                self.tally.cut_emissions += u64::from(write.record.is_none());
                What::Write(name, write)
            }
            exchange::Effect::PutSnapshot(snapshot) => What::PutSnapshot(snapshot),
            exchange::Effect::Trim { through, before_ms } => What::TrimKv { through, before_ms },
            exchange::Effect::Visible { .. } => return,
            exchange::Effect::End => {
                let standing = |world: &Self| match &world.actors[&id].role {
                    Role::Slave { core, .. } => format!("{:?}", core.standing()),
                    _ => String::new(),
                };
                self.tell(|| format!("slave {id} of {partition} ends: {}", standing(self)));
                return self.actor_ended(id);
            }
        };
        self.send(Call { from: id, partition, what });
    }

    fn set_timer(&mut self, id: ActorId) {
        let Some(actor) = self.actors.get_mut(&id) else { return };
        let Role::Slave { core, timer_ms } = &mut actor.role else { return };
        let Some(wake_ms) = core.wake_ms() else { return };
        if timer_ms.is_some_and(|set_ms| set_ms <= wake_ms) {
            return;
        }
        *timer_ms = Some(wake_ms);
        let node = actor.node;
        let wait_ms = wake_ms.saturating_sub(self.clock_ms(node)).clamp(1, 3_600_000);
        self.after(wait_ms, Event::Wake { to: id, at_ms: wake_ms });
    }

    pub fn wake(&mut self, id: ActorId, at_ms: i64) {
        if let Some(Role::Slave { timer_ms, .. }) = self.actors.get_mut(&id).map(|actor| &mut actor.role) {
            // Another was set for an earlier time since.
            if *timer_ms != Some(at_ms) {
                return;
            }
            *timer_ms = None;
            self.step_slave(id, Input::Tick);
        }
    }
}
