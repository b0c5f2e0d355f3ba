//! The ground truth: everything that ever came into mq, in its order, and what blocks must hold after any part of it.
//!
//! Invariant: a position is decided by the first batch that brought it, rows or void; that is the order in which gates
//! read, whatever fails.

use std::collections::{BTreeMap, HashMap, HashSet};

use holdfast::model::applied::{Admission, Applied, Progress};
use holdfast::model::batch::Batch;
use holdfast::model::block::Day;
use holdfast::model::id::{PartitionId, SourceId};
use holdfast::model::position::{Position, Span};
use holdfast::mq::Offset;
use xxhash_rust::xxh3::xxh3_64;

use crate::shop::{self, BlockName, Change};

/// A part of what came in.
#[derive(Debug, Clone, PartialEq)]
pub enum Cut {
    /// The first batches, so many.
    Prefix(usize),
    /// Exactly this; not a prefix.
    Set(Box<Applied>),
}

#[derive(Debug)]
struct Landing {
    source: SourceId,
    span: Span,
    /// When its sender heard that mq has it, true time.
    acknowledged_ms: Option<i64>,
    /// What it decided.
    decided: Vec<(Position, Change)>,
}

#[derive(Debug)]
struct Partition {
    landings: Vec<Landing>,
    applied: Applied,
    /// The prefix that has exactly the set of positions with this digest.
    prefixes: HashMap<u64, usize>,
    set_digest: u64,
    by_offset: HashMap<Offset, usize>,
    /// What each block holds, from a number of batches on.
    blocks: BTreeMap<BlockName, Vec<(usize, u64)>>,
    rows: HashMap<(Day, i64), Vec<Change>>,
    tags: HashSet<i64>,
    /// Digests of all batches.
    batches: HashSet<u64>,
}

#[derive(Debug)]
pub struct Truth {
    partitions: Vec<Partition>,
}

impl Truth {
    pub fn new() -> Self {
        let partition = |_| Partition {
            landings: Vec::new(),
            applied: Applied::default(),
            prefixes: HashMap::from([(0, 0)]),
            set_digest: 0,
            by_offset: HashMap::new(),
            blocks: BTreeMap::new(),
            rows: HashMap::new(),
            tags: HashSet::new(),
            batches: HashSet::new(),
        };
        Self { partitions: shop::partitions().map(partition).collect() }
    }

    fn of(&self, partition: PartitionId) -> &Partition {
        &self.partitions[usize::from(partition.0)]
    }

    /// mq has a batch, at this offset.
    pub fn landed(&mut self, partition: PartitionId, offset: Offset, batch: &Batch) {
        self.partitions[usize::from(partition.0)].landed(offset, batch);
    }

    /// The sender of the batch at this offset heard of it.
    pub fn acknowledged(&mut self, partition: PartitionId, offset: Offset, now_ms: i64) {
        let partition = &mut self.partitions[usize::from(partition.0)];
        if let Some(index) = partition.by_offset.get(&offset) {
            partition.landings[*index].acknowledged_ms.get_or_insert(now_ms);
        }
    }

    pub fn batches(&self, partition: PartitionId) -> usize {
        self.of(partition).landings.len()
    }

    /// Everything.
    pub fn whole(&self, partition: PartitionId) -> Cut {
        Cut::Prefix(self.batches(partition))
    }

    pub fn applied(&self, partition: PartitionId) -> &Applied {
        &self.of(partition).applied
    }

    /// Did exactly this batch come into mq?
    pub fn has_batch(&self, partition: PartitionId, batch: &Batch) -> bool {
        self.of(partition).batches.contains(&batch_digest(batch))
    }

    pub fn has_rows_of(&self, partition: PartitionId, tag: i64) -> bool {
        self.of(partition).tags.contains(&tag)
    }

    pub fn cut(&self, partition: PartitionId, applied: &Applied) -> Cut {
        match self.of(partition).prefixes.get(&set_digest(applied)) {
            Some(batches) => Cut::Prefix(*batches),
            None => Cut::Set(Box::new(applied.clone())),
        }
    }

    /// What a block must hold; 0: nothing.
    pub fn digest(&self, partition: PartitionId, name: BlockName, cut: &Cut) -> u64 {
        let this = self.of(partition);
        match cut {
            Cut::Prefix(batches) => this.blocks.get(&name).map_or(0, |states| {
                let later = states.partition_point(|(from, _)| from <= batches);
                later.checked_sub(1).map_or(0, |last| states[last].1)
            }),
            Cut::Set(applied) => {
                let here = |change: &Change| (change.order.day(), change.order.merchant) == (name.1, name.2);
                let rows = this.landings.iter().flat_map(|landing| {
                    let counted = move |position: &Position| {
                        applied.admit(&landing.source, Span::new(Position(position.0 - 1), *position))
                            == Admission::None
                    };
                    landing.decided.iter().filter(move |(position, _)| counted(position)).map(|(_, change)| change)
                });
                shop::true_digest(name.0, rows.filter(|change| here(change)))
            }
        }
    }

