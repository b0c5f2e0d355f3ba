//! The rows of a rows event, each as the cells of the columns that are read. Pure.
//!
//! Invariant: all bytes of the event are read as rows, or it is an error; a column that is read is in every row.

use super::cell::{Cell, CellError, cell};
use super::event::{Input, Rows, Short};
use super::tablemap::Physical;

/// Why a row cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    #[error(transparent)]
    Short(#[from] Short),
    #[error("the event has {found} columns, its table map {expected}")]
    Columns { found: usize, expected: usize },
    /// By the `[[table]]`'s columns.
    #[error("the row does not have the column")]
    Absent(usize),
    #[error("{1}")]
    Cell(usize, CellError),
}

/// Reads the rows of one event; for updates one before and one after in turns.
pub struct RowReader<'a, 'e> {
    columns: &'a [Physical],
    /// By the columns of the `[[table]]`: where they are.
    places: &'a [usize],
    event: Rows<'e>,
    input: Input<'e>,
    is_after: bool,
    /// By the log's columns; reused.
    found: Vec<Option<&'e [u8]>>,
    cells: Vec<Cell<'e>>,
}

impl<'a, 'e> RowReader<'a, 'e> {
    pub fn new(columns: &'a [Physical], places: &'a [usize], event: Rows<'e>) -> Result<Self, RowError> {
        if event.columns != columns.len() {
            return Err(RowError::Columns { found: event.columns, expected: columns.len() });
        }
        for present in [Some(event.present), event.present_after].into_iter().flatten() {
            if let Some(absent) = places.iter().position(|place| !bit(present, *place)) {
                return Err(RowError::Absent(absent));
            }
        }
        let (input, found) = (Input(event.rows), vec![None; columns.len()]);
        Ok(Self { columns, places, event, input, is_after: false, found, cells: Vec::with_capacity(places.len()) })
    }

    /// The next row; is it one after an update?
    pub fn read_next(&mut self) -> Result<Option<(bool, &[Cell<'e>])>, RowError> {
        if self.input.is_empty() {
            // An update without its row after.
            return if self.is_after { Err(Short.into()) } else { Ok(None) };
        }
        let is_after = self.is_after;
        let present = if is_after { self.event.present_after.unwrap_or_default() } else { self.event.present };
        self.is_after = self.event.present_after.is_some() && !is_after;
        self.read(present)?;
        self.cells.clear();
        for (column, place) in self.places.iter().enumerate() {
            let value = match self.found[*place] {
                None => Cell::Null,
                Some(bytes) => cell(self.columns[*place], bytes).map_err(|error| RowError::Cell(column, error))?,
            };
            self.cells.push(value);
        }
        Ok(Some((is_after, &self.cells)))
    }

    fn read(&mut self, present: &[u8]) -> Result<(), RowError> {
        // Bits beyond the last column may have any value.
        let count = (0..self.columns.len()).filter(|index| bit(present, *index)).count();
        let nulls = self.input.take(count.div_ceil(8))?;
        let mut number = 0;
        for (index, (column, found)) in self.columns.iter().zip(&mut self.found).enumerate() {
            *found = None;
            if !bit(present, index) {
                continue;
            }
            if !bit(nulls, number) {
                *found = Some(column.take(&mut self.input)?);
            }
            number += 1;
        }
        Ok(())
    }
}

#[inline]
fn bit(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(rows: &[u8], update: bool) -> Rows<'_> {
        Rows { table_id: 1, columns: 3, present: &[7], present_after: update.then_some(&[7]), rows }
    }

    const COLUMNS: [Physical; 3] = [Physical::Int(4), Physical::Bytes(1), Physical::Int(1)];

    #[test]
    fn rows_before_and_after_take_turns_and_nulls_take_no_bytes() {
        let rows = [0, 1, 0, 0, 0, 2, b'h', b'i', 9, 0b110, 2, 0, 0, 0];
        let raw = |value, bytes| Cell::Raw { value, bytes };
        let mut reader = RowReader::new(&COLUMNS, &[2, 0], event(&rows, true)).expect("all columns");
        assert_eq!(reader.read_next(), Ok(Some((false, [raw(9, 1), raw(1, 4)].as_slice()))));
        assert_eq!(reader.read_next(), Ok(Some((true, [Cell::Null, raw(2, 4)].as_slice()))));
        assert_eq!(reader.read_next(), Ok(None));
        let mut half = RowReader::new(&COLUMNS, &[2, 0], event(&rows[..9], true)).expect("all columns");
        assert!(half.read_next().is_ok());
        assert_eq!(half.read_next(), Err(RowError::Short(Short)));
    }

    #[test]
    fn a_row_without_a_column_that_is_read_is_an_error() {
        let partial = Rows { present: &[0b101], ..event(&[], false) };
        assert_eq!(RowReader::new(&COLUMNS, &[1], partial).err(), Some(RowError::Absent(0)));
        assert!(RowReader::new(&COLUMNS, &[2, 0], partial).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(rows in prop::collection::vec(any::<u8>(), 0..60), update: bool) {
            let mut reader = RowReader::new(&COLUMNS, &[0, 1, 2], event(&rows, update)).expect("all columns");
            while let Ok(Some(_)) = reader.read_next() {}
        }
    }
}
