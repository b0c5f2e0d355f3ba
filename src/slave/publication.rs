//! What a partition tells its sinks: it claims them, gathers what changed, and says with each emission what is missing.
//! The part of `partition` that deals with sinks.
//!
//! Invariant: both sinks get the same blocks from one state, and a state that lacks something emits none.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::super::emission::{Claim, Knowledge, Next, Offer};
use super::super::exchange::{Effect, SINKS, SinkName};
use super::super::standing::Standing;
use super::Partition;
use crate::model::block::BlockKey;
use crate::model::quality::{Missing, Unavailable};
use crate::tier::{SinkStanding, TierError};

impl Partition {
    pub(super) fn sink_stands(&mut self, now_ms: i64, name: SinkName, result: Result<SinkStanding, TierError>) {
        let blocks: BTreeSet<_> = self.counting.fold.blocks().collect();
        let known = Knowledge { applied: &self.counting.applied, forgotten_ms: self.counting.forgotten_ms, blocks };
        let sink = &mut self.sinks[name as usize];
        sink.stands(now_ms, result, known);
        if let Some(found) = sink.fenced_by() {
            self.standing.fence(found.to_string());
        }
    }

    pub(super) fn written(
        &mut self,
        now_ms: i64,
        name: SinkName,
        result: Result<(), TierError>,
        effects: &mut Vec<Effect>,
    ) {
        let sink = &mut self.sinks[name as usize];
        match sink.wrote(now_ms, result, &self.settings, self.share) {
            Next::Write(write) => effects.push(Effect::Write(name, write)),
            Next::Done { waiting_ms } if name == SinkName::Hot && !waiting_ms.is_empty() => {
                effects.push(Effect::Visible { at_ms: waiting_ms });
            }
            Next::Done { .. } | Next::Failed => {}
        }
        if let Some(found) = sink.fenced_by() {
            self.standing.fence(found.to_string());
        }
    }

    pub(super) fn emit(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        if !self.standing.emits() {
            return;
        }
        let stopping = self.standing == Standing::Stopping;
        for name in SINKS {
            let sink = &mut self.sinks[name as usize];
            if !stopping && sink.wants_to_ask(now_ms) {
                sink.asked();
                effects.push(Effect::AskStanding(name));
            }
        }
        if !SINKS.iter().any(|name| self.sinks[*name as usize].could_write(now_ms, &self.settings, stopping)) {
            return;
        }
        self.collect();
        let claim = self.claim();
        let wants =
            |name: &SinkName| self.sinks[*name as usize].wants_to_write(now_ms, &claim, &self.settings, stopping);
        let names: Vec<SinkName> = SINKS.into_iter().filter(wants).collect();
        let blocks = self.encode(&names);
        let (applied, blocks) = (&self.counting.applied, blocks.as_ref());
        for name in names {
            let offer = Offer { applied, claim: &claim, blocks };
            let write = self.sinks[name as usize].begin(now_ms, offer, &self.settings);
            effects.push(Effect::Write(name, write));
        }
    }

    /// Tells both sinks which blocks changed.
    fn collect(&mut self) {
        if std::mem::take(&mut self.uncollected) {
            let changed = self.counting.fold.settle();
            self.sinks[1].changed(changed.iter().cloned());
            self.sinks[0].changed(changed);
        }
    }

    /// The dirty blocks of the sinks, each encoded once. `None`: the state lacks something, so none may be emitted.
    fn encode(&mut self, names: &[SinkName]) -> Option<HashMap<BlockKey, Option<Bytes>>> {
        if self.lacks.is_some() {
            return None;
        }
        let dirty: BTreeSet<_> = names.iter().flat_map(|name| self.sinks[*name as usize].dirty()).cloned().collect();
        let encoded = self.counting.fold.encode(&dirty);
        Some(dirty.into_iter().zip(encoded).collect())
    }

    pub(super) fn claim(&self) -> Claim {
        let tables = &self.counting.tables;
        let mut gaps = self.counting.applied.gaps();
        let missing = |(source, span)| Missing {
            source: Clone::clone(source),
            table: tables.get(source).map(|table| table.to_string()).unwrap_or_default(),
            span,
            hours_ms: None,
            changes: None,
            reason: if source.is_mq() { "mq forgot it before kv had it" } else { "not received" }.into(),
        };
        let missing: Vec<Missing> = gaps.by_ref().take(self.settings.missing_most).map(missing).collect();
        let unavailable =
            |reason: &String| Unavailable { what: format!("partition {}", self.id), reason: reason.clone() };
        Claim {
            as_of_ms: self.horizon.as_of_ms(),
            missing,
            missing_more: gaps.count() as u64 + self.counting.doubtful,
            unavailable: self.lacks.iter().map(unavailable).collect(),
        }
    }
}
