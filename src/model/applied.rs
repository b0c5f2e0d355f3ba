//! What has been counted: per source everything up to `high`, and the ranges beyond it. Pure.
//!
//! Invariant: ranges are sorted, disjoint, not touching, and all beyond `high`; adding is idempotent and order-free,
//! so a span counts once however often and in whatever order it is delivered (design I3). Like TCP's selective
//! acknowledgements (RFC 2018).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::SourceId;
use super::position::{Position, Span};

/// How much of one source has been counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    high: Position,
    beyond: Vec<Span>,
    /// When something of this source was last seen; forgetting goes by it.
    seen_ms: i64,
}

/// What of a batch is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Nothing: every change of the span was counted.
    None,
    /// The whole span.
    All,
    /// Only the rows whose positions lie in these spans.
    Some(Vec<Span>),
}

impl Progress {
    pub fn high(&self) -> Position {
        self.high
    }

    pub fn seen_ms(&self) -> i64 {
        self.seen_ms
    }

    /// The ranges counted beyond `high`, in order.
    pub fn beyond(&self) -> &[Span] {
        &self.beyond
    }

    /// The highest position counted.
    pub fn top(&self) -> Position {
        self.beyond.last().map_or(self.high, |range| range.to)
    }

    pub fn admit(&self, span: Span) -> Admission {
        let mut new = Vec::new();
        let mut from = span.from.max(self.high);
        for range in &self.beyond {
            if range.from >= span.to || from >= span.to {
                break;
            }
            if from < range.from {
                new.push(Span::new(from, range.from));
            }
            from = from.max(range.to);
        }
        if from < span.to {
            new.push(Span::new(from, span.to));
        }
        match new.as_slice() {
            [] => Admission::None,
            [one] if *one == span => Admission::All,
            _ => Admission::Some(new),
        }
    }

    pub fn add(&mut self, span: Span, now_ms: i64) {
        self.seen_ms = self.seen_ms.max(now_ms);
        if span.to <= self.high || span.is_empty() {
            return;
        }
        // Everything that overlaps or touches the span melts into one range.
        let first = self.beyond.partition_point(|range| range.to < span.from);
        let last = self.beyond.partition_point(|range| range.from <= span.to);
        let mut melted = span;
        if first < last {
            melted.from = melted.from.min(self.beyond[first].from);
            melted.to = melted.to.max(self.beyond[last - 1].to);
        }
        if melted.from <= self.high {
            self.high = melted.to;
            self.beyond.drain(..last);
        } else {
            self.beyond.splice(first..last, [melted]);
        }
    }

    /// Is everything counted in `other` counted here?
    pub fn covers(&self, other: &Self) -> bool {
        let all = |span| self.admit(span) == Admission::None;
        all(Span::new(Position::ZERO, other.high)) && other.beyond.iter().all(|range| all(*range))
    }

    pub fn merge(&mut self, other: &Self) {
        self.add(Span::new(Position::ZERO, other.high), other.seen_ms);
        for range in &other.beyond {
            self.add(*range, other.seen_ms);
        }
    }

    /// The ranges missing between `high` and what was counted beyond it.
    pub fn gaps(&self) -> impl Iterator<Item = Span> + '_ {
        let starts = std::iter::once(self.high).chain(self.beyond.iter().map(|range| range.to));
        starts.zip(&self.beyond).map(|(from, range)| Span::new(from, range.from))
    }
}

/// What has been counted of all sources of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Sources")]
pub struct Applied {
    sources: BTreeMap<SourceId, Progress>,
    /// Those with gaps: few of them, among thousands of requests that have none, and often asked for.
    #[serde(skip)]
    gapped: BTreeSet<SourceId>,
}

/// An `Applied` as it is stored.
#[derive(Deserialize)]
struct Sources {
    sources: BTreeMap<SourceId, Progress>,
}

impl From<Sources> for Applied {
    fn from(Sources { sources }: Sources) -> Self {
        let has_gaps = |(_, progress): &(&SourceId, &Progress)| !progress.beyond.is_empty();
        let gapped = sources.iter().filter(has_gaps).map(|(source, _)| source.clone()).collect();
        Self { sources, gapped }
    }
}

