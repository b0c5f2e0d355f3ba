//! Column values as 128-bit codes: what grouping, minimum, maximum and sorting work on.
//!
//! Invariant: two values of a column are equal exactly if their codes are, and (except for text) ordered as their codes
//! are; a code gives back its value.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringBuilder,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use hashbrown::HashMap;

/// Texts up to this many bytes are packed into their code; longer ones are numbered.
const PACKED_LEN: usize = 15;
/// The highest byte of a numbered text's code, where a packed one has its length.
const NUMBERED: u128 = 0x10 << 120;

/// Texts too long for a code, numbered in the order of their first appearance.
#[derive(Debug, Default)]
pub struct LongTexts {
    numbers: HashMap<Arc<str>, u32>,
    texts: Vec<Arc<str>>,
}

impl LongTexts {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).expect("a query reads fewer than 2^32 rows");
        let shared: Arc<str> = text.into();
        self.texts.push(shared.clone());
        self.numbers.insert(shared, number);
        number
    }
}

/// Appends the code of each row of `array` to `codes`; those of nulls have no meaning.
pub fn encode(array: &dyn Array, long: &mut LongTexts, codes: &mut Vec<i128>) {
    codes.reserve(array.len());
    match array.data_type() {
        DataType::Int64 => codes.extend(array.as_primitive::<Int64Type>().values().iter().map(|v| i128::from(*v))),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            codes.extend(array.as_primitive::<TimestampMicrosecondType>().values().iter().map(|v| i128::from(*v)));
        }
        DataType::Date32 => codes.extend(array.as_primitive::<Date32Type>().values().iter().map(|v| i128::from(*v))),
        DataType::Decimal128(..) => codes.extend_from_slice(array.as_primitive::<Decimal128Type>().values()),
        DataType::Float64 => codes.extend(array.as_primitive::<Float64Type>().values().iter().map(|v| of_double(*v))),
        DataType::Boolean => codes.extend(array.as_boolean().values().iter().map(i128::from)),
        DataType::Utf8 => encode_texts(array, long, codes),
        DataType::Null => codes.resize(codes.len() + array.len(), 0),
        other => unreachable!("a plan has no columns of type {other}"),
    }
}

fn encode_texts(array: &dyn Array, long: &mut LongTexts, codes: &mut Vec<i128>) {
    let texts = array.as_string::<i32>();
    let (offsets, bytes) = (texts.value_offsets(), texts.value_data());
    codes.extend(offsets.windows(2).map(|ends| of_text(bytes, ends[0] as usize, ends[1] as usize, long)));
}

/// By length: the bytes that belong to a packed text, and its length in the highest byte.
const MASKS: [(u128, u128); PACKED_LEN + 1] = {
    let mut masks = [(0, 0); PACKED_LEN + 1];
    let mut len = 0;
    while len <= PACKED_LEN {
        masks[len] = ((1 << (8 * len)) - 1, (len as u128) << 120);
        len += 1;
    }
    masks
};

/// The code of the text at `start..end` of a column's bytes.
#[inline(always)]
pub fn of_text(bytes: &[u8], start: usize, end: usize, long: &mut LongTexts) -> i128 {
    match (MASKS.get(end - start), bytes.get(start..start + 16)) {
        // One load and a mask instead of a copy of unknown length.
        (Some((mask, len)), Some(word)) => {
            (u128::from_le_bytes(word.try_into().expect("sixteen bytes")) & mask | len) as i128
        }
        _ => of_odd_text(&bytes[start..end], long),
    }
}

/// The code of a long text, or of one so near to the column's end that no whole word can be read.
#[cold]
#[inline(never)]
fn of_odd_text(text: &[u8], long: &mut LongTexts) -> i128 {
    if text.len() <= PACKED_LEN {
        return pack(text) as i128;
    }
    let text = std::str::from_utf8(text).expect("the bytes of a text column");
    (NUMBERED | u128::from(long.number(text))) as i128
}

