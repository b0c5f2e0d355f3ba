//! Gives each row the number of its group.
//!
//! Invariant: rows have one number exactly if all their group columns are equal (nulls are equal to each other here, as
//! in SQL's `group by`); numbers are dense, in the order of first appearance, over all blocks of a query.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use hashbrown::HashTable;

use super::codes::{self, LongTexts};

/// Numbers for codes.
#[derive(Debug, Default)]
pub struct Numbers {
    table: HashTable<u32>,
    codes: Vec<i128>,
    /// Codes asked for lately, each where its bits put it: most rows need no more than one comparison.
    recent: Vec<Recent>,
}

#[derive(Debug, Clone, Copy)]
struct Recent {
    code: i128,
    /// `NOWHERE`: the entry is empty.
    number: u32,
}

const RECENT_BITS: u32 = 6;
const NOWHERE: u32 = u32::MAX;

impl Numbers {
    #[inline]
    pub fn of(&mut self, code: i128) -> u32 {
        let place = place(code);
        match self.recent.get(place) {
            Some(recent) if recent.code == code && recent.number != NOWHERE => recent.number,
            _ => self.look_up(code, place),
        }
    }

    fn look_up(&mut self, code: i128, place: usize) -> u32 {
        let codes = &self.codes;
        let known = self.table.find(mix(code), |number| codes[*number as usize] == code).copied();
        let number = known.unwrap_or_else(|| self.add(code));
        if self.recent.is_empty() {
            self.recent = vec![Recent { code: 0, number: NOWHERE }; 1 << RECENT_BITS];
        }
        self.recent[place] = Recent { code, number };
        number
    }

    #[cold]
    fn add(&mut self, code: i128) -> u32 {
        let number = u32::try_from(self.codes.len()).expect("a query reads fewer than 2^32 rows");
        self.codes.push(code);
        let codes = &self.codes;
        self.table.insert_unique(mix(code), number, |number| mix(codes[*number as usize]));
        number
    }

    pub fn len(&self) -> usize {
        self.codes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }
}

/// Which recent entry a code may have (Fibonacci hashing, Knuth).
#[inline]
fn place(code: i128) -> usize {
    let folded = code as u64 ^ ((code >> 64) as u64).rotate_left(32);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT_BITS)) as usize
}

/// A folded multiplication (as in wyhash): all bits of the code reach all bits of the hash.
fn mix(code: i128) -> u64 {
    let (low, high) = (code as u64 ^ 0x2d35_8dcc_aa6c_78a5, (code >> 64) as u64 ^ 0x8bb8_4b93_962e_acc9);
    let product = u128::from(low) * u128::from(high);
    product as u64 ^ (product >> 64) as u64
}

/// One group column: numbers for its values.
#[derive(Debug)]
pub struct Column {
    data_type: DataType,
    numbers: Numbers,
    /// The number that stands for null, once one was met; its code is not a value's.
    null: Option<u32>,
    long: LongTexts,
    scratch: Vec<i128>,
}

impl Column {
    pub fn new(data_type: DataType) -> Self {
        Self { data_type, numbers: Numbers::default(), null: None, long: LongTexts::default(), scratch: Vec::new() }
    }

    /// Calls `each` with the number of every selected row in order.
    fn number(&mut self, array: &dyn Array, selection: Option<&BooleanBuffer>, each: impl FnMut(usize, u32)) {
        self.scratch.clear();
        codes::encode(array, &mut self.long, &mut self.scratch);
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        match selection {
            None => self.number_rows(0..array.len(), nulls.as_ref(), each),
            Some(selection) => self.number_rows(selection.set_indices(), nulls.as_ref(), each),
        }
    }

    fn number_rows(
        &mut self,
        rows: impl Iterator<Item = usize>,
        nulls: Option<&NullBuffer>,
        mut each: impl FnMut(usize, u32),
    ) {
        // Blocks are sorted by window: runs of one value are common.
        let mut last = None;
        for row in rows {
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                let numbers = &mut self.numbers;
                each(row, *self.null.get_or_insert_with(|| numbers.add_nameless()));
                continue;
            }
            let code = self.scratch[row];
            let number = match last {
                Some((last_code, number)) if last_code == code => number,
                _ => self.numbers.of(code),
            };
            last = Some((code, number));
            each(row, number);
        }
    }

    fn values(&self, numbers: impl Iterator<Item = u32>) -> ArrayRef {
        let code = |number| (Some(number) != self.null).then(|| self.numbers.codes[number as usize]);
        codes::decode(&self.data_type, numbers.map(code), &self.long)
    }
}

