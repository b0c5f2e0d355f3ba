//! Which blocks a query must read: conditions on the partition key and on `window_start`, taken out of `where`.
//!
//! Invariant: a block that is not read holds no row that passes. What cannot be understood restricts nothing.

use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use sqlparser::ast::{self, BinaryOperator};

use super::QueryError;
use super::rewrite::bare;
use crate::model::block::Day;
use crate::model::expr::{Context, Expr, Scope};
use crate::model::id::Key;
use crate::model::metric::{MetricTable, WINDOW_START};

const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// The conditions, with constants not yet evaluated.
#[derive(Debug, Default)]
pub struct Restriction {
    /// For each condition the values that the key may have.
    keys: Vec<Vec<Expr>>,
    bounds: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    side: Side,
    value: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    After,
    Through,
    Before,
}

/// What reading only the right blocks says of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// All of it: rows need not be looked at.
    Wholly,
    /// All of it where the days read are whole.
    ByDays,
    /// Rows must be looked at.
    NotAll,
}

/// What to read.
#[derive(Debug, Clone, PartialEq)]
pub struct Scan {
    /// In order, each once; `None`: all.
    pub keys: Option<Vec<Key>>,
    pub days: RangeInclusive<Day>,
    /// The first and last `window_start` asked for, microseconds.
    pub windows_us: RangeInclusive<i64>,
    /// Is every window of these days asked for?
    pub whole_days: bool,
}

impl Scan {
    /// Can no row pass?
    pub fn is_empty(&self) -> bool {
        self.windows_us.is_empty() || self.keys.as_ref().is_some_and(Vec::is_empty)
    }

    /// Leaves this key at most, whatever else was asked for: no other block is read.
    pub fn keep_only(&mut self, key: &Key) {
        let asked = self.keys.as_ref().is_none_or(|keys| keys.contains(key));
        self.keys = Some(if asked { vec![key.clone()] } else { Vec::new() });
    }
}

/// Takes conditions apart.
pub struct Finder<'a> {
    pub table: &'a MetricTable,
    pub text: &'a str,
    pub params: &'a [DataType],
}

impl Finder<'_> {
    /// Looks at one of the conditions that all must hold.
    pub fn take(&self, condition: &ast::Expr, restriction: &mut Restriction) -> Said {
        match bare(condition) {
            ast::Expr::BinaryOp { left, op, right } => {
                let turned = match op {
                    BinaryOperator::Gt => BinaryOperator::Lt,
                    BinaryOperator::GtEq => BinaryOperator::LtEq,
                    BinaryOperator::Lt => BinaryOperator::Gt,
                    BinaryOperator::LtEq => BinaryOperator::GtEq,
                    other => other.clone(),
                };
                match self.comparison(left, op, right, restriction) {
                    Said::NotAll => self.comparison(right, &turned, left, restriction),
                    said => said,
                }
            }
            ast::Expr::InList { expr, list, negated: false } if self.is_key(expr) => {
                let values: Option<Vec<_>> = list.iter().map(|value| self.key_value(value)).collect();
                values.map_or(Said::NotAll, |values| {
                    restriction.keys.push(values);
                    Said::Wholly
                })
            }
            ast::Expr::Between { expr, negated: false, low, high } if self.is_window(expr) => {
                self.bounds(&[(Side::From, low), (Side::Through, high)], restriction)
            }
            _ => Said::NotAll,
        }
    }

    fn comparison(
        &self,
        left: &ast::Expr,
        operator: &BinaryOperator,
        right: &ast::Expr,
        restriction: &mut Restriction,
    ) -> Said {
        if self.is_key(left) && *operator == BinaryOperator::Eq {
            return self.key_value(right).map_or(Said::NotAll, |value| {
                restriction.keys.push(vec![value]);
                Said::Wholly
            });
        }
        if !self.is_window(left) {
            return Said::NotAll;
        }
        match operator {
            BinaryOperator::Eq => self.bounds(&[(Side::From, right), (Side::Through, right)], restriction),
            BinaryOperator::Gt => self.bounds(&[(Side::After, right)], restriction),
            BinaryOperator::GtEq => self.bounds(&[(Side::From, right)], restriction),
            BinaryOperator::Lt => self.bounds(&[(Side::Before, right)], restriction),
            BinaryOperator::LtEq => self.bounds(&[(Side::Through, right)], restriction),
            _ => Said::NotAll,
        }
    }

    /// Bounds that together are a condition.
    fn bounds(&self, bounds: &[(Side, &ast::Expr)], restriction: &mut Restriction) -> Said {
        let understood = bounds.iter().filter(|(side, expr)| self.bound(*side, expr, restriction)).count();
        if understood == bounds.len() { Said::ByDays } else { Said::NotAll }
    }

    fn is_column(expr: &ast::Expr, name: &str) -> bool {
        matches!(bare(expr), ast::Expr::Identifier(column) if column.value == name)
    }

    fn is_key(&self, expr: &ast::Expr) -> bool {
        Self::is_column(expr, self.table.schema.field(1).name())
    }

    fn is_window(&self, expr: &ast::Expr) -> bool {
        Self::is_column(expr, WINDOW_START)
    }

    /// A constant of exactly the key's type: then equal values are equal keys.
    fn key_value(&self, expr: &ast::Expr) -> Option<Expr> {
        let value = Expr::compile(expr, &self.scope(&Schema::empty())).ok()?;
        (value.data_type() == self.table.schema.field(1).data_type()).then_some(value)
    }

    /// False if it is not understood.
    fn bound(&self, side: Side, expr: &ast::Expr, restriction: &mut Restriction) -> bool {
        let value = Expr::compile_to(expr, &self.scope(&Schema::empty()), &TIMESTAMP).ok();
        let value = value.filter(|value| *value.data_type() == TIMESTAMP);
        value.map(|value| restriction.bounds.push(Bound { side, value })).is_some()
    }

    fn scope<'s>(&'s self, schema: &'s Schema) -> Scope<'s> {
        Scope { schema, text: self.text, params: self.params, allow_now: true }
    }
}

