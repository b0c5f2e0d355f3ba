//! Compiles operators: arithmetic, comparison, logic, lists, cases, and times moved by intervals.
//!
//! Invariant: operands are brought to the types that their kernel needs before the node is made.

use arrow::datatypes::DataType;
use sqlparser::ast::{self, BinaryOperator, Spanned, UnaryOperator, Value};

use super::compile::Compiler;
use super::literal;
use super::node::{Comparison, Node, Typed};
use super::time::Interval;
use super::types::{self, Operator, TIMESTAMP, is_number, is_time, type_name};
use super::unify::exact_type;
use crate::model::sql_error::SqlError;

impl Compiler<'_> {
    pub(super) fn unary(&mut self, op: UnaryOperator, of: &ast::Expr, ast: &ast::Expr) -> Result<Typed, SqlError> {
        match op {
            UnaryOperator::Not => {
                let typed = self.condition(of)?;
                self.not(typed, ast)
            }
            UnaryOperator::Plus | UnaryOperator::Minus => {
                // The smallest int has no positive twin.
                if let (UnaryOperator::Minus, ast::Expr::Value(value)) = (op, of)
                    && let Value::Number(digits, _) = &value.value
                {
                    let number = literal::number(&format!("-{digits}"));
                    return number.map(Typed::literal).or_else(|reason| self.fail(of, reason));
                }
                let typed = self.number(of)?;
                if op == UnaryOperator::Plus {
                    return Ok(typed);
                }
                let (data_type, nullable) = (typed.data_type.clone(), typed.nullable);
                self.make(Node::Negate(Box::new(typed)), data_type, nullable, ast)
            }
            other => self.fail(ast, format!("the operator {other} is not supported")),
        }
    }

    pub(super) fn binary(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let operator = match op {
            BinaryOperator::And | BinaryOperator::Or => return self.chain(op, ast),
            BinaryOperator::Eq => return self.comparison(Comparison::Equal, left, right, ast),
            BinaryOperator::NotEq => return self.comparison(Comparison::NotEqual, left, right, ast),
            BinaryOperator::Lt => return self.comparison(Comparison::Less, left, right, ast),
            BinaryOperator::LtEq => return self.comparison(Comparison::LessOrEqual, left, right, ast),
            BinaryOperator::Gt => return self.comparison(Comparison::Greater, left, right, ast),
            BinaryOperator::GtEq => return self.comparison(Comparison::GreaterOrEqual, left, right, ast),
            BinaryOperator::StringConcat => return self.concat(&[left, right], ast),
            BinaryOperator::Plus => Operator::Add,
            BinaryOperator::Minus => Operator::Subtract,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Remainder,
            other => return self.fail(right, format!("the operator {other} is not supported")),
        };
        if let Some(shifted) = self.shifted(operator, left, right, ast)? {
            return Ok(shifted);
        }
        let (left_typed, right_typed) = (self.expr(left)?, self.expr(right)?);
        self.arithmetic(operator, (left_typed, left), (right_typed, right), ast)
    }

    /// `a and b and c …`, whose tree leans to the left, as one node.
    pub(super) fn chain(&mut self, op: &BinaryOperator, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let mut parts = Vec::new();
        let mut rest = ast;
        while let ast::Expr::BinaryOp { left, op: other, right } = rest
            && other == op
        {
            parts.push(right.as_ref());
            rest = left;
        }
        parts.push(rest);
        let parts = parts.into_iter().rev().map(|part| self.condition(part)).collect::<Result<Vec<_>, _>>()?;
        let nullable = parts.iter().any(|part| part.nullable);
        let node = if *op == BinaryOperator::And { Node::And(parts) } else { Node::Or(parts) };
        self.make(node, DataType::Boolean, nullable, ast)
    }

    /// Time plus or minus interval; `None` if there is no interval.
    pub(super) fn shifted(
        &mut self,
        operator: Operator,
        left: &ast::Expr,
        right: &ast::Expr,
        ast: &ast::Expr,
    ) -> Result<Option<Typed>, SqlError> {
        let (time, interval) = match (self.interval(left)?, self.interval(right)?) {
            (None, None) => return Ok(None),
            (None, Some(interval)) => (left, interval),
            (Some(interval), None) if operator == Operator::Add => (right, interval),
            _ => return self.fail(ast, "an interval can only be added to a time or subtracted from one"),
        };
        let by = match operator {
            Operator::Add => Some(interval),
            Operator::Subtract => interval.times(-1),
            _ => return self.fail(ast, "an interval can only be added to a time or subtracted from one"),
        };
        let Some(by) = by else { return self.fail(ast, "the interval is too large") };
        let typed = self.time(time)?;
        let nullable = typed.nullable;
        self.make(Node::Shift(Box::new(typed), by), TIMESTAMP, nullable, ast).map(Some)
    }

    /// The interval that an expression is, if it is one: `interval '1 day'`, `- interval '1 day'`, `3 * interval '1 day'`.
    pub(super) fn interval(&self, ast: &ast::Expr) -> Result<Option<Interval>, SqlError> {
        let too_large = || SqlError::at(self.scope.text, ast.span(), "the interval is too large");
        match ast {
            ast::Expr::Nested(inner) => self.interval(inner),
            ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                self.interval(expr)?.map(|interval| interval.times(-1).ok_or_else(too_large)).transpose()
            }
            ast::Expr::BinaryOp { left, op: BinaryOperator::Multiply, right } => {
                let (interval, factor) = match (left.as_ref(), right.as_ref()) {
                    (ast::Expr::Interval(_), ast::Expr::Value(factor)) => (self.interval(left)?, factor),
                    (ast::Expr::Value(factor), ast::Expr::Interval(_)) => (self.interval(right)?, factor),
                    _ => return Ok(None),
                };
                let factor = match &factor.value {
                    Value::Number(digits, _) => digits.parse::<i64>().ok(),
                    _ => None,
                };
                let Some(factor) = factor else { return self.fail(ast, "an interval is multiplied by a whole number") };
                interval.map(|interval| interval.times(factor).ok_or_else(too_large)).transpose()
            }
            ast::Expr::Interval(interval) => {
                let unit = interval.leading_field.as_ref().map(ToString::to_string);
                let text = match interval.value.as_ref() {
                    ast::Expr::Value(value) => match &value.value {
                        Value::SingleQuotedString(text) => Some(text.as_str()),
                        Value::Number(digits, _) => Some(digits.as_str()),
                        _ => None,
                    },
                    _ => None,
                };
                let Some(text) = text.filter(|_| interval.last_field.is_none()) else {
                    return self.fail(ast, "an interval is written interval '1 day'");
                };
                literal::interval(text, unit.as_deref()).map(Some).or_else(|reason| self.fail(ast, reason))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn arithmetic(
        &mut self,
        operator: Operator,
        (left, left_ast): (Typed, &ast::Expr),
        (right, right_ast): (Typed, &ast::Expr),
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        if is_time(&left.data_type) || is_time(&right.data_type) {
            let message = match operator {
                Operator::Subtract if is_time(&left.data_type) && is_time(&right.data_type) => {
                    "times cannot be subtracted; subtract seconds: extract(epoch from …)"
                }
                Operator::Add | Operator::Subtract => "a time is moved by an interval: + interval '1 day'",
                _ => "this cannot be done with a time",
            };
            return self.fail(right_ast, message);
        }
        for (side, place) in [(&left, left_ast), (&right, right_ast)] {
            if !is_number(&side.data_type) && side.data_type != DataType::Null {
                let message = format!("'{}' needs numbers, this is {}", operator.symbol(), type_name(&side.data_type));
                return self.fail(place, message);
            }
        }
        let type_of = |one: &Typed, other: &Typed| match (&one.data_type, &other.data_type) {
            (DataType::Null, DataType::Null) => DataType::Int64,
            (DataType::Null, other) => other.clone(),
            (one, _) => one.clone(),
        };
        let (mut left_type, mut right_type) = (type_of(&left, &right), type_of(&right, &left));
        let to = types::arithmetic(operator, &left_type, &right_type).or_else(|reason| self.fail(ast, reason))?;
        let mut to = to;
        match &to {
            DataType::Float64 => (left_type, right_type) = (DataType::Float64, DataType::Float64),
            DataType::Decimal128(..) => {
                // A literal has the digits it is written with, not all that an int may have.
                left_type = exact_type(&left, left_type);
                right_type = exact_type(&right, right_type);
                to = types::arithmetic(operator, &left_type, &right_type).or_else(|reason| self.fail(ast, reason))?;
            }
            _ => {}
        }
        let nullable = left.nullable || right.nullable || matches!(operator, Operator::Divide | Operator::Remainder);
        let left = self.convert(left, &left_type, left_ast)?;
        let right = self.convert(right, &right_type, right_ast)?;
        self.make(Node::Arithmetic(operator, Box::new(left), Box::new(right)), to, nullable, ast)
    }

    pub(super) fn comparison(
        &mut self,
        comparison: Comparison,
        left: &ast::Expr,
        right: &ast::Expr,
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let [left, right] = self.unified([left, right])?;
        let never_null = matches!(comparison, Comparison::Distinct | Comparison::NotDistinct);
        let nullable = !never_null && (left.nullable || right.nullable);
        self.make(Node::Compare(comparison, Box::new(left), Box::new(right)), DataType::Boolean, nullable, ast)
    }

    pub(super) fn is_null(&mut self, of: &ast::Expr, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expr(of)?;
        // Arrow's column of untyped nulls has no null bits.
        let typed =
            if typed.data_type == DataType::Null { self.convert(typed, &DataType::Boolean, of)? } else { typed };
        self.make(Node::IsNull(Box::new(typed)), DataType::Boolean, false, ast)
    }

    pub(super) fn is(&mut self, expected: bool, of: &ast::Expr, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.condition(of)?;
        self.make(Node::Is(expected, Box::new(typed)), DataType::Boolean, false, ast)
    }

    pub(super) fn not(&self, typed: Typed, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let nullable = typed.nullable;
        self.make(Node::Not(Box::new(typed)), DataType::Boolean, nullable, ast)
    }

    pub(super) fn not_if(&self, negated: bool, typed: Typed, ast: &ast::Expr) -> Result<Typed, SqlError> {
        if negated { self.not(typed, ast) } else { Ok(typed) }
    }

    pub(super) fn in_list(
        &mut self,
        value: &ast::Expr,
        list: &[ast::Expr],
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let all: Vec<&ast::Expr> = std::iter::once(value).chain(list).collect();
        let mut typed = self.unified_list(&all)?;
        let nullable = typed.iter().any(|typed| typed.nullable);
        let value = typed.remove(0);
        self.make(Node::InList(Box::new(value), typed), DataType::Boolean, nullable, ast)
    }

    pub(super) fn like(
        &mut self,
        value: &ast::Expr,
        pattern: &ast::Expr,
        ignore_case: bool,
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let (value, pattern) = (self.text(value)?, self.text(pattern)?);
        let nullable = value.nullable || pattern.nullable;
        let node = Node::Like { value: Box::new(value), pattern: Box::new(pattern), ignore_case };
        self.make(node, DataType::Boolean, nullable, ast)
    }

    pub(super) fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        branches: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let conditions: Vec<&ast::Expr> = branches.iter().map(|branch| &branch.condition).collect();
        let (operand, conditions) = match operand {
            Some(operand) => {
                let all: Vec<&ast::Expr> = std::iter::once(operand).chain(conditions).collect();
                let mut unified = self.unified_list(&all)?;
                (Some(Box::new(unified.remove(0))), unified)
            }
            None => {
                (None, conditions.iter().map(|condition| self.condition(condition)).collect::<Result<Vec<_>, _>>()?)
            }
        };
        let places: Vec<&ast::Expr> = branches.iter().map(|branch| &branch.result).chain(otherwise).collect();
        let (mut results, to) = self.alternatives(&places)?;
        let nullable = otherwise.is_none() || results.iter().any(|result| result.nullable);
        let otherwise = if otherwise.is_some() { results.pop().map(Box::new) } else { None };
        let branches = conditions.into_iter().zip(results).collect();
        self.make(Node::Case { operand, branches, otherwise }, to, nullable, ast)
    }
}
