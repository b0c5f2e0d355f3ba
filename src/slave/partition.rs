//! One partition's computation: recovers from kv, counts chunks in order, emits to hot and cache, saves itself. Pure:
//! `step(now, input)` gives the effects that an actor runs and whose results come back as inputs.
//!
//! Invariant: what is emitted is what was counted, and what was counted is in `Applied`. Whatever fails is tried
//! again; memory does not grow meanwhile (design I1, I3, I4, I6).

use std::sync::Arc;

use super::chain::{Chain, Fit};
use super::counting::{ChunkView, Counting};
use super::crowd::Share;
use super::emission::{Emission, Outlook};
use super::exchange::{Effect, Input, PartitionReport, SINKS, SinkName};
use super::horizon::Horizon;
use super::saving::Saving;
use super::settings::Settings;
use super::snapshot::{self, Stand};
use super::standing::Standing;
use crate::kv::{ChunkRead, Head, Snapshot};
use crate::model::applied::Applied;
use crate::model::batch::Chunk;
use crate::model::catalog::Catalog;
use crate::model::id::{Epoch, PartitionId, Tip};
use crate::tier::TierError;

/// One partition's computation.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    epoch: Epoch,
    catalog: Arc<Catalog>,
    settings: Settings,
    standing: Standing,
    chain: Chain,
    counting: Counting,
    horizon: Horizon,
    /// Why the state lacks its beginning: chunks were trimmed, and no snapshot holds them. For good.
    lacks: Option<String>,
    /// Rows were counted since the fold was last asked for its changed blocks.
    uncollected: bool,
    sinks: [Emission; 2],
    saving: Saving,
    kv_trouble: Option<String>,
    loading: Loading,
    share: Share,
}

/// What must be read from kv before chunks are: at the beginning, and when the chain broke.
#[derive(Debug)]
enum Loading {
    Due(Effect),
    UnderWay,
    Done,
}

impl Partition {
    pub fn new(id: PartitionId, epoch: Epoch, catalog: Arc<Catalog>, settings: Settings) -> Self {
        Self {
            id,
            epoch,
            standing: Standing::Loading,
            chain: Chain::new(settings.retry),
            counting: Counting::new(&catalog),
            horizon: Horizon::new(&catalog),
            lacks: None,
            uncollected: false,
            sinks: SINKS.map(|_| Emission::new(epoch, &settings)),
            saving: Saving::new(settings.retry),
            kv_trouble: None,
            loading: Loading::Due(Effect::ReadSnapshot),
            share: Share::default(),
            catalog,
            settings,
        }
    }

    /// Says what this partition gets of its thread's processor.
    pub fn share_thread(&mut self, share: Share) {
        self.share = share;
    }

