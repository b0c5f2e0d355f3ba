//! Compiles sqlparser's syntax trees into typed expressions.
//!
//! Invariant: a tree is refused at its place, or compiled wholly; what is constant is computed here, so a literal that cannot
//! be computed is an error of the text, not of the rows.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema};
use sqlparser::ast::{self, CastKind, CeilFloorKind, DateTimeField, Spanned, Value};

use super::literal::literal_array;
use super::node::{Comparison, Node, Rounding, Typed};
use super::types::{self, TIMESTAMP, is_number, type_name};
use super::{Context, Expr, Scope};
use crate::model::sql_error::SqlError;
use crate::model::window::Calendar;

/// How deep an expression may be; chains of `and` and of `or` count once.
const MAX_DEPTH: usize = 100;

pub(super) fn compile(ast: &ast::Expr, scope: &Scope<'_>) -> Result<Typed, SqlError> {
    let mut compiler = Compiler { scope, depth: 0 };
    let typed = compiler.expr(ast)?;
    // Answers have no column of no type.
    if typed.data_type == DataType::Null { compiler.convert(typed, &DataType::Utf8, ast) } else { Ok(typed) }
}

pub(super) fn compile_to(ast: &ast::Expr, scope: &Scope<'_>, to: &DataType) -> Result<Typed, SqlError> {
    let mut compiler = Compiler { scope, depth: 0 };
    let typed = compiler.expr(ast)?;
    compiler.coerce(typed, to, ast)
}

