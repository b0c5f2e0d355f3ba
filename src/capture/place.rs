//! Where an event stands in a server's binary log, and the position that its rows get. Pure.
//!
//! Invariant: positions grow as the log does, from file to file; a snapshot's positions lie before every log's.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::position::Position;

const FILE_BITS: u32 = 96;
const OFFSET_BITS: u32 = 32;
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

    /// The position of a row, counted from one, of the event that begins here; row zero is the place itself: after all
    /// rows of events before it.
    pub fn row(self, row: u32) -> Position {
        Position(u128::from(self.file) << FILE_BITS | u128::from(self.offset) << OFFSET_BITS | u128::from(row))
    }

    pub fn position(self) -> Position {
        self.row(0)
    }

    /// The place of a position in the log; rows are cut off.
    pub fn of(position: Position) -> Self {
        Self { file: (position.0 >> FILE_BITS) as u32, offset: (position.0 >> OFFSET_BITS) as u64 }
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
        (1..MOST_FILES, any::<u64>(), any::<u32>()).prop_map(|(file, offset, row)| (Place::new(file, offset), row))
    }

    proptest! {
        #[test]
        fn positions_are_ordered_as_places_and_rows_are(left in places(), right in places()) {
            let position = |(place, row): (Place, u32)| place.row(row);
            prop_assert_eq!(left.cmp(&right), position(left).cmp(&position(right)));
            prop_assert_eq!(Place::of(position(left)), left.0);
            prop_assert!(position(left) >= Position(1 << FILE_BITS), "a snapshot's rows have positions below");
            prop_assert!(position(left) < LAST_POSITION);
            prop_assert!(position(left).0 < 10u128.pow(38), "it fits a decimal(38,0)");
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
