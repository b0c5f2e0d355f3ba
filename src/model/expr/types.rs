//! The type rules: what two types have in common, what arithmetic gives, what may be converted to what.
//!
//! Invariant: every type here is one of int, decimal, double, text, bool, timestamp, date, or null (an untyped NULL).

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};
use sqlparser::ast::{self, ExactNumberInfo};

pub(super) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
pub(super) const MAX_PRECISION: u8 = DECIMAL128_MAX_PRECISION;
/// Digits of the largest int.
pub(super) const INT_DIGITS: u8 = 19;

/// A type as `cluster.toml` and answers name it.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int64 => "int".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Float64 => "double".into(),
        DataType::Utf8 => "text".into(),
        DataType::Boolean => "bool".into(),
        DataType::Timestamp(..) => "timestamp".into(),
        DataType::Date32 => "date".into(),
        DataType::Null => "null".into(),
        other => other.to_string(),
    }
}

pub(super) fn is_supported(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int64
            | DataType::Float64
            | DataType::Utf8
            | DataType::Boolean
            | DataType::Date32
            | DataType::Null
            | DataType::Timestamp(TimeUnit::Microsecond, None)
    ) || matches!(data_type, DataType::Decimal128(_, scale) if *scale >= 0)
}

pub(super) fn is_number(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Decimal128(..) | DataType::Float64)
}

pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..) | DataType::Date32)
}

/// Precision and scale of an exact number.
pub(super) fn exact(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Int64 => Some((INT_DIGITS, 0)),
        DataType::Decimal128(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

/// A decimal with `whole` digits before the point and `scale` behind it, cut to what 128 bits hold.
pub(super) fn decimal(whole: i32, scale: i32) -> DataType {
    let scale = scale.clamp(0, i32::from(MAX_PRECISION));
    let precision = (whole + scale).clamp(1.max(scale), i32::from(MAX_PRECISION));
    DataType::Decimal128(precision as u8, scale as i8)
}

/// The type that values of both types have without loss, or `None`.
pub(super) fn common(left: &DataType, right: &DataType) -> Option<DataType> {
    match (left, right) {
        (same, other) if same == other => Some(same.clone()),
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Float64, other) | (other, DataType::Float64) if is_number(other) => Some(DataType::Float64),
        (one, other) if is_time(one) && is_time(other) => Some(TIMESTAMP),
        _ => {
            let ((p1, s1), (p2, s2)) = (exact(left)?, exact(right)?);
            let (p1, s1, p2, s2) = (i32::from(p1), i32::from(s1), i32::from(p2), i32::from(s2));
            Some(decimal((p1 - s1).max(p2 - s2), s1.max(s2)))
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    /// For messages: "the result of …".
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Add => "an addition",
            Self::Subtract => "a subtraction",
            Self::Multiply => "a multiplication",
            Self::Divide => "a division",
            Self::Remainder => "a remainder",
        }
    }
}

/// The type of arithmetic on two numbers.
pub(super) fn arithmetic(operator: Operator, left: &DataType, right: &DataType) -> Result<DataType, String> {
    if *left == DataType::Float64 || *right == DataType::Float64 {
        return Ok(DataType::Float64);
    }
    if *left == DataType::Int64 && *right == DataType::Int64 && operator != Operator::Divide {
        return Ok(DataType::Int64);
    }
    let not_numbers = || format!("'{}' needs numbers", operator.symbol());
    let ((p1, s1), (p2, s2)) = exact(left).zip(exact(right)).ok_or_else(not_numbers)?;
    let (p1, s1, p2, s2) = (i32::from(p1), i32::from(s1), i32::from(p2), i32::from(s2));
    Ok(match operator {
        Operator::Add | Operator::Subtract => decimal((p1 - s1).max(p2 - s2) + 1, s1.max(s2)),
        Operator::Multiply if s1 + s2 > i32::from(MAX_PRECISION) => {
            return Err(format!(
                "the product would have {} digits behind the point, {MAX_PRECISION} is the most; cast or round first",
                s1 + s2
            ));
        }
        Operator::Multiply => decimal(p1 - s1 + p2 - s2, s1 + s2),
        Operator::Divide => decimal(p1 - s1 + s2, (s1 + 4).max(6)),
        Operator::Remainder => decimal((p1 - s1).min(p2 - s2).max(1), s1.max(s2)),
    })
}

/// May a value be converted, in so many words (`cast`)?
pub(super) fn can_cast(from: &DataType, to: &DataType) -> bool {
    use DataType::{Boolean, Date32, Int64, Null, Timestamp, Utf8};
    match (from, to) {
        (same, other) if same == other => true,
        (Null, _) | (_, Utf8) | (Utf8, _) => true,
        (one, other) if is_number(one) && is_number(other) => true,
        (Boolean, Int64) | (Int64, Boolean) => true,
        (Timestamp(..), Date32) | (Date32, Timestamp(..)) => true,
        _ => false,
    }
}

/// The type that a cast names; the error says which ones there are.
pub(super) fn named(data_type: &ast::DataType) -> Result<DataType, String> {
    use ast::DataType as Sql;
    Ok(match data_type {
        Sql::Int(None) | Sql::Integer(None) | Sql::BigInt(None) | Sql::Int8(None) | Sql::Int64 => DataType::Int64,
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => return decimal_of(*info),
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => DataType::Float64,
        Sql::Text | Sql::Varchar(None) | Sql::CharacterVarying(None) | Sql::String(None) => DataType::Utf8,
        Sql::Bool | Sql::Boolean => DataType::Boolean,
        Sql::Timestamp(None, _) | Sql::Datetime(None) => TIMESTAMP,
        Sql::Date => DataType::Date32,
        other => {
            return Err(format!("unknown type {other}; known: int, decimal(p,s), double, text, bool, timestamp, date"));
        }
    })
}

fn decimal_of(info: ExactNumberInfo) -> Result<DataType, String> {
    let (precision, scale) = match info {
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::None => return Err("a decimal needs its digits: decimal(12,2)".into()),
    };
    if !(1..=u64::from(MAX_PRECISION)).contains(&precision) {
        return Err(format!("decimal precision {precision} is not between 1 and {MAX_PRECISION}"));
    }
    if scale < 0 || scale as u64 > precision {
        return Err(format!("decimal scale {scale} is not between 0 and the precision {precision}"));
    }
    Ok(DataType::Decimal128(precision as u8, scale as i8))
}
