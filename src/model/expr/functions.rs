//! Compiles calls of functions, and the operators that sqlparser writes as functions.
//!
//! Invariant: what decides a result's type (digits to round to, units of time) is a literal.

use arrow::datatypes::DataType;
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value};

use super::compile::Compiler;
use super::node::{Node, Rounding, TextFunction, Typed};
use super::time::{Field, Unit};
use super::types::{self, TIMESTAMP, is_number};
use crate::model::aggregate_call::function_name;
use crate::model::sql_error::SqlError;

const KNOWN: &str = "abs, ceil, coalesce, concat, date_part, date_trunc, extract, floor, length, lower, now, nullif, \
                     round, substr, trim, upper";

impl Compiler<'_> {
    pub(super) fn function(&mut self, call: &ast::Function, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let name = function_name(call).unwrap_or_else(|| call.name.to_string());
        if ["count", "sum", "avg", "min", "max"].contains(&name.as_str()) {
            return self.fail(ast, format!("the aggregate {name} cannot stand here"));
        }
        let arguments = self.arguments(call, &name, ast)?;
        match (name.as_str(), arguments.as_slice()) {
            ("now" | "current_timestamp", []) if self.scope.allow_now => Ok(Typed::new(Node::Now, TIMESTAMP, false)),
            ("now" | "current_timestamp", []) => {
                self.fail(ast, "now() cannot be used here: the result must not depend on when it is computed")
            }
            ("abs", [of]) => {
                let typed = self.number(of)?;
                let (data_type, nullable) = (typed.data_type.clone(), typed.nullable);
                self.make(Node::Absolute(Box::new(typed)), data_type, nullable, ast)
            }
            ("round", [of]) => self.round(Rounding::Nearest, of, 0, ast),
            ("round", [of, digits]) => {
                let digits = self.literal_int(digits)?;
                self.round(Rounding::Nearest, of, digits, ast)
            }
            ("ceil" | "ceiling", [of]) => self.round(Rounding::Up, of, 0, ast),
            ("floor", [of]) => self.round(Rounding::Down, of, 0, ast),
            ("lower", [of]) => self.text_call(TextFunction::Lower, of, ast),
            ("upper", [of]) => self.text_call(TextFunction::Upper, of, ast),
            ("trim", [of]) => self.trim(of, ast),
            ("length" | "char_length" | "character_length", [of]) => self.text_call(TextFunction::Length, of, ast),
            ("substr" | "substring", [of, from]) => self.substring(of, Some(from), None, ast),
            ("substr" | "substring", [of, from, length]) => self.substring(of, Some(from), Some(length), ast),
            ("concat", all) if !all.is_empty() => self.concat(all, ast),
            ("coalesce", all) if !all.is_empty() => self.coalesce(all, ast),
            ("nullif", [left, right]) => self.null_if(left, right, ast),
            ("date_trunc", [unit, of]) => {
                let unit = self.literal_text(unit)?.parse::<Unit>().or_else(|reason| self.fail(*unit, reason))?;
                let typed = self.time(of)?;
                let nullable = typed.nullable;
                self.make(Node::Truncate(unit, Box::new(typed)), TIMESTAMP, nullable, ast)
            }
            ("date_part", [field, of]) => {
                let field = self.literal_text(field)?;
                self.extract(&field, of, ast)
            }
            (name, _) if KNOWN.split(", ").any(|known| known == name) => {
                self.fail(ast, format!("{name} takes another number of arguments"))
            }
            _ => self.fail(ast, format!("unknown function '{name}'; known: {KNOWN}")),
        }
    }

    /// The plain arguments of a call that has nothing else.
    fn arguments<'e>(
        &self,
        call: &'e ast::Function,
        name: &str,
        ast: &ast::Expr,
    ) -> Result<Vec<&'e ast::Expr>, SqlError> {
        let extra = call.over.is_some()
            || call.filter.is_some()
            || call.null_treatment.is_some()
            || call.uses_odbc_syntax
            || !call.within_group.is_empty()
            || !matches!(call.parameters, FunctionArguments::None);
        let list = match &call.args {
            FunctionArguments::None => return Ok(Vec::new()),
            FunctionArguments::List(list)
                if !extra && list.duplicate_treatment.is_none() && list.clauses.is_empty() =>
            {
                &list.args
            }
            _ => return self.fail(ast, format!("this form of {name}(…) is not supported")),
        };
        let plain = list.iter().map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Ok(argument),
            _ => self.fail(ast, format!("this form of {name}(…) is not supported")),
        });
        plain.collect()
    }

    fn literal_text(&self, ast: &ast::Expr) -> Result<String, SqlError> {
        match ast {
            ast::Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)) => {
                Ok(value.value.clone().into_string().unwrap_or_default())
            }
            _ => self.fail(ast, "a literal is needed here, like 'hour'"),
        }
    }

    fn literal_int(&self, ast: &ast::Expr) -> Result<i32, SqlError> {
        let (sign, digits) = match ast {
            ast::Expr::UnaryOp { op: UnaryOperator::Minus, expr } => (-1, expr.as_ref()),
            other => (1, other),
        };
        let number = match digits {
            ast::Expr::Value(value) => match &value.value {
                Value::Number(digits, _) => digits.parse::<i32>().ok().filter(|digits| *digits <= 38),
                _ => None,
            },
            _ => None,
        };
        match number {
            Some(number) => Ok(sign * number),
            None => self.fail(ast, "a literal between -38 and 38 is needed here"),
        }
    }

    pub(super) fn round(
        &mut self,
        rounding: Rounding,
        of: &ast::Expr,
        digits: i32,
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let typed = self.number(of)?;
        let nullable = typed.nullable;
        let to = match &typed.data_type {
            DataType::Int64 if digits >= 0 => return Ok(typed),
            DataType::Decimal128(_, scale) if digits >= i32::from(*scale) => return Ok(typed),
            DataType::Decimal128(precision, scale) => {
                // 9.99 becomes 10.0; 5 to the thousands may become 1000.
                let whole = (i32::from(*precision) - i32::from(*scale) + 1).max(1 - digits);
                types::decimal(whole, digits.max(0))
            }
            other => other.clone(),
        };
        self.make(Node::Round(rounding, Box::new(typed), digits), to, nullable, ast)
    }

    pub(super) fn extract(&mut self, field: &str, of: &ast::Expr, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let field = field.parse::<Field>().or_else(|reason| self.fail(ast, reason))?;
        let typed = self.time(of)?;
        let nullable = typed.nullable;
        self.make(Node::Extract(field, Box::new(typed)), DataType::Int64, nullable, ast)
    }

    pub(super) fn substring(
        &mut self,
        of: &ast::Expr,
        from: Option<&ast::Expr>,
        length: Option<&ast::Expr>,
        ast: &ast::Expr,
    ) -> Result<Typed, SqlError> {
        let mut arguments = vec![self.text(of)?];
        match from {
            Some(from) => arguments.push(self.int(from)?),
            None => arguments.push(Typed::literal(std::sync::Arc::new(arrow::array::Int64Array::from(vec![1])))),
        }
        if let Some(length) = length {
            arguments.push(self.int(length)?);
        }
        self.text_node(TextFunction::Substring, arguments, ast)
    }

    fn int(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expr(ast)?;
        self.coerce(typed, &DataType::Int64, ast)
    }

    pub(super) fn trim(&mut self, of: &ast::Expr, ast: &ast::Expr) -> Result<Typed, SqlError> {
        self.text_call(TextFunction::Trim, of, ast)
    }

    fn text_call(&mut self, function: TextFunction, of: &ast::Expr, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let argument = self.text(of)?;
        self.text_node(function, vec![argument], ast)
    }

    /// `a || b`: null if one of them is. Numbers and times are shown as casts to text show them.
    pub(super) fn concat(&mut self, all: &[&ast::Expr], ast: &ast::Expr) -> Result<Typed, SqlError> {
        let mut arguments = Vec::with_capacity(all.len());
        for of in all {
            let typed = self.expr(of)?;
            arguments.push(self.convert(typed, &DataType::Utf8, of)?);
        }
        self.text_node(TextFunction::Concat, arguments, ast)
    }

    fn text_node(&self, function: TextFunction, arguments: Vec<Typed>, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let nullable = arguments.iter().any(|argument| argument.nullable);
        let to = if function == TextFunction::Length { DataType::Int64 } else { DataType::Utf8 };
        self.make(Node::Text(function, arguments), to, nullable, ast)
    }

    fn coalesce(&mut self, all: &[&ast::Expr], ast: &ast::Expr) -> Result<Typed, SqlError> {
        let (alternatives, to) = self.alternatives(all)?;
        if to == DataType::Null {
            return Ok(Typed::literal(std::sync::Arc::new(arrow::array::NullArray::new(1))));
        }
        let nullable = alternatives.iter().all(|alternative| alternative.nullable);
        self.make(Node::Coalesce(alternatives), to, nullable, ast)
    }

    fn null_if(&mut self, left: &ast::Expr, right: &ast::Expr, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let (value, other) = (self.expr(left)?, self.expr(right)?);
        let both = [value, other];
        let common = self.common_type(&both, &[left, right])?;
        let [value, other] = both;
        if value.data_type == DataType::Null || common == DataType::Null {
            return Ok(value);
        }
        let other = self.coerce(other, &common, right)?;
        // A text that stands for a time has no other type.
        let value = if is_number(&common) { value } else { self.coerce(value, &common, left)? };
        let data_type = value.data_type.clone();
        let node = Node::NullIf { value: Box::new(value), other: Box::new(other), common };
        self.make(node, data_type, true, ast)
    }
}
