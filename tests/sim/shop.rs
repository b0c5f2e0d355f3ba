//! The shop whose changes the simulator counts: one table, one metric in two windows, and what blocks of it say.
//!
//! Invariant: what a metric's rows must be is computed here naively, from all changes; no code is shared with the fold.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use holdfast::model::batch::{Batch, BatchHeader};
use holdfast::model::block::Day;
use holdfast::model::catalog::Catalog;
use holdfast::model::id::{PartitionId, SourceId, partition_of_int};
use holdfast::model::metric::{MetricConfig, MetricTable};
use holdfast::model::position::{Position, Span};
use holdfast::model::rows::{Compression, POSITION, WEIGHT, body_schema, decode_rows, encode_rows};
use holdfast::model::schema::{Table, TableConfig};
use holdfast::model::window::{Calendar, WindowKind};
use xxhash_rust::xxh3::xxh3_64;

use crate::random::Random;

pub const PARTITIONS: u16 = 2;
/// 2026-11-22T00:00:00Z, and the day before.
pub const LAST_DAY: Day = 20_779;
pub const DAYS: [Day; 2] = [LAST_DAY - 1, LAST_DAY];
const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;
const CHANNELS: [Option<&str>; 3] = [Some("app"), Some("web"), None];
const MERCHANTS_OF_A_PARTITION: usize = 3;

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
select = ["count(*) as orders", "sum(amount) as gmv", "max(amount) as largest", "count(distinct buyer_id) as buyers"]
windows = ["hour", "day"]
"#;

static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let table: TableConfig = toml::from_str(TABLE).expect("a table");
    let metric: MetricConfig = toml::from_str(METRIC).expect("a metric");
    Arc::new(Catalog::new(&[table], &[metric], Calendar::utc()).expect("checked definitions"))
});

static MERCHANTS: LazyLock<[Vec<i64>; PARTITIONS as usize]> = LazyLock::new(|| {
    std::array::from_fn(|partition| {
        let here = (1..).filter(|merchant| usize::from(partition_of_int(*merchant, PARTITIONS).0) == partition);
        here.take(MERCHANTS_OF_A_PARTITION).collect()
    })
});

pub fn catalog() -> Arc<Catalog> {
    CATALOG.clone()
}

pub fn table() -> Arc<Table> {
    CATALOG.tables()[0].clone()
}

pub fn partitions() -> impl Iterator<Item = PartitionId> {
    (0..PARTITIONS).map(PartitionId)
}

pub fn merchants(partition: PartitionId) -> &'static [i64] {
    &MERCHANTS[usize::from(partition.0)]
}

pub fn metric_table(window: WindowKind) -> Arc<MetricTable> {
    CATALOG.metric_tables().iter().find(|table| table.window == window).expect("it is defined").clone()
}

pub const WINDOWS: [WindowKind; 2] = [WindowKind::Hour, WindowKind::Day];

/// All that a partition's blocks can be named: window, day, merchant.
pub type BlockName = (WindowKind, Day, i64);

/// One weighted row.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub order: Order,
    /// Which request it came with; not counted by any metric.
    pub tag: i64,
    pub weight: i64,
}

/// A row of the source table.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    pub merchant: i64,
    pub paid: bool,
    pub channel: usize,
    pub cents: Option<i64>,
    pub buyer: i64,
    pub at_us: i64,
}

impl Order {
    /// Few merchants, windows and values, so that orders meet.
    pub fn new(random: &mut Random) -> Self {
        let partition = PartitionId(random.below(usize::from(PARTITIONS)) as u16);
        let day = *random.pick(&DAYS);
        Self {
            merchant: *random.pick(merchants(partition)),
            paid: random.percent(85),
            channel: random.below(CHANNELS.len()),
            cents: random.percent(90).then(|| random.between(-3, 20)),
            buyer: random.between(1, 5),
            at_us: i64::from(day) * DAY_US + random.between(0, 2) * HOUR_US + random.between(0, HOUR_US - 1),
        }
    }

    /// Something of it changes: maybe the merchant, maybe the hour, maybe only what is counted.
    pub fn update(&self, random: &mut Random) -> Self {
        let other = Self::new(random);
        match random.below(4) {
            0 => Self { merchant: other.merchant, ..self.clone() },
            1 => Self { at_us: other.at_us, ..self.clone() },
            2 => Self { paid: !self.paid, ..self.clone() },
            _ => Self { cents: other.cents, channel: other.channel, ..self.clone() },
        }
    }

