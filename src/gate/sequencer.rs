//! Gives pushed rows their place in a source: a dense sequence per table, or a source of its own per keyed request.
//!
//! Invariant: a position is given once in an incarnation, whatever becomes of it; a stretch whose publication failed is
//! published again as void, so that no gap stays for what nobody was told to be safe; if its gate dies before, the next
//! one does it. Keyed requests are never voided: their retry carries the same span.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::applied::Applied;
use crate::model::id::SourceId;
use crate::model::position::{Position, Span};
use crate::model::schema::Table;

/// Names one publication until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequencerLimits {
    /// Stretches waiting to be voided.
    pub holes: usize,
    /// Acknowledged keyed requests that kv does not have yet.
    pub acknowledged_keys: usize,
}

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub ticket: Ticket,
    pub source: SourceId,
    pub span: Span,
    pub table: Arc<str>,
    pub schema: u64,
}

/// What becomes of offered rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    Publish(Publication),
    /// The request was acknowledged before.
    Duplicate,
    /// The same request is under way: its outcome is this one's.
    Wait(Ticket),
    /// The key was used for another request.
    KeyReused,
    /// Too much failed before and is not repaired yet.
    TooManyHoles,
}

#[derive(Debug)]
struct Stream {
    source: SourceId,
    schema: u64,
    next: Position,
    /// Sorted, disjoint, not touching.
    holes: Vec<Span>,
}

#[derive(Debug)]
struct Request {
    ticket: Ticket,
    rows: u32,
    acknowledged: bool,
}

/// The sequencer of one partition.
#[derive(Debug)]
pub struct Sequencer {
    incarnation: u64,
    limits: SequencerLimits,
    tickets: u64,
    streams: HashMap<Arc<str>, Stream>,
    in_flight: HashMap<Ticket, Publication>,
    /// Keyed requests that are under way, or acknowledged but not yet in kv.
    requests: HashMap<SourceId, Request>,
    /// Acknowledged ones, oldest first; may name some that kv has by now.
    acknowledged: VecDeque<(Ticket, SourceId)>,
}

impl Sequencer {
    /// `incarnation` must be new: positions of an earlier one with the same number would be given twice.
    pub fn new(incarnation: u64, limits: SequencerLimits) -> Self {
        Self {
            incarnation,
            limits,
            tickets: 0,
            streams: HashMap::new(),
            in_flight: HashMap::new(),
            requests: HashMap::new(),
            acknowledged: VecDeque::new(),
        }
    }

    /// Rows of a request for this partition; `applied` is what kv has, as far as that is known.
    pub fn offer(&mut self, table: &Table, key: Option<&str>, rows: u32, applied: &Applied) -> Offered {
        assert!(rows > 0, "an offer without rows has no place in a sequence");
        match key {
            Some(key) => self.offer_request(table, key, rows, applied),
            None => self.offer_stream(table, rows),
        }
    }

    fn offer_stream(&mut self, table: &Table, rows: u32) -> Offered {
        if self.holes() >= self.limits.holes {
            return Offered::TooManyHoles;
        }
        let incarnation = self.incarnation;
        let stream = self.streams.entry(table.name.clone()).or_insert_with(|| Stream {
            source: SourceId::push(&table.name, incarnation),
            schema: table.fingerprint,
            next: Position::ZERO,
            holes: Vec::new(),
        });
        stream.schema = table.fingerprint;
        let span = Span::new(stream.next, stream.next.plus(u64::from(rows)));
        stream.next = span.to;
        let source = stream.source.clone();
        Offered::Publish(self.take_off(source, span, table.name.clone(), table.fingerprint))
    }

    fn offer_request(&mut self, table: &Table, key: &str, rows: u32, applied: &Applied) -> Offered {
        let source = SourceId::request(&table.name, key);
        let span = Span::new(Position::ZERO, Position::ZERO.plus(u64::from(rows)));
        if let Some(progress) = applied.get(&source) {
            return if progress.top() == span.to { Offered::Duplicate } else { Offered::KeyReused };
        }
        match self.requests.get(&source) {
            Some(known) if known.rows != rows => Offered::KeyReused,
            Some(known) if known.acknowledged => Offered::Duplicate,
            Some(known) => Offered::Wait(known.ticket),
            None => {
                let publication = self.take_off(source.clone(), span, table.name.clone(), table.fingerprint);
                let request = Request { ticket: publication.ticket, rows, acknowledged: false };
                self.requests.insert(source, request);
                Offered::Publish(publication)
            }
        }
    }

