//! Windows in zones with odd clocks.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const ZONES: [&str; 12] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Shanghai",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Africa/Monrovia",
    "Africa/Casablanca",
];
const KINDS: [WindowKind; 3] = [WindowKind::Minute, WindowKind::Hour, WindowKind::Day];

static CALENDARS: LazyLock<Vec<Calendar>> =
    LazyLock::new(|| ZONES.iter().map(|zone| Calendar::new(zone).expect("a known zone")).collect());

fn calendar(zone: &str) -> &'static Calendar {
    CALENDARS.iter().find(|calendar| calendar.name() == zone).expect("one of the zones")
}

fn at(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros()
}

fn show(at_us: i64) -> String {
    DateTime::from_timestamp_micros(at_us).expect("in range").format("%Y-%m-%dT%H:%MZ").to_string()
}

fn window(zone: &str, kind: WindowKind, time: &str) -> (String, i64) {
    let calendar = calendar(zone);
    let start = calendar.window_start(kind, at(time));
    let end = calendar.window_end(kind, start);
    assert!(start <= at(time) && at(time) < end, "{zone} {kind} {time}");
    (show(start), (end - start) / MINUTE_US)
}

#[test]
fn hours_and_days_begin_where_local_clocks_say_so() {
    use WindowKind::{Day, Hour};
    let cases = [
        ("UTC", Day, "2026-11-22T10:03:04Z", "2026-11-22T00:00Z", 1440),
        ("Asia/Kathmandu", Hour, "2026-11-22T10:03:04Z", "2026-11-22T09:15Z", 60),
        ("Asia/Kathmandu", Day, "2026-11-22T10:03:04Z", "2026-11-21T18:15Z", 1440),
        // Spring and autumn: 23 and 25 hours.
        ("Europe/Berlin", Day, "2026-03-29T12:00:00Z", "2026-03-28T23:00Z", 23 * 60),
        ("Europe/Berlin", Day, "2026-10-25T12:00:00Z", "2026-10-24T22:00Z", 25 * 60),
        // The hour that comes twice is two windows.
        ("America/New_York", Hour, "2013-11-03T05:30:00Z", "2013-11-03T05:00Z", 60),
        ("America/New_York", Hour, "2013-11-03T06:30:00Z", "2013-11-03T06:00Z", 60),
        // Half an hour of daylight saving: forward leaves a half hour, back makes one.
        ("Australia/Lord_Howe", Hour, "2026-10-03T15:35:00Z", "2026-10-03T15:30Z", 30),
        ("Australia/Lord_Howe", Hour, "2026-04-04T14:50:00Z", "2026-04-04T14:00Z", 60),
        ("Australia/Lord_Howe", Hour, "2026-04-04T15:10:00Z", "2026-04-04T15:00Z", 30),
        ("Australia/Lord_Howe", Day, "2026-04-04T15:10:00Z", "2026-04-04T13:00Z", 24 * 60 + 30),
        // Midnight did not exist: the day begins at 01:00.
        ("America/Sao_Paulo", Day, "2018-11-04T12:00:00Z", "2018-11-04T03:00Z", 23 * 60),
        // Clocks went back from 00:01 to 23:01: the new day had begun.
        ("America/St_Johns", Day, "2006-10-29T02:45:00Z", "2006-10-29T02:30Z", 25 * 60),
        // 30 December 2011 was left out.
        ("Pacific/Apia", Day, "2011-12-30T09:00:00Z", "2011-12-29T10:00Z", 1440),
        ("Pacific/Apia", Day, "2011-12-30T10:00:00Z", "2011-12-30T10:00Z", 1440),
        ("Africa/Monrovia", WindowKind::Minute, "1971-06-01T00:00:00Z", "1971-05-31T23:59Z", 1),
    ];
    for (zone, kind, time, start, minutes) in cases {
        assert_eq!(window(zone, kind, time), (start.to_string(), minutes), "{zone} {kind} {time}");
    }
}

#[test]
fn a_day_that_was_left_out_is_empty() {
    let calendar = calendar("Pacific/Apia");
    let left_out = calendar.day_of(at("2011-12-30T09:59:59Z")) + 1;
    assert_eq!(calendar.day_start(left_out), calendar.day_start(left_out + 1));
    assert_eq!(calendar.day_of(at("2011-12-30T10:00:00Z")), left_out + 1);
}

