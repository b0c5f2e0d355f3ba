//! Reads one value of a column from its text: numbers, booleans and text.
//!
//! Invariant: what is read is exactly what stands there: a decimal never goes through a float, a digit that does not fit
//! is an error and not rounded, and no input panics.

use thiserror::Error;

/// Why a text is not a value of its column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ValueError {
    #[error("null in a key or partition column")]
    Null,
    #[error("not a whole number")]
    NotInt,
    #[error("not a number")]
    NotNumber,
    #[error("too large for a 64-bit integer")]
    IntRange,
    #[error("more than {precision} digits, or {whole} before the point")]
    DecimalRange { precision: u8, whole: u8 },
    #[error("more than {scale} digits after the point")]
    DecimalScale { scale: u8 },
    #[error("not a finite number")]
    NotFinite,
    #[error("not a boolean (true, false, t, f, 1, 0)")]
    NotBool,
    #[error("not valid UTF-8")]
    NotUtf8,
    #[error("not a timestamp (like 2026-11-22T10:03:04.120Z; without a zone: UTC)")]
    NotTimestamp,
    #[error("not a date (like 2026-11-22)")]
    NotDate,
    #[error("no such day in the calendar")]
    NoSuchDay,
    #[error("no such time of day")]
    NoSuchTime,
    #[error("the year is not between 1 and 9999")]
    YearRange,
    #[error("finer than a microsecond")]
    TooFine,
    #[error("a JSON {found} where {wanted} is wanted")]
    JsonType { found: &'static str, wanted: &'static str },
    #[error("not a valid JSON string")]
    JsonString,
}

/// Powers of ten up to the largest that an i128 holds.
const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// A whole number; `12.0` and `1.2e1` are whole numbers too.
#[inline]
pub fn int(text: &[u8]) -> Result<i64, ValueError> {
    let (negative, digits) = sign(text);
    // Eighteen digits cannot overflow.
    if !digits.is_empty() && digits.len() <= 18 {
        let mut value = 0i64;
        let mut all = true;
        for &byte in digits {
            let digit = byte.wrapping_sub(b'0');
            all &= digit < 10;
            value = value * 10 + i64::from(digit & 15);
        }
        if all {
            return Ok(if negative { -value } else { value });
        }
    }
    let value = scaled(text, 0).map_err(|error| match error {
        Unscaled::NotNumber | Unscaled::TooFine => ValueError::NotInt,
        Unscaled::Overflow => ValueError::IntRange,
    })?;
    i64::try_from(value).map_err(|_| ValueError::IntRange)
}

/// A decimal as its digits without the point, in units of 10^-scale.
#[inline]
pub fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, ValueError> {
    let range = || ValueError::DecimalRange { precision, whole: precision - scale };
    let value = match plain_decimal(text, scale) {
        Some(value) => i128::from(value),
        None => scaled(text, scale).map_err(|error| match error {
            Unscaled::NotNumber => ValueError::NotNumber,
            Unscaled::TooFine => ValueError::DecimalScale { scale },
            Unscaled::Overflow => range(),
        })?,
    };
    if value.unsigned_abs() >= POWERS[usize::from(precision)].unsigned_abs() { Err(range()) } else { Ok(value) }
}

/// The common form, `[-]digits[.digits]` with at most `scale` digits after the point and few enough to fit.
#[inline]
fn plain_decimal(text: &[u8], scale: u8) -> Option<i64> {
    let (negative, digits) = sign(text);
    if digits.is_empty() || digits.len() + usize::from(scale) > 18 {
        return None;
    }
    let (mut value, mut point) = (0i64, None);
    for (index, &byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            value = value * 10 + i64::from(digit);
        } else if byte == b'.' && point.is_none() && index > 0 {
            point = Some(index);
        } else {
            return None;
        }
    }
    let after = point.map_or(0, |index| digits.len() - index - 1);
    if (point.is_some() && after == 0) || after > usize::from(scale) {
        return None;
    }
    value *= POWERS[usize::from(scale) - after] as i64;
    Some(if negative { -value } else { value })
}

enum Unscaled {
    NotNumber,
    TooFine,
    Overflow,
}

/// Any decimal number, with exponent or not, in units of 10^-scale. Exact or an error.
fn scaled(text: &[u8], scale: u8) -> Result<i128, Unscaled> {
    let (negative, rest) = sign(text);
    let (mantissa, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&rest[..at], exponent(&rest[at + 1..])?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let digits = || whole.iter().chain(fraction);
    if digits().next().is_none() || !digits().all(u8::is_ascii_digit) {
        return Err(Unscaled::NotNumber);
    }
    // Zeros at either end carry no value and may be any number.
    let leading = digits().take_while(|digit| **digit == b'0').count();
    let count = whole.len() + fraction.len();
    if leading == count {
        return Ok(0);
    }
    let trailing = digits().rev().take_while(|digit| **digit == b'0').count();
    let significant = count - leading - trailing;
    if significant > 38 {
        // Where the last digit stands decides which of the two it is; both are refused.
        let finest = exponent - fraction.len() as i64 + trailing as i64 + i64::from(scale);
        return Err(if finest < 0 { Unscaled::TooFine } else { Unscaled::Overflow });
    }
    let value =
        digits().skip(leading).take(significant).fold(0i128, |value, digit| value * 10 + i128::from(digit - b'0'));
    let shift = exponent - fraction.len() as i64 + trailing as i64 + i64::from(scale);
    let factor = match usize::try_from(shift) {
        Ok(shift) => *POWERS.get(shift).ok_or(Unscaled::Overflow)?,
        Err(_) => return Err(Unscaled::TooFine),
    };
    let value = value.checked_mul(factor).ok_or(Unscaled::Overflow)?;
    Ok(if negative { -value } else { value })
}

fn exponent(text: &[u8]) -> Result<i64, Unscaled> {
    let (negative, digits) = sign(text);
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Unscaled::NotNumber);
    }
    let value = digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Ok(if negative { -value } else { value })
}

