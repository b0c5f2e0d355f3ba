//! Whether a tier is worth calling: after failures in a row its calls are refused at once, and attempts beside them, one at a time,
//! try it again. Pure.
//!
//! Invariant: refused is only a tier whose last calls all failed, or that has answered nobody for long; then nobody waits for it but
//! the one attempt. A tier that answers now and then stays in use, however slow it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::model::units::Millis;

/// Calls whose beginnings are remembered; of more, the later ones are not.
const MOST_CALLS: usize = 4_096;

/// When a breaker opens and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// In a row, until calls are refused,
    pub failures: u32,
    /// if they come within this time.
    pub within: Millis,
    /// A call without an answer for so long, while nobody else got one, is as bad.
    pub silence: Millis,
    /// Between attempts to reach a tier that is refused.
    pub probe: Backoff,
    /// Attempts in a row that must succeed.
    pub successes: u32,
}

/// A call that was let through; to be given back when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call(u64);

/// Why a call is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What the last call failed with.
    pub reason: String,
    /// It is time to see how the tier does: to be made beside the one that was refused.
    pub attempt: Option<Call>,
}

#[derive(Debug)]
enum State {
    Closed {
        /// In a row, and when the first of them was.
        failures: u32,
        first_ms: i64,
    },
    Open {
        reason: String,
        attempts: u32,
        successes: u32,
        next_ms: i64,
        probe: Option<Call>,
    },
}

const CLOSED: State = State::Closed { failures: 0, first_ms: 0 };

/// One tier's, as one process sees it.
#[derive(Debug)]
pub struct Breaker {
    settings: Settings,
    state: State,
    last: u64,
    /// Under way, with when they began (Unix milliseconds).
    calls: BTreeMap<u64, i64>,
    answered_ms: i64,
}