    fn take_off(&mut self, source: SourceId, span: Span, table: Arc<str>, schema: u64) -> Publication {
        self.tickets += 1;
        let publication = Publication { ticket: Ticket(self.tickets), source, span, table, schema };
        self.in_flight.insert(publication.ticket, publication.clone());
        publication
    }

    /// The outcome of a publication. One that failed may still turn up in mq later: then its void and it are the same
    /// span, and whichever comes first counts.
    pub fn settle(&mut self, ticket: Ticket, published: bool) {
        let landed = self.in_flight.remove(&ticket).expect("each publication is settled once");
        match landed.source {
            SourceId::Stream { .. } if published => {}
            SourceId::Stream { .. } => {
                // The gap of an earlier gate is still to be seen in what kv has.
                let own = self.streams.get_mut(&landed.table).filter(|stream| stream.source == landed.source);
                own.into_iter().for_each(|stream| add_hole(&mut stream.holes, landed.span));
            }
            SourceId::Request(_) if published => self.acknowledge(ticket, landed.source),
            SourceId::Request(_) => {
                self.requests.remove(&landed.source);
            }
        }
    }

    fn acknowledge(&mut self, ticket: Ticket, source: SourceId) {
        if let Some(request) = self.requests.get_mut(&source) {
            request.acknowledged = true;
            self.acknowledged.push_back((ticket, source));
        }
        while self.acknowledged.len() > self.limits.acknowledged_keys {
            let (ticket, source) = self.acknowledged.pop_front().expect("it is not empty");
            if self.requests.get(&source).is_some_and(|request| request.ticket == ticket) {
                self.requests.remove(&source);
            }
        }
    }

    /// kv has these now: its `Applied` recognises them from here on.
    pub fn committed<'a>(&mut self, sources: impl IntoIterator<Item = &'a SourceId>) {
        for source in sources {
            if self.requests.get(source).is_some_and(|request| request.acknowledged) {
                self.requests.remove(source);
            }
        }
    }

    /// Takes the stretches that must be published as void.
    pub fn voids(&mut self) -> Vec<Publication> {
        let mut holes = Vec::new();
        for (table, stream) in &mut self.streams {
            for span in stream.holes.drain(..) {
                holes.push((stream.source.clone(), span, table.clone(), stream.schema));
            }
        }
        holes.into_iter().map(|(source, span, table, schema)| self.take_off(source, span, table, schema)).collect()
    }

    /// Takes the gaps that earlier gates left in `applied`, to be published as void. Only for what kv has of all that mq
    /// ever had: batches come into mq in the order in which they were sent, so what is missing before a later one never
    /// came, and nobody was told that it did.
    pub fn inherited_voids(&mut self, applied: &Applied) -> Vec<Publication> {
        let mut gaps = Vec::new();
        // Streams come before requests, which may be many and have no gaps.
        let streams = applied.iter().take_while(|(source, _)| matches!(source, SourceId::Stream { .. }));
        for (source, progress) in streams {
            let Some((table, _)) = source.as_push().filter(|(_, incarnation)| *incarnation < self.incarnation) else {
                continue;
            };
            if !self.in_flight.values().any(|publication| publication.source == *source) {
                gaps.extend(progress.gaps().map(|span| (source.clone(), span, Arc::from(table))));
            }
        }
        gaps.truncate(self.limits.holes);
        gaps.into_iter().map(|(source, span, table)| self.take_off(source, span, table, 0)).collect()
    }

    /// Stretches waiting to be voided.
    pub fn holes(&self) -> usize {
        self.streams.values().map(|stream| stream.holes.len()).sum()
    }

    /// Publications without an outcome yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}

fn add_hole(holes: &mut Vec<Span>, mut hole: Span) {
    let first = holes.partition_point(|known| known.to < hole.from);
    let last = holes.partition_point(|known| known.from <= hole.to);
    if first < last {
        hole = Span::new(hole.from.min(holes[first].from), hole.to.max(holes[last - 1].to));
    }
    holes.splice(first..last, [hole]);
}

#[cfg(test)]
#[path = "sequencer_tests.rs"]
mod tests;
