//! The hot tier in a serving database: the suite of sinks, what others read there, and a server that fails.
//!
//! Invariant: against a real server; without one these tests say that they were not run.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::FutureExt;
use holdfast::clock::Clock;
use holdfast::hot::mysql::MysqlHot;
use holdfast::hot::mysql_settings::Settings;
use holdfast::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use holdfast::model::catalog::Catalog;
use holdfast::model::id::{Key, KeyValue, PartitionId, Tip};
use holdfast::model::metric::MetricConfig;
use holdfast::model::quality::Record;
use holdfast::model::rows::{Compression, decode_rows, encode_rows};
use holdfast::model::schema::TableConfig;
use holdfast::model::units::{ByteSize, Millis};
use holdfast::model::window::Calendar;
use holdfast::mysql_pool::MysqlError;
use holdfast::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError, TierFuture};

use crate::services::eventually;
use crate::services::mariadb::MariaDb;
use crate::sink::{record, suite};
use crate::{P0, P1, PARTITIONS, tip, wait};

const DAY_US: i64 = 86_400_000_000;

fn settings(url: String) -> Settings {
    Settings {
        url,
        tls: false,
        tls_roots: None,
        keep_days: 8,
        deadline: Millis(5_000),
        migration: Millis(60_000),
        write_connections: 4,
        read_connections: 4,
        waiting: 1_000,
        statement: ByteSize(1 << 20),
        read_limit: ByteSize(256 << 20),
        deadlock_retries: 5,
        idle: Millis(30_000),
    }
}

/// Columns of `orders` and `shops`, and metrics over them as TOML.
fn catalog(metrics: &str) -> Catalog {
    #[derive(serde::Deserialize)]
    struct Definitions {
        table: Vec<TableConfig>,
        metric: Vec<MetricConfig>,
    }
    let tables = "
        [[table]]
        name = 'orders'
        key = ['order_id']
        partition_by = 'merchant_id'
        time = 'paid_at'
        columns = { order_id = 'int', merchant_id = 'int', piece = 'int', channel = 'text', note = 'text',
                    amount = 'decimal(12,2)', rate = 'double', paid_at = 'timestamp' }
        [[table]]
        name = 'shops'
        key = ['order_id']
        partition_by = 'shop'
        time = 'paid_at'
        columns = { order_id = 'int', shop = 'text', piece = 'int', note = 'text', paid_at = 'timestamp' }
    ";
    let read: Definitions = toml::from_str(&format!("{tables}{metrics}")).unwrap();
    Catalog::new(&read.table, &read.metric, Calendar::utc()).unwrap()
}

fn metric(name: &str, table: &str, group_by: &str, select: &[&str]) -> String {
    let select: Vec<String> = select.iter().map(|it| format!("'{it}'")).collect();
    format!(
        "\n[[metric]]\nname = '{name}'\ntable = '{table}'\ngroup_by = ['{group_by}']\nselect = [{}]\nwindows = ['day']\n",
        select.join(",")
    )
}

fn gmv(select: &[&str]) -> Catalog {
    catalog(&metric("gmv", "orders", "channel", select))
}

const GMV: [&str; 4] = ["count(*) as orders", "sum(amount) as gmv", "max(note) as note", "min(rate) as rate"];

fn connect(server: &MariaDb, database: &str, catalog: &Catalog) -> Result<MysqlHot, MysqlError> {
    connect_as(settings(server.url_of("root", database)), None, catalog)
}

fn connect_as(settings: Settings, password: Option<&str>, catalog: &Catalog) -> Result<MysqlHot, MysqlError> {
    wait(MysqlHot::connect(settings, password, PARTITIONS, catalog, Clock::System))
}

/// The suite's blocks are any bytes; a serving database holds rows. Here they are a metric's rows, with pieces of the
/// bytes as texts.
struct AsRows {
    hot: MysqlHot,
    /// Table of the suite, the real one and its schema.
    tables: HashMap<MetricTableId, (MetricTableId, SchemaRef)>,
}

const PIECE: usize = 20_000;

impl AsRows {
    fn catalog() -> Catalog {
        let select = ["max(note) as content"];
        let metrics = [("seven", "orders"), ("eight", "orders"), ("six", "shops")];
        catalog(&metrics.map(|(name, table)| metric(name, table, "piece", &select)).concat())
    }

