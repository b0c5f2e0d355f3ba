//! Mutated requests and queries by the thousand, seeded: whatever comes, the process answers and lives.
//!
//! Invariant: no input becomes a 5xx; what is accepted is counted and what is refused is not.

use crate::client::{CSV, NDJSON, Reply};
use crate::random::{Random, seeds};
use crate::sandbox::Sandbox;
use crate::shop;

const REQUESTS: usize = 3_000;
const QUERIES: usize = 6_000;

#[rustfmt::skip]
const CSV_PIECES: &[&str] = &[
    ",", "\n", "\"", "\"\"", "\r\n", "\0", "-", ".", "1e9", "99999999999999999999", "NaN", "null", "é", "2026-02-30",
    " ", "paid", "2026-03-27T10:00:00+14:00", "\u{feff}", "0", "'",
];
#[rustfmt::skip]
const JSON_PIECES: &[&str] = &[
    "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u0000", "\\ud800", "null", "true", "1e999", "-0", "0.1", "\n",
    "\"_op\":", "\"delete\"", "\"update\"", "\"_before\":{", "\"order_id\":1", " ", "\u{feff}", "é",
    "99999999999999999999",
];
#[rustfmt::skip]
const SQL_PIECES: &[&str] = &[
    "select", "from", "where", "group by", "having", "order by", "limit", "offset", "gmv_hour", "gmv_day", "gmv",
    "orders", "channel", "merchant_id", "window_start", "basket", "buyers", "*", ",", "(", ")", "+", "-", "/", "%",
    "=", "<>", "<", ">=", "and", "or", "not", "in", "between", "like", "is null", "is not null", "case when", "then",
    "else", "end", "cast(", "as int)", "as decimal(10,2))", "as text)", "coalesce(", "sum(", "avg(", "min(", "max(",
    "count(*)", "count(", "date_trunc('day',", "interval '1 day'", "now()", "timestamp '2026-03-27'", "'2026-03-27'",
    "'web'", "'%'", "''", "1", "0", "-1", "2.5", "9223372036854775807", "1e400", "null", "true", "as x", "x", "asc",
    "desc", "nulls first", "nulls last", ";", "--", "/*", "\"gmv\"", "$1", "?", "é", "\u{1F600}", "\\", "distinct",
    "over ()", "[1]", ".", "::int", "1 = 1",
];

/// Some pieces put in, taken out, doubled or cut.
fn mutated(text: &str, pieces: &[&str], random: &mut Random) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..random.between(1, 4) {
        let at = random.index(text.len() + 1);
        let upto = (at + random.between(0, 12) as usize).min(text.len());
        match random.between(1, 4) {
            1 => drop(text.splice(at..at, random.pick(pieces).chars())),
            2 => drop(text.splice(at..upto, random.pick(pieces).chars())),
            3 => drop(text.drain(at..upto)),
            _ => {
                let copy = text[at..upto].to_vec();
                drop(text.splice(at..at, copy));
            }
        }
    }
    text.into_iter().collect()
}

fn assert_answered(reply: &Reply, statuses: &[u16], what: &str) {
    assert!(statuses.contains(&reply.status), "{what:?}: {} {}", reply.status, reply.body);
    if reply.status != 200 {
        reply.assert_problem(reply.status, what);
    }
}

