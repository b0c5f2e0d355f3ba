//! Reads timestamps (RFC 3339, a space allowed for the `T`, UTC without a zone) and dates from their text.
//!
//! Invariant: only days and times that exist are read, in years 1 to 9999, exact to the microsecond; a plain number is
//! never a timestamp, for nobody can tell its unit.

use super::value::ValueError;

const DAY_MICROS: i64 = 86_400_000_000;
const SECOND_MICROS: i64 = 1_000_000;

/// Microseconds since the Unix epoch.
#[inline]
pub fn timestamp(text: &[u8]) -> Result<i64, ValueError> {
    Today::default().timestamp(text)
}

/// The day that was read last: timestamps that stand together are mostly of one day.
#[derive(Debug)]
pub struct Today {
    text: [u8; 10],
    day: i32,
}

impl Default for Today {
    fn default() -> Self {
        Self { text: *b"1970-01-01", day: 0 }
    }
}

impl Today {
    #[inline]
    fn days(&mut self, text: &[u8; 10]) -> Result<i32, ValueError> {
        if *text != self.text {
            self.day = days(text, ValueError::NotTimestamp)?;
            self.text = *text;
        }
        Ok(self.day)
    }

    /// As `timestamp`.
    #[inline]
    pub fn timestamp(&mut self, text: &[u8]) -> Result<i64, ValueError> {
        let Some((head, rest)) = text.split_first_chunk::<16>() else {
            return Err(ValueError::NotTimestamp);
        };
        if !matches!(head[10], b'T' | b' ' | b't') || head[13] != b':' {
            return Err(ValueError::NotTimestamp);
        }
        let day = self.days(head.first_chunk().expect("sixteen bytes hold ten"))?;
        time_of(day, head, rest)
    }
}

#[inline]
fn time_of(day: i32, head: &[u8; 16], rest: &[u8]) -> Result<i64, ValueError> {
    let hour = two(head[11], head[12]).ok_or(ValueError::NotTimestamp)?;
    let minute = two(head[14], head[15]).ok_or(ValueError::NotTimestamp)?;
    let (second, rest) = match rest {
        [b':', tens, ones, rest @ ..] => (two(*tens, *ones).ok_or(ValueError::NotTimestamp)?, rest),
        _ => (0, rest),
    };
    // A leap second has no place on the Unix time line, so 23:59:60 is refused like 24:00.
    if hour > 23 || minute > 59 || second > 59 {
        return Err(ValueError::NoSuchTime);
    }
    let (micros, rest) = fraction(rest)?;
    let seconds = i64::from(hour) * 3_600 + i64::from(minute) * 60 + i64::from(second) - zone_seconds(rest)?;
    let value = i64::from(day) * DAY_MICROS + seconds * SECOND_MICROS + micros;
    if (FIRST_MICROS..END_MICROS).contains(&value) { Ok(value) } else { Err(ValueError::YearRange) }
}

/// Days since 1970-01-01.
pub fn date(text: &[u8]) -> Result<i32, ValueError> {
    days(text.try_into().map_err(|_| ValueError::NotDate)?, ValueError::NotDate)
}

const FIRST_MICROS: i64 = days_from_civil(1, 1, 1) as i64 * DAY_MICROS;
const END_MICROS: i64 = days_from_civil(10_000, 1, 1) as i64 * DAY_MICROS;

#[inline]
fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

#[inline]
fn days(text: &[u8; 10], malformed: ValueError) -> Result<i32, ValueError> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else {
        return Err(malformed);
    };
    let (Some(century), Some(year), Some(month), Some(day)) = (two(y1, y2), two(y3, y4), two(m1, m2), two(d1, d2))
    else {
        return Err(malformed);
    };
    let year = century * 100 + year;
    if year == 0 {
        return Err(ValueError::YearRange);
    }
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => return Err(ValueError::NoSuchDay),
    };
    if day == 0 || day > last { Err(ValueError::NoSuchDay) } else { Ok(days_from_civil(year as i32, month, day)) }
}

