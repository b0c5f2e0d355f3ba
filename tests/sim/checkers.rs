//! What must hold, whatever the story: design §3, checked against the ground truth after every step that could break it.
//!
//! Invariant: nothing here is told by the core under test that it could make look better, but for what an owner had counted
//! when it began an emission; that is compared with what came into mq.

use std::collections::HashMap;

use holdfast::gate::lane::GateReport;
use holdfast::kv::{Append, Head};
use holdfast::model::applied::{Admission, Applied};
use holdfast::model::id::{Epoch, PartitionId, Tip};
use holdfast::model::quality::Record;
use holdfast::model::rows::decode_rows;
use holdfast::mq::MqRead;
use holdfast::slave::exchange::{PartitionReport, SINKS, SinkName};
use holdfast::tier::{SinkQuery, SinkRead, SinkWrite};
use xxhash_rust::xxh3::xxh3_64;

use crate::calls::Tier;
use crate::shop::{self, BlockName, DAYS, WINDOWS};
use crate::tiers::Tiers;
use crate::truth::{Cut, Truth};

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    pub rule: &'static str,
    pub text: String,
}

pub type Checked = Result<(), Violation>;

fn ensure(holds: bool, rule: &'static str, text: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { rule, text: text() }) }
}

/// What an owner had counted when it began an emission.
#[derive(Debug)]
struct Said {
    cut: Cut,
    gapless: bool,
}

/// Where a partition stands in a chained tier.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    tip: Tip,
    highest: Epoch,
    /// The emission that the record there closes.
    record: Option<Tip>,
    /// No block has changed since the record was looked at with its blocks.
    is_seen: bool,
}

/// What is found in blocks: by name, the digest of the rows.
pub type Found = HashMap<BlockName, u64>;

pub struct Checkers {
    said: HashMap<(usize, PartitionId, Tip), Said>,
    places: HashMap<(Tier, PartitionId), Place>,
    snapshots: HashMap<PartitionId, Epoch>,
    /// Digests of stored blocks by the digest of their bytes: most are looked at many times.
    known: HashMap<u64, (BlockName, u64)>,
    /// Clocks of nodes differ by as much at most.
    pub clocks_differ_ms: i64,
    /// Comparisons of exact answers with the truth.
    pub compared: u64,
}

impl Checkers {
    pub fn new(clocks_differ_ms: i64) -> Self {
        Self {
            said: HashMap::new(),
            places: HashMap::new(),
            snapshots: HashMap::new(),
            known: HashMap::new(),
            clocks_differ_ms,
            compared: 0,
        }
    }

    // --- I1: an exact answer is the truth ---

    /// An owner sends a write: if it begins an emission, what it has counted by now is what the emission says.
    pub fn says(
        &mut self,
        truth: &Truth,
        partition: PartitionId,
        name: SinkName,
        write: &SinkWrite,
        applied: &Applied,
    ) {
        let block = write.blocks.first().map(|(_, block)| block.version);
        let version = block.or(write.record.as_ref().map(|record| record.version));
        if version == Some(write.tip) {
            let said = Said { cut: truth.cut(partition, applied), gapless: applied.is_gapless() };
            self.said.insert((name as usize, partition, write.tip), said);
        }
    }

    /// What a sink holds at this moment, read at once: if it passes for exact, is it true?
    pub fn look(&mut self, tiers: &Tiers, truth: &Truth, partition: PartitionId, name: SinkName) -> Checked {
        let Some((record, found)) = self.whole(tiers, partition, name) else { return Ok(()) };
        if !record.is_complete() {
            return Ok(());
        }
        let names = WINDOWS.into_iter().flat_map(|window| {
            DAYS.into_iter().flat_map(move |day| shop::merchants(partition).iter().map(move |m| (window, day, *m)))
        });
        self.compare(truth, (partition, &[name]), &record, &found, names)
    }

    /// All blocks of a partition under a record that vouches for them; `None` if there is no such record.
    fn whole(&mut self, tiers: &Tiers, partition: PartitionId, name: SinkName) -> Option<(Record, Found)> {
        let mut found = Found::new();
        let mut record = None;
        for window in WINDOWS {
            let asked = SinkQuery { table: shop::metric_table(window).id, keys: None, days: i32::MIN..=i32::MAX };
            let mut read = tiers.read_sink(name, partition, asked);
            read.settle();
            if !read.is_vouched() || read.incomplete {
                return None;
            }
            self.digest(&read, window, &mut found);
            record = read.record;
        }
        record.map(|record| ((*record).clone(), found))
    }

    fn digest(&mut self, read: &SinkRead, window: holdfast::model::window::WindowKind, found: &mut Found) {
        for (_, block) in &read.blocks {
            let (name, digest) = *self.known.entry(xxh3_64(&block.rows) ^ window as u64).or_insert_with(|| {
                let rows = decode_rows(&shop::metric_table(window).schema, &block.rows).expect("whole rows");
                shop::block_digest(window, &rows)
            });
            found.insert(name, digest);
        }
    }

