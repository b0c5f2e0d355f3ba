//! Conversions between types, for casts and for operands that must have one type.
//!
//! Invariant: a value arrives exactly, or rounded half away from zero where digits are cut, or is an error.

use std::fmt::Display;
use std::sync::Arc;

use arrow::array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, new_null_array};
use arrow::datatypes::DataType;

use super::EvaluationError;
use super::kernels::{decimal_array, fits, overflow, rescale, scale_of};
use super::literal::{self, Time, exact_number};
use super::time::civil;
use super::types::type_name;
use crate::model::window::{Calendar, DAY_US};

pub(super) fn convert(array: &ArrayRef, to: &DataType, calendar: &Calendar) -> Result<ArrayRef, EvaluationError> {
    match (array.data_type(), to) {
        (from, to) if from == to => Ok(array.clone()),
        (DataType::Null, _) => Ok(new_null_array(to, array.len())),
        (DataType::Utf8, _) => from_text(array, to, calendar),
        (_, DataType::Utf8) => to_text(array),
        (_, DataType::Decimal128(..)) => to_decimal(array, to),
        (_, DataType::Int64) => to_int(array),
        (_, DataType::Float64) => to_double(array),
        (DataType::Int64, DataType::Boolean) => {
            let ints = array.as_primitive::<Int64Type>().iter();
            Ok(Arc::new(ints.map(|value| value.map(|value| value != 0)).collect::<BooleanArray>()))
        }
        (DataType::Date32, DataType::Timestamp(..)) => {
            let days = array.as_primitive::<Date32Type>();
            Ok(Arc::new(days.unary::<_, TimestampMicrosecondType>(|day| calendar.day_start(day))))
        }
        (DataType::Timestamp(..), DataType::Date32) => {
            let times = array.as_primitive::<TimestampMicrosecondType>();
            Ok(Arc::new(times.unary::<_, Date32Type>(|time| calendar.day_of(time))))
        }
        (from, to) => Err(unknown(from, to)),
    }
}

fn unknown(from: &DataType, to: &DataType) -> EvaluationError {
    EvaluationError::Arrow(format!("{} cannot be made {}", type_name(from), type_name(to)))
}

fn invalid(value: impl Display, to: &DataType) -> EvaluationError {
    // Such a text may be long, and the message is shown to people.
    let value = value.to_string();
    let mut shown: String = value.chars().take(60).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    EvaluationError::Invalid { value: shown, data_type: type_name(to) }
}

fn to_decimal(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, EvaluationError> {
    let (from_scale, to_scale, fits) = (scale_of(array.data_type()), scale_of(to), fits(to));
    let convert = |value: i128| {
        let value = rescale(value, from_scale, to_scale);
        value.filter(|value| fits(*value)).ok_or_else(|| overflow("a conversion", to))
    };
    let values = match (array.data_type(), to) {
        (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) if s1 == s2 && p1 <= p2 => {
            array.as_primitive::<Decimal128Type>().clone()
        }
        (DataType::Decimal128(..), _) => array.as_primitive::<Decimal128Type>().try_unary(convert)?,
        (DataType::Int64, _) => array.as_primitive::<Int64Type>().try_unary(|value| convert(i128::from(value)))?,
        (DataType::Float64, _) => array.as_primitive::<Float64Type>().try_unary(|value| {
            // By the shortest digits that mean this double: 2.675 is what people wrote, 2.67499999… is not.
            let exact = exact_number(&format!("{value:e}")).ok_or_else(|| invalid(value, to))?;
            let scaled = rescale(exact.0, exact.1, to_scale);
            scaled.filter(|value| fits(*value)).ok_or_else(|| overflow("a conversion", to))
        })?,
        (from, _) => return Err(unknown(from, to)),
    };
    decimal_array(values, to)
}

fn to_int(array: &ArrayRef) -> Result<ArrayRef, EvaluationError> {
    let too_large = || overflow("a conversion", &DataType::Int64);
    Ok(Arc::new(match array.data_type() {
        DataType::Boolean => array.as_boolean().iter().map(|value| value.map(i64::from)).collect(),
        DataType::Decimal128(_, scale) => {
            let scale = i32::from(*scale);
            array.as_primitive::<Decimal128Type>().try_unary::<_, Int64Type, _>(|value| {
                rescale(value, scale, 0).and_then(|value| i64::try_from(value).ok()).ok_or_else(too_large)
            })?
        }
        DataType::Float64 => array.as_primitive::<Float64Type>().try_unary::<_, Int64Type, _>(|value| {
            let rounded = value.round();
            // The largest double below 2^63 is far from it, so the comparison is exact.
            let is_int = rounded >= i64::MIN as f64 && rounded < -(i64::MIN as f64);
            if is_int { Ok(rounded as i64) } else { Err(too_large()) }
        })?,
        from => return Err(unknown(from, &DataType::Int64)),
    }))
}

fn to_double(array: &ArrayRef) -> Result<ArrayRef, EvaluationError> {
    Ok(Arc::new(match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().unary::<_, Float64Type>(|value| value as f64),
        DataType::Decimal128(_, scale) => {
            let divisor = 10_f64.powi(i32::from(*scale));
            array.as_primitive::<Decimal128Type>().unary::<_, Float64Type>(|value| value as f64 / divisor)
        }
        from => return Err(unknown(from, &DataType::Float64)),
    }))
}