impl Breaker {
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: CLOSED, last: 0, calls: BTreeMap::new(), answered_ms: i64::MIN }
    }

    /// Why the tier is refused, if it is.
    pub fn trouble(&self) -> Option<&str> {
        match &self.state {
            State::Open { reason, .. } => Some(reason),
            State::Closed { .. } => None,
        }
    }

    /// May a call be made?
    pub fn call(&mut self, now_ms: i64) -> Result<Call, Refused> {
        self.look(now_ms);
        let call = Call(self.last + 1);
        if let State::Open { reason, next_ms, probe, .. } = &mut self.state {
            // A clock that was set back does not put it off.
            let is_time = now_ms >= *next_ms || *next_ms - now_ms > self.settings.probe.most.as_i64();
            let attempt = (probe.is_none() && is_time).then_some(call);
            if attempt.is_some() {
                (*probe, self.last) = (attempt, call.0);
            }
            return Err(Refused { reason: reason.clone(), attempt });
        }
        self.last = call.0;
        if self.calls.len() < MOST_CALLS {
            self.calls.insert(call.0, now_ms);
        }
        Ok(call)
    }

    /// The tier answered, whatever it said.
    pub fn answered(&mut self, now_ms: i64, call: Call) {
        self.calls.remove(&call.0);
        self.answered_ms = self.answered_ms.max(now_ms);
        match &mut self.state {
            State::Closed { .. } => self.state = CLOSED,
            State::Open { successes, next_ms, probe, attempts, .. } if *probe == Some(call) => {
                (*probe, *attempts, *next_ms) = (None, 0, now_ms);
                *successes += 1;
                if *successes >= self.settings.successes {
                    self.state = CLOSED;
                }
            }
            // It was made before the tier was refused.
            State::Open { .. } => {}
        }
    }

    pub fn failed(&mut self, now_ms: i64, call: Call, reason: &str) {
        self.calls.remove(&call.0);
        let Settings { failures: most, within, .. } = self.settings;
        match &mut self.state {
            State::Closed { failures, first_ms } => {
                if *failures == 0 || now_ms - *first_ms > within.as_i64() {
                    (*failures, *first_ms) = (0, now_ms);
                }
                *failures += 1;
                if *failures >= most {
                    self.open(now_ms, reason);
                }
            }
            State::Open { probe, .. } if *probe == Some(call) => self.open(now_ms, reason),
            State::Open { .. } => {}
        }
    }

    /// Nobody waits for it any more; nothing is known of the tier.
    pub fn given_up(&mut self, now_ms: i64, call: Call) {
        let begun_ms = self.calls.remove(&call.0).unwrap_or(now_ms);
        let is_attempt = matches!(&self.state, State::Open { probe, .. } if *probe == Some(call));
        if is_attempt || now_ms - begun_ms >= self.settings.silence.as_i64() {
            self.failed(now_ms, call, "no answer before its caller gave up");
        }
    }

    /// To be asked by a call each time that it has waited for `silence`: why it shall not wait any longer, if so.
    pub fn silence(&mut self, now_ms: i64) -> Option<String> {
        self.look(now_ms);
        self.trouble().map(str::to_owned)
    }

    fn look(&mut self, now_ms: i64) {
        if let Some(silent_ms) = self.silent_ms(now_ms) {
            self.open(now_ms, &format!("no answer for {silent_ms} ms"));
        }
    }

    /// For how long the oldest call has waited, if that is too long and nobody was answered since it began.
    fn silent_ms(&self, now_ms: i64) -> Option<i64> {
        let (_, begun_ms) = self.calls.first_key_value()?;
        let waits_ms = now_ms - begun_ms;
        let is_silent = waits_ms >= self.settings.silence.as_i64() && self.answered_ms <= *begun_ms;
        (is_silent && matches!(self.state, State::Closed { .. })).then_some(waits_ms)
    }

    fn open(&mut self, now_ms: i64, why: &str) {
        let attempts = match &self.state {
            State::Open { attempts, .. } => attempts.saturating_add(1),
            State::Closed { .. } => 1,
        };
        let next_ms = now_ms + self.settings.probe.delay(attempts).as_i64();
        self.state = State::Open { reason: why.to_owned(), attempts, successes: 0, next_ms, probe: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETTINGS: Settings = Settings {
        failures: 3,
        within: Millis(1_000),
        silence: Millis(500),
        probe: Backoff { first: Millis(100), most: Millis(400) },
        successes: 2,
    };

    fn failing(breaker: &mut Breaker, now_ms: i64) {
        let call = breaker.call(now_ms).expect("it is let through");
        breaker.failed(now_ms, call, "refused by the server");
    }

    /// The attempt that is to be made beside a refused call.
    fn attempt(breaker: &mut Breaker, now_ms: i64) -> Option<Call> {
        breaker.call(now_ms).expect_err("it is refused").attempt
    }

    fn open() -> Breaker {
        let mut breaker = Breaker::new(SETTINGS);
        (0..3).for_each(|now_ms| failing(&mut breaker, now_ms));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_successes_in_a_row_close_it() {
        let mut breaker = open();
        assert_eq!(breaker.trouble(), Some("refused by the server"));
        assert!(breaker.call(101).is_err_and(|refused| refused.reason == "refused by the server"));
        assert_eq!(attempt(&mut breaker, 101), None);
        let probe = attempt(&mut breaker, 102).expect("time for it");
        assert_eq!(attempt(&mut breaker, 103), None, "one at a time");
        breaker.answered(110, probe);
        assert!(breaker.trouble().is_some(), "one success is none");
        let probe = attempt(&mut breaker, 110).expect("at once");
        breaker.answered(120, probe);
        assert_eq!(breaker.trouble(), None);
        failing(&mut breaker, 121);
        assert_eq!(breaker.trouble(), None, "what was before is forgotten");
    }

    #[test]
    fn attempts_come_less_often_up_to_a_limit_and_never_end() {
        let mut breaker = open();
        let mut attempts = Vec::new();
        for now_ms in 3..2_000 {
            if let Some(probe) = attempt(&mut breaker, now_ms) {
                attempts.push(now_ms);
                breaker.failed(now_ms, probe, "still");
            }
        }
        assert_eq!(attempts, [102, 302, 702, 1_102, 1_502, 1_902]);
        assert_eq!(breaker.trouble(), Some("still"));
    }

    #[test]
    fn a_clock_that_is_set_back_puts_no_attempt_off() {
        let mut breaker = Breaker::new(SETTINGS);
        (10_000_000..10_000_003).for_each(|now_ms| failing(&mut breaker, now_ms));
        assert_eq!(attempt(&mut breaker, 10_000_003), None);
        assert!(attempt(&mut breaker, 5_000).is_some());
    }

    #[test]
    fn a_tier_that_takes_calls_and_answers_none_is_refused_once_the_first_has_waited() {
        let mut breaker = Breaker::new(SETTINGS);
        let calls: Vec<Call> = (0..500).step_by(50).map(|at| breaker.call(at).expect("who knows")).collect();
        assert!(breaker.call(500).is_err());
        assert!(breaker.trouble().is_some_and(|trouble| trouble.contains("500 ms")), "{:?}", breaker.trouble());
        // They fail one after another, which is no news.
        calls.into_iter().for_each(|call| breaker.failed(550, call, "deadline"));
        assert!(attempt(&mut breaker, 600).is_some());
    }

    #[test]
    fn a_slow_tier_that_answers_stays_in_use() {
        let mut breaker = Breaker::new(SETTINGS);
        let mut under_way = std::collections::VecDeque::new();
        for now_ms in (0..60_000).step_by(100) {
            under_way.push_back((now_ms, breaker.call(now_ms).expect("it answers")));
            // Each takes 900 ms, and every third one fails.
            while under_way.front().is_some_and(|(begun_ms, _)| now_ms - begun_ms >= 900) {
                let (begun_ms, call) = under_way.pop_front().expect("just seen");
                match begun_ms / 100 % 3 {
                    0 => breaker.failed(now_ms, call, "now and then"),
                    _ => breaker.answered(now_ms, call),
                }
            }
            if now_ms < 800 {
                // Before the first answer there is no telling it from one that hangs.
                breaker.answered_ms = now_ms;
            }
        }
    }

    #[test]
    fn failures_that_are_far_apart_are_no_row() {
        let mut breaker = Breaker::new(SETTINGS);
        (0..20).for_each(|at| failing(&mut breaker, at * 600));
        assert_eq!(breaker.trouble(), None);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Call,
        Answer,
        Fail,
        GiveUp,
        Pass(i64),
    }

    proptest! {
        #[test]
        fn while_it_refuses_one_call_at_a_time_waits_and_a_tier_that_is_well_is_never_refused_for_long(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => Just(Step::Call), 2 => Just(Step::Answer), 3 => Just(Step::Fail), 1 => Just(Step::GiveUp),
                    3 => (1i64..400).prop_map(Step::Pass),
                ],
                0..200,
            ),
        ) {
            let mut breaker = Breaker::new(SETTINGS);
            let (mut now_ms, mut calls, mut since_open, mut row) = (0, Vec::new(), 0, 0u32);
            for step in steps {
                let was_open = breaker.trouble().is_some();
                let oldest = calls.first().copied();
                match (step, oldest) {
                    (Step::Call, _) => match breaker.call(now_ms) {
                        Ok(call) => calls.push(call),
                        Err(refused) => {
                            prop_assert!(breaker.trouble().is_some());
                            since_open += u32::from(refused.attempt.is_some());
                            calls.extend(refused.attempt);
                        }
                    },
                    (Step::Answer, Some(call)) => { breaker.answered(now_ms, call); row = 0; }
                    (Step::Fail, Some(call)) => { breaker.failed(now_ms, call, "x"); row += 1; }
                    (Step::GiveUp, Some(call)) => { breaker.given_up(now_ms, call); row += 1; }
                    (Step::Pass(ms), _) => now_ms += ms,
                    _ => {}
                }
                if matches!(step, Step::Answer | Step::Fail | Step::GiveUp) && oldest.is_some() {
                    calls.remove(0);
                }
                if !matches!(step, Step::Call) && !was_open && breaker.trouble().is_some() {
                    prop_assert!(row >= SETTINGS.failures, "opened after {row} failures");
                }
                if breaker.trouble().is_none() {
                    since_open = 0;
                }
                prop_assert!(i64::from(since_open) <= 2 + now_ms / 100, "{since_open} attempts in {now_ms} ms");
            }
            // Well again: it is in use before long.
            calls.into_iter().for_each(|call| breaker.answered(now_ms, call));
            let mut let_through = 0;
            for at_ms in now_ms..now_ms + 1_000 {
                let made = breaker.call(at_ms);
                let_through += usize::from(made.is_ok());
                if let Some(call) = made.map_or_else(|refused| refused.attempt, Some) {
                    breaker.answered(at_ms, call);
                }
            }
            prop_assert!(breaker.trouble().is_none() && let_through > 500, "{let_through}");
        }
    }
}