    /// Says that making or writing the present emission to this sink took so much of the thread's time, in microseconds.
    pub fn spent(&mut self, name: SinkName, us: i64) {
        self.sinks[name as usize].spent(us);
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What is counted.
    pub fn applied(&self) -> &Applied {
        &self.counting.applied
    }

    /// Rows counted since the beginning, for counters.
    pub fn rows_applied(&self) -> u64 {
        self.counting.rows
    }

    pub fn step(&mut self, now_ms: i64, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.standing.is_over() {
            return effects;
        }
        match input {
            Input::Tick => {}
            Input::Push(chunk) => self.pushed(now_ms, &chunk),
            Input::Idle { tip, at_ms } => self.idle(now_ms, tip, at_ms),
            Input::SnapshotRead(result) => self.snapshot_read(now_ms, result),
            Input::HeadRead(result) => self.head_read(now_ms, result),
            Input::ChunksRead(result) => self.chunks_read(now_ms, result),
            Input::Standing(sink, result) => self.sink_stands(now_ms, sink, result),
            Input::Written(sink, result) => self.written(now_ms, sink, result, &mut effects),
            Input::SnapshotPut(result) => self.snapshot_put(now_ms, result, &mut effects),
            Input::Stop => self.stop(),
        }
        self.follow_kv(now_ms, &mut effects);
        self.emit(now_ms, &mut effects);
        self.save(now_ms, &mut effects);
        self.finish(&mut effects);
        effects
    }

    /// When to be called with `Tick` if nothing else happens, Unix milliseconds.
    pub fn wake_ms(&self) -> Option<i64> {
        if self.standing.is_over() {
            return None;
        }
        let kv = match &self.loading {
            Loading::Due(_) => Some(self.chain.not_before_ms()),
            Loading::Done if self.standing.counts() => self.chain.wake_ms(self.settings.kv_poll.as_i64()),
            _ => None,
        };
        let outlook =
            Outlook { as_of_ms: self.horizon.as_of_ms(), news: self.uncollected, withheld: self.lacks.is_some() };
        let sinks = self.sinks.iter().filter(|_| self.standing.emits());
        let sinks = sinks.filter_map(|sink| sink.wake_ms(outlook, &self.settings));
        let saving = self.saving.wake_ms(self.stand()).filter(|_| self.standing.emits() && self.lacks.is_none());
        kv.into_iter().chain(sinks).chain(saving).min()
    }

    // --- kv ---

    fn pushed(&mut self, now_ms: i64, chunk: &Chunk) {
        if !matches!(self.standing, Standing::Counting) {
            self.chain.heard(now_ms, self.chain.last().max(chunk.id));
            return;
        }
        match self.chain.fit(chunk.previous, chunk.id) {
            Fit::Next => {
                self.count(now_ms, chunk);
                self.chain.heard(now_ms, chunk.id);
            }
            Fit::Old => {}
            Fit::Gap => self.chain.heard(now_ms, chunk.id),
        }
    }

    fn idle(&mut self, now_ms: i64, tip: Tip, at_ms: i64) {
        self.chain.heard(now_ms, tip);
        if tip == self.chain.last() && !self.chain.is_behind() && self.standing == Standing::Counting {
            self.horizon.pushed(at_ms);
        }
    }

    fn snapshot_read(&mut self, now_ms: i64, result: Result<Option<Snapshot>, TierError>) {
        match result {
            // It will not get better: the state is made again from the chunks, if kv still has them all.
            Err(error @ TierError::Damaged { .. }) => {
                self.kv_trouble = Some(error.to_string());
                self.loading = Loading::Due(Effect::ReadHead);
            }
            Err(error) => self.retry_loading(now_ms, Effect::ReadSnapshot, &error),
            Ok(Some(found)) if found.epoch > self.epoch => self.standing.fence(format!("epoch {}", found.epoch)),
            Ok(found) => {
                if let Some(found) = found {
                    self.restore(&found);
                }
                self.loading = Loading::Due(Effect::ReadHead);
            }
        }
    }

    fn restore(&mut self, found: &Snapshot) {
        match snapshot::decode(&self.catalog, &found.state) {
            Ok((stand, horizon, counting)) => {
                self.chain.resume(stand.last, stand.reached);
                self.horizon.resume(&horizon);
                self.counting = counting;
                self.saving.found(stand);
            }
            // Not fatal: if kv still has all chunks, they say the same.
            Err(error) => self.kv_trouble = Some(error.to_string()),
        }
    }

    fn head_read(&mut self, now_ms: i64, result: Result<Head, TierError>) {
        let head = match result {
            Err(error) => return self.retry_loading(now_ms, Effect::ReadHead, &error),
            Ok(head) => head,
        };
        self.loading = Loading::Done;
        self.check_whole(head.oldest_previous);
        if self.chain.last() == head.tip {
            // Kv works again, and no chunk will be read that would say so.
            self.kv_trouble = None;
        }
        self.chain.heard(now_ms, head.tip);
        if self.standing == Standing::Loading {
            self.standing = Standing::CatchingUp { until: head.tip };
            self.standing.caught_up(self.chain.last(), false);
        }
    }

    /// Nobody has what is before `oldest_previous` but those who have counted it.
    fn check_whole(&mut self, oldest_previous: Tip) {
        let reached = self.chain.reached();
        if oldest_previous > reached && self.lacks.is_none() {
            let cause = self.kv_trouble.take().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
            self.lacks =
                Some(format!("kv holds no chunks up to {oldest_previous}, and no state goes beyond {reached}{cause}"));
        }
    }

    fn retry_loading(&mut self, now_ms: i64, again: Effect, error: &TierError) {
        self.kv_trouble = Some(error.to_string());
        self.chain.failed(now_ms);
        self.loading = Loading::Due(again);
    }

    fn chunks_read(&mut self, now_ms: i64, result: Result<ChunkRead, TierError>) {
        match result {
            Err(error) => {
                self.kv_trouble = Some(error.to_string());
                self.chain.failed(now_ms);
            }
            Ok(ChunkRead::Broken) => {
                self.chain.broke();
                // Whether all that is missing can be read again depends on what kv still holds.
                self.loading = Loading::Due(Effect::ReadHead);
            }
            Ok(ChunkRead::Next(chunks)) => {
                self.kv_trouble = None;
                for chunk in &chunks {
                    self.chunk_read(now_ms, chunk);
                }
                match chunks.is_empty() {
                    true => self.chain.at_end(now_ms),
                    false => self.chain.progressed(now_ms),
                }
                self.standing.caught_up(self.chain.last(), chunks.is_empty());
            }
        }
    }

    fn chunk_read(&mut self, now_ms: i64, chunk: &Chunk) {
        let first = self.chain.last() == Tip::default();
        match self.chain.fit(chunk.previous, chunk.id) {
            // A push was faster.
            Fit::Old => {}
            // From the oldest on; that nothing before it is missing was checked with the head.
            Fit::Gap if first => {
                self.check_whole(chunk.previous);
                self.count(now_ms, chunk);
            }
            Fit::Gap => {}
            Fit::Next => self.count(now_ms, chunk),
        }
    }

    fn count(&mut self, now_ms: i64, chunk: &Chunk) {
        if !self.standing.counts() {
            return;
        }
        let view = ChunkView { at_ms: chunk.at_ms, again: self.chain.is_again(chunk.id) };
        for batch in &chunk.batches {
            match self.counting.count(&self.catalog, batch, view) {
                Err(error) => return self.standing.stall(error.to_string()),
                Ok(None) => {}
                Ok(Some(rows)) => {
                    self.uncollected |= rows > 0;
                    let at_ms = (rows > 0 && self.standing == Standing::Counting).then_some(batch.header.at_ms);
                    self.sinks.iter_mut().for_each(|sink| sink.counted(now_ms, &batch.header.source, at_ms));
                }
            }
            self.horizon.counted(&batch.header.source, batch.header.at_ms);
        }
        self.chain.counted(chunk.id);
    }

    fn follow_kv(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        match &self.loading {
            Loading::Done => {}
            Loading::Due(_) if now_ms >= self.chain.not_before_ms() && !self.standing.is_over() => {
                if let Loading::Due(effect) = std::mem::replace(&mut self.loading, Loading::UnderWay) {
                    effects.push(effect);
                }
                return;
            }
            _ => return,
        }
        if !self.standing.counts() {
            return;
        }
        self.chain.poll(now_ms, self.settings.kv_poll.as_i64());
        if self.chain.should_read(now_ms) {
            self.chain.started_reading();
            effects.push(Effect::ReadChunks { after: self.chain.last() });
        }
    }

    // --- snapshots ---

    fn save(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let stopping = self.standing == Standing::Stopping;
        let stand = self.stand();
        if !self.standing.emits() {
            return;
        }
        self.saving.begin(now_ms, self.settings.snapshot_interval.as_i64());
        // A state that lacks something must not pass for one that is whole.
        if self.lacks.is_some() || !self.saving.is_due(now_ms, stand, stopping) {
            return;
        }
        self.forget_requests(now_ms);
        self.saving.started(stand, stopping);
        let state = snapshot::encode(&self.catalog, stand, &self.horizon, &self.counting);
        effects.push(Effect::PutSnapshot(Snapshot { epoch: self.epoch, state }));
    }

    fn stand(&self) -> Stand {
        Stand { last: self.chain.last(), reached: self.chain.reached() }
    }

    fn forget_requests(&mut self, now_ms: i64) {
        let before_ms = now_ms.saturating_sub(self.settings.remember_requests.as_i64());
        for source in self.counting.forget_requests(before_ms, self.settings.remember_requests_most) {
            self.sinks.iter_mut().for_each(|sink| sink.forgot(&source));
        }
    }

    fn snapshot_put(&mut self, now_ms: i64, result: Result<(), TierError>, effects: &mut Vec<Effect>) {
        match result {
            Ok(()) => {
                self.kv_trouble = None;
                let through = self.saving.succeeded(now_ms, self.settings.snapshot_interval.as_i64()).last;
                let before_ms = now_ms.saturating_sub(self.settings.kv_keep.as_i64());
                effects.push(Effect::Trim { through, before_ms });
            }
            Err(TierError::Fenced { found, .. }) => self.standing.fence(found.to_string()),
            Err(error) => {
                self.kv_trouble = Some(error.to_string());
                self.saving.failed(now_ms);
            }
        }
    }

    // --- the end ---

    fn stop(&mut self) {
        self.standing = match self.standing {
            Standing::Counting | Standing::Stalled { .. } => Standing::Stopping,
            _ => Standing::Stopped,
        };
    }

    fn finish(&mut self, effects: &mut Vec<Effect>) {
        let waits = |effect: &Effect| matches!(effect, Effect::Write(..) | Effect::PutSnapshot(_));
        let idle = self.sinks.iter().all(Emission::is_idle) && !self.saving.is_under_way();
        if self.standing == Standing::Stopping && idle && !effects.iter().any(waits) {
            self.standing = Standing::Stopped;
        }
        if self.standing.is_over() {
            // Free the memory at once: a fenced owner may be kept for a while.
            self.counting = Counting::new(&self.catalog);
            effects.push(Effect::End);
        }
    }

    pub fn report(&self) -> PartitionReport {
        let [hot, cache] = &self.sinks;
        PartitionReport {
            partition: self.id,
            epoch: self.epoch,
            standing: self.standing.clone(),
            tip: self.chain.last(),
            behind: self.chain.is_behind() || !matches!(self.standing, Standing::Counting),
            rows_applied: self.counting.rows,
            groups: self.counting.fold.groups(),
            metric_rows: self.counting.fold.rows(),
            state_bytes: self.counting.fold.bytes(),
            sources: self.counting.applied.len(),
            gaps: self.counting.applied.gaps().count(),
            as_of_ms: self.horizon.as_of_ms(),
            hot: hot.report(),
            cache: cache.report(),
            last_snapshot_ms: self.saving.last_ms(),
            kv_trouble: self.kv_trouble.clone(),
            lacks: self.lacks.clone(),
        }
    }
}

#[path = "publication.rs"]
mod publication;

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
