//! One sink's share of a partition: which blocks it does not have yet, where its chain stands, and what is under way.
//! Pure.
//!
//! Invariant: before a block is in the sink, all that it contains is announced there; the record comes last. An owner
//! that does not know the sink's tip claims it first, is silent until it knows all that was announced there, and
//! then says everything again. What the sink misses is a set of names, however long it is away (design I1, I5, I6).

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::crowd::Share;
pub use super::offer::{Claim, EmissionReport, Knowledge, Next, Offer, Outlook};
use super::pace::{Cost, Pace};
use super::settings::Settings;
use crate::backoff::Retry;
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::id::{Epoch, SourceId, Tip};
use crate::model::position::Position;
use crate::model::quality::Record;
use crate::tier::{SinkStanding, SinkWrite, TierError};

/// Where the sink stands, as far as the owner knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Anywhere: the owner is new, or the sink was found elsewhere.
    Unclaimed,
    /// The last write may have happened or not.
    Unsure { before: Tip, after: Tip },
    /// Here, unless somebody else writes.
    Claimed { tip: Tip },
    /// A newer owner was here.
    Fenced { found: Tip },
}

/// What the owner waits for.
#[derive(Debug)]
enum Work {
    Nothing,
    Asking,
    Writing(Box<Flight>),
}

/// An emission under way.
#[derive(Debug)]
struct Flight {
    /// All that goes back to the emission if it fails.
    names: BTreeSet<BlockKey>,
    announced: BTreeSet<SourceId>,
    forgotten: BTreeSet<SourceId>,
    waiting_ms: Vec<i64>,
    record: Record,
    started_ms: i64,
    /// The writes still to come; their tips are set when they are sent.
    rest: VecDeque<SinkWrite>,
    before: Tip,
    after: Tip,
}

/// Emissions of one partition to one sink.
#[derive(Debug)]
pub struct Emission {
    epoch: Epoch,
    place: Place,
    work: Work,
    dirty: BTreeSet<BlockKey>,
    unannounced: BTreeSet<SourceId>,
    forgotten: BTreeSet<SourceId>,
    /// When the changes happened that the sink does not show yet; a bounded sample, Unix milliseconds.
    waiting_ms: Vec<i64>,
    /// The highest number that this owner used or found in its epoch. Never goes back, also not with a new claim: a block
    /// left by an emission that failed must not look like one of a later emission.
    number: u64,
    /// The first emission after the claim.
    base: Option<Tip>,
    written: Option<Record>,
    retry: Retry,
    pace: Pace,
    /// Of the thread's time, for what has been said since the last emission that succeeded, microseconds.
    spent_us: i64,
    last_ms: Option<i64>,
    last_duration_ms: i64,
    trouble: Option<String>,
}

/// Samples of waiting changes; more would not make the histogram better.
const MAX_WAITING: usize = 256;

impl Emission {
    pub fn new(epoch: Epoch, settings: &Settings) -> Self {
        Self {
            epoch,
            place: Place::Unclaimed,
            work: Work::Nothing,
            dirty: BTreeSet::new(),
            unannounced: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            waiting_ms: Vec::new(),
            number: 0,
            base: None,
            written: None,
            retry: Retry::new(settings.retry),
            pace: Pace::default(),
            spent_us: 0,
            last_ms: None,
            last_duration_ms: 0,
            trouble: None,
        }
    }

    /// Notes blocks that the sink does not have in their present form.
    pub fn changed(&mut self, names: impl IntoIterator<Item = BlockKey>) {
        self.dirty.extend(names);
    }

    /// Notes that more of `source` was counted, from a change made at `at_ms`.
    pub fn counted(&mut self, now_ms: i64, source: &SourceId, at_ms: Option<i64>) {
        self.pace.counted(now_ms);
        if !self.unannounced.contains(source) {
            self.unannounced.insert(source.clone());
        }
        self.waiting_ms.extend(at_ms.filter(|_| self.waiting_ms.len() < MAX_WAITING));
    }

