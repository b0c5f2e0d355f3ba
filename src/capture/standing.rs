//! What a source does now, and what next: from loading its checkpoint to following the log, pausing after failures, or standing
//! still until somebody does something. Pure.
//!
//! Invariant: a failure is tried again, later and later; a stop is not, except for what an operator orders and what the server's
//! owner may have set right; a fenced one ends for good.

use serde::{Deserialize, Serialize};

use super::place::Place;
use super::stop::{Stop, StopKind};
use crate::backoff::Retry;
use crate::model::task::SourceOrder;

/// A piece of a source's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Find out where the source is.
    Load,
    /// Take an interrupted snapshot back.
    TakeBack,
    /// Publish the rows that are there, or begin at the log's end.
    Snapshot,
    /// Follow the log.
    Follow,
    /// Go on with another server's log.
    Move,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The work is done, and this is next.
    Next(Work),
    /// The work goes well: earlier failures are forgotten.
    Well,
    Failed(String),
    Stop(Stop),
    /// Another owner has the source.
    Fenced,
    /// The time of the last `Wake` has come.
    Tick,
    Order(SourceOrder),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Do(Work),
    /// Say `Tick` then (Unix milliseconds).
    Wake(i64),
    /// Note in the checkpoint that this is passed, before anything else.
    Pass(Passed),
    End,
}

/// What an operator let pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The statement here; tables are as they are defined now.
    Statement(Place),
    /// What is here was lost: the gap stays stated.
    Lost(Place),
    /// All of the log before this was purged.
    Purged(Place),
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Doing(Work),
    Pausing { work: Work, reason: String, until_ms: i64 },
    Stopped { work: Work, stop: Stop },
    Ended,
}

/// The states of one source.
#[derive(Debug)]
pub struct Machine {
    standing: Standing,
    retry: Retry,
    /// Between two looks at a server that is not set up.
    look_again_ms: i64,
}

impl Machine {
    /// Begins with `Load`.
    pub fn new(retry: Retry, look_again_ms: i64) -> (Self, Vec<Effect>) {
        (Self { standing: Standing::Doing(Work::Load), retry, look_again_ms }, vec![Effect::Do(Work::Load)])
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        let standing = std::mem::replace(&mut self.standing, Standing::Ended);
        let (standing, effects) = self.next(now_ms, standing, input);
        self.standing = standing;
        effects
    }

    fn next(&mut self, now_ms: i64, standing: Standing, input: Input) -> (Standing, Vec<Effect>) {
        match (standing, input) {
            (Standing::Ended, _) => (Standing::Ended, Vec::new()),
            (_, Input::Fenced) => (Standing::Ended, vec![Effect::End]),
            (Standing::Doing(_), Input::Next(work)) => (Standing::Doing(work), vec![Effect::Do(work)]),
            (Standing::Doing(work), Input::Well) => {
                self.retry.succeeded();
                (Standing::Doing(work), Vec::new())
            }
            (Standing::Doing(work), Input::Failed(reason)) => {
                self.retry.failed(now_ms);
                let until_ms = self.retry.not_before_ms();
                (Standing::Pausing { work: after_failure(work), reason, until_ms }, vec![Effect::Wake(until_ms)])
            }
            (Standing::Doing(work), Input::Stop(stop)) => {
                let looks = (stop.kind == StopKind::Server).then_some(Effect::Wake(now_ms + self.look_again_ms));
                (Standing::Stopped { work: after_failure(work), stop }, looks.into_iter().collect())
            }
            (Standing::Pausing { work, .. }, Input::Tick | Input::Order(SourceOrder::Retry)) => begin(work),
            (Standing::Stopped { work, .. }, Input::Order(SourceOrder::Retry)) => begin(work),
            (Standing::Stopped { work, stop }, Input::Tick) if stop.kind == StopKind::Server => begin(work),
            (Standing::Stopped { work, stop }, Input::Order(SourceOrder::Pass)) => match passed(&stop) {
                Some(passed) => (Standing::Doing(work), vec![Effect::Pass(passed), Effect::Do(work)]),
                None => (Standing::Stopped { work, stop }, Vec::new()),
            },
            (standing, _) => (standing, Vec::new()),
        }
    }
}