    fn new(hot: MysqlHot, catalog: &Catalog) -> Self {
        let table = |(id, name): (u64, &str)| {
            let table = catalog.metric_table(name).unwrap();
            (MetricTableId(id), (table.id, table.schema.clone()))
        };
        Self { hot, tables: [(6, "six_day"), (7, "seven_day"), (8, "eight_day")].map(table).into() }
    }

    fn key(&self, key: &BlockKey) -> BlockKey {
        BlockKey { table: self.tables[&key.table].0, ..key.clone() }
    }

    fn block(&self, key: &BlockKey, block: &StoredBlock) -> StoredBlock {
        let pieces: Vec<String> = match block.rows.is_empty() {
            true => vec![String::new()],
            false => {
                block.rows.chunks(PIECE).map(|bytes| bytes.iter().map(|byte| char::from(*byte)).collect()).collect()
            }
        };
        let len = pieces.len();
        let keys: ArrayRef = match key.key.value() {
            KeyValue::Int(value) => Arc::new(Int64Array::from(vec![value; len])),
            KeyValue::Text(value) => Arc::new(StringArray::from(vec![value; len])),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from(vec![i64::from(key.day) * DAY_US; len])),
            keys,
            Arc::new(Int64Array::from_iter_values(0..len as i64)),
            Arc::new(StringArray::from(pieces)),
        ];
        let rows = RecordBatch::try_new(self.tables[&key.table].1.clone(), columns).unwrap();
        StoredBlock { version: block.version, rows: Bytes::from(encode_rows(&rows, Compression::Plain)) }
    }

    fn bytes(&self, table: MetricTableId, block: &StoredBlock) -> StoredBlock {
        let rows = decode_rows(&self.tables[&table].1, &block.rows).unwrap();
        let pieces = rows.column(3).as_string::<i32>().iter().flat_map(|piece| piece.unwrap().chars());
        StoredBlock { version: block.version, rows: pieces.map(|piece| piece as u8).collect::<Vec<_>>().into() }
    }
}

impl Sink for AsRows {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        self.hot.standing(partition)
    }

    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()> {
        let blocks = write.blocks.iter().map(|(key, block)| (self.key(key), self.block(key, block))).collect();
        let remove = write.remove.iter().map(|key| self.key(key)).collect();
        self.hot.write(partition, SinkWrite { blocks, remove, ..write })
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        async move {
            let table = query.table;
            let read = self.hot.read(partition, SinkQuery { table: self.tables[&table].0, ..query }).await?;
            let back = |(key, block): (BlockKey, StoredBlock)| (BlockKey { table, ..key }, self.bytes(table, &block));
            Ok(SinkRead { blocks: read.blocks.into_iter().map(back).collect(), ..read })
        }
        .boxed()
    }
}

#[test]
fn a_serving_database_is_a_sink() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let (catalog, count) = (AsRows::catalog(), Cell::new(0));
    suite(&|| {
        count.set(count.get() + 1);
        let hot = connect(&server, &format!("suite_{}", count.get()), &catalog).unwrap();
        Arc::new(AsRows::new(hot, &catalog))
    });
}

/// One row of `gmv_day`.
#[derive(Clone)]
struct Metric<'a> {
    channel: Option<&'a str>,
    orders: i64,
    gmv: Option<i128>,
    note: Option<&'a str>,
    rate: Option<f64>,
}

const PLAIN: Metric<'static> = Metric { channel: Some("web"), orders: 1, gmv: Some(1_250), note: None, rate: None };

fn rows(catalog: &Catalog, day: Day, key: i64, version: Tip, rows: &[Metric<'_>]) -> (BlockKey, StoredBlock) {
    let table = catalog.metric_table("gmv_day").unwrap();
    let gmv = rows.iter().map(|row| row.gmv).collect::<Decimal128Array>().with_precision_and_scale(38, 2).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![i64::from(day) * DAY_US; rows.len()])),
        Arc::new(Int64Array::from(vec![key; rows.len()])),
        Arc::new(rows.iter().map(|row| row.channel).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| Some(row.orders)).collect::<Int64Array>()),
        Arc::new(gmv),
        Arc::new(rows.iter().map(|row| row.note).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.rate).collect::<Float64Array>()),
    ];
    let batch = RecordBatch::try_new(table.schema.clone(), columns).unwrap();
    let block = StoredBlock { version, rows: Bytes::from(encode_rows(&batch, Compression::Plain)) };
    (BlockKey { table: table.id, day, key: Key::int(key) }, block)
}