/// The conditions that all must hold for `condition` to hold.
pub fn conjuncts(condition: ast::Expr) -> Vec<ast::Expr> {
    let (mut found, mut rest) = (Vec::new(), vec![condition]);
    while let Some(condition) = rest.pop() {
        match condition {
            ast::Expr::BinaryOp { left, op: BinaryOperator::And, right } => rest.extend([*right, *left]),
            ast::Expr::Nested(inner) => rest.push(*inner),
            other => found.push(other),
        }
    }
    found
}

impl Restriction {
    /// Its constants.
    pub fn constants(&self) -> impl Iterator<Item = &Expr> {
        self.keys.iter().flatten().chain(self.bounds.iter().map(|bound| &bound.value))
    }

    pub fn bind(&self, context: &Context<'_>) -> Result<Scan, QueryError> {
        let mut keys: Option<Vec<Key>> = None;
        for values in &self.keys {
            let mut allowed = Vec::with_capacity(values.len());
            for value in values {
                allowed.extend(key_of(value, context)?);
            }
            allowed.sort_unstable();
            allowed.dedup();
            keys = Some(match keys {
                Some(before) => before.into_iter().filter(|key| allowed.binary_search(key).is_ok()).collect(),
                None => allowed,
            });
        }
        let windows_us = self.windows(context)?;
        let day = |at_us: i64, open: Day| match at_us {
            i64::MIN | i64::MAX => open,
            bound => context.calendar.day_of(bound),
        };
        let days = day(*windows_us.start(), Day::MIN)..=day(*windows_us.end(), Day::MAX);
        let begins_day = |at_us: i64| context.calendar.day_of(at_us) != context.calendar.day_of(at_us - 1);
        let whole_days = matches!(*windows_us.start(), i64::MIN) || begins_day(*windows_us.start());
        let whole_days = whole_days && (*windows_us.end() == i64::MAX || begins_day(*windows_us.end() + 1));
        Ok(Scan { keys, days, windows_us, whole_days })
    }

    fn windows(&self, context: &Context<'_>) -> Result<RangeInclusive<i64>, QueryError> {
        let (mut from, mut through) = (i64::MIN, i64::MAX);
        for bound in &self.bounds {
            let value = bound.value.evaluate_constant(context)?;
            if value.is_null(0) {
                // A comparison with null is not true for any row.
                return Ok(RangeInclusive::new(1, 0));
            }
            let value = value.as_primitive::<TimestampMicrosecondType>().value(0);
            match bound.side {
                Side::From => from = from.max(value),
                Side::After => from = from.max(value.saturating_add(1)),
                Side::Through => through = through.min(value),
                Side::Before => through = through.min(value.saturating_sub(1)),
            }
        }
        Ok(from..=through)
    }
}

fn key_of(value: &Expr, context: &Context<'_>) -> Result<Option<Key>, QueryError> {
    let value = value.evaluate_constant(context)?;
    if value.is_null(0) {
        return Ok(None);
    }
    Ok(Some(match value.data_type() {
        DataType::Int64 => Key::int(value.as_primitive::<Int64Type>().value(0)),
        _ => Key::text(value.as_string::<i32>().value(0)),
    }))
}