fn from_text(array: &ArrayRef, to: &DataType, calendar: &Calendar) -> Result<ArrayRef, EvaluationError> {
    let texts = array.as_string::<i32>();
    macro_rules! parse {
        ($array:ty, $parse:expr) => {{
            let parsed = texts
                .iter()
                .map(|text| text.map(|text| $parse(text.trim()).ok_or_else(|| invalid(text, to))).transpose());
            parsed.collect::<Result<$array, EvaluationError>>()?
        }};
    }
    Ok(match to {
        DataType::Int64 => Arc::new(parse!(arrow::array::Int64Array, |text: &str| text.parse::<i64>().ok())),
        DataType::Float64 => Arc::new(parse!(arrow::array::Float64Array, |text: &str| text.parse::<f64>().ok())),
        DataType::Boolean => Arc::new(parse!(BooleanArray, parse_bool)),
        DataType::Date32 => Arc::new(parse!(arrow::array::Date32Array, |text| parse_date(text, calendar))),
        DataType::Timestamp(..) => {
            Arc::new(parse!(arrow::array::TimestampMicrosecondArray, |text| parse_time(text, calendar)))
        }
        DataType::Decimal128(..) => {
            let (scale, fits) = (scale_of(to), fits(to));
            let parse_decimal = |text: &str| {
                let (value, from) = exact_number(text)?;
                rescale(value, from, scale).filter(|value| fits(*value))
            };
            decimal_array(parse!(arrow::array::Decimal128Array, parse_decimal), to)?
        }
        _ => return Err(unknown(&DataType::Utf8, to)),
    })
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Some(true),
        "false" | "f" | "0" => Some(false),
        _ => None,
    }
}

fn parse_time(text: &str, calendar: &Calendar) -> Option<i64> {
    Some(match literal::time(text)? {
        Time::Instant(instant) => instant,
        Time::Local(local) => calendar.instant_of_local(local),
    })
}

fn parse_date(text: &str, calendar: &Calendar) -> Option<i32> {
    literal::date(text).or_else(|| parse_time(text, calendar).map(|instant| calendar.day_of(instant)))
}

fn to_text(array: &ArrayRef) -> Result<ArrayRef, EvaluationError> {
    fn all<T>(values: impl Iterator<Item = Option<T>>, show: impl Fn(T) -> String) -> StringArray {
        values.map(|value| value.map(&show)).collect()
    }
    Ok(Arc::new(match array.data_type() {
        DataType::Int64 => all(array.as_primitive::<Int64Type>().iter(), |value| value.to_string()),
        DataType::Float64 => all(array.as_primitive::<Float64Type>().iter(), |value| value.to_string()),
        DataType::Boolean => all(array.as_boolean().iter(), |value| value.to_string()),
        DataType::Date32 => all(array.as_primitive::<Date32Type>().iter(), |day| show_date(i64::from(day))),
        DataType::Timestamp(..) => all(array.as_primitive::<TimestampMicrosecondType>().iter(), show_time),
        DataType::Decimal128(..) => {
            let decimals = array.as_primitive::<Decimal128Type>();
            let show = |row: usize| decimals.is_valid(row).then(|| decimals.value_as_string(row));
            (0..decimals.len()).map(show).collect()
        }
        from => return Err(unknown(from, &DataType::Utf8)),
    }))
}

fn show_date(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// RFC 3339 in UTC, as answers show times.
fn show_time(at_us: i64) -> String {
    let (date, of_day) = (show_date(at_us.div_euclid(DAY_US)), at_us.rem_euclid(DAY_US));
    let (second, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    match micros {
        0 => format!("{date}T{clock}Z"),
        _ if micros % 1000 == 0 => format!("{date}T{clock}.{:03}Z", micros / 1000),
        _ => format!("{date}T{clock}.{micros:06}Z"),
    }
}
