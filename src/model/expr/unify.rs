//! Brings expressions to one type: what stands on both sides of a comparison, in a list, in the branches of a case.
//!
//! Invariant: an implicit conversion never loses anything; a text becomes a time only where it is a literal or a parameter.

use std::sync::Arc;

use arrow::array::types::Int64Type;
use arrow::array::{Array, AsArray, Date32Array, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use sqlparser::ast;

use super::compile::Compiler;
use super::literal::{self, Time};
use super::node::{Node, Typed};
use super::types::{self, TIMESTAMP, is_time, type_name};
use crate::model::sql_error::SqlError;

/// A text that has no type of its own yet: it becomes a time where one is needed.
fn is_loose_text(typed: &Typed) -> bool {
    typed.data_type == DataType::Utf8 && matches!(typed.node, Node::Literal(_) | Node::Param(_))
}

fn text_of(typed: &Typed) -> Option<&str> {
    match &typed.node {
        Node::Literal(value) => value.as_string_opt::<i32>().filter(|text| text.is_valid(0)).map(|text| text.value(0)),
        _ => None,
    }
}

/// The decimal type of an exact operand: of an int literal, just its digits.
pub(super) fn exact_type(typed: &Typed, data_type: DataType) -> DataType {
    match (&typed.node, &data_type) {
        (Node::Literal(value), DataType::Int64) if value.is_valid(0) && *value.data_type() == DataType::Int64 => {
            let digits = literal::digits(i128::from(value.as_primitive::<Int64Type>().value(0)));
            types::decimal(digits as i32, 0)
        }
        (_, DataType::Int64) => types::decimal(i32::from(types::INT_DIGITS), 0),
        _ => data_type,
    }
}

impl Compiler<'_> {
    /// Compiles several expressions and brings them to one type.
    pub(super) fn unified<const N: usize>(&mut self, all: [&ast::Expr; N]) -> Result<[Typed; N], SqlError> {
        let unified = self.unified_list(&all)?;
        Ok(unified.try_into().unwrap_or_else(|_| unreachable!("as many come out as go in")))
    }

    pub(super) fn unified_list(&mut self, all: &[&ast::Expr]) -> Result<Vec<Typed>, SqlError> {
        let typed = all.iter().map(|ast| self.expr(ast)).collect::<Result<Vec<_>, _>>()?;
        let to = self.common_type(&typed, all)?;
        let to = if to == DataType::Null { DataType::Boolean } else { to };
        typed.into_iter().zip(all).map(|(typed, ast)| self.coerce(typed, &to, ast)).collect()
    }

    /// The type that all can be brought to; `Null` if all are.
    pub(super) fn common_type(&self, all: &[Typed], places: &[&ast::Expr]) -> Result<DataType, SqlError> {
        let mut common = DataType::Null;
        let mut loose_text: Option<&ast::Expr> = None;
        for (typed, place) in all.iter().zip(places) {
            if is_loose_text(typed) {
                loose_text = Some(place);
                continue;
            }
            let of = match &typed.node {
                Node::Literal(_) if matches!(common, DataType::Decimal128(..)) => {
                    exact_type(typed, typed.data_type.clone())
                }
                _ => typed.data_type.clone(),
            };
            common = match types::common(&common, &of) {
                Some(common) => common,
                None => {
                    let (one, other) = (type_name(&typed.data_type), type_name(&common));
                    return self.fail(*place, format!("this is {one}, which does not go together with {other}"));
                }
            };
        }
        let Some(place) = loose_text else { return Ok(common) };
        let only_dates = || {
            let mut texts = all.iter().filter(|typed| is_loose_text(typed));
            texts.all(|typed| text_of(typed).is_some_and(|text| literal::date(text).is_some()))
        };
        match common {
            DataType::Null | DataType::Utf8 => Ok(DataType::Utf8),
            DataType::Date32 if only_dates() => Ok(DataType::Date32),
            DataType::Date32 | DataType::Timestamp(..) => Ok(TIMESTAMP),
            other => self.fail(place, format!("this is text, which does not go together with {}", type_name(&other))),
        }
    }

    /// Brings an operand to a type by the implicit rules.
    pub(super) fn coerce(&mut self, typed: Typed, to: &DataType, place: &ast::Expr) -> Result<Typed, SqlError> {
        let allowed = typed.data_type == *to
            || typed.data_type == DataType::Null
            || types::common(&typed.data_type, to).is_some_and(|common| {
                common == *to || matches!((&common, to), (DataType::Decimal128(..), DataType::Decimal128(..)))
            })
            || is_loose_text(&typed) && is_time(to);
        if !allowed {
            let message = format!("{} is needed, this is {}", type_name(to), type_name(&typed.data_type));
            return self.fail(place, message);
        }
        self.convert(typed, to, place)
    }

    /// A conversion that is known to be legal; one of a literal is computed at once.
    pub(super) fn convert(&mut self, typed: Typed, to: &DataType, place: &ast::Expr) -> Result<Typed, SqlError> {
        if typed.data_type == *to {
            return Ok(typed);
        }
        let nullable = typed.nullable;
        if let (Some(text), true) = (text_of(&typed), is_time(to)) {
            let (text, wrong) = (text.to_string(), |typed| format!("'{typed}' is not a valid {}", type_name(to)));
            if let (DataType::Date32, Some(day)) = (to, literal::date(&text)) {
                return Ok(Typed::literal(Arc::new(Date32Array::from(vec![day]))));
            }
            let time = match literal::time(&text) {
                Some(Time::Instant(at)) => Typed::literal(Arc::new(TimestampMicrosecondArray::from(vec![at]))),
                Some(Time::Local(local)) => Typed::new(Node::Local(local), TIMESTAMP, false),
                None => return self.fail(place, wrong(&text)),
            };
            return self.convert(time, to, place);
        }
        self.make(Node::Convert(Box::new(typed)), to.clone(), nullable, place)
    }

    pub(super) fn cast(&mut self, typed: Typed, to: &DataType, place: &ast::Expr) -> Result<Typed, SqlError> {
        if !types::can_cast(&typed.data_type, to) {
            let message = format!("{} cannot be cast to {}", type_name(&typed.data_type), type_name(to));
            return self.fail(place, message);
        }
        self.convert(typed, to, place)
    }

    /// Expressions of which one becomes the result, brought to one type.
    pub(super) fn alternatives(&mut self, places: &[&ast::Expr]) -> Result<(Vec<Typed>, DataType), SqlError> {
        let typed = places.iter().map(|ast| self.expr(ast)).collect::<Result<Vec<_>, _>>()?;
        let to = self.common_type(&typed, places)?;
        let typed = typed.into_iter().zip(places).map(|(typed, ast)| self.coerce(typed, &to, ast));
        Ok((typed.collect::<Result<_, _>>()?, to))
    }
}
