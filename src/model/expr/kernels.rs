//! Arithmetic on columns: checked ints, exact decimals, doubles.
//!
//! Invariant: a result that does not fit its type is an error; a division by zero is null; nothing is rounded but quotients.

use std::sync::Arc;

use arrow::array::types::{ArrowPrimitiveType, Decimal128Type, Float64Type, Int64Type};
use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, PrimitiveBuilder};

use arrow::datatypes::{DataType, i256};

use super::EvaluationError;
use super::evaluate::Value;
use super::node::Rounding;
use super::types::{Operator, type_name};

/// `None` above what 128 bits hold.
pub(super) fn pow10(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

pub(super) fn overflow(operation: &'static str, data_type: &DataType) -> EvaluationError {
    EvaluationError::Overflow { operation, data_type: type_name(data_type) }
}

/// The scale of a decimal; 0 of every other type.
pub(super) fn scale_of(data_type: &DataType) -> i32 {
    match data_type {
        DataType::Decimal128(_, scale) => i32::from(*scale),
        _ => 0,
    }
}

/// A decimal column of a type that the values are known to fit.
pub(super) fn decimal_array(
    values: PrimitiveArray<Decimal128Type>,
    data_type: &DataType,
) -> Result<ArrayRef, EvaluationError> {
    let DataType::Decimal128(precision, scale) = data_type else {
        return Err(EvaluationError::Arrow(format!("{data_type} is no decimal")));
    };
    Ok(Arc::new(values.with_precision_and_scale(*precision, *scale)?))
}

/// A check that values have at most the digits of a type.
pub(super) fn fits(data_type: &DataType) -> impl Fn(i128) -> bool + use<> {
    let limit = match data_type {
        DataType::Decimal128(precision, _) => pow10(u32::from(*precision)).unwrap_or(i128::MAX),
        _ => i128::MAX,
    };
    move |value| value.unsigned_abs() < limit.unsigned_abs()
}

/// Applies `f` where both sides have a value; `None` becomes null.
fn binary<T: ArrowPrimitiveType>(
    left: &Value,
    right: &Value,
    f: impl Fn(T::Native, T::Native) -> Result<Option<T::Native>, EvaluationError>,
) -> Result<PrimitiveArray<T>, EvaluationError> {
    let (lefts, rights) = (left.array().as_primitive::<T>(), right.array().as_primitive::<T>());
    let length = if left.is_one() { rights.len() } else { lefts.len() };
    let mut result = PrimitiveBuilder::<T>::with_capacity(length);
    for row in 0..length {
        let (l, r) = (if left.is_one() { 0 } else { row }, if right.is_one() { 0 } else { row });
        if lefts.is_null(l) || rights.is_null(r) {
            result.append_null();
        } else {
            result.append_option(f(lefts.value(l), rights.value(r))?);
        }
    }
    Ok(result.finish())
}

/// Operands are both int, both double, or both decimal; `to` is the type of the result.
pub(super) fn arithmetic(
    operator: Operator,
    left: &Value,
    right: &Value,
    to: &DataType,
) -> Result<Value, EvaluationError> {
    let array: ArrayRef = match to {
        DataType::Int64 => Arc::new(binary::<Int64Type>(left, right, int_arithmetic(operator))?),
        DataType::Float64 => Arc::new(binary::<Float64Type>(left, right, double_arithmetic(operator))?),
        _ => decimal_array(decimal_arithmetic(operator, left, right, to)?, to)?,
    };
    Ok(if left.is_one() && right.is_one() { Value::One(array) } else { Value::Rows(array) })
}

fn int_arithmetic(operator: Operator) -> impl Fn(i64, i64) -> Result<Option<i64>, EvaluationError> {
    move |left, right| {
        let result = match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide | Operator::Remainder if right == 0 => return Ok(None),
            Operator::Divide => left.checked_div(right),
            // The smallest int by -1 leaves nothing, but overflows on the way.
            Operator::Remainder => Some(left.wrapping_rem(right)),
        };
        result.map(Some).ok_or_else(|| overflow(operator.noun(), &DataType::Int64))
    }
}

fn double_arithmetic(operator: Operator) -> impl Fn(f64, f64) -> Result<Option<f64>, EvaluationError> {
    move |left, right| {
        Ok(match operator {
            Operator::Add => Some(left + right),
            Operator::Subtract => Some(left - right),
            Operator::Multiply => Some(left * right),
            Operator::Divide | Operator::Remainder if right == 0.0 => None,
            Operator::Divide => Some(left / right),
            Operator::Remainder => Some(left % right),
        })
    }
}

fn decimal_arithmetic(
    operator: Operator,
    left: &Value,
    right: &Value,
    to: &DataType,
) -> Result<PrimitiveArray<Decimal128Type>, EvaluationError> {
    let (s1, s2, scale) = (scale_of(left.array().data_type()), scale_of(right.array().data_type()), scale_of(to));
    let fits = fits(to);
    let too_large = || overflow(operator.noun(), to);
    let checked = |value: Option<i128>| match value.filter(|value| fits(*value)) {
        Some(value) => Ok(Some(value)),
        None => Err(too_large()),
    };
    if operator == Operator::Multiply {
        return binary(left, right, |l: i128, r| checked(l.checked_mul(r)));
    }
    if operator == Operator::Divide {
        // The scale of a quotient is never below that of its dividend.
        let widen = (scale - s1 + s2).max(0) as u32;
        return binary(left, right, |l, r| if r == 0 { Ok(None) } else { checked(divide(l, widen, r)) });
    }
    // Both on the larger scale; values that do not fit there do not fit the result.
    let common = s1.max(s2);
    let (f1, f2) = (pow10((common - s1) as u32), pow10((common - s2) as u32));
    let (Some(f1), Some(f2)) = (f1, f2) else { return Err(too_large()) };
    binary(left, right, |l: i128, r: i128| {
        let (Some(l), Some(r)) = (l.checked_mul(f1), r.checked_mul(f2)) else { return Err(too_large()) };
        match operator {
            Operator::Add => checked(l.checked_add(r)),
            Operator::Subtract => checked(l.checked_sub(r)),
            _ if r == 0 => Ok(None),
            _ => checked(l.checked_rem(r)),
        }
    })
}

