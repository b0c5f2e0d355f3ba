//! Runs a plan over blocks of metric rows. Pure.
//!
//! Invariant: the answer does not depend on how rows are spread over blocks, but for the order of rows that are equal
//! in all that the query orders by; no more rows are kept than the answer may have, or the slice needs.

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat, filter_record_batch, take};
use arrow::datatypes::SchemaRef;

use super::QueryError;
use super::accumulate::Accumulator;
use super::block::{self, Block};
use super::groups::{Groups, Keys};
use super::order::{Direction, Slice, sorted};
use super::passing::Passing;
use super::plan::{Bound, Grouping, OrderValue, Plan};
use super::selected::{Chosen, Selected, count};
use crate::model::expr::{Context, Expr};

/// Ordered rows kept before those that cannot come into the slice are dropped; at least this many.
const KEEP_AT_LEAST: usize = 4_096;

/// Does the rest of the blocks matter?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    More,
    Enough,
}

/// The query engine.
pub struct Engine;

impl Engine {
    /// The answer of `plan` over `blocks`, whose columns are the metric table's: those that `bound.scan` asks for.
    pub fn execute(
        plan: &Plan,
        bound: &Bound,
        blocks: &[Block],
        context: &Context<'_>,
        rows_limit: usize,
    ) -> Result<RecordBatch, QueryError> {
        let mut execution = Execution::new(plan, bound, rows_limit);
        for block in blocks {
            if execution.push(block, context)? == Need::Enough {
                break;
            }
        }
        execution.finish(context)
    }
}

/// An answer in the making; blocks are pushed one after the other.
pub struct Execution<'a> {
    plan: &'a Plan,
    slice: Slice,
    whole_days: bool,
    rows_limit: usize,
    reduction: Reduction<'a>,
}

enum Reduction<'a> {
    Rows(Rows),
    Groups(Box<Grouped<'a>>),
}

/// Rows that pass, as far as they may come into the answer.
#[derive(Default)]
struct Rows {
    /// The columns of the answer, then those that it is ordered by and that are no columns of it.
    parts: Vec<Vec<ArrayRef>>,
    count: usize,
}

struct Grouped<'a> {
    grouping: &'a Grouping,
    groups: Groups,
    accumulators: Vec<Accumulator>,
    /// The group of each row selected of the block at hand.
    numbers: Vec<u32>,
    /// Nothing is computed from rows, so rows that do not pass can stay where they are: skipping them is cheaper than
    /// copying the others. (What is computed could fail for rows that nobody asked for.)
    columns_only: bool,
}

impl<'a> Execution<'a> {
    pub fn new(plan: &'a Plan, bound: &Bound, rows_limit: usize) -> Self {
        let reduction = match &plan.grouping {
            None => Reduction::Rows(Rows::default()),
            Some(grouping) => Reduction::Groups(Box::new(Grouped::new(grouping))),
        };
        Self { plan, slice: bound.slice, whole_days: bound.scan.whole_days, rows_limit, reduction }
    }

    /// Takes in one block, which the scan asks for.
    pub fn push(&mut self, block: &Block, context: &Context<'_>) -> Result<Need, QueryError> {
        let passing = Passing::of(self.plan, self.whole_days, block, context)?;
        let Some(passing) = passing else { return Ok(Need::More) };
        match &mut self.reduction {
            Reduction::Groups(grouped) => grouped.push(self.plan, &passing, context).map(|()| Need::More),
            Reduction::Rows(kept) => {
                let rows = passing.rows(self.plan)?;
                kept.count += rows.num_rows();
                kept.parts.push(answer_columns(self.plan, &rows, context)?);
                self.bound_rows()
            }
        }
    }

    /// Keeps the rows kept few, and refuses an answer with too many as soon as it is sure to be one.
    fn bound_rows(&mut self) -> Result<Need, QueryError> {
        let (plan, slice) = (self.plan, self.slice);
        let Reduction::Rows(kept) = &mut self.reduction else { return Ok(Need::More) };
        let answer = kept.count.saturating_sub(slice.offset).min(slice.limit.unwrap_or(usize::MAX));
        if answer > self.rows_limit {
            return Err(QueryError::RowsLimit(self.rows_limit));
        }
        if plan.order.is_empty() {
            return Ok(if kept.count >= slice.end() { Need::Enough } else { Need::More });
        }
        if kept.count > slice.end().saturating_mul(2).max(KEEP_AT_LEAST) {
            let columns = kept.concatenated()?;
            let first = Slice { offset: 0, limit: Some(slice.end()) };
            let columns = cut(plan, columns, kept.count, first)?;
            kept.count = slice.end();
            kept.parts = vec![columns];
        }
        Ok(Need::More)
    }

    /// The answer.
    pub fn finish(self, context: &Context<'_>) -> Result<RecordBatch, QueryError> {
        let (columns, count) = match self.reduction {
            Reduction::Rows(kept) if kept.parts.is_empty() => {
                return Ok(RecordBatch::new_empty(self.plan.schema.clone()));
            }
            Reduction::Rows(kept) => (kept.concatenated()?, kept.count),
            Reduction::Groups(grouped) => {
                let rows = grouped.finish(context)?;
                (answer_columns(self.plan, &rows, context)?, rows.num_rows())
            }
        };
        let mut columns = cut(self.plan, columns, count, self.slice)?;
        columns.truncate(self.plan.outputs.len());
        let rows = columns[0].len();
        if rows > self.rows_limit {
            return Err(QueryError::RowsLimit(self.rows_limit));
        }
        batch(&self.plan.schema, columns, rows)
    }
}