/// Howard Hinnant's `days_from_civil` (<https://howardhinnant.github.io/date_algorithms.html>).
const fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month as i32 + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day as i32 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The microseconds after the point, and what follows. Digits beyond the sixth must be zero.
#[inline]
fn fraction(rest: &[u8]) -> Result<(i64, &[u8]), ValueError> {
    let Some((b'.', digits)) = rest.split_first() else {
        return Ok((0, rest));
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if count == 0 {
        return Err(ValueError::NotTimestamp);
    }
    let (digits, rest) = digits.split_at(count);
    if digits.iter().skip(6).any(|digit| *digit != b'0') {
        return Err(ValueError::TooFine);
    }
    let micros =
        (0..6).fold(0, |value, index| value * 10 + digits.get(index).map_or(0, |digit| i64::from(digit - b'0')));
    Ok((micros, rest))
}

/// Seconds east of UTC: nothing or `Z` is UTC; `+02`, `+0200`, `+02:00`.
#[inline]
fn zone_seconds(text: &[u8]) -> Result<i64, ValueError> {
    let (sign, digits) = match text {
        [] | [b'Z' | b'z'] => return Ok(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return Err(ValueError::NotTimestamp),
    };
    let (hours, minutes) = match *digits {
        [h1, h2] => (two(h1, h2), Some(0)),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => (two(h1, h2), two(m1, m2)),
        _ => return Err(ValueError::NotTimestamp),
    };
    match (hours, minutes) {
        (Some(hours @ 0..24), Some(minutes @ 0..60)) => Ok(sign * i64::from(hours * 3_600 + minutes * 60)),
        (Some(_), Some(_)) => Err(ValueError::NoSuchTime),
        _ => Err(ValueError::NotTimestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate, TimeDelta};
    use proptest::prelude::*;

    #[test]
    fn timestamps_are_read_in_every_accepted_form() {
        let moment = 1_795_341_784_120_000;
        for text in [
            "2026-11-22T10:03:04.120Z",
            "2026-11-22 10:03:04.12",
            "2026-11-22t10:03:04.120000z",
            "2026-11-22T10:03:04.120000000Z",
            "2026-11-22T12:03:04.12+02:00",
            "2026-11-22 04:33:04.12-0530",
            "2026-11-22 11:03:04.12+01",
        ] {
            assert_eq!(timestamp(text.as_bytes()), Ok(moment), "{text}");
        }
        assert_eq!(timestamp(b"1970-01-01 00:01"), Ok(60 * SECOND_MICROS));
        assert_eq!(timestamp(b"1969-12-31T23:59:59.999999Z"), Ok(-1));
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        for (text, error) in [
            ("2026-02-30 00:00:00", ValueError::NoSuchDay),
            ("2026-13-01 00:00:00", ValueError::NoSuchDay),
            ("1900-02-29 00:00:00", ValueError::NoSuchDay),
            ("2026-11-22 24:00:00", ValueError::NoSuchTime),
            ("2026-11-22 23:59:60", ValueError::NoSuchTime),
            ("2026-11-22 10:00:00+24:00", ValueError::NoSuchTime),
            ("0000-01-01 00:00:00", ValueError::YearRange),
            ("0001-01-01 00:00:00+01:00", ValueError::YearRange),
            ("9999-12-31 23:59:59-01:00", ValueError::YearRange),
            ("2026-11-22 10:03:04.1234567", ValueError::TooFine),
            ("1795341784120000", ValueError::NotTimestamp),
            ("2026-11-22", ValueError::NotTimestamp),
            ("2026-11-22T10", ValueError::NotTimestamp),
            ("2026-11-22T10:03:04.Z", ValueError::NotTimestamp),
            ("2026-11-22T10:03:04 CET", ValueError::NotTimestamp),
            ("22.11.2026 10:03:04", ValueError::NotTimestamp),
            ("", ValueError::NotTimestamp),
        ] {
            assert_eq!(timestamp(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(date(b"2024-02-29"), Ok(19_782));
        assert_eq!(date(b"2023-02-29"), Err(ValueError::NoSuchDay));
        assert_eq!(date(b"2026-1-1"), Err(ValueError::NotDate));
        assert_eq!(date(b"2026-11-22 "), Err(ValueError::NotDate));
    }

    proptest! {
        #[test]
        fn days_and_moments_equal_chronos(day in -719_162i32..2_932_897, micros in 0..DAY_MICROS) {
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a day");
            let there = epoch + TimeDelta::days(i64::from(day));
            prop_assert!((1..=9999).contains(&there.year()));
            prop_assert_eq!(date(there.to_string().as_bytes()), Ok(day));
            let moment = there.and_hms_opt(0, 0, 0).expect("midnight") + TimeDelta::microseconds(micros);
            let text = moment.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
            prop_assert_eq!(timestamp(text.as_bytes()), Ok(i64::from(day) * DAY_MICROS + micros));
        }

        #[test]
        fn no_bytes_panic(noise in prop::collection::vec(any::<u8>(), 0..40), cut in 0usize..30, place in 0usize..29, byte: u8) {
            let _ = (timestamp(&noise), date(&noise));
            let mut near = *b"2026-11-22T10:03:04.123+02:00";
            near[place] = byte;
            let _ = (timestamp(&near[..cut.min(near.len())]), date(&near[..cut.min(10)]));
        }

        #[test]
        fn what_was_read_before_makes_no_difference(texts in prop::collection::vec("(20[0-3]{2}-0[0-9]-[0-3][0-9]|\\x00{10}) 10:0[0-9]", 0..9)) {
            let mut today = Today::default();
            for text in texts {
                prop_assert_eq!(today.timestamp(text.as_bytes()), timestamp(text.as_bytes()), "{}", text);
            }
            prop_assert!(timestamp(b"\0\0\0\0\0\0\0\0\0\0 10:00").is_err());
        }
    }
}
