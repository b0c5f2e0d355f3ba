//! Tables, changes and their truth for the tests of this folder.
//!
//! Invariant: `truth` recomputes everything naively from all rows; it shares no code with the fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;

use crate::model::batch::{Batch, BatchHeader};
use crate::model::block::BlockKey;
use crate::model::catalog::Catalog;
use crate::model::id::SourceId;
use crate::model::metric::MetricConfig;
use crate::model::position::{Position, Span};
use crate::model::rows::{Compression, body_schema, decode_rows, encode_rows};
use crate::model::schema::{Table, TableConfig};
use crate::model::window::{Calendar, WindowKind};

const TABLE: &str = r#"
name = "orders"
key = ["order_id"]
partition_by = "merchant_id"
time = "paid_at"
columns = { order_id = "int", merchant_id = "int", status = "text", channel = "text", amount = "decimal(12,2)", buyer_id = "int", paid_at = "timestamp" }
"#;

const METRIC: &str = r#"
name = "gmv"
table = "orders"
where = "status = 'paid'"
group_by = ["channel"]
select = ["count(*) as orders", "sum(amount) as gmv", "avg(amount) as basket", "min(amount) as smallest",
          "max(amount) as largest", "count(distinct buyer_id) as buyers"]
windows = ["hour", "day"]
"#;

pub fn catalog() -> Arc<Catalog> {
    catalog_with(METRIC)
}

/// A catalog with another definition of the metric.
pub fn other_catalog() -> Arc<Catalog> {
    catalog_with(&METRIC.replace("'paid'", "'refunded'"))
}

fn catalog_with(metric: &str) -> Arc<Catalog> {
    let table: TableConfig = toml::from_str(TABLE).expect("a table");
    let metric: MetricConfig = toml::from_str(metric).expect("a metric");
    let calendar = Calendar::new("Europe/Berlin").expect("a zone");
    Arc::new(Catalog::new(&[table], &[metric], calendar).expect("checked definitions"))
}

pub const CHANNELS: [Option<&str>; 5] = [Some("app"), Some("web"), Some("partner store"), Some(""), None];

/// One weighted row.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub merchant: i64,
    pub paid: bool,
    /// Index into `CHANNELS`.
    pub channel: usize,
    pub cents: Option<i128>,
    pub buyer: Option<i64>,
    pub at_us: Option<i64>,
    pub weight: i64,
}

impl Change {
    /// A paid order of one merchant in the app.
    pub fn simple(merchant: i64, cents: i128) -> Self {
        let at_us = Some(1_700_000_000_000_000);
        Self { merchant, paid: true, channel: 0, cents: Some(cents), buyer: Some(7), at_us, weight: 1 }
    }

    /// From numbers that say nothing: few merchants, windows and values, so that they meet.
    pub fn arbitrary(seed: u64) -> Self {
        let part = |shift: u32, of: u64| (seed >> shift) % of;
        Self {
            merchant: part(0, 4) as i64,
            paid: part(3, 8) > 0,
            channel: part(8, 5) as usize,
            cents: (part(13, 10) > 0).then(|| part(17, 7) as i128 - 3),
            buyer: (part(23, 6) > 0).then(|| part(27, 40) as i64),
            // Hours of three days around a change of clocks.
            at_us: (part(33, 12) > 0).then(|| 1_761_400_000_000_000 + part(37, 70) as i64 * 3_000_000_000),
            weight: if part(45, 3) == 0 { -1 } else { 1 },
        }
    }
}

pub fn table(catalog: &Catalog) -> Arc<Table> {
    catalog.tables()[0].clone()
}

/// Rows with their weights as last column.
pub fn rows(catalog: &Catalog, changes: &[Change]) -> RecordBatch {
    let ints = |value: &dyn Fn(&Change) -> Option<i64>| {
        Arc::new(changes.iter().map(value).collect::<Int64Array>()) as ArrayRef
    };
    let amounts: Decimal128Array = changes.iter().map(|change| change.cents).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..changes.len() as i64)),
        ints(&|change| Some(change.merchant)),
        Arc::new(
            changes.iter().map(|change| Some(if change.paid { "paid" } else { "placed" })).collect::<StringArray>(),
        ),
        Arc::new(changes.iter().map(|change| CHANNELS[change.channel]).collect::<StringArray>()),
        Arc::new(amounts.with_precision_and_scale(12, 2).expect("they fit")),
        ints(&|change| change.buyer),
        Arc::new(changes.iter().map(|change| change.at_us).collect::<TimestampMicrosecondArray>()),
        Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.weight))),
    ];
    RecordBatch::try_new(body_schema(&table(catalog), true, false), columns).expect("columns of the table")
}

