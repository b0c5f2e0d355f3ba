use super::*;

fn meaning(sql_type: &str, charset: Option<&str>) -> Meaning {
    Meaning::of(&Declared { name: "a".into(), sql_type: sql_type.into(), charset: charset.map(str::to_owned) })
}

#[test]
fn definitions_are_understood() {
    for (sql_type, expected) in [
        ("int(10) unsigned", Meaning::Int { unsigned: true }),
        ("bigint(20)", Meaning::Int { unsigned: false }),
        ("decimal(12,2)", Meaning::Decimal),
        ("double unsigned", Meaning::Double),
        ("enum('a','it''s',' unsigned')", Meaning::Enum(vec!["a".into(), "it's".into(), " unsigned".into()])),
        ("set('x','y')", Meaning::Set(vec!["x".into(), "y".into()])),
        ("timestamp(6)", Meaning::Timestamp),
        ("year(4)", Meaning::Year),
    ] {
        assert_eq!(meaning(sql_type, None), expected, "{sql_type}");
    }
    assert_eq!(meaning("varchar(20)", Some("utf8mb4")), Meaning::Utf8);
    assert_eq!(meaning("longtext", Some("latin1")), Meaning::Latin1);
    for refused in ["json", "blob", "geometry", "uuid", "enum('a"] {
        assert!(matches!(meaning(refused, None), Meaning::Other(_)), "{refused}");
    }
    assert!(matches!(meaning("text", Some("sjis")), Meaning::Other(_)));
}

#[test]
fn numbers_are_taken_exactly_or_refused() {
    let (signed, unsigned) = (Meaning::Int { unsigned: false }, Meaning::Int { unsigned: true });
    let raw = |value, bytes| Cell::Raw { value, bytes };
    assert_eq!((int(raw(0xff, 1), &signed), int(raw(0xff, 1), &unsigned)), (Ok(-1), Ok(255)));
    assert_eq!((int(raw(0x80_0000, 3), &signed), int(raw(u64::MAX, 8), &signed)), (Ok(-8_388_608), Ok(-1)));
    assert!(matches!(int(raw(u64::MAX, 8), &unsigned), Err(FitError::Range(_))));
    assert_eq!(int(raw(1, 1), &Meaning::Utf8), Err(FitError::Form));
    let cents = Cell::Decimal { unscaled: 1_250, scale: 2 };
    assert_eq!(decimal(cents, &Meaning::Decimal, 12, 4), Ok(125_000));
    assert_eq!(decimal(cents, &Meaning::Decimal, 12, 1), Ok(125));
    assert!(matches!(decimal(cents, &Meaning::Decimal, 12, 0), Err(FitError::TooFine(_))));
    assert!(matches!(decimal(cents, &Meaning::Decimal, 3, 2), Err(FitError::Range(_))));
    assert_eq!(decimal(raw(0xff, 1), &signed, 5, 2), Ok(-100));
}

#[test]
fn texts_come_out_as_utf8() {
    let read = |cell, meaning: &Meaning| {
        let mut to = Vec::new();
        text(cell, meaning, &mut to).map(|_| String::from_utf8(to).expect("UTF-8"))
    };
    assert_eq!(read(Cell::Bytes(b"gr\xf6\xdfe \x80"), &Meaning::Latin1), Ok("größe €".into()));
    assert_eq!(read(Cell::Bytes("größe 🛒".as_bytes()), &Meaning::Utf8), Ok("größe 🛒".into()));
    assert_eq!(read(Cell::Bytes(b"\xff"), &Meaning::Utf8), Err(FitError::NotUtf8));
    let labels = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let (choice, set) = (Meaning::Enum(labels.clone()), Meaning::Set(labels));
    assert_eq!((read(Cell::Label(2), &choice), read(Cell::Label(0), &choice)), (Ok("b".into()), Ok(String::new())));
    assert_eq!(read(Cell::Label(4), &choice), Err(FitError::NoSuchLabel(4)));
    assert_eq!((read(Cell::Bits(5), &set), read(Cell::Bits(0), &set)), (Ok("a,c".into()), Ok(String::new())));
    assert_eq!(read(Cell::Bits(8), &set), Err(FitError::NoSuchLabel(4)));
    let time = Cell::Time { negative: true, hours: 838, minutes: 59, seconds: 8, micros: 5 };
    assert_eq!(read(time, &Meaning::Time), Ok("-838:59:08.000005".into()));
}

#[test]
fn moments_are_utc_whatever_their_zone() {
    let civil = Civil { year: 2_026, month: 7, day: 1, hour: 12, minute: 0, second: 0, micros: 5 };
    let read = |civil, meaning: &Meaning, zone| {
        timestamp(Cell::DateTime(civil), meaning, zone).map(|value| value.expect("a time"))
    };
    let utc = read(civil, &Meaning::DateTime, Tz::UTC).expect("it exists");
    assert_eq!(utc, 1_782_907_200_000_005);
    assert_eq!(read(civil, &Meaning::DateTime, Tz::Europe__Berlin), Ok(utc - 2 * 3_600_000_000));
    assert_eq!(read(civil, &Meaning::Timestamp, Tz::Europe__Berlin), Ok(utc), "a timestamp is in UTC already");
    // 02:30 comes twice on the last Sunday of October, and never on that of March.
    let night = |month, day| Civil { year: 2_026, month, day, hour: 2, minute: 30, ..Civil::default() };
    let utc_of = |civil| read(civil, &Meaning::DateTime, Tz::UTC).expect("it exists");
    assert_eq!(
        read(night(10, 25), &Meaning::DateTime, Tz::Europe__Berlin),
        Ok(utc_of(night(10, 25)) - 2 * 3_600_000_000)
    );
    assert_eq!(read(night(3, 29), &Meaning::DateTime, Tz::Europe__Berlin), Ok(utc_of(night(3, 29)) - 3_600_000_000));
    assert_eq!(timestamp(Cell::DateTime(Civil::default()), &Meaning::DateTime, Tz::UTC), Ok(None));
    assert_eq!(timestamp(Cell::Instant(0), &Meaning::Timestamp, Tz::UTC), Ok(None));
    assert_eq!(date(Cell::Date(Civil::default())), Ok(None));
    let partly = Civil { year: 2_026, month: 0, day: 3, ..Civil::default() };
    assert!(matches!(date(Cell::Date(partly)), Err(FitError::NoSuchDay(_))));
    let day = Civil { year: 1_970, month: 1, day: 2, ..Civil::default() };
    assert_eq!(date(Cell::Date(day)), Ok(Some(1)));
}
