//! The engine against the plainest recomputation, over random rows in random blocks.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{Decimal128Type, Int64Type};
use proptest::prelude::*;

use super::*;
use crate::model::metric::MetricTable;
use crate::model::window::Calendar;
use crate::query::fixture::{DAY_START_US, HOUR_US, Row, batch, blocks, catalog, row};
use crate::query::plans::Plans;
use crate::query::settings::Settings;

/// Runs a query over those blocks that its plan wants to read; blocks are cut into pieces of `piece` rows.
fn run(sql: &str, rows: &[Row], piece: usize) -> Result<RecordBatch, QueryError> {
    let plans = Plans::new(catalog(), &Settings::for_tests());
    let prepared = plans.prepare(sql)?;
    let calendar = Calendar::utc();
    let context = Context { params: &prepared.params, now_us: DAY_START_US, calendar: &calendar };
    let bound = prepared.plan.bind(&context)?;
    let scan = &bound.scan;
    let wanted = blocks(&prepared.plan.table, rows).into_iter().filter(|(key, _)| {
        scan.days.contains(&key.day) && scan.keys.as_ref().is_none_or(|keys| keys.contains(&key.key))
    });
    let pieces = wanted.flat_map(|(_, block)| {
        let count = block.num_rows();
        (0..count).step_by(piece).map(move |from| block.slice(from, piece.min(count - from)).into()).collect::<Vec<_>>()
    });
    Engine::execute(&prepared.plan, &bound, &pieces.collect::<Vec<_>>(), &context, 10_000)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let one = (0..60i64, 0..4i64, prop::option::weighted(0.8, "[ab]|a much longer channel [ab]"), 0..9i64);
    let one =
        (one, prop::option::weighted(0.8, -999..9_999i128)).prop_map(|((hour, merchant, channel, orders), gmv)| Row {
            window_us: DAY_START_US + hour * HOUR_US,
            merchant,
            channel,
            orders,
            gmv,
        });
    prop::collection::vec(one, 0..60)
}

#[derive(Debug, Clone, Copy)]
struct Order {
    descending: bool,
    /// `None`: not written.
    nulls_first: Option<bool>,
}

impl Order {
    fn sql(self) -> String {
        let nulls = match self.nulls_first {
            Some(true) => " nulls first",
            Some(false) => " nulls last",
            None => "",
        };
        format!("{}{nulls}", if self.descending { " desc" } else { "" })
    }