/// The columns of the answer, then those that it is ordered by and that are no columns of it.
fn answer_columns(plan: &Plan, rows: &RecordBatch, context: &Context<'_>) -> Result<Vec<ArrayRef>, QueryError> {
    let keys = plan.order.iter().filter_map(|key| match &key.value {
        OrderValue::Expr(expr) => Some(expr),
        OrderValue::Output(_) => None,
    });
    plan.outputs.iter().chain(keys).map(|expr| value(expr, rows, context)).collect()
}

fn value(expr: &Expr, rows: &RecordBatch, context: &Context<'_>) -> Result<ArrayRef, QueryError> {
    match expr.as_column() {
        Some(column) => Ok(rows.column(column).clone()),
        None => Ok(expr.evaluate(rows, context)?),
    }
}

/// Puts rows in the plan's order and takes the slice of them.
fn cut(plan: &Plan, columns: Vec<ArrayRef>, count: usize, slice: Slice) -> Result<Vec<ArrayRef>, QueryError> {
    if plan.order.is_empty() {
        let offset = slice.offset.min(count);
        let length = (count - offset).min(slice.limit.unwrap_or(usize::MAX));
        return Ok(columns.into_iter().map(|column| column.slice(offset, length)).collect());
    }
    let mut extra = plan.outputs.len();
    let keys: Vec<(ArrayRef, Direction)> = (plan.order.iter())
        .map(|key| {
            let column = match key.value {
                OrderValue::Output(index) => index,
                OrderValue::Expr(_) => {
                    extra += 1;
                    extra - 1
                }
            };
            (columns[column].clone(), key.direction)
        })
        .collect();
    let numbers = UInt32Array::from(sorted(&keys, count, slice));
    Ok(columns.iter().map(|column| take(column, &numbers, None)).collect::<Result<_, _>>()?)
}

fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, QueryError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

impl Rows {
    fn concatenated(&self) -> Result<Vec<ArrayRef>, QueryError> {
        if let [only] = self.parts.as_slice() {
            return Ok(only.clone());
        }
        let column = |index: usize| {
            let parts: Vec<_> = self.parts.iter().map(|part| part[index].as_ref()).collect();
            concat(&parts)
        };
        Ok((0..self.parts[0].len()).map(column).collect::<Result<_, _>>()?)
    }
}

impl<'a> Grouped<'a> {
    fn new(grouping: &'a Grouping) -> Self {
        let accumulators = grouping.calls.iter().map(|call| {
            let argument = call.argument.as_ref().map(Expr::data_type);
            Accumulator::new(call.function, argument, &call.output)
        });
        let arguments = grouping.calls.iter().filter_map(|call| call.argument.as_ref());
        let columns_only = grouping.calls.iter().all(|call| call.filter.is_none())
            && grouping.keys.iter().chain(arguments).all(|expr| expr.as_column().is_some());
        Self {
            grouping,
            columns_only,
            groups: Groups::new(grouping.keys.iter().map(|key| key.data_type().clone())),
            accumulators: accumulators.collect(),
            numbers: Vec::new(),
        }
    }

    fn push(&mut self, plan: &Plan, passing: &Passing<'_>, context: &Context<'_>) -> Result<(), QueryError> {
        if self.columns_only {
            return self.add_columns(plan, passing);
        }
        let rows = passing.rows(plan)?;
        let key = |key| value(key, &rows, context).map(|array| Keys { array, dictionary: None });
        let keys: Vec<_> = self.grouping.keys.iter().map(key).collect::<Result<_, _>>()?;
        let selected = Selected::All(rows.num_rows());
        self.groups.assign(&keys, &selected, &mut self.numbers);
        let counts = count(&self.numbers, self.groups.len());
        let chosen = Chosen { selected: &selected, numbers: &self.numbers, counts: &counts };
        for (call, accumulator) in self.grouping.calls.iter().zip(&mut self.accumulators) {
            let argument = call.argument.as_ref().map(|argument| value(argument, &rows, context)).transpose()?;
            let filter = call.filter.as_ref().map(|filter| filter.evaluate_filter(&rows, context)).transpose()?;
            let small = || argument.as_ref().is_some_and(|argument| block::is_small(argument));
            accumulator.update(chosen, argument.as_deref(), small, filter.as_ref())?;
        }
        Ok(())
    }

    /// Uses what is known of the columns, and leaves rows where they are.
    fn add_columns(&mut self, plan: &Plan, passing: &Passing<'_>) -> Result<(), QueryError> {
        let Passing { block, selected } = passing;
        let column = |expr: &Expr| block.column(plan.read[expr.as_column().expect("columns only")]);
        let key = |key: &Expr| Keys { array: column(key).array.clone(), dictionary: column(key).dictionary() };
        let keys: Vec<_> = self.grouping.keys.iter().map(key).collect();
        self.groups.assign(&keys, selected, &mut self.numbers);
        let counts = count(&self.numbers, self.groups.len());
        let chosen = Chosen { selected, numbers: &self.numbers, counts: &counts };
        for (call, accumulator) in self.grouping.calls.iter().zip(&mut self.accumulators) {
            let argument = call.argument.as_ref().map(column);
            let small = || argument.is_some_and(|argument| argument.is_small());
            accumulator.update(chosen, argument.map(|argument| argument.array.as_ref()), small, None)?;
        }
        Ok(())
    }

    /// The groups that `having` lets through.
    fn finish(self, context: &Context<'_>) -> Result<RecordBatch, QueryError> {
        let count = self.groups.len();
        let mut columns = self.groups.values();
        for accumulator in self.accumulators {
            columns.push(accumulator.finish(count)?);
        }
        let rows = batch(&self.grouping.schema, columns, count)?;
        let Some(having) = &self.grouping.having else { return Ok(rows) };
        let passed = having.evaluate_filter(&rows, context)?;
        Ok(filter_record_batch(&rows, &passed)?)
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