    pub fn partition(&self) -> PartitionId {
        partition_of_int(self.merchant, PARTITIONS)
    }

    pub fn day(&self) -> Day {
        self.at_us.div_euclid(DAY_US) as Day
    }
}

/// The orders as the shop itself sees them, and the changes that it makes.
#[derive(Debug, Default)]
pub struct Orders {
    rows: Vec<Order>,
}

impl Orders {
    /// One operation as weighted rows.
    pub fn change(&mut self, random: &mut Random, tag: i64) -> Vec<Change> {
        let with = |order: &Order, weight| Change { order: order.clone(), tag, weight };
        match random.below(100) {
            0..30 if !self.rows.is_empty() => {
                let at = random.below(self.rows.len());
                let after = self.rows[at].update(random);
                let before = std::mem::replace(&mut self.rows[at], after);
                vec![with(&before, -1), with(&self.rows[at], 1)]
            }
            30..45 if !self.rows.is_empty() => {
                let gone = self.rows.swap_remove(random.below(self.rows.len()));
                vec![with(&gone, -1)]
            }
            _ => {
                self.rows.push(Order::new(random));
                vec![with(self.rows.last().expect("just pushed"), 1)]
            }
        }
    }
}

/// Rows as a batch's body, weighted, with positions if they are given.
pub fn body(changes: &[&Change], positions: Option<&[Position]>) -> Bytes {
    let ints = |value: &dyn Fn(&Change) -> i64| {
        Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| value(change)))) as ArrayRef
    };
    let orders = || changes.iter().map(|change| &change.order);
    let amounts: Decimal128Array = orders().map(|order| order.cents.map(i128::from)).collect();
    let status = orders().map(|order| Some(if order.paid { "paid" } else { "placed" }));
    let mut columns: Vec<ArrayRef> = vec![
        ints(&|change| change.tag),
        ints(&|change| change.order.merchant),
        Arc::new(status.collect::<StringArray>()),
        Arc::new(orders().map(|order| CHANNELS[order.channel]).collect::<StringArray>()),
        Arc::new(amounts.with_precision_and_scale(12, 2).expect("they fit")),
        ints(&|change| change.order.buyer),
        Arc::new(TimestampMicrosecondArray::from_iter_values(orders().map(|order| order.at_us))),
        ints(&|change| change.weight),
    ];
    if let Some(positions) = positions {
        let values = Decimal128Array::from_iter_values(positions.iter().map(|position| position.0 as i128));
        columns.push(Arc::new(values.with_precision_and_scale(38, 0).expect("they fit")));
    }
    let rows = RecordBatch::try_new(body_schema(&table(), true, positions.is_some()), columns);
    encode_rows(&rows.expect("columns of the table"), Compression::Plain).into()
}

pub fn hours(changes: &[&Change]) -> Option<(i32, i32)> {
    let hours = || changes.iter().map(|change| change.order.at_us.div_euclid(HOUR_US) as i32);
    Some((hours().min()?, hours().max()?))
}

/// The changes of a stream's span that one partition has, each with its position.
pub fn positioned_batch(source: SourceId, span: Span, changes: &[(Position, &Change)], at_ms: i64) -> Batch {
    let rows: Vec<&Change> = changes.iter().map(|(_, change)| *change).collect();
    let positions: Vec<Position> = changes.iter().map(|(position, _)| *position).collect();
    let header = BatchHeader {
        source,
        span,
        table: table().name.clone(),
        schema: table().fingerprint,
        rows: rows.len() as u32,
        weighted: true,
        positioned: true,
        at_ms,
        hours: hours(&rows),
    };
    let body = if rows.is_empty() { Bytes::new() } else { body(&rows, Some(&positions)) };
    Batch { header, body }
}