#[test]
fn an_unknown_zone_is_an_error_that_names_it() {
    assert_eq!(Calendar::new("Mars/Olympus"), Err(UnknownZone("Mars/Olympus".into())));
    assert_eq!(Calendar::new("UTC"), Ok(Calendar::utc()));
}

#[test]
fn local_times_that_come_twice_or_never_have_an_instant() {
    let calendar = calendar("Europe/Berlin");
    let instant = |local: &str| show(calendar.instant_of_local(at(local)));
    assert_eq!(instant("2026-07-01T12:00:00Z"), "2026-07-01T10:00Z");
    assert_eq!(instant("2026-10-25T02:30:00Z"), "2026-10-25T00:30Z");
    assert_eq!(instant("2026-03-29T02:30:00Z"), "2026-03-29T01:00Z");
}

#[test]
fn times_at_the_ends_of_the_world_saturate() {
    for zone in ZONES {
        let calendar = calendar(zone);
        for kind in KINDS {
            let mut finder = calendar.finder(kind);
            for at_us in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX, i64::MIN + DAY_US, i64::MAX - DAY_US] {
                let start = calendar.window_start(kind, at_us);
                assert_eq!(finder.find(at_us), start);
                assert!(start <= at_us && start <= calendar.window_end(kind, start), "{zone} {kind} {at_us}");
            }
        }
        for day in [Day::MIN, Day::MAX] {
            calendar.day_start(day);
        }
    }
}

#[test]
fn no_zone_changes_its_clocks_twice_within_a_scan_step() {
    // All zones take minutes; these have the shortest times between changes.
    for zone in ["Africa/Casablanca", "Africa/Cairo", "Europe/Paris", "America/Argentina/San_Luis", "Asia/Gaza"] {
        let zone: Tz = zone.parse().expect("a known zone");
        assert_eq!(scan(zone, SCAN_STEP_S), scan(zone, 86_400), "{zone}");
    }
}

/// Times from 1900 to 2100, half of them near a change of clocks.
fn zone_and_time() -> impl Strategy<Value = (usize, i64)> {
    let near = (0..ZONES.len(), any::<prop::sample::Index>(), -3 * HOUR_US..3 * HOUR_US);
    let near = near.prop_map(|(zone, index, by)| {
        let calendar = calendar(ZONES[zone]);
        let changes = &calendar.segments[1..];
        (zone, if changes.is_empty() { by } else { changes[index.index(changes.len())].start_us + by })
    });
    let anywhere = (0..ZONES.len(), at("1900-01-01T00:00:00Z")..at("2100-01-01T00:00:00Z"));
    prop_oneof![near, anywhere]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn windows_tile_and_nest_in_days((zone, at_us) in zone_and_time()) {
        let calendar = calendar(ZONES[zone]);
        for kind in KINDS {
            let start = calendar.window_start(kind, at_us);
            let end = calendar.window_end(kind, at_us);
            prop_assert!(start <= at_us && at_us < end);
            prop_assert_eq!(calendar.window_start(kind, start), start);
            prop_assert_eq!(calendar.window_end(kind, start), end);
            prop_assert_eq!(calendar.window_start(kind, end), end);
            prop_assert_eq!(calendar.window_start(kind, end - 1), start);
            prop_assert!(calendar.window_end(kind, start - 1) == start);
            prop_assert_eq!(calendar.day_of(start), calendar.day_of(end - 1));
        }
        prop_assert_eq!(calendar.window_start(WindowKind::Day, at_us), calendar.day_start(calendar.day_of(at_us)));
        prop_assert!(calendar.window_start(WindowKind::Hour, at_us) <= calendar.window_start(WindowKind::Minute, at_us));
    }

    #[test]
    fn a_finder_finds_what_the_calendar_says((zone, at_us) in zone_and_time(), steps in prop::collection::vec(-40 * HOUR_US..40 * HOUR_US, 1..40)) {
        let calendar = calendar(ZONES[zone]);
        for kind in KINDS {
            let mut finder = calendar.finder(kind);
            for time in steps.iter().map(|step| at_us + step) {
                prop_assert_eq!(finder.find(time), calendar.window_start(kind, time));
            }
        }
    }

    #[test]
    fn offsets_are_those_of_the_database((zone, at_us) in zone_and_time()) {
        let tz: Tz = ZONES[zone].parse().expect("a known zone");
        prop_assert_eq!(calendar(ZONES[zone]).offset_us(at_us), offset_s(tz, at_us.div_euclid(SECOND_US)) * SECOND_US);
    }
}
