//! From which offsets of mq on there may be rows from beyond a place of the log, whoever published them. Pure.
//!
//! Owners before this one, and one that does not know yet that it lost the source, may have read further than this one. But no row
//! was published before it was in the log: what follows a place where the log ended came into mq after the offsets that were known
//! before the server was asked.
//!
//! Invariant: rows from beyond the place that is asked for are at the offsets given or later ones.

use std::sync::Arc;

use super::place::Place;
use crate::model::id::PartitionId;
use crate::model::position::Position;
use crate::mq::Offset;

/// By partition.
type Offsets = Arc<Vec<Offset>>;

#[derive(Debug)]
pub struct Retreat {
    /// What follows the offset that mq gave last.
    latest: Vec<Offset>,
    /// Known at this time (Unix milliseconds): the log's end is to be asked for later.
    known: Option<(i64, Offsets)>,
    /// Rows from beyond this position are at these offsets or later ones; not read up to there yet.
    next: Option<(Position, Offsets)>,
    now: Offsets,
}

impl Retreat {
    /// Rows from beyond where reading begins are at these offsets or later ones.
    pub fn new(offsets: Vec<Offset>) -> Self {
        Self { now: Arc::new(offsets.clone()), latest: offsets, known: None, next: None }
    }

    pub fn acknowledged(&mut self, partition: PartitionId, offset: Offset) {
        if let Some(latest) = self.latest.get_mut(usize::from(partition.0)) {
            *latest = offset + 1;
        }
    }

    /// `end` is where the log ended, and when that was asked.
    pub fn look(&mut self, now_ms: i64, end: Option<(i64, Place)>) {
        if self.next.is_some() {
            return;
        }
        match (self.known.take(), end) {
            (None, _) => self.known = Some((now_ms, Arc::new(self.latest.clone()))),
            (Some((known_ms, offsets)), Some((asked_ms, place))) if asked_ms > known_ms => {
                self.next = Some((place.position(), offsets));
            }
            (known, _) => self.known = known,
        }
    }

    /// The offsets for a place that was read up to; places only grow.
    pub fn at(&mut self, place: Place) -> Offsets {
        if let Some((_, offsets)) = self.next.take_if(|(position, _)| *position <= place.position()) {
            self.now = offsets;
        }
        self.now.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(offset: u64) -> Place {
        Place::new(1, offset)
    }

    #[test]
    fn offsets_count_from_the_end_that_was_asked_for_after_they_were_known() {
        let mut retreat = Retreat::new(vec![5, 7]);
        retreat.acknowledged(PartitionId(1), 9);
        retreat.look(10, Some((9, place(100))));
        retreat.acknowledged(PartitionId(0), 20);
        retreat.look(11, Some((10, place(150))));
        retreat.look(12, Some((11, place(200))));
        assert_eq!(*retreat.at(place(199)), [5, 7], "others may have read further");
        assert_eq!(*retreat.at(place(200)), [5, 10], "but not before the log was that long");
        retreat.look(13, Some((11, place(200))));
        retreat.look(14, Some((14, place(300))));
        assert_eq!(*retreat.at(place(299)), [5, 10]);
        assert_eq!(*retreat.at(place(300)), [21, 10]);
    }

    /// What happens in the world: the log grows, somebody publishes what is in it, we read, we look.
    #[derive(Debug, Clone)]
    enum Happens {
        Grows,
        OtherPublishes,
        WePublish,
        Asked,
        Looks,
    }

    proptest! {
        #[test]
        fn nothing_from_beyond_is_before_whoever_reads_faster(
            happens in prop::collection::vec(
                prop_oneof![
                    Just(Happens::Grows), Just(Happens::OtherPublishes), Just(Happens::WePublish), Just(Happens::Asked), Just(Happens::Looks),
                ],
                0..200,
            ),
        ) {
            let mut retreat = Retreat::new(vec![0]);
            // Of each offset of mq: up to where it has the log.
            let mut mq: Vec<u64> = Vec::new();
            let (mut end, mut ours, mut asked) = (1, 0, None);
            for (now_ms, it) in (0..).zip(happens) {
                match it {
                    Happens::Grows => end += 1,
                    Happens::OtherPublishes => mq.push(end),
                    Happens::WePublish => {
                        ours = (ours + 1).min(end);
                        mq.push(ours);
                        retreat.acknowledged(PartitionId(0), mq.len() as u64 - 1);
                    }
                    Happens::Asked => asked = Some((now_ms, place(end))),
                    Happens::Looks => retreat.look(now_ms, asked),
                }
                let from = retreat.at(place(ours))[0] as usize;
                prop_assert!(mq[..from].iter().all(|has| *has <= ours), "{:?} from {} at {}", mq, from, ours);
            }
        }
    }
}
