//! One value of a row, as a binary log or a result set has it. Pure.
//!
//! Invariant: the same value of the database is the same value of holdfast whichever way it came: a row that a snapshot read is
//! taken away by the row before that the log has.

use super::event::{Input, Short};
use super::tablemap::{Physical, WORD_DIGITS, digits_bytes, fraction_bytes};

/// A value, not yet fitted to a column of ours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    Null,
    Int(i64),
    Uint(u64),
    /// Whole numbers of 1, 2, 3, 4 or 8 bytes whose sign is in the table's definition.
    Raw {
        value: u64,
        bytes: u8,
    },
    Float(f32),
    Double(f64),
    Decimal {
        unscaled: i128,
        scale: u8,
    },
    /// In the character set of its column.
    Bytes(&'a [u8]),
    /// Already UTF-8; labels of enums and sets as well.
    Text(&'a str),
    /// Number of an enum's label, from one; zero is the empty label of a refused value.
    Label(u64),
    /// A set's labels, a bit each, or a bit field.
    Bits(u64),
    Date(Civil),
    /// Without a zone.
    DateTime(Civil),
    /// Microseconds since the Unix epoch.
    Instant(i64),
    Time {
        negative: bool,
        hours: u32,
        minutes: u8,
        seconds: u8,
        micros: u32,
    },
}

/// A day and a time of day, not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Civil {
    pub year: u16,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    pub micros: u32,
}

