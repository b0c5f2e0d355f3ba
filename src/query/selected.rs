//! Which rows of a block are looked at. Pure.
//!
//! Invariant: rows are in the order of the block, each at most once.

use arrow::array::{Array, BooleanArray};
use arrow::buffer::BooleanBuffer;

/// The rows of a block that count. What is kept per row of a selection stands at the row's place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selected {
    /// All of so many.
    All(usize),
    /// These. Numbers, because they are walked through several times: finding the bits each time costs more.
    Rows(Vec<u32>),
}

impl Selected {
    pub fn of(bits: &BooleanBuffer) -> Self {
        let mut rows = Vec::with_capacity(bits.len());
        rows.extend(bits.set_indices_u32());
        match rows.len() == bits.len() {
            true => Self::All(rows.len()),
            false => Self::Rows(rows),
        }
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

    /// The rows among these where `argument` is not null and `filter` is true, and their numbers of `numbers`, which has one
    /// per row of this selection. `None`: all of them.
    pub fn counted(
        &self,
        numbers: &[u32],
        argument: Option<&dyn Array>,
        filter: Option<&BooleanArray>,
    ) -> Option<(Self, Vec<u32>)> {
        let nulls = argument.and_then(|array| array.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
        if nulls.is_none() && filter.is_none() {
            return None;
        }
        let passes = |row| {
            nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
                && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
        };
        let (mut rows, mut kept) = (Vec::with_capacity(self.len()), Vec::with_capacity(self.len()));
        self.each(|place, row| {
            if passes(row) {
                rows.push(row as u32);
                kept.push(numbers[place]);
            }
        });
        Some((Self::Rows(rows), kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    #[test]
    fn a_selection_has_the_rows_of_its_bits_and_fewer_where_nulls_or_a_filter_take_some() {
        let bits = BooleanBuffer::from(vec![true, false, true, true, true]);
        let selected = Selected::of(&bits);
        assert_eq!(selected, Selected::Rows(vec![0, 2, 3, 4]));
        assert_eq!(Selected::of(&BooleanBuffer::new_set(3)), Selected::All(3));
        let mut seen = Vec::new();
        selected.each(|place, row| seen.push((place, row)));
        assert_eq!(seen, [(0, 0), (1, 2), (2, 3), (3, 4)]);
        let argument = Int64Array::from(vec![Some(1), Some(1), None, Some(1), Some(1)]);
        let filter = BooleanArray::from(vec![Some(true), Some(true), Some(true), None, Some(true)]);
        let numbers = [7, 8, 9, 6];
        assert_eq!(selected.counted(&numbers, None, None), None);
        let counted = selected.counted(&numbers, Some(&argument), Some(&filter));
        assert_eq!(counted, Some((Selected::Rows(vec![0, 4]), vec![7, 6])));
        let counted = Selected::All(5).counted(&[1, 2, 3, 4, 5], Some(&argument), None);
        assert_eq!(counted, Some((Selected::Rows(vec![0, 1, 3, 4]), vec![1, 2, 4, 5])));
    }
}
