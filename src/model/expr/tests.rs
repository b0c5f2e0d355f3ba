//! Expressions against expected values, errors against expected places, random texts against panics.

use std::cell::RefCell;
use std::collections::HashMap;

use arrow::array::{
    Array, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, SchemaRef};
use proptest::prelude::*;

use super::*;

const DAY: i32 = 20_779; // 2026-11-22
const NOON: i64 = DAY as i64 * 86_400_000_000 + 43_200_000_000;

/// Two rows; the second is null but for `i`, which is then 0.
fn rows() -> RecordBatch {
    let decimals = Decimal128Array::from(vec![Some(1250), None]).with_precision_and_scale(12, 2).expect("a type");
    RecordBatch::try_from_iter_with_nullable([
        ("i", Arc::new(Int64Array::from(vec![7, 0])) as ArrayRef, false),
        ("n", Arc::new(Int64Array::from(vec![Some(-3), None])) as _, true),
        ("d", Arc::new(decimals) as _, true),
        ("f", Arc::new(Float64Array::from(vec![Some(2.5), None])) as _, true),
        ("t", Arc::new(StringArray::from(vec![Some("Größe 5%"), None])) as _, true),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None])) as _, true),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(NOON), None])) as _, true),
        ("day", Arc::new(Date32Array::from(vec![Some(DAY), None])) as _, true),
    ])
    .expect("columns of one length")
}

fn schema() -> SchemaRef {
    rows().schema()
}

fn show(array: &ArrayRef) -> String {
    let texts = convert::convert(array, &DataType::Utf8, &Calendar::utc()).expect("every type can be shown");
    let texts = texts.as_string::<i32>().iter().map(|text| text.unwrap_or("null").to_string());
    texts.collect::<Vec<_>>().join(" | ")
}

fn calendar(zone: &str) -> Calendar {
    thread_local!(static KNOWN: RefCell<HashMap<String, Calendar>> = RefCell::default());
    let make = || Calendar::new(zone).expect("a known zone");
    KNOWN.with_borrow_mut(|known| known.entry(zone.to_string()).or_insert_with(make).clone())
}