#[inline]
fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

/// A finite double; minus zero becomes zero, so that equal numbers are one group.
pub fn double(text: &[u8]) -> Result<f64, ValueError> {
    let value: f64 = self::text(text)?.parse().map_err(|_| ValueError::NotNumber)?;
    if value.is_finite() { Ok(value + 0.0) } else { Err(ValueError::NotFinite) }
}

/// `true`, `false`, `t`, `f` in any case, `1` or `0`.
pub fn boolean(text: &[u8]) -> Result<bool, ValueError> {
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
    match (is(["true", "t", "1"]), is(["false", "f", "0"])) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(ValueError::NotBool),
    }
}

#[inline]
pub fn text(text: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(text).map_err(|_| ValueError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_int_is_read_exactly_or_refused() {
        for (text, value) in [("0", 0), ("-7", -7), ("+7", 7), ("007", 7), ("12.0", 12), ("1.2e1", 12), ("1200E-2", 12)]
        {
            assert_eq!(int(text.as_bytes()), Ok(value), "{text}");
        }
        assert_eq!(int(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(int(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int(b"9223372036854775808"), Err(ValueError::IntRange));
        assert_eq!(int(b"1e400"), Err(ValueError::IntRange));
        for text in ["", "-", "+", ".", "1.5", "1e-1", "0x1", " 1", "1 ", "1,0", "--1", "e5", "1e", "1e9999999999", "١"]
        {
            assert_eq!(int(text.as_bytes()), Err(ValueError::NotInt), "{text}");
        }
    }

    #[test]
    fn a_decimal_is_exact_and_neither_rounded_nor_cut() {
        for (text, value) in
            [("12.5", 1250), ("-0.01", -1), ("12.500", 1250), ("3", 300), ("3.", 300), (".5", 50), ("1e-2", 1)]
        {
            assert_eq!(decimal(text.as_bytes(), 12, 2), Ok(value), "{text}");
        }
        assert_eq!(decimal(b"9999999999.99", 12, 2), Ok(999_999_999_999));
        assert_eq!(decimal(b"10000000000", 12, 2), Err(ValueError::DecimalRange { precision: 12, whole: 10 }));
        assert_eq!(decimal(b"0.001", 12, 2), Err(ValueError::DecimalScale { scale: 2 }));
        assert_eq!(decimal(b"1e39", 12, 2), Err(ValueError::DecimalRange { precision: 12, whole: 10 }));
        assert_eq!(decimal("0".repeat(100).as_bytes(), 1, 0), Ok(0));
        assert_eq!(decimal(b"9999999999999999999999999999", 28, 0), Ok(10i128.pow(28) - 1));
        assert_eq!(decimal(b"0.9999999999999999999999999999", 28, 28), Ok(10i128.pow(28) - 1));
        for text in ["", ".", "-.", "1.2.3", "1-2", "1_000", "NaN", "inf", "$5", "1,5"] {
            assert_eq!(decimal(text.as_bytes(), 12, 2), Err(ValueError::NotNumber), "{text}");
        }
    }

    #[test]
    fn a_double_is_finite_and_has_one_zero() {
        assert_eq!(double(b"1.5e3"), Ok(1500.0));
        assert_eq!(double(b"-0").map(f64::to_bits), Ok(0));
        for text in ["nan", "inf", "-Infinity", "1e999"] {
            assert_eq!(double(text.as_bytes()), Err(ValueError::NotFinite), "{text}");
        }
        assert_eq!(double(b"1,5"), Err(ValueError::NotNumber));
    }

    #[test]
    fn a_boolean_is_one_of_its_words() {
        assert!([&b"true"[..], b"TRUE", b"t", b"1"].iter().all(|text| boolean(text) == Ok(true)));
        assert!([&b"false"[..], b"False", b"F", b"0"].iter().all(|text| boolean(text) == Ok(false)));
        assert!([&b""[..], b"yes", b"2"].iter().all(|text| boolean(text) == Err(ValueError::NotBool)));
    }

    proptest! {
        #[test]
        fn every_number_comes_back(int_value: i64, digits in -(10i128.pow(28) - 1)..10i128.pow(28), scale in 0u8..=28, zeros in 0usize..5) {
            prop_assert_eq!(int(int_value.to_string().as_bytes()), Ok(int_value));
            let (unit, sign) = (10u128.pow(u32::from(scale)), if digits < 0 { "-" } else { "" });
            let (whole, fraction) = (digits.unsigned_abs() / unit, digits.unsigned_abs() % unit);
            let point = if scale == 0 { String::new() } else { format!(".{fraction:0width$}", width = usize::from(scale)) };
            let zeros = "0".repeat(zeros);
            prop_assert_eq!(decimal(format!("{sign}{zeros}{whole}{point}").as_bytes(), 28, scale), Ok(digits));
            prop_assert_eq!(decimal(format!("{digits}e-{scale}").as_bytes(), 28, scale), Ok(digits));
        }

        #[test]
        fn the_short_way_and_the_general_way_agree(text in "[-+]?[0-9.e]{0,12}", scale in 0u8..6) {
            if let Some(value) = plain_decimal(text.as_bytes(), scale) {
                prop_assert_eq!(scaled(text.as_bytes(), scale).ok(), Some(i128::from(value)));
            }
        }

        #[test]
        fn no_bytes_panic(text in prop::collection::vec(any::<u8>(), 0..60), precision in 1u8..=28) {
            let _ = (int(&text), decimal(&text, precision, precision / 2), double(&text), boolean(&text));
        }
    }
}
