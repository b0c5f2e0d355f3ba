//! What a query does, decided once for all texts of its shape.
//!
//! Invariant: a plan depends on the text's shape and the catalog only, never on the values of literals, the time or the
//! data; everything in it is typed, so that running it can fail only for values.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};

use super::QueryError;
use super::order::{Direction, Slice};
use super::restrict::{Restriction, Scan};
use crate::model::aggregate_call::Function;
use crate::model::expr::{Context, Expr};
use crate::model::metric::MetricTable;

/// A planned query; shared by all who ask it.
#[derive(Debug)]
pub struct Plan {
    pub table: Arc<MetricTable>,
    /// Types of the literals that were taken out.
    pub params: Vec<DataType>,
    /// Which blocks can hold rows that pass.
    pub restriction: Restriction,
    /// Conditions on the table's columns that all must hold; first those that reading whole days makes true.
    pub day_filter: Vec<Expr>,
    pub filter: Vec<Expr>,
    /// The table's columns that are needed of the rows that pass, and their schema.
    pub read: Vec<usize>,
    pub read_schema: SchemaRef,
    /// `None`: the answer has a row for each row that passes.
    pub grouping: Option<Grouping>,
    /// Over the grouped columns if there is a grouping, else over the columns read.
    pub outputs: Vec<Expr>,
    pub order: Vec<OrderKey>,
    pub limit: Option<Expr>,
    pub offset: Option<Expr>,
    /// The answer's columns.
    pub schema: SchemaRef,
}

/// `group by` with its aggregates.
#[derive(Debug)]
pub struct Grouping {
    pub keys: Vec<Expr>,
    pub calls: Vec<Call>,
    /// Keys, then calls.
    pub schema: SchemaRef,
    pub having: Option<Expr>,
}

/// An aggregate over the columns read.
#[derive(Debug)]
pub struct Call {
    pub function: Function,
    /// `None` for `count(*)`.
    pub argument: Option<Expr>,
    pub filter: Option<Expr>,
    pub output: DataType,
}

/// What rows are ordered by.
#[derive(Debug)]
pub struct OrderKey {
    pub value: OrderValue,
    pub direction: Direction,
}

#[derive(Debug)]
pub enum OrderValue {
    /// A column of the answer.
    Output(usize),
    /// Something else, over what the outputs are over.
    Expr(Expr),
}

/// A plan's constants with their values: what one execution needs besides blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    pub scan: Scan,
    pub slice: Slice,
}

impl Plan {
    /// Does what `bind` gives change as time goes by?
    pub fn binds_now(&self) -> bool {
        self.restriction.constants().chain(&self.limit).chain(&self.offset).any(Expr::depends_on_now)
    }

    /// Evaluates everything that does not depend on rows.
    pub fn bind(&self, context: &Context<'_>) -> Result<Bound, QueryError> {
        let offset = count(self.offset.as_ref(), "offset", context)?.unwrap_or(0);
        let limit = count(self.limit.as_ref(), "limit", context)?;
        Ok(Bound { scan: self.restriction.bind(context)?, slice: Slice { offset, limit } })
    }
}

fn count(expr: Option<&Expr>, clause: &str, context: &Context<'_>) -> Result<Option<usize>, QueryError> {
    let Some(expr) = expr else { return Ok(None) };
    let value: ArrayRef = expr.evaluate_constant(context)?;
    if value.is_null(0) || *value.data_type() == DataType::Null {
        return Ok(None);
    }
    let value = value.as_primitive::<Int64Type>().value(0);
    let value = usize::try_from(value).map_err(|_| QueryError::Value(format!("{clause} {value} is negative")))?;
    Ok(Some(value))
}
