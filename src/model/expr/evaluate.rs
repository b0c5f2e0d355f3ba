//! Evaluates compiled expressions over rows, column by column.
//!
//! Invariant: an operand that can fail is computed only for the rows that need it: what `case`, `and`, `or` and `coalesce` have
//! already decided for a row, no error of a later operand can spoil.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::types::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Datum, RecordBatch, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::kernels::zip::zip;
use arrow::compute::kernels::{boolean, cmp};
use arrow::compute::{filter_record_batch, ilike, like, nullif, prep_null_mask_filter, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::node::{Comparison, Node, TextFunction, Typed};
use super::{Context, EvaluationError, convert, kernels, text, time};

impl From<ArrowError> for EvaluationError {
    fn from(error: ArrowError) -> Self {
        Self::Arrow(error.to_string())
    }
}

/// A column, or one value that all rows share.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Rows(ArrayRef),
    One(ArrayRef),
}

/// Texts in one column: Arrow counts their bytes with 31 bits.
pub(super) const MAX_TEXT_BYTES: usize = 1 << 30;
/// Lists longer than this are looked up in a set.
const MAX_COMPARED: usize = 8;

impl Datum for Value {
    fn get(&self) -> (&dyn Array, bool) {
        (self.array().as_ref(), self.is_one())
    }
}

impl Value {
    pub(super) fn array(&self) -> &ArrayRef {
        match self {
            Self::Rows(array) | Self::One(array) => array,
        }
    }

    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::One(_))
    }

    fn like_of(all: &[&Self], array: ArrayRef) -> Self {
        if all.iter().all(|value| value.is_one()) { Self::One(array) } else { Self::Rows(array) }
    }

    fn map(&self, f: impl FnOnce(&ArrayRef) -> Result<ArrayRef, EvaluationError>) -> Result<Self, EvaluationError> {
        Ok(match self {
            Self::Rows(array) => Self::Rows(f(array)?),
            Self::One(array) => Self::One(f(array)?),
        })
    }

    /// The value for each of `rows` rows.
    pub(super) fn into_array(self, rows: usize) -> Result<ArrayRef, EvaluationError> {
        let one = match self {
            Self::Rows(array) => return Ok(array),
            Self::One(one) if rows == 1 => return Ok(one),
            Self::One(one) => one,
        };
        if let Some(text) = one.as_string_opt::<i32>()
            && text.value_length(0) as usize * rows > MAX_TEXT_BYTES
        {
            return Err(EvaluationError::TooLarge(MAX_TEXT_BYTES));
        }
        Ok(take(&one, &UInt32Array::from_value(0, rows), None)?)
    }

    fn into_bools(self, rows: usize) -> Result<BooleanArray, EvaluationError> {
        Ok(self.into_array(rows)?.as_boolean().clone())
    }
}

/// Rows as evaluation sees them.
#[derive(Clone, Copy)]
struct Input<'a> {
    rows: &'a RecordBatch,
    context: &'a Context<'a>,
}

pub(super) fn evaluate(typed: &Typed, rows: &RecordBatch, context: &Context<'_>) -> Result<Value, EvaluationError> {
    Input { rows, context }.value(typed)
}

pub(super) fn evaluate_filter(
    typed: &Typed,
    rows: &RecordBatch,
    context: &Context<'_>,
) -> Result<BooleanArray, EvaluationError> {
    if typed.data_type != DataType::Boolean {
        return Err(EvaluationError::Rows("a condition is bool".into()));
    }
    Ok(true_only(evaluate(typed, rows, context)?.into_bools(rows.num_rows())?))
}

/// Null is not true.
fn true_only(bools: BooleanArray) -> BooleanArray {
    if bools.null_count() == 0 { bools } else { prep_null_mask_filter(&bools) }
}

fn all_rows(count: usize) -> BooleanArray {
    BooleanArray::new(arrow::buffer::BooleanBuffer::new_set(count), None)
}

