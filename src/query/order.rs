//! Puts rows in order: `order by … limit … offset …`.
//!
//! Invariant: rows that are equal in all keys keep the order in which they came, so an answer is the same each time.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::codes::{self, LongTexts};

/// How one key is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direction {
    pub descending: bool,
    pub nulls_first: bool,
}

/// Which part of the ordered rows is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    pub offset: usize,
    pub limit: Option<usize>,
}

impl Slice {
    /// How many rows from the first on are needed; `usize::MAX` for all.
    pub fn end(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| self.offset.saturating_add(limit))
    }
}

enum Key<'a> {
    Codes(Vec<i128>),
    Texts(&'a StringArray),
}

struct SortColumn<'a> {
    key: Key<'a>,
    nulls: Option<NullBuffer>,
    direction: Direction,
}

impl<'a> SortColumn<'a> {
    fn new(array: &'a ArrayRef, direction: Direction) -> Self {
        let key = match array.data_type() {
            DataType::Utf8 => Key::Texts(array.as_string()),
            _ => {
                let mut values = Vec::new();
                codes::encode(array, &mut LongTexts::default(), &mut values);
                Key::Codes(values)
            }
        };
        Self { key, nulls: array.logical_nulls().filter(|nulls| nulls.null_count() > 0), direction }
    }

    fn compare(&self, a: usize, b: usize) -> Ordering {
        if let Some(nulls) = &self.nulls {
            let null_order = match (nulls.is_null(a), nulls.is_null(b)) {
                (true, true) => return Ordering::Equal,
                (true, false) => Some(Ordering::Less),
                (false, true) => Some(Ordering::Greater),
                (false, false) => None,
            };
            if let Some(order) = null_order {
                return if self.direction.nulls_first { order } else { order.reverse() };
            }
        }
        let order = match &self.key {
            Key::Codes(values) => values[a].cmp(&values[b]),
            Key::Texts(texts) => texts.value(a).cmp(texts.value(b)),
        };
        if self.direction.descending { order.reverse() } else { order }
    }
}

/// The numbers of the rows wanted, in order. `keys` may be empty: rows then stay as they came.
pub fn sorted(keys: &[(ArrayRef, Direction)], rows: usize, slice: Slice) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..rows as u32).collect();
    let end = slice.end().min(rows);
    if !keys.is_empty() && end > 0 {
        let columns: Vec<_> = keys.iter().map(|(array, direction)| SortColumn::new(array, *direction)).collect();
        let compare = |a: &u32, b: &u32| {
            let mut orders = columns.iter().map(|column| column.compare(*a as usize, *b as usize));
            orders.find(|order| order.is_ne()).unwrap_or_else(|| a.cmp(b))
        };
        if end < rows {
            numbers.select_nth_unstable_by(end - 1, compare);
            numbers.truncate(end);
        }
        numbers.sort_unstable_by(compare);
    }
    numbers.truncate(end);
    numbers.drain(..slice.offset.min(numbers.len()));
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use proptest::prelude::*;

    fn direction() -> impl Strategy<Value = Direction> {
        (any::<bool>(), any::<bool>()).prop_map(|(descending, nulls_first)| Direction { descending, nulls_first })
    }

    /// The plainest order of optional values.
    fn compare<T: Ord>(a: &Option<T>, b: &Option<T>, direction: Direction) -> Ordering {
        match (a, b) {
            (None, None) => Ordering::Equal,
            (None, _) if direction.nulls_first => Ordering::Less,
            (None, _) => Ordering::Greater,
            (_, None) => compare(b, a, direction).reverse(),
            (Some(a), Some(b)) if direction.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
        }
    }

    proptest! {
        #[test]
        fn rows_are_ordered_as_a_stable_sort_orders_them(
            rows in prop::collection::vec((prop::option::of(-3i64..3), prop::option::of("[a-c]{0,2}")), 0..40),
            (first, second) in (direction(), direction()),
            (offset, limit) in (0usize..10, prop::option::of(0usize..50)),
        ) {
            let ints: Int64Array = rows.iter().map(|row| row.0).collect();
            let texts: StringArray = rows.iter().map(|row| row.1.as_deref()).collect();
            let keys = [(Arc::new(ints) as ArrayRef, first), (Arc::new(texts) as ArrayRef, second)];
            let found = sorted(&keys, rows.len(), Slice { offset, limit });
            let mut expected: Vec<u32> = (0..rows.len() as u32).collect();
            expected.sort_by(|a, b| {
                let (a, b) = (&rows[*a as usize], &rows[*b as usize]);
                compare(&a.0, &b.0, first).then_with(|| compare(&a.1, &b.1, second))
            });
            let expected: Vec<u32> = expected.into_iter().skip(offset).take(limit.unwrap_or(usize::MAX)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
