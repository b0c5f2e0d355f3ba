//! Where each row of a request goes when the rows of one partition are put together. Pure.
//!
//! Invariant: rows of a partition keep the order of the request. All partitions of a column share one buffer: filling one
//! for each would take an allocation and a growing vector per partition and column.

use std::ops::Range;

use crate::model::id::PartitionId;

/// The rows' partitions as they come in.
#[derive(Debug)]
pub struct Places {
    partition_of: Vec<u16>,
    /// Rows by partition.
    counts: Vec<u32>,
}

/// The order in which the rows of each partition stand together.
#[derive(Debug)]
pub struct Spread {
    /// By row: its new place.
    place_of: Vec<u32>,
    /// By partition: its first place; and the end of the last.
    starts: Vec<u32>,
}

impl Places {
    pub fn new(partitions: u16) -> Self {
        Self { partition_of: Vec::new(), counts: vec![0; usize::from(partitions)] }
    }

    /// Adds the next row. At most 2^32 − 1: a request is limited to less.
    #[inline]
    pub fn push(&mut self, partition: PartitionId) {
        self.partition_of.push(partition.0);
        self.counts[usize::from(partition.0)] += 1;
    }

    pub fn len(&self) -> usize {
        self.partition_of.len()
    }

    pub fn partitions(&self) -> u16 {
        self.counts.len() as u16
    }

    /// A counting sort.
    pub fn spread(self) -> Spread {
        let mut next = 0;
        let mut starts: Vec<u32> = vec![0];
        starts.extend(self.counts.iter().map(|count| {
            next += count;
            next
        }));
        let mut free = starts.clone();
        let place = |partition: &u16| {
            let place = &mut free[usize::from(*partition)];
            *place += 1;
            *place - 1
        };
        Spread { place_of: self.partition_of.iter().map(place).collect(), starts }
    }
}

impl Spread {
    /// The places of each partition that has rows.
    pub fn parts(&self) -> impl Iterator<Item = (PartitionId, Range<usize>)> {
        let ranges = self.starts.windows(2).map(|ends| ends[0] as usize..ends[1] as usize).enumerate();
        ranges.filter(|(_, range)| !range.is_empty()).map(|(index, range)| (PartitionId(index as u16), range))
    }

    /// Puts one value per row in its place.
    pub fn values<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let mut placed = vec![T::default(); values.len()];
        for (value, place) in values.iter().zip(&self.place_of) {
            placed[*place as usize] = *value;
        }
        placed
    }

    /// Puts one text per row in its place: where each begins (and the last one's end), and all of them.
    pub fn texts(&self, ends: &[usize], bytes: &[u8]) -> (Vec<i32>, Vec<u8>) {
        let mut offsets = vec![0; ends.len() + 1];
        let mut from = 0;
        for (end, place) in ends.iter().zip(&self.place_of) {
            offsets[*place as usize + 1] = i32::try_from(end - from).expect("a request is limited to less than 2 GiB");
            from = *end;
        }
        let mut total = 0;
        for offset in &mut offsets {
            total += *offset;
            *offset = total;
        }
        let mut placed = vec![0; bytes.len()];
        let mut from = 0;
        for (end, place) in ends.iter().zip(&self.place_of) {
            let to = offsets[*place as usize] as usize;
            placed[to..to + end - from].copy_from_slice(&bytes[from..*end]);
            from = *end;
        }
        (offsets, placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_partition_has_its_rows_in_their_order(rows in prop::collection::vec((0u16..5, "[a-c]{0,3}"), 0..50)) {
            let mut places = Places::new(5);
            rows.iter().for_each(|(partition, _)| places.push(PartitionId(*partition)));
            let spread = places.spread();
            let numbers = spread.values(&(0..rows.len()).collect::<Vec<_>>());
            let all: String = rows.iter().map(|(_, text)| text.as_str()).collect();
            let ends: Vec<usize> = rows.iter().scan(0, |end, (_, text)| { *end += text.len(); Some(*end) }).collect();
            let (offsets, bytes) = spread.texts(&ends, all.as_bytes());
            let mut seen = 0;
            for (partition, range) in spread.parts() {
                let expected: Vec<usize> = (0..rows.len()).filter(|row| rows[*row].0 == partition.0).collect();
                prop_assert_eq!(&numbers[range.clone()], &expected);
                for (place, row) in range.clone().zip(expected) {
                    prop_assert_eq!(&bytes[offsets[place] as usize..offsets[place + 1] as usize], rows[row].1.as_bytes());
                }
                seen += range.len();
            }
            prop_assert_eq!(seen, rows.len());
        }
    }
}
