//! Whole queries over memory sinks: answers, quality, limits.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::{Decimal128Type, Int64Type};
use futures::future::{join_all, pending};
use proptest::prelude::*;

use super::*;
use crate::model::quality::{Record, Unavailable};
use crate::query::fixture::{NOW_MS, PARTITIONS, Row, World, record, request, row};
use crate::tier::{SinkQuery, SinkRead, SinkStanding, SinkWrite, TierFuture};

const ALL: &str = "select channel, sum(gmv) as s, sum(orders) from gmv_hour group by channel order by channel";

fn rows() -> Vec<Row> {
    (0..20).map(|n| row(n % 24, n, if n % 2 == 0 { "app" } else { "web" }, 1, i128::from(n) * 100)).collect()
}

fn sums(answer: &Answer) -> Vec<(String, i128)> {
    let sums = answer.rows.column(1).as_primitive::<Decimal128Type>().values();
    answer.rows.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).zip(sums.iter().copied()).collect()
}

#[actix_web::test]
async fn a_query_over_all_partitions_merges_rows_and_records() {
    let world = World::started().await;
    world.emit_all(1, &rows()).await;
    world.clock.advance(830);
    let answer = world.service.answer(request(ALL)).await.expect("an answer");
    assert_eq!(sums(&answer), [("app".into(), 9_000), ("web".into(), 10_000)]);
    assert!(answer.quality.exact);
    assert_eq!((answer.quality.age_ms, answer.quality.served_by), (Some(830), vec![ServedBy::Cache]));
    assert_eq!(world.metrics.inexact_answers.get(), 0);
}

#[actix_web::test]
async fn a_merchants_query_reads_its_partition_only() {
    let world = World::started().await;
    world.emit_all(1, &rows()).await;
    let home = crate::model::id::partition_of_int(7, PARTITIONS);
    for partition in (0..PARTITIONS).map(PartitionId).filter(|partition| *partition != home) {
        world.cache.clear(partition);
        world.hot.clear(partition);
    }
    let one = "select gmv from gmv_hour where merchant_id = 7 and window_start >= '2026-11-22'";
    let answer = world.service.answer(request(one)).await.expect("an answer");
    assert!(answer.quality.exact);
    assert_eq!(answer.rows.column(0).as_primitive::<Decimal128Type>().values(), &[700]);
    let all = world.service.answer(request(ALL)).await.expect("an answer");
    assert!(!all.quality.exact && all.quality.as_of_ms.is_none());
    assert_eq!(all.quality.unavailable.len(), usize::from(PARTITIONS) - 1);
    assert_eq!(world.metrics.inexact_answers.get(), 1);
    let nobody = world.service.answer(request("select * from gmv_hour where merchant_id = 1 and merchant_id = 2"));
    let nobody = nobody.await.expect("an answer");
    assert_eq!((nobody.rows.num_rows(), nobody.quality.exact), (0, true));
}

#[actix_web::test]
async fn what_the_caller_demands_is_met_or_refused() {
    let world = World::started().await;
    let unavailable = vec![Unavailable { what: "gmv_day".into(), reason: "kv bypass: last hour only".into() }];
    let home = crate::model::id::partition_of_int(7, PARTITIONS);
    let flawed = Record { unavailable, ..record(2, NOW_MS) };
    world.emit(&*world.cache, home, 1, &[row(1, 7, "app", 1, 1)], Some(flawed)).await;
    let ask = async |merchant: i64, demand| {
        let sql = format!("select orders from gmv_hour where merchant_id = {merchant}");
        world
            .service
            .answer(Request { sql: &sql, demand, client: ClientId(1) })
            .await
            .map(|answer| answer.rows.num_rows())
    };
    let exact = Demand { exact: true, ..Demand::default() };
    assert_eq!(ask(7, Demand::default()).await, Ok(1));
    assert!(matches!(ask(7, exact).await, Err(QueryError::QualityNotMet(reason)) if reason.contains("bypass")));
    let other = (0..100).find(|key| crate::model::id::partition_of_int(*key, PARTITIONS) != home).expect("one");
    assert_eq!(ask(other, exact).await, Ok(0));
    world.clock.advance(1_001);
    let young = Demand { max_age_ms: Some(1_000), ..Demand::default() };
    assert!(
        matches!(ask(other, young).await, Err(QueryError::QualityNotMet(reason)) if reason.contains("1001 ms old"))
    );
}

