//! Clauses to a plan: names resolved, aggregates taken out of expressions, everything compiled.
//!
//! Invariant: a plan is made only of what was checked; every error points at its place in the text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use sqlparser::ast::{self, Ident, Spanned};
use sqlparser::tokenizer::Span;

use super::QueryError;
use super::near::nearest;
use super::order::Direction;
use super::outputs::{Ordered, Outputs};
use super::parse::{Item, OrderItem, Query};
use super::plan::{Call, Grouping, OrderKey, OrderValue, Plan};
use super::restrict::{Finder, Restriction, Said, conjuncts};
use super::rewrite::{any, bare, check_depth, replace};
use crate::model::aggregate_call::{AggregateCall, output_type};
use crate::model::catalog::Catalog;
use crate::model::expr::{Expr, Scope, type_name};
use crate::model::metric::MetricTable;
use crate::model::sql_error::SqlError;

/// Makes a plan of `query`, which was parsed from `text`; `params` are the types of its placeholders.
pub fn plan(
    text: &str,
    query: Query,
    params: Vec<DataType>,
    catalog: &Catalog,
    nesting: usize,
) -> Result<Plan, QueryError> {
    let Some(table) = catalog.metric_table(&query.table.value) else {
        let name = query.table.value;
        let known = catalog.metric_tables().iter().map(|table| table.name.as_ref());
        let near = nearest(&name, known).into_iter().map(str::to_owned).collect();
        let error = SqlError::at(text, query.table.span, format!("there is no metric table '{name}'"));
        return Err(QueryError::UnknownTable { error, near });
    };
    let planner = Planner { text, params: &params, table };
    let (query, conditions) = planner.resolve(query, nesting)?;
    Ok(planner.plan(query, conditions)?)
}

struct Planner<'a> {
    text: &'a str,
    params: &'a [DataType],
    table: &'a Arc<MetricTable>,
}

/// `group by` and the aggregates met so far, as syntax trees.
#[derive(Default)]
struct Groups {
    keys: Vec<ast::Expr>,
    calls: Vec<AggregateCall>,
}

/// `where`, taken apart.
#[derive(Default)]
struct Conditions {
    restriction: Restriction,
    day_filter: Vec<Expr>,
    filter: Vec<Expr>,
}

