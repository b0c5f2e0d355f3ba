//! Windows of time: minutes, hours and days as people in the cluster's time zone live them.
//!
//! Invariant: windows of a kind tile time, and minutes nest in hours in days. A window ends where the local minute, hour
//! or day ends, and wherever clocks are changed: the hour that comes twice in autumn is two windows. A day begins
//! at the first instant whose local date is that day or later, so it has 23, 25 or even no hours, but never a hole.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::block::Day;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
pub(crate) const DAY_US: i64 = 24 * HOUR_US;

/// How long a metric's windows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    Minute,
    Hour,
    Day,
}

impl WindowKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

impl fmt::Display for WindowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name given is not in the IANA time zone database.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown time zone '{0}'; an IANA name like 'UTC' or 'Europe/Berlin' is needed")]
pub struct UnknownZone(pub String);

/// A stretch of time in which local time is UTC plus one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    start_us: i64,
    offset_us: i64,
}

/// Local time of one zone. Times are microseconds since the Unix epoch, UTC; what is too far away saturates.
#[derive(Debug, Clone)]
pub struct Calendar {
    name: Arc<str>,
    /// In order of time, neighbours differ; the first begins at `i64::MIN`.
    segments: Arc<[Segment]>,
}

impl PartialEq for Calendar {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Offsets are looked up from 1850 to 2150; the database knows no change outside.
const SCANNED_S: std::ops::Range<i64> = -3_786_825_600..5_680_281_600;
/// Two changes that cancel out within such a step would be missed; the database has none (tested).
const SCAN_STEP_S: i64 = 5 * 86_400;

fn offset_s(zone: Tz, at_s: i64) -> i64 {
    let at = DateTime::from_timestamp(at_s, 0).expect("the scanned years are in chrono's range");
    i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc())
}

fn scan(zone: Tz, step_s: i64) -> Vec<Segment> {
    let (mut at, mut offset) = (SCANNED_S.start, offset_s(zone, SCANNED_S.start));
    let mut segments = vec![Segment { start_us: i64::MIN, offset_us: offset * SECOND_US }];
    while at < SCANNED_S.end {
        let next = at + step_s;
        let (mut before, mut changed) = (at, next);
        if offset_s(zone, next) == offset {
            at = next;
            continue;
        }
        while changed - before > 1 {
            let middle = before + (changed - before) / 2;
            if offset_s(zone, middle) == offset { before = middle } else { changed = middle }
        }
        (at, offset) = (changed, offset_s(zone, changed));
        segments.push(Segment { start_us: at * SECOND_US, offset_us: offset * SECOND_US });
    }
    segments
}

/// The largest multiple of `length` that is not above `value`.
fn floor(value: i64, length: i64) -> i64 {
    value.saturating_sub(value.rem_euclid(length))
}

impl Calendar {
    /// The calendar of an IANA zone; case matters. Takes a millisecond or so: make one and clone it.
    pub fn new(zone: &str) -> Result<Self, UnknownZone> {
        let parsed: Tz = zone.parse().map_err(|_| UnknownZone(zone.to_string()))?;
        Ok(Self { name: zone.into(), segments: scan(parsed, SCAN_STEP_S).into() })
    }