/// The sources of an `Applied` that changed, with their whole progress: what an append or an emission writes.
pub type AppliedDelta = Vec<(SourceId, Progress)>;

impl Applied {
    pub fn admit(&self, source: &SourceId, span: Span) -> Admission {
        match self.sources.get(source) {
            Some(progress) => progress.admit(span),
            None if span.is_empty() => Admission::None,
            None => Admission::All,
        }
    }

    pub fn add(&mut self, source: &SourceId, span: Span, now_ms: i64) {
        let has_gaps = match self.sources.get_mut(source) {
            Some(progress) => {
                progress.add(span, now_ms);
                !progress.beyond.is_empty()
            }
            None => {
                let mut progress = Progress::default();
                progress.add(span, now_ms);
                let has_gaps = !progress.beyond.is_empty();
                self.sources.insert(source.clone(), progress);
                has_gaps
            }
        };
        self.note_gaps(source, has_gaps);
    }

    fn note_gaps(&mut self, source: &SourceId, has_gaps: bool) {
        if !has_gaps {
            self.gapped.remove(source);
        } else if !self.gapped.contains(source) {
            self.gapped.insert(source.clone());
        }
    }

    pub fn get(&self, source: &SourceId) -> Option<&Progress> {
        self.sources.get(source)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SourceId, &Progress)> {
        self.sources.iter()
    }

    pub fn len(&self) -> usize {
        self.sources.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    pub fn covers(&self, other: &Self) -> bool {
        other.sources.iter().all(|(source, theirs)| match self.sources.get(source) {
            Some(ours) => ours.covers(theirs),
            None => theirs.top() == Position::ZERO,
        })
    }

    /// The progress of `sources` as it stands, to be written somewhere by `merge_delta`.
    pub fn delta<'a>(&self, sources: impl IntoIterator<Item = &'a SourceId>) -> AppliedDelta {
        sources.into_iter().filter_map(|source| Some((source.clone(), self.sources.get(source)?.clone()))).collect()
    }

    pub fn merge_delta(&mut self, delta: &[(SourceId, Progress)]) {
        for (source, progress) in delta {
            let merged = self.sources.entry(source.clone()).or_default();
            merged.merge(progress);
            let has_gaps = !merged.beyond.is_empty();
            self.note_gaps(source, has_gaps);
        }
    }

    pub fn gaps(&self) -> impl Iterator<Item = (&SourceId, Span)> {
        let gapped = self.gapped.iter().filter_map(|source| Some((source, self.sources.get(source)?)));
        gapped.flat_map(|(source, progress)| progress.gaps().map(move |span| (source, span)))
    }

    pub fn is_gapless(&self) -> bool {
        self.gapped.is_empty()
    }

    /// Forgets sources altogether.
    pub fn forget(&mut self, sources: &[SourceId]) {
        for source in sources {
            self.sources.remove(source);
            self.gapped.remove(source);
        }
    }

    /// Forgets requests last seen before `before_ms`, and the oldest ones above `most`. Streams are never forgotten:
    /// a replay of one would count again. Returns what was forgotten.
    pub fn forget_requests(&mut self, before_ms: i64, most: usize) -> Vec<SourceId> {
        let mut requests: Vec<(i64, SourceId)> = (self.sources.iter())
            .filter(|(source, _)| matches!(source, SourceId::Request(_)))
            .map(|(source, progress)| (progress.seen_ms, source.clone()))
            .collect();
        requests.sort_unstable();
        let surplus = requests.len().saturating_sub(most);
        let old = requests.partition_point(|(seen_ms, _)| *seen_ms < before_ms);
        requests.truncate(surplus.max(old));
        requests
            .into_iter()
            .map(|(_, source)| {
                self.gapped.remove(&source);
                self.sources.remove_entry(&source).expect("it was just listed").0
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "applied_tests.rs"]
mod tests;
