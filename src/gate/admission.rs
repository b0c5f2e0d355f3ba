//! Moves batches from mq into kv's chain of chunks: the gate's commit. Pure.
//!
//! Invariant: kv's head is the only truth; what is held here beside it is dropped whenever the outcome of a write is in
//! doubt, and the head is read again. A batch is skipped only when `Applied` covers all of it, and never rewritten. A chunk
//! id is given once, even if its append failed or kv went back. A chunk says which offsets of mq it stands for, so that
//! what mq forgot too early is a gap for all who have not counted it (design §5, I2, I3, I5).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::kv::{Append, Head};
use crate::model::applied::{Admission as Admitted, Applied};
use crate::model::batch::{Batch, BatchHeader, Chunk};
use crate::model::id::{Epoch, SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::mq::{MqRead, Offset};
use crate::tier::TierError;

/// Requests are forgotten by age at most this often: looking for them takes a walk over all.
const FORGET_EVERY_MS: i64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    pub chunk_rows: u64,
    pub chunk_bytes: usize,
    pub skipped_offsets: u64,
    pub keys_remembered: usize,
    pub keys_remembered_for_ms: i64,
    pub retry_first_ms: u64,
    pub retry_most_ms: u64,
    /// How often a drained gate looks whether kv still stands where it was left.
    pub head_check_ms: i64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Start,
    Head(Result<Head, TierError>),
    Mq(Result<MqRead, TierError>),
    /// mq has something new.
    Arrived(Result<(), TierError>),
    Appended(Result<(), TierError>),
    /// The pause is over.
    Retry,
    Heartbeat,
    /// The answer to a look that was taken at `at_ms` or later.
    Probed {
        at_ms: i64,
        read: Result<MqRead, TierError>,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    ReadHead,
    ReadMq {
        from: Offset,
    },
    AwaitMq {
        from: Offset,
    },
    Append(Append),
    /// kv has this chunk: push it to the owner.
    Committed(Chunk),
    /// Look whether mq is drained; `at_ms` is the time before the look.
    Probe {
        at_ms: i64,
        from: Offset,
    },
    /// Everything acknowledged before `at_ms` is in kv up to `tip`.
    Idle {
        tip: Tip,
        at_ms: i64,
    },
    RetryAfter {
        after_ms: u64,
    },
    Note(Note),
}

/// What an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    TookOver {
        tip: Tip,
        offset: Offset,
    },
    Failed(TierError),
    /// A newer gate owns the partition; this one stops for good.
    Fenced {
        found: Tip,
    },
    /// mq no longer holds these offsets, which kv does not have; their spans are gaps.
    MqTrimmed {
        from: Offset,
        to: Offset,
    },
    /// mq ends before the offset that kv's head names: it lost writes, and is read from its beginning.
    MqWentBack {
        offset: Offset,
        end: Offset,
    },
}

/// Where the admission stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    New,
    /// Reads kv's head.
    Looking,
    /// Pauses after a failure, then looks.
    Resting,
    /// Reads mq.
    Reading,
    /// Waits for mq: all that it had is in kv.
    Drained,
    /// Drained, and looks whether kv lost writes meanwhile.
    Checking,
    /// Appends a chunk.
    Appending(Chunk),
    /// A newer gate is there.
    Fenced,
}

impl Standing {
    pub fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Looking => "looking",
            Self::Resting => "resting",
            Self::Reading => "reading",
            Self::Drained => "drained",
            Self::Checking => "checking",
            Self::Appending(_) => "appending",
            Self::Fenced => "fenced",
        }
    }
}

/// The admission of one partition.
#[derive(Debug)]
pub struct Admission {
    epoch: Epoch,
    limits: AdmissionLimits,
    standing: Standing,
    /// kv's head as it will be when all that is under way has succeeded.
    head: Head,
    /// The offset that kv has.
    persisted: Offset,
    /// Where the next chunk begins: beyond what kv has, if mq has trimmed more.
    begin: Offset,
    /// Read from mq, not yet admitted; begins at `head.offset`.
    queue: VecDeque<(Offset, Batch)>,
    /// Where mq ended when it was last read.
    mq_end: Offset,
    /// The highest number that a chunk id has had, here or in any head seen.
    number: u64,
    failures: u32,
    /// When kv's head was last seen.
    looked_ms: Option<i64>,
    forget_at_ms: i64,
}

