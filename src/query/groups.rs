//! Gives each row the number of its group.
//!
//! Invariant: rows have one number exactly if all their group columns are equal (nulls are equal to each other here, as
//! in SQL's `group by`); numbers are dense, in the order of first appearance, over all blocks of a query.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::block::Dictionary;
use super::codes::{self, LongTexts};
use super::numbers::Numbers;
use super::selected::Selected;

/// A group column of a block.
pub struct Keys<'a> {
    pub array: ArrayRef,
    /// Where the column has few values, and that is known.
    pub dictionary: Option<&'a Dictionary>,
}

/// No number: a query has fewer groups.
const UNKNOWN: u32 = u32::MAX;

/// One group column: numbers for its values.
#[derive(Debug)]
pub struct Column {
    data_type: DataType,
    numbers: Numbers,
    long: LongTexts,
    scratch: Vec<i128>,
}

impl Column {
    pub fn new(data_type: DataType) -> Self {
        Self { data_type, numbers: Numbers::default(), long: LongTexts::default(), scratch: Vec::new() }
    }

    /// Puts the number of each selected row's value into `found`.
    fn number_keys(&mut self, keys: &Keys<'_>, selected: &Selected, found: &mut Vec<u32>) {
        let Some(dictionary) = keys.dictionary else { return self.number(keys.array.as_ref(), selected, found) };
        found.clear();
        // A value whose rows are all left out makes no group, so each is numbered when a row has it.
        let mut known = [UNKNOWN; 1 << u8::BITS];
        let mut number = |row: usize| {
            let at = usize::from(dictionary.numbers[row]);
            if known[at] == UNKNOWN {
                known[at] = self.number_at(&keys.array, dictionary.first[at] as usize);
            }
            known[at]
        };
        match selected {
            Selected::All(rows) => found.extend((0..*rows).map(number)),
            Selected::Rows(rows) => found.extend(rows.iter().map(|row| number(*row as usize))),
        }
    }

    #[cold]
    fn number_at(&mut self, array: &dyn Array, row: usize) -> u32 {
        let value = array.slice(row, 1);
        if value.logical_nulls().is_some_and(|nulls| nulls.null_count() > 0) {
            return self.numbers.of_null();
        }
        self.scratch.clear();
        codes::encode(&value, &mut self.long, &mut self.scratch);
        self.numbers.of(self.scratch[0])
    }

    /// Puts the number of each selected row's value into `found`.
    fn number(&mut self, array: &dyn Array, selected: &Selected, found: &mut Vec<u32>) {
        found.clear();
        found.reserve(selected.len());
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let nulls = nulls.as_ref();
        if let Some(texts) = array.as_string_opt::<i32>() {
            let (offsets, bytes) = (texts.value_offsets(), texts.value_data());
            self.numbers.number(TextCodes { offsets, bytes, long: &mut self.long }, nulls, selected, found);
        } else {
            self.scratch.clear();
            codes::encode(array, &mut self.long, &mut self.scratch);
            self.numbers.number(Ready(&self.scratch), nulls, selected, found);
        }
    }

    fn values(&self, numbers: impl Iterator<Item = u32>) -> ArrayRef {
        codes::decode(&self.data_type, numbers.map(|number| self.numbers.code(number)), &self.long)
    }
}

/// The code of each row. A trait, for a closure that is used in two loops is inlined in neither.
trait Codes {
    fn code(&mut self, row: usize) -> i128;
}

struct TextCodes<'a> {
    offsets: &'a [i32],
    bytes: &'a [u8],
    long: &'a mut LongTexts,
}

impl Codes for TextCodes<'_> {
    #[inline(always)]
    fn code(&mut self, row: usize) -> i128 {
        codes::of_text(self.bytes, self.offsets[row] as usize, self.offsets[row + 1] as usize, self.long)
    }
}

struct Ready<'a>(&'a [i128]);

impl Codes for Ready<'_> {
    #[inline(always)]
    fn code(&mut self, row: usize) -> i128 {
        self.0[row]
    }
}

impl Numbers {
    /// Appends the number of each selected row's value to `found`.
    #[inline]
    fn number(&mut self, mut codes: impl Codes, nulls: Option<&NullBuffer>, selected: &Selected, found: &mut Vec<u32>) {
        match (nulls, selected) {
            (None, Selected::All(rows)) => found.extend((0..*rows).map(|row| self.of(codes.code(row)))),
            (None, Selected::Rows(rows)) => found.extend(rows.iter().map(|row| self.of(codes.code(*row as usize)))),
            (Some(nulls), _) => selected.each(|_, row| {
                found.push(if nulls.is_null(row) { self.of_null() } else { self.of(codes.code(row)) });
            }),
        }
    }
}

/// The groups of a query.
#[derive(Debug)]
pub struct Groups {
    columns: Vec<Column>,
    /// For each column after the first: numbers for pairs of (number so far, number of this column).
    pairs: Vec<Numbers>,
    /// Numbers of one such column.
    second: Vec<u32>,
}

