//! Who waits for which offset of which partition, and what of it the store has to be told. Pure.
//!
//! Invariant: for each partition the store watches for the lowest offset that anybody waits for, once it has heard the news;
//! memory is that of those who wait.

use std::collections::{BTreeMap, BTreeSet};

use super::Offset;
use crate::model::id::PartitionId;

/// Names a wait until it ends.
pub type WaitId = u64;

#[derive(Debug)]
pub struct Waits<T> {
    next: WaitId,
    waits: BTreeMap<PartitionId, Vec<Wait<T>>>,
    /// What the store watches for.
    watched: BTreeMap<PartitionId, Offset>,
    /// Where that may not be what it should be.
    changed: BTreeSet<PartitionId>,
}

#[derive(Debug)]
struct Wait<T> {
    id: WaitId,
    from: Offset,
    waiter: T,
}

impl<T> Default for Waits<T> {
    fn default() -> Self {
        Self { next: 0, waits: BTreeMap::new(), watched: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<T> Waits<T> {
    pub fn add(&mut self, partition: PartitionId, from: Offset, waiter: T) -> WaitId {
        self.next += 1;
        self.waits.entry(partition).or_default().push(Wait { id: self.next, from, waiter });
        self.changed.insert(partition);
        self.next
    }

    pub fn withdraw(&mut self, partition: PartitionId, id: WaitId) {
        self.end(partition, |wait| wait.id == id);
    }

    /// There is a batch from this offset on.
    pub fn arrived(&mut self, partition: PartitionId, from: Offset) -> Vec<T> {
        self.told(partition, from);
        self.end(partition, |wait| wait.from <= from)
    }

    /// The store cannot tell.
    pub fn failed(&mut self, partition: PartitionId, from: Offset) -> Vec<T> {
        self.told(partition, from);
        self.end(partition, |_| true)
    }

    fn told(&mut self, partition: PartitionId, from: Offset) {
        if self.watched.get(&partition) == Some(&from) {
            self.watched.remove(&partition);
        }
        self.changed.insert(partition);
    }

    fn end(&mut self, partition: PartitionId, is_over: impl Fn(&Wait<T>) -> bool) -> Vec<T> {
        let Some(waits) = self.waits.get_mut(&partition) else { return Vec::new() };
        let (over, kept) = std::mem::take(waits).into_iter().partition(is_over);
        *waits = kept;
        if waits.is_empty() {
            self.waits.remove(&partition);
        }
        self.changed.insert(partition);
        over.into_iter().map(|wait: Wait<T>| wait.waiter).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Those that somebody waits for.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.waits.keys().copied()
    }

    /// What the store is to watch for from now on, where that differs from what it was told before.
    pub fn news(&mut self) -> Vec<(PartitionId, Option<Offset>)> {
        let mut news = Vec::new();
        for partition in std::mem::take(&mut self.changed) {
            let wanted = self.waits.get(&partition).and_then(|waits| waits.iter().map(|wait| wait.from).min());
            if wanted == self.watched.get(&partition).copied() {
                continue;
            }
            match wanted {
                Some(from) => self.watched.insert(partition, from),
                None => self.watched.remove(&partition),
            };
            news.push((partition, wanted));
        }
        news
    }

    /// The store is gone, and what it was told with it.
    pub fn lose_all(&mut self) -> Vec<T> {
        self.watched.clear();
        self.changed.clear();
        std::mem::take(&mut self.waits).into_values().flatten().map(|wait| wait.waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);

    #[test]
    fn the_lowest_offset_of_a_partition_is_watched_and_changes_are_told_once() {
        let mut waits = Waits::default();
        waits.add(P, 7, "seven");
        let five = waits.add(P, 5, "five");
        assert_eq!(waits.news(), [(P, Some(5))]);
        assert_eq!(waits.news(), []);
        waits.withdraw(P, five);
        assert_eq!(waits.news(), [(P, Some(7))]);
        assert_eq!(waits.arrived(P, 7), ["seven"]);
        assert_eq!((waits.news(), waits.is_empty()), (vec![], true));
    }

    #[test]
    fn those_who_wait_for_more_wait_on() {
        let mut waits = Waits::default();
        for from in [3, 9, 4] {
            waits.add(P, from, from);
        }
        waits.news();
        assert_eq!(waits.arrived(P, 3), [3]);
        assert_eq!(waits.news(), [(P, Some(4))]);
        assert_eq!(waits.failed(P, 4), [9, 4]);
        waits.add(P, 2, 2);
        assert_eq!(waits.news(), [(P, Some(2))]);
    }

    #[test]
    fn news_of_a_watch_that_was_replaced_end_nothing_too_early() {
        let mut waits = Waits::default();
        let low = waits.add(P, 1, 1);
        waits.news();
        waits.withdraw(P, low);
        waits.add(P, 8, 8);
        assert_eq!(waits.news(), [(P, Some(8))]);
        assert_eq!(waits.arrived(P, 1), Vec::<i32>::new());
        assert_eq!(waits.news(), [], "the store still watches for eight");
    }

    #[test]
    fn a_wait_that_nobody_wants_any_more_is_taken_back_and_a_lost_store_leaves_nothing() {
        let mut waits = Waits::default();
        let id = waits.add(P, 1, 1);
        waits.news();
        waits.withdraw(P, id);
        assert_eq!(waits.news(), [(P, None)]);
        waits.add(P, 1, 1);
        waits.news();
        assert_eq!((waits.lose_all(), waits.news()), (vec![1], vec![]));
        waits.add(P, 1, 1);
        assert_eq!(waits.news(), [(P, Some(1))], "a new store knows nothing");
    }
}