/// Type and values, or the error without its drawing.
fn run_in(zone: &str, text: &str) -> String {
    let (schema, calendar) = (schema(), calendar(zone));
    let scope = Scope { schema: &schema, text, params: &[], allow_now: true };
    let compiled = parse_whole(text).and_then(|ast| Expr::compile(&ast, &scope));
    let expr = match compiled {
        Ok(expr) => expr,
        Err(error) => return format!("column {}: {}", error.column, error.message),
    };
    match expr.evaluate(&rows(), &Context { params: &[], now_us: NOON, calendar: &calendar }) {
        Ok(array) => {
            assert_eq!(array.data_type(), expr.data_type(), "{text}");
            assert_eq!(array.len(), 2, "{text}");
            assert!(expr.nullable() || array.null_count() == 0, "{text} is not nullable");
            format!("{}: {}", type_name(expr.data_type()), show(&array))
        }
        Err(error) => format!("error: {error}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(run_in("UTC", text), *expected, "{text}");
    }
}

#[test]
fn columns_and_literals_have_their_types() {
    check(&[
        ("i", "int: 7 | 0"),
        ("I", "int: 7 | 0"),
        ("\"i\"", "int: 7 | 0"),
        ("12", "int: 12 | 12"),
        ("-9223372036854775808", "int: -9223372036854775808 | -9223372036854775808"),
        ("9223372036854775808", "decimal(19,0): 9223372036854775808 | 9223372036854775808"),
        ("1.50", "decimal(3,2): 1.50 | 1.50"),
        ("0.001", "decimal(3,3): 0.001 | 0.001"),
        ("1.5e3", "decimal(4,0): 1500 | 1500"),
        ("1e-3", "decimal(3,3): 0.001 | 0.001"),
        ("'it''s'", "text: it's | it's"),
        ("true", "bool: true | true"),
        ("null", "text: null | null"),
        ("date '2026-11-22'", "date: 2026-11-22 | 2026-11-22"),
        ("timestamp '2026-11-22 10:03:04.5'", "timestamp: 2026-11-22T10:03:04.500Z | 2026-11-22T10:03:04.500Z"),
        ("now()", "timestamp: 2026-11-22T12:00:00Z | 2026-11-22T12:00:00Z"),
    ]);
}

#[test]
fn arithmetic_is_exact_and_division_by_zero_is_null() {
    check(&[
        ("i + 1", "int: 8 | 1"),
        ("-n", "int: 3 | null"),
        ("i % 4", "int: 3 | 0"),
        ("n % 2", "int: -1 | null"),
        ("i / 2", "decimal(25,6): 3.500000 | 0.000000"),
        ("n / i", "decimal(25,6): -0.428571 | null"),
        ("2 / 3", "decimal(7,6): 0.666667 | 0.666667"),
        ("-2 / 3", "decimal(7,6): -0.666667 | -0.666667"),
        ("1 / i", "decimal(7,6): 0.142857 | null"),
        ("i % 0", "int: null | null"),
        ("f / 0", "double: null | null"),
        ("d / 0", "decimal(16,6): null | null"),
        ("d + 1", "decimal(13,2): 13.50 | null"),
        ("d - 0.005", "decimal(14,3): 12.495 | null"),
        ("d * 2", "decimal(13,2): 25.00 | null"),
        ("d * 0.19", "decimal(14,4): 2.3750 | null"),
        ("d * d", "decimal(24,4): 156.2500 | null"),
        ("d / 3", "decimal(16,6): 4.166667 | null"),
        ("d % 1", "decimal(3,2): 0.50 | null"),
        ("d + f", "double: 15 | null"),
        ("i * f", "double: 17.5 | null"),
        ("d * null", "decimal(24,4): null | null"),
        ("1 + 2 * 3 - (4 - 5)", "int: 8 | 8"),
        ("i - -i", "int: 14 | 0"),
        (
            "12345678901234567890.12 / 0.000001",
            "decimal(32,6): 12345678901234567890120000.000000 | 12345678901234567890120000.000000",
        ),
    ]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    check(&[
        ("9223372036854775807 + 1", "column 1: the result of an addition does not fit int"),
        ("i + 9223372036854775807", "error: the result of an addition does not fit int"),
        ("i * 9223372036854775807", "error: the result of a multiplication does not fit int"),
        ("-(n - 9223372036854775807 - 1)", "error: the result of a subtraction does not fit int"),
        ("cast(i as decimal(2,2))", "error: the result of a conversion does not fit decimal(2,2)"),
        ("cast(1e30 as int)", "column 6: the result of a conversion does not fit int"),
        ("'1e300'::double * '1e300'::double", "double: inf | inf"),
        (
            "cast(cast(1e37 as double) * 100 as decimal(38,0))",
            "column 11: the result of a conversion does not fit decimal(38,0)",
        ),
        (
            "d * 99999999999999999999999999999999999999",
            "error: the result of a multiplication does not fit decimal(38,2)",
        ),
        ("1e39", "column 1: '1e39' has more than 38 digits"),
        (
            "0.00000000000000000001 * 0.0000000000000000001",
            "column 1: the product would have 39 digits behind the point, 38 is the most; cast or round first",
        ),
        ("ts + interval '300000 years'", "error: a time is out of range"),
    ]);
}

#[test]
fn comparisons_know_null_and_bring_types_together() {
    check(&[
        ("i = 7", "bool: true | false"),
        ("n < 0", "bool: true | null"),
        ("n = null", "bool: null | null"),
        ("null = null", "bool: null | null"),
        ("n is null", "bool: false | true"),
        ("n is not null", "bool: true | false"),
        ("null is null", "bool: true | true"),
        ("d = 12.5", "bool: true | null"),
        ("d > 12", "bool: true | null"),
        ("d <> 12.500", "bool: false | null"),
        ("f >= d", "bool: false | null"),
        ("f = 2.5", "bool: true | null"),
        ("f * 0 = -f * 0", "bool: true | null"),
        ("t = 'Größe 5%'", "bool: true | null"),
        ("n is distinct from null", "bool: true | false"),
        ("n is not distinct from -3", "bool: true | false"),
        ("b is true", "bool: true | false"),
        ("b is not true", "bool: false | true"),
        ("b is false", "bool: false | false"),
        ("b is unknown", "bool: false | true"),
        ("i between 1 and 7", "bool: true | false"),
        ("i not between 1 and 7", "bool: false | true"),
        ("d between 12 and 12.75", "bool: true | null"),
        ("i in (1, 7)", "bool: true | false"),
        ("i not in (1, 7)", "bool: false | true"),
        ("i in (1, null)", "bool: null | null"),
        ("i in (1,2,3,4,5,6,7,8,9)", "bool: true | false"),
        ("i in (1,2,3,4,5,6,8,9,10,null)", "bool: null | null"),
        ("n not in (1,2,3,4,5,6,7,8,9,-3)", "bool: false | null"),
        ("d in (1,2,3,4,5,6,7,8,9,12.5)", "bool: true | null"),
        ("t in ('a','b','c','d','e','f','g','h','Größe 5%')", "bool: true | null"),
        ("i in (1, i)", "bool: true | true"),
    ]);
}

#[test]
fn logic_has_three_truth_values() {
    check(&[
        ("b and false", "bool: false | false"),
        ("b and true", "bool: true | null"),
        ("b or true", "bool: true | true"),
        ("b or false", "bool: true | null"),
        ("not b", "bool: false | null"),
        ("null and false", "bool: false | false"),
        ("b and i = 7 and n = -3 or i = 0", "bool: true | true"),
    ]);
}

#[test]
fn what_a_row_does_not_need_cannot_spoil_it() {
    check(&[
        ("i > 100 and cast(t as int) > 5", "bool: false | false"),
        ("i >= 0 or cast(t as int) > 5", "bool: true | true"),
        ("case when i > 0 then 'x' else cast(cast(t as int) as text) end", "text: x | null"),
        ("case when i = 0 then 9223372036854775807 + i else i end", "int: 7 | 9223372036854775807"),
        ("coalesce(n, cast(coalesce(t, '4') as int))", "int: -3 | 4"),
        ("cast(t as int)", "error: 'Größe 5%' is not a valid int"),
    ]);
}

#[test]
fn cases_and_their_kin_find_one_type() {
    check(&[
        ("case when i = 7 then 1 when i = 0 then 2.5 end", "decimal(20,1): 1.0 | 2.5"),
        ("case i when 7 then 'seven' when 8 then 'eight' end", "text: seven | null"),
        ("case i when 0 then 'zero' else 'many' end", "text: many | zero"),
        ("case when n > 0 then 1 when n is null then 2 else 3 end", "int: 3 | 2"),
        ("case when i = 7 then null end", "text: null | null"),
        ("coalesce(n, i)", "int: -3 | 0"),
        ("coalesce(n, 0.5)", "decimal(20,1): -3.0 | 0.5"),
        ("coalesce(null, null)", "text: null | null"),
        ("nullif(i, 0)", "int: 7 | null"),
        ("nullif(i, 7.0)", "int: null | 0"),
        ("nullif(t, 'x')", "text: Größe 5% | null"),
        ("sum_of_nothing", "column 1: there is no column 'sum_of_nothing'; there are i, n, d, f, t, b, ts, day"),
    ]);
}

#[test]
fn functions_of_numbers_and_texts() {
    check(&[
        ("abs(n)", "int: 3 | null"),
        ("round(d)", "decimal(11,0): 13 | null"),
        ("round(-d)", "decimal(11,0): -13 | null"),
        ("round(d, 1)", "decimal(12,1): 12.5 | null"),
        ("round(d, -1)", "decimal(11,0): 10 | null"),
        ("round(9.995, 2)", "decimal(4,2): 10.00 | 10.00"),
        ("round(i, -1)", "int: 10 | 0"),
        ("round(f)", "double: 3 | null"),
        ("round(-f)", "double: -3 | null"),
        ("floor(-d)", "decimal(11,0): -13 | null"),
        ("ceil(d)", "decimal(11,0): 13 | null"),
        ("ceil(-d)", "decimal(11,0): -12 | null"),
        ("floor(f)", "double: 2 | null"),
        ("lower(t)", "text: größe 5% | null"),
        ("upper('ß' || t)", "text: SSGRÖSSE 5% | null"),
        ("length(t)", "int: 8 | null"),
        ("substr(t, 3, 2)", "text: öß | null"),
        ("substr(t, 0, 3)", "text: Gr | null"),
        ("substring(t from 7)", "text: 5% | null"),
        ("substr(t, 99)", "text:  | null"),
        ("trim('  x ')", "text: x | x"),
        ("t || '-' || i", "text: Größe 5%-7 | null"),
        ("concat('a', 1.50, true)", "text: a1.50true | a1.50true"),
        ("t like 'Gr%'", "bool: true | null"),
        ("t like '%5\\%'", "bool: true | null"),
        ("t not like '_röße%'", "bool: false | null"),
        ("t ilike 'GRÖ%'", "bool: true | null"),
        ("t like t", "bool: true | null"),
    ]);
}

#[test]
fn casts_round_half_away_from_zero() {
    check(&[
        ("cast(d as int)", "int: 13 | null"),
        ("d::decimal(5,1)", "decimal(5,1): 12.5 | null"),
        ("cast(f as int)", "int: 3 | null"),
        ("cast(2.675::double as decimal(5,2))", "decimal(5,2): 2.68 | 2.68"),
        ("cast(1e-300::double as decimal(5,2))", "column 6: '1e-300' has more than 38 digits"),
        ("cast('1.005' as decimal(5,2))", "decimal(5,2): 1.01 | 1.01"),
        ("cast(' 42 ' as int)", "int: 42 | 42"),
        ("cast(i as double)", "double: 7 | 0"),
        ("cast(i as bool)", "bool: true | false"),
        ("cast(b as int)", "int: 1 | null"),
        ("cast(d as text)", "text: 12.50 | null"),
        ("cast('true' as bool)", "bool: true | true"),
        ("cast(ts as text)", "text: 2026-11-22T12:00:00Z | null"),
        ("cast(ts as date)", "date: 2026-11-22 | null"),
        ("cast(null as decimal(10,2))", "decimal(10,2): null | null"),
        (
            "cast(i as uuid)",
            "column 6: unknown type UUID; known: int, decimal(p,s), double, text, bool, timestamp, date",
        ),
        ("cast(d as decimal(39,2))", "column 6: decimal precision 39 is not between 1 and 38"),
        ("cast(b as date)", "column 6: bool cannot be cast to date"),
        ("cast('abc' as int)", "column 6: 'abc' is not a valid int"),
    ]);
}

#[test]
fn times_are_compared_with_literals() {
    check(&[
        ("ts = '2026-11-22 12:00'", "bool: true | null"),
        ("ts >= '2026-11-22T13:00:00+01:00'", "bool: true | null"),
        ("ts >= '2026-11-22T12:00:00.000001Z'", "bool: false | null"),
        ("ts > '2026-11-22'", "bool: true | null"),
        ("ts > day", "bool: true | null"),
        ("day = '2026-11-22'", "bool: true | null"),
        ("day < '2026-11-22 01:00'", "bool: true | null"),
        ("day in ('2026-11-21', '2026-11-22')", "bool: true | null"),
        ("ts between '2026-11-22' and '2026-11-23'", "bool: true | null"),
        ("ts > now() - interval '1 hour'", "bool: true | null"),
        ("ts = 'yesterday'", "column 6: 'yesterday' is not a valid timestamp"),
        ("day = '2026-02-30'", "column 7: '2026-02-30' is not a valid timestamp"),
        ("ts = 5", "column 6: this is int, which does not go together with timestamp"),
        ("ts = t", "column 6: this is text, which does not go together with timestamp"),
    ]);
}

#[test]
fn times_go_by_the_clocks_of_the_zone() {
    let cases = [
        ("Europe/Berlin", "ts = '2026-11-22 13:00'", "bool: true | null"),
        ("Europe/Berlin", "date_trunc('day', ts)", "timestamp: 2026-11-21T23:00:00Z | null"),
        ("Asia/Kathmandu", "date_trunc('hour', ts)", "timestamp: 2026-11-22T11:15:00Z | null"),
        ("UTC", "date_trunc('minute', ts + interval '90 seconds')", "timestamp: 2026-11-22T12:01:00Z | null"),
        ("Europe/Berlin", "date_trunc('week', ts)", "timestamp: 2026-11-15T23:00:00Z | null"),
        ("Europe/Berlin", "date_trunc('month', ts)", "timestamp: 2026-10-31T23:00:00Z | null"),
        ("Europe/Berlin", "date_trunc('quarter', ts)", "timestamp: 2026-09-30T22:00:00Z | null"),
        ("Europe/Berlin", "date_trunc('year', ts)", "timestamp: 2025-12-31T23:00:00Z | null"),
        ("Europe/Berlin", "date_trunc('day', day)", "timestamp: 2026-11-21T23:00:00Z | null"),
        ("Asia/Shanghai", "extract(hour from ts)", "int: 20 | null"),
        ("Pacific/Apia", "cast(ts as date)", "date: 2026-11-23 | null"),
        // Clocks went back on 25 October: the day has 25 hours, 30 days are 721.
        ("Europe/Berlin", "ts - interval '30 days'", "timestamp: 2026-10-23T11:00:00Z | null"),
        ("Europe/Berlin", "ts - interval '720 hours'", "timestamp: 2026-10-23T12:00:00Z | null"),
        ("UTC", "extract(dow from ts)", "int: 0 | null"),
        ("UTC", "extract(isodow from ts)", "int: 7 | null"),
        ("UTC", "extract(week from ts)", "int: 47 | null"),
        ("UTC", "extract(week from date '2027-01-01')", "int: 53 | 53"),
        ("UTC", "extract(doy from ts)", "int: 326 | null"),
        ("UTC", "date_part('quarter', ts)", "int: 4 | null"),
        ("UTC", "extract(epoch from ts)", "int: 1795348800 | null"),
        ("UTC", "extract(year from ts) * 100 + extract(month from ts)", "int: 202611 | null"),
    ];
    for (zone, text, expected) in cases {
        assert_eq!(run_in(zone, text), expected, "{zone}: {text}");
    }
}

#[test]
fn intervals_move_times() {
    check(&[
        ("ts + interval '1 day 2 hours'", "timestamp: 2026-11-23T14:00:00Z | null"),
        ("interval '1' hour + ts", "timestamp: 2026-11-22T13:00:00Z | null"),
        ("ts - 2 * interval '1 month'", "timestamp: 2026-09-22T12:00:00Z | null"),
        ("day + interval '1 month'", "timestamp: 2026-12-22T00:00:00Z | null"),
        ("timestamp '2026-01-31' + interval '1 month'", "timestamp: 2026-02-28T00:00:00Z | 2026-02-28T00:00:00Z"),
        ("ts + interval '1.5 hours'", "timestamp: 2026-11-22T13:30:00Z | null"),
        ("ts - (- interval '1 minute')", "timestamp: 2026-11-22T12:01:00Z | null"),
        ("ts - ts", "column 6: times cannot be subtracted; subtract seconds: extract(epoch from …)"),
        ("ts + 1", "column 6: a time is moved by an interval: + interval '1 day'"),
        ("interval '1 day'", "column 10: an interval can only be added to a time or subtracted from one"),
        ("ts + interval 'a while'", "column 15: 'a while' is not an interval; write '1 day' or '2 hours 30 minutes'"),
        (
            "ts + interval '0.5 months'",
            "column 15: '0.5 months' is not an interval; write '1 day' or '2 hours 30 minutes'",
        ),
        (
            "date_trunc('fortnight', ts)",
            "column 12: unknown unit 'fortnight'; known: minute, hour, day, week, month, quarter, year",
        ),
    ]);
}

#[test]
fn errors_point_into_the_text() {
    check(&[
        ("i + ", "column 4: expected an expression, found the end"),
        ("i + * 2", "column 5: expected an expression, found *"),
        ("i 5", "column 3: expected the end, found 5"),
        ("1 +\n  wrong", "column 3: there is no column 'wrong'; there are i, n, d, f, t, b, ts, day"),
        ("i = 7 and t", "column 11: a condition is needed, this is text"),
        ("not i", "column 5: a condition is needed, this is int"),
        ("i + t", "column 5: '+' needs numbers, this is text"),
        ("t = 5", "column 5: this is int, which does not go together with text"),
        ("i = '5'", "column 5: this is text, which does not go together with int"),
        ("lower(i)", "column 7: text is needed, this is int"),
        (
            "median(i)",
            "column 1: unknown function 'median'; known: abs, ceil, coalesce, concat, date_part, date_trunc, extract, floor, length, lower, now, nullif, round, substr, trim, upper",
        ),
        ("abs(i, 2)", "column 1: abs takes another number of arguments"),
        ("1 + sum(i)", "column 5: the aggregate sum cannot stand here"),
        ("i in (select 1)", "column 1: subqueries are not supported"),
        ("i & 3", "column 5: the operator & is not supported"),
        ("$1 = i", "column 1: there is no parameter $1"),
        ("$0", "column 1: there is no parameter $0"),
        ("a.i", "column 1: write the column's name alone"),
        ("\"I\"", "column 1: there is no column 'I'; there are i, n, d, f, t, b, ts, day"),
        ("'abc", "column 1: Unterminated string literal"),
        ("round(d, i)", "column 10: a literal between -38 and 38 is needed here"),
        ("row_number() over ()", "column 1: this form of row_number(…) is not supported"),
        ("array[1]", "column 7: this is not supported in an expression"),
    ]);
}

#[test]
fn metric_definitions_do_not_depend_on_the_time() {
    let error = Expr::parse("ts < now()", &schema()).expect_err("not now");
    assert_eq!(error.column, 6);
    assert_eq!(Expr::parse("i + i * n - coalesce(n, 3)", &schema()).expect("an expression").columns(), [0, 1]);
    assert_eq!(Expr::parse("(n)", &schema()).expect("a column").as_column(), Some(1));
}

fn with_params(text: &str, params: &[ArrayRef]) -> Result<String, String> {
    let (schema, calendar) = (schema(), Calendar::utc());
    let types: Vec<DataType> = params.iter().map(|param| param.data_type().clone()).collect();
    let scope = Scope { schema: &schema, text, params: &types, allow_now: true };
    let ast = parse_whole(text).map_err(|error| error.message)?;
    let expr = Expr::compile(&ast, &scope).map_err(|error| error.message)?;
    let result = expr.evaluate(&rows(), &Context { params, now_us: 0, calendar: &calendar });
    result.map(|array| show(&array)).map_err(|error| error.to_string())
}

#[test]
fn parameters_are_literals_that_come_later() {
    let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let literal = |text: &str| literal::number(text).expect("a number");
    assert_eq!(with_params("i = $1", &[literal("7")]), Ok("true | false".into()));
    assert_eq!(with_params("d > $2 and t like $1", &[text("Gr%"), literal("12.25")]), Ok("true | null".into()));
    assert_eq!(with_params("ts >= $1", &[text("2026-11-22")]), Ok("true | null".into()));
    assert_eq!(with_params("day = $1", &[text("2026-11-22")]), Ok("true | null".into()));
    assert_eq!(with_params("ts >= $1", &[text("soon")]), Err("'soon' is not a valid timestamp".into()));
    assert_eq!(with_params("n = $1", &[Arc::new(arrow::array::NullArray::new(1))]), Ok("null | null".into()));
    assert_eq!(with_params("coalesce(n, $1)", &[literal("5")]), Ok("-3 | 5".into()));
    assert_eq!(with_params("case when $1 > 3 then i end", &[literal("5")]), Ok("7 | 0".into()));
    assert_eq!(with_params("$1 between 1 and 3", &[literal("5")]), Ok("false | false".into()));
}

#[test]
fn rows_or_parameters_of_another_shape_are_an_error() {
    let calendar = Calendar::utc();
    let context = Context { params: &[], now_us: 0, calendar: &calendar };
    let expr = Expr::parse("d + 1 > n", &schema()).expect("an expression");
    let other = rows().project(&[4, 4, 4]).expect("columns");
    assert!(matches!(expr.evaluate(&other, &context), Err(EvaluationError::Rows(_))));
    assert!(matches!(expr.evaluate(&rows().project(&[0]).expect("columns"), &context), Err(EvaluationError::Rows(_))));
    let empty = rows().slice(0, 0);
    assert_eq!(expr.evaluate(&empty, &context).expect("no rows").len(), 0);
    assert_eq!(
        Expr::parse("1 in (2, 3)", &schema()).expect("fine").evaluate(&empty, &context).expect("no rows").len(),
        0
    );
    let schema = schema();
    let scope = Scope { schema: &schema, text: "$1", params: &[DataType::Int64], allow_now: false };
    let expr = Expr::compile(&parse_whole("$1").expect("SQL"), &scope).expect("an expression");
    assert_eq!(expr.evaluate(&rows(), &context), Err(EvaluationError::Param(1)));
}

#[test]
fn a_filter_takes_null_for_false() {
    let calendar = Calendar::utc();
    let context = Context { params: &[], now_us: 0, calendar: &calendar };
    let filter = |text: &str| {
        let expr = Expr::parse(text, &schema()).expect("an expression");
        let found = expr.evaluate_filter(&rows(), &context).expect("a filter");
        assert_eq!(found.null_count(), 0);
        found.values().iter().collect::<Vec<_>>()
    };
    assert_eq!(filter("n < 0"), [true, false]);
    assert_eq!(filter("not (n < 0)"), [false, false]);
    assert_eq!(filter("true"), [true, true]);
    assert_eq!(filter("null and true"), [false, false]);
}

#[test]
fn deep_and_long_texts_are_refused_without_overflowing_the_stack() {
    let message = |text: String| Expr::parse(&text, &schema()).expect_err("too much").message;
    assert!(message(format!("1{}", "+1".repeat(100_000))).contains("too long"));
    assert!(message(format!("1{}", "+1".repeat(900))).contains("deep"));
    assert!(message(format!("{}1{}", "(".repeat(900), ")".repeat(900))).contains("deeply"));
    assert!(message(format!("{}1", "- ".repeat(1900))).contains("deep"));
    assert!(message(format!("{}true", "not ".repeat(1900))).contains("expected"));
    assert!(message(format!("i{}", " is null".repeat(900))).contains("deep"));
    assert!(message(format!("i{}", "::int".repeat(600))).contains("deep"));
    let chain = format!("i = 1{}", " or i = 7".repeat(480));
    assert_eq!(run_in("UTC", &chain), "bool: true | false");
    let list = format!("i in (1{})", ", 7".repeat(20_000));
    assert_eq!(run_in("UTC", &list), "bool: true | false");
    let nested = (0..15).fold("i".to_string(), |inner, _| format!("nullif({inner}, 3)"));
    assert_eq!(run_in("UTC", &nested), "int: 7 | 0");
}

#[test]
fn a_column_is_found_by_its_own_case_first() {
    let schema = Schema::new(vec![Field::new("A", DataType::Int64, false), Field::new("a", DataType::Utf8, false)]);
    assert_eq!(Expr::parse("a", &schema).expect("a column").as_column(), Some(1));
    assert_eq!(Expr::parse("\"A\"", &schema).expect("a column").as_column(), Some(0));
}

/// Texts made of the pieces of SQL, so that many of them parse.
fn sql_like() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "i",
        "n",
        "d",
        "f",
        "t",
        "b",
        "ts",
        "day",
        "1",
        "0",
        "2.5",
        "1e20",
        "'x'",
        "'2026-11-22'",
        "'%'",
        "null",
        "true",
        "$1",
        "(",
        ")",
        ",",
        "+",
        "-",
        "*",
        "/",
        "%",
        "=",
        "<",
        ">=",
        "<>",
        "||",
        "::",
        "and",
        "or",
        "not",
        "in (",
        "between",
        "like",
        "ilike",
        "is null",
        "is not true",
        "case",
        "when",
        "then",
        "else",
        "end",
        "cast(",
        "as int)",
        "as decimal(38,10))",
        "as text)",
        "as timestamp)",
        "int",
        "date",
        "interval '1 day'",
        "interval '9 years'",
        "coalesce(",
        "nullif(",
        "round(",
        "abs(",
        "date_trunc('week',",
        "extract(dow from",
        "substr(",
        "length(",
        "now()",
        "count(*)",
        "\"",
        "'",
        "\n",
        "ß",
        "--",
        "/*",
    ]);
    prop::collection::vec(pieces, 1..14).prop_map(|pieces| pieces.join(" "))
}

