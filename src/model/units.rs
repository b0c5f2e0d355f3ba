//! Durations and sizes as configuration writes them: `"200ms"`, `"24h"`, `"64MiB"`.
//!
//! Invariant: a value without a unit is an error, so that nobody has to guess one; what is shown parses back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration, whole milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

/// A size in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const DURATIONS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl Millis {
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// For arithmetic with Unix milliseconds.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl ByteSize {
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let known = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let number: u64 =
        number.parse().map_err(|_| format!("'{text}' is not a whole number with a unit ({})", known()))?;
    let (_, factor) = (units.iter().find(|(name, _)| *name == unit.trim()))
        .ok_or_else(|| format!("'{text}' needs one of the units {}", known()))?;
    number.checked_mul(*factor).ok_or_else(|| format!("'{text}' is too large"))
}

/// The largest unit that divides the value, so that what is shown is exact.
fn show(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let whole = |(_, factor): &&(&str, u64)| value.is_multiple_of(*factor) && value >= *factor;
    let (name, factor) = units.iter().rev().find(whole).unwrap_or(&units[0]);
    write!(f, "{}{name}", value / factor)
}

macro_rules! unit_type {
    ($name:ident, $units:expr) => {
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                parse(text, &$units).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                show(self.0, &$units, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

unit_type!(Millis, DURATIONS);
unit_type!(ByteSize, SIZES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_with_their_unit_and_shown_exactly() {
        for (text, millis) in [("200ms", 200), ("90s", 90_000), ("2m", 120_000), ("24h", 86_400_000)] {
            assert_eq!(text.parse(), Ok(Millis(millis)));
            assert_eq!(Millis(millis).to_string().parse(), Ok(Millis(millis)));
        }
        assert_eq!("64 MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!(ByteSize(64 << 20).to_string(), "64MiB");
        assert_eq!(Millis(0).to_string(), "0ms");
    }

    #[test]
    fn a_value_without_a_unit_or_too_large_is_an_error_that_names_the_units() {
        for text in ["200", "ms", "1.5s", "-1s", "1 year", "", "99999999999999999d"] {
            assert!(text.parse::<Millis>().is_err(), "{text}");
        }
        assert!("5".parse::<ByteSize>().unwrap_err().contains("MiB"));
    }
}