impl Groups {
    pub fn new(types: impl Iterator<Item = DataType>) -> Self {
        let columns: Vec<_> = types.map(Column::new).collect();
        let pairs = columns.iter().skip(1).map(|_| Numbers::default()).collect();
        Self { columns, pairs, second: Vec::new() }
    }

    /// How many groups there are. Without group columns there is one, even without rows.
    pub fn len(&self) -> usize {
        match (self.pairs.last(), self.columns.first()) {
            (Some(pairs), _) => pairs.len(),
            (None, Some(column)) => column.numbers.len(),
            (None, None) => 1,
        }
    }

    /// Puts the group number of each selected row into `numbers`, at the row's place in the selection.
    pub fn assign(&mut self, keys: &[Keys<'_>], selected: &Selected, numbers: &mut Vec<u32>) {
        let Some((first, others)) = self.columns.split_first_mut() else {
            numbers.clear();
            return numbers.resize(selected.len(), 0);
        };
        first.number_keys(&keys[0], selected, numbers);
        for ((column, pairs), keys) in others.iter_mut().zip(&mut self.pairs).zip(&keys[1..]) {
            column.number_keys(keys, selected, &mut self.second);
            for (number, second) in numbers.iter_mut().zip(&self.second) {
                *number = pairs.of(i128::from(u64::from(*number) << 32 | u64::from(*second)));
            }
        }
    }

    /// The group columns, one row for each group.
    pub fn values(&self) -> Vec<ArrayRef> {
        let mut numbers: Vec<u32> = (0..self.len() as u32).collect();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, pairs) in self.columns.iter().skip(1).zip(&self.pairs).rev() {
            let pair = |number: u32| pairs.code(number).expect("a pair is not null") as u64;
            arrays.push(column.values(numbers.iter().map(|number| pair(*number) as u32)));
            numbers.iter_mut().for_each(|number| *number = (pair(*number) >> 32) as u32);
        }
        if let Some(first) = self.columns.first() {
            arrays.push(first.values(numbers.into_iter()));
        }
        arrays.reverse();
        arrays
    }
}

/// Which values each group has met: `count(distinct …)`.
#[derive(Debug)]
pub struct Distinct {
    column: Column,
    seen: Numbers,
    numbers: Vec<u32>,
}

impl Distinct {
    pub fn new(data_type: DataType) -> Self {
        Self { column: Column::new(data_type), seen: Numbers::default(), numbers: Vec::new() }
    }

    /// Calls `new` with the group of each value that its group had not met before; `groups` has one for each row selected.
    pub fn add(&mut self, groups: &[u32], array: &dyn Array, selected: &Selected, mut new: impl FnMut(u32)) {
        self.column.number(array, selected, &mut self.numbers);
        for (group, number) in groups.iter().zip(&self.numbers) {
            let before = self.seen.len();
            self.seen.of(i128::from(u64::from(*group) << 32 | u64::from(*number)));
            if self.seen.len() > before {
                new(*group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use crate::query::block::Block;

    type Row = (Option<i64>, Option<String>);

    proptest! {
        #[test]
        fn rows_share_a_number_exactly_if_their_group_columns_are_equal(
            blocks in prop::collection::vec(
                prop::collection::vec(
                    (prop::option::of(-2i64..2), prop::option::of("[a-c]{0,2}|[a-b]{16,17}")), 0..20,
                ), 0..4,
            ),
            learns: bool,
        ) {
            let mut groups = Groups::new([DataType::Int64, DataType::Utf8].into_iter());
            let mut expected: Vec<Row> = Vec::new();
            let mut numbers = Vec::new();
            for rows in &blocks {
                let ints: Int64Array = rows.iter().map(|row| row.0).collect();
                let texts: StringArray = rows.iter().map(|row| row.1.as_deref()).collect();
                let columns: [ArrayRef; 2] = [Arc::new(ints), Arc::new(texts)];
                let block = learns.then(|| Block::from(
                    RecordBatch::try_from_iter([("i", columns[0].clone()), ("t", columns[1].clone())]).expect("one length"),
                ));
                let keys = |column: usize| Keys {
                    array: columns[column].clone(),
                    dictionary: block.as_ref().and_then(|block| block.column(column).dictionary()),
                };
                groups.assign(&[keys(0), keys(1)], &Selected::All(rows.len()), &mut numbers);
                for (row, number) in rows.iter().zip(&numbers) {
                    let position = expected.iter().position(|group| group == row);
                    let position = position.unwrap_or_else(|| { expected.push(row.clone()); expected.len() - 1 });
                    prop_assert_eq!(position, *number as usize);
                }
            }
            let values = groups.values();
            let (ints, texts) = (values[0].as_primitive::<Int64Type>(), values[1].as_string::<i32>());
            let found: Vec<Row> = ints.iter().zip(texts).map(|(i, t)| (i, t.map(str::to_owned))).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn without_group_columns_there_is_one_group_even_without_rows() {
        let mut groups = Groups::new(std::iter::empty());
        let mut numbers = Vec::new();
        groups.assign(&[], &Selected::All(3), &mut numbers);
        assert_eq!((groups.len(), numbers, groups.values().len()), (1, vec![0, 0, 0], 0));
    }
}
