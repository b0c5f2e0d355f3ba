//! A block of metric rows in memory, with what queries find out of its columns: found once, used by all that come after.
//!
//! Invariant: what is found depends on the rows only, so it does not matter who finds it.

use std::sync::OnceLock;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Int64Type};

use super::codes::{self, LongTexts};
use super::numbers::Numbers;
use super::sums;

/// Rows of a metric table.
#[derive(Debug)]
pub struct Block {
    pub rows: RecordBatch,
    columns: Box<[Learned]>,
}

/// A column of a block.
#[derive(Debug, Clone, Copy)]
pub struct BlockColumn<'a> {
    pub array: &'a ArrayRef,
    learned: &'a Learned,
}

/// What is known of a column.
#[derive(Debug, Default)]
struct Learned {
    /// `None`: it has too many values.
    dictionary: OnceLock<Option<Dictionary>>,
    is_small: OnceLock<bool>,
}

/// The different values of a column that has few.
#[derive(Debug)]
pub struct Dictionary {
    /// For each row the number of its value (or null), in the order of first appearance.
    pub numbers: Box<[u8]>,
    /// For each number the first row that has it.
    pub first: Vec<u32>,
}

/// So many values have numbers of one byte.
const VALUES_MOST: usize = 1 << u8::BITS;

impl From<RecordBatch> for Block {
    fn from(rows: RecordBatch) -> Self {
        let columns = rows.columns().iter().map(|_| Learned::default()).collect();
        Self { rows, columns }
    }
}

impl Block {
    /// Bytes in memory, with all that may be found out.
    pub fn size(&self) -> usize {
        let column = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
        let learned = self.columns.len() * (self.rows.num_rows() + VALUES_MOST * size_of::<u32>());
        self.rows.columns().iter().map(column).sum::<usize>() + learned
    }

    pub fn column(&self, index: usize) -> BlockColumn<'_> {
        BlockColumn { array: self.rows.column(index), learned: &self.columns[index] }
    }
}

impl<'a> BlockColumn<'a> {
    /// `None` if it has too many values.
    pub fn dictionary(&self) -> Option<&'a Dictionary> {
        self.learned.dictionary.get_or_init(|| Dictionary::of(self.array)).as_ref()
    }

    /// Are all numbers of it so small that many of them add up in 64 bits?
    pub fn is_small(&self) -> bool {
        *self.learned.is_small.get_or_init(|| is_small(self.array))
    }
}

/// See `BlockColumn::is_small`.
pub fn is_small(array: &dyn Array) -> bool {
    match array.data_type() {
        DataType::Int64 => sums::are_small(array.as_primitive::<Int64Type>().values()),
        DataType::Decimal128(..) => sums::are_small(array.as_primitive::<Decimal128Type>().values()),
        _ => false,
    }
}

impl Dictionary {
    fn of(array: &dyn Array) -> Option<Self> {
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let mut codes = Vec::new();
        codes::encode(array, &mut LongTexts::default(), &mut codes);
        let (mut known, mut first) = (Numbers::default(), Vec::new());
        let mut numbers = Vec::with_capacity(array.len());
        for (row, code) in codes.into_iter().enumerate() {
            let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            let number = if is_null { known.of_null() } else { known.of(code) };
            numbers.push(u8::try_from(number).ok()?);
            if number as usize == first.len() {
                first.push(row as u32);
            }
        }
        Some(Self { numbers: numbers.into(), first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    fn block(column: ArrayRef) -> Block {
        RecordBatch::try_from_iter_with_nullable([("column", column, true)]).expect("one column").into()
    }

    #[test]
    fn a_dictionary_numbers_values_and_null_in_the_order_of_their_first_rows() {
        let texts = [Some("b"), None, Some("a"), Some("b"), None, Some("a text of more than fifteen bytes")];
        let block = block(Arc::new(StringArray::from(texts.to_vec())));
        let dictionary = block.column(0).dictionary().expect("four values");
        assert_eq!(*dictionary.numbers, [0, 1, 2, 0, 1, 3]);
        assert_eq!(dictionary.first, [0, 1, 2, 5]);
    }

    #[test]
    fn a_column_of_many_values_has_no_dictionary() {
        let many = |count: i64| block(Arc::new(Int64Array::from_iter_values(0..count)));
        assert!(many(VALUES_MOST as i64).column(0).dictionary().is_some());
        assert!(many(VALUES_MOST as i64 + 1).column(0).dictionary().is_none());
    }
}