#[test]
fn mutated_bodies_are_counted_or_refused() {
    for seed in seeds(&[11]) {
        println!("HOLDFAST_SEED={seed}");
        let mut random = Random::new(seed);
        let sandbox = Sandbox::new(&shop::config());
        let mut running = sandbox.start();
        let csv = shop::ORDERS_HEADER.to_owned()
            + "1,1,paid,web,1.00,7,2026-03-27T10:00:00Z\n2,2,placed,\"a \"\"b\"\"\",-2.50,,2026-03-27T11:00:00Z\n";
        let ndjson = "{\"_op\":\"insert\",\"order_id\":1,\"merchant_id\":1,\"status\":\"paid\",\"channel\":\"w\\u0065b\",\"amount\":1.5,\
                      \"buyer_id\":7,\"paid_at\":\"2026-03-27T10:00:00Z\"}\n{\"_op\":\"update\",\"_before\":{\"order_id\":2,\"merchant_id\":1,\
                      \"amount\":\"2.5\"},\"order_id\":2,\"merchant_id\":2,\"status\":null}\n";
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..REQUESTS {
            let (content_type, body) = match random.chance(50) {
                true => (CSV, mutated(&csv, CSV_PIECES, &mut random)),
                false => (NDJSON, mutated(ndjson, JSON_PIECES, &mut random)),
            };
            let reply = running.client.ingest("orders", content_type, None, body.clone());
            assert_answered(&reply, &[200, 422], &body);
            if reply.status == 200 {
                let receipt = reply.receipt();
                assert_eq!((receipt.shed, receipt.duplicate), (0, 0), "{body:?}");
                accepted += 1;
            } else {
                refused += 1;
            }
        }
        assert!(accepted > REQUESTS / 100 && refused > REQUESTS / 10, "{accepted} accepted, {refused} refused");
        // It still counts, and exactly.
        let count = "select sum(orders) from placed_day where merchant_id = 4711";
        let row = format!("{}1,4711,paid,web,1.00,7,2026-03-27T10:00:00Z\n", shop::ORDERS_HEADER);
        running.client.ingest("orders", CSV, None, row).receipt();
        assert_eq!(running.client.settled_number(count), 1);
        assert!(running.is_alive());
    }
}

#[test]
fn mutated_queries_are_answered_or_refused() {
    for seed in seeds(&[12]) {
        println!("HOLDFAST_SEED={seed}");
        let mut random = Random::new(seed);
        let sandbox = Sandbox::new(&shop::config());
        let mut running = sandbox.start();
        let rows: String = (0..200)
            .map(|id| format!("{id},{},paid,web,{}.25,{},2026-03-27T{:02}:00:00Z\n", id % 5, id - 90, id % 9, id % 24))
            .collect();
        running.client.ingest("orders", CSV, None, format!("{}{rows}", shop::ORDERS_HEADER)).receipt();
        let models = [
            "select channel, sum(gmv) as x, avg(basket) from gmv_hour where merchant_id = 3 and window_start >= '2026-03-27' \
             group by channel having sum(orders) > 1 order by x desc nulls last limit 5 offset 0",
            "select date_trunc('day', window_start), case when gmv > 2.5 then 'big' else channel end, cast(gmv as decimal(10,2)) \
             from gmv_day where channel like 'w%' or merchant_id in (1, 2, 3) and not gmv between -1 and 1",
            "select coalesce(basket, 0) * 2 - orders / 3, now() - interval '1 hour' < window_start from gmv_hour \
             where channel is not null order by 1, window_start",
        ];
        let (mut answered, mut refused) = (0, 0);
        for number in 0..QUERIES {
            let sql = if number % 3 == 0 {
                let words: Vec<&str> = (0..random.between(1, 25)).map(|_| *random.pick(SQL_PIECES)).collect();
                format!("select {} from gmv_hour {}", random.pick(SQL_PIECES), words.join(" "))
            } else {
                mutated(models[random.index(models.len())], SQL_PIECES, &mut random)
            };
            let reply = running.client.query(&sql);
            if reply.is_busy() {
                std::thread::sleep(std::time::Duration::from_millis(20));
                continue;
            }
            assert_answered(&reply, &[200, 400, 404, 422], &sql);
            if reply.status == 200 {
                answered += 1;
            } else {
                refused += 1;
            }
        }
        println!("{answered} mutated queries answered, {refused} refused");
        assert!(answered > QUERIES / 100 && refused > QUERIES / 10);
        assert!(running.is_alive());
    }
}
