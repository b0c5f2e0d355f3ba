//! What the active master decides. Pure: `step(now, group, input) -> effects`; exists only while this master is active.
//!
//! ```text
//!   Heard, Closed ──▶ roster, detector ─╮
//!   Applied ────────▶ catalog's effects ├─▶ planning ──▶ Propose ──▶ consensus ──▶ Applied
//!   Asked ──────────▶ petitions ────────╯      ╰──▶ Send Release; Released comes back
//!   Tick ───────────▶ alarms, health, history; Send Directory to whoever lacks it
//! ```
//!
//! Invariant: it changes nothing but by commands; what it decides follows from the catalog and from what it hears now, so a
//! decision that got lost is made again, and a new active master moves nothing because it is new. All it holds is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::alarms::{self, Alarms};
use super::command::{self, Change, Command};
use super::detector::{self, Detector, Finding};
use super::duties::{AskId, Effect, Group, Input, Session};
use super::handover::Handovers;
use super::health::Health;
use super::history::History;
use super::overview;
use super::petitions::{self, Errand, Waiting};
use super::plan::standing_tasks;
use super::proposals::{Proposals, Purpose};
use super::requests::{Answer, Token};
use super::roster::Roster;
use super::settings::Settings;
use super::weights::Weights;
use crate::model::report::{NodeReport, TaskState};
use crate::model::task::{BootId, NodeName, NodeProfile, NodeState, SourceOrder, Task};
use crate::net::control::{Answered, Ask, Directory, FromMaster, FromNode};

/// Between two looks at conditions that last for seconds.
const LOOK_MS: i64 = 250;
/// Above every wait of the consensus.
const PATIENCE_MS: i64 = 1_000;

/// What a governor needs to know of its cluster.
#[derive(Debug, Clone)]
pub struct Charter {
    pub settings: Settings,
    /// The node of this master.
    pub me: NodeName,
    pub partitions: u16,
    /// Whose changes are captured, by name.
    pub sources: Vec<Arc<str>>,
    /// Of the tables and metrics that this master is configured with.
    pub fingerprint: u64,
}

/// The active master's mind.
#[derive(Debug)]
pub struct Governor {
    pub(super) charter: Charter,
    /// Tasks that there must be.
    pub(super) wanted: BTreeSet<Task>,
    pub(super) detector: Detector,
    pub(super) roster: Roster,
    pub(super) proposals: Proposals,
    pub(super) handovers: Handovers,
    pub(super) weights: Weights,
    pub(super) weighed_ms: i64,
    /// Found lost, and not yet declared so.
    pub(super) doomed: BTreeMap<NodeName, (BootId, &'static str)>,
    /// Processes that stop because they are told to: they are not missed.
    leaving: BTreeMap<NodeName, BootId>,
    /// The catalog may not be as it should be.
    pub(super) is_plan_due: bool,
    /// A task could not move because its owner was not connected.
    pub(super) is_owner_away: bool,
    waiting: Waiting,
    alarms: Alarms,
    health: Health,
    history: History,
    looked_ms: i64,
    is_directory_due: bool,
    directory: Arc<Directory>,
}

impl Governor {
    /// For a master that has just become active.
    pub fn new(charter: Charter, now_ms: i64, group: &Group<'_>) -> Self {
        let settings = &charter.settings;
        let wanted = standing_tasks(charter.partitions, &charter.sources);
        let nodes = group.catalog.nodes().map(|it| (it.profile.name.clone(), it.profile.boot, it.state));
        let request_ms = settings.request_timeout.as_i64().max(settings.change_timeout.as_i64()) + PATIENCE_MS;
        let mut governor = Self {
            detector: Detector::new(settings.detector(), now_ms, nodes),
            roster: Roster::default(),
            proposals: Proposals::new(group.term, request_ms),
            handovers: Handovers::new(settings.handover.as_i64(), settings.handovers),
            weights: Weights::default(),
            weighed_ms: now_ms,
            doomed: BTreeMap::new(),
            leaving: BTreeMap::new(),
            is_plan_due: false,
            is_owner_away: false,
            waiting: Waiting::new(settings.requests),
            alarms: Alarms::default(),
            health: Health::default(),
            history: History::default(),
            looked_ms: now_ms,
            is_directory_due: false,
            directory: Arc::new(overview::directory(group)),
            wanted,
            charter,
        };
        // Balance that is not as it would be made now is no reason; tasks that nobody does are one.
        governor.is_plan_due = governor.is_work_undone(group);
        governor
    }

