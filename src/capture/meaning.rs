//! What a column of the database means, and its values as those of a `[[table]]`'s column. Pure.
//!
//! Invariant: a value is taken exactly or refused with the reason. Zero dates, which MySQL itself takes for null, are null.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::cell::{Cell, Civil};
use crate::model::schema::{ColumnType, Table};

/// A column as the database defines it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    pub name: String,
    /// `int(10) unsigned`, `enum('a','b')`: `column_type` of `information_schema`.
    pub sql_type: String,
    pub charset: Option<String>,
}

impl Declared {
    /// As it is remembered: of a column that `table` does not have only the name, which tells where it stands.
    pub fn kept(&self, table: &Table) -> Self {
        match table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(&self.name)) {
            true => self.clone(),
            false => Self { name: self.name.clone(), sql_type: String::new(), charset: None },
        }
    }
}

/// What the values of a column are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    Int {
        unsigned: bool,
    },
    Decimal,
    Float,
    Double,
    Utf8,
    /// Which is Windows-1252 for MySQL.
    Latin1,
    Enum(Vec<String>),
    Set(Vec<String>),
    Bit,
    Year,
    Date,
    DateTime,
    Timestamp,
    Time,
    /// Not read, for this reason.
    Other(&'static str),
}

/// Why a value is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FitError {
    #[error("it is null, and key and partition columns never are")]
    Null,
    #[error("{0} is out of range")]
    Range(String),
    #[error("{0} has more digits after the point than the column's scale")]
    TooFine(String),
    #[error("{0} is no day of the calendar")]
    NoSuchDay(String),
    #[error("its bytes are not UTF-8")]
    NotUtf8,
    #[error("its enum or set has no label number {0}")]
    NoSuchLabel(u64),
    #[error("a value of this form does not belong in the column")]
    Form,
}

impl Meaning {
    pub fn of(declared: &Declared) -> Self {
        let text = declared.sql_type.trim();
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
        let (base, rest) = text.split_at(end);
        let unsigned = rest.to_ascii_lowercase().contains("unsigned");
        match base.to_ascii_lowercase().as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" | "bool" | "boolean" => {
                Self::Int { unsigned }
            }
            "decimal" | "numeric" | "dec" | "fixed" => Self::Decimal,
            "float" => Self::Float,
            "double" | "real" => Self::Double,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
                text_of(declared.charset.as_deref())
            }
            "enum" => labels(rest).map_or(Self::Other("its labels cannot be read"), Self::Enum),
            "set" => labels(rest).map_or(Self::Other("its labels cannot be read"), Self::Set),
            "bit" => Self::Bit,
            "year" => Self::Year,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            "timestamp" => Self::Timestamp,
            "time" => Self::Time,
            "json" => Self::Other("MySQL's json is binary; add a stored generated column with the part that is needed"),
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                Self::Other("it holds bytes, not text")
            }
            _ => Self::Other("its type has no counterpart"),
        }
    }

    /// Can values of this become values of that?
    pub fn fits(&self, kind: ColumnType) -> Result<(), String> {
        use ColumnType as To;
        let fits = match (self, kind) {
            (Self::Other(reason), _) => return Err((*reason).to_owned()),
            (Self::Int { .. }, To::Int | To::Bool | To::Decimal { .. }) => true,
            (Self::Year | Self::Bit, To::Int) | (Self::Bit, To::Bool) => true,
            (Self::Decimal, To::Decimal { .. }) => true,
            (Self::Float | Self::Double, To::Double) => true,
            (Self::Utf8 | Self::Latin1 | Self::Enum(_) | Self::Set(_) | Self::Time, To::Text) => true,
            (Self::DateTime | Self::Timestamp, To::Timestamp) => true,
            (Self::Date, To::Date) => true,
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("it does not become {kind}")) }
    }
}

fn text_of(charset: Option<&str>) -> Meaning {
    match charset {
        Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii") => Meaning::Utf8,
        Some("latin1") => Meaning::Latin1,
        _ => Meaning::Other("its character set is neither utf8mb4, utf8mb3, ascii nor latin1"),
    }
}

/// The labels of `('a','b''c')`.
fn labels(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim_start().strip_prefix('(')?;
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start().strip_prefix('\'')?;
        let mut label = String::new();
        loop {
            let quote = rest.find('\'')?;
            label.push_str(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest.strip_prefix('\'') {
                Some(after) => {
                    label.push('\'');
                    rest = after;
                }
                None => break,
            }
        }
        labels.push(label);
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return rest.starts_with(')').then_some(labels),
        }
    }
}

/// What the sign of a raw number is by its meaning.
#[inline]
fn whole(cell: Cell<'_>, meaning: &Meaning) -> Result<i128, FitError> {
    Ok(match cell {
        Cell::Int(value) => value.into(),
        Cell::Uint(value) | Cell::Bits(value) => value.into(),
        Cell::Raw { value, bytes } => match meaning {
            Meaning::Int { unsigned: true } => value.into(),
            Meaning::Int { unsigned: false } => {
                let shift = 64 - 8 * u32::from(bytes.clamp(1, 8));
                (((value << shift) as i64) >> shift).into()
            }
            _ => return Err(FitError::Form),
        },
        _ => return Err(FitError::Form),
    })
}

#[inline]
pub fn int(cell: Cell<'_>, meaning: &Meaning) -> Result<i64, FitError> {
    let value = whole(cell, meaning)?;
    i64::try_from(value).map_err(|_| FitError::Range(value.to_string()))
}

pub fn boolean(cell: Cell<'_>, meaning: &Meaning) -> Result<bool, FitError> {
    Ok(whole(cell, meaning)? != 0)
}