impl Admission {
    /// `epoch` must be above that of every gate before.
    pub fn new(epoch: Epoch, limits: AdmissionLimits) -> Self {
        Self {
            epoch,
            limits,
            standing: Standing::New,
            head: Head::default(),
            persisted: 0,
            begin: 0,
            queue: VecDeque::new(),
            mq_end: 0,
            number: 0,
            failures: 0,
            looked_ms: None,
            forget_at_ms: i64::MIN,
        }
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub fn tip(&self) -> Tip {
        self.head.tip
    }

    /// The mq offset that kv has.
    pub fn persisted(&self) -> Offset {
        self.persisted
    }

    /// When kv last showed that it has that offset.
    pub fn looked_ms(&self) -> Option<i64> {
        self.looked_ms
    }

    /// The mq offset that is looked at next.
    pub fn offset(&self) -> Offset {
        self.head.offset
    }

    pub fn mq_end(&self) -> Offset {
        self.mq_end
    }

    /// What is counted, as far as it is known here.
    pub fn applied(&self) -> &Applied {
        &self.head.applied
    }

    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        match (std::mem::replace(&mut self.standing, Standing::Looking), input) {
            (Standing::Fenced, _) => self.stand(Standing::Fenced, vec![]),
            (Standing::New, Input::Start) | (Standing::Resting, Input::Retry) => {
                self.stand(Standing::Looking, vec![Effect::ReadHead])
            }
            (Standing::Looking, Input::Head(Ok(head))) => self.take_over(now_ms, head),
            (Standing::Checking, Input::Head(Ok(head))) if head.tip == self.head.tip => {
                self.looked_ms = Some(now_ms);
                self.read_on()
            }
            (Standing::Checking, Input::Head(Ok(head))) => self.take_over(now_ms, head),
            (Standing::Reading, Input::Mq(Ok(read))) => self.take_in(now_ms, read),
            (Standing::Drained, Input::Arrived(Ok(()))) => self.read_on(),
            (Standing::Drained, Input::Heartbeat) if self.is_check_due(now_ms) => {
                self.stand(Standing::Checking, vec![Effect::ReadHead])
            }
            (Standing::Drained, Input::Heartbeat) => {
                let probe = Effect::Probe { at_ms: now_ms, from: self.head.offset };
                self.stand(Standing::Drained, vec![probe])
            }
            (Standing::Drained, Input::Probed { at_ms, read: Ok(read) }) => self.probed(at_ms, &read),
            (Standing::Appending(chunk), Input::Appended(Ok(()))) => self.committed(now_ms, chunk),
            // Someone wrote, or kv lost writes: the head is the truth, look at once.
            (Standing::Appending(_), Input::Appended(Err(TierError::Moved { .. }))) if self.failures == 0 => {
                self.failures = 1;
                self.stand(Standing::Looking, vec![Effect::ReadHead])
            }
            (Standing::Looking | Standing::Checking, Input::Head(Err(error)))
            | (Standing::Reading, Input::Mq(Err(error)))
            | (Standing::Drained, Input::Arrived(Err(error)))
            | (Standing::Appending(_), Input::Appended(Err(error))) => self.fail(error),
            // Heartbeats and probes outside `Drained`, and waits that an earlier standing began, say nothing.
            (standing, Input::Heartbeat | Input::Probed { .. } | Input::Arrived(_)) => self.stand(standing, vec![]),
            (standing, input) => panic!("{input:?} cannot happen while {}", standing.name()),
        }
    }

    fn stand(&mut self, standing: Standing, effects: Vec<Effect>) -> Vec<Effect> {
        self.standing = standing;
        effects
    }

    fn is_check_due(&self, now_ms: i64) -> bool {
        self.looked_ms.is_none_or(|looked_ms| (now_ms - looked_ms).abs() >= self.limits.head_check_ms)
    }

    fn take_over(&mut self, now_ms: i64, head: Head) -> Vec<Effect> {
        let first = self.looked_ms.replace(now_ms).is_none();
        // An epoch is used once: another gate of the same epoch may have given out the same positions.
        if head.tip.epoch > self.epoch || (first && head.tip.epoch == self.epoch) {
            return self.stand(Standing::Fenced, vec![Effect::Note(Note::Fenced { found: head.tip })]);
        }
        self.number = self.number.max(head.tip.number);
        (self.persisted, self.begin) = (head.offset, head.offset);
        self.queue.clear();
        self.head = head;
        let note = Effect::Note(Note::TookOver { tip: self.head.tip, offset: self.head.offset });
        let mut effects = self.read_on();
        effects.insert(0, note);
        effects
    }

    fn read_on(&mut self) -> Vec<Effect> {
        let from = self.head.offset;
        self.stand(Standing::Reading, vec![Effect::ReadMq { from }])
    }

    fn take_in(&mut self, now_ms: i64, read: MqRead) -> Vec<Effect> {
        assert!(self.queue.is_empty(), "mq is read when all before has been admitted");
        self.mq_end = read.end;
        if let Some(note) = self.check_place(&read) {
            let mut effects = self.read_on();
            effects.insert(0, Effect::Note(note));
            return effects;
        }
        if read.batches.is_empty() {
            let from = self.head.offset;
            return self.stand(Standing::Drained, vec![Effect::AwaitMq { from }]);
        }
        self.queue.extend(read.batches);
        self.admit(now_ms)
    }

    /// Moves to where mq can be read, if it cannot be read here.
    fn check_place(&mut self, read: &MqRead) -> Option<Note> {
        let offset = self.head.offset;
        if read.end < offset {
            (self.head.offset, self.begin) = (read.low, read.low);
            return Some(Note::MqWentBack { offset, end: read.end });
        }
        if read.low > offset {
            (self.head.offset, self.begin) = (read.low, read.low);
            return Some(Note::MqTrimmed { from: offset, to: read.low });
        }
        None
    }

