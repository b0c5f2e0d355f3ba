//! Numbers, times and lists as people read them. Pure.
//!
//! Invariant: nothing here fails: what is no number or no time is shown as such.

/// A rate or count, short: 950, 12.3 k, 4.1 M.
pub fn count(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    match value.abs() {
        size if size < 9.95 && value.fract().abs() > 0.05 => format!("{value:.1}"),
        size if size < 10_000.0 => format!("{value:.0}"),
        size if size < 999_500.0 => format!("{:.1} k", value / 1e3),
        size if size < 999.5e6 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.1} G", value / 1e9),
    }
}

/// Bytes in the largest fitting unit.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// How long something takes or lasts.
pub fn duration(millis: f64) -> String {
    if !millis.is_finite() {
        return "?".to_owned();
    }
    match millis.max(0.0) {
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_950.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 120e3 => format!("{:.0} s", ms / 1e3),
        ms if ms < 120.0 * 60e3 => format!("{:.0} min", ms / 60e3),
        ms if ms < 48.0 * 3_600e3 => format!("{:.0} h", ms / 3_600e3),
        ms => format!("{:.0} d", ms / 86_400e3),
    }
}

/// The first ones of a list, and how many more there are.
pub fn list(names: &[String], most: usize) -> String {
    match names.len() {
        len if len <= most => names.join(", "),
        len => format!("{} and {} more", names[..most].join(", "), len - most),
    }
}

/// Of a time as documents write it, what a glance needs: the time on the day of `now`, else the date too.
pub fn clock(at: &str, now: &str) -> String {
    let (Some(day), Some(time)) = (at.get(..10), at.get(11..19)) else { return at.to_owned() };
    if now.get(..10) == Some(day) { format!("{time} UTC") } else { format!("{day} {time} UTC") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_never_fail() {
        assert_eq!(
            [0.0, 0.3, 12.4, 9_999.0, 12_345.0, 4.1e6].map(count),
            ["0", "0.3", "12", "9999", "12.3 k", "4.1 M"]
        );
        assert_eq!([f64::NAN, f64::INFINITY].map(count), ["?", "?"]);
        assert_eq!([12.3, 1_500.0, 61e3, 600e3, f64::NAN].map(duration), ["12 ms", "1.5 s", "61 s", "10 min", "?"]);
        assert_eq!([5, 2048, 3 << 30].map(bytes), ["5 B", "2.0 KiB", "3.0 GiB"]);
    }

    #[test]
    fn times_of_today_are_without_a_date_and_lists_end() {
        let (at, now) = ("2026-11-22T10:03:04.120Z", "2026-11-22T11:00:00.000Z");
        assert_eq!(
            (clock(at, now), clock(at, "2026-11-23")),
            ("10:03:04 UTC".into(), "2026-11-22 10:03:04 UTC".into())
        );
        assert_eq!(clock("never", now), "never");
        let names: Vec<String> = (0..5).map(|number: u8| number.to_string()).collect();
        assert_eq!((list(&names, 5), list(&names, 2)), ("0, 1, 2, 3, 4".into(), "0, 1 and 3 more".into()));
    }
}