impl Input<'_> {
    fn count(&self) -> usize {
        self.rows.num_rows()
    }

    fn value(&self, typed: &Typed) -> Result<Value, EvaluationError> {
        match &typed.node {
            Node::Column(column) => self.column(*column, &typed.data_type),
            Node::Literal(value) => Ok(Value::One(value.clone())),
            Node::Param(index) => match self.context.params.get(*index) {
                Some(value) if value.len() == 1 && *value.data_type() == typed.data_type => {
                    Ok(Value::One(value.clone()))
                }
                _ => Err(EvaluationError::Param(index + 1)),
            },
            Node::Now => Ok(one_time(self.context.now_us)),
            Node::Local(local) => Ok(one_time(self.context.calendar.instant_of_local(*local))),
            Node::Convert(from) => {
                self.value(from)?.map(|array| convert::convert(array, &typed.data_type, self.context.calendar))
            }
            Node::Arithmetic(operator, left, right) => {
                kernels::arithmetic(*operator, &self.value(left)?, &self.value(right)?, &typed.data_type)
            }
            Node::Negate(of) => self.value(of)?.map(|array| kernels::negate(array, &typed.data_type)),
            Node::Absolute(of) => self.value(of)?.map(|array| kernels::absolute(array, &typed.data_type)),
            Node::Round(rounding, of, digits) => {
                self.value(of)?.map(|array| kernels::round(*rounding, array, *digits, &typed.data_type))
            }
            Node::Compare(comparison, left, right) => compare(*comparison, &self.value(left)?, &self.value(right)?),
            Node::And(all) => self.connected(all, true),
            Node::Or(all) => self.connected(all, false),
            Node::Not(of) => self.value(of)?.map(|array| Ok(Arc::new(boolean::not(array.as_boolean())?))),
            Node::IsNull(of) => self.value(of)?.map(|array| Ok(Arc::new(boolean::is_null(array)?))),
            Node::Is(expected, of) => self.value(of)?.map(|array| {
                let bools = array.as_boolean().iter();
                Ok(Arc::new(bools.map(|value| Some(value == Some(*expected))).collect::<BooleanArray>()))
            }),
            Node::Between(three) => self.between(three),
            Node::InList(value, list) => self.in_list(value, list),
            Node::Like { value, pattern, ignore_case } => {
                let (value, pattern) = (self.value(value)?, self.value(pattern)?);
                let found = if *ignore_case { ilike(&value, &pattern)? } else { like(&value, &pattern)? };
                Ok(Value::like_of(&[&value, &pattern], Arc::new(found)))
            }
            Node::Case { operand, branches, otherwise } => {
                self.case(typed, operand.as_deref(), branches, otherwise.as_deref())
            }
            Node::Coalesce(all) => self.coalesce(all),
            Node::NullIf { value, other, common } => self.null_if(value, other, common),
            Node::Text(function, arguments) => self.text(*function, arguments),
            Node::Shift(of, by) => self.value(of)?.map(|array| {
                let times = array.as_primitive::<TimestampMicrosecondType>();
                let shift = |at| time::shift(at, *by, self.context.calendar);
                Ok(Arc::new(times.try_unary::<_, TimestampMicrosecondType, _>(shift)?))
            }),
            Node::Truncate(unit, of) => self
                .value(of)?
                .map(|array| Ok(Arc::new(time::truncate(*unit, array.as_primitive(), self.context.calendar)))),
            Node::Extract(field, of) => self
                .value(of)?
                .map(|array| Ok(Arc::new(time::extract(*field, array.as_primitive(), self.context.calendar)))),
        }
    }

    fn column(&self, column: usize, data_type: &DataType) -> Result<Value, EvaluationError> {
        match self.rows.columns().get(column) {
            Some(array) if array.data_type() == data_type => Ok(Value::Rows(array.clone())),
            Some(array) => Err(EvaluationError::Rows(format!("column {column} is {}", array.data_type()))),
            None => Err(EvaluationError::Rows(format!("there is no column {column}"))),
        }
    }

    /// The value where `mask` is true, anything elsewhere; operands that can fail see only those rows.
    fn value_where(&self, typed: &Typed, mask: &BooleanArray) -> Result<Value, EvaluationError> {
        let needed = mask.true_count();
        if !typed.can_fail || needed == self.count() {
            return self.value(typed);
        }
        if needed == 0 {
            return Ok(Value::One(new_null_array(&typed.data_type, 1)));
        }
        let rows = filter_record_batch(self.rows, mask)?;
        let values = match (Input { rows: &rows, ..*self }).value(typed)? {
            one @ Value::One(_) => return Ok(one),
            Value::Rows(values) => values,
        };
        let mut next = 0..needed as u32;
        let places = mask.values().iter().map(|needed| if needed { next.next() } else { None });
        Ok(Value::Rows(take(&values, &places.collect::<UInt32Array>(), None)?))
    }

    /// `and` (`neutral` is true) and `or` (`neutral` is false), with SQL's three truth values.
    fn connected(&self, all: &[Typed], neutral: bool) -> Result<Value, EvaluationError> {
        let mut result: Option<BooleanArray> = None;
        for typed in all {
            let Some(so_far) = result else {
                result = Some(self.value(typed)?.into_bools(self.count())?);
                continue;
            };
            let value = if typed.can_fail {
                let open = so_far.iter().map(|value| Some(value != Some(!neutral))).collect();
                self.value_where(typed, &open)?
            } else {
                self.value(typed)?
            };
            let value = value.into_bools(self.count())?;
            result = Some(match neutral {
                true => boolean::and_kleene(&so_far, &value)?,
                false => boolean::or_kleene(&so_far, &value)?,
            });
        }
        Ok(Value::Rows(Arc::new(result.unwrap_or_else(|| all_rows(self.count())))))
    }

    fn between(&self, [value, low, high]: &[Typed; 3]) -> Result<Value, EvaluationError> {
        let (value, low, high) = (self.value(value)?, self.value(low)?, self.value(high)?);
        let above = compare(Comparison::GreaterOrEqual, &value, &low)?.into_bools(self.count())?;
        let below = compare(Comparison::LessOrEqual, &value, &high)?.into_bools(self.count())?;
        Ok(Value::Rows(Arc::new(boolean::and_kleene(&above, &below)?)))
    }

    fn in_list(&self, value: &Typed, list: &[Typed]) -> Result<Value, EvaluationError> {
        let value = self.value(value)?;
        let list = list.iter().map(|one| self.value(one)).collect::<Result<Vec<_>, _>>()?;
        if list.len() > MAX_COMPARED
            && list.iter().all(Value::is_one)
            && let Some(found) = find_in_set(value.array(), &list)
        {
            return Ok(Value::like_of(&[&value], Arc::new(found)));
        }
        let mut found: Option<BooleanArray> = None;
        for one in &list {
            let equal = compare(Comparison::Equal, &value, one)?.into_bools(self.count())?;
            found = Some(match found {
                Some(found) => boolean::or_kleene(&found, &equal)?,
                None => equal,
            });
        }
        let found = found.unwrap_or_else(|| BooleanArray::from(vec![false; self.count()]));
        Ok(Value::Rows(Arc::new(found)))
    }

    fn case(
        &self,
        typed: &Typed,
        operand: Option<&Typed>,
        branches: &[(Typed, Typed)],
        otherwise: Option<&Typed>,
    ) -> Result<Value, EvaluationError> {
        let operand = operand.map(|operand| self.value(operand)).transpose()?;
        let mut open = all_rows(self.count());
        let mut hits = Vec::with_capacity(branches.len());
        for (condition, result) in branches {
            let holds = match &operand {
                None => self.value_where(condition, &open)?,
                Some(operand) => compare(Comparison::Equal, operand, &self.value_where(condition, &open)?)?,
            };
            let hit = boolean::and(&open, &true_only(holds.into_bools(self.count())?))?;
            open = boolean::and_not(&open, &hit)?;
            hits.push((hit, result));
        }
        let mut value = match otherwise {
            Some(otherwise) => self.value_where(otherwise, &open)?,
            None => Value::One(new_null_array(&typed.data_type, 1)),
        };
        for (hit, result) in hits {
            if hit.true_count() > 0 {
                value = Value::Rows(zip(&hit, &self.value_where(result, &hit)?, &value)?);
            }
        }
        Ok(Value::Rows(value.into_array(self.count())?))
    }

    fn coalesce(&self, all: &[Typed]) -> Result<Value, EvaluationError> {
        let Some((first, rest)) = all.split_first() else {
            return Err(EvaluationError::Arrow("coalesce needs an argument".into()));
        };
        let mut value = self.value(first)?;
        for next in rest {
            if value.array().null_count() == 0 {
                break;
            }
            if value.is_one() {
                value = self.value(next)?;
                continue;
            }
            let open = boolean::is_null(value.array())?;
            value = Value::Rows(zip(&open, &self.value_where(next, &open)?, &value)?);
        }
        Ok(value)
    }

    fn null_if(&self, value: &Typed, other: &Typed, common: &DataType) -> Result<Value, EvaluationError> {
        let (value, other) = (self.value(value)?, self.value(other)?);
        let compared = value.map(|array| convert::convert(array, common, self.context.calendar))?;
        let equal = compare(Comparison::Equal, &compared, &other)?.into_bools(self.count())?;
        Ok(Value::Rows(nullif(&value.into_array(self.count())?, &true_only(equal))?))
    }

    fn text(&self, function: TextFunction, arguments: &[Typed]) -> Result<Value, EvaluationError> {
        let values = arguments.iter().map(|argument| self.value(argument)).collect::<Result<Vec<_>, _>>()?;
        let rows = if values.iter().all(Value::is_one) { 1 } else { self.count() };
        let result = text::apply(function, &values, rows)?;
        Ok(Value::like_of(&values.iter().collect::<Vec<_>>(), result))
    }
}

