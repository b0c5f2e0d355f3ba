//! Which spans mq has acknowledged, and the cut that a checkpoint may stand at. Pure.
//!
//! Invariant: the cut given is one up to which every table and partition was acknowledged (design §5: a source's
//! acknowledgements are kept as `Applied` is).

use std::collections::VecDeque;
use std::sync::Arc;

use super::checkpoint::DefinedTable;
use super::gtid::Gtids;
use super::place::Place;
use crate::model::applied::Progress;
use crate::model::id::PartitionId;
use crate::model::position::{Position, Span};
use crate::mq::Offset;

/// Where a source was cut, and what is needed to begin again there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub to: Position,
    /// What the source had before this time (Unix milliseconds) lies before `to`.
    pub at_ms: i64,
    pub resume: Place,
    pub tables: Arc<Vec<DefinedTable>>,
    pub gtids: Option<Gtids>,
    /// By partition an offset of mq before which there is nothing from beyond `resume`.
    pub mq_from: Arc<Vec<Offset>>,
}

/// The acknowledgements of one source.
#[derive(Debug)]
pub struct Acknowledging {
    partitions: usize,
    /// By table and partition.
    progress: Vec<Progress>,
    /// Not yet acknowledged everywhere, in order.
    cuts: VecDeque<Cut>,
}

impl Acknowledging {
    /// Everything up to `from` was acknowledged before.
    pub fn new(tables: usize, partitions: u16, from: Position) -> Self {
        let mut progress = Progress::default();
        progress.add(Span::new(Position::ZERO, from), 0);
        let partitions = usize::from(partitions);
        Self { partitions, progress: vec![progress; tables * partitions], cuts: VecDeque::new() }
    }

    pub fn cut(&mut self, cut: Cut) {
        match self.cuts.back_mut() {
            Some(last) if last.to == cut.to => *last = cut,
            _ => self.cuts.push_back(cut),
        }
    }

    pub fn acknowledged(&mut self, table: usize, partition: PartitionId, span: Span) {
        self.progress[table * self.partitions + usize::from(partition.0)].add(span, 0);
    }

    /// Up to where mq has everything.
    pub fn high(&self) -> Position {
        self.progress.iter().map(Progress::high).min().unwrap_or_default()
    }

    /// The newest cut that is acknowledged everywhere, once.
    pub fn take_whole(&mut self) -> Option<Cut> {
        let high = self.high();
        let whole = self.cuts.partition_point(|cut| cut.to <= high);
        self.cuts.drain(..whole).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(to: u128) -> Cut {
        Cut {
            to: Position(to),
            at_ms: 0,
            resume: Place::default(),
            tables: Arc::default(),
            gtids: None,
            mq_from: Arc::default(),
        }
    }

    fn span(from: u128, to: u128) -> Span {
        Span::new(Position(from), Position(to))
    }

    #[test]
    fn a_checkpoint_waits_for_the_last_partition() {
        let mut acknowledging = Acknowledging::new(2, 2, Position(10));
        acknowledging.cut(cut(10));
        assert_eq!(acknowledging.take_whole(), Some(cut(10)), "nothing new is on its way");
        acknowledging.cut(cut(20));
        for (table, partition) in [(0, 0), (0, 1), (1, 1)] {
            acknowledging.acknowledged(table, PartitionId(partition), span(10, 20));
            assert_eq!(acknowledging.take_whole(), None);
        }
        acknowledging.acknowledged(1, PartitionId(0), span(15, 20));
        assert_eq!(acknowledging.take_whole(), None, "not in order");
        acknowledging.acknowledged(1, PartitionId(0), span(10, 15));
        assert_eq!((acknowledging.take_whole(), acknowledging.take_whole()), (Some(cut(20)), None));
    }

    proptest! {
        #[test]
        fn a_checkpoint_never_passes_what_is_not_acknowledged(order in prop::collection::vec((0usize..2, 0u16..3, 0u128..20), 0..200)) {
            let mut acknowledging = Acknowledging::new(2, 3, Position(0));
            let mut seen = std::collections::HashSet::new();
            (1..=20).for_each(|to| acknowledging.cut(cut(to)));
            for (table, partition, from) in order {
                acknowledging.acknowledged(table, PartitionId(partition), span(from, from + 1));
                seen.insert((table, partition, from));
                let whole = (0..20).take_while(|at| (0..6).all(|k| seen.contains(&(k / 3, (k % 3) as u16, *at)))).count();
                if let Some(cut) = acknowledging.take_whole() {
                    prop_assert_eq!(cut.to, Position(whole as u128));
                }
                prop_assert_eq!(acknowledging.high(), Position(whole as u128));
            }
        }
    }
}