impl Numbers {
    /// A number that no code has.
    fn add_nameless(&mut self) -> u32 {
        let number = u32::try_from(self.codes.len()).expect("a query reads fewer than 2^32 rows");
        self.codes.push(0);
        number
    }
}

/// The groups of a query.
#[derive(Debug)]
pub struct Groups {
    columns: Vec<Column>,
    /// For each column after the first: numbers for pairs of (number so far, number of this column).
    pairs: Vec<Numbers>,
}

impl Groups {
    pub fn new(types: impl Iterator<Item = DataType>) -> Self {
        let columns: Vec<_> = types.map(Column::new).collect();
        let pairs = columns.iter().skip(1).map(|_| Numbers::default()).collect();
        Self { columns, pairs }
    }

    /// How many groups there are. Without group columns there is one, even without rows.
    pub fn len(&self) -> usize {
        match (self.pairs.last(), self.columns.first()) {
            (Some(pairs), _) => pairs.len(),
            (None, Some(column)) => column.numbers.len(),
            (None, None) => 1,
        }
    }

    /// Puts the group number of each selected row into `numbers`; what others get has no meaning.
    pub fn assign(
        &mut self,
        arrays: &[ArrayRef],
        rows: usize,
        selection: Option<&BooleanBuffer>,
        numbers: &mut Vec<u32>,
    ) {
        numbers.clear();
        numbers.resize(rows, 0);
        let Some((first, others)) = self.columns.split_first_mut() else { return };
        first.number(&arrays[0], selection, |row, number| numbers[row] = number);
        for ((column, pairs), array) in others.iter_mut().zip(&mut self.pairs).zip(&arrays[1..]) {
            column.number(array, selection, |row, number| {
                numbers[row] = pairs.of(i128::from(u64::from(numbers[row]) << 32 | u64::from(number)));
            });
        }
    }

    /// The group columns, one row for each group.
    pub fn values(&self) -> Vec<ArrayRef> {
        let mut numbers: Vec<u32> = (0..self.len() as u32).collect();
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (column, pairs) in self.columns.iter().skip(1).zip(&self.pairs).rev() {
            let pair = |number: u32| pairs.codes[number as usize] as u64;
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
}

impl Distinct {
    pub fn new(data_type: DataType) -> Self {
        Self { column: Column::new(data_type), seen: Numbers::default() }
    }

    /// Calls `new` with the group of each value that its group had not met before.
    pub fn add(
        &mut self,
        groups: &[u32],
        array: &dyn Array,
        counted: Option<&BooleanBuffer>,
        mut new: impl FnMut(u32),
    ) {
        let seen = &mut self.seen;
        self.column.number(array, counted, |row, number| {
            let before = seen.len();
            seen.of(i128::from(u64::from(groups[row]) << 32 | u64::from(number)));
            if seen.len() > before {
                new(groups[row]);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    type Row = (Option<i64>, Option<String>);

    proptest! {
        #[test]
        fn rows_share_a_number_exactly_if_their_group_columns_are_equal(
            blocks in prop::collection::vec(
                prop::collection::vec(
                    (prop::option::of(-2i64..2), prop::option::of("[a-c]{0,2}|[a-b]{16,17}")), 0..20,
                ), 0..4,
            ),
        ) {
            let mut groups = Groups::new([DataType::Int64, DataType::Utf8].into_iter());
            let mut expected: Vec<Row> = Vec::new();
            let mut numbers = Vec::new();
            for rows in &blocks {
                let ints: Int64Array = rows.iter().map(|row| row.0).collect();
                let texts: StringArray = rows.iter().map(|row| row.1.as_deref()).collect();
                groups.assign(&[Arc::new(ints), Arc::new(texts)], rows.len(), None, &mut numbers);
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
        groups.assign(&[], 3, None, &mut numbers);
        assert_eq!((groups.len(), numbers, groups.values().len()), (1, vec![0, 0, 0], 0));
    }
}