/// Well-formed expressions of numbers of all kinds.
fn numeric() -> impl Strategy<Value = String> {
    let leaf =
        prop::sample::select(vec!["i", "n", "d", "f", "0", "1.5", "9223372036854775807", "1e37", "0.0000001", "null"]);
    leaf.prop_map(str::to_string).prop_recursive(5, 24, 3, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(l, op, r)| format!("({l} {op} {r})")),
            (inner.clone(), -5..20).prop_map(|(of, digits)| format!("round({of}, {digits})")),
            inner.clone().prop_map(|of| format!("floor(-({of}))")),
            inner.clone().prop_map(|of| format!("cast({of} as decimal(38,12))")),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("case when {l} < {r} then {l} else {r} end")),
            (inner.clone(), inner).prop_map(|(l, r)| format!("coalesce(nullif({l}, {r}), {r})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn texts_that_look_like_sql_never_panic(text in sql_like()) {
        run_in("Europe/Berlin", &text);
    }

    #[test]
    fn numbers_of_all_sizes_never_panic_and_keep_their_type(text in numeric()) {
        run_in("UTC", &text);
    }

    #[test]
    fn any_text_never_panics(text in "\\PC{0,40}") {
        let _ = Expr::parse(&text, &schema()).map_err(|error| error.to_string());
    }

    #[test]
    fn a_quotient_times_its_divisor_is_the_dividend_but_for_rounding(a in -10_i64.pow(12)..10_i64.pow(12), b in 1_i64..10_i64.pow(9)) {
        let text = format!("abs(cast({a} as decimal(20,2)) - cast({a} as decimal(20,2)) / {b}.0 * {b}) <= {b} * 0.0000005");
        prop_assert_eq!(run_in("UTC", &text), "bool: true | true");
    }
}