impl Planner<'_> {
    fn plan(&self, query: Query, conditions: Vec<ast::Expr>) -> Result<Plan, SqlError> {
        let Conditions { restriction, day_filter, filter } = self.conditions(conditions)?;
        let mut outputs = Outputs::of(self.text, query.items, &self.table.schema);
        let keys = self.group_keys(query.group_by, &outputs)?;
        let mut order = Vec::with_capacity(query.order_by.len());
        for item in query.order_by {
            let direction = direction(&item);
            order.push((outputs.ordered(item.expr)?, direction));
        }
        let mut having = query.having;
        let aggregates = outputs.all.iter().map(|output| &output.ast).chain(order.iter().filter_map(|(o, _)| o.expr()));
        let mut grouped = !keys.is_empty() || having.is_some();
        for expr in aggregates {
            grouped = grouped || self.has_aggregate(expr)?;
        }
        let mut groups = grouped.then(|| Groups { keys, calls: Vec::new() });
        if let Some(groups) = &mut groups {
            let later = order.iter_mut().filter_map(|(ordered, _)| ordered.expr_mut());
            for expr in outputs.all.iter_mut().map(|output| &mut output.ast).chain(&mut having).chain(later) {
                self.take_aggregates(expr, groups)?;
            }
        }
        // Compiled once to see which columns are read, and again over only those.
        let all = self.table.schema.clone();
        let read = match &groups {
            Some(groups) => self.grouping(groups, None, &all)?.columns(),
            None => self.columns_of_rows(&outputs, &order, &all)?,
        };
        let read_schema = Arc::new(all.project(&read).expect("the columns are the schema's own"));
        let grouping = match &groups {
            Some(groups) => Some(self.grouping(groups, having.as_ref(), &read_schema)?),
            None => None,
        };
        let over = grouping.as_ref().map_or(&read_schema, |grouping| &grouping.schema);
        let compiled: Vec<_> =
            outputs.all.iter().map(|output| self.compile(&output.ast, over)).collect::<Result<_, _>>()?;
        let order = self.order_keys(order, over)?;
        let named = outputs.all.iter().zip(&compiled);
        let fields = named.map(|(output, expr)| Field::new(&output.name, expr.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Plan {
            table: self.table.clone(),
            params: self.params.to_vec(),
            restriction,
            day_filter,
            filter,
            read,
            read_schema,
            grouping,
            outputs: compiled,
            order,
            limit: self.row_count(query.limit, "limit")?,
            offset: self.row_count(query.offset, "offset")?,
            schema,
        })
    }

    fn order_keys(&self, order: Vec<(Ordered, Direction)>, over: &Schema) -> Result<Vec<OrderKey>, SqlError> {
        let key = |(ordered, direction)| {
            let value = match ordered {
                Ordered::Output(index) => OrderValue::Output(index),
                Ordered::Expr(expr) => OrderValue::Expr(self.compile(&expr, over)?),
            };
            Ok(OrderKey { value, direction })
        };
        order.into_iter().map(key).collect()
    }

    /// Column names as the table writes them, without the table's name before them; `where` as conditions that all must
    /// hold.
    fn resolve(&self, mut query: Query, nesting: usize) -> Result<(Query, Vec<ast::Expr>), SqlError> {
        let mut conditions: Vec<_> = query.selection.take().into_iter().flat_map(conjuncts).collect();
        let table_name = query.table_alias.as_ref().map_or(&*self.table.name, |alias| &alias.value).to_owned();
        let items = query.items.iter_mut().filter_map(|item| match item {
            Item::Expr { expr, .. } => Some(expr),
            Item::All(_) => None,
        });
        let ordered = query.order_by.iter_mut().map(|item| &mut item.expr);
        let others = [&mut query.having, &mut query.limit, &mut query.offset].into_iter().flatten();
        let all = items.chain(&mut conditions).chain(&mut query.group_by).chain(ordered).chain(others);
        for expr in all {
            check_depth(self.text, expr, nesting)?;
            replace(expr, &mut |part| {
                let name = match part {
                    ast::Expr::Identifier(name) => name,
                    ast::Expr::CompoundIdentifier(names) => match names.as_slice() {
                        [table, name] if table.value.eq_ignore_ascii_case(&table_name) => name,
                        _ => {
                            let message = format!("the only table here is '{table_name}'");
                            return Err(SqlError::at(self.text, part.span(), message));
                        }
                    },
                    _ => return Ok(None),
                };
                Ok(Some(ast::Expr::Identifier(self.column_name(name))))
            })?;
        }
        Ok((query, conditions))
    }

    fn column_name(&self, name: &Ident) -> Ident {
        let fields = self.table.schema.fields();
        let exact = fields.iter().find(|field| *field.name() == name.value);
        let alike = || fields.iter().find(|field| field.name().eq_ignore_ascii_case(&name.value));
        match exact.or_else(|| if name.quote_style.is_none() { alike() } else { None }) {
            Some(field) => Ident { value: field.name().clone(), quote_style: None, span: name.span },
            None => name.clone(),
        }
    }

    fn conditions(&self, conditions: Vec<ast::Expr>) -> Result<Conditions, SqlError> {
        let mut found = Conditions::default();
        let finder = Finder { table: self.table, text: self.text, params: self.params };
        for condition in conditions {
            if self.has_aggregate(&condition)? {
                let message = "aggregates are not known yet in where: use having";
                return Err(SqlError::at(self.text, condition.span(), message));
            }
            let filter = match finder.take(&condition, &mut found.restriction) {
                Said::Wholly => continue,
                Said::ByDays => &mut found.day_filter,
                Said::NotAll => &mut found.filter,
            };
            filter.push(self.condition(&condition, &self.table.schema)?);
        }
        Ok(found)
    }

    /// `group by` may name a column, the place or the name of an output, or be an expression.
    fn group_keys(&self, group_by: Vec<ast::Expr>, outputs: &Outputs<'_>) -> Result<Vec<ast::Expr>, SqlError> {
        let mut keys: Vec<ast::Expr> = Vec::with_capacity(group_by.len());
        for expr in group_by {
            let key = match bare(&expr) {
                ast::Expr::Value(value) => outputs.all[outputs.ordinal(value, "group by")?].ast.clone(),
                ast::Expr::Identifier(name) if self.table.schema.index_of(&name.value).is_err() => {
                    outputs.named(name).map_or_else(|| expr.clone(), |index| outputs.all[index].ast.clone())
                }
                other => other.clone(),
            };
            if self.has_aggregate(&key)? {
                let message = "an aggregate cannot be grouped by";
                return Err(SqlError::at(self.text, expr.span(), message));
            }
            if !keys.iter().any(|known| bare(known) == bare(&key)) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    fn has_aggregate(&self, expr: &ast::Expr) -> Result<bool, SqlError> {
        any(expr, &mut |part| match part {
            ast::Expr::Function(call) => Ok(AggregateCall::recognise(call, self.text)?.is_some()),
            _ => Ok(false),
        })
    }

    /// Puts columns of the grouped schema in place of group keys and aggregates; no other column may remain.
    fn take_aggregates(&self, expr: &mut ast::Expr, groups: &mut Groups) -> Result<(), SqlError> {
        replace(expr, &mut |part| {
            if let Some(index) = groups.keys.iter().position(|key| bare(key) == bare(part)) {
                return Ok(Some(column(key_name(index), part.span())));
            }
            match part {
                ast::Expr::Function(function) => {
                    let Some(call) = AggregateCall::recognise(function, self.text)? else { return Ok(None) };
                    let known = groups.calls.iter().position(|other| *other == call);
                    let index = known.unwrap_or_else(|| {
                        groups.calls.push(call);
                        groups.calls.len() - 1
                    });
                    Ok(Some(column(call_name(index), part.span())))
                }
                ast::Expr::Identifier(name) if self.table.schema.index_of(&name.value).is_ok() => {
                    let message = format!("'{}' must be in group by or inside an aggregate", name.value);
                    Err(SqlError::at(self.text, name.span, message))
                }
                ast::Expr::Identifier(_) => {
                    // Let the compiler say what columns there are.
                    self.compile(part, &self.table.schema).map(|_| None)
                }
                _ => Ok(None),
            }
        })
    }

    fn grouping(&self, groups: &Groups, having: Option<&ast::Expr>, over: &SchemaRef) -> Result<Grouping, SqlError> {
        let keys: Vec<_> = groups.keys.iter().map(|key| self.compile(key, over)).collect::<Result<_, _>>()?;
        let calls: Vec<_> = groups.calls.iter().map(|call| self.call(call, over)).collect::<Result<_, _>>()?;
        let key_fields = keys.iter().enumerate().map(|(i, key)| (key_name(i), key.data_type()));
        let call_fields = calls.iter().enumerate().map(|(i, call)| (call_name(i), &call.output));
        let fields = key_fields.chain(call_fields).map(|(name, data_type)| Field::new(name, data_type.clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let having = having.map(|condition| self.condition(condition, &schema)).transpose()?;
        Ok(Grouping { keys, calls, schema, having })
    }

    fn call(&self, call: &AggregateCall, over: &SchemaRef) -> Result<Call, SqlError> {
        let inner = call.argument.iter().chain(&call.filter);
        for expr in inner {
            if self.has_aggregate(expr)? {
                return Err(SqlError::at(self.text, expr.span(), "aggregates cannot be nested"));
            }
        }
        let argument = call.argument.as_ref().map(|argument| self.compile(argument, over)).transpose()?;
        let filter = call.filter.as_ref().map(|filter| self.condition(filter, over)).transpose()?;
        let argument_type = argument.as_ref().map_or(&DataType::Int64, Expr::data_type);
        let output = output_type(call.function, argument_type).map_err(|reason| {
            let place = call.argument.as_ref().map_or_else(Span::empty, Spanned::span);
            SqlError::at(self.text, place, reason)
        })?;
        Ok(Call { function: call.function, argument, filter, output })
    }

    fn columns_of_rows(
        &self,
        outputs: &Outputs<'_>,
        order: &[(Ordered, Direction)],
        over: &SchemaRef,
    ) -> Result<Vec<usize>, SqlError> {
        let exprs = outputs.all.iter().map(|output| &output.ast).chain(order.iter().filter_map(|(o, _)| o.expr()));
        let exprs: Vec<_> = exprs.map(|expr| self.compile(expr, over)).collect::<Result<_, _>>()?;
        Ok(columns(exprs.iter()))
    }

    fn row_count(&self, expr: Option<ast::Expr>, clause: &str) -> Result<Option<Expr>, SqlError> {
        let Some(ast) = expr else { return Ok(None) };
        let expr = self.compile(&ast, &Schema::empty())?;
        match expr.data_type() {
            DataType::Int64 | DataType::Null => Ok(Some(expr)),
            other => {
                let message = format!("{clause} needs an int, not {}", type_name(other));
                Err(SqlError::at(self.text, ast.span(), message))
            }
        }
    }

    fn condition(&self, expr: &ast::Expr, over: &Schema) -> Result<Expr, SqlError> {
        let compiled = self.compile(expr, over)?;
        match compiled.data_type() {
            DataType::Boolean | DataType::Null => Ok(compiled),
            other => {
                let message = format!("a condition is bool, this is {}", type_name(other));
                Err(SqlError::at(self.text, expr.span(), message))
            }
        }
    }

    fn compile(&self, expr: &ast::Expr, over: &Schema) -> Result<Expr, SqlError> {
        Expr::compile(expr, &Scope { schema: over, text: self.text, params: self.params, allow_now: true })
    }
}

impl Grouping {
    fn columns(&self) -> Vec<usize> {
        let calls = self.calls.iter().flat_map(|call| call.argument.iter().chain(&call.filter));
        columns(self.keys.iter().chain(calls))
    }
}

fn columns<'a>(exprs: impl Iterator<Item = &'a Expr>) -> Vec<usize> {
    let mut columns: Vec<usize> = exprs.flat_map(Expr::columns).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

fn direction(item: &OrderItem) -> Direction {
    Direction { descending: item.descending, nulls_first: item.nulls_first.unwrap_or(item.descending) }
}

/// Names of the grouped schema; no column of a table begins with an underscore.
fn key_name(index: usize) -> String {
    format!("_key{index}")
}

fn call_name(index: usize) -> String {
    format!("_call{index}")
}

fn column(name: String, span: Span) -> ast::Expr {
    ast::Expr::Identifier(Ident { value: name, quote_style: None, span })
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
