//! Bad input to ingest: each case gets its status, an error with its place, and counts nothing.
//!
//! Invariant: each case brings good rows of a merchant of its own, so that half-counted requests name themselves.

use crate::client::{CSV, Client, NDJSON, now_ms, number};
use crate::sandbox::Sandbox;
use crate::shop;

const FIRST_MERCHANT: usize = 10_000;

struct Case {
    name: &'static str,
    content_type: &'static str,
    /// Replaces the usual CSV header.
    header: &'static str,
    /// What follows two good rows; `@` stands for the case's merchant.
    bad: &'static str,
    /// The line in the body where the fault is, and the column at fault, where one is.
    line: u64,
    column: Option<&'static str>,
}

const fn csv(name: &'static str, bad: &'static str, column: Option<&'static str>) -> Case {
    Case { name, content_type: CSV, header: shop::ORDERS_HEADER, bad, line: 4, column }
}

const fn ndjson(name: &'static str, bad: &'static str, column: Option<&'static str>) -> Case {
    Case { name, content_type: NDJSON, header: "", bad, line: 3, column }
}

const fn header(name: &'static str, header: &'static str) -> Case {
    Case { name, content_type: CSV, header, bad: "", line: 1, column: None }
}

const CASES: &[Case] = &[
    csv("a field too few", "3,@,paid,web,1.00,7\n", None),
    csv("a field too many", "3,@,paid,web,1.00,7,2026-03-27T10:00:00Z,extra\n", None),
    csv("a quote that never ends", "3,@,paid,\"web,1.00,7,2026-03-27T10:00:00Z\n", None),
    csv("text for an int", "three,@,paid,web,1.00,7,2026-03-27T10:00:00Z\n", Some("order_id")),
    csv("an int too large", "9223372036854775808,@,paid,web,1.00,7,2026-03-27T10:00:00Z\n", Some("order_id")),
    csv("a fraction for an int", "3.5,@,paid,web,1.00,7,2026-03-27T10:00:00Z\n", Some("order_id")),
    csv("text for a decimal", "3,@,paid,web,cheap,7,2026-03-27T10:00:00Z\n", Some("amount")),
    csv("a decimal too large", "3,@,paid,web,10000000000.00,7,2026-03-27T10:00:00Z\n", Some("amount")),
    csv("a decimal far too large", "3,@,paid,web,1e300,7,2026-03-27T10:00:00Z\n", Some("amount")),
    csv("a decimal too fine", "3,@,paid,web,1.001,7,2026-03-27T10:00:00Z\n", Some("amount")),
    csv("not a number", "3,@,paid,web,NaN,7,2026-03-27T10:00:00Z\n", Some("amount")),
    csv("February 30", "3,@,paid,web,1.00,7,2026-02-30T10:00:00Z\n", Some("paid_at")),
    csv("month 13", "3,@,paid,web,1.00,7,2026-13-01T10:00:00Z\n", Some("paid_at")),
    csv("hour 24", "3,@,paid,web,1.00,7,2026-03-27T24:00:00Z\n", Some("paid_at")),
    csv("February 29 of a common year", "3,@,paid,web,1.00,7,2025-02-29T10:00:00Z\n", Some("paid_at")),
    csv("the year 12026", "3,@,paid,web,1.00,7,12026-03-27T10:00:00Z\n", Some("paid_at")),
    csv("a number for a timestamp", "3,@,paid,web,1.00,7,1774602000\n", Some("paid_at")),
    csv("null in the key", ",@,paid,web,1.00,7,2026-03-27T10:00:00Z\n", Some("order_id")),
    csv("null in the partition key", "3,,paid,web,1.00,7,2026-03-27T10:00:00Z\n", Some("merchant_id")),
    csv("good rows after the bad one", "x,@,,,,,\n5,@,paid,web,1.00,7,2026-03-27T10:00:00Z\n", Some("order_id")),
    header("a column that the table does not have", "order_id,merchant_id,status,channel,amount,buyer_id,nonsense\n"),
    header("a column twice", "order_id,merchant_id,status,channel,amount,amount,paid_at\n"),
    header("a key column left out", "status,merchant_id,channel,amount,buyer_id,paid_at\n"),
    ndjson("JSON cut short", r#"{"order_id":3,"merchant_id":@,"status":"pa"#, None),
    ndjson("not JSON at all", "order 3 of merchant @\n", None),
    ndjson("a list for a row", "[3,@]\n", None),
    ndjson("a row and more behind it", "{\"order_id\":3,\"merchant_id\":@} {}\n", None),
    ndjson("an unknown field", "{\"order_id\":3,\"merchant_id\":@,\"nonsense\":1}\n", None),
    ndjson("text for an int", "{\"order_id\":\"three\",\"merchant_id\":@}\n", Some("order_id")),
    ndjson("an object for a text", "{\"order_id\":3,\"merchant_id\":@,\"status\":{\"a\":1}}\n", Some("status")),
    ndjson("a bool for a decimal", "{\"order_id\":3,\"merchant_id\":@,\"amount\":true}\n", Some("amount")),
    ndjson("a decimal too large", "{\"order_id\":3,\"merchant_id\":@,\"amount\":99999999999}\n", Some("amount")),
    ndjson("a decimal too fine", "{\"order_id\":3,\"merchant_id\":@,\"amount\":0.1234}\n", Some("amount")),
    ndjson(
        "an impossible date",
        "{\"order_id\":3,\"merchant_id\":@,\"paid_at\":\"2026-04-31T00:00:00Z\"}\n",
        Some("paid_at"),
    ),
    ndjson("null in the key", "{\"order_id\":null,\"merchant_id\":@}\n", Some("order_id")),
    ndjson("no key", "{\"merchant_id\":@,\"status\":\"paid\"}\n", Some("order_id")),
    ndjson("no partition key", "{\"order_id\":3,\"status\":\"paid\"}\n", Some("merchant_id")),
    ndjson("an unknown operation", "{\"_op\":\"upsert\",\"order_id\":3,\"merchant_id\":@}\n", None),
    ndjson("an update without the row before", "{\"_op\":\"update\",\"order_id\":3,\"merchant_id\":@}\n", None),
    ndjson(
        "a row before that is no row",
        "{\"_op\":\"update\",\"_before\":7,\"order_id\":3,\"merchant_id\":@}\n",
        None,
    ),
    ndjson(
        "a fault in the row before",
        "{\"_op\":\"update\",\"_before\":{\"order_id\":3,\"merchant_id\":@,\"amount\":\"x\"},\"order_id\":3,\"merchant_id\":@}\n",
        Some("amount"),
    ),
];

/// Two good rows, then the case's own.
fn body(case: &Case, merchant: usize) -> String {
    let good = if case.content_type == CSV {
        format!(
            "1,{merchant},paid,web,1.00,7,2026-03-27T10:00:00Z\n2,{merchant},paid,web,2.00,7,2026-03-27T10:00:00Z\n"
        )
    } else {
        (1..=2)
            .map(|id| {
                format!(
                    "{{\"order_id\":{id},\"merchant_id\":{merchant},\"status\":\"paid\",\"channel\":\"web\",\
                     \"amount\":1.00,\"buyer_id\":7,\"paid_at\":\"2026-03-27T10:00:00Z\"}}\n"
                )
            })
            .collect()
    };
    format!("{}{good}{}", case.header, case.bad.replace('@', &merchant.to_string()))
}

/// Merchants that have orders, with how many.
fn counted(client: &Client) -> Vec<(i64, i64)> {
    let sql = "select merchant_id, sum(orders) as orders from placed_day group by merchant_id order by merchant_id";
    let answer = client.settled(sql, now_ms());
    answer.rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
}

#[test]
fn a_bad_row_is_named_with_its_place_and_nothing_of_its_request_is_counted() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    let client = &running.client;
    for (index, case) in CASES.iter().enumerate() {
        let merchant = FIRST_MERCHANT + index;
        let what = format!("{} ({})", case.name, case.content_type);
        // With a key and without: a refused key must not be remembered as done.
        let key = format!("bad-{index}");
        for key in [None, Some(key.as_str())] {
            let reply = client.ingest("orders", case.content_type, key, body(case, merchant));
            reply.assert_problem(422, &what);
            assert_eq!(reply.body["line"], case.line, "{what}: {}", reply.body);
            let detail = reply.body["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(&case.line.to_string()), "{what}: {detail}");
            if let Some(column) = case.column {
                let named = reply.body["column"].as_str().unwrap_or_default();
                let in_before = named.strip_prefix("_before.");
                assert_eq!(in_before.unwrap_or(named), column, "{what}: {}", reply.body);
                assert!(detail.contains(column), "{what}: {detail}");
            }
        }
    }
    assert_eq!(counted(client), [], "half-counted: {FIRST_MERCHANT} is the first case");
    // The same keys with good rows count: nothing of the refused requests was remembered.
    for (index, case) in CASES.iter().enumerate().filter(|(_, case)| case.content_type == NDJSON) {
        let good = Case { bad: "", ..ndjson(case.name, "", None) };
        let reply = client.ingest("orders", NDJSON, Some(&format!("bad-{index}")), body(&good, FIRST_MERCHANT + index));
        assert_eq!(reply.receipt().accepted, 2, "{}", case.name);
    }
    let corrected = CASES.iter().filter(|case| case.content_type == NDJSON).count();
    assert_eq!(counted(client).len(), corrected);
    assert!(counted(client).iter().all(|(_, orders)| *orders == 2));
    assert!(running.is_alive());
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_line() {
    let sandbox = Sandbox::new(&shop::config());
    let running = sandbox.start();
    let mut csv = shop::ORDERS_HEADER.as_bytes().to_vec();
    csv.extend(b"1,1,paid,web,1.00,7,2026-03-27T10:00:00Z\n2,1,paid,w\xff\xfeb,1.00,7,2026-03-27T10:00:00Z\n");
    let reply = running.client.ingest("orders", CSV, None, csv);
    reply.assert_problem(422, "CSV");
    assert_eq!((&reply.body["line"], &reply.body["column"]), (&3.into(), &"channel".into()), "{}", reply.body);
    let ndjson = b"{\"order_id\":1,\"merchant_id\":1,\"channel\":\"\xc3\x28\"}\n".to_vec();
    let reply = running.client.ingest("orders", NDJSON, None, ndjson);
    reply.assert_problem(422, "NDJSON");
    assert_eq!(reply.body["line"], 1, "{}", reply.body);
    assert_eq!(counted(&running.client), []);
}

#[test]
fn json_nested_deeply_is_refused_and_the_process_lives() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    for depth in [200, 20_000, 200_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let body = format!("{{\"order_id\":1,\"merchant_id\":1,\"status\":{nested}}}\n");
            let reply = running.client.ingest("orders", NDJSON, None, body);
            assert!(reply.status == 422 || reply.status == 413, "{depth} × {open}: {reply:?}");
            reply.assert_problem(reply.status, "nested");
            let before = format!("{{\"_op\":\"update\",\"_before\":{nested},\"order_id\":1,\"merchant_id\":1}}\n");
            let reply = running.client.ingest("orders", NDJSON, None, before);
            assert!(reply.status == 422 || reply.status == 413, "{depth} × {open} in _before: {reply:?}");
        }
    }
    assert!(running.is_alive());
    assert_eq!(counted(&running.client), []);
}