fn put(expect: Tip, to: Tip, base: Tip, blocks: Vec<(BlockKey, StoredBlock)>) -> SinkWrite {
    let record = Record { base, ..record(to) };
    SinkWrite { expect, tip: to, blocks, record: Some(record), ..SinkWrite::default() }
}

fn read(hot: &MysqlHot, catalog: &Catalog, days: std::ops::RangeInclusive<Day>) -> Result<SinkRead, TierError> {
    let table = catalog.metric_table("gmv_day").unwrap().id;
    wait(hot.read(P0, SinkQuery { table, keys: None, days }))
}

fn unavailable<T>(result: Result<T, TierError>) -> String {
    match result {
        Err(TierError::Unavailable { tier: "hot", reason }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was done"),
    }
}

#[test]
fn anybody_reads_plain_columns_and_holdfast_reads_exactly_what_was_written() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let hot = connect(&server, "plain", &catalog).unwrap();
    let long = "ж".repeat(70_000);
    let odd = "it's \\ \0 \"x\"\n%_ 🦀";
    let version = tip(1, 1);
    // In the order of owners: nulls first, texts by their bytes.
    let many = [
        Metric { channel: None, gmv: None, ..PLAIN },
        Metric { channel: Some(""), gmv: Some(-5), ..PLAIN },
        Metric { channel: Some("WEB"), gmv: Some(i128::MAX), rate: Some(f64::NAN), ..PLAIN },
        Metric { channel: Some("web"), note: Some(odd), rate: Some(0.1 + 0.2), ..PLAIN },
        Metric { channel: Some("web "), note: Some(&long), rate: Some(-0.0), ..PLAIN },
        Metric { channel: Some(&long), rate: Some(f64::MIN_POSITIVE), orders: i64::MIN, ..PLAIN },
        Metric { channel: Some("é"), gmv: Some(10_i128.pow(38) - 1), rate: Some(f64::MAX), ..PLAIN },
    ];
    let mut many = many.to_vec();
    many.sort_by_key(|row| row.channel.map(str::to_owned));
    // One day before Christ is no day of SQL's.
    let blocks = vec![
        rows(&catalog, -800_000, 7, version, &[PLAIN]),
        rows(&catalog, 20_000, i64::MIN, version, &[PLAIN]),
        rows(&catalog, 20_000, 7, version, &many),
        rows(&catalog, 20_001, 7, version, &[PLAIN]),
    ];
    wait(hot.write(P0, put(Tip::default(), version, version, blocks.clone()))).unwrap();
    let found = read(&hot, &catalog, Day::MIN..=Day::MAX).unwrap();
    assert!(found.blocks == blocks, "the blocks are what they were, byte by byte");

    let seen = server.sql(
        "select window_start, merchant_id, channel, orders, gmv, rate from plain.gmv_day \
         where merchant_id = 7 and window_start = '2024-10-04' and channel in ('web', '') order by channel",
    );
    assert_eq!(
        seen,
        "2024-10-04 00:00:00.000000\t7\t\t1\t-0.05\tNULL\n2024-10-04 00:00:00.000000\t7\tweb\t1\t12.50\t0.30000000000000004\n"
    );
    // Whatever the server's collations: what differs stays apart, a trailing space included.
    assert_eq!(server.sql("select count(distinct channel) from plain.gmv_day where holdfast_day = 20000"), "6\n");
    let exact = "select count(*) from plain.gmv_day where holdfast_exact is not null";
    assert_eq!(server.sql(exact), "4\n", "the window before the servers' years, NaN, the long texts");
    let comments = server.sql("select column_name, column_type, column_comment from information_schema.columns where table_schema = 'plain' and table_name = 'gmv_day'");
    for line in ["gmv\tdecimal(38,2)\tsum of values of orders", "window_start\tdatetime(6)\tstart of the day, UTC"] {
        assert!(comments.contains(line), "{line} in:\n{comments}");
    }
    assert!(wait(hot.usage()).unwrap().disk_bytes > 0);
}