/// The changes of `source` after `from`, one for each position.
pub fn batch(catalog: &Catalog, source: &SourceId, from: u64, changes: &[Change]) -> Batch {
    let from = Position(from.into());
    let header = BatchHeader {
        source: source.clone(),
        span: Span::new(from, from.plus(changes.len() as u64)),
        table: table(catalog).name.clone(),
        schema: table(catalog).fingerprint,
        rows: changes.len() as u32,
        weighted: true,
        positioned: false,
        at_ms: 1_000,
        hours: None,
    };
    Batch { header, body: encode_rows(&rows(catalog, changes), Compression::Lz4).into() }
}

/// Window kind, start, merchant, channel.
pub type RowName = (WindowKind, i64, i64, Option<String>);

/// Orders, sum, average (scale 6), smallest, largest, buyers.
pub type RowValues = (i64, Option<i128>, Option<i128>, Option<i128>, Option<i128>, i64);

/// What all metric tables must hold after these changes.
pub fn truth<'a>(catalog: &Catalog, changes: impl IntoIterator<Item = &'a Change>) -> BTreeMap<RowName, RowValues> {
    let mut groups: BTreeMap<RowName, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        let Some(at_us) = change.at_us.filter(|_| change.paid) else { continue };
        for kind in [WindowKind::Hour, WindowKind::Day] {
            let start = catalog.calendar().window_start(kind, at_us);
            let channel = CHANNELS[change.channel].map(str::to_string);
            groups.entry((kind, start, change.merchant, channel)).or_default().push(change);
        }
    }
    groups.retain(|_, rows| rows.iter().map(|row| row.weight).sum::<i64>() != 0);
    groups.into_iter().map(|(name, rows)| (name, values(&rows))).collect()
}

fn values(rows: &[&Change]) -> RowValues {
    let weigh = |value: &dyn Fn(&Change) -> Option<i128>| {
        let mut weights: BTreeMap<i128, i64> = BTreeMap::new();
        rows.iter()
            .filter_map(|row| Some((value(row)?, row.weight)))
            .for_each(|(v, w)| *weights.entry(v).or_default() += w);
        weights
    };
    let amounts = weigh(&|row| row.cents);
    let sum: i128 = amounts.iter().map(|(value, weight)| value * i128::from(*weight)).sum();
    let count: i64 = amounts.values().sum();
    let average = |count: i64| {
        let (scaled, count) = (sum * 10_000, i128::from(count));
        let rounded = (scaled.abs() * 2 + count.abs()) / (count.abs() * 2);
        rounded * scaled.signum() * count.signum()
    };
    let present = || amounts.iter().filter(|(_, weight)| **weight > 0).map(|(value, _)| *value);
    let buyers = weigh(&|row| row.buyer.map(i128::from)).values().filter(|weight| **weight > 0).count() as i64;
    let some = count != 0;
    let orders = rows.iter().map(|row| row.weight).sum();
    (orders, some.then_some(sum), some.then(|| average(count)), present().min(), present().max(), buyers)
}

/// The rows of blocks as a reader sees them. Checks that they lie where they belong, in order.
pub fn read<'a>(
    catalog: &Catalog,
    blocks: impl IntoIterator<Item = (&'a BlockKey, &'a Bytes)>,
) -> BTreeMap<RowName, RowValues> {
    let mut found = BTreeMap::new();
    for (key, bytes) in blocks {
        let table = catalog.metric_tables().iter().find(|table| table.id == key.table).expect("a known table");
        let rows = decode_rows(&table.schema, bytes).expect("whole rows");
        assert!(rows.num_rows() > 0, "a block without rows is removed");
        let starts = rows.column(0).as_primitive::<TimestampMicrosecondType>();
        let int = |column: usize, row: usize| rows.column(column).as_primitive::<Int64Type>().value(row);
        let decimal = |column: usize, row: usize| {
            let values = rows.column(column).as_primitive::<Decimal128Type>();
            values.is_valid(row).then(|| values.value(row))
        };
        let channels = rows.column(2).as_string::<i32>();
        let mut last = None;
        for row in 0..rows.num_rows() {
            let channel = channels.is_valid(row).then(|| channels.value(row).to_string());
            let name = (table.window, starts.value(row), int(1, row), channel);
            assert_eq!(catalog.calendar().day_of(name.1), key.day);
            assert_eq!(crate::model::id::Key::int(name.2), key.key);
            assert!(last.replace(name.clone()) < Some(name.clone()), "rows are in order, each once");
            let values = (int(3, row), decimal(4, row), decimal(5, row), decimal(6, row), decimal(7, row), int(8, row));
            assert_eq!(found.insert(name, values), None, "a row is in one block");
        }
    }
    found
}