/// The changes of a batch with their positions.
pub fn changes_of(batch: &Batch) -> Vec<(Position, Change)> {
    let header = &batch.header;
    if header.rows == 0 {
        return Vec::new();
    }
    let rows =
        decode_rows(&body_schema(&table(), header.weighted, header.positioned), &batch.body).expect("whole rows");
    let int = |column: usize, row: usize| rows.column(column).as_primitive::<Int64Type>().value(row);
    let text = |column: usize, row: usize| {
        let values = rows.column(column).as_string::<i32>();
        values.is_valid(row).then(|| values.value(row))
    };
    let amounts = rows.column(4).as_primitive::<Decimal128Type>();
    let weights = rows.column_by_name(WEIGHT).expect("a weight").as_primitive::<Int64Type>();
    let positions = rows.column_by_name(POSITION).map(|column| column.as_primitive::<Decimal128Type>());
    let change = |row: usize| {
        let order = Order {
            merchant: int(1, row),
            paid: text(2, row) == Some("paid"),
            channel: CHANNELS.iter().position(|channel| *channel == text(3, row)).expect("a known channel"),
            cents: amounts.is_valid(row).then(|| amounts.value(row) as i64),
            buyer: int(5, row),
            at_us: rows.column(6).as_primitive::<TimestampMicrosecondType>().value(row),
        };
        let position = match positions {
            Some(positions) => Position(positions.value(row) as u128),
            None => header.span.from.plus(row as u64 + 1),
        };
        (position, Change { order, tag: int(0, row), weight: weights.value(row) })
    };
    (0..rows.num_rows()).map(change).collect()
}

/// A metric row in a form that can be compared: the order of rows does not matter.
fn row_digest(
    window: WindowKind,
    start_us: i64,
    merchant: i64,
    channel: Option<&str>,
    values: [Option<i128>; 4],
) -> u64 {
    let mut bytes = Vec::with_capacity(128);
    bytes.push(window as u8);
    bytes.extend_from_slice(&start_us.to_le_bytes());
    bytes.extend_from_slice(&merchant.to_le_bytes());
    bytes.extend_from_slice(channel.unwrap_or("\0").as_bytes());
    for value in values {
        bytes.push(u8::from(value.is_some()));
        bytes.extend_from_slice(&value.unwrap_or(0).to_le_bytes());
    }
    xxh3_64(&bytes)
}

/// What one block must hold after `changes`, which are all of its merchant and day. 0: no row.
pub fn true_digest<'a>(window: WindowKind, changes: impl Iterator<Item = &'a Change>) -> u64 {
    let mut groups: BTreeMap<(i64, usize), Vec<&Change>> = BTreeMap::new();
    for change in changes.filter(|change| change.order.paid) {
        let unit_us = if window == WindowKind::Hour { HOUR_US } else { DAY_US };
        let start_us = change.order.at_us - change.order.at_us.rem_euclid(unit_us);
        groups.entry((start_us, change.order.channel)).or_default().push(change);
    }
    let mut digest = 0u64;
    for ((start_us, channel), rows) in groups {
        let orders: i64 = rows.iter().map(|row| row.weight).sum();
        if orders == 0 {
            continue;
        }
        let mut amounts: BTreeMap<i64, i64> = BTreeMap::new();
        let mut buyers: BTreeMap<i64, i64> = BTreeMap::new();
        for row in &rows {
            *buyers.entry(row.order.buyer).or_default() += row.weight;
            if let Some(cents) = row.order.cents {
                *amounts.entry(cents).or_default() += row.weight;
            }
        }
        let summed: i64 = amounts.values().sum();
        let gmv: i64 = amounts.iter().map(|(cents, weight)| cents * weight).sum();
        let largest = amounts.iter().rev().find(|(_, weight)| **weight > 0).map(|(cents, _)| i128::from(*cents));
        let known = buyers.values().filter(|weight| **weight > 0).count() as i128;
        let values = [Some(i128::from(orders)), (summed != 0).then_some(i128::from(gmv)), largest, Some(known)];
        digest = digest.wrapping_add(row_digest(window, start_us, rows[0].order.merchant, CHANNELS[channel], values));
    }
    digest
}

/// The name and the digest of a block that was read.
pub fn block_digest(window: WindowKind, rows: &RecordBatch) -> (BlockName, u64) {
    let starts = rows.column(0).as_primitive::<TimestampMicrosecondType>();
    let int = |column: usize, row: usize| rows.column(column).as_primitive::<Int64Type>().value(row);
    let decimal = |column: usize, row: usize| {
        let values = rows.column(column).as_primitive::<Decimal128Type>();
        values.is_valid(row).then(|| values.value(row))
    };
    let channels = rows.column(2).as_string::<i32>();
    let mut digest = 0u64;
    for row in 0..rows.num_rows() {
        let channel = channels.is_valid(row).then(|| channels.value(row));
        let values = [Some(i128::from(int(3, row))), decimal(4, row), decimal(5, row), Some(i128::from(int(6, row)))];
        digest = digest.wrapping_add(row_digest(window, starts.value(row), int(1, row), channel, values));
    }
    ((window, starts.value(0).div_euclid(DAY_US) as Day, int(1, 0)), digest)
}