#[test]
fn groups_that_vanish_from_a_block_vanish_from_the_table() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let hot = connect(&server, "grouped", &catalog).unwrap();
    let web = PLAIN;
    let app = Metric { channel: Some("app"), ..PLAIN };
    let none = Metric { channel: None, ..PLAIN };
    let mut at = Tip::default();
    let (only_web, only_app) = ([web.clone()], [app.clone()]);
    let rounds: [&[Metric<'_>]; 5] =
        [&[none.clone(), app, web.clone()], &only_web, &[none.clone(), web], &only_app, &[none]];
    for (round, kept) in rounds.into_iter().enumerate() {
        let to = tip(1, round as u64 + 1);
        let blocks = vec![rows(&catalog, 5, 1, to, kept), rows(&catalog, 5, 2, to, &only_web)];
        wait(hot.write(P0, put(at, to, tip(1, 1), blocks.clone()))).unwrap();
        assert_eq!(read(&hot, &catalog, 5..=5).unwrap().blocks, blocks);
        let count = server.sql("select count(*) from grouped.gmv_day where merchant_id = 1");
        assert_eq!(count.trim(), kept.len().to_string());
        at = to;
    }
}

#[test]
fn what_an_owner_before_left_goes_once_the_new_one_has_said_everything() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let hot = connect(&server, "owners", &catalog).unwrap();
    let count = || server.sql("select count(*) from owners.gmv_day").trim().to_owned();
    let blocks =
        |keys: std::ops::Range<i64>, version| keys.map(|key| rows(&catalog, 5, key, version, &[PLAIN])).collect();
    wait(hot.write(P0, put(Tip::default(), tip(1, 1), tip(1, 1), blocks(0..50, tip(1, 1))))).unwrap();
    // One that cannot say everything leaves what is there.
    wait(hot.write(P0, put(tip(1, 1), tip(2, 1), Tip::default(), blocks(0..1, tip(2, 1))))).unwrap();
    wait(hot.write(P0, put(tip(2, 1), tip(3, 1), tip(3, 1), blocks(0..20, tip(3, 1))))).unwrap();
    let mut seen = read(&hot, &catalog, 5..=5).unwrap();
    seen.settle();
    assert_eq!(seen.blocks.len(), 20, "for readers of holdfast they are gone at once");
    eventually("the rows go", Duration::from_secs(10), || count() == "20");
    assert_eq!(read(&hot, &catalog, 5..=5).unwrap().blocks.len(), 20);
}

#[test]
fn what_an_owner_before_left_goes_though_the_first_attempt_fails_and_no_emission_follows() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let settings = Settings { deadline: Millis(1_000), ..settings(server.url_of("root", "held")) };
    let hot = connect_as(settings, None, &catalog).unwrap();
    let blocks =
        |keys: std::ops::Range<i64>, version| keys.map(|key| rows(&catalog, 5, key, version, &[PLAIN])).collect();
    wait(hot.write(P0, put(Tip::default(), tip(1, 1), tip(1, 1), blocks(0..50, tip(1, 1))))).unwrap();
    // Somebody holds the last of them for longer than a call may take: that row, and not all that he looks at.
    let held = "set session transaction isolation level read committed; start transaction; \
                select * from held.gmv_day where merchant_id = 49 for update; \
                select get_lock('held', 0), sleep(3); rollback";
    thread::scope(|scope| {
        scope.spawn(|| server.sql(held));
        eventually("the row is held", Duration::from_secs(10), || {
            server.sql("select is_used_lock('held') is not null").trim() == "1"
        });
        wait(hot.write(P0, put(tip(1, 1), tip(2, 1), tip(2, 1), blocks(0..20, tip(2, 1))))).unwrap();
    });
    eventually("the rows go", Duration::from_secs(20), || {
        server.sql("select count(*) from held.gmv_day").trim() == "20"
    });
}

#[test]
fn days_that_are_no_longer_kept_go_and_reads_of_them_say_so() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let today = 20_000;
    let clock = Clock::manual((i64::from(today) * DAY_US + DAY_US / 2) / 1_000);
    let settings = settings(server.url_of("root", "kept"));
    let hot = wait(MysqlHot::connect(settings, None, PARTITIONS, &catalog, clock.clone())).unwrap();
    let blocks =
        |version| (today - 20..=today).map(|day| rows(&catalog, day, 1, version, &[PLAIN])).collect::<Vec<_>>();
    wait(hot.write(P0, put(Tip::default(), tip(1, 1), tip(1, 1), blocks(tip(1, 1))))).unwrap();
    assert!(!read(&hot, &catalog, Day::MIN..=today).unwrap().incomplete);
    assert_eq!(wait(hot.clean()).unwrap(), 12);
    assert_eq!(wait(hot.clean()).unwrap(), 0);
    for (from, incomplete) in [(today - 8, false), (today - 9, true), (Day::MIN, true)] {
        let found = read(&hot, &catalog, from..=today).unwrap();
        assert_eq!((found.blocks.len(), found.incomplete), (9, incomplete), "from {from}");
    }
    let table = catalog.metric_table("gmv_day").unwrap().id;
    let elsewhere = wait(hot.read(P1, SinkQuery { table, keys: None, days: 0..=today })).unwrap();
    assert!(!elsewhere.incomplete, "nothing went there");
    clock.advance(86_400_000);
    assert_eq!(wait(hot.clean()).unwrap(), 1);
}

