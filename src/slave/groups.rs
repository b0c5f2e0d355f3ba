//! Numbers the groups of a metric: each combination of group values, nulls included, gets a small number. Pure; the
//! first half of the hot loop.
//!
//! Invariant: one number stands for one combination as long as something refers to it; then it is given away again.
//! Each value becomes a 64-bit code that is equal exactly when the values are, so that rows are hashed and compared
//! as words.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Date32Builder, Decimal128Builder, Int64Builder, StringArray,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Int64Type, TimestampMicrosecondType};
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use super::texts::{Texts, short_code};
use crate::model::id::Key;

/// Numbers of groups. The codes of a group stand side by side: first its columns, last a word of null bits.
#[derive(Debug)]
pub struct Groups {
    types: Vec<DataType>,
    codes: Vec<u64>,
    hashes: Vec<u64>,
    /// How many slots refer to the group; zero: free.
    references: Vec<u32>,
    free: Vec<u32>,
    texts: Texts,
    numbers: HashTable<u32>,
    /// Groups asked for lately, each where its hash puts it: most rows need no more than one comparison.
    recent: Box<[u32; 1 << RECENT_BITS]>,
    /// The codes of a batch's rows; kept to not allocate for each batch.
    scratch: Vec<u64>,
}

const RECENT_BITS: u32 = 11;
/// No group has this number: their codes would not fit memory.
const NONE: u32 = u32::MAX;

/// Where a hash has its recent entry. The table looks at other bits.
#[inline]
fn place(hash: u64) -> usize {
    (hash >> 20) as usize & ((1 << RECENT_BITS) - 1)
}

/// What of the groups is saved.
#[derive(Serialize, Deserialize)]
pub struct GroupsSnapshot {
    codes: Vec<u64>,
    references: Vec<u32>,
    texts: Vec<Option<Vec<u8>>>,
}

/// Folds one more word into a hash (the multiply-and-fold step of wyhash).
#[inline]
pub fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The golden ratio: odd, and its bits are well spread.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0x2d35_8dcc_aa6c_78a5;

