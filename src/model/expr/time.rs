//! Taking times apart and moving them, by the clocks of the cluster's zone.
//!
//! Invariant: every `i64` is a valid time; what leaves that range is an error or saturates.

use std::str::FromStr;

use arrow::array::{Int64Array, TimestampMicrosecondArray};

use super::EvaluationError;
use crate::model::window::{Calendar, DAY_US, WindowKind};

/// What `date_trunc` cuts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Minute,
    Hour,
    Day,
    /// From Monday.
    Week,
    Month,
    Quarter,
    Year,
}

impl FromStr for Unit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "minute" => Self::Minute,
            "hour" => Self::Hour,
            "day" => Self::Day,
            "week" => Self::Week,
            "month" => Self::Month,
            "quarter" => Self::Quarter,
            "year" => Self::Year,
            _ => return Err(format!("unknown unit '{text}'; known: minute, hour, day, week, month, quarter, year")),
        })
    }
}

/// What `extract` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Year,
    Quarter,
    Month,
    /// ISO 8601.
    Week,
    Day,
    /// 0 is Sunday.
    DayOfWeek,
    /// 1 is Monday, 7 Sunday.
    IsoDayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    Second,
    /// Whole seconds since 1970-01-01 UTC.
    Epoch,
}

impl FromStr for Field {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "year" => Self::Year,
            "quarter" => Self::Quarter,
            "month" => Self::Month,
            "week" => Self::Week,
            "day" => Self::Day,
            "dow" | "dayofweek" => Self::DayOfWeek,
            "isodow" => Self::IsoDayOfWeek,
            "doy" | "dayofyear" => Self::DayOfYear,
            "hour" => Self::Hour,
            "minute" => Self::Minute,
            "second" => Self::Second,
            "epoch" => Self::Epoch,
            _ => {
                return Err(format!(
                    "unknown field '{text}'; known: year, quarter, month, week, day, dow, isodow, doy, hour, minute, \
                     second, epoch"
                ));
            }
        })
    }
}

/// Months, then days by local clocks, then an exact time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interval {
    pub months: i64,
    pub days: i64,
    pub micros: i64,
}

impl Interval {
    pub(super) fn times(self, factor: i64) -> Option<Self> {
        Some(Self {
            months: self.months.checked_mul(factor)?,
            days: self.days.checked_mul(factor)?,
            micros: self.micros.checked_mul(factor)?,
        })
    }
}

/// Year, month and day of a number of days since 1970-01-01.
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
pub(super) fn civil(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// The inverse of `civil`.
pub(super) fn day_of_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    day_of_civil(next_year, next_month, 1) - day_of_civil(year, month, 1)
}

pub(super) fn truncate(
    unit: Unit,
    times: &TimestampMicrosecondArray,
    calendar: &Calendar,
) -> TimestampMicrosecondArray {
    let by_window = |kind| {
        let mut finder = calendar.finder(kind);
        let starts = times.iter().map(|time| time.map(|time| finder.find(time)));
        starts.collect()
    };
    match unit {
        Unit::Minute => by_window(WindowKind::Minute),
        Unit::Hour => by_window(WindowKind::Hour),
        Unit::Day => by_window(WindowKind::Day),
        _ => {
            // Most rows are of the day of the row before.
            let (mut day, mut start) = (None, 0);
            let starts = times.iter().map(|time| {
                let of = calendar.day_of(time?);
                if day != Some(of) {
                    (day, start) = (Some(of), calendar.day_start(first_day(unit, i64::from(of)) as i32));
                }
                Some(start)
            });
            starts.collect()
        }
    }
}

fn first_day(unit: Unit, day: i64) -> i64 {
    let (year, month, _) = civil(day);
    match unit {
        Unit::Minute | Unit::Hour | Unit::Day => day,
        // 1970-01-01 was a Thursday.
        Unit::Week => day - (day + 3).rem_euclid(7),
        Unit::Month => day_of_civil(year, month, 1),
        Unit::Quarter => day_of_civil(year, (month - 1) / 3 * 3 + 1, 1),
        Unit::Year => day_of_civil(year, 1, 1),
    }
}

pub(super) fn extract(field: Field, times: &TimestampMicrosecondArray, calendar: &Calendar) -> Int64Array {
    let values = times.iter().map(|time| {
        time.map(|time| match field {
            Field::Epoch => time.div_euclid(1_000_000),
            _ => extract_local(field, calendar.local_of(time)),
        })
    });
    values.collect()
}

fn extract_local(field: Field, local_us: i64) -> i64 {
    let (day, second) = (local_us.div_euclid(DAY_US), local_us.rem_euclid(DAY_US) / 1_000_000);
    let (year, month, of_month) = civil(day);
    match field {
        Field::Year => year,
        Field::Quarter => (month + 2) / 3,
        Field::Month => month,
        Field::Week => {
            // A week belongs to the year of its Thursday.
            let thursday = first_day(Unit::Week, day) + 3;
            (thursday - day_of_civil(civil(thursday).0, 1, 1)) / 7 + 1
        }
        Field::Day => of_month,
        Field::DayOfWeek => (day + 4).rem_euclid(7),
        Field::IsoDayOfWeek => (day + 3).rem_euclid(7) + 1,
        Field::DayOfYear => day - day_of_civil(year, 1, 1) + 1,
        Field::Hour => second / 3600,
        Field::Minute => second / 60 % 60,
        Field::Second => second % 60,
        Field::Epoch => local_us.div_euclid(1_000_000),
    }
}

/// The times that RFC 3339 can write, and that rows may have: years 1 to 9999.
const WRITABLE_US: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;

/// Moves a time; the last day of a shorter month stands for days that it does not have.
pub(super) fn shift(at_us: i64, by: Interval, calendar: &Calendar) -> Result<i64, EvaluationError> {
    let moved = if by.months == 0 && by.days == 0 { Some(at_us) } else { shift_local(at_us, by, calendar) };
    let moved = moved.and_then(|moved| moved.checked_add(by.micros));
    moved.filter(|moved| WRITABLE_US.contains(moved)).ok_or(EvaluationError::TimeOutOfRange)
}

fn shift_local(at_us: i64, by: Interval, calendar: &Calendar) -> Option<i64> {
    let local = calendar.local_of(at_us);
    let (year, month, day) = civil(local.div_euclid(DAY_US));
    let months = (year * 12 + month - 1).checked_add(by.months)?;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    if year.abs() > 1_000_000 {
        return None;
    }
    let day = day_of_civil(year, month, day.min(days_in_month(year, month))).checked_add(by.days)?;
    let local = day.checked_mul(DAY_US)?.checked_add(local.rem_euclid(DAY_US))?;
    Some(calendar.instant_of_local(local))
}