fn pack(text: &[u8]) -> u128 {
    let mut word = [0; 16];
    word[..text.len()].copy_from_slice(text);
    u128::from_le_bytes(word) | (text.len() as u128) << 120
}

/// The total order of numbers, NaN last, with one zero and one NaN.
fn of_double(value: f64) -> i128 {
    let value = if value.is_nan() { f64::NAN.abs() } else { value + 0.0 };
    let bits = value.to_bits() as i64;
    i128::from(bits ^ (((bits >> 63) as u64) >> 1) as i64)
}

fn to_double(code: i128) -> f64 {
    let bits = code as i64;
    f64::from_bits((bits ^ (((bits >> 63) as u64) >> 1) as i64) as u64)
}

/// The array of `data_type` that has these codes.
pub fn decode(data_type: &DataType, codes: impl Iterator<Item = Option<i128>>, long: &LongTexts) -> ArrayRef {
    match data_type {
        DataType::Int64 => Arc::new(codes.map(|c| c.map(|c| c as i64)).collect::<Int64Array>()),
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            Arc::new(codes.map(|c| c.map(|c| c as i64)).collect::<TimestampMicrosecondArray>())
        }
        DataType::Date32 => Arc::new(codes.map(|c| c.map(|c| c as i32)).collect::<Date32Array>()),
        DataType::Decimal128(..) => Arc::new(codes.collect::<Decimal128Array>().with_data_type(data_type.clone())),
        DataType::Float64 => Arc::new(codes.map(|c| c.map(to_double)).collect::<Float64Array>()),
        DataType::Boolean => Arc::new(codes.map(|c| c.map(|c| c != 0)).collect::<BooleanArray>()),
        DataType::Utf8 => {
            let mut texts = StringBuilder::new();
            codes.for_each(|code| match code {
                Some(code) => append_text(&mut texts, code as u128, long),
                None => texts.append_null(),
            });
            Arc::new(texts.finish())
        }
        DataType::Null => new_null_array(data_type, codes.count()),
        other => unreachable!("a plan has no columns of type {other}"),
    }
}

fn append_text(texts: &mut StringBuilder, code: u128, long: &LongTexts) {
    if code & NUMBERED != 0 {
        return texts.append_value(&long.texts[code as u32 as usize]);
    }
    let bytes = code.to_le_bytes();
    let len = usize::from(bytes[15]);
    texts.append_value(std::str::from_utf8(&bytes[..len]).expect("packed from a text"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use proptest::prelude::*;

    fn codes_of(array: &dyn Array) -> (Vec<i128>, LongTexts) {
        let (mut long, mut codes) = (LongTexts::default(), Vec::new());
        encode(array, &mut long, &mut codes);
        (codes, long)
    }

    proptest! {
        #[test]
        fn texts_have_equal_codes_exactly_if_they_are_equal(texts in prop::collection::vec("[ab\\x00ß]{0,18}", 0..20)) {
            let array = StringArray::from(texts.clone());
            let (codes, long) = codes_of(&array);
            for (a, one) in texts.iter().enumerate() {
                for (b, two) in texts.iter().enumerate() {
                    prop_assert_eq!(codes[a] == codes[b], one == two);
                }
            }
            let back = decode(&DataType::Utf8, codes.into_iter().map(Some), &long);
            prop_assert_eq!(back.as_string::<i32>(), &array);
        }

        #[test]
        fn doubles_are_ordered_as_their_codes(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(a.partial_cmp(&b), Some(of_double(a).cmp(&of_double(b))));
            prop_assert_eq!(to_double(of_double(a)), a);
        }
    }

    #[test]
    fn there_is_one_zero_and_nan_comes_last() {
        assert_eq!(of_double(0.0), of_double(-0.0));
        assert!(of_double(-f64::NAN) > of_double(f64::INFINITY));
        assert_eq!(of_double(-f64::NAN), of_double(f64::NAN));
    }
}
