//! A bounded map that many threads read at once: what was worked out is found again until its room is needed.
//!
//! Invariant: all entries together take no more than the limit, whatever is put in; reading needs no exclusive access.

use std::hash::{BuildHasher, Hash};
use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::{DefaultHashBuilder, Equivalent, HashTable};

use crate::eviction::{SecondChance, SlotId};
use crate::locks::{read, write};

/// Parts with a lock of their own, so that threads seldom meet.
const SHARDS: usize = 64;

/// Values by key, each with the size that was stated for it.
#[derive(Debug)]
pub struct Memo<K, V> {
    shards: Vec<RwLock<Shard<K, V>>>,
    hasher: DefaultHashBuilder,
    limit_bytes: usize,
    bytes: AtomicUsize,
}

#[derive(Debug)]
struct Shard<K, V> {
    places: HashTable<SlotId>,
    entries: SecondChance<Entry<K, V>>,
}

#[derive(Debug)]
struct Entry<K, V> {
    hash: u64,
    key: K,
    value: V,
    bytes: usize,
}

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    pub fn new(limit_bytes: usize) -> Self {
        let shard = || RwLock::new(Shard { places: HashTable::new(), entries: SecondChance::default() });
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: DefaultHashBuilder::default(),
            limit_bytes,
            bytes: AtomicUsize::new(0),
        }
    }

    pub fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let shard = read(&self.shards[shard_of(hash)]);
        let is_it = |place: &SlotId| key.equivalent(&shard.entries.peek(*place).key);
        let place = shard.places.find(hash, is_it)?;
        Some(shard.entries.get(*place).value.clone())
    }

    /// Keeps a value, in place of the one before; not if it alone would take more than all may.
    pub fn insert(&self, key: K, value: V, bytes: usize) {
        let hash = self.hasher.hash_one(&key);
        let home = shard_of(hash);
        let mut shard = write(&self.shards[home]);
        let freed = shard.remove(hash, &key);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        if bytes <= self.limit_bytes {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            shard.insert(Entry { hash, key, value, bytes });
        }
        drop(shard);
        self.make_room(home);
    }

    /// Evicts until all is within the limit, from the shard that grew first.
    fn make_room(&self, grown: usize) {
        for index in (grown..SHARDS).chain(0..grown) {
            if self.bytes.load(Ordering::Relaxed) <= self.limit_bytes {
                return;
            }
            let mut shard = write(&self.shards[index]);
            while self.bytes.load(Ordering::Relaxed) > self.limit_bytes
                && let Some(freed) = shard.evict()
            {
                self.bytes.fetch_sub(freed, Ordering::Relaxed);
            }
        }
    }
}

impl<K: Eq, V> Shard<K, V> {
    fn insert(&mut self, entry: Entry<K, V>) {
        let hash = entry.hash;
        let place = self.entries.insert(entry);
        self.places.insert_unique(hash, place, |place| self.entries.peek(*place).hash);
    }

    /// The bytes freed.
    fn remove(&mut self, hash: u64, key: &K) -> usize {
        let is_it = |place: &SlotId| self.entries.peek(*place).key == *key;
        let Ok(found) = self.places.find_entry(hash, is_it) else { return 0 };
        let (place, _) = found.remove();
        self.entries.remove(place).bytes
    }

    /// The bytes freed; `None` if there is nothing.
    fn evict(&mut self) -> Option<usize> {
        let (place, gone) = self.entries.evict()?;
        let found = self.places.find_entry(gone.hash, |held| *held == place);
        found.expect("every entry has its place").remove();
        Some(gone.bytes)
    }
}

/// From the hash's middle: its ends place the entry within the shard.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_last_is_found() {
        let memo = Memo::new(1_000);
        assert_eq!(memo.get("a"), None);
        memo.insert("a".to_owned(), 1, 10);
        memo.insert("b".to_owned(), 2, 10);
        memo.insert("a".to_owned(), 3, 20);
        assert_eq!((memo.get("a"), memo.get("b"), memo.get("c")), (Some(3), Some(2), None));
        assert_eq!(memo.bytes.load(Ordering::Relaxed), 30);
        memo.insert("a".to_owned(), 4, 1_001);
        assert_eq!((memo.get("a"), memo.get("b")), (None, Some(2)), "too large to be kept, and the old one is old");
    }

    #[test]
    fn i6_all_entries_stay_within_the_limit() {
        let memo = Memo::new(10_000);
        for key in 0..100_000u64 {
            memo.insert(key, key, 7 + (key % 90) as usize);
            assert!(memo.bytes.load(Ordering::Relaxed) <= 10_000);
        }
        let held = |shard: &RwLock<Shard<u64, u64>>| (read(shard).places.len(), read(shard).entries.len());
        let (places, entries): (Vec<_>, Vec<_>) = memo.shards.iter().map(held).unzip();
        assert_eq!(places, entries);
        let found = (0..100_000).filter(|key| memo.get(key).is_some()).count();
        assert!(found > 50 && found < 1_000, "{found}");
        for large in 0..10u64 {
            memo.insert(200_000 + large, 0, 9_000);
            assert!(memo.bytes.load(Ordering::Relaxed) <= 10_000, "other shards give room too");
        }
    }
}