    /// Notes that `source` need not be remembered any more.
    pub fn forgot(&mut self, source: &SourceId) {
        self.unannounced.remove(source);
        self.forgotten.insert(source.clone());
    }

    pub fn fenced_by(&self) -> Option<Tip> {
        match self.place {
            Place::Fenced { found } => Some(found),
            _ => None,
        }
    }

    pub fn is_idle(&self) -> bool {
        matches!(self.work, Work::Nothing)
    }

    pub fn dirty(&self) -> &BTreeSet<BlockKey> {
        &self.dirty
    }

    /// Must the sink be asked where it stands, and may it be asked now?
    pub fn wants_to_ask(&self, now_ms: i64) -> bool {
        let unknown = matches!(self.place, Place::Unclaimed | Place::Unsure { .. });
        unknown && self.is_idle() && now_ms >= self.retry.not_before_ms()
    }

    pub fn asked(&mut self) {
        assert!(self.is_idle(), "one thing at a time");
        self.work = Work::Asking;
    }

    /// Takes the answer of a sink that was asked.
    pub fn stands(&mut self, now_ms: i64, answer: Result<SinkStanding, TierError>, known: Knowledge<'_>) {
        assert!(matches!(self.work, Work::Asking), "an answer follows a question");
        self.work = Work::Nothing;
        let standing = match answer {
            Ok(standing) => standing,
            Err(error) => return self.failed(now_ms, &error),
        };
        let tip = standing.tip;
        match self.place {
            _ if tip.epoch > self.epoch => self.place = Place::Fenced { found: tip },
            // Nothing was lost and nobody else wrote: the sink misses what is dirty, and no more.
            Place::Unsure { before, after } if tip == before || tip == after => self.place = Place::Claimed { tip },
            _ => self.claim(now_ms, standing, known),
        }
    }

    fn claim(&mut self, now_ms: i64, standing: SinkStanding, known: Knowledge<'_>) {
        self.place = Place::Unclaimed;
        for (source, theirs) in standing.announced.iter() {
            let covered = match known.applied.get(source) {
                Some(ours) => ours.covers(theirs),
                None if theirs.top() == Position::ZERO => true,
                None if matches!(source, SourceId::Request(_)) && theirs.seen_ms() <= known.forgotten_ms => {
                    self.forgotten.insert(source.clone());
                    true
                }
                None => false,
            };
            if !covered {
                self.retry.failed(now_ms);
                self.trouble = Some(format!("silent: more of {source} was announced here than this owner has counted"));
                return;
            }
        }
        self.place = Place::Claimed { tip: standing.tip };
        if standing.tip.epoch == self.epoch {
            self.number = self.number.max(standing.tip.number);
        }
        (self.base, self.written) = (None, None);
        self.dirty.extend(known.blocks);
        // What is announced here already need not be again: that can be thousands of requests.
        let is_new = |source: &SourceId, ours| standing.announced.get(source).is_none_or(|theirs| !theirs.covers(ours));
        let new = known.applied.iter().filter(|(source, ours)| is_new(source, ours));
        self.unannounced = new.map(|(source, _)| source.clone()).collect();
    }

    /// May an emission begin now, and is there anything to say? `force`: without regard to the pace.
    pub fn wants_to_write(&self, now_ms: i64, claim: &Claim, settings: &Settings, force: bool) -> bool {
        self.could_write(now_ms, settings, force) && self.has_news(now_ms, claim, settings, force)
    }

    pub fn could_write(&self, now_ms: i64, settings: &Settings, force: bool) -> bool {
        let not_before_ms = self.not_before_ms(settings);
        matches!(self.place, Place::Claimed { .. }) && self.is_idle() && (force || now_ms >= not_before_ms)
    }