    fn compare<T: Ord>(self, a: &Option<T>, b: &Option<T>) -> Ordering {
        let nulls_first = self.nulls_first.unwrap_or(self.descending);
        match (a, b) {
            (Some(a), Some(b)) if self.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (None, None) => Ordering::Equal,
            (None, Some(_)) => {
                if nulls_first {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
            (Some(_), None) => {
                if nulls_first {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
        }
    }
}

fn order() -> impl Strategy<Value = Order> {
    (any::<bool>(), prop::option::of(any::<bool>()))
        .prop_map(|(descending, nulls_first)| Order { descending, nulls_first })
}

/// Half away from zero, with four more digits.
fn mean(sum: i128, count: i128) -> i128 {
    let scaled = sum * 10_000;
    let (quotient, rest) = (scaled / count, scaled % count);
    if rest.abs() * 2 >= count { quotient + scaled.signum() } else { quotient }
}

type Group = (Option<String>, i64, i64, Option<i128>, Option<i128>, Option<i64>, Option<i128>, i64);

fn groups_found(found: &RecordBatch) -> Vec<Group> {
    let texts = found.column(0).as_string::<i32>();
    let int = |column: usize| found.column(column).as_primitive::<Int64Type>().iter();
    let decimal = |column: usize| found.column(column).as_primitive::<Decimal128Type>().iter();
    let mut rest = int(1).zip(int(2)).zip(decimal(3)).zip(decimal(4)).zip(int(5)).zip(decimal(6)).zip(int(7));
    texts
        .iter()
        .map(|channel| {
            let ((((((n, with_gmv), sum), avg), least), most), big) = rest.next().expect("one length");
            let channel = channel.map(str::to_owned);
            (channel, n.expect("a count"), with_gmv.expect("a count"), sum, avg, least, most, big.expect("a count"))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn grouped_queries_equal_a_plain_recomputation(
        rows in rows(), piece in 1usize..9, merchant in 0..4i64, (low, hour) in (0..9i64, 0..60i64),
        (by_sum, by_channel) in (order(), order()), (limit, offset) in (0usize..9, 0usize..4), at_least in 0i64..3,
    ) {
        let from = hour % 24;
        let sql = format!(
            "select channel, count(*), count(gmv), sum(gmv) as s, avg(gmv), min(orders), max(gmv), \
             count(*) filter (where orders > 4) from gmv_hour \
             where merchant_id in ({merchant}, 1) and orders >= {low} \
             and window_start >= timestamp '2026-11-22 {from:02}:00:00' \
             group by channel having count(*) >= {at_least} order by s{}, channel{} limit {limit} offset {offset}",
            by_sum.sql(), by_channel.sql(),
        );
        let mut expected: BTreeMap<Option<String>, Vec<&Row>> = BTreeMap::new();
        for row in &rows {
            let passes = (row.merchant == merchant || row.merchant == 1)
                && row.orders >= low && row.window_us >= DAY_START_US + from * HOUR_US;
            if passes {
                expected.entry(row.channel.clone()).or_default().push(row);
            }
        }
        let mut expected: Vec<Group> = expected.into_iter().map(|(channel, rows)| {
            let values: Vec<i128> = rows.iter().filter_map(|row| row.gmv).collect();
            let sum: i128 = values.iter().sum();
            let some = !values.is_empty();
            let big = rows.iter().filter(|row| row.orders > 4).count() as i64;
            (
                channel, rows.len() as i64, values.len() as i64, some.then_some(sum),
                some.then(|| mean(sum, values.len() as i128)), rows.iter().map(|row| row.orders).min(),
                values.into_iter().max(), big,
            )
        }).filter(|group| group.1 >= at_least).collect();
        expected.sort_by(|a, b| by_sum.compare(&a.3, &b.3).then_with(|| by_channel.compare(&a.0, &b.0)));
        let expected: Vec<Group> = expected.into_iter().skip(offset).take(limit).collect();
        let found = run(&sql, &rows, piece).expect(&sql);
        prop_assert_eq!(groups_found(&found), expected, "{}", sql);
    }

    #[test]
    fn plain_queries_equal_a_plain_recomputation(
        rows in rows(), piece in 1usize..9, low in -999..9_999i64, by_gmv in order(),
        limit in prop::option::of(0usize..20), offset in 0usize..5,
    ) {
        let limited = limit.map_or(String::new(), |limit| format!(" limit {limit}"));
        let sql = format!(
            "select merchant_id, orders * 2 as twice, gmv from gmv_hour where gmv > {}.{:02} or channel is null \
             order by gmv{}, merchant_id, 2 desc{limited} offset {offset}",
            low / 100, (low % 100).abs(), by_gmv.sql(),
        );
        // The text of -0.xx has lost its sign; skip those.
        prop_assume!(low >= 0 || low <= -100);
        type Plain = (i64, i64, Option<i128>);
        let mut expected: Vec<Plain> = rows.iter()
            .filter(|row| row.channel.is_none() || row.gmv.is_some_and(|gmv| gmv > i128::from(low)))
            .map(|row| (row.merchant, row.orders * 2, row.gmv)).collect();
        expected.sort_by(|a, b| by_gmv.compare(&a.2, &b.2).then(a.0.cmp(&b.0)).then(b.1.cmp(&a.1)));
        let expected: Vec<Plain> = expected.into_iter().skip(offset).take(limit.unwrap_or(usize::MAX)).collect();
        let found = run(&sql, &rows, piece).expect(&sql);
        let ints = |column: usize| found.column(column).as_primitive::<Int64Type>().values().iter().copied();
        let found: Vec<Plain> = ints(0).zip(ints(1)).zip(found.column(2).as_primitive::<Decimal128Type>())
            .map(|((merchant, twice), gmv)| (merchant, twice, gmv)).collect();
        prop_assert_eq!(found, expected, "{}", sql);
    }
}

fn ints(found: &RecordBatch, column: usize) -> Vec<Option<i64>> {
    found.column(column).as_primitive::<Int64Type>().iter().collect()
}

#[test]
fn an_aggregate_without_groups_has_one_row_even_without_rows() {
    let found = run("select count(*), sum(gmv), count(*) + 1 from gmv_hour where merchant_id = 9", &[], 1);
    let found = found.expect("a row");
    assert_eq!((ints(&found, 0), found.column(1).is_null(0), ints(&found, 2)), (vec![Some(0)], true, vec![Some(1)]));
    let grouped = run("select count(*) from gmv_hour group by channel", &[], 1).expect("no rows");
    assert_eq!(grouped.num_rows(), 0);
    let plain = run("select channel, gmv from gmv_hour", &[], 1).expect("no rows");
    assert_eq!((plain.num_rows(), plain.num_columns()), (0, 2));
}

#[test]
fn expressions_over_aggregates_and_groups_are_computed_after_grouping() {
    let rows = [row(0, 1, "a", 2, 1_000), row(1, 1, "a", 3, 500), row(30, 1, "b", 1, 700)];
    let sql = "select date_trunc('day', window_start) as day, sum(gmv) / sum(orders) as basket, \
               case when sum(orders) > 4 then 'many' else 'few' end as size, sum(orders) \
               from gmv_hour where merchant_id = 1 group by date_trunc('day', window_start) order by 1";
    let found = run(sql, &rows, 2).expect("two days");
    assert_eq!(found.num_rows(), 2);
    let baskets = found.column(1).as_primitive::<Decimal128Type>();
    let scale = 10i128.pow(baskets.scale() as u32);
    assert_eq!(baskets.values().iter().copied().collect::<Vec<_>>(), [3 * scale, 7 * scale]);
    assert_eq!(found.column(2).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["many", "few"]);
}

#[test]
fn more_rows_than_an_answer_may_have_are_an_error_and_never_cut() {
    let rows: Vec<Row> = (0..60).map(|hour| row(hour, 1, "a", hour, 1)).collect();
    let plans = Plans::new(catalog(), &Settings::for_tests());
    let table: &MetricTable = &catalog().metric_table("gmv_hour").expect("defined").clone();
    let (block, calendar) = ([batch(table, &rows).into()], Calendar::utc());
    let limited = |sql: &str| {
        let prepared = plans.prepare(sql).expect(sql);
        let context = Context { params: &prepared.params, now_us: 0, calendar: &calendar };
        let bound = prepared.plan.bind(&context).expect("bound");
        Engine::execute(&prepared.plan, &bound, &block, &context, 50).map(|found| found.num_rows())
    };
    assert_eq!(limited("select orders from gmv_hour"), Err(QueryError::RowsLimit(50)));
    assert_eq!(limited("select orders from gmv_hour order by gmv"), Err(QueryError::RowsLimit(50)));
    assert_eq!(limited("select orders, count(*) from gmv_hour group by 1"), Err(QueryError::RowsLimit(50)));
    assert_eq!(limited("select orders from gmv_hour limit 50"), Ok(50));
    assert_eq!(limited("select orders from gmv_hour order by gmv limit 9 offset 55"), Ok(5));
    assert_eq!(limited("select orders, count(*) from gmv_hour group by 1 order by 1 limit 7"), Ok(7));
}

#[test]
fn ordered_rows_beyond_the_limit_are_dropped_on_the_way() {
    let plans = Plans::new(catalog(), &Settings::for_tests());
    let table = catalog().metric_table("gmv_hour").expect("defined").clone();
    let prepared = plans.prepare("select orders from gmv_hour order by orders desc limit 3").expect("a plan");
    let calendar = Calendar::utc();
    let context = Context { params: &prepared.params, now_us: 0, calendar: &calendar };
    let bound = prepared.plan.bind(&context).expect("bound");
    let mut execution = Execution::new(&prepared.plan, &bound, 10);
    for block in 0..20 {
        let rows: Vec<Row> = (0..1_000).map(|n| row(0, 1, "a", block * 1_000 + (n * 7) % 1_000, 1)).collect();
        assert_eq!(execution.push(&batch(&table, &rows).into(), &context), Ok(Need::More));
        let Reduction::Rows(kept) = &execution.reduction else { panic!("no groups") };
        assert!(kept.count <= KEEP_AT_LEAST);
    }
    let found = execution.finish(&context).expect("rows");
    assert_eq!(found.column(0).as_primitive::<Int64Type>(), &Int64Array::from(vec![19_999, 19_998, 19_997]));
}

#[test]
fn rows_in_no_order_stop_being_read_once_there_are_enough() {
    let plans = Plans::new(catalog(), &Settings::for_tests());
    let table = catalog().metric_table("gmv_hour").expect("defined").clone();
    let prepared = plans.prepare("select orders from gmv_hour limit 3 offset 1").expect("a plan");
    let calendar = Calendar::utc();
    let context = Context { params: &prepared.params, now_us: 0, calendar: &calendar };
    let bound = prepared.plan.bind(&context).expect("bound");
    let mut execution = Execution::new(&prepared.plan, &bound, 10);
    let block = batch(&table, &[row(0, 1, "a", 1, 1), row(1, 1, "a", 2, 1)]).into();
    assert_eq!(execution.push(&block, &context), Ok(Need::More));
    assert_eq!(execution.push(&block, &context), Ok(Need::Enough));
    assert_eq!(ints(&execution.finish(&context).expect("rows"), 0), [Some(2), Some(1), Some(2)]);
}
