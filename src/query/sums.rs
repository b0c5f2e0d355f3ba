//! Adds numbers up by group, exactly: the query's hot loop. Pure.
//!
//! Invariant: sums have 128 bits and are checked. Where a block's numbers are small and its groups few, which is nearly
//! always so, its part is added up in 64 bits that cannot overflow, in lanes of its own: one sum for each group would
//! make each row wait for the one before.

use super::selected::Selected;

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

#[derive(Clone, Copy, Default)]
struct Slot {
    sum: i64,
    count: i64,
}

impl Sums {
    pub fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, 0);
        self.counts.resize(groups, 0);
    }

    /// Adds the values of the rows selected; `numbers` has their groups.
    pub fn add_ints(&mut self, selected: &Selected, numbers: &[u32], values: &[i64]) -> Result<(), Overflow> {
        let bits = values.iter().fold(0, |bits, value| bits | (value ^ (value >> 63)) as u64);
        match bits < SMALL {
            true => self.add_small(selected, numbers, |row| values[row]),
            false => self.add_each(selected, numbers, |row| i128::from(values[row])),
        }
    }

    /// As `add_ints`.
    pub fn add_decimals(&mut self, selected: &Selected, numbers: &[u32], values: &[i128]) -> Result<(), Overflow> {
        let (bits, wide) = values.iter().fold((0, 0), |(bits, wide), value| {
            let (low, high) = (*value as i64, (value >> 64) as i64);
            (bits | (low ^ (low >> 63)) as u64, wide | (high ^ (low >> 63)))
        });
        match bits < SMALL && wide == 0 {
            true => self.add_small(selected, numbers, |row| values[row] as i64),
            false => self.add_each(selected, numbers, |row| values[row]),
        }
    }

    fn add_small(
        &mut self,
        selected: &Selected,
        numbers: &[u32],
        value: impl Fn(usize) -> i64,
    ) -> Result<(), Overflow> {
        if self.sums.len() > GROUPS_MOST || numbers.len() > ROWS_MOST {
            return self.add_each(selected, numbers, |row| i128::from(value(row)));
        }
        let mut lanes = [[Slot::default(); GROUPS_MOST]; LANES];
        match selected {
            Selected::All(_) => add_lanes(&mut lanes, numbers, value),
            Selected::Rows(rows) => add_lanes(&mut lanes, numbers, |place| value(rows[place] as usize)),
        }
        for (group, (sum, count)) in self.sums.iter_mut().zip(&mut self.counts).enumerate() {
            let of_group = lanes.iter().map(|lane| lane[group]);
            let added = of_group.fold(Slot::default(), |a, b| Slot { sum: a.sum + b.sum, count: a.count + b.count });
            *sum = sum.checked_add(i128::from(added.sum)).ok_or(Overflow)?;
            *count += added.count;
        }
        Ok(())
    }

    fn add_each(
        &mut self,
        selected: &Selected,
        numbers: &[u32],
        value: impl Fn(usize) -> i128,
    ) -> Result<(), Overflow> {
        let mut overflowed = false;
        selected.each(|place, row| {
            let group = numbers[place] as usize;
            let (sum, over) = self.sums[group].overflowing_add(value(row));
            overflowed |= over;
            self.sums[group] = sum;
            self.counts[group] += 1;
        });
        if overflowed { Err(Overflow) } else { Ok(()) }
    }
}

/// `value` gives the value at a place of the selection.
#[inline]
fn add_lanes(lanes: &mut [[Slot; GROUPS_MOST]; LANES], numbers: &[u32], value: impl Fn(usize) -> i64) {
    let mut add = |lane: usize, place: usize, number: u32| {
        // The groups are fewer; this only says so to the compiler.
        let slot = &mut lanes[lane][number as usize % GROUPS_MOST];
        slot.sum += value(place);
        slot.count += 1;
    };
    let mut rounds = numbers.chunks_exact(LANES);
    let mut place = 0;
    for round in rounds.by_ref() {
        for (lane, number) in round.iter().enumerate() {
            add(lane, place + lane, *number);
        }
        place += LANES;
    }
    for (lane, number) in rounds.remainder().iter().enumerate() {
        add(lane, place + lane, *number);
    }
}

#[cfg(test)]
mod tests {
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
                prop_assert_eq!(decimals.add_decimals(&selected, &numbers, &values), Ok(()));
                prop_assert_eq!(ints.add_ints(&selected, &numbers, &shorts), Ok(()));
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
        assert_eq!(sums.add_decimals(&Selected::All(2), &[0, 0], &[i128::MAX, 1]), Err(Overflow));
        let mut sums = Sums { sums: vec![i128::MAX], counts: vec![1] };
        assert_eq!(sums.add_ints(&Selected::All(1), &[0], &[1]), Err(Overflow));
    }
}
