//! The fold: counts weighted rows into every metric of their table. Pure, and the hot loop of the system.
//!
//! Rows are filtered, their groups get numbers (`groups`), group and window get a slot (`slots`), and then each
//! aggregate state adds its column in a tight loop over the slots. Invariant: what was folded is the sum over the
//! weighted rows, in whatever order they came; a batch that cannot be evaluated changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::groups::{Groups, GroupsSnapshot};
use super::plan::{Origin, Plan, Prepared};
use super::slots::{Slots, SlotsSnapshot};
use crate::model::aggregate::State;
use crate::model::block::{BlockKey, MetricTableId};
use crate::model::catalog::Catalog;
use crate::model::expr::EvaluationError;
use crate::model::metric::{Metric, MetricTable};
use crate::model::rows::{Compression, encode_rows};
use crate::model::schema::Table;
use crate::model::window::{Calendar, WindowFinder};

/// The state of all metrics of one partition.
#[derive(Debug)]
pub struct Fold {
    calendar: Calendar,
    metrics: Vec<MetricFold>,
    /// Where a metric table is: metric, window.
    places: HashMap<MetricTableId, (usize, usize)>,
    scratch: Scratch,
}

#[derive(Debug)]
struct MetricFold {
    metric: Arc<Metric>,
    plan: Plan,
    groups: Groups,
    windows: Vec<WindowFold>,
}

#[derive(Debug)]
struct WindowFold {
    table: Arc<MetricTable>,
    finder: WindowFinder,
    slots: Slots,
    states: Vec<State>,
}

/// Each step walks over all rows before the next does: so many that what one step leaves is still near when the next comes.
const ROWS_AT_ONCE: usize = 2_048;

/// Kept between batches, to not allocate for each.
#[derive(Debug, Default)]
struct Scratch {
    groups: Vec<u32>,
    starts: Vec<i64>,
    slots: Vec<u32>,
}

/// What of a fold is saved: for each metric its groups, and for each of its windows slots and states.
#[derive(Serialize, Deserialize)]
pub struct FoldSnapshot(Vec<(GroupsSnapshot, Vec<WindowSnapshot>)>);

type WindowSnapshot = (SlotsSnapshot, Vec<State>);

impl Fold {
    pub fn new(catalog: &Catalog) -> Self {
        let calendar = catalog.calendar().clone();
        let metrics: Vec<_> = (catalog.metrics().iter())
            .map(|metric| {
                let tables = catalog.metric_tables().iter().filter(|table| Arc::ptr_eq(&table.metric, metric));
                MetricFold::new(metric.clone(), tables.cloned(), &calendar)
            })
            .collect();
        let mut places = HashMap::new();
        for (metric, fold) in metrics.iter().enumerate() {
            places.extend(fold.windows.iter().enumerate().map(|(window, fold)| (fold.table.id, (metric, window))));
        }
        Self { calendar, metrics, places, scratch: Scratch::default() }
    }

    /// Counts rows of `table`; `rows` may have columns beyond the table's. `weights`: one for each row, `None`: +1.
    pub fn apply(&mut self, table: &Table, rows: &RecordBatch, weights: Option<&[i64]>) -> Result<(), EvaluationError> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut prepared = Vec::with_capacity(self.metrics.len());
        for (index, fold) in self.metrics.iter().enumerate() {
            if fold.metric.table.name == table.name {
                prepared.push((index, fold.plan.prepare(&fold.metric, rows, weights, &self.calendar)?));
            }
        }
        for (index, prepared) in prepared {
            for offset in (0..prepared.times.len()).step_by(ROWS_AT_ONCE) {
                let length = ROWS_AT_ONCE.min(prepared.times.len() - offset);
                self.metrics[index].count(&prepared.slice(offset, length), &self.calendar, &mut self.scratch);
            }
        }
        Ok(())
    }

    /// Names the blocks that changed since the last call, and frees what became empty.
    pub fn settle(&mut self) -> Vec<BlockKey> {
        let mut changed = Vec::new();
        for fold in &mut self.metrics {
            for WindowFold { table, slots, states, .. } in &mut fold.windows {
                let vacant = |slot| states.iter().all(|state| state.is_vacant(slot));
                let names = slots.settle(&mut fold.groups, vacant).into_iter();
                changed.extend(names.map(|(day, key)| BlockKey { table: table.id, day, key }));
            }
        }
        changed
    }

    /// The names of all blocks.
    pub fn blocks(&self) -> impl Iterator<Item = BlockKey> {
        self.metrics.iter().flat_map(|fold| &fold.windows).flat_map(|window| {
            let table = window.table.id;
            window.slots.names().map(move |(day, key)| BlockKey { table, day: *day, key: key.clone() })
        })
    }

    /// The rows of blocks as sinks hold them; `None` for a block without rows. Fastest if names of one table stand
    /// together.
    pub fn encode<'a>(&mut self, names: impl IntoIterator<Item = &'a BlockKey>) -> Vec<Option<Bytes>> {
        let mut encoded = Vec::new();
        let mut names = names.into_iter().peekable();
        while let Some(first) = names.peek() {
            let table = first.table;
            let run = std::iter::from_fn(|| names.next_if(|name| name.table == table));
            match self.places.get(&table) {
                Some(&(metric, window)) => self.metrics[metric].encode(window, run, &mut encoded),
                None => encoded.extend(run.map(|_| None)),
            }
        }
        encoded
    }

    /// How many groups there are, over all metrics.
    pub fn groups(&self) -> usize {
        self.metrics.iter().map(|fold| fold.groups.len()).sum()
    }

    /// How many rows metric tables have in all.
    pub fn rows(&self) -> usize {
        self.metrics.iter().flat_map(|fold| &fold.windows).map(|window| window.slots.len()).sum()
    }

    /// An estimate of the memory held.
    pub fn bytes(&self) -> usize {
        let window = |fold: &WindowFold| fold.slots.bytes() + fold.states.iter().map(State::bytes).sum::<usize>();
        let metric = |fold: &MetricFold| fold.groups.bytes() + fold.windows.iter().map(window).sum::<usize>();
        self.metrics.iter().map(metric).sum()
    }

    pub fn snapshot(&self) -> FoldSnapshot {
        let window = |fold: &WindowFold| (fold.slots.snapshot(), fold.states.clone());
        let metric = |fold: &MetricFold| (fold.groups.snapshot(), fold.windows.iter().map(window).collect());
        FoldSnapshot(self.metrics.iter().map(metric).collect())
    }

    /// `None` if the snapshot is not one of these definitions or contradicts itself.
    pub fn restore(catalog: &Catalog, snapshot: FoldSnapshot) -> Option<Self> {
        let mut fold = Self::new(catalog);
        if snapshot.0.len() != fold.metrics.len() {
            return None;
        }
        for (metric, (groups, windows)) in fold.metrics.iter_mut().zip(snapshot.0) {
            if windows.len() != metric.windows.len() {
                return None;
            }
            metric.groups = Groups::restore(group_types(&metric.metric), groups)?;
            for (window, (slots, states)) in metric.windows.iter_mut().zip(windows) {
                window.slots = Slots::restore(slots, &metric.groups, &fold.calendar)?;
                let fits =
                    |(saved, new): (&State, &State)| saved.is_like(new) && saved.len() == window.slots.capacity();
                if states.len() != window.states.len() || !states.iter().zip(&window.states).all(fits) {
                    return None;
                }
                window.states = states;
            }
        }
        Some(fold)
    }
}