fn begin(work: Work) -> (Standing, Vec<Effect>) {
    (Standing::Doing(work), vec![Effect::Do(work)])
}

/// Part of it may be published already.
fn after_failure(work: Work) -> Work {
    if matches!(work, Work::Snapshot | Work::Move) { Work::Load } else { work }
}

/// What may be passed by order.
fn passed(stop: &Stop) -> Option<Passed> {
    match (stop.kind, stop.place) {
        (StopKind::Definition, Some(place)) => Some(Passed::Statement(place)),
        (StopKind::Loss, Some(place)) => Some(Passed::Lost(place)),
        (StopKind::Purged { first }, _) => Some(Passed::Purged(first)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use crate::model::units::Millis;

    fn machine() -> Machine {
        let retry = Retry::new(Backoff { first: Millis(100), most: Millis(400) });
        Machine::new(retry, 5_000).0
    }

    fn stop(kind: StopKind) -> Stop {
        Stop::new(kind, "so it is", "do this").at(Place::new(3, 500))
    }

    #[test]
    fn a_source_goes_from_its_checkpoint_to_the_log() {
        let mut machine = machine();
        for work in [Work::TakeBack, Work::Snapshot, Work::Follow] {
            assert_eq!(machine.step(0, Input::Next(work)), [Effect::Do(work)]);
        }
    }

    #[test]
    fn failures_are_tried_again_later_and_later_until_it_goes_well() {
        let mut machine = machine();
        machine.step(0, Input::Next(Work::Follow));
        for wait in [100, 200, 400, 400] {
            assert_eq!(machine.step(1_000, Input::Failed("gone".into())), [Effect::Wake(1_000 + wait)]);
            assert_eq!(machine.step(1_000 + wait, Input::Tick), [Effect::Do(Work::Follow)]);
        }
        assert_eq!(machine.step(2_000, Input::Well), []);
        assert_eq!(machine.step(2_000, Input::Failed("gone".into())), [Effect::Wake(2_100)]);
    }

    #[test]
    fn an_interrupted_snapshot_looks_what_must_be_taken_back() {
        let mut machine = machine();
        machine.step(0, Input::Next(Work::Snapshot));
        assert_eq!(machine.step(0, Input::Failed("gone".into())), [Effect::Wake(100)]);
        assert_eq!(machine.step(100, Input::Tick), [Effect::Do(Work::Load)]);
    }

    #[test]
    fn a_stopped_source_waits_for_an_order_that_fits() {
        for (kind, effects) in [
            (StopKind::Definition, vec![Effect::Pass(Passed::Statement(Place::new(3, 500))), Effect::Do(Work::Follow)]),
            (StopKind::Loss, vec![Effect::Pass(Passed::Lost(Place::new(3, 500))), Effect::Do(Work::Follow)]),
            (StopKind::Unreadable, vec![]),
        ] {
            let mut machine = machine();
            machine.step(0, Input::Next(Work::Follow));
            assert_eq!(machine.step(0, Input::Stop(stop(kind))), []);
            for input in [Input::Tick, Input::Well, Input::Failed("late".into())] {
                assert_eq!(machine.step(0, input), []);
            }
            assert_eq!(machine.step(0, Input::Order(SourceOrder::Pass)), effects);
            if kind == StopKind::Unreadable {
                assert_eq!(machine.step(0, Input::Order(SourceOrder::Retry)), [Effect::Do(Work::Follow)]);
            }
        }
    }

    #[test]
    fn a_server_that_is_not_set_up_is_looked_at_again_and_a_fenced_owner_ends() {
        let mut machine = machine();
        assert_eq!(machine.step(10, Input::Stop(stop(StopKind::Server))), [Effect::Wake(5_010)]);
        assert_eq!(machine.step(5_010, Input::Tick), [Effect::Do(Work::Load)]);
        assert_eq!(machine.step(5_020, Input::Fenced), [Effect::End]);
        assert_eq!(machine.step(5_030, Input::Order(SourceOrder::Retry)), []);
    }
}