    /// UTC, without a look into the database.
    pub fn utc() -> Self {
        Self { name: "UTC".into(), segments: [Segment { start_us: i64::MIN, offset_us: 0 }].into() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    fn segment(&self, at_us: i64) -> (Segment, i64) {
        // The first begins at i64::MIN, so there is always one before.
        let next = self.segments.partition_point(|segment| segment.start_us <= at_us);
        (self.segments[next - 1], self.segments.get(next).map_or(i64::MAX, |segment| segment.start_us))
    }

    /// Microseconds to add to get local time.
    pub fn offset_us(&self, at_us: i64) -> i64 {
        self.segment(at_us).0.offset_us
    }

    /// What clocks in the zone show, as microseconds since 1970-01-01 00:00 on those clocks.
    pub fn local_of(&self, at_us: i64) -> i64 {
        at_us.saturating_add(self.offset_us(at_us))
    }

    /// The first instant at which local clocks show `local_us` or later: of a time that comes twice the first, of a
    /// time that is skipped the instant of the change.
    pub fn instant_of_local(&self, local_us: i64) -> i64 {
        // No zone was ever more than a day off.
        let from = local_us.saturating_sub(DAY_US);
        let mut next = self.segments.partition_point(|segment| segment.start_us <= from);
        loop {
            let segment = self.segments[next - 1];
            let instant = local_us.saturating_sub(segment.offset_us).max(segment.start_us);
            match self.segments.get(next) {
                Some(later) if instant >= later.start_us => next += 1,
                _ => return instant,
            }
        }
    }

    pub fn window_start(&self, kind: WindowKind, at_us: i64) -> i64 {
        match kind {
            WindowKind::Minute => self.clock_window(MINUTE_US, at_us).0,
            WindowKind::Hour => self.clock_window(HOUR_US, at_us).0,
            WindowKind::Day => self.day_start(self.day_of(at_us)).min(at_us),
        }
    }

    /// The end of the window that `start_us` lies in, which is the start of the next.
    pub fn window_end(&self, kind: WindowKind, start_us: i64) -> i64 {
        match kind {
            WindowKind::Minute => self.clock_window(MINUTE_US, start_us).1,
            WindowKind::Hour => self.clock_window(HOUR_US, start_us).1,
            WindowKind::Day => self.day_start(self.day_of(start_us).saturating_add(1)),
        }
    }

    fn clock_window(&self, length: i64, at_us: i64) -> (i64, i64) {
        let (segment, end) = self.segment(at_us);
        let start = floor(at_us.saturating_add(segment.offset_us), length).saturating_sub(segment.offset_us);
        // At the ends of time, additions saturate.
        (start.max(segment.start_us).min(at_us), start.saturating_add(length).min(end))
    }

    /// The day that `at_us` lies in. Never goes back with time, even where clocks are set back over midnight.
    pub fn day_of(&self, at_us: i64) -> Day {
        let day = self.local_of(at_us).div_euclid(DAY_US) as Day;
        // After such a change the local date is one too low. At the end of time the next day does not start.
        let next = self.day_start(day + 1);
        if next <= at_us && next < i64::MAX { day + 1 } else { day }
    }

    pub fn day_start(&self, day: Day) -> i64 {
        self.instant_of_local(i64::from(day).saturating_mul(DAY_US))
    }

    pub fn finder(&self, kind: WindowKind) -> WindowFinder {
        WindowFinder::new(self, kind)
    }
}

/// What the windows of one UTC day need.
#[derive(Debug, Clone, Copy)]
struct KnownDay {
    utc_day: i64,
    offset_us: i64,
    /// Clocks are not changed between these.
    segment_start: i64,
    /// Where the local day ends in this UTC day, and the starts of the local days on both sides.
    midnight: i64,
    before: i64,
    after: i64,
    /// Clocks are changed within: a rare day, looked up in the calendar each time.
    changes: bool,
}

const KNOWN_DAYS: usize = 16;
const UNKNOWN: KnownDay =
    KnownDay { utc_day: i64::MIN, offset_us: 0, segment_start: 0, midnight: 0, before: 0, after: 0, changes: false };

/// `Calendar::window_start` for hot loops: remembers the recent days, so that a call costs a few nanoseconds in
/// whatever order times of those days come.
#[derive(Debug, Clone)]
pub struct WindowFinder {
    calendar: Calendar,
    kind: WindowKind,
    days: [KnownDay; KNOWN_DAYS],
    /// The last window found, as far as one UTC day has it: times mostly come in order.
    near: (Range<i64>, i64),
}

impl WindowFinder {
    pub fn new(calendar: &Calendar, kind: WindowKind) -> Self {
        Self { calendar: calendar.clone(), kind, days: [UNKNOWN; KNOWN_DAYS], near: (0..0, 0) }
    }

    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// The start of the window of `at_us`.
    #[inline]
    pub fn find(&mut self, at_us: i64) -> i64 {
        let (range, start_us) = &self.near;
        if range.contains(&at_us) { *start_us } else { self.find_far(at_us) }
    }

    fn find_far(&mut self, at_us: i64) -> i64 {
        let utc_day = at_us.div_euclid(DAY_US);
        let slot = (utc_day & (KNOWN_DAYS as i64 - 1)) as usize;
        if self.days[slot].utc_day != utc_day {
            self.days[slot] = self.learn(utc_day);
        }
        let day = &self.days[slot];
        if day.changes {
            return self.calendar.window_start(self.kind, at_us);
        }
        let (start_us, end_us) = match self.kind {
            WindowKind::Minute => day.clock_window(MINUTE_US, at_us),
            WindowKind::Hour => day.clock_window(HOUR_US, at_us),
            WindowKind::Day if at_us < day.midnight => (day.before, day.midnight),
            WindowKind::Day => (day.after, i64::MAX),
        };
        // Of a day without changes all is known; its neighbours may have some.
        let (from_us, to_us) = (utc_day * DAY_US, (utc_day + 1) * DAY_US);
        self.near = (start_us.max(from_us)..end_us.min(to_us), start_us);
        start_us
    }

    #[cold]
    fn learn(&self, utc_day: i64) -> KnownDay {
        let start = utc_day.saturating_mul(DAY_US);
        let end = start.saturating_add(DAY_US);
        let (segment, segment_end) = self.calendar.segment(start);
        let before = self.calendar.window_start(WindowKind::Day, start);
        let midnight = self.calendar.window_end(WindowKind::Day, start);
        KnownDay {
            utc_day,
            offset_us: segment.offset_us,
            segment_start: segment.start_us,
            midnight,
            before,
            after: midnight,
            // At the ends of time, additions saturate; the calendar takes care of that.
            changes: segment_end < end || utc_day.unsigned_abs() > 100_000_000,
        }
    }
}

impl KnownDay {
    #[inline]
    fn clock_window(&self, length: i64, at_us: i64) -> (i64, i64) {
        let local = at_us + self.offset_us;
        let start = local - local.rem_euclid(length) - self.offset_us;
        (start.max(self.segment_start), start + length)
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
