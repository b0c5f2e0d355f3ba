//! How the values of metric tables stand in columns of SQL: as literals when written, as cells when read.
//!
//! Invariant: a literal cannot end its own quotes, whatever the text; `write` says whether the column gives the value back
//! exactly, and what was written exactly is read as the same value.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use mysql_async::Value;

use crate::model::codec::CodecError;

/// Characters of a text that stand in a column; a longer one is cut there, and whole in `holdfast_exact`.
pub const TEXT_CHARS: usize = 255;
/// Digits behind the point that SQL's decimals have room for; sums and averages may have more.
const MOST_SCALE: u8 = 30;
/// What datetime and date promise to hold.
const YEARS: std::ops::RangeInclusive<i32> = 1_000..=9_999;

/// A column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Double,
    /// Precision and scale of the values.
    Decimal(u8, u8),
    Text,
    Bool,
    Timestamp,
    Date,
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Int(i64),
    Double(f64),
    /// In units of the column's scale.
    Decimal(i128),
    Text(String),
    Bool(bool),
    /// Microseconds since the Unix epoch.
    Timestamp(i64),
    /// Days since then.
    Date(i32),
}

impl Kind {
    /// `None`: metric tables have no such columns.
    pub fn of(kind: &DataType) -> Option<Self> {
        Some(match kind {
            DataType::Int64 => Self::Int,
            DataType::Float64 => Self::Double,
            DataType::Decimal128(precision, scale) => Self::Decimal(*precision, u8::try_from(*scale).ok()?),
            DataType::Utf8 => Self::Text,
            DataType::Boolean => Self::Bool,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Self::Timestamp,
            DataType::Date32 => Self::Date,
            _ => return None,
        })
    }

    /// The type as `information_schema` names it, without display widths.
    pub fn sql(self) -> String {
        match self {
            Self::Int => "bigint".into(),
            Self::Double => "double".into(),
            Self::Decimal(precision, scale) => {
                let (digits, scale) = column_decimal(precision, scale);
                format!("decimal({digits},{scale})")
            }
            Self::Text => format!("varchar({TEXT_CHARS})"),
            Self::Bool => "tinyint".into(),
            Self::Timestamp => "datetime(6)".into(),
            Self::Date => "date".into(),
        }
    }

    /// Appends a value as a literal. `false`: the column will not give it back exactly.
    pub fn write(self, out: &mut Vec<u8>, values: &dyn Array, row: usize) -> bool {
        if values.is_null(row) {
            return write_null(out, true);
        }
        match self {
            Self::Int => write_int(out, values.as_primitive::<Int64Type>().value(row)),
            Self::Double => {
                let value = values.as_primitive::<Float64Type>().value(row);
                if !value.is_finite() {
                    return write_null(out, false);
                }
                // An exponent makes it a double for the server, and the shortest digits read back as the same one.
                out.extend_from_slice(format!("{value:e}").as_bytes());
                return value != 0.0 || value.is_sign_positive();
            }
            Self::Decimal(precision, scale) => {
                let value = values.as_primitive::<Decimal128Type>().value(row);
                return write_decimal(out, value, precision, scale);
            }
            Self::Text => return write_column_text(out, values.as_string::<i32>().value(row)),
            Self::Bool => out.push(if values.as_boolean().value(row) { b'1' } else { b'0' }),
            Self::Timestamp => {
                let value = values.as_primitive::<TimestampMicrosecondType>().value(row);
                return write_timestamp(out, value) || write_null(out, false);
            }
            Self::Date => {
                let value = values.as_primitive::<Date32Type>().value(row);
                let day = day_of(value).filter(|day| YEARS.contains(&day.year()));
                let Some(day) = day else { return write_null(out, false) };
                out.extend_from_slice(format!("'{day}'").as_bytes());
            }
        }
        true
    }

