//! What a metric evaluates for each batch of rows, each thing once. Pure.
//!
//! Invariant: everything that can fail happens in `prepare`, before any state is touched, so that a batch counts wholly
//! or not at all.

use std::borrow::Cow;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, NullArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::compute::FilterBuilder;
use arrow::datatypes::{DataType, Date32Type, Field, Schema, SchemaRef, TimestampMicrosecondType};

use crate::model::aggregate::{Kind, State, Update};
use crate::model::expr::{Context, EvaluationError, Expr};
use crate::model::metric::{Function, Metric};
use crate::model::window::Calendar;

/// One state that a metric's aggregates need; indexes into the plan's arguments and filters.
#[derive(Debug)]
struct StatePlan {
    kind: Kind,
    argument: Option<usize>,
    filter: Option<usize>,
}

/// Where an aggregate's result comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `count(*)` without filter: a slot's weight.
    Weight,
    State(usize),
}

/// What one metric evaluates.
#[derive(Debug)]
pub struct Plan {
    arguments: Vec<Expr>,
    filters: Vec<Expr>,
    states: Vec<StatePlan>,
    /// The table's columns, those that are not read after the filter without values.
    read: SchemaRef,
    /// In the order of the metric's aggregates.
    pub origins: Vec<Origin>,
}

/// A batch of rows, ready to be counted: filtered, with every expression evaluated.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// Microseconds; never null.
    pub times: ScalarBuffer<i64>,
    pub groups: Vec<ArrayRef>,
    pub weights: Option<Cow<'a, [i64]>>,
    arguments: Vec<ArrayRef>,
    masks: Vec<BooleanArray>,
}

fn intern(all: &mut Vec<Expr>, expr: &Expr) -> usize {
    // Expressions have no equality of their own; what they show of themselves is whole.
    let text = format!("{expr:?}");
    all.iter().position(|known| format!("{known:?}") == text).unwrap_or_else(|| {
        all.push(expr.clone());
        all.len() - 1
    })
}

impl Plan {
    pub fn new(metric: &Metric) -> Self {
        let (arguments, filters, states, origins) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut plan = Self { arguments, filters, states, read: Arc::new(Schema::empty()), origins };
        for aggregate in &metric.aggregates {
            let kind = Kind::of(aggregate.function);
            let argument = aggregate.argument.as_ref().map(|argument| intern(&mut plan.arguments, argument));
            let filter = aggregate.filter.as_ref().map(|filter| intern(&mut plan.filters, filter));
            let same = |state: &StatePlan| state.kind == kind && state.argument == argument && state.filter == filter;
            let origin = match (aggregate.function, argument, filter) {
                (Function::Count, None, None) => Origin::Weight,
                _ => Origin::State(plan.states.iter().position(same).unwrap_or_else(|| {
                    plan.states.push(StatePlan { kind, argument, filter });
                    plan.states.len() - 1
                })),
            };
            plan.origins.push(origin);
        }
        let mut read = metric.group.clone();
        read.push(metric.table.time);
        read.extend(plan.arguments.iter().chain(&plan.filters).flat_map(Expr::columns));
        let field = |(index, field): (usize, &Arc<Field>)| match read.contains(&index) {
            true => field.as_ref().clone(),
            false => Field::new(field.name(), DataType::Null, true),
        };
        let fields: Vec<Field> = metric.table.schema.fields().iter().enumerate().map(field).collect();
        plan.read = Arc::new(Schema::new(fields));
        plan
    }

    /// The selected rows, of the columns that are read.
    fn select(&self, rows: &RecordBatch, selected: &BooleanBuffer) -> RecordBatch {
        let predicate = FilterBuilder::new(&BooleanArray::new(selected.clone(), None)).optimize().build();
        let column = |(index, field): (usize, &Arc<Field>)| -> ArrayRef {
            match field.data_type() {
                DataType::Null => Arc::new(NullArray::new(predicate.count())),
                _ => predicate.filter(rows.column(index)).expect("the mask has one bit for each row"),
            }
        };
        let columns = self.read.fields().iter().enumerate().map(column).collect();
        RecordBatch::try_new(self.read.clone(), columns).expect("filtering keeps types")
    }