fn group_types(metric: &Metric) -> Vec<DataType> {
    metric.group.iter().map(|column| metric.table.schema.field(*column).data_type().clone()).collect()
}

impl MetricFold {
    fn new(metric: Arc<Metric>, tables: impl Iterator<Item = Arc<MetricTable>>, calendar: &Calendar) -> Self {
        let plan = Plan::new(&metric);
        let window = |table: Arc<MetricTable>| WindowFold {
            finder: calendar.finder(table.window),
            table,
            slots: Slots::default(),
            states: plan.new_states(),
        };
        let windows = tables.map(window).collect();
        Self { groups: Groups::new(group_types(&metric)), metric, windows, plan }
    }

    fn count(&mut self, prepared: &Prepared<'_>, calendar: &Calendar, scratch: &mut Scratch) {
        let Scratch { groups, starts, slots } = scratch;
        self.groups.number(&prepared.groups, groups);
        for window in &mut self.windows {
            starts.clear();
            starts.extend(prepared.times.iter().map(|time| window.finder.find(*time)));
            window.slots.resolve((groups, starts), &mut self.groups, calendar, slots);
            window.slots.touch(slots, prepared.weights.as_deref());
            window.states.iter_mut().for_each(|state| state.grow(window.slots.capacity()));
            self.plan.update(&mut window.states, slots, prepared);
        }
    }

    /// Gathers the rows of many blocks at once, and cuts them into blocks afterwards.
    fn encode<'a>(
        &mut self,
        window: usize,
        names: impl Iterator<Item = &'a BlockKey>,
        encoded: &mut Vec<Option<Bytes>>,
    ) {
        let mut slots = Vec::new();
        let mut ends = Vec::new();
        for name in names {
            self.windows[window].slots.rows_of(name.day, &name.key, &self.groups, &mut slots);
            ends.push(slots.len());
        }
        let rows = self.rows(window, &slots);
        let mut start = 0;
        for end in ends {
            let block = || Bytes::from(encode_rows(&rows.slice(start, end - start), Compression::Plain));
            encoded.push((start < end).then(block));
            start = end;
        }
    }

    fn rows(&self, window: usize, chosen: &[u32]) -> RecordBatch {
        let WindowFold { table, slots, states, .. } = &self.windows[window];
        let numbers: Vec<u32> = chosen.iter().map(|slot| slots.group(*slot)).collect();
        let starts = chosen.iter().map(|slot| slots.start_us(*slot));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(TimestampMicrosecondArray::from_iter_values(starts))];
        columns.extend((0..self.metric.group.len()).map(|column| self.groups.output(column, &numbers)));
        for (aggregate, origin) in self.metric.aggregates.iter().zip(&self.plan.origins) {
            columns.push(match origin {
                Origin::Weight => Arc::new(Int64Array::from_iter_values(chosen.iter().map(|slot| slots.weight(*slot)))),
                Origin::State(index) => states[*index].output(aggregate.function, chosen, &aggregate.output),
            });
        }
        RecordBatch::try_new(table.schema.clone(), columns).expect("columns are made to the table's schema")
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