fn one_time(at_us: i64) -> Value {
    Value::One(Arc::new(TimestampMicrosecondArray::from(vec![at_us])))
}

fn compare(comparison: Comparison, left: &Value, right: &Value) -> Result<Value, EvaluationError> {
    let (one, other) = (without_negative_zero(left)?, without_negative_zero(right)?);
    let (l, r) = (one.as_ref().unwrap_or(left), other.as_ref().unwrap_or(right));
    let result = match comparison {
        Comparison::Equal => cmp::eq(l, r)?,
        Comparison::NotEqual => cmp::neq(l, r)?,
        Comparison::Less => cmp::lt(l, r)?,
        Comparison::LessOrEqual => cmp::lt_eq(l, r)?,
        Comparison::Greater => cmp::gt(l, r)?,
        Comparison::GreaterOrEqual => cmp::gt_eq(l, r)?,
        Comparison::Distinct => cmp::distinct(l, r)?,
        Comparison::NotDistinct => cmp::not_distinct(l, r)?,
    };
    Ok(Value::like_of(&[left, right], Arc::new(result)))
}

/// Arrow puts −0.0 before 0.0; SQL has one zero.
fn without_negative_zero(value: &Value) -> Result<Option<Value>, EvaluationError> {
    if *value.array().data_type() != DataType::Float64 {
        return Ok(None);
    }
    let add_zero = |array: &ArrayRef| -> Result<ArrayRef, EvaluationError> {
        Ok(Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(|value| value + 0.0)))
    };
    value.map(add_zero).map(Some)
}