    /// The states that a table of the metric has, empty.
    pub fn new_states(&self) -> Vec<State> {
        let argument = |state: &StatePlan| state.argument.map(|index| self.arguments[index].data_type());
        self.states.iter().map(|state| State::new(state.kind, argument(state))).collect()
    }

    /// Filters and evaluates `rows` of the metric's table.
    pub fn prepare<'a>(
        &self,
        metric: &Metric,
        rows: &RecordBatch,
        weights: Option<&'a [i64]>,
        calendar: &Calendar,
    ) -> Result<Prepared<'a>, EvaluationError> {
        let context = Context { params: &[], now_us: 0, calendar };
        let passed = match &metric.filter {
            Some(filter) => Some(filter.evaluate_filter(rows, &context)?),
            None => None,
        };
        let selected = selected(passed.as_ref(), rows.column(metric.table.time).nulls());
        let (rows, weights) = match &selected {
            Some(selected) => {
                let weights = weights.map(|weights| selected.set_indices().map(|row| weights[row]).collect());
                (Cow::Owned(self.select(rows, selected)), weights.map(Cow::Owned))
            }
            None => (Cow::Borrowed(rows), weights.map(Cow::Borrowed)),
        };
        Ok(Prepared {
            times: times(rows.column(metric.table.time), calendar),
            groups: metric.group.iter().map(|column| rows.column(*column).clone()).collect(),
            arguments: self.arguments.iter().map(|e| e.evaluate(&rows, &context)).collect::<Result<_, _>>()?,
            masks: self.filters.iter().map(|e| e.evaluate_filter(&rows, &context)).collect::<Result<_, _>>()?,
            weights,
        })
    }

    /// Adds prepared rows, whose slots are known, to the states of one table.
    pub fn update(&self, states: &mut [State], slots: &[u32], prepared: &Prepared<'_>) {
        for (plan, state) in self.states.iter().zip(states) {
            state.update(Update {
                slots,
                values: plan.argument.map(|index| &prepared.arguments[index]),
                weights: prepared.weights.as_deref(),
                mask: plan.filter.map(|index| &prepared.masks[index]),
            });
        }
    }
}

impl Prepared<'_> {
    /// So many of its rows, from `offset` on.
    pub fn slice(&self, offset: usize, length: usize) -> Prepared<'_> {
        let cut = |arrays: &[ArrayRef]| arrays.iter().map(|array| array.slice(offset, length)).collect();
        Prepared {
            times: self.times.slice(offset, length),
            groups: cut(&self.groups),
            weights: self.weights.as_deref().map(|weights| Cow::Borrowed(&weights[offset..offset + length])),
            arguments: cut(&self.arguments),
            masks: self.masks.iter().map(|mask| mask.slice(offset, length)).collect(),
        }
    }
}

/// Rows that passed the filter and have a time; `None`: all of them.
fn selected(passed: Option<&BooleanArray>, timed: Option<&NullBuffer>) -> Option<BooleanBuffer> {
    let passed = passed.map(|passed| match passed.nulls() {
        Some(known) => passed.values() & known.inner(),
        None => passed.values().clone(),
    });
    let selected = match (passed, timed) {
        (Some(passed), Some(timed)) => &passed & timed.inner(),
        (Some(passed), None) => passed,
        (None, Some(timed)) => timed.inner().clone(),
        (None, None) => return None,
    };
    (selected.count_set_bits() < selected.len()).then_some(selected)
}

fn times(column: &ArrayRef, calendar: &Calendar) -> ScalarBuffer<i64> {
    match column.data_type() {
        DataType::Date32 => {
            // A date is that day in the cluster's zone, wherever its midnight is.
            let days = column.as_primitive::<Date32Type>().values();
            let mut last = (i32::MIN, 0);
            let start = |day: &i32| {
                if last.0 != *day || *day == i32::MIN {
                    last = (*day, calendar.day_start(*day));
                }
                last.1
            };
            days.iter().map(start).collect()
        }
        _ => column.as_primitive::<TimestampMicrosecondType>().values().clone(),
    }
}
