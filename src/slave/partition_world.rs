//! Random histories of one partition: a gate that replays, overlaps and leaves gaps, a kv and two sinks that fail, lose
//! their last writes and come back empty, owners that crash, are replaced and live on as zombies.
//!
//! Invariant checked all along: what a record vouches for is the truth of what its owner had counted (I1, I3, I5), and what a
//! sink misses is bounded (I6). When the faults end, both sinks become exact by themselves (I4).

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::kv::ChunkRead;
use crate::model::applied::{Admission, Applied};
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::id::SourceId;
use crate::model::position::{Position, Span};
use crate::model::quality::Record;
use crate::model::units::{ByteSize, Millis};
use crate::place::SinkPlace;
use crate::slave::sample::{self, Change};
use crate::tier::SinkWrite;

const PARTITION: PartitionId = PartitionId(3);
/// Four merchants, four days, two tables.
const MOST_BLOCKS: usize = 4 * 4 * 2;

struct Random(u64, u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.1 += 1;
        xxhash_rust::xxh3::xxh3_64_with_seed(&self.1.to_le_bytes(), self.0)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

#[derive(Clone, Default)]
struct SinkWorld {
    place: SinkPlace,
    record: Option<Record>,
    blocks: BTreeMap<BlockKey, StoredBlock>,
}

impl SinkWorld {
    fn write(&mut self, write: SinkWrite) -> Result<(), TierError> {
        self.place.check("sink", &write)?;
        self.place.announce(&write.announce);
        self.blocks.extend(write.blocks);
        write.remove.iter().for_each(|name| drop(self.blocks.remove(name)));
        if let Some(record) = &write.record {
            self.record = Some(record.clone());
        }
        self.place.accept(write.tip, write.record, &write.forget);
        Ok(())
    }
}

#[derive(Default)]
struct KvWorld {
    chunks: Vec<Chunk>,
    oldest_previous: Tip,
    snapshot: Option<Snapshot>,
    gate_epoch: Epoch,
    number: u64,
}

impl KvWorld {
    fn tip(&self) -> Tip {
        self.chunks.last().map_or(self.oldest_previous, |chunk| chunk.id)
    }

    fn read(&self, after: Tip, most: usize) -> ChunkRead {
        let start = match self.chunks.iter().position(|chunk| chunk.id == after) {
            Some(at) => at + 1,
            None if after == self.oldest_previous || after == Tip::default() => 0,
            None => return ChunkRead::Broken,
        };
        ChunkRead::Next(self.chunks[start..].iter().take(most).cloned().collect())
    }
}

struct Owner {
    core: Partition,
    pending: Vec<Effect>,
}

struct World {
    random: Random,
    catalog: Arc<Catalog>,
    settings: Settings,
    now_ms: i64,
    log: Vec<Change>,
    requests: Vec<Vec<Change>>,
    kv: KvWorld,
    kv_up: bool,
    sinks: [SinkWorld; 2],
    sinks_up: [bool; 2],
    past: [Vec<SinkWorld>; 2],
    /// The newest owner first, then zombies.
    owners: Vec<Owner>,
    epoch: Epoch,
    /// What an owner had counted when it began an emission. Several, where numbers were used twice.
    said: HashMap<(usize, Tip), Vec<Applied>>,
    /// Writes whose fate their owner does not know; they may still arrive.
    flying: Vec<(usize, SinkWrite)>,
    exact_reads: usize,
}

fn stream() -> SourceId {
    SourceId::push("orders", 1)
}

fn request(index: usize) -> SourceId {
    SourceId::request("orders", &index.to_string())
}

fn down(tier: &'static str) -> TierError {
    TierError::Unavailable { tier, reason: "it is down".into() }
}

impl World {
    fn new(seed: u64) -> Self {
        let settings = Settings {
            emit_interval: Millis(3),
            emit_bytes: ByteSize(1_500),
            heartbeat: Millis(9),
            snapshot_interval: Millis(30),
            kv_keep: Millis(0),
            kv_poll: Millis(25),
            retry: crate::backoff::Backoff { first: Millis(1), most: Millis(8) },
            missing_most: 2,
            ..Settings::for_tests()
        };
        let mut world = Self {
            random: Random(seed, 0),
            catalog: sample::catalog(),
            settings,
            now_ms: 1_000,
            log: Vec::new(),
            requests: Vec::new(),
            kv: KvWorld { gate_epoch: 1, ..KvWorld::default() },
            kv_up: true,
            sinks: Default::default(),
            sinks_up: [true; 2],
            past: Default::default(),
            owners: Vec::new(),
            epoch: 0,
            said: HashMap::new(),
            flying: Vec::new(),
            exact_reads: 0,
        };
        world.new_owner();
        world
    }

    // --- the gate ---

    fn append(&mut self) {
        let grow = self.random.below(4);
        let new: Vec<Change> = (0..grow).map(|_| Change::arbitrary(self.random.next())).collect();
        let from = self.log.len();
        self.log.extend(new);
        let mut batches = Vec::new();
        if self.random.chance(85) {
            batches.push(self.span(from, self.log.len()));
        }
        if self.random.chance(30) {
            let from = self.random.below(self.log.len());
            let to = (from + self.random.below(9)).min(self.log.len());
            batches.push(self.span(from, to));
        }
        if self.random.chance(20) {
            let rows = (0..=self.random.below(3)).map(|_| Change::arbitrary(self.random.next())).collect();
            self.requests.push(rows);
        }
        if self.random.chance(30) && !self.requests.is_empty() {
            let index = self.random.below(self.requests.len());
            batches.push(sample::batch(&self.catalog, &request(index), 0, &self.requests[index]));
        }
        self.chunk(batches);
    }

    fn span(&self, from: usize, to: usize) -> crate::model::batch::Batch {
        let mut batch = sample::batch(&self.catalog, &stream(), from as u64, &self.log[from..to]);
        batch.header.at_ms = self.now_ms;
        batch
    }

    fn chunk(&mut self, batches: Vec<crate::model::batch::Batch>) {
        self.kv.number += 1;
        let id = Tip::new(self.kv.gate_epoch, self.kv.number);
        let chunk = Chunk { id, previous: self.kv.tip(), at_ms: self.now_ms, batches };
        self.kv.chunks.push(chunk.clone());
        for owner in 0..self.owners.len() {
            if self.random.chance(70) {
                self.step(owner, Input::Push(chunk.clone()));
            }
        }
    }

    /// Everything that was ever to be counted, once more.
    fn append_all(&mut self) {
        let mut batches = vec![self.span(0, self.log.len())];
        for (index, rows) in self.requests.iter().enumerate() {
            batches.push(sample::batch(&self.catalog, &request(index), 0, rows));
        }
        self.chunk(batches);
    }

    // --- owners ---

    fn new_owner(&mut self) {
        self.epoch += 1;
        let core = Partition::new(PARTITION, self.epoch, self.catalog.clone(), self.settings.clone());
        self.owners.insert(0, Owner { core, pending: Vec::new() });
        self.owners.truncate(3);
        self.step(0, Input::Tick);
    }

    /// The owner crashes and is started again in its epoch; what it had sent may still arrive.
    fn crash(&mut self) {
        let core = Partition::new(PARTITION, self.epoch, self.catalog.clone(), self.settings.clone());
        let dead = std::mem::replace(&mut self.owners[0], Owner { core, pending: Vec::new() });
        for effect in dead.pending {
            if let Effect::Write(name, write) = effect {
                self.flying.push((name as usize, write));
            }
        }
        self.step(0, Input::Tick);
    }

    fn step(&mut self, owner: usize, input: Input) {
        let owner = &mut self.owners[owner];
        for effect in owner.core.step(self.now_ms, input) {
            match &effect {
                Effect::Write(name, write) => {
                    let said = self.said.entry((*name as usize, write.tip)).or_default();
                    said.push(owner.core.counting.applied.clone());
                }
                Effect::Visible { .. } | Effect::End => continue,
                _ => {}
            }
            owner.pending.push(effect);
        }
        for sink in &owner.core.sinks {
            assert!(sink.report().dirty_blocks <= MOST_BLOCKS, "I6: a sink misses {:?}", sink.report());
        }
    }

    fn work(&mut self, owner: usize) {
        let pending = &mut self.owners[owner].pending;
        if pending.is_empty() {
            return self.step(owner, Input::Tick);
        }
        let effect = pending.swap_remove(self.random.below(pending.len()));
        if let Some(result) = self.perform(effect) {
            self.step(owner, result);
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        let kv_up = self.kv_up;
        let with_kv = |result| if kv_up { Ok(result) } else { Err(down("kv")) };
        Some(match effect {
            Effect::ReadSnapshot => Input::SnapshotRead(with_kv(()).map(|()| self.kv.snapshot.clone())),
            Effect::ReadHead => Input::HeadRead(with_kv(()).map(|()| Head {
                tip: self.kv.tip(),
                oldest_previous: self.kv.oldest_previous,
                ..Head::default()
            })),
            Effect::ReadChunks { after } => {
                let most = 1 + self.random.below(4);
                Input::ChunksRead(with_kv(()).map(|()| self.kv.read(after, most)))
            }
            Effect::PutSnapshot(snapshot) => Input::SnapshotPut(with_kv(()).and_then(|()| self.put(snapshot))),
            Effect::Trim { through, before_ms } => {
                if kv_up {
                    self.trim(through, before_ms);
                }
                return None;
            }
            Effect::AskStanding(name) => {
                let sink = name as usize;
                let standing = self.sinks[sink].place.standing();
                Input::Standing(name, if self.sinks_up[sink] { Ok(standing) } else { Err(down("sink")) })
            }
            Effect::Write(name, write) => Input::Written(name, self.write(name as usize, write)),
            Effect::Visible { .. } | Effect::End => return None,
        })
    }

    fn put(&mut self, snapshot: Snapshot) -> Result<(), TierError> {
        if let Some(there) = self.kv.snapshot.as_ref().filter(|there| there.epoch > snapshot.epoch) {
            return Err(TierError::Fenced { tier: "kv", found: Tip::new(there.epoch, 0) });
        }
        self.kv.snapshot = Some(snapshot);
        Ok(())
    }

    fn trim(&mut self, through: Tip, before_ms: i64) {
        let Some(at) = self.kv.chunks.iter().position(|chunk| chunk.id == through) else { return };
        let old = self.kv.chunks[..=at].iter().take_while(|chunk| chunk.at_ms < before_ms).count();
        if let Some(last) = self.kv.chunks.drain(..old).next_back() {
            self.kv.oldest_previous = last.id;
        }
    }

    fn write(&mut self, sink: usize, write: SinkWrite) -> Result<(), TierError> {
        if !self.sinks_up[sink] {
            return Err(down("sink"));
        }
        if self.random.chance(4) {
            self.flying.push((sink, write));
            return Err(down("sink"));
        }
        let result = self.land(sink, write);
        if self.random.chance(4) { Err(down("sink")) } else { result }
    }

    fn land(&mut self, sink: usize, write: SinkWrite) -> Result<(), TierError> {
        let before = self.sinks[sink].clone();
        self.sinks[sink].write(write)?;
        self.past[sink].push(before);
        if self.past[sink].len() > 20 {
            self.past[sink].remove(0);
        }
        Ok(())
    }

    // --- faults ---

    fn fault(&mut self) {
        let sink = self.random.below(2);
        match self.random.below(10) {
            0 => self.kv_up = !self.kv_up,
            1 => self.sinks_up[sink] = !self.sinks_up[sink],
            2 | 3 => self.new_owner(),
            4 => self.crash(),
            5 => self.kv_goes_back(),
            6 => {
                if self.random.chance(30) {
                    // kv lost this partition altogether; the gate begins anew, from mq.
                    let gate_epoch = self.kv.gate_epoch + 1;
                    self.kv = KvWorld { gate_epoch, ..KvWorld::default() };
                }
            }
            7 => {
                if !self.past[sink].is_empty() {
                    let at = self.random.below(self.past[sink].len());
                    self.sinks[sink] = self.past[sink].swap_remove(at);
                    self.past[sink].truncate(at);
                }
            }
            8 => {
                if self.random.chance(30) {
                    (self.sinks[sink], self.past[sink]) = (SinkWorld::default(), Vec::new());
                }
            }
            _ => {
                if !self.flying.is_empty() {
                    let at = self.random.below(self.flying.len());
                    let (sink, write) = self.flying.swap_remove(at);
                    // Nobody waits for the result.
                    let _ = self.land(sink, write);
                }
            }
        }
    }

    fn kv_goes_back(&mut self) {
        let keep = self.random.below(self.kv.chunks.len() + 1);
        self.kv.chunks.truncate(keep);
        self.kv.gate_epoch += 1;
    }

    // --- readers ---

    fn truth(&self, applied: &Applied) -> BTreeMap<sample::RowName, sample::RowValues> {
        let counted = |source: &SourceId, row: usize| {
            let position = Position(row as u128);
            applied.admit(source, Span::new(position, position.plus(1))) == Admission::None
        };
        let stream_rows = (self.log.iter().enumerate()).filter(|(row, _)| counted(&stream(), *row));
        let request_rows =
            self.requests.iter().enumerate().flat_map(|(index, rows)| {
                rows.iter().enumerate().filter(move |(row, _)| counted(&request(index), *row))
            });
        sample::truth(&self.catalog, stream_rows.chain(request_rows).map(|(_, change)| change))
    }

    fn read(&self, sink: usize) -> Option<(Record, BTreeMap<sample::RowName, sample::RowValues>)> {
        let world = &self.sinks[sink];
        let record = world.record.clone()?;
        let blocks = || world.blocks.iter().filter(|(_, block)| block.version >= record.base);
        if blocks().any(|(_, block)| block.version > record.version) || !record.unavailable.is_empty() {
            return None;
        }
        let rows = sample::read(&self.catalog, blocks().map(|(name, block)| (name, &block.rows)));
        Some((record, rows))
    }

    fn check(&mut self, seed: u64) {
        for sink in 0..2 {
            let Some((record, found)) = self.read(sink) else { continue };
            let said = &self.said[&(sink, record.version)];
            let right =
                |applied: &&Applied| (!record.is_complete() || applied.is_gapless()) && self.truth(applied) == found;
            assert!(said.iter().any(|applied| right(&applied)), "I1: seed {seed}, sink {sink}, record {record:?}");
            self.exact_reads += usize::from(record.is_complete());
        }
    }

    fn run(&mut self, seed: u64) {
        for _ in 0..400 {
            self.now_ms += self.random.below(4) as i64;
            match self.random.below(10) {
                0 | 1 => self.append(),
                2..=6 => self.work(0),
                7 => {
                    let owner = self.random.below(self.owners.len());
                    self.work(owner);
                }
                8 => {
                    let (tip, at_ms) = (self.kv.tip(), self.now_ms);
                    self.step(0, Input::Idle { tip, at_ms });
                }
                _ if self.random.chance(60) => self.fault(),
                _ => self.check(seed),
            }
        }
        self.settle(seed);
    }

    /// The faults end.
    fn settle(&mut self, seed: u64) {
        (self.kv_up, self.sinks_up) = (true, [true; 2]);
        self.flying.clear();
        self.append_all();
        for _ in 0..4_000 {
            self.now_ms += 1;
            let Some(effect) = self.owners[0].pending.pop() else {
                let (tip, at_ms) = (self.kv.tip(), self.now_ms);
                self.step(0, Input::Idle { tip, at_ms });
                continue;
            };
            let result = match effect {
                Effect::Write(name, write) => Some(Input::Written(name, self.land(name as usize, write))),
                effect => self.perform(effect),
            };
            if let Some(result) = result {
                self.step(0, result);
            }
            if (0..2).all(|sink| self.is_exact(sink)) {
                return self.check(seed);
            }
        }
        panic!("I4: seed {seed}: {:#?}", self.owners[0].core.report());
    }

    fn is_exact(&self, sink: usize) -> bool {
        let all = sample::truth(&self.catalog, self.log.iter().chain(self.requests.iter().flatten()));
        self.read(sink).is_some_and(|(record, found)| record.is_complete() && found == all)
    }
}

#[test]
fn i1_i3_i4_i6_hold_in_random_histories() {
    let mut exact_reads = 0;
    for seed in 0..80 {
        let mut world = World::new(seed);
        world.run(seed);
        exact_reads += world.exact_reads;
    }
    assert!(exact_reads > 300, "the histories check something: {exact_reads}");
}
