//! What the tests of queries share: a catalog, rows, sinks that hold them.
//!
//! Invariant: only compiled for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use serde::Deserialize;

use super::admission::ClientId;
use super::query_service::{Parts, QueryService, Request};
use super::settings::Settings;
use super::verdict::Demand;
use crate::cache::memory::MemoryCache;
use crate::clock::Clock;
use crate::hot::memory::MemoryHot;
use crate::metrics::Metrics;
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::catalog::Catalog;
use crate::model::id::{Key, PartitionId, Tip};
use crate::model::metric::{MetricConfig, MetricTable};
use crate::model::mode::Modes;
use crate::model::quality::Record;
use crate::model::rows::{Compression, encode_rows};
use crate::model::schema::TableConfig;
use crate::model::window::Calendar;
use crate::tier::{Sink, SinkWrite};

pub const PARTITIONS: u16 = 4;
pub const HOUR_US: i64 = 3_600_000_000;
/// 2026-11-22T00:00:00Z
pub const DAY_START_US: i64 = 1_795_305_600_000_000;

const DEFINITIONS: &str = r#"
[[table]]
name = "orders"
key = ["order_id"]
partition_by = "merchant_id"
time = "paid_at"
columns = { order_id = "int", merchant_id = "int", status = "text", channel = "text", amount = "decimal(12,2)",
            paid_at = "timestamp" }

[[table]]
name = "visits"
key = ["id"]
partition_by = "site"
time = "at"
columns = { id = "int", site = "text", at = "timestamp", seconds = "int" }

[[metric]]
name = "gmv"
table = "orders"
group_by = ["channel"]
select = ["count(*) as orders", "sum(amount) as gmv"]
windows = ["hour", "day"]

[[metric]]
name = "visits"
table = "visits"
select = ["count(*) as visits", "sum(seconds) as seconds"]
windows = ["hour"]
"#;

#[derive(Deserialize)]
struct Definitions {
    table: Vec<TableConfig>,
    metric: Vec<MetricConfig>,
}

pub fn catalog() -> Arc<Catalog> {
    let definitions: Definitions = toml::from_str(DEFINITIONS).expect("valid TOML");
    Arc::new(Catalog::new(&definitions.table, &definitions.metric, Calendar::utc()).expect("valid definitions"))
}

/// A row of `gmv_hour`; `gmv` in cents.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub window_us: i64,
    pub merchant: i64,
    pub channel: Option<String>,
    pub orders: i64,
    pub gmv: Option<i128>,
}

pub fn row(hour: i64, merchant: i64, channel: &str, orders: i64, gmv: i128) -> Row {
    let window_us = DAY_START_US + hour * HOUR_US;
    Row { window_us, merchant, channel: Some(channel.to_owned()), orders, gmv: Some(gmv) }
}

pub fn batch(table: &MetricTable, rows: &[Row]) -> RecordBatch {
    let gmv: Decimal128Array = rows.iter().map(|row| row.gmv).collect();
    let gmv = gmv.with_data_type(table.schema.field(4).data_type().clone());
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(rows.iter().map(|row| Some(row.window_us)).collect::<TimestampMicrosecondArray>()),
        Arc::new(rows.iter().map(|row| Some(row.merchant)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.channel.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| Some(row.orders)).collect::<Int64Array>()),
        Arc::new(gmv),
    ];
    RecordBatch::try_new(table.schema.clone(), columns).expect("columns of the table")
}

/// Rows as the blocks that hold them.
pub fn blocks(table: &MetricTable, rows: &[Row]) -> BTreeMap<BlockKey, RecordBatch> {
    let mut parts: BTreeMap<BlockKey, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let day = Calendar::utc().day_of(row.window_us);
        let key = BlockKey { table: table.id, day, key: Key::int(row.merchant) };
        parts.entry(key).or_default().push(row.clone());
    }
    parts.into_iter().map(|(key, rows)| (key, batch(table, &rows))).collect()
}

/// A query service over memory sinks.
pub struct World {
    pub service: QueryService,
    pub catalog: Arc<Catalog>,
    pub cache: Arc<MemoryCache>,
    pub hot: Arc<MemoryHot>,
    pub clock: Clock,
    pub metrics: Metrics,
}

pub const NOW_MS: i64 = DAY_START_US / 1_000 + 10 * 3_600_000;

impl World {
    pub fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::for_tests();
        change(&mut settings);
        let (catalog, clock, metrics) = (catalog(), Clock::manual(NOW_MS), Metrics::default());
        let cache = Arc::new(MemoryCache::new(PARTITIONS, 1 << 20));
        let hot = Arc::new(MemoryHot::new(PARTITIONS));
        let service = QueryService::new(Parts {
            catalog: catalog.clone(),
            partitions: PARTITIONS,
            cache: cache.clone(),
            hot: hot.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            modes: Arc::new(Modes::default),
            settings,
        });
        Self { service, catalog, cache, hot, clock, metrics }
    }

    /// Both sinks hold a first, complete record for every partition.
    pub async fn started() -> Self {
        let world = Self::new(|_| {});
        for partition in (0..PARTITIONS).map(PartitionId) {
            world.emit(&*world.cache, partition, 0, &[], Some(record(1, NOW_MS))).await;
            world.emit(&*world.hot, partition, 0, &[], Some(record(1, NOW_MS))).await;
        }
        world
    }

    pub fn table(&self) -> Arc<MetricTable> {
        self.catalog.metric_table("gmv_hour").expect("it is defined").clone()
    }

    /// Emission `number + 1` of epoch 1: those of `rows` that belong to the partition.
    pub async fn emit(
        &self,
        sink: &dyn Sink,
        partition: PartitionId,
        number: u64,
        rows: &[Row],
        record: Option<Record>,
    ) {
        let table = self.table();
        let blocks = blocks(&table, rows).into_iter().filter(|(key, _)| key.key.partition(PARTITIONS) == partition);
        let tip = Tip::new(1, number + 1);
        let blocks = blocks.map(|(key, rows)| {
            (key, StoredBlock { version: tip, rows: encode_rows(&rows, Compression::Plain).into() })
        });
        let expect = if number == 0 { Tip::default() } else { Tip::new(1, number) };
        let write = SinkWrite { expect, tip, blocks: blocks.collect(), record, ..SinkWrite::default() };
        sink.write(partition, write).await.expect("the chain is right");
    }

    /// Puts rows into both sinks, with records that vouch for them.
    pub async fn emit_all(&self, number: u64, rows: &[Row]) {
        for partition in (0..PARTITIONS).map(PartitionId) {
            let record = record(number + 1, self.clock.now_ms());
            self.emit(&*self.cache, partition, number, rows, Some(record.clone())).await;
            self.emit(&*self.hot, partition, number, rows, Some(record)).await;
        }
    }
}

pub fn record(number: u64, as_of_ms: i64) -> Record {
    Record {
        version: Tip::new(1, number),
        base: Tip::new(1, 1),
        as_of_ms,
        missing: Vec::new(),
        missing_more: 0,
        unavailable: Vec::new(),
    }
}

pub fn request(sql: &str) -> Request<'_> {
    Request { sql, demand: Demand::default(), client: ClientId(1) }
}