    /// Compares what was found with the truth of what the record stands for. Of a record that local memory kept, it is not
    /// known which sink it came from.
    pub fn compare(
        &mut self,
        truth: &Truth,
        (partition, sinks): (PartitionId, &[SinkName]),
        record: &Record,
        found: &Found,
        names: impl Iterator<Item = BlockName> + Clone,
    ) -> Checked {
        self.compared += 1;
        let mut outcome = Err(Violation { rule: "I1", text: format!("nobody said {record:?}") });
        for name in sinks {
            let Some(said) = self.said.get(&(*name as usize, partition, record.version)) else { continue };
            outcome = self.compare_with(truth, partition, said, record, found, names.clone());
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn compare_with(
        &self,
        truth: &Truth,
        partition: PartitionId,
        said: &Said,
        record: &Record,
        found: &Found,
        mut names: impl Iterator<Item = BlockName>,
    ) -> Checked {
        ensure(said.gapless, "I1", || format!("partition {partition}: a gap is not stated in {record:?}"))?;
        let wrong =
            names.find(|name| found.get(name).copied().unwrap_or(0) != truth.digest(partition, *name, &said.cut));
        if let Some(name) = wrong {
            let what = if found.contains_key(&name) { "wrong rows" } else { "no rows" };
            let text = format!("partition {partition}: {what} in {name:?}, said exact by {record:?} of {:?}", said.cut);
            return Err(Violation { rule: "I1", text });
        }
        let before_ms = record.as_of_ms - self.clocks_differ_ms;
        match truth.acknowledged_but_absent(partition, &said.cut, before_ms) {
            Some(absent) => {
                let text = format!("partition {partition}: {absent} is not in what is said as of {}", record.as_of_ms);
                Err(Violation { rule: "I1", text })
            }
            None => Ok(()),
        }
    }

    // --- I5: one owner counts ---

    /// A sink took a write. Gives whether something is there that was not looked at yet.
    pub fn wrote(
        &mut self,
        truth: &Truth,
        partition: PartitionId,
        name: SinkName,
        write: &SinkWrite,
    ) -> Result<bool, Violation> {
        let tier = crate::calls::sink_tier(name);
        self.moved(tier, partition, write.expect, write.tip)?;
        let place = self.places.entry((tier, partition)).or_default();
        place.is_seen &= write.blocks.is_empty() && write.remove.is_empty();
        let Some(record) = &write.record else { return Ok(false) };
        let before = place.record.replace(record.version);
        let is_seen = std::mem::replace(&mut place.is_seen, true);
        let said = |version: Tip| self.said.get(&(name as usize, partition, version));
        let (before, after) = (before.and_then(said), said(record.version));
        if let (Some(before), Some(after)) = (before, after) {
            ensure(truth.covers(partition, &after.cut, &before.cut), "I1", || {
                format!("{tier:?} {partition}: {:?} takes back what {:?} had said", after.cut, before.cut)
            })?;
        }
        let is_same = before.zip(after).is_some_and(|(before, after)| before.cut == after.cut);
        Ok(!is_seen || !is_same)
    }

    /// A chained write was accepted.
    fn moved(&mut self, tier: Tier, partition: PartitionId, expect: Tip, tip: Tip) -> Checked {
        let place = self.places.entry((tier, partition)).or_default();
        let (stood, highest) = (place.tip, place.highest);
        (place.tip, place.highest) = (tip, highest.max(tip.epoch));
        ensure(tip.epoch >= highest, "I5", || {
            format!("{tier:?} {partition}: a write of epoch {} was accepted after one of {highest}", tip.epoch)
        })?;
        ensure(expect == stood, "I5", || {
            format!("{tier:?} {partition}: a write on {expect} was accepted where {stood} stood")
        })
    }

    pub fn appended(&mut self, truth: &Truth, partition: PartitionId, append: &Append) -> Checked {
        self.moved(Tier::Kv, partition, append.chunk.previous, append.chunk.id)?;
        for batch in append.chunk.batches.iter().filter(|batch| !batch.header.source.is_mq()) {
            ensure(truth.has_batch(partition, batch), "I2", || {
                format!("kv {partition}: {} {} is not as it came into mq", batch.header.source, batch.header.span)
            })?;
        }
        Ok(())
    }

    pub fn saved(&mut self, partition: PartitionId, epoch: Epoch) -> Checked {
        let highest = self.snapshots.entry(partition).or_default();
        let before = std::mem::replace(highest, epoch.max(*highest));
        ensure(epoch >= before, "I5", || format!("kv {partition}: a snapshot of {epoch} replaced one of {before}"))
    }

    /// A fault took writes away: the place stands where it stands.
    pub fn lost(&mut self, tiers: &Tiers, tier: Tier, partition: PartitionId) {
        let place = match tier {
            Tier::Mq => return,
            Tier::Kv => {
                self.snapshots.remove(&partition);
                let tip = tiers.head(partition).tip;
                Place { tip, highest: tip.epoch, record: None, is_seen: false }
            }
            Tier::Hot | Tier::Cache => {
                let name = if tier == Tier::Hot { SinkName::Hot } else { SinkName::Cache };
                let tip = tiers.standing(name, partition).tip;
                let asked = SinkQuery { table: shop::metric_table(WINDOWS[0]).id, keys: Some(Vec::new()), days: 0..=0 };
                let record = tiers.read_sink(name, partition, asked).record.map(|record| record.version);
                Place { tip, highest: tip.epoch, record, is_seen: false }
            }
        };
        self.places.insert((tier, partition), place);
    }

    // --- I2: nothing silently lost ---

    /// A sender hears that rows are safe.
    pub fn promised(&self, truth: &Truth, partition: PartitionId, tag: i64) -> Checked {
        ensure(truth.has_rows_of(partition, tag), "I2", || {
            format!("partition {partition}: request {tag} was acknowledged, and mq does not hold it")
        })
    }

    /// mq forgets these: somebody else has them.
    pub fn trimmed(&self, partition: PartitionId, forgotten: &MqRead, head: &Head) -> Checked {
        let lost = forgotten
            .batches
            .iter()
            .find(|(_, batch)| head.applied.admit(&batch.header.source, batch.header.span) != Admission::None);
        ensure(lost.is_none(), "I2", || {
            format!("partition {partition}: mq forgot offset {:?}, which kv does not have", lost.map(|(at, _)| *at))
        })
    }

    // --- I6: bounded ---

    pub fn gate_is_bounded(&self, report: &GateReport, most: GateBounds) -> Checked {
        let text = || format!("a gate holds {report:?}");
        ensure(report.in_flight <= most.in_flight + most.holes, "I6", text)?;
        // Publications under way may fail together.
        ensure(report.holes <= most.holes + most.in_flight, "I6", text)?;
        ensure(report.mq_lag_batches <= most.backlog + most.in_flight as u64, "I6", text)
    }

    pub fn slave_is_bounded(&self, report: &PartitionReport) -> Checked {
        let blocks = WINDOWS.len() * DAYS.len() * shop::merchants(report.partition).len();
        let text = || format!("a slave holds {report:?}");
        ensure(report.hot.dirty_blocks <= blocks && report.cache.dirty_blocks <= blocks, "I6", text)?;
        ensure(report.state_bytes < 1 << 20 && report.metric_rows <= blocks * 9, "I6", text)
    }

    pub fn calls_are_bounded(&self, under_way: usize) -> Checked {
        ensure(under_way <= 64, "I6", || format!("an actor has {under_way} calls under way"))
    }

    // --- I3, I4: when the faults have ended ---

    /// Is everything in both sinks, exact?
    pub fn is_restored(&mut self, tiers: &Tiers, truth: &Truth, partition: PartitionId) -> bool {
        SINKS.into_iter().all(|name| {
            let Some((record, found)) = self.whole_of(tiers, partition, name) else { return false };
            let all = truth.whole(partition);
            let same = |name: BlockName| found.get(&name).copied().unwrap_or(0) == truth.digest(partition, name, &all);
            let names = |window, day| shop::merchants(partition).iter().map(move |merchant| (window, day, *merchant));
            let right = |window| DAYS.into_iter().all(|day| names(window, day).all(same));
            record.is_complete() && WINDOWS.into_iter().all(right)
        })
    }

    /// As `whole`, but what a cache had no room for may be absent: then what is in hot stands for it.
    fn whole_of(&mut self, tiers: &Tiers, partition: PartitionId, name: SinkName) -> Option<(Record, Found)> {
        if let Some(whole) = self.whole(tiers, partition, name) {
            return Some(whole);
        }
        let mut record = None;
        let mut incomplete = false;
        for window in WINDOWS {
            let asked = SinkQuery { table: shop::metric_table(window).id, keys: None, days: i32::MIN..=i32::MAX };
            let mut read = tiers.read_sink(name, partition, asked);
            read.settle();
            incomplete |= read.incomplete;
            record = read.is_vouched().then_some(read.record).flatten();
        }
        let record = (*record.filter(|_| incomplete)?).clone();
        let (_, found) = self.whole(tiers, partition, SinkName::Hot)?;
        Some((record, found))
    }
}

/// The limits of a gate's configuration.
#[derive(Debug, Clone, Copy)]
pub struct GateBounds {
    pub in_flight: usize,
    pub holes: usize,
    pub backlog: u64,
}