#[test]
fn requests_that_fit_no_table_or_format_say_so() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    let client = &running.client;
    let good = format!("{}1,1,paid,web,1.00,7,2026-03-27T10:00:00Z\n", shop::ORDERS_HEADER);
    let unknown = client.ingest("nowhere", CSV, None, good.clone());
    unknown.assert_problem(404, "unknown table");
    assert!(unknown.body["detail"].as_str().is_some_and(|text| text.contains("nowhere")), "{}", unknown.body);
    client.ingest("orders", "application/xml", None, good.clone()).assert_problem(415, "unknown content type");
    client.ingest("orders", CSV, Some(&"k".repeat(10_000)), good.clone()).assert_problem(400, "a huge key");
    assert_eq!(client.ingest("orders", CSV, None, shop::ORDERS_HEADER).receipt().accepted, 0, "no rows are no fault");
    assert_eq!(client.ingest("orders", NDJSON, None, "").receipt().accepted, 0, "no rows are no fault");
    let reply = client.block_on(client.http.get("/api/v1/ingest/orders")).expect("the server answers");
    reply.assert_problem(405, "GET");
    let reply = client.block_on(client.http.get("/api/v1/nothing-here")).expect("the server answers");
    reply.assert_problem(404, "no such page");
    assert_eq!(counted(client), []);
    assert!(running.is_alive());
}

#[test]
fn a_key_used_again_counts_once_and_says_duplicate() {
    let sandbox = Sandbox::new(&shop::config());
    let running = sandbox.start();
    let rows: String = (1..=30).map(|id| format!("{id},{},paid,web,1.00,7,2026-03-27T10:00:00Z\n", id % 5)).collect();
    let body = format!("{}{rows}", shop::ORDERS_HEADER);
    let send = |client: &Client| client.ingest("orders", CSV, Some("once"), body.clone()).receipt();
    let first = send(&running.client);
    assert_eq!((first.accepted, first.shed, first.duplicate), (30, 0, 0));
    for _ in 0..3 {
        let again = send(&running.client);
        assert_eq!((again.accepted, again.shed, again.duplicate), (0, 0, 30));
    }
    running.kill();
    let running = sandbox.start();
    let again = send(&running.client);
    assert_eq!((again.accepted, again.duplicate), (0, 30), "the key is remembered over kill -9");
    assert_eq!(counted(&running.client).iter().map(|(_, orders)| orders).sum::<i64>(), 30);
}