impl Civil {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CellError {
    #[error(transparent)]
    Short(#[from] Short),
    #[error("a decimal of more than 38 digits")]
    TooManyDigits,
    #[error("a type that is not read")]
    Opaque,
}

const MOST_FRACTION_DIGITS: u8 = 6;

/// A value from its bytes in a row event.
#[inline]
pub fn cell(physical: Physical, bytes: &[u8]) -> Result<Cell<'_>, CellError> {
    let mut input = Input(bytes);
    Ok(match physical {
        Physical::Int(width) => Cell::Raw { value: input.uint(usize::from(width))?, bytes: width },
        Physical::Float => Cell::Float(f32::from_le_bytes(input.array()?)),
        Physical::Double => Cell::Double(f64::from_le_bytes(input.array()?)),
        Physical::Year => match input.u8()? {
            0 => Cell::Uint(0),
            year => Cell::Uint(1_900 + u64::from(year)),
        },
        Physical::Date => {
            let value = input.uint(3)?;
            Cell::Date(Civil {
                year: (value >> 9) as u16,
                month: (value >> 5 & 15) as u8,
                day: (value & 31) as u8,
                ..Civil::default()
            })
        }
        Physical::Decimal { precision, scale } => Cell::Decimal { unscaled: decimal(bytes, precision, scale)?, scale },
        Physical::Timestamp2(digits) => {
            let seconds = input.uint_big(4)? as i64;
            Cell::Instant(seconds * 1_000_000 + i64::from(fraction(&mut input, digits)?))
        }
        Physical::TimestampOld => Cell::Instant(input.uint(4)? as i64 * 1_000_000),
        Physical::DateTime2(digits) => datetime(&mut input, digits)?,
        Physical::DateTimeOld => {
            let value = input.uint(8)?;
            let (date, time) = (value / 1_000_000, value % 1_000_000);
            Cell::DateTime(Civil {
                year: (date / 10_000) as u16,
                month: (date / 100 % 100) as u8,
                day: (date % 100) as u8,
                hour: (time / 10_000) as u8,
                minute: (time / 100 % 100) as u8,
                second: (time % 100) as u8,
                micros: 0,
            })
        }
        Physical::Time2(digits) => time(bytes, digits)?,
        Physical::TimeOld => {
            let value = input.uint(3)? as u32;
            // 24 bits, signed.
            let value = ((value << 8) as i32) >> 8;
            let digits = value.unsigned_abs();
            let (hours, minutes, seconds) = (digits / 10_000, (digits / 100 % 100) as u8, (digits % 100) as u8);
            Cell::Time { negative: value < 0, hours, minutes, seconds, micros: 0 }
        }
        Physical::Bit(_) => Cell::Bits(input.uint_big(bytes.len().min(8))?),
        Physical::Enum(_) => Cell::Label(input.uint(bytes.len().min(8))?),
        Physical::Set(_) => Cell::Bits(input.uint(bytes.len().min(8))?),
        Physical::Bytes(_) => Cell::Bytes(bytes),
        Physical::Json(_) | Physical::Opaque(_) => return Err(CellError::Opaque),
    })
}

/// Microseconds, from 0–3 bytes, big-endian.
fn fraction(input: &mut Input<'_>, digits: u8) -> Result<u32, Short> {
    if digits > MOST_FRACTION_DIGITS {
        return Err(Short);
    }
    let bytes = fraction_bytes(digits);
    let value = input.uint_big(bytes)? as u32;
    Ok(match bytes {
        0 => 0,
        1 => value.min(99) * 10_000,
        2 => value.min(9_999) * 100,
        _ => value.min(999_999),
    })
}

/// 1 bit sign, 17 bits year and month, 5 bits day, 5, 6, 6 bits of time, and the fraction.
fn datetime(input: &mut Input<'_>, digits: u8) -> Result<Cell<'static>, CellError> {
    let packed = input.uint_big(5)? & 0x7f_ffff_ffff;
    let (days, time) = (packed >> 17, packed & 0x1_ffff);
    let months = days >> 5;
    Ok(Cell::DateTime(Civil {
        year: (months / 13) as u16,
        month: (months % 13) as u8,
        day: (days & 31) as u8,
        hour: (time >> 12) as u8,
        minute: (time >> 6 & 63) as u8,
        second: (time & 63) as u8,
        micros: fraction(input, digits)?,
    }))
}

/// 1 bit sign, 1 unused, 10 bits of hours, 6, 6, and the fraction; all of it one number, offset by half its range.
fn time(bytes: &[u8], digits: u8) -> Result<Cell<'static>, CellError> {
    if digits > MOST_FRACTION_DIGITS {
        return Err(Short.into());
    }
    let fraction_bytes = fraction_bytes(digits);
    let bits = 8 * (3 + fraction_bytes) as u32;
    let packed = Input(bytes).uint_big(3 + fraction_bytes)? as i64 - (1 << (bits - 1));
    let (negative, value) = (packed < 0, packed.unsigned_abs());
    let fraction_bits = 8 * fraction_bytes as u32;
    let (whole, part) = (value >> fraction_bits, (value & ((1 << fraction_bits) - 1)) as u32);
    let micros = match fraction_bytes {
        0 => 0,
        1 => part * 10_000,
        2 => part * 100,
        _ => part,
    };
    let (hours, minutes, seconds) = ((whole >> 12 & 1_023) as u32, (whole >> 6 & 63) as u8, (whole & 63) as u8);
    Ok(Cell::Time { negative, hours, minutes, seconds, micros })
}

/// Nine digits in each four bytes, the first word of the whole part and the last of the fraction shorter; the highest bit is
/// set for positive ones, and all bits are turned over for negative ones.
fn decimal(bytes: &[u8], precision: u8, scale: u8) -> Result<i128, CellError> {
    let whole = precision.checked_sub(scale).ok_or(Short)?;
    let negative = bytes.first().ok_or(Short)? & 0x80 == 0;
    let mask = if negative { 0xff } else { 0 };
    let (mut at, mut value) = (0, 0i128);
    let mut word = |digits: u8, value: &mut i128| {
        let part = bytes.get(at..at + digits_bytes(digits)).ok_or(Short)?;
        let mut number = 0u64;
        for (index, byte) in part.iter().enumerate() {
            let first = if at + index == 0 { 0x80 } else { 0 };
            number = number << 8 | u64::from(byte ^ first ^ mask);
        }
        at += part.len();
        let grown = value.checked_mul(10i128.pow(u32::from(digits))).and_then(|value| value.checked_add(number.into()));
        *value = grown.ok_or(CellError::TooManyDigits)?;
        Ok::<(), CellError>(())
    };
    word(whole % WORD_DIGITS, &mut value)?;
    for _ in 0..whole / WORD_DIGITS + scale / WORD_DIGITS {
        word(WORD_DIGITS, &mut value)?;
    }
    word(scale % WORD_DIGITS, &mut value)?;
    Ok(if negative { -value } else { value })
}

/// A decimal from its text, as result sets have it.
pub fn decimal_text(text: &[u8]) -> Option<Result<Cell<'static>, CellError>> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (mut value, mut scale, mut after_point) = (0i128, 0u8, false);
    for byte in digits {
        match byte {
            b'.' if !after_point => after_point = true,
            b'0'..=b'9' => {
                let grown = value.checked_mul(10).and_then(|value| value.checked_add(i128::from(byte - b'0')));
                let Some(grown) = grown else { return Some(Err(CellError::TooManyDigits)) };
                value = grown;
                scale += u8::from(after_point);
            }
            _ => return None,
        }
    }
    (!digits.is_empty()).then_some(Ok(Cell::Decimal { unscaled: if negative { -value } else { value }, scale }))
}

#[cfg(test)]
#[path = "cell_tests.rs"]
mod tests;
