//! Where an event stands in a server's binary log, and the position that its rows get. Pure.
//!
//! A position is, from its highest bits on, the file's number, the offset, and within an event's place first the times at which
//! the log was seen to end there, then the rows of the event that begins there.
//!
//! Invariant: positions grow as the log does, from file to file; a snapshot's positions lie before every log's.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::position::Position;

const FILE_BITS: u32 = 96;
const OFFSET_BITS: u32 = 48;
/// Set for rows, not for times.
const ROWS: u128 = 1 << 47;
/// No file is longer: 256 TiB.
pub const MOST_OFFSET: u64 = (1 << 48) - 1;
/// A position must fit 38 decimal digits.
const MOST_FILES: u32 = 1 << 29;

/// Above every position.
pub const LAST_POSITION: Position = Position(10u128.pow(38) - 1);

/// A byte between events in a numbered file of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub file: u32,
    pub offset: u64,
}

impl Place {
    pub const fn new(file: u32, offset: u64) -> Self {
        Self { file, offset }
    }

    /// After all rows of events before it.
    pub fn position(self) -> Position {
        Position(u128::from(self.file) << FILE_BITS | u128::from(self.offset & MOST_OFFSET) << OFFSET_BITS)
    }

    /// The log ended here at this time (Unix milliseconds): before the row that comes next.
    pub fn quiet(self, at_ms: i64) -> Position {
        Position(self.position().0 | at_ms.clamp(0, ROWS as i64 - 1) as u128)
    }

    /// The position of a row, counted from one, of the event that begins here.
    pub fn row(self, row: u32) -> Position {
        Position(self.position().0 | ROWS | u128::from(row))
    }

    /// The place of a position in the log; times and rows are cut off.
    pub fn of(position: Position) -> Self {
        let offset = (position.0 >> OFFSET_BITS) as u64 & MOST_OFFSET;
        Self { file: (position.0 >> FILE_BITS) as u32, offset }
    }

    /// Where an event ends of which only the lower 32 bits are known: files of huge transactions are longer.
    pub fn advanced(self, low: u32) -> Self {
        let near = self.offset & !u64::from(u32::MAX) | u64::from(low);
        let offset = if near < self.offset { near + (1 << 32) } else { near };
        Self { file: self.file, offset }
    }
}

/// How a server names the files of its log: `mysql-bin.000042`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogName {
    pub prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no name of a binary log: it does not end in a number between 1 and 536870911")]
pub struct LogNameError(pub String);

/// The position without a time: where nothing was read since, it is the same.
pub fn without_time(position: Position) -> Position {
    if position.0 & ROWS == 0 { Place::of(position).position() } else { position }
}

impl LogName {
    /// Takes a file's name apart.
    pub fn parse(name: &str) -> Result<(Self, u32), LogNameError> {
        let wrong = || LogNameError(name.to_owned());
        let (prefix, number) = name.rsplit_once('.').ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        if prefix.is_empty() || !(1..MOST_FILES).contains(&number) {
            return Err(wrong());
        }
        Ok((Self { prefix: prefix.to_owned() }, number))
    }

    pub fn file(&self, number: u32) -> String {
        format!("{}.{number:06}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places() -> impl Strategy<Value = (Place, u32)> {
        (1..MOST_FILES, 0..=MOST_OFFSET, any::<u32>()).prop_map(|(file, offset, row)| (Place::new(file, offset), row))
    }

    proptest! {
        #[test]
        fn positions_are_ordered_as_places_and_rows_are(left in places(), right in places()) {
            let position = |(place, row): (Place, u32)| place.row(row);
            prop_assert_eq!(left.cmp(&right), position(left).cmp(&position(right)));
            prop_assert_eq!(Place::of(position(left)), left.0);
            prop_assert!(position(left) >= Position(1 << FILE_BITS), "a snapshot's rows have positions below");
            prop_assert_eq!(without_time(position(left)), position(left));
            prop_assert!(position(left) < LAST_POSITION);
            prop_assert!(position(left).0 < 10u128.pow(38), "it fits a decimal(38,0)");
        }

        #[test]
        fn times_at_a_place_lie_before_its_rows((place, row) in places(), earlier in 0i64..1 << 46, later in 0i64..1 << 46) {
            prop_assert_eq!(earlier.cmp(&later), place.quiet(earlier).cmp(&place.quiet(later)));
            prop_assert!(place.position() <= place.quiet(earlier) && place.quiet(i64::MAX) < place.row(row));
            prop_assert_eq!((Place::of(place.quiet(earlier)), without_time(place.quiet(later))), (place, place.position()));
        }

        #[test]
        fn offsets_beyond_32_bits_are_followed(start in 4u64..1 << 40, length in 0u64..1 << 32) {
            let place = Place::new(3, start);
            prop_assert_eq!(place.advanced((start + length) as u32).offset, start + length);
        }
    }

    #[test]
    fn names_of_logs_are_taken_apart_and_put_together() {
        let (name, number) = LogName::parse("mysql.bin.000042").expect("a name");
        assert_eq!((name.prefix.as_str(), number, name.file(1_000_000)), ("mysql.bin", 42, "mysql.bin.1000000".into()));
        for wrong in ["", "mysql-bin", ".000001", "bin.index", "bin.000000", "bin.999999999"] {
            assert!(LogName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
