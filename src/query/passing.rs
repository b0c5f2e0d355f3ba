//! The rows of a block that all conditions of a query hold for.
//!
//! Invariant: a row passes exactly if every condition is true for it; null is not true. What is computed of rows beyond is
//! never seen.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};

use super::QueryError;
use super::block::Block;
use super::plan::Plan;
use super::selected::Selected;
use crate::model::expr::{ColumnComparison, Comparison, Context, Expr};

/// Rows that pass, where they stand.
pub struct Passing<'a> {
    pub block: &'a Block,
    pub selected: Selected,
}

impl<'a> Passing<'a> {
    /// `whole_days`: blocks were chosen by days that say all that the conditions on days do.
    pub fn of(
        plan: &Plan,
        whole_days: bool,
        block: &'a Block,
        context: &Context<'_>,
    ) -> Result<Option<Self>, QueryError> {
        let mut selected = Selected::All(block.rows.num_rows());
        let days = if whole_days { &[] } else { plan.day_filter.as_slice() };
        for condition in days.iter().chain(&plan.filter) {
            refine(&mut selected, condition, block, context)?;
        }
        Ok((!selected.is_empty()).then_some(Self { block, selected }))
    }

    /// The columns that the plan reads, of the rows that pass.
    pub fn rows(&self, plan: &Plan) -> Result<RecordBatch, QueryError> {
        let columns: Vec<ArrayRef> = plan.read.iter().map(|column| self.block.rows.column(*column).clone()).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.block.rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(plan.read_schema.clone(), columns, &options)?;
        match &self.selected {
            Selected::All(_) => Ok(rows),
            Selected::Rows(numbers) if rows.num_columns() > 0 => {
                Ok(take_record_batch(&rows, &UInt32Array::from(numbers.clone()))?)
            }
            Selected::Rows(numbers) => {
                let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
                Ok(RecordBatch::try_new_with_options(plan.read_schema.clone(), Vec::new(), &options)?)
            }
        }
    }
}

fn refine(selected: &mut Selected, condition: &Expr, block: &Block, context: &Context<'_>) -> Result<(), QueryError> {
    if let Some(comparison) = condition.as_column_comparison(context)
        && let Some((values, value)) = integers(comparison, block)
        && compare(selected, comparison.comparison, values, value)
    {
        return Ok(());
    }
    let (passed, _) = condition.evaluate_filter(&block.rows, context)?.into_parts();
    selected.refine(|row| passed.value(row));
    Ok(())
}

/// The column and the value as integers, if they are such and there are no nulls.
fn integers<'b>(comparison: ColumnComparison<'_>, block: &'b Block) -> Option<(&'b [i64], i64)> {
    let (column, value) = (block.rows.column(comparison.column), comparison.value);
    if column.null_count() > 0 || value.null_count() > 0 {
        return None;
    }
    match column.data_type() {
        DataType::Int64 => {
            Some((column.as_primitive::<Int64Type>().values(), value.as_primitive::<Int64Type>().value(0)))
        }
        DataType::Timestamp(TimeUnit::Microsecond, None) => {
            let value = value.as_primitive::<TimestampMicrosecondType>().value(0);
            Some((column.as_primitive::<TimestampMicrosecondType>().values(), value))
        }
        _ => None,
    }
}

/// False if it is not one of those that need no kernel.
fn compare(selected: &mut Selected, comparison: Comparison, values: &[i64], value: i64) -> bool {
    match comparison {
        Comparison::Equal => selected.refine(|row| values[row] == value),
        Comparison::NotEqual => selected.refine(|row| values[row] != value),
        Comparison::Less => selected.refine(|row| values[row] < value),
        Comparison::LessOrEqual => selected.refine(|row| values[row] <= value),
        Comparison::Greater => selected.refine(|row| values[row] > value),
        Comparison::GreaterOrEqual => selected.refine(|row| values[row] >= value),
        Comparison::Distinct | Comparison::NotDistinct => return false,
    }
    true
}