    /// A batch that was acknowledged before `before_ms` and is not in the cut.
    pub fn acknowledged_but_absent(&self, partition: PartitionId, cut: &Cut, before_ms: i64) -> Option<String> {
        let this = self.of(partition);
        let absent = |index: usize, landing: &Landing| match cut {
            Cut::Prefix(batches) => index >= *batches && !landing.decided.is_empty(),
            Cut::Set(applied) => {
                !landing.decided.is_empty() && applied.admit(&landing.source, landing.span) != Admission::None
            }
        };
        let start = if let Cut::Prefix(batches) = cut { *batches } else { 0 };
        let rest = this.landings.iter().enumerate().skip(start);
        rest.filter(|(_, landing)| landing.acknowledged_ms.is_some_and(|at_ms| at_ms < before_ms))
            .find(|(index, landing)| absent(*index, landing))
            .map(|(_, landing)| format!("{} {} at {:?}", landing.source, landing.span, landing.acknowledged_ms))
    }

    /// Is everything of `earlier` in `later`?
    pub fn covers(&self, partition: PartitionId, later: &Cut, earlier: &Cut) -> bool {
        let as_set = |cut: &Cut| match cut {
            Cut::Set(applied) => {
                let mut applied = (**applied).clone();
                applied.forget(&[SourceId::mq()]);
                applied
            }
            Cut::Prefix(batches) => {
                let mut applied = Applied::default();
                self.of(partition).landings[..*batches].iter().for_each(|l| applied.add(&l.source, l.span, 0));
                applied
            }
        };
        match (later, earlier) {
            (Cut::Prefix(later), Cut::Prefix(earlier)) => later >= earlier,
            _ => as_set(later).covers(&as_set(earlier)),
        }
    }

    pub fn set_digest(&self, partition: PartitionId) -> u64 {
        self.of(partition).set_digest
    }
}

impl Partition {
    fn landed(&mut self, offset: Offset, batch: &Batch) {
        let header = &batch.header;
        let before = self.applied.get(&header.source).map_or(0, |progress| source_digest(&header.source, progress));
        let new = self.applied.admit(&header.source, header.span);
        self.applied.add(&header.source, header.span, 0);
        let after = self.applied.get(&header.source).map_or(0, |progress| source_digest(&header.source, progress));
        let mut decided = if new == Admission::None { Vec::new() } else { shop::changes_of(batch) };
        if let Admission::Some(spans) = &new {
            decided.retain(|(position, _)| spans.iter().any(|span| span.contains(*position)));
        }
        self.by_offset.insert(offset, self.landings.len());
        self.batches.insert(batch_digest(batch));
        self.take(&decided);
        let (source, span) = (header.source.clone(), header.span);
        self.landings.push(Landing { source, span, acknowledged_ms: None, decided });
        self.set_digest = self.set_digest.wrapping_sub(before).wrapping_add(after);
        self.prefixes.insert(self.set_digest, self.landings.len());
    }

    fn take(&mut self, decided: &[(Position, Change)]) {
        let mut touched = HashSet::new();
        for (_, change) in decided {
            let place = (change.order.day(), change.order.merchant);
            self.rows.entry(place).or_default().push(change.clone());
            self.tags.insert(change.tag);
            touched.insert(place);
        }
        for (day, merchant) in touched {
            for window in shop::WINDOWS {
                let digest = shop::true_digest(window, self.rows[&(day, merchant)].iter());
                let states = self.blocks.entry((window, day, merchant)).or_default();
                states.push((self.landings.len() + 1, digest));
            }
        }
    }
}

fn batch_digest(batch: &Batch) -> u64 {
    let Batch { header, body } = batch;
    xxh3_64(body)
        ^ name_digest(&header.source).wrapping_mul(3)
        ^ (header.span.from.0 as u64) << 32
        ^ header.span.to.0 as u64
}

fn source_digest(source: &SourceId, progress: &Progress) -> u64 {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&name_digest(source).to_le_bytes());
    bytes.extend_from_slice(&progress.high().0.to_le_bytes());
    for span in progress.beyond() {
        bytes.extend_from_slice(&span.from.0.to_le_bytes());
        bytes.extend_from_slice(&span.to.0.to_le_bytes());
    }
    xxh3_64(&bytes)
}

fn name_digest(source: &SourceId) -> u64 {
    match source {
        SourceId::Stream { name, incarnation } => xxh3_64(name.as_bytes()) ^ incarnation.wrapping_mul(0x9e37_79b9),
        SourceId::Request(id) => xxh3_64(&id.to_le_bytes()),
    }
}

/// Of a set of positions; the sources' digests are summed up, so that one that changes is cheap.
fn set_digest(applied: &Applied) -> u64 {
    // mq's own offsets are no changes.
    applied
        .iter()
        .filter(|(source, _)| !source.is_mq())
        .fold(0, |sum, (source, progress)| sum.wrapping_add(source_digest(source, progress)))
}