    /// This master is not active any more: those who wait shall ask another.
    pub fn end(mut self) -> Vec<Effect> {
        let answer = |ask| Effect::Answer { ask, answer: Answered::Unknown };
        self.waiting.all().into_iter().map(answer).collect()
    }

    pub fn step(&mut self, now_ms: i64, group: &Group<'_>, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Tick => self.tick(now_ms, group, &mut effects),
            Input::Applied { effects: applied } => self.applied(group, applied, &mut effects),
            Input::Responded { token, answer } => self.responded(now_ms, token, answer, &mut effects),
            Input::Heard { session, message } => self.heard(now_ms, group, session, message, &mut effects),
            Input::Opened { session, node, boot } => self.opened(group, session, &node, boot),
            Input::Closed { session } => self.closed(session),
            Input::Asked { ask, what } => self.asked(now_ms, group, ask, what, &mut effects),
            Input::Invited { ask, address, outcome } => match outcome {
                Err(reason) => self.answer(ask, Answered::Refused { reason }, &mut effects),
                Ok(id) => {
                    let errand = Errand::ChangeMasters(super::masters::MastersChange::Add { id, address });
                    self.run(now_ms, ask, errand, &mut effects);
                }
            },
        }
        effects
    }

    /// False: not now.
    pub(super) fn propose(
        &mut self,
        now_ms: i64,
        purpose: Purpose,
        moves: bool,
        change: Change,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !self.proposals.is_free(now_ms, &purpose) || (moves && !self.proposals.is_still(now_ms)) {
            return false;
        }
        let token = self.proposals.begin(now_ms, purpose, moves);
        effects.push(Effect::Propose { token, command: Command { at_ms: now_ms, change } });
        true
    }

    // What happens.

    fn applied(&mut self, group: &Group<'_>, applied: Vec<command::Effect>, effects: &mut Vec<Effect>) {
        for effect in applied {
            match effect {
                command::Effect::NodeIs { node, state } => {
                    let Some(boot) = group.catalog.node(&node).map(|it| it.profile.boot) else { continue };
                    self.detector.decided(&node, boot, state);
                    self.is_directory_due = true;
                    self.is_plan_due = true;
                    if state == NodeState::Lost || self.doomed.get(&node).is_some_and(|it| it.0 != boot) {
                        self.doomed.remove(&node);
                    }
                }
                command::Effect::Forgotten { node } => {
                    self.detector.decided(&node, 0, NodeState::Lost);
                    self.roster.forget(&node);
                    self.leaving.remove(&node);
                    self.is_directory_due = true;
                }
                command::Effect::Assigned { now, .. } => {
                    self.is_directory_due = true;
                    self.is_plan_due |= now.owner.is_none();
                }
                command::Effect::Ended { task } => {
                    self.weights.forget(&task);
                    self.is_directory_due = true;
                }
                command::Effect::ModeIs { .. } => self.is_directory_due = true,
                command::Effect::Opened { incident } | command::Effect::Closed { incident } => {
                    let incidents = group.catalog.incidents();
                    let found = incidents.open().chain(incidents.past()).find(|it| it.id == incident);
                    effects.extend(found.cloned().map(Effect::Notify));
                }
                command::Effect::Defined { .. } | command::Effect::Nothing { .. } => {}
            }
        }
        self.handovers.settle(group.catalog);
        self.is_directory_due |= self.lacks_masters(group);
    }