    fn has_news(&self, now_ms: i64, claim: &Claim, settings: &Settings, force: bool) -> bool {
        if claim.as_of_ms == 0 && claim.unavailable.is_empty() {
            // Nothing is known of the sources yet.
            return false;
        }
        let Some(written) = &self.written else { return true };
        let said = (&written.missing, written.missing_more, &written.unavailable);
        if said != (&claim.missing, claim.missing_more, &claim.unavailable) {
            return true;
        }
        let withheld = !claim.unavailable.is_empty();
        let aged = written.as_of_ms < claim.as_of_ms || !self.unannounced.is_empty();
        let beat = self.last_ms.is_none_or(|last| now_ms >= last.saturating_add(settings.heartbeat.as_i64()));
        !self.dirty.is_empty() && !withheld || aged && (beat || force)
    }

    /// Begins an emission of everything that the sink misses; gives its first write.
    pub fn begin(&mut self, now_ms: i64, offer: Offer<'_>, settings: &Settings) -> SinkWrite {
        let Place::Claimed { tip } = self.place else { panic!("only a claimed sink is written to") };
        assert!(self.is_idle(), "one emission at a time");
        let version = Tip::new(self.epoch, self.number + 1);
        let base = match offer.blocks {
            Some(_) => *self.base.get_or_insert(version),
            // Not everything was said again: what is there must not be gone.
            None => Tip::default(),
        };
        let claim = offer.claim.clone();
        let record = Record {
            version,
            base,
            as_of_ms: claim.as_of_ms,
            missing: claim.missing,
            missing_more: claim.missing_more,
            unavailable: claim.unavailable,
        };
        let names = if offer.blocks.is_some() { std::mem::take(&mut self.dirty) } else { BTreeSet::new() };
        let announced = std::mem::take(&mut self.unannounced);
        let forgotten = std::mem::take(&mut self.forgotten);
        let first = SinkWrite {
            announce: offer.applied.delta(&announced),
            forget: forgotten.iter().cloned().collect(),
            ..SinkWrite::default()
        };
        let mut rest = cut(first, &names, offer.blocks, version, settings.emit_bytes.bytes());
        rest.back_mut().expect("there is at least one write").record = Some(record.clone());
        let mut flight = Flight {
            names,
            announced,
            forgotten,
            waiting_ms: std::mem::take(&mut self.waiting_ms),
            record,
            started_ms: now_ms,
            rest,
            before: tip,
            after: tip,
        };
        let write = flight.next(self.epoch, &mut self.number).expect("there is at least one write");
        self.work = Work::Writing(Box::new(flight));
        write
    }

    /// Notes that making or writing an emission took so much of the thread's time, in microseconds.
    pub fn spent(&mut self, us: i64) {
        self.spent_us = self.spent_us.saturating_add(us.max(0));
    }

    /// Takes the result of the last write.
    pub fn wrote(&mut self, now_ms: i64, result: Result<(), TierError>, settings: &Settings, share: Share) -> Next {
        let Work::Writing(mut flight) = std::mem::replace(&mut self.work, Work::Nothing) else {
            panic!("a result follows a write");
        };
        if let Err(error) = result {
            self.dirty.append(&mut flight.names);
            self.unannounced.append(&mut flight.announced);
            self.forgotten.append(&mut flight.forgotten);
            self.waiting_ms.splice(0..0, flight.waiting_ms);
            self.waiting_ms.truncate(MAX_WAITING);
            self.place = match error {
                TierError::Fenced { found, .. } => Place::Fenced { found },
                TierError::Moved { .. } => Place::Unclaimed,
                _ => Place::Unsure { before: flight.before, after: flight.after },
            };
            self.failed(now_ms, &error);
            return Next::Failed;
        }
        self.place = Place::Claimed { tip: flight.after };
        flight.before = flight.after;
        if let Some(write) = flight.next(self.epoch, &mut self.number) {
            self.work = Work::Writing(flight);
            return Next::Write(write);
        }
        self.retry.succeeded();
        self.trouble = None;
        // Saying everything again comes once: whoever waits for a new owner shall not wait for it twice.
        let is_first = self.written.is_none();
        self.last_duration_ms = (now_ms - flight.started_ms).max(0);
        let cost = Cost { duration_ms: self.last_duration_ms, spent_us: std::mem::take(&mut self.spent_us) };
        self.pace.emitted(flight.started_ms, if is_first { Cost::default() } else { cost }, settings, share);
        self.written = Some(flight.record);
        self.last_ms = Some(now_ms);
        Next::Done { waiting_ms: flight.waiting_ms }
    }

