//! CSV and NDJSON as clients write them, well and badly.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::super::row_error::RowErrorKind;
use super::*;
use crate::model::schema::TableConfig;

pub fn table() -> Arc<Table> {
    let config: TableConfig = toml::from_str(
        r#"
        name = "orders"
        key = ["order_id"]
        partition_by = "merchant_id"
        time = "paid_at"
        columns = { order_id = "int", merchant_id = "int", status = "text", amount = "decimal(12,2)", paid_at = "timestamp", rate = "double", test = "bool", day = "date" }
        "#,
    )
    .expect("a table");
    Arc::new(Table::new(&config).expect("a consistent table"))
}

const LIMITS: Limits = Limits { row_bytes: 4_096, rows: 10_000, decoded_bytes: 1 << 20 };

fn read_in(format: Format, slices: &[&[u8]], partitions: u16) -> Result<Parsed, RowError> {
    let mut reader = RowReader::new(format, table(), partitions, LIMITS);
    slices.iter().try_for_each(|slice| reader.feed(slice))?;
    reader.finish()
}

fn csv(text: &str) -> Result<Parsed, RowError> {
    read_in(Format::Csv, &[text.as_bytes()], 1)
}

fn ndjson(text: &str) -> Result<Parsed, RowError> {
    read_in(Format::Ndjson, &[text.as_bytes()], 1)
}

/// The rows of the only partition, a text per row: columns with a bar between, null as ~.
fn shown(parsed: Result<Parsed, RowError>) -> Vec<String> {
    let parsed = parsed.expect("the rows are good");
    assert!(parsed.parts.len() <= 1, "these rows are one partition's");
    parsed.parts.first().map(|part| show_rows(&part.rows)).unwrap_or_default()
}

fn show_rows(rows: &RecordBatch) -> Vec<String> {
    let cell = |column: &Arc<dyn Array>, row| match column.is_null(row) {
        true => "~".to_owned(),
        false => array_value_to_string(column, row).expect("a value that can be shown"),
    };
    let row = |row| rows.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|");
    (0..rows.num_rows()).map(row).collect()
}

#[test]
fn csv_columns_are_found_by_name_and_absent_ones_are_null() {
    let text = "\u{feff}paid_at,amount,merchant_id,order_id,status\r\n\
        2026-11-22 10:03:04.5,12.5,7,1,paid\r\n\r\n,,7,2,\r\n\
        2026-11-22T12:03:04+02:00,-0.01,7,3,\"a \"\"b\"\",\nc\"\r\n,,7,4,\"\"";
    assert_eq!(
        shown(csv(text)),
        [
            "1|7|paid|12.50|2026-11-22T10:03:04.500|~|~|~",
            "2|7|~|~|~|~|~|~",
            "3|7|a \"b\",\nc|-0.01|2026-11-22T10:03:04|~|~|~",
            "4|7||~|~|~|~|~",
        ]
    );
}

#[test]
fn csv_quotes_say_nothing_about_numbers_and_a_quote_within_a_plain_field_is_a_character() {
    let text = "order_id,merchant_id,status,amount,rate,test,day\n\"1\",\"7\",5\" pipe,\"\",1e3,T,2024-02-29\n";
    assert_eq!(shown(csv(text)), ["1|7|5\" pipe|~|~|1000.0|true|2024-02-29"]);
}

#[test]
fn a_csv_operation_decides_the_weight() {
    let parsed = csv("_op,order_id,merchant_id\ninsert,1,7\ndelete,1,7\n,2,7\n").expect("good rows");
    let part = &parsed.parts[0];
    assert!(part.weighted);
    assert_eq!((parsed.changes, part.rows.num_rows()), (3, 3));
    let weights = part.rows.column_by_name("_weight").expect("the weights");
    assert_eq!(weights.as_primitive::<Int64Type>(), &Int64Array::from(vec![1, -1, 1]));
}

