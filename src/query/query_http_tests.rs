//! The wire: forms, headers, problems.

use actix_web::http::StatusCode;
use actix_web::{App, test};
use serde_json::{Value, json as value};

use super::*;
use crate::query::fixture::{World, row};
use crate::query::settings::Settings;

async fn ask(
    world: World,
    body: impl Into<String>,
    accept: Option<&str>,
) -> (StatusCode, Vec<(String, String)>, Vec<u8>) {
    let service = web::Data::new(world.service);
    let app = test::init_service(App::new().app_data(service).configure(routes)).await;
    let mut request = test::TestRequest::post().uri("/api/v1/query").set_payload(body.into());
    if let Some(accept) = accept {
        request = request.insert_header((header::ACCEPT, accept));
    }
    let response = test::call_service(&app, request.to_request()).await;
    let status = response.status();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned())).collect();
    (status, headers, test::read_body(response).await.to_vec())
}

fn header_of<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

async fn world() -> World {
    let world = World::started().await;
    world.emit_all(1, &[row(1, 42, "web", 2, 8_800), row(2, 42, "app", 3, 123_450)]).await;
    world.clock.advance(830);
    world
}

const SQL: &str = "select channel, sum(gmv) as gmv from gmv_hour where merchant_id = 42 and window_start >= '2026-11-22' \
                   group by channel order by gmv desc";

#[actix_web::test]
async fn an_answer_is_what_the_interface_shows() {
    let body = value!({"sql": SQL, "require": "any", "max_age_ms": 5000, "max_missing": 0}).to_string();
    let (status, headers, body) = ask(world().await, body, None).await;
    assert_eq!(status, 200);
    assert_eq!(header_of(&headers, "content-type"), Some("application/json"));
    assert!(header_of(&headers, "server-timing").expect("timing").starts_with("plan;dur="));
    let mut found: Value = serde_json::from_slice(&body).expect("JSON");
    assert!(found["took_us"].take().is_u64());
    let expected = value!({
        "columns": [{"name": "channel", "type": "text"}, {"name": "gmv", "type": "decimal(38,2)"}],
        "rows": [["app", "1234.50"], ["web", "88.00"]],
        "quality": {
            "exact": true, "as_of": "2026-11-22T10:00:00.000Z", "age_ms": 830, "served_by": ["cache"],
            "missing_changes": 0, "missing": [], "unavailable": [],
            "modes": {"mq": "normal", "kv": "normal", "hot": "normal", "cache": "normal", "cold": "normal"},
        },
        "took_us": null,
    });
    assert_eq!(found, expected);
}

#[actix_web::test]
async fn other_forms_carry_the_quality_in_a_header() {
    let body = value!({"sql": SQL}).to_string();
    let (status, headers, csv) = ask(world().await, body.clone(), Some("text/csv")).await;
    assert_eq!((status, csv.as_slice()), (StatusCode::OK, b"channel,gmv\r\napp,1234.50\r\nweb,88.00\r\n".as_slice()));
    let quality: Value = serde_json::from_str(header_of(&headers, "holdfast-quality").expect("quality")).expect("JSON");
    assert_eq!(quality["exact"], true);
    let arrow = "application/vnd.apache.arrow.stream";
    let (status, headers, stream) = ask(world().await, body.clone(), Some(arrow)).await;
    assert_eq!((status, header_of(&headers, "content-type")), (StatusCode::OK, Some(arrow)));
    let mut reader = arrow::ipc::reader::StreamReader::try_new(stream.as_slice(), None).expect("a stream");
    assert_eq!(reader.next().expect("a batch").expect("rows").num_rows(), 2);
    let (status, ..) = ask(world().await, body, Some("image/png")).await;
    assert_eq!(status, StatusCode::NOT_ACCEPTABLE);
}

#[actix_web::test]
async fn refusals_are_problems_with_code_and_place() {
    let sql = |text: &str| value!({"sql": text}).to_string();
    let huge = sql(&"x".repeat(70 << 10));
    let deep = sql(&format!("select {}", "(".repeat(60_000)));
    for (body, status, code, members) in [
        ("{".to_owned(), 400, "body-invalid", vec!["line", "column"]),
        (value!({"sql": "select 1", "max_age": 5}).to_string(), 400, "body-invalid", vec![]),
        (sql("select chanel from gmv_hour"), 400, "sql-invalid", vec!["line", "column"]),
        (sql("drop table gmv_hour"), 400, "sql-invalid", vec![]),
        (deep, 400, "sql-invalid", vec![]),
        (sql("select a from gmv_huor"), 404, "metric-table-unknown", vec!["near"]),
        (huge, 413, "query-too-long", vec![]),
        ("x".repeat(1 << 20), 413, "query-too-long", vec![]),
    ] {
        let (found, headers, document) = ask(world().await, body.clone(), None).await;
        let document: Value = serde_json::from_slice(&document).expect("a problem");
        let start: String = body.chars().take(60).collect();
        assert_eq!((found.as_u16(), &document["code"]), (status, &Value::from(code)), "{start} {document}");
        assert_eq!(header_of(&headers, "content-type"), Some("application/problem+json"));
        assert!(members.iter().all(|member| !document[member].is_null()), "{document}");
    }
}

#[actix_web::test]
async fn a_wrong_name_is_shown_with_a_caret() {
    let (_, _, body) = ask(world().await, value!({"sql": "select chanel from gmv_hour"}).to_string(), None).await;
    let problem: Value = serde_json::from_slice(&body).expect("a problem");
    let detail = problem["detail"].as_str().expect("a text");
    assert!(detail.contains("\n  select chanel from gmv_hour\n         ^"), "{detail}");
}

#[actix_web::test]
async fn limits_and_quality_say_when_to_come_again() {
    let world = World::new(|settings: &mut Settings| (settings.rate, settings.burst) = (1, 1));
    let body = value!({"sql": SQL, "require": "exact"}).to_string();
    let service = web::Data::new(world.service);
    let app = test::init_service(App::new().app_data(service).configure(routes)).await;
    for (status, code) in [(503, "quality-not-met"), (429, "query-limit")] {
        let request = test::TestRequest::post().uri("/api/v1/query").set_payload(body.clone()).to_request();
        let response = test::call_service(&app, request).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().get("retry-after").expect("a time"), "1");
        let document: Value = test::read_body_json(response).await;
        assert_eq!(document["code"], code);
    }
}

#[actix_web::test]
async fn the_catalog_lists_tables_metrics_and_columns() {
    let service = web::Data::new(World::new(|_| {}).service);
    let app = test::init_service(App::new().app_data(service).configure(routes)).await;
    let request = test::TestRequest::get().uri("/api/v1/metrics-catalog").to_request();
    let found: Value = test::call_and_read_body_json(&app, request).await;
    assert_eq!(found["tables"][0]["partition_by"], "merchant_id");
    assert_eq!(found["metrics"][0]["group_by"], value!(["merchant_id", "channel"]));
    assert_eq!(found["metrics"][0]["select"][1], value!({"name": "gmv", "function": "sum", "type": "decimal(38,2)"}));
    assert_eq!(found["metric_tables"][0]["name"], "gmv_hour");
    assert_eq!(found["metric_tables"][0]["columns"][0], value!({"name": "window_start", "type": "timestamp"}));
}