    /// Makes a chunk of what the queue holds, or reads on.
    fn admit(&mut self, now_ms: i64) -> Vec<Effect> {
        let mut batches: Vec<Batch> = Vec::new();
        let mut sources = BTreeSet::new();
        let (mut rows, mut bytes) = (0, 0);
        while let Some((offset, batch)) = self.queue.front() {
            let (offset, header) = (*offset, &batch.header);
            if self.head.applied.admit(&header.source, header.span) != Admitted::None {
                let (more_rows, more_bytes) = (u64::from(header.rows), batch.size());
                let full = rows + more_rows > self.limits.chunk_rows || bytes + more_bytes > self.limits.chunk_bytes;
                if full && !batches.is_empty() {
                    break;
                }
                self.head.applied.add(&header.source, header.span, now_ms);
                sources.insert(header.source.clone());
                (rows, bytes) = (rows + more_rows, bytes + more_bytes);
                batches.push(batch.clone());
            }
            self.head.offset = offset + 1;
            self.queue.pop_front();
        }
        // Skipped batches alone cost a write only now and then: after a crash they are skipped again. That mq forgot some is
        // said at once.
        let skipped = self.head.offset.abs_diff(self.persisted);
        if batches.is_empty() && self.begin <= self.persisted && skipped < self.limits.skipped_offsets {
            return self.read_on();
        }
        self.append(now_ms, batches, sources)
    }

    fn append(&mut self, now_ms: i64, mut batches: Vec<Batch>, mut sources: BTreeSet<SourceId>) -> Vec<Effect> {
        let passed = passed(self.begin, self.head.offset);
        self.head.applied.add(&passed.header.source, passed.header.span, now_ms);
        sources.insert(passed.header.source.clone());
        batches.push(passed);
        self.number += 1;
        let id = Tip::new(self.epoch, self.number);
        let chunk = Chunk { id, previous: self.head.tip, at_ms: now_ms, batches };
        let forget = self.forget(now_ms);
        let applied = self.head.applied.delta(&sources);
        let append = Append { chunk: chunk.clone(), offset: self.head.offset, applied, forget };
        self.stand(Standing::Appending(chunk), vec![Effect::Append(append)])
    }

    fn forget(&mut self, now_ms: i64) -> Vec<SourceId> {
        let most = self.limits.keys_remembered;
        // By age only with mq drained: a copy of a request may wait in mq longer than its key is remembered.
        let drained = self.queue.is_empty() && self.head.offset >= self.mq_end;
        if drained && now_ms >= self.forget_at_ms {
            self.forget_at_ms = now_ms + FORGET_EVERY_MS.min(self.limits.keys_remembered_for_ms);
            return self.head.applied.forget_requests(now_ms - self.limits.keys_remembered_for_ms, most);
        }
        // Some slack, so that not every chunk pays for the walk.
        if self.head.applied.len() > most + most / 8 {
            return self.head.applied.forget_requests(i64::MIN, most);
        }
        Vec::new()
    }

    fn committed(&mut self, now_ms: i64, chunk: Chunk) -> Vec<Effect> {
        self.failures = 0;
        // A chained write is a look as well.
        self.looked_ms = Some(now_ms);
        self.head.tip = chunk.id;
        (self.persisted, self.begin) = (self.head.offset, self.head.offset);
        let mut effects = if self.queue.is_empty() { self.read_on() } else { self.admit(now_ms) };
        effects.insert(0, Effect::Committed(chunk));
        effects
    }

    fn probed(&mut self, at_ms: i64, read: &MqRead) -> Vec<Effect> {
        if read.end < self.head.offset {
            // Nothing will arrive where we wait.
            return self.read_on();
        }
        let drained = read.batches.is_empty() && read.end == self.head.offset;
        let idle = drained.then_some(Effect::Idle { tip: self.head.tip, at_ms });
        self.stand(Standing::Drained, idle.into_iter().collect())
    }

    fn fail(&mut self, error: TierError) -> Vec<Effect> {
        if let TierError::Fenced { found, .. } = error {
            return self.stand(Standing::Fenced, vec![Effect::Note(Note::Fenced { found })]);
        }
        let doubled = self.limits.retry_first_ms.saturating_mul(1 << self.failures.min(20));
        let after_ms = doubled.min(self.limits.retry_most_ms);
        self.failures = self.failures.saturating_add(1);
        self.queue.clear();
        self.stand(Standing::Resting, vec![Effect::Note(Note::Failed(error)), Effect::RetryAfter { after_ms }])
    }
}

/// Says that a chunk stands for these offsets. It has no rows, and says nothing of the time.
fn passed(from: Offset, to: Offset) -> Batch {
    let header = BatchHeader {
        source: SourceId::mq(),
        span: Span::new(Position(from.into()), Position(to.into())),
        table: "".into(),
        schema: 0,
        rows: 0,
        weighted: false,
        positioned: false,
        at_ms: 0,
        hours: None,
    };
    Batch { header, body: Bytes::new() }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