#[test]
fn a_body_without_rows_is_good_and_a_csv_body_without_header_is_not() {
    assert_eq!(csv("order_id,merchant_id\n"), Ok(Parsed::default()));
    assert_eq!(ndjson(""), Ok(Parsed::default()));
    assert_eq!(ndjson(" \n\r\n"), Ok(Parsed::default()));
    for text in ["", "\n\n", "\u{feff}"] {
        assert!(csv(text).expect_err("no header").message.contains("header row"), "{text:?}");
    }
}

#[test]
fn hours_touched_are_those_of_the_time_column() {
    let text = "order_id,merchant_id,paid_at\n1,7,1970-01-01 05:59:59\n2,7,\n3,7,1969-12-31 23:59:59\n";
    assert_eq!(csv(text).expect("good rows").parts[0].hours, Some((-1, 5)));
    assert_eq!(csv("order_id,merchant_id\n1,7\n").expect("good rows").parts[0].hours, None);
}

#[test]
fn a_bad_csv_row_is_refused_with_its_place() {
    let head = "order_id,merchant_id,status,amount,paid_at,rate,test,day\n";
    let good = "1,7,\"two\nlines\",1.00,2026-11-22 10:00:00,1.5,true,2026-11-22\n";
    for (row, column, value, message) in [
        ("x,7,,,,,,", Some("order_id"), Some("x"), "not a whole number"),
        (",7,,,,,,", Some("order_id"), None, "null in a key"),
        ("1,,,,,,,", Some("merchant_id"), None, "null in a key"),
        ("1,99999999999999999999,,,,,,", Some("merchant_id"), Some("99999999999999999999"), "64-bit"),
        ("1,7,,12345678901.00,,,,", Some("amount"), Some("12345678901.00"), "more than 12 digits, or 10 before"),
        ("1,7,,0.001,,,,", Some("amount"), Some("0.001"), "more than 2 digits after the point"),
        ("1,7,,,2026-02-30 10:00:00,,,", Some("paid_at"), Some("2026-02-30 10:00:00"), "no such day"),
        ("1,7,,,1700000000,,,", Some("paid_at"), Some("1700000000"), "not a timestamp"),
        ("1,7,,,,NaN,,", Some("rate"), Some("NaN"), "finite"),
        ("1,7,,,,,maybe,", Some("test"), Some("maybe"), "not a boolean"),
        ("1,7,,,,,,2026-13-01", Some("day"), Some("2026-13-01"), "no such day"),
        ("1,7", None, Some("1,7"), "2 fields where the header has 8 columns"),
        ("1,7,,,,,,,", None, None, "more fields than the header"),
        ("1,7,\"a\"b,,,,,", None, Some("a\"b,,,,,"), "after a closing quote"),
        ("1,7,\"abc", None, Some("\"abc"), "never closed"),
    ] {
        let error = csv(&format!("{head}{good}{row}\n")).expect_err(row);
        assert_eq!(
            (error.line, error.column.as_deref(), error.kind),
            (4, column, RowErrorKind::Malformed),
            "{row}: {error}"
        );
        assert!(error.message.contains(message), "{row}: {error}");
        if let Some(value) = value {
            assert!(error.value.as_deref().is_some_and(|found| found.starts_with(value)), "{row}: {error}");
        }
    }
    let later = csv(&format!("{head}1,7,\"two\nlines\",x,,,,\n")).expect_err("a bad amount");
    assert_eq!((later.line, later.column.as_deref()), (3, Some("amount")), "the line of the field, not of the row");
}

#[test]
fn a_bad_csv_header_is_refused() {
    for (header, message) in [
        ("order_id,merchant_id,price", "no such column; it has order_id, merchant_id"),
        ("order_id,merchant_id,order_id", "twice"),
        ("merchant_id,status", "lacks this column"),
        ("order_id;merchant_id", "no such column"),
    ] {
        let error = csv(&format!("{header}\n1,2,3\n")).expect_err(header);
        assert!(error.line == 1 && error.message.contains(message), "{error}");
    }
    let update = csv("_op,order_id,merchant_id\nupdate,1,7\n").expect_err("an update");
    assert_eq!((update.line, update.column.as_deref()), (2, Some("_op")));
    let bytes = read_in(Format::Csv, &[b"order_id,merchant_id,status\n1,7,\xff\n"], 1).expect_err("not UTF-8");
    assert_eq!((bytes.column.as_deref(), bytes.message.as_str()), (Some("status"), "not valid UTF-8"));
}