#[inline]
pub fn decimal(cell: Cell<'_>, meaning: &Meaning, precision: u8, scale: u8) -> Result<i128, FitError> {
    let (value, has) = match cell {
        Cell::Decimal { unscaled, scale } => (unscaled, scale),
        _ => (whole(cell, meaning)?, 0),
    };
    let shown = || format!("{value}e-{has}");
    let scaled = if has <= scale {
        value.checked_mul(10i128.pow(u32::from(scale - has))).ok_or_else(|| FitError::Range(shown()))?
    } else {
        let cut = 10i128.checked_pow(u32::from(has - scale)).ok_or_else(|| FitError::TooFine(shown()))?;
        if value % cut != 0 {
            return Err(FitError::TooFine(shown()));
        }
        value / cut
    };
    if scaled.unsigned_abs() < 10u128.pow(u32::from(precision)) { Ok(scaled) } else { Err(FitError::Range(shown())) }
}

pub fn double(cell: Cell<'_>) -> Result<f64, FitError> {
    match cell {
        Cell::Float(value) => Ok(value.into()),
        Cell::Double(value) => Ok(value),
        _ => Err(FitError::Form),
    }
}

/// Appends the text's bytes, and says how many.
#[inline]
pub fn text(cell: Cell<'_>, meaning: &Meaning, to: &mut Vec<u8>) -> Result<usize, FitError> {
    let before = to.len();
    match (cell, meaning) {
        (Cell::Text(text), _) => to.extend_from_slice(text.as_bytes()),
        (Cell::Bytes(bytes), Meaning::Utf8) => {
            let text = std::str::from_utf8(bytes).map_err(|_| FitError::NotUtf8)?;
            to.extend_from_slice(text.as_bytes());
        }
        (Cell::Bytes(bytes), Meaning::Latin1) => {
            let mut buffer = [0; 4];
            bytes.iter().for_each(|byte| to.extend_from_slice(latin1(*byte).encode_utf8(&mut buffer).as_bytes()));
        }
        // The label of a value that was refused.
        (Cell::Label(0), Meaning::Enum(_)) => {}
        (Cell::Label(number), Meaning::Enum(labels)) => {
            let label = labels.get(number as usize - 1).ok_or(FitError::NoSuchLabel(number))?;
            to.extend_from_slice(label.as_bytes());
        }
        (Cell::Bits(bits), Meaning::Set(labels)) => {
            for number in (0..64).filter(|number| bits >> number & 1 == 1) {
                let label = labels.get(number).ok_or(FitError::NoSuchLabel(number as u64 + 1))?;
                if to.len() > before {
                    to.push(b',');
                }
                to.extend_from_slice(label.as_bytes());
            }
        }
        (Cell::Time { negative, hours, minutes, seconds, micros }, Meaning::Time) => {
            let sign = if negative { "-" } else { "" };
            to.extend_from_slice(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}").as_bytes());
            if micros > 0 {
                to.extend_from_slice(format!(".{micros:06}").as_bytes());
            }
        }
        _ => return Err(FitError::Form),
    }
    Ok(to.len() - before)
}

/// Windows-1252; its five holes are control characters, as for MySQL.
fn latin1(byte: u8) -> char {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];
    match byte {
        0x80..0xa0 => HIGH[usize::from(byte - 0x80)],
        _ => char::from(byte),
    }
}

fn shown(civil: Civil) -> String {
    let Civil { year, month, day, hour, minute, second, .. } = civil;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

fn naive_date(civil: Civil) -> Result<NaiveDate, FitError> {
    let day = NaiveDate::from_ymd_opt(civil.year.into(), civil.month.into(), civil.day.into());
    // Our dates begin with the year 1.
    day.filter(|_| civil.year > 0).ok_or_else(|| FitError::NoSuchDay(shown(civil)))
}

/// Days since the Unix epoch; `None` is null.
pub fn date(cell: Cell<'_>) -> Result<Option<i32>, FitError> {
    let Cell::Date(civil) = cell else { return Err(FitError::Form) };
    if civil.is_zero() {
        return Ok(None);
    }
    let days = naive_date(civil)?.signed_duration_since(NaiveDate::default()).num_days();
    Ok(Some(days as i32))
}

/// Microseconds since the Unix epoch; `None` is null. `zone` is that of values without one.
#[inline]
pub fn timestamp(cell: Cell<'_>, meaning: &Meaning, zone: Tz) -> Result<Option<i64>, FitError> {
    let civil = match cell {
        // Zero seconds are the zero date: nobody can store the epoch itself.
        Cell::Instant(0) => return Ok(None),
        Cell::Instant(micros) => return Ok(Some(micros)),
        Cell::DateTime(civil) | Cell::Date(civil) => civil,
        _ => return Err(FitError::Form),
    };
    if civil.is_zero() {
        return Ok(None);
    }
    let time = NaiveTime::from_hms_micro_opt(civil.hour.into(), civil.minute.into(), civil.second.into(), civil.micros);
    let local = naive_date(civil)?.and_time(time.ok_or_else(|| FitError::NoSuchDay(shown(civil)))?);
    // Timestamps are asked for in UTC.
    let in_utc = zone == Tz::UTC || *meaning == Meaning::Timestamp;
    Ok(Some(if in_utc { local } else { to_utc(local, zone) }.and_utc().timestamp_micros()))
}

/// An hour that comes twice is taken for its first; one that is left out goes on with the offset before it.
fn to_utc(local: NaiveDateTime, zone: Tz) -> NaiveDateTime {
    match zone.offset_from_local_datetime(&local).earliest() {
        Some(offset) => local - offset.fix(),
        None => {
            let before = zone.offset_from_local_datetime(&(local - TimeDelta::hours(3))).earliest();
            before.map_or(local, |offset| local - offset.fix())
        }
    }
}

#[cfg(test)]
#[path = "meaning_tests.rs"]
mod tests;
