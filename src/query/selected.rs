//! Which rows of a block are looked at. Pure.
//!
//! Invariant: rows are in the order of the block, each at most once.

use arrow::array::{Array, BooleanArray};

/// The rows of a block that count. What is kept per row of a selection stands at the row's place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// All of so many.
    All(usize),
    /// These. Numbers, because they are walked through several times: finding the bits each time costs more.
    Rows(Vec<u32>),
}

impl Selected {
    /// Those of the selection for which `passes` holds; keeps its order.
    pub fn refine(&mut self, mut passes: impl FnMut(usize) -> bool) {
        let (mut kept, all) = match self {
            Self::All(rows) => (vec![0; *rows], true),
            Self::Rows(rows) => (std::mem::take(rows), false),
        };
        let mut count = 0;
        // Written whether it passes or not: the processor need not guess.
        for place in 0..kept.len() {
            let row = if all { place as u32 } else { kept[place] };
            kept[count] = row;
            count += usize::from(passes(row as usize));
        }
        if all && count == kept.len() {
            return;
        }
        kept.truncate(count);
        *self = Self::Rows(kept);
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        match self {
            Self::All(rows) => *rows,
            Self::Rows(rows) => rows.len(),
        }
    }

    /// Calls `each` with every row and its place.
    #[inline]
    pub fn each(&self, mut each: impl FnMut(usize, usize)) {
        match self {
            Self::All(rows) => (0..*rows).for_each(|row| each(row, row)),
            Self::Rows(rows) => rows.iter().enumerate().for_each(|(place, row)| each(place, *row as usize)),
        }
    }
}

/// How many rows each group has.
pub fn count(numbers: &[u32], groups: usize) -> Vec<i64> {
    let mut counts = vec![0; groups];
    if groups > FEW_GROUPS {
        numbers.iter().for_each(|number| counts[*number as usize] += 1);
        return counts;
    }
    // As in sums: neighbours go to different lanes.
    let mut lanes = [[0i64; FEW_GROUPS]; LANES];
    let chunks = numbers.chunks_exact(LANES);
    chunks.remainder().iter().for_each(|number| counts[*number as usize] += 1);
    for numbers in chunks {
        lanes.iter_mut().zip(numbers).for_each(|(lane, number)| lane[*number as usize % FEW_GROUPS] += 1);
    }
    for (group, count) in counts.iter_mut().enumerate() {
        *count += lanes.iter().map(|lane| lane[group]).sum::<i64>();
    }
    counts
}

const FEW_GROUPS: usize = 64;
const LANES: usize = 4;

/// The rows of a block that an aggregate counts, with their groups.
#[derive(Debug, Clone, Copy)]
pub struct Chosen<'a> {
    pub selected: &'a Selected,
    /// The group of each of them.
    pub numbers: &'a [u32],
    /// How many of them each group has.
    pub counts: &'a [i64],
}

/// A `Chosen` of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fewer {
    selected: Selected,
    numbers: Vec<u32>,
    counts: Vec<i64>,
}

impl Fewer {
    #[cfg(test)]
    pub fn all(numbers: &[u32], groups: usize) -> Self {
        Self { selected: Selected::All(numbers.len()), numbers: numbers.to_vec(), counts: count(numbers, groups) }
    }

    pub fn chosen(&self) -> Chosen<'_> {
        Chosen { selected: &self.selected, numbers: &self.numbers, counts: &self.counts }
    }
}

impl Chosen<'_> {
    /// Those where `argument` is not null and `filter` is true; `None`: all of them.
    pub fn counted(self, argument: Option<&dyn Array>, filter: Option<&BooleanArray>) -> Option<Fewer> {
        let nulls = argument.and_then(|array| array.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
        if nulls.is_none() && filter.is_none() {
            return None;
        }
        let passes = |row| {
            nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        let (mut rows, mut numbers) = (Vec::with_capacity(self.numbers.len()), Vec::with_capacity(self.numbers.len()));
        self.selected.each(|place, row| {
            if passes(row) {
                rows.push(row as u32);
                numbers.push(self.numbers[place]);
            }
        });
        let counts = count(&numbers, self.counts.len());
        Some(Fewer { selected: Selected::Rows(rows), numbers, counts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    #[test]
    fn a_selection_is_refined_in_its_order() {
        let mut selected = Selected::All(5);
        selected.refine(|_| true);
        assert_eq!(selected, Selected::All(5));
        selected.refine(|row| row != 1);
        assert_eq!(selected, Selected::Rows(vec![0, 2, 3, 4]));
        selected.refine(|row| row > 2);
        assert_eq!(selected, Selected::Rows(vec![3, 4]));
        let mut seen = Vec::new();
        selected.each(|place, row| seen.push((place, row)));
        assert_eq!(seen, [(0, 3), (1, 4)]);
        selected.refine(|_| false);
        assert!(selected.is_empty());
    }

    #[test]
    fn nulls_and_a_filter_take_rows_away() {
        let selected = Selected::Rows(vec![0, 2, 3, 4]);
        let argument = Int64Array::from(vec![Some(1), Some(1), None, Some(1), Some(1)]);
        let filter = BooleanArray::from(vec![Some(true), Some(true), Some(true), None, Some(true)]);
        let (numbers, counts) = ([1, 0, 2, 1], [1, 2, 1]);
        assert_eq!(count(&numbers, 3), counts);
        let chosen = Chosen { selected: &selected, numbers: &numbers, counts: &counts };
        assert_eq!(chosen.counted(None, None), None);
        let fewer = chosen.counted(Some(&argument), Some(&filter)).expect("some are left out");
        let expected = Fewer { selected: Selected::Rows(vec![0, 4]), numbers: vec![1, 1], counts: vec![0, 2, 0] };
        assert_eq!(fewer, expected);
    }
}
