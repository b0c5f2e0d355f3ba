//! Bad queries: broken, huge, deeply nested, unsupported; each gets a 4xx with its place, and the process lives.
//!
//! Invariant: a wrong query never becomes a 5xx, and never ends or stalls the process.

use serde_json::json;

use crate::client::CSV;
use crate::sandbox::Sandbox;
use crate::shop;

/// (SQL, the text at which the error points: its line and column are where this begins, where that is sure)
const BROKEN: &[(&str, Option<&str>)] = &[
    ("", None),
    (";", None),
    ("selec 1", Some("selec")),
    ("select", None),
    ("select from gmv_hour", None),
    ("select gmv gmv gmv from gmv_hour", None),
    ("select nope from gmv_hour", Some("nope")),
    ("select gmv\nfrom gmv_hour\nwhere nope = 1", Some("nope")),
    ("select gmv from nowhere", Some("nowhere")),
    ("select gmv from orders", Some("orders")),
    ("select nope(gmv) from gmv_hour", Some("nope")),
    ("select sum(gmv from gmv_hour", None),
    ("select 'never ends from gmv_hour", None),
    ("select \"never ends from gmv_hour", None),
    ("select gmv from gmv_hour where", None),
    ("select gmv from gmv_hour; drop table gmv_hour", None),
    ("insert into gmv_hour values (1)", None),
    ("delete from gmv_hour", None),
    ("drop table gmv_hour", None),
    ("select * from gmv_hour join gmv_day on true", None),
    ("select * from gmv_hour, gmv_day", None),
    ("select * from (select * from gmv_hour) x", None),
    ("select gmv from gmv_hour union select gmv from gmv_day", None),
    ("with x as (select 1) select * from x", None),
    ("select (select 1) from gmv_hour", None),
    ("select gmv from gmv_hour where exists (select 1)", None),
    ("select sum(gmv) over (partition by channel) from gmv_hour", None),
    ("select sum(channel) from gmv_hour", None),
    ("select avg(channel) from gmv_hour", None),
    ("select channel + 1 from gmv_hour", None),
    ("select not gmv from gmv_hour", None),
    ("select gmv from gmv_hour where gmv", None),
    ("select gmv from gmv_hour where merchant_id = 'abc'", Some("'abc'")),
    ("select gmv from gmv_hour where window_start > 'yesterday'", Some("'yesterday'")),
    ("select gmv from gmv_hour where window_start > '2026-02-30'", Some("'2026-02-30'")),
    ("select gmv from gmv_hour where channel like 5", None),
    ("select channel, sum(gmv) from gmv_hour", None),
    ("select channel, gmv from gmv_hour group by channel", None),
    ("select sum(sum(gmv)) from gmv_hour", None),
    ("select gmv from gmv_hour where sum(gmv) > 1", None),
    ("select cast(channel as nonsense) from gmv_hour", None),
    ("select gmv from gmv_hour limit -1", None),
    ("select gmv from gmv_hour limit many", None),
    ("select gmv from gmv_hour order by nope", Some("nope")),
    ("select 99999999999999999999999999999999999999999999999999 from gmv_hour", None),
    ("select coalesce(gmv, 'x') from gmv_hour", None),
    ("select case when gmv > 1 then 'a' else 2 end from gmv_hour", None),
    ("select date_trunc('fortnight', window_start) from gmv_hour", None),
    ("select gmv from gmv_hour where window_start > now() - interval '1 fortnight'", None),
    ("select \u{0} from gmv_hour", None),
    ("select gmv from gmv_hour where channel = '\u{1F600}' and nope = 1", Some("nope")),
];

/// The line and column of a text's first occurrence, from one, in characters.
fn place(sql: &str, text: &str) -> (u64, u64) {
    let before = &sql[..sql.find(text).expect("the text is there")];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() as u64 + 1, before[line_start..].chars().count() as u64 + 1)
}