impl Groups {
    pub fn new(types: Vec<DataType>) -> Self {
        Self {
            types,
            codes: Vec::new(),
            hashes: Vec::new(),
            references: Vec::new(),
            free: Vec::new(),
            texts: Texts::default(),
            numbers: HashTable::new(),
            recent: Box::new([NONE; 1 << RECENT_BITS]),
            scratch: Vec::new(),
        }
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The number of each row's group, into `numbers`. New groups have no reference yet: `retain` them.
    pub fn number(&mut self, columns: &[ArrayRef], numbers: &mut Vec<u32>) {
        let rows = columns[0].len();
        let mut scratch = std::mem::take(&mut self.scratch);
        self.encode(columns, rows, &mut scratch);
        numbers.clear();
        // Of a width that the compiler knows, keys are hashed and compared without a loop.
        match self.width() {
            2 => self.number_keys::<2>(&scratch, numbers),
            3 => self.number_keys::<3>(&scratch, numbers),
            4 => self.number_keys::<4>(&scratch, numbers),
            5 => self.number_keys::<5>(&scratch, numbers),
            width => numbers.extend(scratch.chunks_exact(width).map(|key| self.look_up(hash_of(key), key))),
        }
        self.scratch = scratch;
    }

    fn number_keys<const WIDTH: usize>(&mut self, keys: &[u64], numbers: &mut Vec<u32>) {
        numbers.extend(keys.as_chunks::<WIDTH>().0.iter().map(|key| {
            let hash = hash_of(key);
            let recent = self.recent[place(hash)];
            let is_it = self.codes.as_chunks::<WIDTH>().0.get(recent as usize) == Some(key);
            if is_it { recent } else { self.look_up(hash, key) }
        }));
    }

    fn look_up(&mut self, hash: u64, key: &[u64]) -> u32 {
        let same = |number: &u32| self.codes_of(*number).iter().zip(key).all(|(a, b)| a == b);
        let number = match self.numbers.find(hash, same) {
            Some(number) => *number,
            None => self.insert(hash, key),
        };
        self.recent[place(hash)] = number;
        number
    }

    /// Words of a group.
    #[inline]
    fn width(&self) -> usize {
        self.types.len() + 1
    }

    #[inline]
    fn codes_of(&self, number: u32) -> &[u64] {
        let (at, width) = (number as usize * self.width(), self.width());
        &self.codes[at..at + width]
    }

    #[cold]
    fn insert(&mut self, hash: u64, key: &[u64]) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.codes.extend(key);
            self.hashes.push(0);
            self.references.push(0);
            self.hashes.len() as u32 - 1
        });
        let at = number as usize * self.width();
        self.codes[at..at + key.len()].copy_from_slice(key);
        for (index, code) in key.iter().enumerate() {
            if self.is_numbered(index) {
                self.texts.retain(*code);
            }
        }
        self.hashes[number as usize] = hash;
        self.numbers.insert_unique(hash, number, |other| self.hashes[*other as usize]);
        number
    }

    /// May codes of the column stand for numbered strings? Codes of others are any words.
    fn is_numbered(&self, column: usize) -> bool {
        matches!(self.types.get(column), Some(DataType::Utf8 | DataType::Decimal128(..)))
    }

    pub fn is_used(&self, number: u32) -> bool {
        self.references.get(number as usize).is_some_and(|references| *references > 0)
    }

    pub fn retain(&mut self, number: u32) {
        self.references[number as usize] += 1;
    }

    /// Takes a reference back; the last one frees the number.
    pub fn release(&mut self, number: u32) {
        let index = number as usize;
        self.references[index] -= 1;
        if self.references[index] > 0 {
            return;
        }
        let entry = self.numbers.find_entry(self.hashes[index], |other| *other == number);
        entry.expect("a group with references is in the table").remove();
        for column in 0..self.types.len() {
            if self.is_numbered(column) {
                self.texts.release(self.codes[index * self.width() + column]);
            }
        }
        let recent = &mut self.recent[place(self.hashes[index])];
        if *recent == number {
            *recent = NONE;
        }
        self.free.push(number);
    }

    /// The partition key of a group.
    pub fn key(&self, number: u32) -> Key {
        let code = self.codes_of(number)[0];
        match self.types[0] {
            DataType::Int64 => Key::int(code as i64),
            _ => self.texts.with(code, |text| Key::text(as_text(text))),
        }
    }

    /// Compares groups by their values, column by column, nulls first.
    pub fn compare(&self, a: u32, b: u32) -> std::cmp::Ordering {
        let (a, b) = (self.codes_of(a), self.codes_of(b));
        let (nulls_a, nulls_b) = (a[self.types.len()], b[self.types.len()]);
        let mut order = std::cmp::Ordering::Equal;
        for (index, kind) in self.types.iter().enumerate() {
            let (code_a, code_b) = (a[index], b[index]);
            let present = |nulls: u64| nulls >> index & 1 == 0;
            order = order.then_with(|| present(nulls_a).cmp(&present(nulls_b))).then_with(|| match kind {
                DataType::Utf8 => self.texts.with(code_a, |a| self.texts.with(code_b, |b| a.cmp(b))),
                DataType::Decimal128(..) => self.decimal(code_a).cmp(&self.decimal(code_b)),
                _ => (code_a as i64).cmp(&(code_b as i64)),
            });
        }
        order
    }

    fn decimal(&self, code: u64) -> i128 {
        self.texts.with(code, |bytes| bytes.try_into().map_or(0, i128::from_le_bytes))
    }

    /// A group column of the groups `numbers`.
    pub fn output(&self, column: usize, numbers: &[u32]) -> ArrayRef {
        let values = numbers.iter().map(|number| {
            let codes = self.codes_of(*number);
            (codes[self.types.len()] >> column & 1 == 0).then(|| codes[column])
        });
        match &self.types[column] {
            DataType::Utf8 => {
                let mut built = StringBuilder::with_capacity(numbers.len(), numbers.len() * 8);
                for value in values {
                    match value {
                        Some(code) => self.texts.with(code, |text| built.append_value(as_text(text))),
                        None => built.append_null(),
                    }
                }
                Arc::new(built.finish())
            }
            DataType::Decimal128(..) => {
                let mut built = Decimal128Builder::new().with_data_type(self.types[column].clone());
                values.for_each(|value| built.append_option(value.map(|code| self.decimal(code))));
                Arc::new(built.finish())
            }
            DataType::Timestamp(..) => {
                let mut built = TimestampMicrosecondBuilder::new();
                values.for_each(|value| built.append_option(value.map(|code| code as i64)));
                Arc::new(built.finish())
            }
            DataType::Date32 => {
                let mut built = Date32Builder::new();
                values.for_each(|value| built.append_option(value.map(|code| code as i32)));
                Arc::new(built.finish())
            }
            DataType::Boolean => {
                let mut built = BooleanBuilder::new();
                values.for_each(|value| built.append_option(value.map(|code| code != 0)));
                Arc::new(built.finish())
            }
            _ => {
                let mut built = Int64Builder::new();
                values.for_each(|value| built.append_option(value.map(|code| code as i64)));
                Arc::new(built.finish())
            }
        }
    }

    /// The codes of each row, side by side, and its null bits. The code of a null is zero.
    fn encode(&mut self, columns: &[ArrayRef], rows: usize, codes: &mut Vec<u64>) {
        let width = self.width();
        codes.clear();
        codes.resize(rows * width, 0);
        for (index, column) in columns.iter().enumerate() {
            let cells = codes.iter_mut().skip(index).step_by(width);
            let set = |(cell, code): (&mut u64, u64)| *cell = code;
            match column.data_type() {
                DataType::Int64 => {
                    let values = column.as_primitive::<Int64Type>().values();
                    cells.zip(values.iter().map(|value| *value as u64)).for_each(set);
                }
                DataType::Timestamp(..) => {
                    let values = column.as_primitive::<TimestampMicrosecondType>().values();
                    cells.zip(values.iter().map(|value| *value as u64)).for_each(set);
                }
                DataType::Date32 => {
                    let values = column.as_primitive::<Date32Type>().values();
                    cells.zip(values.iter().map(|value| i64::from(*value) as u64)).for_each(set);
                }
                DataType::Boolean => cells.zip(column.as_boolean().values().iter().map(u64::from)).for_each(set),
                DataType::Utf8 => cells.zip(text_codes(column.as_string::<i32>(), &mut self.texts)).for_each(set),
                DataType::Decimal128(..) => {
                    let (values, texts) = (column.as_primitive::<Decimal128Type>(), &mut self.texts);
                    let code = |row| if values.is_null(row) { 0 } else { texts.code(&values.value(row).to_le_bytes()) };
                    cells.zip((0..rows).map(code)).for_each(set);
                }
                other => panic!("grouping by {other} is refused where metrics are checked"),
            }
            if let Some(present) = column.nulls().filter(|present| present.null_count() > 0) {
                for row in (0..rows).filter(|row| present.is_null(*row)) {
                    codes[row * width + self.types.len()] |= 1 << index;
                    codes[row * width + index] = 0;
                }
            }
        }
    }

    pub fn snapshot(&self) -> GroupsSnapshot {
        GroupsSnapshot { codes: self.codes.clone(), references: self.references.clone(), texts: self.texts.snapshot() }
    }

    /// `None` if the snapshot contradicts itself.
    pub fn restore(types: Vec<DataType>, snapshot: GroupsSnapshot) -> Option<Self> {
        let rows = snapshot.references.len();
        if snapshot.codes.len() != rows * (types.len() + 1) {
            return None;
        }
        let mut groups = Self::new(types);
        groups.texts = Texts::restore(snapshot.texts);
        groups.codes = snapshot.codes;
        groups.references = snapshot.references;
        groups.hashes = groups.codes.chunks_exact(groups.width()).map(hash_of).collect();
        for number in 0..rows {
            if groups.references[number] == 0 {
                groups.free.push(number as u32);
                continue;
            }
            for column in 0..groups.types.len() {
                if groups.is_numbered(column) && !groups.texts.retain(groups.codes[number * groups.width() + column]) {
                    return None;
                }
            }
            let hashes = &groups.hashes;
            groups.numbers.insert_unique(hashes[number], number as u32, |other| hashes[*other as usize]);
        }
        Some(groups)
    }

    /// An estimate of the memory held.
    pub fn bytes(&self) -> usize {
        let words = self.codes.capacity() + self.hashes.capacity() * 2;
        words * 8 + self.numbers.capacity() * 5 + size_of_val(&*self.recent) + self.texts.bytes()
    }
}

/// Codes of texts.
fn text_codes(values: &StringArray, texts: &mut Texts) -> impl Iterator<Item = u64> {
    let (bytes, offsets) = (values.value_data(), values.value_offsets());
    offsets.windows(2).enumerate().map(move |(row, ends)| {
        let (start, end) = (ends[0] as usize, ends[1] as usize);
        match short_code(bytes, start, end) {
            Some(code) => code,
            // What a null hides may be anything, and must not stay among the texts.
            None if values.is_null(row) => 0,
            None => texts.code(&bytes[start..end]),
        }
    })
}

fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the bytes came out of an Arrow text column")
}

#[inline]
fn hash_of(codes: &[u64]) -> u64 {
    codes.iter().fold(SEED, |hash, code| mix(hash, *code))
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
