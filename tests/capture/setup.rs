//! A database, a queue in memory, and a capture between them; and what a reader of the queue has counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use holdfast::capture::capture_service::{self, CaptureHandle, CaptureParts, CaptureReport, captured};
use holdfast::capture::memory::MemoryCheckpoints;
use holdfast::capture::mysql_settings::{SourceKind, SourceSettings};
use holdfast::capture::settings::Settings;
use holdfast::clock::Clock;
use holdfast::metrics::Metrics;
use holdfast::model::applied::{Admission, Applied};
use holdfast::model::catalog::Catalog;
use holdfast::model::id::PartitionId;
use holdfast::model::position::Position;
use holdfast::model::rows::{POSITION, WEIGHT, body_schema, decode_rows};
use holdfast::model::schema::{Table, TableConfig};
use holdfast::model::units::Millis;
use holdfast::model::window::Calendar;
use holdfast::mq::Mq;
use holdfast::mq::memory::MemoryMq;

use crate::services::{self, mariadb::MariaDb};

pub const PARTITIONS: u16 = 4;
/// For anything that does not hang, on a machine that does much else.
pub const LONG: Duration = Duration::from_secs(90);

/// Every kind of column.
pub const ALL_KINDS: &str = "name = 'kinds'\nkey = ['id']\npartition_by = 'shop'\ntime = 'at'\n\
    columns = { id = 'int', shop = 'int', big = 'int', amount = 'decimal(14,4)', whole = 'decimal(20,0)', f = 'double', d = 'double',\n\
    name = 'text', old = 'text', choice = 'text', some = 'text', flag = 'bool', bits = 'int', yr = 'int', day = 'date', at = 'timestamp',\n\
    local = 'timestamp', span = 'text', doc = 'text' }";

pub const CREATE_KINDS: &str = "create table shop.kinds (id int unsigned not null auto_increment primary key, junk varbinary(300), \
    shop smallint not null, big bigint unsigned, amount decimal(12,4), whole decimal(20,0), f float, d double, name varchar(300), \
    old varchar(20) character set latin1, choice enum('a','b''c','größe'), some set('x','y','z'), flag tinyint(1), bits bit(12), \
    yr year, day date, at timestamp(6) null default null, local datetime(3), span time(2), doc json, more mediumtext) \
    character set utf8mb4";

/// As text what `rows_of` makes of the columns, in their order.
pub const SELECT_KINDS: &str = "set time_zone='+00:00'; select concat_ws('|', id, shop, ifnull(big,'-'), ifnull(amount,'-'), \
    ifnull(whole,'-'), ifnull(f,'-'), ifnull(d,'-'), ifnull(name,'-'), ifnull(old,'-'), ifnull(choice,'-'), ifnull(some,'-'), \
    ifnull(flag<>0,'-'), ifnull(bits+0,'-'), ifnull(yr+0,'-'), ifnull(datediff(day,'1970-01-01'),'-'), \
    ifnull(timestampdiff(microsecond,'1970-01-01',at),'-'), ifnull(timestampdiff(microsecond,'1970-01-01',local),'-'), \
    ifnull(trim(trailing '.00' from span),'-'), ifnull(doc,'-')) from shop.kinds";

pub struct Setup {
    pub server: MariaDb,
    pub mq: Arc<MemoryMq>,
    pub checkpoints: Arc<MemoryCheckpoints>,
    pub table: Arc<Table>,
    catalog: Catalog,
    pub source: SourceSettings,
    pub settings: Settings,
    epoch: u64,
}

pub fn quick() -> Settings {
    Settings {
        flush: Millis(10),
        heartbeat: Millis(50),
        save: Millis(30),
        batch_rows: 500,
        retry_first: Millis(20),
        retry_most: Millis(300),
        server_heartbeat: Millis(300),
        silence: Millis(3_000),
        ..Settings::usual()
    }
}

impl Setup {
    pub fn new(server: MariaDb, table: &str, create: &str) -> Self {
        let config = toml::from_str::<TableConfig>(table).expect("a table");
        let calendar = Calendar::new("UTC").expect("a zone");
        let catalog = Catalog::new(&[config], &[], calendar).expect("it is consistent");
        server.sql(create);
        let table = catalog.tables()[0].clone();
        let source = SourceSettings {
            name: "db".into(),
            kind: SourceKind::Mysql,
            url: server.url(),
            tls: false,
            tls_roots: None,
            tables: vec![format!("shop.{}", table.name)],
            snapshot: true,
            password: None,
            server_id: Some(77),
            datetime_zone: "UTC".into(),
        };
        let mq = Arc::new(MemoryMq::new(PARTITIONS));
        Self { server, mq, checkpoints: Arc::default(), table, catalog, source, settings: quick(), epoch: 0 }
    }

    /// Of the last owner.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A new owner of the source.
    pub fn start(&mut self) -> CaptureHandle {
        self.start_at(self.server.url())
    }

