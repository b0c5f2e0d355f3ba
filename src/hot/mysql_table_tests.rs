use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;

use super::*;
use crate::model::metric::MetricConfig;
use crate::model::schema::TableConfig;
use crate::model::window::Calendar;

fn catalog(key: &str, select: &str) -> Catalog {
    let table: TableConfig = toml::from_str(
        &"name = 'orders'\nkey = ['id']\npartition_by = 'shop'\ntime = 'at'\n\
          columns = { id = 'int', shop = 'KEY', channel = 'text', at = 'timestamp', amount = 'decimal(12,2)', \
          holdfast_x = 'int' }"
            .replace("KEY", key),
    )
    .unwrap();
    let metric: MetricConfig = toml::from_str(&format!(
        "name = 'gmv'\ntable = 'orders'\ngroup_by = ['channel']\nselect = [{select}]\nwindows = ['hour']"
    ))
    .unwrap();
    Catalog::new(&[table], &[metric], Calendar::utc()).unwrap()
}

const SELECT: &str = "'count(*) as orders', 'sum(amount) as gmv'";

fn stored(table: &Table, shop: ArrayRef, channels: &[Option<&str>]) -> StoredBlock {
    let len = channels.len();
    let gmv = Decimal128Array::from(vec![Some(1_250); len]).with_precision_and_scale(38, 2).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(vec![3_600_000_000; len])),
        shop,
        Arc::new(StringArray::from(channels.to_vec())),
        Arc::new(Int64Array::from(vec![2; len])),
        Arc::new(gmv),
    ];
    let rows = RecordBatch::try_new(table.definition.schema.clone(), columns).unwrap();
    StoredBlock { version: Tip::new(7, 3), rows: Bytes::from(encode_rows(&rows, Compression::Plain)) }
}

fn shown(rows: &BlockRows<'_>, row: usize) -> String {
    let mut out = Vec::new();
    rows.write_row(&mut out, PartitionId(5), row);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_row_is_written_in_the_order_of_the_columns() {
    let tables = tables(&catalog("int", SELECT)).unwrap();
    let table = &tables[0];
    let block = stored(table, Arc::new(Int64Array::from(vec![42, 42])), &[None, Some("app")]);
    let key = |key| BlockKey { table: table.id, day: 0, key: Key::int(key) };
    let rows = table.decode(&key(42), &block).unwrap();
    let (numbers, id) = (&rows.numbers, table.id.0);
    assert_eq!(
        shown(&rows, 0),
        format!("('1970-01-01 01:00:00.000000',42,null,2,12.50,5,0,{},{id},7,3,null)", numbers[0])
    );
    assert_eq!(
        shown(&rows, 1),
        format!("('1970-01-01 01:00:00.000000',42,'app',2,12.50,5,0,{},{id},7,3,null)", numbers[1])
    );
    assert_ne!(numbers[0], numbers[1]);
    assert!(table.decode(&key(41), &block).is_err(), "rows of another key");
    assert!(
        table
            .insert_head()
            .starts_with("insert into `gmv_hour` (`window_start`,`shop`,`channel`,`orders`,`gmv`,`holdfast_")
    );
    assert!(!table.insert_tail().contains("`shop`=") && table.insert_tail().contains("`channel`=values(`channel`)"));
}

#[test]
fn a_text_key_stands_in_the_primary_key_by_its_bytes() {
    let tables = tables(&catalog("text", SELECT)).unwrap();
    let table = &tables[0];
    assert_eq!(table.primary_key, ["holdfast_partition", "holdfast_day", "holdfast_key", "holdfast_row"]);
    let block = stored(table, Arc::new(StringArray::from(vec!["a "])), &[Some("x")]);
    let key = BlockKey { table: table.id, day: -3, key: Key::text("a ") };
    let rows = table.decode(&key, &block).unwrap();
    assert!(shown(&rows, 0).contains(",'a ','x',2,12.50,5,-3,x'6120',"), "{}", shown(&rows, 0));
    let mut keys = Vec::new();
    table.write_keys(&mut keys, [Key::text("a"), Key::int(1)].iter());
    assert_eq!(keys, b" and `holdfast_key` in (x'61',null)");
}

#[test]
fn bytes_in_keys_are_told_apart_at_any_length() {
    let long = |last: u8| {
        let mut bytes = vec![7; 1_000];
        bytes.push(last);
        bytes
    };
    let keys = [vec![], vec![1], vec![7; 254], vec![7; 255], long(1), long(2)].map(|bytes| key_bytes(&bytes));
    let apart: HashSet<_> = keys.iter().collect();
    assert!(apart.len() == keys.len() && keys.iter().all(|key| key.len() <= KEY_BYTES));
}

#[test]
fn colliding_hashes_are_hashed_again_until_they_differ() {
    let identities: Vec<Vec<u8>> = (0..4_u8).map(|it| vec![it]).collect();
    let weak =
        |identity: &[u8], seed: u64| if seed < 3 { u64::from(identity[0] / 2) } else { u64::from(identity[0]) + 90 };
    assert_eq!(unlike(&identities, weak), [90, 91, 92, 93]);
    assert_eq!(unlike(&identities, |_, _| 5), [0, 1, 2, 3]);
}

#[test]
fn names_that_are_ours_or_too_long_are_refused_with_what_to_do() {
    for (select, complaint) in [
        ("'count(*) as holdfast_row'".to_owned(), "begins like holdfast's own"),
        (format!("'count(*) as {}'", "x".repeat(64)), ""),
    ] {
        match tables(&catalog("int", &select)) {
            Err(error) => assert!(!complaint.is_empty() && error.to_string().contains(complaint), "{error}"),
            Ok(_) => assert!(complaint.is_empty(), "{select}"),
        }
    }
}
