//! The rows of one metric table: a slot for each group in each window, gathered in blocks, with what changed since it
//! was last asked for. Pure; the second half of the hot loop.
//!
//! Invariant: a slot belongs to the one block of its table, day and key; a block with a changed slot is dirty. A slot
//! is freed only when it holds what a new one holds, so freeing loses nothing.

use std::collections::HashMap;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use super::groups::{Groups, mix};
use crate::model::block::Day;
use crate::model::id::Key;
use crate::model::window::Calendar;

/// Where a group in a window has its slot.
#[derive(Debug, Clone, Copy)]
struct Place {
    start_us: i64,
    group: u32,
    slot: u32,
}

fn hash_place(start_us: i64, group: u32) -> u64 {
    mix(start_us as u64, u64::from(group) << 32 | 1)
}

/// What the hot loop touches of a slot, side by side.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// The weights of all rows of the slot: how many source rows it has.
    weight: i64,
    block: u32,
    /// Since the last `settle`.
    touched: bool,
}

#[derive(Debug)]
struct Block {
    day: Day,
    key: Key,
    slots: Vec<u32>,
    dirty: bool,
    /// Are `slots` in the order of rows?
    sorted: bool,
}

/// Slots of one metric table.
#[derive(Debug, Default)]
pub struct Slots {
    places: HashTable<Place>,
    heads: Vec<Head>,
    starts: Vec<i64>,
    groups: Vec<u32>,
    free: Vec<u32>,
    blocks: Vec<Option<Block>>,
    free_blocks: Vec<u32>,
    names: HashMap<(Day, Key), u32>,
    /// By group: the block of its last slot. A group's hours come one after the other, so most new slots need no name.
    homes: Vec<Home>,
    /// By group: its last slot. Most rows fall into the same one again, and need not be looked for.
    recent: Vec<Recent>,
    dirty: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    start_us: i64,
    slot: u32,
}

impl Recent {
    const NONE: Self = Self { start_us: 0, slot: u32::MAX };
}

/// A block with the time that it spans; the empty stretch is no block.
#[derive(Debug, Clone, Copy, Default)]
struct Home {
    from_us: i64,
    to_us: i64,
    block: u32,
}

/// What of the slots is saved; blocks follow from it.
#[derive(Serialize, Deserialize)]
pub struct SlotsSnapshot {
    weights: Vec<i64>,
    starts: Vec<i64>,
    groups: Vec<u32>,
    free: Vec<u32>,
}

/// Snapshots have no other way to say that a group is none.
const NO_GROUP: u32 = u32::MAX;

impl Slots {
    /// How many slots have ever been in use at one time; states have room for as many.
    pub fn capacity(&self) -> usize {
        self.heads.len()
    }

