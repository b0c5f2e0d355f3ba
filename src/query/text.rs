//! Values as text, in the forms that answers have: RFC 3339 times in UTC, decimals with all their digits.
//!
//! Invariant: a value is written without loss, and without an allocation of its own.

use std::io::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};

const DAY_US: i64 = 86_400_000_000;

/// A column of an answer, ready to be written row by row.
pub enum Column<'a> {
    Int(&'a PrimitiveArray<Int64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, u32),
    Double(&'a PrimitiveArray<Float64Type>),
    Text(&'a StringArray),
    Bool(&'a BooleanArray),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>),
    Date(&'a PrimitiveArray<Date32Type>),
    /// Nulls only.
    Null,
}

impl<'a> Column<'a> {
    pub fn new(array: &'a ArrayRef) -> Self {
        match array.data_type() {
            DataType::Int64 => Self::Int(array.as_primitive()),
            DataType::Decimal128(_, scale) => Self::Decimal(array.as_primitive(), u32::from(scale.unsigned_abs())),
            DataType::Float64 => Self::Double(array.as_primitive()),
            DataType::Utf8 => Self::Text(array.as_string()),
            DataType::Boolean => Self::Bool(array.as_boolean()),
            DataType::Timestamp(..) => Self::Timestamp(array.as_primitive()),
            DataType::Date32 => Self::Date(array.as_primitive()),
            DataType::Null => Self::Null,
            other => unreachable!("an answer has no columns of type {other}"),
        }
    }

    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Int(array) => array.is_null(row),
            Self::Decimal(array, _) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Bool(array) => array.is_null(row),
            Self::Timestamp(array) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Null => true,
        }
    }
}

pub fn write_int(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub fn write_decimal(out: &mut Vec<u8>, value: i128, scale: u32) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    let scale = scale as usize;
    if scale == 0 {
        return out.extend_from_slice(digits);
    }
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.push(b'0');
    }
    out.extend_from_slice(&digits[..whole]);
    out.push(b'.');
    out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(&digits[whole..]);
}

/// The shortest text that reads back as the same number; `null` if JSON has none for it.
pub fn write_double(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("writing to memory does not fail");
}

/// `2026-11-22T10:03:04Z`, with milliseconds or microseconds where there are any.
pub fn write_timestamp(out: &mut Vec<u8>, micros: i64) {
    let (day, within) = (micros.div_euclid(DAY_US), micros.rem_euclid(DAY_US));
    write_day(out, day);
    write_clock(out, (within / 1_000_000) as u32);
    let fraction = (within % 1_000_000) as u32;
    if fraction != 0 {
        out.push(b'.');
        write_digits(out, fraction / 1_000);
        if !fraction.is_multiple_of(1_000) {
            write_digits(out, fraction % 1_000);
        }
    }
    out.push(b'Z');
}

/// `T10:03:04` from seconds of a day.
fn write_clock(out: &mut Vec<u8>, seconds: u32) {
    let mut text = *b"T00:00:00";
    for (place, value) in [(1, seconds / 3600), (4, seconds / 60 % 60), (7, seconds % 60)] {
        (text[place], text[place + 1]) = (b'0' + (value / 10) as u8, b'0' + (value % 10) as u8);
    }
    out.extend_from_slice(&text);
}

/// A value below one thousand, as three digits.
pub fn write_digits(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&[value / 100, value / 10 % 10, value % 10].map(|digit| b'0' + digit as u8));
}

/// `2026-11-22` from days since 1970-01-01.
pub fn write_day(out: &mut Vec<u8>, day: i64) {
    let (year, month, date) = civil(day);
    if (0..=9999).contains(&year) {
        let year = year as u32;
        let mut text = *b"0000-00-00";
        for (place, value) in [(0, year / 100), (2, year % 100), (5, month), (8, date)] {
            (text[place], text[place + 1]) = (b'0' + (value / 10) as u8, b'0' + (value % 10) as u8);
        }
        return out.extend_from_slice(&text);
    }
    // ISO 8601's expanded form: RFC 3339 has none for such years.
    write!(out, "{year:+06}-{month:02}-{date:02}").expect("writing to memory does not fail");
}

/// Year, month, day of a day number: <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn civil(day: i64) -> (i64, u32, u32) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month as u32, date as u32)
}

/// A timestamp of Unix milliseconds, always with three digits behind the second.
pub fn write_timestamp_ms(out: &mut Vec<u8>, millis: i64) {
    let within = millis.rem_euclid(DAY_US / 1_000) as u32;
    write_day(out, millis.div_euclid(DAY_US / 1_000));
    write_clock(out, within / 1_000);
    out.push(b'.');
    write_digits(out, within % 1_000);
    out.push(b'Z');
}

/// As `write_timestamp_ms`, as a text of its own.
pub fn rfc3339_ms(millis: i64) -> String {
    let mut out = Vec::with_capacity(24);
    write_timestamp_ms(&mut out, millis);
    String::from_utf8(out).expect("only ASCII was written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn decimals_have_all_their_digits() {
        for (value, scale, expected) in [
            (123_450, 2, "1234.50"),
            (0, 2, "0.00"),
            (-5, 2, "-0.05"),
            (5, 0, "5"),
            (-1, 3, "-0.001"),
            (100, 2, "1.00"),
            (i128::MIN, 0, "-170141183460469231731687303715884105728"),
            (7, 38, "0.00000000000000000000000000000000000007"),
        ] {
            assert_eq!(written(|out| write_decimal(out, value, scale)), expected);
        }
    }

    #[test]
    fn times_have_a_fraction_only_where_there_is_one() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
            (1_500_000, "1970-01-01T00:00:01.500Z"),
            (1_795_341_784_120_000, "2026-11-22T10:03:04.120Z"),
            (-62_167_219_200_000_000, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(written(|out| write_timestamp(out, micros)), expected);
        }
        assert_eq!(rfc3339_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_ms(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(rfc3339_ms(1_795_341_784_020), "2026-11-22T10:03:04.020Z");
        assert_eq!(written(|out| write_double(out, f64::NAN)), "null");
        assert!(written(|out| write_timestamp(out, i64::MAX)).starts_with("+294247-01-10T"));
    }

    proptest! {
        #[test]
        fn days_are_those_of_the_calendar(day in -700_000i64..2_900_000) {
            let date = chrono::DateTime::UNIX_EPOCH.date_naive() + chrono::Duration::days(day);
            prop_assert_eq!(written(|out| write_day(out, day)), date.format("%Y-%m-%d").to_string());
        }
    }
}
