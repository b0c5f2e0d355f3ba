//! Literals: numbers typed by the digits they are written with, dates, times, intervals.
//!
//! Invariant: a number keeps every digit it is written with, or is refused.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Int64Array, NullArray, StringArray};
use sqlparser::ast::Value;

use super::kernels::pow10;
use super::time::{Interval, day_of_civil};
use super::types::MAX_PRECISION;
use crate::model::window::DAY_US;

/// A literal of SQL as an array of one value: int, decimal with exactly its digits, text, bool or null.
pub fn literal_array(value: &Value) -> Result<ArrayRef, String> {
    Ok(match value {
        Value::Number(text, _) => number(text)?,
        Value::SingleQuotedString(text) => Arc::new(StringArray::from(vec![text.as_str()])),
        Value::Boolean(value) => Arc::new(BooleanArray::from(vec![*value])),
        Value::Null => Arc::new(NullArray::new(1)),
        Value::DoubleQuotedString(_) => return Err("text is written in single quotes".into()),
        other => return Err(format!("literals like {other} are not supported")),
    })
}

/// An unsigned or signed number: an int if it is written like one and fits, else a decimal.
pub(super) fn number(text: &str) -> Result<ArrayRef, String> {
    if let Ok(int) = text.parse::<i64>() {
        return Ok(Arc::new(Int64Array::from(vec![int])));
    }
    let (value, scale) = exact_number(text).ok_or_else(|| format!("'{text}' has more than {MAX_PRECISION} digits"))?;
    // A number like 1e3 has zeros behind its digits.
    let too_large = || format!("'{text}' has more than {MAX_PRECISION} digits");
    let (value, scale) = match u32::try_from(scale) {
        Ok(scale) => (value, scale),
        Err(_) => (pow10(scale.unsigned_abs()).and_then(|p| value.checked_mul(p)).ok_or_else(too_large)?, 0),
    };
    let digits = digits(value).max(scale).max(1);
    if digits > u32::from(MAX_PRECISION) {
        return Err(too_large());
    }
    let array = Decimal128Array::from(vec![value]).with_precision_and_scale(digits as u8, scale as i8);
    Ok(Arc::new(array.map_err(|error| error.to_string())?))
}

/// How many digits a number is written with.
pub(super) fn digits(value: i128) -> u32 {
    value.unsigned_abs().checked_ilog10().map_or(0, |log| log + 1)
}

/// `-12.50`, `1.5e-3` as digits and scale (which is negative for `1e3`). `None`: no number, or too many digits.
pub(super) fn exact_number(text: &str) -> Option<(i128, i32)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.len() + fraction.len() == 0 {
        return None;
    }
    let mut value = 0i128;
    for digit in whole.bytes().chain(fraction.bytes()) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    Some((if negative { -value } else { value }, scale))
}

/// A time as it is written: absolute, or as local clocks show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Instant(i64),
    Local(i64),
}

/// `2026-11-22`: days since 1970-01-01.
pub(super) fn date(text: &str) -> Option<i32> {
    let mut cursor = Cursor(text.trim().as_bytes());
    let day = cursor.date()?;
    cursor.0.is_empty().then_some(day as i32)
}