#[test]
fn definitions_that_grow_are_followed_and_others_are_refused_with_what_to_do() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let first = gmv(&GMV[..2]);
    let hot = connect(&server, "grows", &first).unwrap();
    wait(hot.write(P0, put(Tip::default(), tip(1, 1), tip(1, 1), vec![]))).unwrap();
    server.sql("insert into grows.gmv_day (window_start, merchant_id, channel, orders, gmv, holdfast_partition, holdfast_day, holdfast_row, holdfast_definition, holdfast_epoch, holdfast_number) values ('2024-10-04', 1, 'web', 1, 1, 0, 20000, 5, 99, 1, 1)");
    // A column more and a metric more: rows of the old definition are not the new one's.
    let more = metric("gmv", "orders", "channel", &GMV) + &metric("notes", "orders", "channel", &["max(note) as note"]);
    let more = catalog(&more);
    let hot = connect(&server, "grows", &more).unwrap();
    assert_eq!(read(&hot, &more, 0..=30_000).unwrap().blocks, []);
    let blocks = vec![rows(&more, 20_000, 1, tip(2, 1), &[PLAIN])];
    wait(hot.write(P0, put(tip(1, 1), tip(2, 1), tip(2, 1), blocks.clone()))).unwrap();
    assert_eq!(read(&hot, &more, 0..=30_000).unwrap().blocks, blocks);
    eventually("the old row goes", Duration::from_secs(10), || {
        server.sql("select count(*) from grows.gmv_day") == "1\n"
    });
    assert_eq!(server.sql("select count(*) from grows.notes_day"), "0\n");
    // Fewer columns are no obstacle.
    connect(&server, "grows", &first).unwrap();

    let refused = |catalog: &Catalog, partitions, words: &[&str]| {
        let url = server.url_of("root", "grows");
        let error = wait(MysqlHot::connect(settings(url), None, partitions, catalog, Clock::System)).unwrap_err();
        assert!(!error.is_retryable());
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{word} in: {error}"));
    };
    let retyped = gmv(&["count(*) as orders", "count(distinct amount) as gmv"]);
    refused(
        &retyped,
        PARTITIONS,
        &["column gmv is decimal(38,2)", "bigint", "alter table `gmv_day` drop column `gmv`"],
    );
    refused(&first, 64, &["created with 4 partitions", "another database"]);
    let of_text = catalog(&metric("gmv", "shops", "piece", &["count(*) as orders"]));
    refused(&of_text, PARTITIONS, &["no column", "rename"]);
    server.sql("create table grows.strange_day (id int)");
    refused(&catalog(&metric("strange", "orders", "channel", &GMV)), PARTITIONS, &["strange_day", "of something else"]);
    server.sql("alter table grows.gmv_day drop primary key, add primary key (holdfast_row)");
    refused(&first, PARTITIONS, &["primary key is (holdfast_row)", "drop table `gmv_day`"]);
}

#[test]
fn a_user_without_rights_is_told_which_to_ask_for() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    server.sql("create user teller@'127.0.0.1' identified by 'word'");
    let url = server.url_of("teller", "holdfast");
    let refused = |password| connect_as(settings(url.clone()), password, &catalog).unwrap_err();
    for (password, words) in [(Some("wrong"), "Access denied"), (None, "Access denied")] {
        let error = refused(password);
        assert!(error.to_string().contains(words) && !error.is_retryable(), "{error}");
    }
    for rights in ["select", "select, create", "select, create, insert", "select, create, insert, update"] {
        server.sql(&format!("grant {rights} on holdfast.* to teller@'127.0.0.1'"));
        let error = refused(Some("word"));
        let said = error.to_string();
        assert!(
            said.contains("command denied") && said.contains("grant select, insert") && !error.is_retryable(),
            "{said}"
        );
    }
    server.sql("grant delete, alter, index on holdfast.* to teller@'127.0.0.1'");
    let hot = connect_as(settings(url), Some("word"), &catalog).unwrap();

    // A server that lets itself be read only passes.
    let block = |version| vec![rows(&catalog, 1, 1, version, &[PLAIN])];
    wait(hot.write(P0, put(Tip::default(), tip(1, 1), tip(1, 1), block(tip(1, 1))))).unwrap();
    server.sql("set global read_only = 1");
    let next = put(tip(1, 1), tip(1, 2), tip(1, 1), block(tip(1, 2)));
    let reason = unavailable(wait(hot.write(P0, next.clone())));
    assert!(reason.contains("read-only") || reason.contains("read only"), "{reason}");
    assert_eq!(read(&hot, &catalog, 0..=9).unwrap().blocks, block(tip(1, 1)), "it still reads");
    server.sql("set global read_only = 0");
    wait(hot.write(P0, next)).unwrap();
}

