//! Metrics: what is counted, summed and averaged over one table, by which columns and in which windows.
//!
//! Invariant: a `Metric` that exists can be computed: its expressions are typed, its groups are columns of its table with the
//! partition key first, its names are unique. A changed meaning is another `MetricTableId`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use sqlparser::ast::{self, SelectItem, Spanned};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

pub use super::aggregate_call::Function;
use super::aggregate_call::{AggregateCall, output_type};
use super::block::MetricTableId;
use super::expr::{Expr, Scope, expect_end, parse_whole, parser, type_name};
use super::schema::{MAX_COLUMN_PRECISION, Table, is_plain_name};
use super::sql_error::SqlError;
use super::window::WindowKind;

/// Name of the first column of every metric table.
pub const WINDOW_START: &str = "window_start";

/// A `[[metric]]` of `cluster.toml`, before it is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricConfig {
    pub name: String,
    pub table: String,
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    #[serde(default)]
    pub group_by: Vec<String>,
    pub select: Vec<String>,
    pub windows: Vec<WindowKind>,
}

/// One selected aggregate: `count(*) filter (where …) as name`.
#[derive(Debug, Clone)]
pub struct Aggregate {
    pub name: Arc<str>,
    pub function: Function,
    /// `None` for `count(*)`.
    pub argument: Option<Expr>,
    /// Rows for which it is not true do not take part.
    pub filter: Option<Expr>,
    pub output: DataType,
}

/// A checked metric.
#[derive(Debug, Clone)]
pub struct Metric {
    pub name: Arc<str>,
    pub table: Arc<Table>,
    /// Rows for which it is not true are not counted.
    pub filter: Option<Expr>,
    /// Columns of the table; the partition key is always first.
    pub group: Vec<usize>,
    pub aggregates: Vec<Aggregate>,
    pub windows: Vec<WindowKind>,
}

/// A metric in one of its windows: what queries name, and what is stored.
#[derive(Debug, Clone)]
pub struct MetricTable {
    /// `gmv_hour`.
    pub name: Arc<str>,
    pub id: MetricTableId,
    pub metric: Arc<Metric>,
    pub window: WindowKind,
    /// `window_start`, partition key, other group columns, aggregates.
    pub schema: SchemaRef,
}

/// What is wrong with one key of a metric's definition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetricError {
    #[error("{0}")]
    Plain(String),
    #[error("{0}")]
    Sql(#[source] SqlError),
}

impl From<SqlError> for MetricError {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

/// A wrong key (`where`, `select`, …) and what is wrong with it.
pub type FieldError = (&'static str, MetricError);

fn plain(field: &'static str, reason: impl Into<String>) -> FieldError {
    (field, MetricError::Plain(reason.into()))
}

impl Metric {
    pub fn new(config: &MetricConfig, table: &Arc<Table>) -> Result<Self, FieldError> {
        if !is_plain_name(&config.name) {
            return Err(plain("name", "a name is letters, digits and underscores, not starting with a digit"));
        }
        let filter = config.filter.as_deref().map(|text| parse_filter(text, table)).transpose();
        let filter = filter.map_err(|error| ("where", error.into()))?;
        let group = parse_group(&config.group_by, table).map_err(|reason| plain("group_by", reason))?;
        let mut aggregates = Vec::with_capacity(config.select.len());
        for text in &config.select {
            let aggregate = Aggregate::parse(text, table).map_err(|error| ("select", error.into()))?;
            let taken = |name: &str| name.eq_ignore_ascii_case(&aggregate.name);
            if taken(WINDOW_START)
                || group.iter().any(|column| taken(&table.columns[*column].name))
                || aggregates.iter().any(|other: &Aggregate| taken(&other.name))
            {
                return Err(plain("select", format!("the name '{}' is there twice", aggregate.name)));
            }
            aggregates.push(aggregate);
        }
        if aggregates.is_empty() {
            return Err(plain("select", "at least one aggregate is needed"));
        }
        let mut windows = config.windows.clone();
        windows.sort_unstable();
        windows.dedup();
        if windows.is_empty() || windows.len() < config.windows.len() {
            return Err(plain("windows", "one or more of minute, hour, day are needed, each once"));
        }
        Ok(Self { name: config.name.as_str().into(), table: table.clone(), filter, group, aggregates, windows })
    }

    /// The metric's tables, one for each of its windows, in a time zone.
    pub fn tables(self: &Arc<Self>, config: &MetricConfig, zone: &str) -> Vec<MetricTable> {
        let schema = Arc::new(self.schema());
        let table = |window: &WindowKind| MetricTable {
            name: format!("{}_{window}", self.name).into(),
            id: self.id(config, *window, zone),
            metric: self.clone(),
            window: *window,
            schema: schema.clone(),
        };
        self.windows.iter().map(table).collect()
    }

    fn schema(&self) -> Schema {
        let mut fields = vec![Field::new(WINDOW_START, DataType::Timestamp(TimeUnit::Microsecond, None), false)];
        fields.extend(self.group.iter().map(|column| self.table.schema.field(*column).clone()));
        fields.extend(self.aggregates.iter().map(|aggregate| {
            let never_null = matches!(aggregate.function, Function::Count | Function::CountDistinct);
            Field::new(aggregate.name.as_ref(), aggregate.output.clone(), !never_null)
        }));
        Schema::new(fields)
    }

    /// Covers everything that decides what a stored row means, each part with its length.
    fn id(&self, config: &MetricConfig, window: WindowKind, zone: &str) -> MetricTableId {
        let table = &self.table;
        let mut hasher = Xxh3::new();
        let mut add = |part: &str| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        };
        for part in [&config.name, &*table.name, &table.columns[table.time].name, window.as_str(), zone] {
            add(part);
        }
        add(config.filter.as_deref().unwrap_or(""));
        for list in
            [&self.group.iter().map(|c| table.columns[*c].name.clone()).collect(), &config.select] as [&Vec<String>; 2]
        {
            add(&list.len().to_string());
            list.iter().for_each(|part| add(part));
        }
        hasher.update(&table.fingerprint.to_le_bytes());
        MetricTableId(hasher.digest())
    }
}

fn parse_filter(text: &str, table: &Table) -> Result<Expr, SqlError> {
    compile_filter(&parse_whole(text)?, table, text)
}

fn compile_filter(ast: &ast::Expr, table: &Table, text: &str) -> Result<Expr, SqlError> {
    let filter = Expr::compile(ast, &scope(table, text))?;
    match filter.data_type() {
        DataType::Boolean => Ok(filter),
        other => Err(SqlError::at(text, ast.span(), format!("a condition is bool, this is {}", type_name(other)))),
    }
}

fn scope<'a>(table: &'a Table, text: &'a str) -> Scope<'a> {
    Scope { schema: &table.schema, text, params: &[], allow_now: false }
}

/// The group columns of a definition, the partition key first.
fn parse_group(names: &[String], table: &Table) -> Result<Vec<usize>, String> {
    let mut group = vec![table.partition_by];
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(format!("'{name}' is there twice"));
        }
        let column = table.column(name).ok_or_else(|| format!("table '{}' has no column '{name}'", table.name))?;
        if name == WINDOW_START {
            return Err(format!("'{WINDOW_START}' names the window in metric tables; a group cannot have that name"));
        }
        if *table.schema.field(column).data_type() == DataType::Float64 {
            return Err(format!("'{name}' is double, which has too many near-equal values to group by"));
        }
        if column != table.partition_by {
            group.push(column);
        }
    }
    Ok(group)
}

