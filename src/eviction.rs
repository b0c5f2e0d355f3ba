//! Which value goes when room is needed: a queue with a second chance, which approximates least-recently-used without
//! an order that every read would have to change. Pure.
//!
//! Invariant: a value that was used since it last stood at the queue's front goes to its end once more; marking as used
//! needs no exclusive access, so that readers do not wait for each other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a value is held, until it is removed or evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId(usize);

/// Values, and the queue in which they wait for eviction.
#[derive(Debug)]
pub struct SecondChance<T> {
    slots: Vec<Option<Slot<T>>>,
    free: Vec<usize>,
    /// Slots with the ticket of the value that was meant. Outdated once the value was removed.
    queue: VecDeque<(usize, u64)>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Slot<T> {
    value: T,
    ticket: u64,
    used: AtomicBool,
}

impl<T> Default for SecondChance<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), queue: VecDeque::new(), next_ticket: 0 }
    }
}

const GONE: &str = "a slot id is dropped with its value";

impl<T> SecondChance<T> {
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&mut self, value: T) -> SlotId {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let slot = Some(Slot { value, ticket, used: AtomicBool::new(false) });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.queue.push_back((index, ticket));
        SlotId(index)
    }

    /// The value, marked as used.
    pub fn get(&self, id: SlotId) -> &T {
        let slot = self.slots[id.0].as_ref().expect(GONE);
        // Writing only once keeps the line shared between cores that read it.
        if !slot.used.load(Ordering::Relaxed) {
            slot.used.store(true, Ordering::Relaxed);
        }
        &slot.value
    }

    /// The value, without marking it.
    pub fn peek(&self, id: SlotId) -> &T {
        &self.slots[id.0].as_ref().expect(GONE).value
    }

    pub fn get_mut(&mut self, id: SlotId) -> &mut T {
        &mut self.slots[id.0].as_mut().expect(GONE).value
    }

    pub fn remove(&mut self, id: SlotId) -> T {
        let slot = self.slots[id.0].take().expect(GONE);
        self.free.push(id.0);
        if self.queue.len() > 2 * self.len() + 16 {
            let slots = &self.slots;
            self.queue.retain(|(index, ticket)| is_held(slots, *index, *ticket));
        }
        slot.value
    }

    /// Removes the value at the front that was not used while it waited, and says where it was held; `None` if there is no
    /// value. The newest goes last: it had no time to be used, and among values that all were it would never get any.
    pub fn evict(&mut self) -> Option<(SlotId, T)> {
        let newest = self.next_ticket.checked_sub(1).filter(|_| self.len() > 1);
        // Ends: going to the queue's end clears the mark, and readers cannot set it meanwhile.
        while let Some((index, ticket)) = self.queue.pop_front() {
            let Some(slot) = self.slots[index].as_mut().filter(|slot| slot.ticket == ticket) else {
                continue;
            };
            if std::mem::take(slot.used.get_mut()) || newest == Some(ticket) {
                self.queue.push_back((index, ticket));
            } else {
                return Some((SlotId(index), self.remove(SlotId(index))));
            }
        }
        None
    }
}

fn is_held<T>(slots: &[Option<Slot<T>>], index: usize, ticket: u64) -> bool {
    slots[index].as_ref().is_some_and(|slot| slot.ticket == ticket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evicted<T>(values: &mut SecondChance<T>) -> Option<T> {
        values.evict().map(|(_, value)| value)
    }

    fn filled(count: usize) -> (SecondChance<usize>, Vec<SlotId>) {
        let mut values = SecondChance::default();
        let ids = (0..count).map(|value| values.insert(value)).collect();
        (values, ids)
    }

    #[test]
    fn what_was_used_goes_after_what_was_not() {
        let (mut values, ids) = filled(10);
        for used in [1, 3, 5] {
            assert_eq!(*values.get(ids[used]), used);
        }
        assert_eq!(*values.peek(ids[0]), 0, "looking is not using");
        let order: Vec<usize> = std::iter::from_fn(|| evicted(&mut values)).collect();
        assert_eq!(order, [0, 2, 4, 6, 7, 8, 1, 3, 5, 9]);
        assert!(values.is_empty());
    }

    #[test]
    fn a_freed_slot_is_taken_again_and_the_newest_value_goes_last() {
        let (mut values, ids) = filled(4);
        assert_eq!(values.remove(ids[0]), 0);
        let id = values.insert(4);
        assert_eq!((id, *values.get_mut(id)), (ids[0], 4));
        assert_eq!((values.slots.len(), values.len()), (4, 4));
        assert_eq!([1, 2, 3, 4].map(Some), [(); 4].map(|()| evicted(&mut values)));
        assert_eq!(evicted(&mut values), None);
    }

    #[test]
    fn i6_what_is_removed_leaves_no_trail() {
        let (mut values, _) = filled(10);
        for value in 0..10_000 {
            let id = values.insert(value);
            values.remove(id);
        }
        assert!(values.slots.len() == 11 && values.queue.len() < 50);
        assert_eq!(std::iter::from_fn(|| evicted(&mut values)).count(), 10);
    }
}