    /// The inverse, of a row that says that its columns are exact.
    pub fn read(self, value: Value) -> Result<Cell, CodecError> {
        let wrong = |value: &Value| CodecError::malformed("column", format!("{value:?} in a column of {}", self.sql()));
        Ok(match (self, value) {
            (_, Value::NULL) => Cell::Null,
            (Self::Int, Value::Int(value)) => Cell::Int(value),
            (Self::Int, Value::UInt(value)) if i64::try_from(value).is_ok() => Cell::Int(value as i64),
            (Self::Double, Value::Double(value)) => Cell::Double(value),
            (Self::Decimal(_, scale), Value::Bytes(text)) => {
                let read = read_decimal(&text, scale);
                Cell::Decimal(read.ok_or_else(|| wrong(&Value::Bytes(text)))?)
            }
            (Self::Text, Value::Bytes(text)) => {
                Cell::Text(String::from_utf8(text).map_err(|error| CodecError::malformed("column", error))?)
            }
            (Self::Bool, Value::Int(value)) => Cell::Bool(value != 0),
            (Self::Timestamp, Value::Date(year, month, day, hour, minute, second, micros)) => {
                let day = NaiveDate::from_ymd_opt(year.into(), month.into(), day.into());
                let time = day.and_then(|day| day.and_hms_micro_opt(hour.into(), minute.into(), second.into(), micros));
                let found = Value::Date(year, month, 0, hour, minute, second, micros);
                Cell::Timestamp(time.ok_or_else(|| wrong(&found))?.and_utc().timestamp_micros())
            }
            (Self::Date, Value::Date(year, month, day, ..)) => {
                let found = NaiveDate::from_ymd_opt(year.into(), month.into(), day.into());
                let found = found.ok_or_else(|| wrong(&Value::Date(year, month, day, 0, 0, 0, 0)))?;
                Cell::Date((found - NaiveDate::default()).num_days() as i32)
            }
            (_, value) => return Err(wrong(&value)),
        })
    }

    /// A value of rows that came whole.
    pub fn cell(self, values: &dyn Array, row: usize) -> Cell {
        if values.is_null(row) {
            return Cell::Null;
        }
        match self {
            Self::Int => Cell::Int(values.as_primitive::<Int64Type>().value(row)),
            Self::Double => Cell::Double(values.as_primitive::<Float64Type>().value(row)),
            Self::Decimal(..) => Cell::Decimal(values.as_primitive::<Decimal128Type>().value(row)),
            Self::Text => Cell::Text(values.as_string::<i32>().value(row).to_owned()),
            Self::Bool => Cell::Bool(values.as_boolean().value(row)),
            Self::Timestamp => Cell::Timestamp(values.as_primitive::<TimestampMicrosecondType>().value(row)),
            Self::Date => Cell::Date(values.as_primitive::<Date32Type>().value(row)),
        }
    }

    /// A column of cells, which all came by `read` or `cell` of this kind.
    pub fn column<'a>(self, cells: impl Iterator<Item = &'a Cell>) -> ArrayRef {
        macro_rules! gather {
            ($array:ident, $variant:ident, $take:expr) => {{
                let values = cells.map(|cell| match cell {
                    Cell::$variant(value) => Some($take(value)),
                    _ => None,
                });
                values.collect::<$array>()
            }};
        }
        match self {
            Self::Int => Arc::new(gather!(Int64Array, Int, |value: &i64| *value)),
            Self::Double => Arc::new(gather!(Float64Array, Double, |value: &f64| *value)),
            Self::Decimal(precision, scale) => {
                let values = gather!(Decimal128Array, Decimal, |value: &i128| *value);
                let typed = values.with_precision_and_scale(precision, scale as i8);
                Arc::new(typed.expect("the type was checked with the metric"))
            }
            Self::Text => Arc::new(gather!(StringArray, Text, |value: &'a String| value.as_str())),
            Self::Bool => Arc::new(gather!(BooleanArray, Bool, |value: &bool| *value)),
            Self::Timestamp => Arc::new(gather!(TimestampMicrosecondArray, Timestamp, |value: &i64| *value)),
            Self::Date => Arc::new(gather!(Date32Array, Date, |value: &i32| *value)),
        }
    }
}

impl Cell {
    /// The order of groups in a block: nulls first, texts by their bytes.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Int(a), Self::Int(b)) | (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::Decimal(a), Self::Decimal(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(b),
            _ => Ordering::Equal,
        }
    }

    /// Of the memory held.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + if let Self::Text(text) = self { text.capacity() } else { 0 }
    }
}