#[test]
fn a_broken_query_is_refused_with_the_place_in_its_text() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    let mut wrong = Vec::new();
    for (sql, at) in BROKEN {
        let reply = running.client.query(sql);
        let status = if ["nowhere", "orders"].map(Some).contains(at) { 404 } else { 400 };
        if reply.status != status {
            wrong.push(format!("{sql}: {} {}", reply.status, reply.body));
            continue;
        }
        reply.assert_problem(status, sql);
        // What only its value makes wrong has been taken out of the text as a parameter; the message shows the value.
        if reply.body["code"] == "sql-value" {
            continue;
        }
        let found = (reply.body["line"].as_u64(), reply.body["column"].as_u64());
        let expected = at.map(|at| place(sql, at));
        let right = match expected {
            Some((line, column)) => found == (Some(line), Some(column)),
            None => found.0.is_some() && found.1.is_some(),
        };
        if !right {
            wrong.push(format!("{sql}: at {found:?} instead of {expected:?}: {}", reply.body));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(running.is_alive());
    assert_eq!(running.client.query("select count(*) from gmv_hour").status, 200);
}

#[test]
fn huge_and_deeply_nested_queries_are_refused_quickly() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    let client = &running.client;
    let nested = |open: &str, middle: &str, close: &str, depth: usize| {
        format!("select {}{middle}{} from gmv_hour", open.repeat(depth), close.repeat(depth))
    };
    let or_chain = |terms: usize| format!("select gmv from gmv_hour where {}gmv = 1", "gmv = 2 or ".repeat(terms));
    let mut cases = vec![
        ("10 MB of text".to_owned(), format!("select '{}' from gmv_hour", "x".repeat(10 << 20))),
        ("10 MB of terms".to_owned(), or_chain(900_000)),
        ("10 MB of spaces".to_owned(), format!("select gmv{}from gmv_hour nope", " ".repeat(10 << 20))),
        ("a long list".to_owned(), format!("select gmv from gmv_hour where gmv in ({}1)", "1,".repeat(500_000))),
    ];
    for depth in [2_000, 60_000] {
        cases.push((format!("{depth} parentheses"), nested("(", "gmv", ")", depth)));
        cases.push((format!("{depth} open parentheses"), nested("(", "gmv", "", depth)));
        cases.push((format!("{depth} times not"), nested("not ", "true", "", depth)));
        cases.push((format!("{depth} times minus"), nested("- ", "gmv", "", depth)));
        cases.push((format!("{depth} coalesces"), nested("coalesce(", "gmv", ")", depth)));
        cases.push((format!("{depth} cases"), nested("case when true then ", "gmv", " end", depth)));
        cases.push((format!("{depth} casts"), nested("cast(", "gmv", " as int)", depth)));
        cases.push((format!("{depth} subqueries"), nested("(select ", "1", ")", depth)));
        cases.push((format!("{depth} brackets"), nested("[", "1", "]", depth)));
        cases.push((format!("{depth} terms"), or_chain(depth)));
        cases.push((format!("{depth} additions"), nested("1 + ", "gmv", "", depth)));
    }
    for (what, sql) in cases {
        let started = std::time::Instant::now();
        let reply = client.query(&sql);
        assert!(reply.status == 400 || reply.status == 413, "{what}: {} {}", reply.status, reply.body);
        reply.assert_problem(reply.status, &what);
        assert!(started.elapsed().as_secs() < 3, "{what} took {:?}", started.elapsed());
    }
    // A moderate one is fine.
    assert_eq!(client.query(&nested("(", "gmv", ")", 10)).status, 200);
    assert_eq!(client.query(&or_chain(30)).status, 200);
    let peak_mib = running.peak_bytes() >> 20;
    assert!(peak_mib < 400, "{peak_mib} MiB");
    assert!(running.is_alive());
}

#[test]
fn a_request_that_is_no_query_is_refused() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    let client = &running.client;
    let deep = format!("{{\"sql\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, body) in [
        ("nothing", String::new()),
        ("no JSON", "select 1".to_owned()),
        ("a list", "[]".to_owned()),
        ("no sql", "{}".to_owned()),
        ("a number for sql", r#"{"sql": 7}"#.to_owned()),
        ("an unknown requirement", r#"{"sql": "select gmv from gmv_hour", "require": "perfect"}"#.to_owned()),
        ("text for an age", r#"{"sql": "select gmv from gmv_hour", "max_age_ms": "old"}"#.to_owned()),
        ("a negative age", r#"{"sql": "select gmv from gmv_hour", "max_age_ms": -1}"#.to_owned()),
        ("an unknown member", r#"{"sql": "select gmv from gmv_hour", "nonsense": 1}"#.to_owned()),
        ("deep nesting", deep),
        ("JSON cut short", r#"{"sql": "select gmv"#.to_owned()),
    ] {
        let reply = client.block_on(client.http.post_query(body)).expect("the server answers");
        reply.assert_problem(400, what);
    }
    let wrong_method = client.block_on(client.http.get("/api/v1/query")).expect("the server answers");
    wrong_method.assert_problem(405, "GET");
    let huge = json!({ "sql": "x".repeat(64 << 20) }).to_string();
    // A server that has said no need not read the rest.
    if let Ok(reply) = client.block_on(client.http.post_query(huge)) {
        reply.assert_problem(413, "64 MB");
    }
    assert!(running.is_alive());
}

#[test]
fn arithmetic_that_leaves_its_range_is_an_error_or_null_but_never_wrong() {
    let sandbox = Sandbox::new(&shop::config());
    let mut running = sandbox.start();
    let client = &running.client;
    let body = format!("{}1,1,paid,web,9999999999.99,7,2026-03-27T10:00:00Z\n", shop::ORDERS_HEADER);
    client.ingest("orders", CSV, None, body).receipt();
    client.settled("select gmv from gmv_hour", crate::client::now_ms());
    let mut wrong = Vec::new();
    for sql in [
        "select gmv / 0 as x from gmv_hour",
        "select orders / 0 as x from gmv_hour",
        "select gmv / (orders - 1) as x from gmv_hour",
        "select orders * 9223372036854775807 * 9223372036854775807 as x from gmv_hour",
        "select orders + 9223372036854775807 as x from gmv_hour",
        "select -(-9223372036854775807 - orders) as x from gmv_hour",
        "select gmv * gmv * gmv * gmv * gmv as x from gmv_hour",
        "select cast(gmv as decimal(3,2)) as x from gmv_hour",
        "select cast(channel as int) as x from gmv_hour",
        "select cast(channel as timestamp) as x from gmv_hour",
        "select window_start + interval '9999999 years' as x from gmv_hour",
        "select window_start - interval '3000000 days' as x from gmv_hour",
    ] {
        let reply = client.query(sql);
        if reply.status == 200 {
            if !reply.answer().rows.iter().all(|row| row[0].is_null()) {
                wrong.push(format!("{sql}: {}", reply.body["rows"]));
            }
        } else if !(400..500).contains(&reply.status) {
            wrong.push(format!("{sql}: {} {}", reply.status, reply.body));
        } else {
            reply.assert_problem(reply.status, sql);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(running.is_alive());
}