impl Aggregate {
    /// Reads `sum(amount) as gmv`.
    pub fn parse(text: &str, table: &Table) -> Result<Self, SqlError> {
        let mut parser = parser(text)?;
        let item = parser.parse_select_item().map_err(|error| SqlError::from_parser(text, error))?;
        expect_end(&parser, text)?;
        let (ast, alias) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (expr, alias),
            SelectItem::UnnamedExpr(_) => {
                return Err(SqlError::at_end(text, "a name is needed: write 'as' and the name of the result"));
            }
            other => return Err(SqlError::at(text, other.span(), "an aggregate like count(*) as orders is needed")),
        };
        if !is_plain_name(&alias.value) || alias.value.starts_with('_') {
            let message = "a name is letters, digits and underscores, starting with a letter";
            return Err(SqlError::at(text, alias.span, message));
        }
        let ast::Expr::Function(call) = &ast else {
            return Err(SqlError::at(text, ast.span(), NOT_AN_AGGREGATE));
        };
        let Some(call) = AggregateCall::recognise(call, text)? else {
            return Err(SqlError::at(text, ast.span(), NOT_AN_AGGREGATE));
        };
        let filter = call.filter.as_ref().map(|filter| compile_filter(filter, table, text)).transpose()?;
        let argument =
            call.argument.as_ref().map(|argument| Expr::compile(argument, &scope(table, text))).transpose()?;
        let argument_type = argument.as_ref().map_or(&DataType::Int64, Expr::data_type);
        let place = call.argument.as_ref().map_or_else(|| ast.span(), Spanned::span);
        let output = output_type(call.function, argument_type).map_err(|reason| SqlError::at(text, place, reason))?;
        if let (Function::Sum | Function::Avg, DataType::Decimal128(precision, scale)) = (call.function, argument_type)
            && *precision > MAX_COLUMN_PRECISION
        {
            let message = format!(
                "this is {}; a sum has room for many rows only up to {MAX_COLUMN_PRECISION} digits: \
                 cast it, like cast(… as decimal({MAX_COLUMN_PRECISION},{}))",
                type_name(argument_type),
                (*scale).min(10),
            );
            return Err(SqlError::at(text, place, message));
        }
        Ok(Self { name: alias.value.into(), function: call.function, argument, filter, output })
    }
}

const NOT_AN_AGGREGATE: &str = "a metric selects aggregates: count, sum, avg, min, max or count(distinct …)";

#[cfg(test)]
#[path = "metric_tests.rs"]
mod tests;