#[actix_web::test]
async fn the_same_text_means_another_time_once_time_has_passed() {
    let world = World::started().await;
    world.emit_all(1, &[row(1, 7, "app", 1, 1), row(9, 7, "app", 1, 1)]).await;
    // It is 10:00: both hours, then the later one, then none.
    for (moment, wait_hours, expected) in [("now()", 5, [2, 1, 0]), ("'2026-11-22T10:00'", 0, [2, 2, 2])] {
        let within = format!("window_start > {moment} - interval '10 hours' and window_start <= {moment}");
        let sql = format!("select orders from gmv_hour where merchant_id = 7 and {within}");
        for rows in expected {
            let answer = world.service.answer(request(&sql)).await.expect("an answer");
            assert_eq!(answer.rows.num_rows(), rows, "{sql}");
            world.clock.advance(wait_hours * 3_600_000);
        }
    }
}

#[actix_web::test]
async fn a_wrong_value_is_told_with_its_place() {
    let world = World::started().await;
    let sql = "select orders from gmv_hour where window_start >= '2026-02-30'";
    match world.service.answer(request(sql)).await {
        Err(QueryError::Sql(error)) => assert!(error.column > 34, "{error}"),
        Err(QueryError::Value(reason)) => assert!(reason.contains("2026-02-30"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[actix_web::test]
async fn limits_on_rows_bytes_and_rate_refuse_and_count() {
    let world = World::new(|settings| {
        settings.rows_limit = 5;
        settings.scan_limit.0 = 20_000;
        (settings.rate, settings.burst) = (1, 4);
    });
    let many: Vec<Row> = (0..24).flat_map(|hour| (0..20).map(move |n| row(hour, n, "app", 1, 1))).collect();
    for partition in (0..PARTITIONS).map(PartitionId) {
        world.emit(&*world.cache, partition, 0, &many, Some(record(1, NOW_MS))).await;
    }
    let ask = async |sql: &str| world.service.answer(request(sql)).await.map(|answer| answer.rows.num_rows());
    assert_eq!(ask("select orders from gmv_hour where merchant_id = 3").await, Err(QueryError::RowsLimit(5)));
    assert_eq!(ask("select orders from gmv_hour where merchant_id = 3 limit 5").await, Ok(5));
    assert_eq!(ask(ALL).await, Err(QueryError::ScanLimit(20_000)));
    assert_eq!(ask("select").await.map_err(|error| matches!(error, QueryError::Sql(_))), Err(true));
    assert!(matches!(ask(ALL).await, Err(QueryError::Refused(refusal)) if refusal.retry_after_ms == 1_000));
    assert_eq!(world.metrics.query_rejected.get(), 1);
    world.clock.advance(1_000);
    assert_eq!(ask("select orders from gmv_hour where merchant_id = 4 limit 1").await, Ok(1));
}

/// A sink that answers never, and counts how often it is asked.
#[derive(Default)]
struct Silent(AtomicUsize);

impl Sink for Silent {
    fn standing(&self, _: PartitionId) -> TierFuture<'_, SinkStanding> {
        Box::pin(pending())
    }

    fn write(&self, _: PartitionId, _: SinkWrite) -> TierFuture<'_, ()> {
        Box::pin(pending())
    }

    fn read(&self, _: PartitionId, _: SinkQuery) -> TierFuture<'_, SinkRead> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(pending())
    }
}

#[actix_web::test]
async fn a_query_ends_at_the_deadline_and_its_place_is_free_again() {
    let mut settings = Settings::for_tests();
    settings.deadline.0 = 20;
    settings.client_in_flight = 2;
    let silent = Arc::new(Silent::default());
    let service = QueryService::new(Parts {
        catalog: crate::query::fixture::catalog(),
        partitions: PARTITIONS,
        cache: silent.clone(),
        hot: silent,
        clock: Clock::manual(0),
        metrics: Metrics::default(),
        modes: Arc::new(Modes::default),
        settings,
    });
    for _ in 0..2 {
        let found = join_all((0..3).map(|_| service.answer(request(ALL)))).await;
        let late = found.iter().filter(|found| matches!(found, Err(QueryError::Deadline(20)))).count();
        let refused = found.iter().filter(|found| matches!(found, Err(QueryError::Refused(_)))).count();
        assert_eq!((late, refused), (2, 1));
    }
}

#[actix_web::test]
async fn heavy_queries_run_beside_and_give_the_same() {
    let world = World::new(|settings| settings.offload_blocks = 1);
    for partition in (0..PARTITIONS).map(PartitionId) {
        world.emit(&*world.cache, partition, 0, &rows(), Some(record(1, NOW_MS))).await;
    }
    let answer = world.service.answer(request(ALL)).await.expect("an answer");
    assert_eq!(sums(&answer), [("app".into(), 9_000), ("web".into(), 10_000)]);
}

#[actix_web::test]
async fn damaged_blocks_in_the_cache_are_read_from_hot() {
    let world = World::started().await;
    world.emit_all(1, &rows()).await;
    let home = crate::model::id::partition_of_int(7, PARTITIONS);
    let table = world.table();
    let key = crate::query::fixture::blocks(&table, &[row(7, 7, "web", 1, 700)]).into_keys().next().expect("a key");
    let tip = crate::model::id::Tip::new(1, 3);
    let damaged = crate::model::block::StoredBlock { version: tip, rows: bytes::Bytes::from_static(b"damaged") };
    let write = SinkWrite {
        expect: crate::model::id::Tip::new(1, 2),
        tip,
        blocks: vec![(key, damaged)],
        record: Some(record(3, NOW_MS)),
        ..SinkWrite::default()
    };
    world.cache.write(home, write).await.expect("the chain is right");
    let answer =
        world.service.answer(request("select gmv from gmv_hour where merchant_id = 7")).await.expect("an answer");
    assert_eq!((answer.quality.served_by, answer.quality.exact), (vec![ServedBy::Hot], true));
    assert_eq!(answer.rows.column(0).as_primitive::<Decimal128Type>().values(), &[700]);
}

/// What can happen to the one partition's sinks between queries.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// An emission to the cache or to hot; whether its record is written too.
    Emit {
        cache: bool,
        record: bool,
    },
    Up {
        cache: bool,
        up: bool,
    },
    Forget {
        cache: bool,
    },
    Wait(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<bool>(), prop::bool::weighted(0.7)).prop_map(|(cache, record)| Event::Emit { cache, record }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(cache, up)| Event::Up { cache, up }),
        1 => any::<bool>().prop_map(|cache| Event::Forget { cache }),
        1 => (1..4_000i64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Emission n writes the row with `orders = n`; its record says as of the time of n. So an exact answer with a
    /// time must have exactly that emission's row.
    #[test]
    fn i1_an_exact_answer_is_what_stood_at_its_time(events in prop::collection::vec(event(), 1..25)) {
        let system = actix_web::rt::System::new();
        system.block_on(async move {
            let world = World::new(|settings| {
                settings.local_max_age.0 = 100;
                settings.settle_tries = 0;
            });
            let home = crate::model::id::partition_of_int(7, PARTITIONS);
            // For each sink: its emissions so far, and whether the last one has its record.
            let mut truth: std::collections::BTreeMap<i64, i64> = std::collections::BTreeMap::new();
            let (mut cached, mut stored) = (0u64, 0u64);
            for event in events {
                match event {
                    Event::Emit { cache, record: whole } => {
                        world.clock.advance(10);
                        let now_ms = world.clock.now_ms();
                        // The truth at this time: unique for each emission of either sink.
                        let orders = now_ms - NOW_MS;
                        let rows = [row(1, 7, "app", orders, 1)];
                        let (sink, number): (&dyn Sink, _) =
                            if cache { (&*world.cache, &mut cached) } else { (&*world.hot, &mut stored) };
                        let full = whole.then(|| record(*number + 1, now_ms));
                        let tip = crate::model::id::Tip::new(1, *number + 1);
                        let expect = if *number == 0 { Default::default() } else { crate::model::id::Tip::new(1, *number) };
                        let blocks = crate::query::fixture::blocks(&world.table(), &rows).into_iter().map(|(key, rows)| {
                            let rows = crate::model::rows::encode_rows(&rows, crate::model::rows::Compression::Plain);
                            (key, crate::model::block::StoredBlock { version: tip, rows: rows.into() })
                        }).collect();
                        let write = SinkWrite { expect, tip, blocks, record: full, ..SinkWrite::default() };
                        if sink.write(home, write).await.is_ok() {
                            *number += 1;
                            truth.insert(now_ms, orders);
                        }
                    }
                    Event::Up { cache: true, up } => world.cache.set_up(up),
                    Event::Up { cache: false, up } => world.hot.set_up(up),
                    Event::Forget { cache: true } => { world.cache.clear(home); cached = 0; }
                    Event::Forget { cache: false } => { world.hot.clear(home); stored = 0; }
                    Event::Wait(ms) => world.clock.advance(ms),
                }
                let sql = "select orders from gmv_hour where merchant_id = 7";
                let answer = world.service.answer(request(sql)).await.expect("an answer, however bad");
                if answer.quality.exact {
                    let as_of_ms = answer.quality.as_of_ms.expect("an exact answer has a time");
                    let found: Vec<i64> = answer.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
                    assert_eq!(found, [truth[&as_of_ms]], "as of {as_of_ms}");
                }
            }
        });
    }
}