/// `2026-11-22`, `2026-11-22 10:03`, `2026-11-22T10:03:04.120Z`, `2026-11-22 10:03:04+01:00`.
pub(super) fn time(text: &str) -> Option<Time> {
    let mut cursor = Cursor(text.trim().as_bytes());
    let mut local = cursor.date()? * DAY_US;
    if cursor.0.is_empty() {
        return Some(Time::Local(local));
    }
    if !cursor.take(b'T') && !cursor.take(b't') && !cursor.take(b' ') {
        return None;
    }
    local += cursor.clock()?;
    let _ = cursor.take(b' ');
    if cursor.0.is_empty() {
        return Some(Time::Local(local));
    }
    let offset = cursor.offset()?;
    cursor.0.is_empty().then(|| Time::Instant(local - offset))
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        self.0 = &self.0[usize::from(found)..];
        found
    }

    /// A number of exactly `length` digits, up to `max`.
    fn number(&mut self, length: usize, max: i64) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(length)?;
        let mut value = 0;
        for digit in digits {
            value = value * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        self.0 = rest;
        (value <= max).then_some(value)
    }

    fn date(&mut self) -> Option<i64> {
        let year = self.number(4, 9999)?;
        let month = self.take(b'-').then(|| self.number(2, 12))??;
        let day = self.take(b'-').then(|| self.number(2, 31))??;
        if month == 0 || day == 0 {
            return None;
        }
        let days = day_of_civil(year, month, day);
        // 30 February would come out in March.
        (super::time::civil(days) == (year, month, day)).then_some(days)
    }

    /// Microseconds since midnight.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.number(2, 23)?;
        let minute = self.take(b':').then(|| self.number(2, 59))??;
        let mut micros = (hour * 60 + minute) * 60_000_000;
        if self.take(b':') {
            micros += self.number(2, 59)? * 1_000_000;
            if self.take(b'.') {
                let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if !(1..=6).contains(&length) {
                    return None;
                }
                micros += self.number(length, i64::MAX)? * 10_i64.pow(6 - length as u32);
            }
        }
        Some(micros)
    }

    /// Microseconds that the clocks written are ahead of UTC.
    fn offset(&mut self) -> Option<i64> {
        if self.take(b'Z') || self.take(b'z') {
            return Some(0);
        }
        let sign = if self.take(b'+') {
            1
        } else if self.take(b'-') {
            -1
        } else {
            return None;
        };
        let hours = self.number(2, 23)?;
        let _ = self.take(b':');
        let minutes = if self.0.is_empty() { 0 } else { self.number(2, 59)? };
        Some(sign * (hours * 60 + minutes) * 60_000_000)
    }
}

/// `1 day`, `2 hours 30 minutes`, `-1.5 hours`; with `unit`, a number alone.
pub(super) fn interval(text: &str, unit: Option<&str>) -> Result<Interval, String> {
    let wrong = || format!("'{text}' is not an interval; write '1 day' or '2 hours 30 minutes'");
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut interval = Interval::default();
    match (words.as_slice(), unit) {
        ([number], Some(unit)) => add_part(&mut interval, number, unit).ok_or_else(wrong)?,
        (words, None) if !words.is_empty() && words.len().is_multiple_of(2) => {
            for part in words.chunks_exact(2) {
                add_part(&mut interval, part[0], part[1]).ok_or_else(wrong)?;
            }
        }
        _ => return Err(wrong()),
    }
    Ok(interval)
}

fn add_part(interval: &mut Interval, number: &str, unit: &str) -> Option<()> {
    let unit = unit.to_ascii_lowercase();
    let (slot, size) = match unit.trim_end_matches(',').trim_end_matches('s') {
        "year" => (&mut interval.months, 12),
        "quarter" => (&mut interval.months, 3),
        "month" => (&mut interval.months, 1),
        "week" => (&mut interval.days, 7),
        "day" => (&mut interval.days, 1),
        "hour" => (&mut interval.micros, 3_600_000_000),
        "minute" => (&mut interval.micros, 60_000_000),
        "second" => (&mut interval.micros, 1_000_000),
        "millisecond" => (&mut interval.micros, 1_000),
        "microsecond" => (&mut interval.micros, 1),
        _ => return None,
    };
    let (value, scale) = exact_number(number)?;
    let divisor = pow10(u32::try_from(scale).ok()?)?;
    let product = value.checked_mul(size)?;
    // Half a month has no length, and a tenth of a microsecond no place.
    if product % divisor != 0 {
        return None;
    }
    *slot = slot.checked_add(i64::try_from(product / divisor).ok()?)?;
    Some(())
}