    fn not_before_ms(&self, settings: &Settings) -> i64 {
        self.retry.not_before_ms().max(self.pace.not_before_ms(settings))
    }

    fn failed(&mut self, now_ms: i64, error: &TierError) {
        self.retry.failed(now_ms);
        self.trouble = Some(error.to_string());
    }

    /// When something will be due if nothing happens, Unix milliseconds.
    pub fn wake_ms(&self, outlook: Outlook, settings: &Settings) -> Option<i64> {
        if !self.is_idle() {
            return None;
        }
        match self.place {
            Place::Fenced { .. } => None,
            Place::Unclaimed | Place::Unsure { .. } => Some(self.retry.not_before_ms()),
            Place::Claimed { .. } => {
                let pace_ms = self.not_before_ms(settings);
                let Some(written) = &self.written else {
                    return (outlook.as_of_ms != 0 || outlook.withheld).then_some(pace_ms);
                };
                let changed = !self.dirty.is_empty() || outlook.news;
                if changed && !outlook.withheld {
                    return Some(pace_ms);
                }
                let aged = written.as_of_ms < outlook.as_of_ms || !self.unannounced.is_empty();
                aged.then_some(self.last_ms?.saturating_add(settings.heartbeat.as_i64()).max(pace_ms))
            }
        }
    }

    pub fn report(&self) -> EmissionReport {
        let dirty_blocks = match &self.work {
            Work::Writing(flight) => self.dirty.union(&flight.names).count(),
            _ => self.dirty.len(),
        };
        EmissionReport {
            as_of_ms: self.written.as_ref().map(|record| record.as_of_ms),
            dirty_blocks,
            last_emission_ms: self.last_ms,
            last_duration_ms: self.last_duration_ms,
            failures: self.retry.failures(),
            trouble: match self.place {
                Place::Fenced { found } => Some(format!("fenced: a newer owner stands at {found}")),
                _ => self.trouble.clone(),
            },
        }
    }
}

impl Flight {
    /// The next write, chained on the one before.
    fn next(&mut self, epoch: Epoch, number: &mut u64) -> Option<SinkWrite> {
        let mut write = self.rest.pop_front()?;
        *number += 1;
        self.after = Tip::new(epoch, *number);
        (write.expect, write.tip) = (self.before, self.after);
        Some(write)
    }
}

/// Cuts blocks into writes of about `most_bytes`. The first is `first` with the first blocks; the last has room for the
/// record and takes the removals.
fn cut(
    first: SinkWrite,
    names: &BTreeSet<BlockKey>,
    blocks: Option<&HashMap<BlockKey, Option<Bytes>>>,
    version: Tip,
    most_bytes: usize,
) -> VecDeque<SinkWrite> {
    let mut writes = VecDeque::from([first]);
    let mut remove = Vec::new();
    let mut bytes = 0;
    for name in names {
        let Some(rows) = blocks.and_then(|blocks| blocks.get(name)).expect("every dirty block is offered") else {
            remove.push(name.clone());
            continue;
        };
        if bytes > 0 && bytes + rows.len() > most_bytes {
            writes.push_back(SinkWrite::default());
            bytes = 0;
        }
        bytes += rows.len();
        let write = writes.back_mut().expect("there is at least one write");
        write.blocks.push((name.clone(), StoredBlock { version, rows: rows.clone() }));
    }
    writes.back_mut().expect("there is at least one write").remove = remove;
    writes
}

#[cfg(test)]
#[path = "emission_tests.rs"]
mod tests;
