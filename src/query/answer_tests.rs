//! The same rows in every form.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, NullArray, StringArray,
    TimestampMicrosecondArray,
};
use arrow::ipc::reader::StreamReader;
use serde_json::{Value, json as value};

use super::*;
use crate::model::mode::Mode;
use crate::query::verdict::{Asked, MissingChanges, ServedBy, UnavailablePart};

fn sample() -> RecordBatch {
    let decimals = Decimal128Array::from(vec![Some(123_450), None]).with_precision_and_scale(38, 2);
    let columns: [(&str, ArrayRef); 8] = [
        ("n", Arc::new(Int64Array::from(vec![Some(-7), None]))),
        ("gmv", Arc::new(decimals.expect("they fit"))),
        ("x", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ("t,\"x\"", Arc::new(StringArray::from(vec![Some("a,\"b\"\nß"), None]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_795_341_600_000_000), None]))),
        ("d", Arc::new(Date32Array::from(vec![Some(20_779), None]))),
        ("nothing", Arc::new(NullArray::new(2))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).expect("one length")
}

fn quality() -> Quality {
    let asked = Asked { metric_table: "gmv_hour", table: "orders", from_ms: 0, to_ms: 1 };
    Quality::of(&[], asked, Modes::default(), 1_000)
}

#[test]
fn json_has_names_types_rows_and_quality() {
    let bytes = json(&sample(), &quality(), 412);
    let found: Value = serde_json::from_slice(&bytes).expect("JSON");
    let types: Vec<_> = found["columns"].as_array().expect("a list").iter().map(|column| &column["type"]).collect();
    assert_eq!(types, ["int", "decimal(38,2)", "double", "text", "bool", "timestamp", "date", "null"]);
    assert_eq!(found["columns"][3]["name"], "t,\"x\"");
    assert_eq!(
        found["rows"],
        value!([
            [-7, "1234.50", 0.5, "a,\"b\"\nß", true, "2026-11-22T10:00:00Z", "2026-11-22", null],
            [null, null, null, null, null, null, null, null]
        ])
    );
    assert_eq!(found["took_us"], 412);
    assert_eq!(found["quality"]["exact"], true);
    assert_eq!(found["quality"]["as_of"], "1970-01-01T00:00:01.000Z");
    let modes = value!({"mq": "normal", "kv": "normal", "hot": "normal", "cache": "normal", "cold": "normal"});
    assert_eq!(found["quality"]["modes"], modes);
}

#[test]
fn the_quality_says_all_that_is_known() {
    let mut known = quality();
    (known.exact, known.as_of_newest_ms, known.age_ms) = (false, Some(1_500), Some(4_200));
    known.served_by = vec![ServedBy::Local, ServedBy::Hot];
    known.missing_changes = 132;
    let (from, to) = (Some("2026-11-22T10:00:00.000Z".into()), None);
    let reason = "\"shed\"".to_owned();
    known.missing = vec![MissingChanges { table: "orders".into(), partition: 7, from, to, changes: Some(132), reason }];
    known.unavailable = vec![UnavailablePart { what: "gmv_day, partition 7".into(), reason: "bypass".into() }];
    (known.missing_more, known.unavailable_more) = (3, 4);
    (known.modes.kv, known.modes.cold) = (Mode::Recovering, Mode::Degraded);
    let expected = value!({
        "exact": false, "as_of": "1970-01-01T00:00:01.000Z", "as_of_newest": "1970-01-01T00:00:01.500Z",
        "age_ms": 4_200, "served_by": ["local", "hot"], "missing_changes": 132,
        "missing": [{"table": "orders", "partition": 7, "from": "2026-11-22T10:00:00.000Z", "to": null,
                     "changes": 132, "reason": "\"shed\""}],
        "missing_more": 3,
        "unavailable": [{"what": "gmv_day, partition 7", "reason": "bypass"}],
        "unavailable_more": 4,
        "modes": {"mq": "normal", "kv": "recovering", "hot": "normal", "cache": "normal", "cold": "degraded"},
    });
    let found: Value = serde_json::from_str(&quality_header(&known)).expect("JSON");
    assert_eq!(found, expected);
    (known.as_of_ms, known.as_of_newest_ms, known.age_ms) = (None, None, None);
    let found: Value = serde_json::from_slice(&json(&sample(), &known, 1)).expect("JSON");
    assert_eq!((&found["quality"]["as_of"], &found["quality"]["age_ms"]), (&Value::Null, &Value::Null));
    assert!(found["quality"].get("as_of_newest").is_none());
}

#[test]
fn csv_tells_null_from_empty_and_quotes_what_needs_it() {
    let text = String::from_utf8(csv(&sample())).expect("text");
    let expected = "n,gmv,x,\"t,\"\"x\"\"\",b,at,d,nothing\r\n\
                    -7,1234.50,0.5,\"a,\"\"b\"\"\nß\",true,2026-11-22T10:00:00Z,2026-11-22,\r\n,,,,,,,\r\n";
    assert_eq!(text, expected);
    let empty = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(vec![""])) as ArrayRef)]).expect("one");
    assert_eq!(csv(&empty), b"t\r\n\"\"\r\n");
}

#[test]
fn arrow_gives_the_rows_back() {
    let bytes = arrow_stream(&sample()).expect("rows");
    let mut reader = StreamReader::try_new(bytes.as_slice(), None).expect("a stream");
    assert_eq!(reader.next().expect("one batch").expect("rows"), sample());
    assert!(reader.next().is_none());
}

#[test]
fn the_quality_header_is_small_ascii_and_says_how_much_was_cut() {
    let mut large = quality();
    large.unavailable = vec![UnavailablePart { what: "größe".repeat(100), reason: "\u{7}".into() }; 50];
    let header = quality_header(&large);
    assert!(header.len() <= HEADER_LIMIT && header.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{header}");
    let found: Value = serde_json::from_str(&header).expect("JSON");
    let listed = found["unavailable"].as_array().expect("a list").len() as u64;
    assert_eq!(listed + found["unavailable_more"].as_u64().expect("a count"), 50);
}

#[test]
fn the_first_form_accepted_is_taken() {
    for (header, form) in [
        ("", Some(Form::Json)),
        ("*/*", Some(Form::Json)),
        ("text/csv", Some(Form::Csv)),
        ("text/html, text/csv;q=0.5, application/json", Some(Form::Csv)),
        ("application/vnd.apache.arrow.stream", Some(Form::Arrow)),
        ("text/html", None),
    ] {
        assert_eq!(Form::accepted(header), form, "{header}");
    }
}
