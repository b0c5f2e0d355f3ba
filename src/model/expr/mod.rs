//! Expressions: SQL text, typed and compiled once, evaluated over Arrow batches with Arrow kernels. Metric definitions and
//! queries use the same.
//!
//! Invariant: what compiles has one known type, and evaluating it gives a value of that type for every row, or an error; it
//! never panics. Decimals are exact.
//!
//! What differs between SQL engines is decided so:
//! - Dividing by zero gives null. What does not fit its type is an error.
//! - `int / int` is a decimal, as every division of exact numbers: scale `max(6, s + 4)`, rounded half away from zero.
//! - Only a double makes a double; a literal like `0.5` is a decimal.
//! - Times are instants, shown and taken apart in the cluster's zone: `date_trunc`, `extract`, adding days or months, dates, and
//!   literals without an offset (`'2026-11-22 10:00'`) go by local clocks; `'2026-11-22T10:00:00Z'` is absolute.

mod compile;
mod convert;
mod evaluate;
mod functions;
mod kernels;
mod literal;
mod node;
mod operators;
mod parser;
mod text;
mod time;
mod types;
mod unify;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use sqlparser::ast;

use super::sql_error::SqlError;
use super::window::Calendar;
use node::Typed;

pub use literal::literal_array;
pub use node::Comparison;
pub use parser::{expect_end, parse_whole, parser};
pub use types::type_name;

/// What names mean where an expression is compiled.
pub struct Scope<'a> {
    pub schema: &'a Schema,
    /// The text that the syntax tree was parsed from; errors point into it.
    pub text: &'a str,
    /// Types of the placeholders `$1, $2, …`.
    pub params: &'a [DataType],
    /// Metric definitions must not depend on when they are computed.
    pub allow_now: bool,
}

/// What an expression is evaluated with, besides rows.
pub struct Context<'a> {
    /// Values of the placeholders, each an array of length 1 of the type in `Scope::params`.
    pub params: &'a [ArrayRef],
    /// `now()`, microseconds since the Unix epoch.
    pub now_us: i64,
    pub calendar: &'a Calendar,
}

/// Why rows have no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    #[error("the result of {operation} does not fit {data_type}")]
    Overflow { operation: &'static str, data_type: String },
    #[error("'{value}' is not a valid {data_type}")]
    Invalid { value: String, data_type: String },
    #[error("a time is out of range")]
    TimeOutOfRange,
    #[error("texts grow to more than {0} bytes")]
    TooLarge(usize),
    #[error("parameter ${0} is missing or has another type")]
    Param(usize),
    #[error("the rows do not have the columns of the expression: {0}")]
    Rows(String),
    #[error("{0}")]
    Arrow(String),
}

/// `column comparison value`.
#[derive(Debug, Clone, Copy)]
pub struct ColumnComparison<'a> {
    pub column: usize,
    pub comparison: Comparison,
    /// An array of length 1 of the column's type.
    pub value: &'a ArrayRef,
}

/// A typed, compiled expression. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Expr {
    root: Arc<Typed>,
}

impl Expr {
    /// Parses a whole text, as metric definitions write it: no placeholders, no `now()`.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, SqlError> {
        let ast = parse_whole(text)?;
        Self::compile(&ast, &Scope { schema, text, params: &[], allow_now: false })
    }

    /// Compiles a syntax tree made by `parser` from `scope.text`.
    pub fn compile(ast: &ast::Expr, scope: &Scope<'_>) -> Result<Self, SqlError> {
        Ok(Self { root: Arc::new(compile::compile(ast, scope)?) })
    }

    /// Compiles, then converts as a comparison with a value of type `to` would: an int becomes a decimal, a text literal
    /// a time.
    pub fn compile_to(ast: &ast::Expr, scope: &Scope<'_>, to: &DataType) -> Result<Self, SqlError> {
        Ok(Self { root: Arc::new(compile::compile_to(ast, scope, to)?) })
    }

    pub fn data_type(&self) -> &DataType {
        &self.root.data_type
    }

    pub fn nullable(&self) -> bool {
        self.root.nullable
    }

    /// Columns of the schema that it reads, in order, each once.
    pub fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        self.root.collect_columns(&mut columns);
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Does its value change as time goes by?
    pub fn depends_on_now(&self) -> bool {
        self.root.depends_on_now()
    }

    /// The column that the expression is, if it is nothing else.
    pub fn as_column(&self) -> Option<usize> {
        match self.root.node {
            node::Node::Column(column) => Some(column),
            _ => None,
        }
    }

    /// The comparison of a column with one value of its type that the expression is, if it is nothing else: such need no
    /// kernel.
    pub fn as_column_comparison<'a>(&'a self, context: &Context<'a>) -> Option<ColumnComparison<'a>> {
        let node::Node::Compare(comparison, left, right) = &self.root.node else { return None };
        let node::Node::Column(column) = left.node else { return None };
        let value = match &right.node {
            node::Node::Literal(value) => value,
            node::Node::Param(index) => context.params.get(*index)?,
            _ => return None,
        };
        (left.data_type == *value.data_type() && value.len() == 1).then_some(ColumnComparison {
            column,
            comparison: *comparison,
            value,
        })
    }

    /// One value for each of `rows`, whose columns stand where the schema had them.
    pub fn evaluate(&self, rows: &RecordBatch, context: &Context<'_>) -> Result<ArrayRef, EvaluationError> {
        evaluate::evaluate(&self.root, rows, context)?.into_array(rows.num_rows())
    }

    /// The rows for which the expression is true; null is not. Never has nulls.
    pub fn evaluate_filter(&self, rows: &RecordBatch, context: &Context<'_>) -> Result<BooleanArray, EvaluationError> {
        evaluate::evaluate_filter(&self.root, rows, context)
    }

    /// The value of an expression that reads no columns, as an array of length 1.
    pub fn evaluate_constant(&self, context: &Context<'_>) -> Result<ArrayRef, EvaluationError> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let one_row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options)
            .map_err(|error| EvaluationError::Arrow(error.to_string()))?;
        self.evaluate(&one_row, context)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