fn write_null(out: &mut Vec<u8>, is_exact: bool) -> bool {
    out.extend_from_slice(b"null");
    is_exact
}

pub fn write_int(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Digits and scale of the column for decimals of a precision and scale.
fn column_decimal(precision: u8, scale: u8) -> (u8, u8) {
    let kept = scale.min(MOST_SCALE);
    (precision.saturating_sub(scale - kept).max(kept).max(1), kept)
}

fn write_decimal(out: &mut Vec<u8>, value: i128, precision: u8, scale: u8) -> bool {
    let (digits, kept) = column_decimal(precision, scale);
    let cut = 10_i128.pow(u32::from(scale - kept));
    let (shown, rest) = (value / cut, value % cut);
    // A sum may have a digit more than its type says.
    if shown.unsigned_abs() >= 10_u128.pow(u32::from(digits)) {
        return write_null(out, false);
    }
    if shown < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(shown.unsigned_abs()).as_bytes();
    let kept = usize::from(kept);
    let whole = text.len().saturating_sub(kept);
    if whole == 0 {
        out.push(b'0');
    }
    out.extend_from_slice(&text[..whole]);
    if kept > 0 {
        out.push(b'.');
        out.resize(out.len() + kept.saturating_sub(text.len()), b'0');
        out.extend_from_slice(&text[whole..]);
    }
    rest == 0
}

fn read_decimal(text: &[u8], scale: u8) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let missing = usize::from(scale).checked_sub(part.len())?;
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(part.bytes()).chain(std::iter::repeat_n(b'0', missing)) {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value = value.checked_mul(10)?.checked_add(digit.into())?;
    }
    Some(if negative { -value } else { value })
}

fn write_column_text(out: &mut Vec<u8>, text: &str) -> bool {
    // No character is shorter than a byte.
    let cut = if text.len() <= TEXT_CHARS { None } else { text.char_indices().nth(TEXT_CHARS) };
    write_text(out, cut.map_or(text, |(at, _)| &text[..at]));
    cut.is_none()
}

/// A string literal, for a connection of utf8mb4 whose `sql_mode` leaves backslashes their meaning.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'\'');
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => out.extend_from_slice(b"''"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0 => out.extend_from_slice(b"\\0"),
            byte => out.push(byte),
        }
    }
    out.push(b'\'');
}

/// A literal of bytes.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * bytes.len() + 3);
    out.extend_from_slice(b"x'");
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.push(b'\'');
}

/// `false`, and nothing is written, if it is of a year that datetime does not promise to hold.
pub fn write_timestamp(out: &mut Vec<u8>, micros: i64) -> bool {
    let Some(at) = DateTime::from_timestamp_micros(micros).filter(|at| YEARS.contains(&at.year())) else {
        return false;
    };
    out.push(b'\'');
    let mut part = |value: u32, digits: u32, after: u8| {
        (0..digits).rev().for_each(|place| out.push(b'0' + (value / 10_u32.pow(place) % 10) as u8));
        out.push(after);
    };
    part(at.year().unsigned_abs(), 4, b'-');
    part(at.month(), 2, b'-');
    part(at.day(), 2, b' ');
    part(at.hour(), 2, b':');
    part(at.minute(), 2, b':');
    part(at.second(), 2, b'.');
    part(at.nanosecond() / 1_000, 6, b'\'');
    true
}

fn day_of(days: i32) -> Option<NaiveDate> {
    NaiveDate::default().checked_add_signed(chrono::TimeDelta::days(days.into()))
}

#[cfg(test)]
#[path = "mysql_value_tests.rs"]
mod tests;