#[test]
fn ndjson_values_are_read_from_their_digits() {
    let text = r#"{"order_id": 1, "merchant_id": "7", "amount": 0.10, "status": "a\n\"b\" \u00e4", "rate": 1.5, "test": true}

        {"merchant_id":7,"order_id":9223372036854775807,"amount":"9999999999.99","paid_at":"2026-11-22T10:03:04Z","day":null}
        {"order_id":3.0,"merchant_id":7,"amount":1e-2,"test":"f"}"#;
    assert_eq!(
        shown(ndjson(text)),
        [
            "1|7|a\n\"b\" ä|0.10|~|1.5|true|~",
            "9223372036854775807|7|~|9999999999.99|2026-11-22T10:03:04|~|~|~",
            "3|7|~|0.01|~|~|false|~",
        ]
    );
}

#[test]
fn an_ndjson_update_takes_the_row_before_away_wherever_it_was() {
    let text = r#"{"order_id":1,"merchant_id":7}
        {"_op":"update","order_id":1,"merchant_id":8,"status":"b","_before":{"order_id":1,"merchant_id":7,"status":"a"}}
        {"_op":"delete","order_id":1,"merchant_id":8,"status":"b","_before":null}"#;
    let parsed = read_in(Format::Ndjson, &[text.as_bytes()], 2).expect("good rows");
    assert_eq!(parsed.changes, 3);
    let mut rows: Vec<_> = parsed.parts.iter().flat_map(|part| show_rows(&part.rows)).collect();
    rows.sort();
    let rest = "~|~|~|~|~";
    let expected =
        [format!("1|7|a|{rest}|-1"), format!("1|7|~|{rest}|1"), format!("1|8|b|{rest}|-1"), format!("1|8|b|{rest}|1")];
    assert_eq!(rows, expected);
}