#[test]
fn with_tls_the_connection_is_encrypted_and_the_certificate_checked() {
    if !crate::services::is_there("mariadb", MariaDb::installed()) {
        return;
    }
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let made = || rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (server_key, other_key) = (made(), made());
    let roots = file("cert.pem", server_key.cert.pem());
    let key = file("key.pem", server_key.signing_key.serialize_pem());
    let others = file("other.pem", other_key.cert.pem());
    let option = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    let server = MariaDb::start_with(&[&option("ssl-cert", &roots), &option("ssl-key", &key)]);
    server.sql("create user teller@'127.0.0.1' require ssl; grant all on holdfast.* to teller@'127.0.0.1'");
    let catalog = gmv(&GMV);
    let attempt = |tls, tls_roots: Option<&std::path::Path>| {
        let plain = settings(server.url_of("teller", "holdfast"));
        let settings = Settings { tls, tls_roots: tls_roots.map(Into::into), ..plain };
        connect_as(settings, None, &catalog).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(attempt(true, Some(&roots)), Ok(()));
    assert!(attempt(false, None).unwrap_err().contains("Access denied"));
    for roots in [None, Some(&*others)] {
        let error = attempt(true, roots).unwrap_err();
        assert!(error.to_lowercase().contains("certificate"), "{error}");
    }
}

#[test]
fn a_server_that_is_killed_loses_nothing_that_it_acknowledged_and_keeps_no_half_write() {
    let Some(mut server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let hot = Arc::new(connect(&server, "killed", &catalog).unwrap());
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = {
        let (hot, stop, acknowledged, catalog) = (hot.clone(), stop.clone(), acknowledged.clone(), catalog.clone());
        thread::spawn(move || {
            let mut at = Tip::default();
            while !stop.load(Ordering::Acquire) {
                let to = tip(1, at.number + 1);
                let blocks = (0..40).map(|key| rows(&catalog, 5, key, to, &[PLAIN])).collect();
                match wait(hot.write(P0, put(at, to, tip(1, 1), blocks))) {
                    Ok(()) => {
                        at = to;
                        acknowledged.store(to.number, Ordering::Release);
                    }
                    // The answer was lost: the place tells whether the write is there.
                    Err(TierError::Moved { found, .. }) => {
                        assert!(found == to || found == at, "{found}, after {at} and {to}");
                        at = found;
                    }
                    Err(error) => {
                        assert!(error.is_retryable(), "{error}");
                        if let Ok(standing) = wait(hot.standing(P0)) {
                            assert!(standing.tip == to || standing.tip == at, "{}, after {at} and {to}", standing.tip);
                            at = standing.tip;
                        }
                    }
                }
            }
        })
    };
    for round in 0..4 {
        let before = acknowledged.load(Ordering::Acquire);
        eventually("writes go on", Duration::from_secs(20), || acknowledged.load(Ordering::Acquire) > before + 10);
        thread::sleep(Duration::from_millis(3 * round));
        server.kill();
        let acknowledged = acknowledged.load(Ordering::Acquire);
        unavailable(read(&hot, &catalog, 0..=9));
        server.start_again();
        let found = read(&hot, &catalog, 0..=9).unwrap();
        let version = found.record.as_ref().unwrap().version;
        assert!(version.number >= acknowledged, "{version} after {acknowledged}");
        assert_eq!(found.blocks.len(), 40);
        assert!(found.blocks.iter().all(|(_, block)| block.version == version), "one emission's rows");
    }
    stop.store(true, Ordering::Release);
    writer.join().unwrap();
}

#[test]
fn a_server_that_stands_still_is_unavailable_by_the_deadline_and_works_again_after() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let mut settings = settings(server.url_of("root", "still"));
    settings.deadline = Millis(500);
    settings.waiting = 20;
    let hot = connect_as(settings, None, &catalog).unwrap();
    let block = |version| vec![rows(&catalog, 1, 1, version, &[PLAIN])];
    wait(hot.write(P0, put(Tip::default(), tip(1, 1), tip(1, 1), block(tip(1, 1))))).unwrap();
    let next = put(tip(1, 1), tip(1, 2), tip(1, 1), block(tip(1, 2)));
    for _ in 0..2 {
        server.stop();
        // More than there are connections, and more than may wait.
        let begun = Instant::now();
        let reads = futures::future::join_all((0..60).map(|_| hot.standing(P1)));
        let writes = futures::future::join_all((0..3).map(|_| hot.write(P0, next.clone())));
        let (reads, writes) = wait(futures::future::join(reads, writes));
        let reasons: Vec<String> = reads.into_iter().map(unavailable).collect();
        writes.into_iter().map(unavailable).for_each(drop);
        assert!(reasons.iter().any(|reason| reason.contains("calls wait")), "{reasons:?}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        server.cont();
        eventually("it works again", Duration::from_secs(10), || wait(hot.standing(P1)).is_ok());
    }
    // What was sent before the server stood still may have been done since.
    eventually("the place is free", Duration::from_secs(10), || match wait(hot.write(P0, next.clone())) {
        Ok(()) | Err(TierError::Moved { .. }) => true,
        Err(error) => {
            assert!(error.is_retryable(), "{error}");
            false
        }
    });
    assert_eq!(read(&hot, &catalog, 0..=9).unwrap().blocks, block(tip(1, 2)));
}

#[test]
fn a_server_that_comes_back_empty_is_filled_anew() {
    let Some(mut server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let hot = connect(&server, "fresh", &catalog).unwrap();
    let block = |version| vec![rows(&catalog, 1, 1, version, &[PLAIN])];
    wait(hot.write(P0, put(Tip::default(), tip(4, 1), tip(4, 1), block(tip(4, 1))))).unwrap();
    server.wipe();
    let next = put(tip(4, 1), tip(4, 2), tip(4, 1), block(tip(4, 2)));
    let error = wait(hot.write(P0, next)).unwrap_err();
    assert_eq!(error, TierError::Moved { tier: "hot", found: Tip::default() });
    assert_eq!(read(&hot, &catalog, 0..=9).unwrap(), SinkRead::default());
    wait(hot.write(P0, put(Tip::default(), tip(4, 3), tip(4, 3), block(tip(4, 3))))).unwrap();
    assert_eq!(read(&hot, &catalog, 0..=9).unwrap().blocks, block(tip(4, 3)));
    server.sql("drop table fresh.gmv_day");
    assert_eq!(read(&hot, &catalog, 0..=9).unwrap().blocks, [], "a table that somebody dropped is made again");
}

#[test]
fn a_server_without_connections_to_give_is_unavailable_until_it_has() {
    if !crate::services::is_there("mariadb", MariaDb::installed()) {
        return;
    }
    // The one beyond them is kept for administrators, who connect as root.
    let server = MariaDb::start_with(&["--max-connections=10"]);
    let catalog = gmv(&GMV);
    server.sql("create user teller@'127.0.0.1'; grant all on holdfast.* to teller@'127.0.0.1'");
    let hot = connect_as(settings(server.url_of("teller", "holdfast")), None, &catalog).unwrap();
    let others: Vec<mysql_async::Conn> = lent(async {
        let opts = mysql_async::Opts::from_url(&server.url_of("teller", "holdfast")).unwrap();
        let mut others = Vec::new();
        while let Ok(conn) = mysql_async::Conn::new(opts.clone()).await {
            others.push(conn);
        }
        others
    });
    assert!(others.len() >= 5);
    // The pool has one connection, which serves one call at a time; the others find none.
    let answers = wait(futures::future::join_all((0..4).map(|_| hot.standing(P0))));
    let refused: Vec<String> = answers.into_iter().filter(Result::is_err).map(unavailable).collect();
    assert!(refused.iter().any(|reason| reason.contains("Too many connections")), "{refused:?}");
    lent(async {
        for conn in others {
            let _ = conn.disconnect().await;
        }
    });
    eventually("there are connections again", Duration::from_secs(10), || {
        wait(futures::future::join_all((0..4).map(|_| hot.standing(P0)))).iter().all(Result::is_ok)
    });
}

/// On the runtime of all tests, where connections of the tests' own live.
fn lent<T>(future: impl Future<Output = T>) -> T {
    wait(future)
}

#[test]
fn a_deadlock_is_tried_again() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let hot = Arc::new(connect(&server, "deadlock", &catalog).unwrap());
    let blocks = |version| (0..3).map(|key| rows(&catalog, 1, key, version, &[PLAIN])).collect::<Vec<_>>();
    wait(hot.write(P0, put(Tip::default(), tip(1, 1), tip(1, 1), blocks(tip(1, 1))))).unwrap();
    server.sql("create table deadlock.heavy (id int primary key, filler varchar(100))");
    // Takes the rows, then, once a write holds the place and waits for the rows, the place; it has changed more than that
    // write, so the server ends the write.
    let statements = "use deadlock; start transaction; \
         insert into deadlock.heavy select seq, repeat('x', 100) from seq_1_to_2000; \
         select count(*) from deadlock.gmv_day for update; select sleep(1); \
         select holdfast_epoch from deadlock.holdfast_place where holdfast_partition = 0 for update; commit";
    thread::scope(|scope| {
        let other = scope.spawn(|| server.sql(statements));
        thread::sleep(Duration::from_millis(400));
        wait(hot.write(P0, put(tip(1, 1), tip(1, 2), tip(1, 1), blocks(tip(1, 2))))).unwrap();
        other.join().unwrap();
    });
    let deadlocks = server.sql("show global status like 'Innodb_deadlocks'");
    assert!(deadlocks.trim().ends_with('1'), "there was one: {deadlocks}");
    assert_eq!(read(&hot, &catalog, 0..=9).unwrap().blocks, blocks(tip(1, 2)));
}

#[test]
fn a_full_server_is_unavailable_and_what_it_holds_stays_whole() {
    if !crate::services::is_there("mariadb", MariaDb::installed()) {
        return;
    }
    let room = "--innodb-data-file-path=ibdata1:12M:autoextend:max:24M";
    let server = MariaDb::start_with(&["--innodb-file-per-table=0", room]);
    let catalog = gmv(&GMV);
    let hot = connect(&server, "full", &catalog).unwrap();
    let note = "x".repeat(200);
    let channels: Vec<String> = (0..500).map(|channel| format!("{channel:05}")).collect();
    let row = |channel| Metric { channel: Some(channel), note: Some(&note), ..PLAIN };
    let many: Vec<Metric<'_>> = channels.iter().map(|channel| row(channel.as_str())).collect();
    let mut at = Tip::default();
    let reason = loop {
        let to = tip(1, at.number + 1);
        let blocks = (0..10).map(|key| rows(&catalog, to.number as Day, key, to, &many)).collect();
        match wait(hot.write(P0, put(at, to, tip(1, 1), blocks))) {
            Ok(()) => at = to,
            error => break unavailable(error),
        }
        assert!(at.number < 100, "it is never full");
    };
    assert!(reason.contains("full"), "{reason}");
    let found = read(&hot, &catalog, 0..=200).unwrap();
    assert_eq!(found.record.unwrap().version, at);
    assert_eq!(found.blocks.len() as u64, 10 * at.number);
}

#[test]
fn of_two_owners_one_writes() {
    let Some(server) = MariaDb::start_if_there() else { return };
    let catalog = gmv(&GMV);
    let one = connect(&server, "two", &catalog).unwrap();
    let two = connect(&server, "two", &catalog).unwrap();
    let mut at = Tip::default();
    for round in 1..=40_u64 {
        let to = |epoch: u64| tip(round * 10 + epoch, 1);
        let write = |epoch| put(at, to(epoch), to(epoch), vec![rows(&catalog, 1, 1, to(epoch), &[PLAIN])]);
        let both = futures::future::join(one.write(P0, write(1)), two.write(P0, write(2)));
        at = match wait(both) {
            (Ok(()), Err(TierError::Moved { found, .. })) if found == to(1) => to(1),
            (Err(TierError::Fenced { found, .. }), Ok(())) if found == to(2) => to(2),
            other => panic!("{other:?}"),
        };
        let found = read(&two, &catalog, 0..=9).unwrap();
        assert_eq!((found.record.unwrap().version, found.blocks[0].1.version), (at, at));
    }
}