    /// Is the directory of other masters than there are now?
    fn lacks_masters(&self, group: &Group<'_>) -> bool {
        !self.directory.masters.iter().eq(group.masters.addresses.values())
    }

    fn responded(&mut self, now_ms: i64, token: Token, answer: Answer, effects: &mut Vec<Effect>) {
        let Some(purpose) = self.proposals.responded(now_ms, token, &answer) else { return };
        match purpose {
            Purpose::Ask(ask) => self.answer(ask, petitions::answered(answer), effects),
            // A plan that came to nothing is made again.
            Purpose::Move | Purpose::Join(_) => self.is_plan_due = true,
            _ => {}
        }
    }

    fn heard(
        &mut self,
        now_ms: i64,
        group: &Group<'_>,
        session: Session,
        message: FromNode,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            FromNode::Hello { profile } => {
                let is_new = self.roster.sit(session, &profile.name, profile.boot);
                self.is_plan_due |= is_new && std::mem::take(&mut self.is_owner_away);
                self.hello(now_ms, group, profile, effects);
            }
            FromNode::Beat { node, boot, directory, report } => {
                let is_new = self.roster.sit(session, &node, boot);
                self.is_plan_due |= is_new && std::mem::take(&mut self.is_owner_away);
                self.roster.has_directory(now_ms, session, directory);
                self.beat(now_ms, group, (node, boot), report, effects);
            }
            FromNode::Released { node, boot, task, epoch } => {
                if self.is_current(group, &node, boot) && !self.handovers.released(&node, &task, epoch) {
                    self.unasked(now_ms, group, &node, task, epoch);
                }
            }
            FromNode::Leaving { node, boot } => {
                let state = group.catalog.node(&node).map(|it| it.state);
                if self.is_current(group, &node, boot) && state != Some(NodeState::Lost) {
                    self.leaving.insert(node.clone(), boot);
                    if state != Some(NodeState::Draining) {
                        let change = Change::DrainNode { node: node.clone(), draining: true };
                        self.propose(now_ms, Purpose::Drain(node), false, change, effects);
                    }
                }
            }
        }
    }

    fn is_current(&self, group: &Group<'_>, node: &NodeName, boot: BootId) -> bool {
        group.catalog.node(node).is_some_and(|it| it.profile.boot == boot)
    }

    fn hello(&mut self, now_ms: i64, group: &Group<'_>, profile: NodeProfile, effects: &mut Vec<Effect>) {
        let (name, boot) = (profile.name.clone(), profile.boot);
        let known = group.catalog.node(&name);
        if let Some(known) = known.filter(|it| it.state != NodeState::Lost) {
            if known.profile == profile {
                return self.beat(now_ms, group, (name, boot), None, effects);
            }
            // Two processes of one name: the second waits until the first has gone, or they would take turns for ever.
            if known.profile.boot != boot && self.roster.session(&name, known.profile.boot).is_some() {
                return;
            }
        }
        self.join(now_ms, group, profile, effects);
    }

    fn beat(
        &mut self,
        now_ms: i64,
        group: &Group<'_>,
        (node, boot): (NodeName, BootId),
        report: Option<Box<NodeReport>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(known) = group.catalog.node(&node).filter(|it| it.profile.boot == boot) else { return };
        if known.state == NodeState::Lost {
            // It had only been silent, and does not know what was thought of it.
            return self.join(now_ms, group, known.profile.clone(), effects);
        }
        self.detector.heard(&node, boot);
        if self.doomed.get(&node).is_some_and(|it| it.0 == boot) {
            self.doomed.remove(&node);
        }
        if let Some(report) = &report {
            self.weights.report(group.catalog, &node, report);
        }
        self.roster.heard(now_ms, &node, boot, report);
    }

    /// It is not away any more, though what it says may come late; if it says nothing it is silent.
    fn opened(&mut self, group: &Group<'_>, session: Session, node: &NodeName, boot: BootId) {
        if self.is_current(group, node, boot) {
            let is_new = self.roster.sit(session, node, boot);
            self.is_plan_due |= is_new && std::mem::take(&mut self.is_owner_away);
            self.detector.opened(node, boot);
            if self.doomed.get(node) == Some(&(boot, detector::AWAY)) {
                self.doomed.remove(node);
            }
        }
    }

    fn closed(&mut self, session: Session) {
        if let Some((node, boot)) = self.roster.leave(session) {
            self.detector.closed(&node, boot);
        }
    }

    // What people ask.

    fn asked(&mut self, now_ms: i64, group: &Group<'_>, ask: AskId, what: Ask, effects: &mut Vec<Effect>) {
        if let Ask::State { history_after_ms } = what {
            let (me, roster, history) = (&self.charter.me, &self.roster, &self.history);
            let state = overview::state(now_ms, me, group, roster, history, history_after_ms);
            return effects.push(Effect::Answer { ask, answer: Answered::State(Box::new(state)) });
        }
        if let Ask::Checkpoint { source, epoch } = &what {
            let answer = match petitions::checkpoint(group, source, *epoch) {
                Ok(state) => Answered::Checkpoint { state },
                Err(reason) => Answered::Refused { reason },
            };
            return effects.push(Effect::Answer { ask, answer });
        }
        let refused = |reason: String| Effect::Answer { ask, answer: Answered::Refused { reason } };
        if let Ask::OrderSource { source, order } = &what {
            return match self.order_source(group, source, *order) {
                Ok(told) => effects.extend([told, Effect::Answer { ask, answer: Answered::Done }]),
                Err(reason) => effects.push(refused(reason)),
            };
        }
        if !self.waiting.has_room() {
            return effects.push(refused("too many wait for an answer".to_owned()));
        }
        match petitions::errand(now_ms, group, what) {
            Err(reason) => effects.push(refused(reason)),
            Ok(errand) => {
                self.waiting.begin(now_ms, ask);
                self.run(now_ms, ask, errand, effects);
            }
        }
    }

    /// Tells the one who captures a source that stands still.
    fn order_source(&self, group: &Group<'_>, source: &Arc<str>, order: SourceOrder) -> Result<Effect, String> {
        let task = Task::Capture(source.clone());
        let assignment = group.catalog.task(&task).ok_or_else(|| format!("there is no source '{source}'"))?;
        let nobody = || format!("nobody captures {source} now; a node with the role capture is needed");
        let owner = assignment.owner.as_ref().ok_or_else(nobody)?;
        let report = self.roster.last_heard(owner).and_then(|heard| heard.report.as_ref());
        let state = report.and_then(|report| report.tasks.iter().find(|it| it.task == task)).map(|it| it.state);
        if state.is_some_and(|state| state != TaskState::Failing) {
            return Err(format!("{source} does not stand still"));
        }
        let session = self.roster.session_of(group.catalog, owner);
        let session =
            session.ok_or_else(|| format!("{owner}, which captures {source}, is not connected; try again"))?;
        let message = FromMaster::Order { task, epoch: assignment.epoch, order };
        Ok(Effect::Send { to: vec![session], message })
    }

    fn run(&mut self, now_ms: i64, ask: AskId, errand: Errand, effects: &mut Vec<Effect>) {
        match errand {
            Errand::Nothing => self.answer(ask, Answered::Done, effects),
            Errand::Propose(change) => {
                if !self.propose(now_ms, Purpose::Ask(ask), false, change, effects) {
                    let reason = "too much is not yet decided".to_owned();
                    self.answer(ask, Answered::Refused { reason }, effects);
                }
            }
            Errand::Invite { address, id } => effects.push(Effect::Invite { ask, address, id }),
            Errand::ChangeMasters(change) => {
                let token = self.proposals.begin(now_ms, Purpose::Ask(ask), false);
                effects.push(Effect::ChangeMasters { token, change });
            }
            Errand::StepAside { reason } => {
                self.answer(ask, Answered::Refused { reason }, effects);
                effects.push(Effect::StepAside);
            }
        }
    }

    fn answer(&mut self, ask: AskId, answer: Answered, effects: &mut Vec<Effect>) {
        if self.waiting.end(ask) {
            effects.push(Effect::Answer { ask, answer });
        }
    }

    // What is due.

    fn tick(&mut self, now_ms: i64, group: &Group<'_>, effects: &mut Vec<Effect>) {
        self.proposals.expire(now_ms);
        let patience_ms = self.charter.settings.change_timeout.as_i64() + 2 * PATIENCE_MS;
        let late = self.waiting.late(now_ms, patience_ms).into_iter();
        effects.extend(late.map(|ask| Effect::Answer { ask, answer: Answered::Unknown }));
        self.watch(now_ms, effects);
        self.arrange(now_ms, group, effects);
        if !(0..LOOK_MS).contains(&(now_ms - self.looked_ms)) {
            self.looked_ms = now_ms;
            self.look(now_ms, group, effects);
        }
        // A change of the masters is no command; nodes hear of it under the number of the next one.
        let is_over = group.catalog.next_end_ms().is_some_and(|end_ms| end_ms <= now_ms);
        if is_over || self.lacks_masters(group) {
            self.propose(now_ms, Purpose::Time, false, Change::PassTime, effects);
        }
        self.publish(now_ms, group, effects);
    }

    /// What the detector has found.
    fn watch(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let mut states = Vec::new();
        for finding in self.detector.look(now_ms) {
            match finding {
                Finding::Suspect { node, boot } => states.push((node, boot, NodeState::Suspect)),
                Finding::Alive { node, boot } => states.push((node, boot, NodeState::Alive)),
                Finding::Lost { node, boot, reason } => drop(self.doomed.insert(node, (boot, reason))),
            }
        }
        if !states.is_empty() {
            // What cannot be proposed now is found again.
            self.propose(now_ms, Purpose::States, false, Change::NodeStates(states), effects);
        }
    }

    /// Everything that is a matter of seconds.
    fn look(&mut self, now_ms: i64, group: &Group<'_>, effects: &mut Vec<Effect>) {
        self.history.look(now_ms, group, &self.roster);
        let conditions = alarms::conditions(now_ms, group, &self.roster, &self.wanted);
        for (name, change) in self.alarms.look(now_ms, group, conditions) {
            self.propose(now_ms, Purpose::Incident(name), false, change, effects);
        }
        for (tier, change) in self.health.look(now_ms, group, &self.roster) {
            self.propose(now_ms, Purpose::Mode(tier), false, change, effects);
        }
        let definitions = group.catalog.definitions();
        if definitions.version == 0 || definitions.fingerprint != self.charter.fingerprint {
            let change = Change::Define { fingerprint: self.charter.fingerprint };
            self.propose(now_ms, Purpose::Define, false, change, effects);
        }
        let has_left = |(node, boot): (&NodeName, &BootId)| {
            let known = group.catalog.node(node);
            known.is_some_and(|it| it.profile.boot == *boot && it.state == NodeState::Lost).then(|| node.clone())
        };
        for node in self.leaving.iter().filter_map(has_left).collect::<Vec<_>>() {
            self.propose(now_ms, Purpose::Forget(node.clone()), false, Change::ForgetNode { node }, effects);
        }
        self.leaving.retain(|node, boot| group.catalog.node(node).is_some_and(|it| it.profile.boot == *boot));
        self.weigh(now_ms, group);
    }

    fn publish(&mut self, now_ms: i64, group: &Group<'_>, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.is_directory_due) {
            self.directory = Arc::new(overview::directory(group));
        }
        let to = self.roster.behind(now_ms, self.directory.version);
        if !to.is_empty() {
            effects.push(Effect::Send { to, message: FromMaster::Directory(self.directory.clone()) });
        }
    }
}

#[cfg(test)]
#[path = "governor_tests.rs"]
mod tests;