    /// How many slots are in use.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn blocks(&self) -> usize {
        self.names.len()
    }

    /// The slot of each row, into `slots`; makes those that are new.
    pub fn resolve(&mut self, rows: (&[u32], &[i64]), groups: &mut Groups, calendar: &Calendar, slots: &mut Vec<u32>) {
        slots.clear();
        slots.reserve(rows.0.len());
        for (group, start_us) in rows.0.iter().zip(rows.1) {
            let slot = match self.recent.get(*group as usize) {
                Some(recent) if recent.start_us == *start_us && recent.slot != Recent::NONE.slot => recent.slot,
                _ => self.look_up(*start_us, *group, groups, calendar),
            };
            slots.push(slot);
        }
    }

    fn look_up(&mut self, start_us: i64, group: u32, groups: &mut Groups, calendar: &Calendar) -> u32 {
        let same = |place: &Place| place.start_us == start_us && place.group == group;
        let slot = match self.places.find(hash_place(start_us, group), same) {
            Some(place) => place.slot,
            None => self.insert(start_us, group, groups, calendar),
        };
        if self.recent.len() <= group as usize {
            self.recent.resize(group as usize + 1, Recent::NONE);
        }
        self.recent[group as usize] = Recent { start_us, slot };
        slot
    }

    #[cold]
    fn insert(&mut self, start_us: i64, group: u32, groups: &mut Groups, calendar: &Calendar) -> u32 {
        groups.retain(group);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.heads.push(Head::default());
            self.starts.push(0);
            self.groups.push(NO_GROUP);
            self.heads.len() as u32 - 1
        });
        self.starts[slot as usize] = start_us;
        self.groups[slot as usize] = group;
        self.enter(slot, groups, calendar);
        slot
    }

    /// Puts a slot, whose start and group are set, into the table and its block.
    fn enter(&mut self, slot: u32, groups: &Groups, calendar: &Calendar) {
        let (start_us, group) = (self.starts[slot as usize], self.groups[slot as usize]);
        let place = Place { start_us, group, slot };
        self.places.insert_unique(hash_place(start_us, group), place, |place| hash_place(place.start_us, place.group));
        let index = self.home(start_us, group, groups, calendar);
        let block = self.blocks[index as usize].as_mut().expect("a named block is there");
        block.slots.push(slot);
        block.sorted = false;
        self.heads[slot as usize] = Head { weight: 0, block: index, touched: false };
    }

    /// The block of a group at a time; made if it is new.
    fn home(&mut self, start_us: i64, group: u32, groups: &Groups, calendar: &Calendar) -> u32 {
        if self.homes.len() <= group as usize {
            self.homes.resize(group as usize + 1, Home::default());
        }
        let home = self.homes[group as usize];
        if (home.from_us..home.to_us).contains(&start_us) {
            return home.block;
        }
        let day = calendar.day_of(start_us);
        let key = groups.key(group);
        let block = match self.names.get(&(day, key.clone())) {
            Some(index) => *index,
            None => self.insert_block(day, key),
        };
        let (from_us, to_us) = (calendar.day_start(day), calendar.day_start(day.saturating_add(1)));
        self.homes[group as usize] = Home { from_us, to_us, block };
        block
    }

    fn insert_block(&mut self, day: Day, key: Key) -> u32 {
        let block = Block { day, key: key.clone(), slots: Vec::new(), dirty: false, sorted: true };
        let index = match self.free_blocks.pop() {
            Some(index) => {
                self.blocks[index as usize] = Some(block);
                index
            }
            None => {
                self.blocks.push(Some(block));
                self.blocks.len() as u32 - 1
            }
        };
        self.names.insert((day, key), index);
        index
    }

    /// Adds each row's weight to its slot and notes the slot as changed. `None`: +1 each.
    pub fn touch(&mut self, slots: &[u32], weights: Option<&[i64]>) {
        match weights {
            None => slots.iter().for_each(|slot| self.touch_one(*slot, 1)),
            Some(weights) => slots.iter().zip(weights).for_each(|(slot, weight)| self.touch_one(*slot, *weight)),
        }
    }

    #[inline(always)]
    fn touch_one(&mut self, slot: u32, weight: i64) {
        let head = &mut self.heads[slot as usize];
        head.weight += weight;
        if !head.touched {
            head.touched = true;
            let block = self.blocks[head.block as usize].as_mut().expect("a slot in use has a block");
            if !block.dirty {
                block.dirty = true;
                self.dirty.push(head.block);
            }
        }
    }

    /// Frees the slots of dirty blocks that are `vacant` and have no weight left, and names the blocks that changed
    /// since the last call.
    pub fn settle(&mut self, groups: &mut Groups, vacant: impl Fn(u32) -> bool) -> Vec<(Day, Key)> {
        let mut changed = Vec::with_capacity(self.dirty.len());
        for index in std::mem::take(&mut self.dirty) {
            let mut block = self.blocks[index as usize].take().expect("a dirty block is there");
            block.dirty = false;
            block.slots.retain(|slot| {
                let head = &mut self.heads[*slot as usize];
                head.touched = false;
                let keep = head.weight != 0 || !vacant(*slot);
                if !keep {
                    self.leave(*slot, groups);
                }
                keep
            });
            changed.push((block.day, block.key.clone()));
            if block.slots.is_empty() {
                self.names.remove(&(block.day, block.key));
                self.free_blocks.push(index);
            } else {
                self.blocks[index as usize] = Some(block);
            }
        }
        changed
    }

    fn leave(&mut self, slot: u32, groups: &mut Groups) {
        let (start_us, group) = (self.starts[slot as usize], self.groups[slot as usize]);
        let entry = self.places.find_entry(hash_place(start_us, group), |place| place.slot == slot);
        entry.expect("a slot in use is in the table").remove();
        groups.release(group);
        // The number may stand for another group next, and the block may go.
        self.homes[group as usize] = Home::default();
        if let Some(recent) = self.recent.get_mut(group as usize) {
            *recent = Recent::NONE;
        }
        self.groups[slot as usize] = NO_GROUP;
        self.free.push(slot);
    }

    /// The slots of a block that are rows, in the order of rows: by window, then by group values.
    pub fn rows_of(&mut self, day: Day, key: &Key, groups: &Groups, rows: &mut Vec<u32>) {
        let Some(index) = self.names.get(&(day, key.clone())) else { return };
        let block = self.blocks[*index as usize].as_mut().expect("a named block is there");
        if !block.sorted {
            let (starts, numbers) = (&self.starts, &self.groups);
            block.slots.sort_unstable_by(|a, b| {
                let (a, b) = (*a as usize, *b as usize);
                starts[a].cmp(&starts[b]).then_with(|| groups.compare(numbers[a], numbers[b]))
            });
            block.sorted = true;
        }
        rows.extend(block.slots.iter().filter(|slot| self.heads[**slot as usize].weight != 0));
    }

    pub fn names(&self) -> impl Iterator<Item = &(Day, Key)> {
        self.names.keys()
    }

    pub fn start_us(&self, slot: u32) -> i64 {
        self.starts[slot as usize]
    }

    pub fn group(&self, slot: u32) -> u32 {
        self.groups[slot as usize]
    }

    pub fn weight(&self, slot: u32) -> i64 {
        self.heads[slot as usize].weight
    }

    pub fn snapshot(&self) -> SlotsSnapshot {
        SlotsSnapshot {
            weights: self.heads.iter().map(|head| head.weight).collect(),
            starts: self.starts.clone(),
            groups: self.groups.clone(),
            free: self.free.clone(),
        }
    }

    /// `None` if the snapshot contradicts itself. Nothing is dirty then; references to groups are in theirs.
    pub fn restore(snapshot: SlotsSnapshot, groups: &Groups, calendar: &Calendar) -> Option<Self> {
        let capacity = snapshot.weights.len();
        if snapshot.starts.len() != capacity || snapshot.groups.len() != capacity {
            return None;
        }
        let mut slots = Self { heads: vec![Head::default(); capacity], ..Self::default() };
        (slots.starts, slots.groups, slots.free) = (snapshot.starts, snapshot.groups, snapshot.free);
        for slot in 0..capacity {
            let group = slots.groups[slot];
            if group == NO_GROUP {
                continue;
            }
            if !groups.is_used(group) {
                return None;
            }
            slots.enter(slot as u32, groups, calendar);
            slots.heads[slot].weight = snapshot.weights[slot];
        }
        (slots.len() + slots.free.len() == capacity).then_some(slots)
    }

    /// An estimate of the memory held.
    pub fn bytes(&self) -> usize {
        let slots =
            self.heads.capacity() * (size_of::<Head>() + 8 + 4) + self.places.capacity() * (size_of::<Place>() + 1);
        // A name and a block both hold the key; 64 is the key's bytes with their shared header.
        let blocks =
            self.names.capacity() * (size_of::<(Day, Key)>() + 5) + self.blocks.capacity() * size_of::<Block>();
        slots
            + blocks
            + self.homes.capacity() * (size_of::<Home>() + size_of::<Recent>())
            + self.names.len() * 64
            + self.len() * 4
    }
}