/// `None` for types that are not looked up.
fn find_in_set(values: &ArrayRef, list: &[Value]) -> Option<BooleanArray> {
    fn search<T: Hash + Eq>(
        values: impl Iterator<Item = Option<T>>,
        list: impl Iterator<Item = Option<T>>,
    ) -> BooleanArray {
        let mut has_null = false;
        let set: HashSet<T> = list.inspect(|one| has_null |= one.is_none()).flatten().collect();
        // Not among known values, but perhaps the unknown one.
        let absent = if has_null { None } else { Some(false) };
        values.map(|value| if set.contains(&value?) { Some(true) } else { absent }).collect()
    }
    macro_rules! search_primitive {
        ($type:ty) => {
            search(
                values.as_primitive::<$type>().iter(),
                list.iter().map(|one| one.array().as_primitive::<$type>().iter().next().flatten()),
            )
        };
    }
    Some(match values.data_type() {
        DataType::Int64 => search_primitive!(Int64Type),
        DataType::Date32 => search_primitive!(Date32Type),
        DataType::Timestamp(..) => search_primitive!(TimestampMicrosecondType),
        DataType::Decimal128(..) => search_primitive!(Decimal128Type),
        DataType::Utf8 => search(
            values.as_string::<i32>().iter(),
            list.iter().map(|one| one.array().as_string::<i32>().iter().next().flatten()),
        ),
        _ => return None,
    })
}
