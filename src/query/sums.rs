//! Adds numbers up by group, exactly: the query's hot loop. Pure.
//!
//! Invariant: sums have 128 bits and are checked. Where a block's numbers are small and its groups few, which is nearly
//! always so, its part is added up in 64 bits that cannot overflow, in lanes of its own: one sum for each group would
//! make each row wait for the one before.

use super::selected::{Chosen, Selected};

/// Groups that have lanes of their own.
const GROUPS_MOST: usize = 64;
const LANES: usize = 4;
/// Numbers below this, and no more of them than this, add up to less than 2^63.
const SMALL: u64 = 1 << 47;
const ROWS_MOST: usize = 1 << 16;

/// A sum and the count of its values, for each group.
#[derive(Debug, Default)]
pub struct Sums {
    pub sums: Vec<i128>,
    pub counts: Vec<i64>,
}

/// A sum does not fit 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// What can be added up.
pub trait Addend: Copy {
    fn wide(self) -> i128;
    /// All of it, if it is small.
    fn low(self) -> i64;
    /// Bits that are zero in every number that fits 64 bits and is below a power of two, up to it and above.
    fn magnitude(self) -> u64;
}

impl Addend for i64 {
    fn wide(self) -> i128 {
        i128::from(self)
    }

    fn low(self) -> i64 {
        self
    }

    fn magnitude(self) -> u64 {
        (self ^ (self >> 63)) as u64
    }
}

impl Addend for i128 {
    fn wide(self) -> i128 {
        self
    }

    fn low(self) -> i64 {
        self as i64
    }

    fn magnitude(self) -> u64 {
        let (low, high) = (self as i64, (self >> 64) as i64);
        let beyond = if high == low >> 63 { 0 } else { u64::MAX };
        low.magnitude() | beyond
    }
}

/// May up to `ROWS_MOST` of them be added up in 64 bits?
pub fn are_small<V: Addend>(values: &[V]) -> bool {
    values.iter().fold(0, |bits, value| bits | value.magnitude()) < SMALL
}

impl Sums {
    pub fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.counts.resize(groups, 0);
    }

    /// Adds the values of the rows chosen. `small`: `are_small` holds for all of `values`, chosen or not.
    pub fn add<V: Addend>(&mut self, chosen: Chosen<'_>, values: &[V], small: bool) -> Result<(), Overflow> {
        for (count, more) in self.counts.iter_mut().zip(chosen.counts) {
            *count += more;
        }
        let few = self.sums.len() <= GROUPS_MOST && chosen.numbers.len() <= ROWS_MOST;
        if !small || !few {
            return self.add_each(chosen, |row| values[row].wide());
        }
        let mut lanes = [[0; GROUPS_MOST]; LANES];
        match chosen.selected {
            Selected::All(_) => add_lanes(&mut lanes, chosen.numbers, values, |value| value.low()),
            Selected::Rows(rows) => add_lanes(&mut lanes, chosen.numbers, rows, |row| values[*row as usize].low()),
        }
        for (group, sum) in self.sums.iter_mut().enumerate() {
            let added: i64 = lanes.iter().map(|lane| lane[group]).sum();
            *sum = sum.checked_add(i128::from(added)).ok_or(Overflow)?;
        }
        Ok(())
    }

    fn add_each(&mut self, chosen: Chosen<'_>, value: impl Fn(usize) -> i128) -> Result<(), Overflow> {
        let mut overflowed = false;
        chosen.selected.each(|place, row| {
            let sum = &mut self.sums[chosen.numbers[place] as usize];
            let (added, over) = sum.overflowing_add(value(row));
            overflowed |= over;
            *sum = added;
        });
        if overflowed { Err(Overflow) } else { Ok(()) }
    }
}

/// Adds for each of `places` its value to its group. Neighbours go to different lanes, so that none waits for the one
/// before, even of the same group.
#[inline]
fn add_lanes<P>(lanes: &mut [[i64; GROUPS_MOST]; LANES], numbers: &[u32], places: &[P], value: impl Fn(&P) -> i64) {
    // The groups are fewer; this only says so to the compiler.
    let group = |number: &u32| *number as usize % GROUPS_MOST;
    let (by_number, by_place) = (numbers.chunks_exact(LANES), places.chunks_exact(LANES));
    for (number, place) in by_number.remainder().iter().zip(by_place.remainder()) {
        lanes[0][group(number)] += value(place);
    }
    for (numbers, places) in by_number.zip(by_place) {
        for (lane, (number, place)) in lanes.iter_mut().zip(numbers.iter().zip(places)) {
            lane[group(number)] += value(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::selected::count;
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = i128> {
        prop_oneof![
            8 => -1000i128..1000,
            1 => any::<i64>().prop_map(i128::from),
            1 => -(1i128 << 100)..1 << 100,
            1 => prop::sample::select(vec![1i128 << 47, (1 << 47) - 1, -(1 << 47), -(1 << 47) - 1, 1 << 63, 1 << 64]),
        ]
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_plainest_loop(
            blocks in prop::collection::vec(prop::collection::vec((any_value(), 0u32..70, any::<bool>()), 0..40), 0..4),
            groups in 1u32..70, all: bool,
        ) {
            let (mut ints, mut decimals) = (Sums::default(), Sums::default());
            ints.resize(groups as usize);
            decimals.resize(groups as usize);
            let mut expected = vec![(0i128, 0i128, 0i64); groups as usize];
            for block in blocks {
                let rows: Vec<u32> = (0..block.len() as u32).filter(|row| all || block[*row as usize].2).collect();
                let numbers: Vec<u32> = rows.iter().map(|row| block[*row as usize].1 % groups).collect();
                let selected = if all { Selected::All(block.len()) } else { Selected::Rows(rows.clone()) };
                let values: Vec<i128> = block.iter().map(|row| row.0).collect();
                let shorts: Vec<i64> = values.iter().map(|value| *value as i64).collect();
                for (row, number) in rows.iter().zip(&numbers) {
                    let group = &mut expected[*number as usize];
                    group.0 += values[*row as usize];
                    group.1 += i128::from(shorts[*row as usize]);
                    group.2 += 1;
                }
                let counts = count(&numbers, groups as usize);
                let chosen = Chosen { selected: &selected, numbers: &numbers, counts: &counts };
                prop_assert_eq!(decimals.add(chosen, &values, are_small(&values)), Ok(()));
                prop_assert_eq!(ints.add(chosen, &shorts, are_small(&shorts)), Ok(()));
            }
            let found = |sums: &Sums| sums.sums.iter().copied().zip(sums.counts.iter().copied()).collect::<Vec<_>>();
            prop_assert_eq!(found(&decimals), expected.iter().map(|group| (group.0, group.2)).collect::<Vec<_>>());
            prop_assert_eq!(found(&ints), expected.iter().map(|group| (group.1, group.2)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_sum_beyond_128_bits_is_an_error() {
        let mut sums = Sums::default();
        sums.resize(1);
        let chosen = |rows| (Selected::All(rows), vec![0; rows], [rows as i64]);
        let (selected, numbers, counts) = chosen(2);
        let two = Chosen { selected: &selected, numbers: &numbers, counts: &counts };
        assert_eq!(sums.add(two, &[i128::MAX, 1], false), Err(Overflow));
        let mut sums = Sums { sums: vec![i128::MAX], counts: vec![1] };
        let (selected, numbers, counts) = chosen(1);
        let one = Chosen { selected: &selected, numbers: &numbers, counts: &counts };
        assert_eq!(sums.add(one, &[1i64], true), Err(Overflow));
    }
}