    pub fn start_at(&mut self, url: String) -> CaptureHandle {
        self.epoch += 1;
        capture_service::start(CaptureParts {
            source: SourceSettings { url, ..self.source.clone() },
            password: None,
            tables: captured(&self.source, &self.catalog).expect("its tables are known"),
            settings: Arc::new(self.settings.clone()),
            partitions: PARTITIONS,
            epoch: self.epoch,
            mq: self.mq.clone(),
            checkpoints: self.checkpoints.clone(),
            clock: Clock::System,
            metrics: Metrics::default(),
        })
    }

    /// What a gate that reads all of mq has counted: rows as text with the sums of their weights.
    pub async fn counted(&self) -> (BTreeMap<String, i64>, Vec<Applied>) {
        let (mut sums, mut all) = (BTreeMap::new(), Vec::new());
        for partition in (0..PARTITIONS).map(PartitionId) {
            let mut applied = Applied::default();
            let read = self.mq.read(partition, 0, usize::MAX).await.expect("mq is up");
            for (_, batch) in read.batches {
                let header = &batch.header;
                let new = match applied.admit(&header.source, header.span) {
                    Admission::None => Vec::new(),
                    Admission::All => vec![header.span],
                    Admission::Some(spans) => spans,
                };
                applied.add(&header.source, header.span, 0);
                if header.rows == 0 {
                    continue;
                }
                assert_eq!(header.schema, self.table.fingerprint);
                let schema = body_schema(&self.table, header.weighted, header.positioned);
                let rows = decode_rows(&schema, &batch.body).expect("whole rows");
                let weights = rows.column_by_name(WEIGHT).expect("weights").as_primitive::<Int64Type>().clone();
                let positions =
                    rows.column_by_name(POSITION).expect("positions").as_primitive::<Decimal128Type>().clone();
                for row in 0..rows.num_rows() {
                    let position = Position(positions.value(row) as u128);
                    assert!(header.span.contains(position), "rows lie in their span");
                    if new.iter().any(|span| span.contains(position)) {
                        *sums.entry(text(&rows, self.table.columns.len(), row)).or_insert(0) += weights.value(row);
                    }
                }
            }
            all.push(applied);
        }
        sums.retain(|_, sum| *sum != 0);
        (sums, all)
    }

    /// Up to when all partitions know everything, as mq has it.
    pub async fn as_of_ms(&self) -> i64 {
        let mut oldest = i64::MAX;
        for partition in (0..PARTITIONS).map(PartitionId) {
            let read = self.mq.read(partition, 0, usize::MAX).await.expect("mq is up");
            let newest = read.batches.iter().map(|(_, batch)| batch.header.at_ms).max();
            oldest = oldest.min(newest.unwrap_or(0));
        }
        oldest
    }

    /// Waits until what is counted is what the database has, without a gap, and at least once newer than now.
    pub async fn equals(&self, select: &str) {
        let mut expected: BTreeMap<String, i64> = BTreeMap::new();
        for line in self.server.sql(select).lines() {
            *expected.entry(line.to_owned()).or_default() += 1;
        }
        let begun = Instant::now();
        loop {
            let (counted, applied) = self.counted().await;
            if counted == expected && applied.iter().all(Applied::is_gapless) {
                return;
            }
            if begun.elapsed() > LONG {
                let missing: Vec<_> =
                    expected.iter().filter(|(row, count)| counted.get(*row) != Some(count)).take(5).collect();
                let surplus: Vec<_> =
                    counted.iter().filter(|(row, count)| expected.get(*row) != Some(count)).take(5).collect();
                let gaps: Vec<_> = applied.iter().flat_map(|applied| applied.gaps()).take(4).collect();
                panic!("missing {missing:#?}\nsurplus {surplus:#?}\ngaps {gaps:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn text(rows: &arrow::array::RecordBatch, columns: usize, row: usize) -> String {
    let cell = |column: &arrow::array::ArrayRef| {
        if column.is_null(row) {
            return "-".to_owned();
        }
        if let Some(values) = column.as_primitive_opt::<Int64Type>() {
            values.value(row).to_string()
        } else if let Some(values) = column.as_primitive_opt::<Decimal128Type>() {
            values.value_as_string(row)
        } else if let Some(values) = column.as_primitive_opt::<Float64Type>() {
            values.value(row).to_string()
        } else if let Some(values) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            values.value(row).to_string()
        } else if let Some(values) = column.as_primitive_opt::<Date32Type>() {
            values.value(row).to_string()
        } else if let Some(values) = column.as_boolean_opt() {
            u8::from(values.value(row)).to_string()
        } else {
            column.as_string::<i32>().value(row).to_owned()
        }
    };
    rows.columns()[..columns].iter().map(cell).collect::<Vec<_>>().join("|")
}

/// `None`, said aloud, where MariaDB is not installed.
pub fn start_if_there(options: &[&str]) -> Option<MariaDb> {
    services::is_there("mariadb", MariaDb::installed()).then(|| MariaDb::start_with(options))
}

/// Waits for a state of the source.
pub async fn until(handle: &CaptureHandle, what: &str, is_so: impl Fn(&CaptureReport) -> bool) -> CaptureReport {
    let mut reports = handle.reports();
    let waiting = tokio::time::timeout(LONG, reports.wait_for(|report| is_so(report)));
    match waiting.await {
        Ok(Ok(report)) => report.clone(),
        _ => panic!("not {what}: {:?}", handle.report()),
    }
}
