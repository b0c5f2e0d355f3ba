//! `holdfast bench engine`: filter, group and order over a block of 1,000 rows, with a cached plan.
//!
//! Invariant: a round includes finding the plan by its text and binding its values, as a request does.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow::array::{ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::stages;
use super::stats::Runs;
use super::{machine, orders};
use crate::clock;
use crate::config::{Layers, Loaded};
use crate::model::catalog::Catalog;
use crate::model::expr::Context;
use crate::query::engine::Engine;
use crate::query::plans::Plans;

const ROWS: i64 = 1_000;
const ROUNDS: u32 = 20_000;
/// 2026-11-01T00:00:00Z.
const DAY_US: i64 = 1_793_491_200_000_000;

const QUERY: &str = "select channel, sum(orders) as orders, sum(gmv) as gmv from gmv_hour \
    where merchant_id = 42 and window_start >= '2026-11-01' and orders > 10 group by channel order by gmv desc";

fn block(catalog: &Catalog) -> Result<RecordBatch> {
    let table = catalog.metric_table("gmv_hour").context("the metric was just defined")?;
    let hours = (0..ROWS).map(|row| DAY_US + row / 42 * 3_600_000_000);
    let amounts = Decimal128Array::from_iter_values((0..ROWS).map(|row| i128::from(row * 7919 % 100_000)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(hours)),
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| 42))),
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| orders::CHANNELS[row as usize % 4]))),
        Arc::new(Int64Array::from_iter_values((0..ROWS).map(|row| row % 100))),
        Arc::new(amounts.with_precision_and_scale(38, 2)?),
    ];
    Ok(RecordBatch::try_new(table.schema.clone(), columns)?)
}

/// Prints the time of one execution.
pub async fn engine(runs: u32) -> Result<()> {
    println!("{}", machine::describe());
    let catalog = Arc::new(stages::catalog()?);
    let config = Loaded::new(Layers::new(None, []))?.config;
    let plans = Plans::new(catalog.clone(), &config.query);
    let blocks = [block(&catalog)?.into()];
    let mut times = Vec::new();
    for _ in 0..runs {
        machine::wait_until_idle().await;
        let start = clock::instant();
        for _ in 0..ROUNDS {
            let prepared = plans.prepare(QUERY)?;
            let context = Context { params: &prepared.params, now_us: DAY_US, calendar: catalog.calendar() };
            let bound = prepared.bind(&context)?;
            let answer = Engine::execute(&prepared.plan, &bound, &blocks, &context, config.query.rows_limit)?;
            std::hint::black_box(answer);
        }
        times.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
    }
    println!("plan by text, filter, group, order over a block of {ROWS} rows, us: {}", Runs::new(times));
    Ok(())
}