pub(super) struct Compiler<'a> {
    pub scope: &'a Scope<'a>,
    depth: usize,
}
impl Compiler<'_> {
    pub(super) fn fail<T>(&self, place: &impl Spanned, message: impl Into<String>) -> Result<T, SqlError> {
        Err(SqlError::at(self.scope.text, place.span(), message))
    }

    pub(super) fn expr(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail(ast, format!("the expression is more than {MAX_DEPTH} operations deep"));
        }
        let typed = self.inner(ast);
        self.depth -= 1;
        typed
    }

    fn inner(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        use ast::Expr::*;
        match ast {
            Nested(inner) => self.expr(inner),
            Identifier(name) => self.column(name),
            CompoundIdentifier(_) => self.fail(ast, "write the column's name alone"),
            Value(value) => self.literal(&value.value, ast),
            TypedString(typed) => match typed.value.value.clone().into_string() {
                Some(text) => self.typed_literal(&text, &typed.data_type, ast),
                None => self.fail(ast, "a text in quotes is needed"),
            },
            UnaryOp { op, expr } => self.unary(*op, expr, ast),
            BinaryOp { left, op, right } => self.binary(left, op, right, ast),
            IsNull(of) | IsUnknown(of) => self.is_null(of, ast),
            IsNotNull(of) | IsNotUnknown(of) => {
                let typed = self.is_null(of, ast)?;
                self.not(typed, ast)
            }
            IsTrue(of) => self.is(true, of, ast),
            IsFalse(of) => self.is(false, of, ast),
            IsNotTrue(of) => self.is(true, of, ast).and_then(|typed| self.not(typed, ast)),
            IsNotFalse(of) => self.is(false, of, ast).and_then(|typed| self.not(typed, ast)),
            IsDistinctFrom(left, right) => self.comparison(Comparison::Distinct, left, right, ast),
            IsNotDistinctFrom(left, right) => self.comparison(Comparison::NotDistinct, left, right, ast),
            Between { expr, negated, low, high } => {
                let [value, low, high] = self.unified([expr, low, high])?;
                let nullable = value.nullable || low.nullable || high.nullable;
                let node = Node::Between(Box::new([value, low, high]));
                let typed = self.make(node, DataType::Boolean, nullable, ast)?;
                self.not_if(*negated, typed, ast)
            }
            InList { expr, list, negated } => {
                let typed = self.in_list(expr, list, ast)?;
                self.not_if(*negated, typed, ast)
            }
            Like { negated, any: false, expr, pattern, escape_char: None } => {
                let typed = self.like(expr, pattern, false, ast)?;
                self.not_if(*negated, typed, ast)
            }
            ILike { negated, any: false, expr, pattern, escape_char: None } => {
                let typed = self.like(expr, pattern, true, ast)?;
                self.not_if(*negated, typed, ast)
            }
            Like { .. } | ILike { .. } => self.fail(ast, "like knows neither any nor escape; \\ is the escape"),
            Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), ast)
            }
            Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, format: None } => {
                let to = types::named(data_type).or_else(|reason| self.fail(ast, reason))?;
                let typed = self.expr(expr)?;
                self.cast(typed, &to, expr)
            }
            Cast { .. } => self.fail(ast, "write cast(… as …)"),
            Extract { field, expr, .. } => self.extract(&field.to_string(), expr, ast),
            Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.round(Rounding::Up, expr, 0, ast)
            }
            Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.round(Rounding::Down, expr, 0, ast)
            }
            Substring { expr, substring_from, substring_for, .. } => {
                self.substring(expr, substring_from.as_deref(), substring_for.as_deref(), ast)
            }
            Trim { trim_where: None, trim_what: None, expr, trim_characters: None } => self.trim(expr, ast),
            Function(call) => self.function(call, ast),
            Interval(_) => self.fail(ast, "an interval can only be added to a time or subtracted from one"),
            Subquery(_) | Exists { .. } | InSubquery { .. } => self.fail(ast, "subqueries are not supported"),
            Wildcard(_) | QualifiedWildcard(..) => self.fail(ast, "'*' is not a value"),
            _ => self.fail(ast, "this is not supported in an expression"),
        }
    }

    /// A node; if it is constant, its value.
    pub(super) fn make(
        &self,
        node: Node,
        data_type: DataType,
        nullable: bool,
        place: &impl Spanned,
    ) -> Result<Typed, SqlError> {
        let typed = Typed::new(node, data_type, nullable);
        if !typed.constant || matches!(typed.node, Node::Literal(_)) {
            return Ok(typed);
        }
        // Nothing constant asks the calendar.
        let context = Context { params: &[], now_us: 0, calendar: &Calendar::utc() };
        let value = Expr { root: Arc::new(typed) }.evaluate_constant(&context);
        let value = value.or_else(|error| self.fail(place, error.to_string()))?;
        Ok(Typed::literal(value))
    }

    fn column(&self, name: &ast::Ident) -> Result<Typed, SqlError> {
        let schema: &Schema = self.scope.schema;
        let same_name = |quoted: bool| {
            let matching = move |field: &str| match quoted {
                true => field == name.value,
                false => field.eq_ignore_ascii_case(&name.value),
            };
            schema.fields().iter().enumerate().filter(move |(_, field)| matching(field.name()))
        };
        // The name as it is written comes first, should there be others that differ in case only.
        let found = same_name(true).chain(same_name(name.quote_style.is_some())).next();
        let Some((column, field)) = found else {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).take(30).collect();
            let known = if names.is_empty() { String::new() } else { format!("; there are {}", names.join(", ")) };
            return self.fail_at(name, format!("there is no column '{}'{known}", name.value));
        };
        if !types::is_supported(field.data_type()) {
            return self.fail_at(name, format!("columns of type {} are not supported", field.data_type()));
        }
        Ok(Typed::new(Node::Column(column), field.data_type().clone(), field.is_nullable()))
    }

    fn fail_at<T>(&self, name: &ast::Ident, message: String) -> Result<T, SqlError> {
        Err(SqlError::at(self.scope.text, name.span, message))
    }

    fn literal(&self, value: &Value, ast: &ast::Expr) -> Result<Typed, SqlError> {
        if let Value::Placeholder(name) = value {
            let number = name.strip_prefix('$').and_then(|number| number.parse::<usize>().ok());
            let param = number.and_then(|number| Some((number - 1, self.scope.params.get(number.checked_sub(1)?)?)));
            return match param {
                Some((index, data_type)) => Ok(Typed::new(Node::Param(index), data_type.clone(), true)),
                None => self.fail(ast, format!("there is no parameter {name}")),
            };
        }
        literal_array(value).map(Typed::literal).or_else(|reason| self.fail(ast, reason))
    }

    fn typed_literal(&mut self, text: &str, sql: &ast::DataType, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let to = types::named(sql).or_else(|reason| self.fail(ast, reason))?;
        let text: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![text]));
        self.cast(Typed::literal(text), &to, ast)
    }
    /// A bool operand.
    pub(super) fn condition(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expr(ast)?;
        match typed.data_type {
            DataType::Boolean => Ok(typed),
            DataType::Null => self.convert(typed, &DataType::Boolean, ast),
            other => self.fail(ast, format!("a condition is needed, this is {}", type_name(&other))),
        }
    }

    pub(super) fn number(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expr(ast)?;
        match &typed.data_type {
            DataType::Null => self.convert(typed, &DataType::Int64, ast),
            data_type if is_number(data_type) => Ok(typed),
            other => self.fail(ast, format!("a number is needed, this is {}", type_name(other))),
        }
    }

    pub(super) fn time(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expr(ast)?;
        self.coerce(typed, &TIMESTAMP, ast)
    }

    pub(super) fn text(&mut self, ast: &ast::Expr) -> Result<Typed, SqlError> {
        let typed = self.expr(ast)?;
        self.coerce(typed, &DataType::Utf8, ast)
    }
}