/// `left * 10^widen / right`, rounded half away from zero.
fn divide(left: i128, widen: u32, right: i128) -> Option<i128> {
    if let Some(dividend) = pow10(widen).and_then(|factor| left.checked_mul(factor)) {
        return Some(divide_rounded(dividend, right, Rounding::Nearest));
    }
    let ten = i256::from_i128(10);
    let dividend = i256::from_i128(left).checked_mul(ten.checked_pow(widen)?)?;
    let divisor = i256::from_i128(right);
    let (quotient, rest) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
    let quotient = quotient.to_i128()?;
    // The rest is smaller than the divisor, which has at most 128 bits.
    let rest = rest.to_i128()?.unsigned_abs();
    if rest >= right.unsigned_abs() - rest {
        return quotient.checked_add(if (left < 0) == (right < 0) { 1 } else { -1 });
    }
    Some(quotient)
}

/// `value / divisor`, which is not zero.
pub(super) fn divide_rounded(value: i128, divisor: i128, rounding: Rounding) -> i128 {
    let (quotient, rest) = (value.wrapping_div(divisor), value.wrapping_rem(divisor));
    let negative = (value < 0) != (divisor < 0);
    let away = match rounding {
        _ if rest == 0 => false,
        Rounding::Nearest => rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs(),
        Rounding::Down => negative,
        Rounding::Up => !negative,
    };
    match (away, negative) {
        (false, _) => quotient,
        (true, true) => quotient - 1,
        (true, false) => quotient + 1,
    }
}

/// `value`, which has `from` digits behind the point, with `to` of them; `None` if that is too large.
pub(super) fn rescale(value: i128, from: i32, to: i32) -> Option<i128> {
    let factor = pow10(from.abs_diff(to));
    match factor {
        Some(factor) if to >= from => value.checked_mul(factor),
        Some(factor) => Some(divide_rounded(value, factor, Rounding::Nearest)),
        None if to >= from && value != 0 => None,
        None => Some(0),
    }
}

pub(super) fn negate(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, EvaluationError> {
    let too_large = || overflow("a negation", to);
    Ok(match to {
        DataType::Int64 => Arc::new(
            array
                .as_primitive::<Int64Type>()
                .try_unary::<_, Int64Type, _>(|v| v.checked_neg().ok_or_else(too_large))?,
        ),
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|v| -v)),
        _ => decimal_array(array.as_primitive::<Decimal128Type>().unary(|v| v.wrapping_neg()), to)?,
    })
}

pub(super) fn absolute(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, EvaluationError> {
    let too_large = || overflow("abs", to);
    Ok(match to {
        DataType::Int64 => Arc::new(
            array
                .as_primitive::<Int64Type>()
                .try_unary::<_, Int64Type, _>(|v| v.checked_abs().ok_or_else(too_large))?,
        ),
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::abs)),
        _ => decimal_array(array.as_primitive::<Decimal128Type>().unary(|v| v.wrapping_abs()), to)?,
    })
}

/// Keeps `digits` behind the point, or makes that many zeros before it.
pub(super) fn round(
    rounding: Rounding,
    array: &ArrayRef,
    digits: i32,
    to: &DataType,
) -> Result<ArrayRef, EvaluationError> {
    let from = scale_of(array.data_type());
    let (fits, too_large) = (fits(to), || overflow("rounding", to));
    // Rounded to a multiple of this many of the last digit, then brought to the scale of the result.
    let unit = pow10((from - digits).max(0) as u32);
    let round_exact = |value: i128| {
        let rounded = match unit {
            Some(unit) => divide_rounded(value, unit, rounding),
            None => 0,
        };
        let rounded = rescale(rounded, digits.min(from), scale_of(to));
        rounded.filter(|value| fits(*value)).ok_or_else(too_large)
    };
    Ok(match to {
        DataType::Float64 => {
            let factor = 10_f64.powi(digits);
            let round_double = |value: f64| {
                let scaled = match rounding {
                    Rounding::Nearest => (value * factor).round(),
                    Rounding::Down => (value * factor).floor(),
                    Rounding::Up => (value * factor).ceil(),
                };
                let rounded = scaled / factor;
                if rounded.is_finite() { rounded } else { value }
            };
            Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(round_double))
        }
        DataType::Int64 => {
            let round_int =
                |value: i64| round_exact(i128::from(value)).and_then(|v| i64::try_from(v).map_err(|_| too_large()));
            Arc::new(array.as_primitive::<Int64Type>().try_unary::<_, Int64Type, _>(round_int)?)
        }
        _ => {
            let values = array.as_primitive::<Decimal128Type>();
            decimal_array(values.try_unary::<_, Decimal128Type, _>(round_exact)?, to)?
        }
    })
}