#[test]
fn a_bad_ndjson_row_is_refused_with_its_place() {
    for (row, column, message) in [
        (r#"{"order_id":1}"#, Some("merchant_id"), "null in a key"),
        (r#"{"order_id":null,"merchant_id":7}"#, Some("order_id"), "null in a key"),
        (r#"{"order_id":1,"merchant_id":7,"price":3}"#, None, "'price': table 'orders' has no such column"),
        (r#"{"order_id":1,"merchant_id":7,"order_id":2}"#, None, "twice"),
        (r#"{"order_id":1,"merchant_id":7,"status":5}"#, Some("status"), "a JSON number where string is wanted"),
        (r#"{"order_id":true,"merchant_id":7}"#, Some("order_id"), "a JSON boolean where number or string"),
        (r#"{"order_id":1,"merchant_id":7,"amount":{}}"#, Some("amount"), "a JSON object"),
        (r#"{"order_id":1,"merchant_id":7,"amount":0.001}"#, Some("amount"), "after the point"),
        (r#"{"order_id":1,"merchant_id":7,"amount":""}"#, Some("amount"), "not a number"),
        (r#"{"order_id":1,"merchant_id":7,"day":20261122}"#, Some("day"), "a JSON number where string"),
        (r#"{"order_id":1,"merchant_id":7,"status":"\ud800"}"#, Some("status"), "not a valid JSON string"),
        (r#"{"order_id":1,"merchant_id":7,"_op":"upsert"}"#, Some("_op"), "\"insert\", \"delete\" or \"update\""),
        (r#"{"order_id":1,"merchant_id":7,"_op":"update"}"#, Some("_before"), "needs the whole row before"),
        (r#"{"order_id":1,"merchant_id":7,"_before":{}}"#, Some("_before"), "only an update"),
        (
            r#"{"_op":"update","order_id":1,"merchant_id":7,"_before":{"merchant_id":7}}"#,
            Some("_before.order_id"),
            "null",
        ),
        (r#"{"_op":"update","order_id":1,"merchant_id":7,"_before":{"_before":{}}}"#, None, "'_before': table"),
        (r#"{"_op":"update","order_id":1,"merchant_id":7,"_before":[]}"#, None, "invalid type: sequence"),
        (r#"{"order_id":1,"merchant_id":7} x"#, None, "trailing characters, at byte 32"),
        (r#"{"order_id":1,"#, None, "EOF"),
        (r#"[1,2]"#, None, "invalid type: sequence"),
        ("nonsense", None, "expected ident"),
    ] {
        let error = ndjson(&format!("{{\"order_id\":1,\"merchant_id\":7}}\n\n{row}\n")).expect_err(row);
        assert_eq!((error.line, error.column.as_deref()), (3, column), "{row}: {error}");
        assert!(error.message.contains(message), "{row}: {error}");
    }
    let deep = format!("{{\"order_id\":1,\"merchant_id\":7,\"status\":{}1{}}}", "[".repeat(1_500), "]".repeat(1_500));
    assert!(ndjson(&deep).expect_err("deep nesting").message.contains("a JSON array"));
}

#[test]
fn i6_a_line_without_end_fails_early_with_bounded_memory() {
    for (format, start) in [(Format::Csv, "order_id,merchant_id\n1,\""), (Format::Ndjson, "{\"order_id\": \"")] {
        let mut reader = RowReader::new(format, table(), 4, LIMITS);
        reader.feed(start.as_bytes()).expect("a good start");
        let error = (0..5).find_map(|_| reader.feed(&[b'x'; 1_000]).err()).expect("five slices are too much");
        assert!(error.message.contains("longer than 4096 bytes"), "{error}");
    }
}

#[test]
fn i6_a_request_with_too_much_is_refused_as_too_large() {
    let mut text = String::from("order_id,merchant_id,status\n");
    (0..10_001).for_each(|row| writeln!(text, "{row},7,").expect("strings grow"));
    let error = csv(&text).expect_err("too many rows");
    assert_eq!((error.kind, error.line), (RowErrorKind::TooLarge, 10_002), "{error}");
    let fat = format!("order_id,merchant_id,status\n{}", format!("1,7,{}\n", "x".repeat(3_000)).repeat(400));
    assert!(csv(&fat).expect_err("too many bytes").message.contains("1048576 bytes"));
}

/// A field of any text that means the same in every position.
fn any_text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(prop_oneof!["[a-c ,\"\r\n\\\\ä]{0,6}", any::<String>()])
}

type Row = (i64, i64, Option<String>, Option<i64>, Option<i64>, Option<f64>, Option<bool>);

fn any_row() -> impl Strategy<Value = Row> {
    let amount = prop::option::of(-999_999_999_999i64..=999_999_999_999);
    let moment = prop::option::of(-62_135_596_800_000_000i64..253_402_300_800_000_000);
    let rate = prop::option::of(any::<f64>().prop_filter("finite", |value| value.is_finite()));
    (any::<i64>(), any::<i64>(), any_text(), amount, moment, rate, any::<Option<bool>>())
}

fn amount_text(amount: i64) -> String {
    format!("{}{}.{:02}", if amount < 0 { "-" } else { "" }, amount.abs() / 100, amount.abs() % 100)
}

fn moment_text(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros).expect("in range").format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn to_csv(rows: &[Row]) -> String {
    let mut text = String::from("merchant_id,order_id,amount,status,test,rate,paid_at\n");
    for (order, merchant, status, amount, moment, rate, test) in rows {
        let status = status.as_ref().map(|text| format!("\"{}\"", text.replace('"', "\"\""))).unwrap_or_default();
        let amount = amount.map(amount_text).unwrap_or_default();
        let moment = moment.map(moment_text).unwrap_or_default();
        let rate = rate.map(|rate| format!("{rate:?}")).unwrap_or_default();
        let test = test.map(|test| test.to_string()).unwrap_or_default();
        writeln!(text, "{merchant},{order},{amount},{status},{test},{rate},{moment}").expect("strings grow");
    }
    text
}

fn to_ndjson(rows: &[Row]) -> String {
    let mut text = String::new();
    for (order, merchant, status, amount, moment, rate, test) in rows {
        let row = serde_json::json!({
            "order_id": order, "merchant_id": merchant, "status": status, "rate": rate, "test": test,
            "amount": amount.map(amount_text), "paid_at": moment.map(moment_text),
        });
        writeln!(text, "{row}").expect("strings grow");
    }
    text
}

fn check_rows(parsed: &Parsed, rows: &[Row], partitions: u16) {
    assert_eq!(parsed.changes, rows.len() as u64);
    for part in &parsed.parts {
        let of_part = |row: &&Row| crate::model::id::partition_of_int(row.1, partitions) == part.partition;
        let expected: Vec<&Row> = rows.iter().filter(of_part).collect();
        let batch = concat_batches(&part.rows.schema(), [&part.rows]).expect("one batch");
        assert_eq!(batch.num_rows(), expected.len());
        let ints = |index: usize| batch.column(index).as_primitive::<Int64Type>().iter().flatten().collect::<Vec<_>>();
        assert_eq!(ints(0), expected.iter().map(|row| row.0).collect::<Vec<_>>());
        assert_eq!(ints(1), expected.iter().map(|row| row.1).collect::<Vec<_>>());
        let texts: Vec<_> = batch.column(2).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        assert_eq!(texts, expected.iter().map(|row| row.2.clone()).collect::<Vec<_>>());
        let amounts: Vec<_> = batch.column(3).as_primitive::<Decimal128Type>().iter().collect();
        assert_eq!(amounts, expected.iter().map(|row| row.3.map(i128::from)).collect::<Vec<_>>());
        let moments: Vec<_> = batch.column(4).as_primitive::<TimestampMicrosecondType>().iter().collect();
        assert_eq!(moments, expected.iter().map(|row| row.4).collect::<Vec<_>>());
        let rates: Vec<_> = batch.column(5).as_primitive::<Float64Type>().iter().collect();
        assert_eq!(rates, expected.iter().map(|row| row.5).collect::<Vec<_>>());
        assert_eq!(
            batch.column(6).as_boolean().iter().collect::<Vec<_>>(),
            expected.iter().map(|row| row.6).collect::<Vec<_>>()
        );
    }
}

/// The error without what it shows, which may be cut where the slice ended.
fn place(result: Result<Parsed, RowError>) -> Result<Parsed, (u64, Option<String>, String)> {
    result.map_err(|error| (error.line, error.column, error.message))
}

fn slices<'a>(text: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    at.extend([0, text.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were_written(rows in prop::collection::vec(any_row(), 0..20)) {
        for partitions in [1, 3] {
            check_rows(&read_in(Format::Csv, &[to_csv(&rows).as_bytes()], partitions).expect("good CSV"), &rows, partitions);
            check_rows(&read_in(Format::Ndjson, &[to_ndjson(&rows).as_bytes()], partitions).expect("good NDJSON"), &rows, partitions);
        }
    }

    #[test]
    fn where_the_body_is_cut_does_not_matter(
        rows in prop::collection::vec(any_row(), 0..6),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        mark: bool,
    ) {
        for (format, text) in [(Format::Csv, to_csv(&rows)), (Format::Ndjson, to_ndjson(&rows))] {
            let mut text = if mark { format!("\u{feff}{text}") } else { text }.into_bytes();
            if let (Some((at, byte)), false) = (damage, text.is_empty()) {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let whole = place(read_in(format, &[&text], 3));
            prop_assert_eq!(&place(read_in(format, &slices(&text, &cuts), 3)), &whole);
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(&place(read_in(format, &bytes, 3)), &whole);
        }
    }

    #[test]
    fn no_bytes_panic(noise in prop::collection::vec(any::<u8>(), 0..200), quoted in "[\",\r\n1a]{0,60}") {
        for format in [Format::Csv, Format::Ndjson] {
            let _ = read_in(format, &[&noise], 3);
            let _ = read_in(format, &[b"order_id,merchant_id\n", &noise], 3);
            let _ = read_in(format, &[b"order_id,merchant_id\n", quoted.as_bytes()], 3);
            let _ = read_in(format, &[b"{\"order_id\":1,\"merchant_id\":", &noise, b"}"], 3);
        }
    }
}
