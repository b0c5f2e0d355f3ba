use super::*;
use proptest::prelude::*;

/// As the server writes it.
fn decimal_to_bytes(value: i128, precision: u8, scale: u8) -> Vec<u8> {
    let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(precision));
    let whole = precision - scale;
    let mut lengths = vec![whole % WORD_DIGITS];
    lengths.extend(std::iter::repeat_n(WORD_DIGITS, usize::from(whole / WORD_DIGITS + scale / WORD_DIGITS)));
    lengths.push(scale % WORD_DIGITS);
    let (mut bytes, mut at) = (Vec::new(), 0);
    for length in lengths.into_iter().filter(|length| *length > 0) {
        let word: u64 = digits[at..at + usize::from(length)].parse().expect("digits");
        bytes.extend_from_slice(&word.to_be_bytes()[8 - digits_bytes(length)..]);
        at += usize::from(length);
    }
    bytes[0] ^= 0x80;
    if value < 0 {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    bytes
}

proptest! {
    #[test]
    fn decimals_come_back_from_their_bytes_and_their_text(value in any::<i128>(), precision in 1u8..=38, scale in 0u8..=30) {
        let scale = scale.min(precision);
        let value = value % 10i128.pow(u32::from(precision));
        let bytes = decimal_to_bytes(value, precision, scale);
        let physical = Physical::Decimal { precision, scale };
        let mut row = Input(&bytes);
        prop_assert_eq!(physical.take(&mut row), Ok(bytes.as_slice()));
        let expected = Cell::Decimal { unscaled: value, scale };
        prop_assert_eq!(cell(physical, &bytes), Ok(expected));
        let digits = format!("{:0width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
        let (whole, part) = digits.split_at(digits.len() - usize::from(scale));
        let point = if scale > 0 { "." } else { "" };
        let text = format!("{}{whole}{point}{part}", if value < 0 { "-" } else { "" });
        prop_assert_eq!(decimal_text(text.as_bytes()), Some(Ok(expected)), "{}", text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..20), digits in 0u8..9, precision: u8, scale: u8) {
        let physicals = [
            Physical::Int(digits), Physical::Float, Physical::Double, Physical::Year, Physical::Date,
            Physical::Decimal { precision, scale }, Physical::Timestamp2(digits), Physical::DateTime2(digits),
            Physical::Time2(digits), Physical::TimestampOld, Physical::DateTimeOld, Physical::TimeOld,
            Physical::Bit(u16::from(precision)), Physical::Enum(digits), Physical::Set(digits), Physical::Bytes(digits),
        ];
        for physical in physicals {
            let mut row = Input(&bytes);
            if let Ok(value) = physical.take(&mut row) {
                let _ = cell(physical, value);
            }
        }
        let _ = decimal_text(&bytes);
    }
}

#[test]
fn times_and_days_are_read_as_the_server_writes_them() {
    // 2026-11-22 10:03:04.12 as datetime(2): years * 13 + months, then days, hours, minutes, seconds.
    let packed = 1u64 << 39 | (2_026 * 13 + 11) << 22 | 22 << 17 | 10 << 12 | 3 << 6 | 4;
    let mut bytes = packed.to_be_bytes()[3..].to_vec();
    bytes.push(12);
    let civil = Civil { year: 2_026, month: 11, day: 22, hour: 10, minute: 3, second: 4, micros: 120_000 };
    assert_eq!(cell(Physical::DateTime2(2), &bytes), Ok(Cell::DateTime(civil)));
    assert_eq!(
        cell(Physical::DateTimeOld, &20_261_122_100_304u64.to_le_bytes()),
        Ok(Cell::DateTime(Civil { micros: 0, ..civil }))
    );
    assert_eq!(cell(Physical::Timestamp2(6), &[0, 0, 0, 1, 0, 0, 5]), Ok(Cell::Instant(1_000_005)));
    let day = 2_026u32 << 9 | 11 << 5 | 22;
    let date = Civil { year: 2_026, month: 11, day: 22, ..Civil::default() };
    assert_eq!(cell(Physical::Date, &day.to_le_bytes()[..3]), Ok(Cell::Date(date)));
    assert_eq!(cell(Physical::Year, &[126]), Ok(Cell::Uint(2_026)));
    let hour = |negative| Cell::Time { negative, hours: 1, minutes: 2, seconds: 3, micros: 0 };
    let value = 1u32 << 12 | 2 << 6 | 3;
    assert_eq!(cell(Physical::Time2(0), &(0x80_0000 + value).to_be_bytes()[1..]), Ok(hour(false)));
    assert_eq!(cell(Physical::Time2(0), &(0x80_0000 - value).to_be_bytes()[1..]), Ok(hour(true)));
}
