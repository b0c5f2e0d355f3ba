//! Ingest over HTTP, with real gates on memory tiers.

use std::collections::HashMap;

use actix::Actor;
use actix_web::body::to_bytes;
use actix_web::http::Method;
use actix_web::{App, test};
use serde_json::Value;

use super::super::gate_actor::{GateActor, GateParts};
use super::super::offer_service::Gates;
use super::*;
use crate::clock::Clock;
use crate::kv::Kv;
use crate::kv::memory::MemoryKv;
use crate::model::id::Tip;
use crate::model::rows::{body_schema, decode_rows};
use crate::model::schema::TableConfig;
use crate::model::units::{ByteSize, Millis};
use crate::model::window::Calendar;
use crate::mq::Mq;
use crate::mq::memory::MemoryMq;

const PARTITIONS: u16 = 4;

struct Stage {
    mq: Arc<MemoryMq>,
    kv: Arc<MemoryKv>,
    state: web::Data<IngestState>,
    table: Arc<Table>,
}

fn catalog() -> Arc<Catalog> {
    let orders: TableConfig = toml::from_str(
        r#"
        name = "orders"
        key = ["order_id"]
        partition_by = "merchant_id"
        time = "paid_at"
        columns = { order_id = "int", merchant_id = "int", amount = "decimal(12,2)", paid_at = "timestamp" }
        "#,
    )
    .expect("a table");
    Arc::new(Catalog::new(&[orders], &[], Calendar::utc()).expect("a catalog"))
}

fn stage(settings: Settings, absent: Option<PartitionId>) -> Stage {
    let (mq, kv) = (Arc::new(MemoryMq::new(PARTITIONS)), Arc::new(MemoryKv::new(PARTITIONS)));
    let (settings, metrics) = (Arc::new(settings), Metrics::default());
    let mut gates = HashMap::new();
    for partition in (0..PARTITIONS).map(PartitionId).filter(|partition| Some(*partition) != absent) {
        let parts = GateParts {
            partition,
            epoch: 1,
            mq: mq.clone(),
            kv: kv.clone(),
            owners: Arc::new(()),
            settings: settings.clone(),
            clock: Clock::System,
            metrics: metrics.clone(),
        };
        gates.insert(partition, GateActor::new(parts).start());
    }
    let catalog = catalog();
    let table = catalog.table("orders").expect("it was just made").clone();
    let gates: Gates = Arc::new(move |partition| gates.get(&partition).cloned());
    let offers = Offers::new(gates, None, settings.publish_timeout);
    let state = web::Data::new(IngestState::new(catalog, PARTITIONS, offers, settings, metrics));
    Stage { mq, kv, state, table }
}

struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl Stage {
    async fn post(&self, table: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let app = test::init_service(App::new().app_data(self.state.clone()).configure(routes)).await;
        let mut request = test::TestRequest::with_uri(&format!("/api/v1/ingest/{table}")).method(Method::POST);
        for header in headers {
            request = request.insert_header(*header);
        }
        let response = test::call_service(&app, request.set_payload(body).to_request()).await;
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
        let body = to_bytes(response.into_body()).await.expect("a body in memory");
        Answer { status, retry_after, body: serde_json::from_slice(&body).expect("JSON") }
    }

    async fn post_csv(&self, body: impl Into<Bytes>) -> Answer {
        self.post("orders", &[("content-type", "text/csv; charset=utf-8")], body).await
    }

    /// Batches in mq, over all partitions.
    async fn batches(&self) -> Vec<crate::model::batch::Batch> {
        let mut all = Vec::new();
        for partition in (0..PARTITIONS).map(PartitionId) {
            let read = self.mq.read(partition, 0, usize::MAX).await.expect("mq is up");
            all.extend(read.batches.into_iter().map(|(_, batch)| batch));
        }
        all
    }
}

fn csv(rows: std::ops::Range<u32>) -> String {
    let rows: String = rows.map(|row| format!("{row},{row},{}.50,2026-11-22 10:03:04\n", row)).collect();
    format!("order_id,merchant_id,amount,paid_at\n{rows}")
}

#[actix_web::test]
async fn acknowledged_rows_are_in_mq_in_the_partition_of_their_key() {
    let stage = stage(Settings::for_tests(), None);
    let answer = stage.post_csv(csv(0..100)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let report: IngestReport = serde_json::from_value(answer.body).expect("a report");
    assert_eq!(report, IngestReport { accepted: 100, shed: 0, duplicate: 0, durability: Durability::Mq });
    let batches = stage.batches().await;
    assert_eq!(batches.len(), usize::from(PARTITIONS));
    let schema = body_schema(&stage.table, false, false);
    let rows = |batch: &crate::model::batch::Batch| decode_rows(&schema, &batch.body).expect("rows").num_rows();
    assert_eq!(batches.iter().map(rows).sum::<usize>(), 100);
    assert!(batches.iter().all(|batch| batch.header.rows as usize == rows(batch) && batch.header.hours.is_some()));
    assert_eq!(stage.post_csv("order_id,merchant_id\n").await.body["accepted"], 0);
}

#[actix_web::test]
async fn ndjson_changes_count_once_each_and_a_retry_with_its_key_not_at_all() {
    let stage = stage(Settings::for_tests(), None);
    let headers = [("content-type", "application/x-ndjson"), ("idempotency-key", "import-7")];
    let body = r#"{"order_id":1,"merchant_id":1}
        {"_op":"update","order_id":1,"merchant_id":2,"_before":{"order_id":1,"merchant_id":1}}
        {"_op":"delete","order_id":1,"merchant_id":2}"#;
    let first = stage.post("orders", &headers, body).await;
    assert_eq!((first.status, &first.body["accepted"]), (200, &Value::from(3)), "{}", first.body);
    let rows: u32 = stage.batches().await.iter().map(|batch| batch.header.rows).sum();
    assert_eq!(rows, 4, "an update is two rows");
    let again = stage.post("orders", &headers, body).await;
    assert_eq!((&again.body["accepted"], &again.body["duplicate"]), (&Value::from(0), &Value::from(3)));
    let other = stage.post("orders", &headers, body.lines().next().expect("a line").to_owned()).await;
    assert_eq!((other.status, &other.body["code"]), (422, &Value::from("idempotency-key-reused")), "{}", other.body);
}

#[actix_web::test]
async fn a_bad_row_is_named_and_nothing_of_its_request_counts() {
    let stage = stage(Settings::for_tests(), None);
    let answer = stage.post_csv(format!("{}7,7,0.001,\n", csv(0..50))).await;
    assert_eq!(answer.status, 422);
    let body = &answer.body;
    assert_eq!((&body["code"], &body["line"], &body["column"]), (&"bad-row".into(), &52.into(), &"amount".into()));
    assert_eq!((&body["type"], &body["value"]), (&"urn:holdfast:problem:bad-row".into(), &"0.001".into()));
    assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("nothing of the request was counted")));
    assert_eq!(stage.batches().await, []);
}

#[actix_web::test]
async fn requests_that_cannot_be_are_refused_with_their_reason() {
    let stage = stage(Settings::for_tests(), None);
    let csv_type = ("content-type", "text/csv");
    let long_key = "k".repeat(129);
    for (table, headers, status, code) in [
        ("nowhere", vec![csv_type], 404, "unknown-table"),
        ("orders", vec![], 415, "unsupported-media-type"),
        ("orders", vec![("content-type", "application/json")], 415, "unsupported-media-type"),
        ("orders", vec![csv_type, ("content-encoding", "gzip")], 415, "unsupported-media-type"),
        ("orders", vec![csv_type, ("idempotency-key", "")], 400, "bad-idempotency-key"),
        ("orders", vec![csv_type, ("idempotency-key", "a b")], 400, "bad-idempotency-key"),
        ("orders", vec![csv_type, ("idempotency-key", &long_key)], 400, "bad-idempotency-key"),
    ] {
        let answer = stage.post(table, &headers, csv(0..1)).await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &code.into()), "{headers:?}");
    }
    let unknown = stage.post("nowhere", &[csv_type], csv(0..1)).await;
    assert_eq!(unknown.body["tables"], Value::from(vec!["orders"]));
    assert_eq!(stage.batches().await, []);
}

#[actix_web::test]
async fn i6_what_is_too_large_is_refused_early() {
    let stage = stage(Settings::for_tests(), None);
    let body = Bytes::from(vec![b'x'; (1 << 20) + 1]);
    assert_eq!(stage.post_csv(body.clone()).await.status, 413);
    let line = stage.post_csv(body.slice(..1 << 19)).await;
    assert_eq!((line.status, &line.body["line"]), (422, &1.into()), "{}", line.body);
    assert_eq!(stage.post_csv(csv(0..10_001)).await.status, 413);
}

#[actix_web::test]
async fn i6_without_memory_a_request_waits_and_is_then_told_to_come_again() {
    let settings = Settings { ingest_memory: ByteSize(1 << 20), ingest_wait: Millis(20), ..Settings::for_tests() };
    let stage = stage(settings, None);
    let held = stage.state.memory.clone().acquire_many_owned(1_000).await.expect("it is open");
    let answer = stage.post_csv(csv(0..100)).await;
    assert_eq!(
        (answer.status, answer.retry_after.as_deref(), &answer.body["code"]),
        (429, Some("1"), &"ingest-busy".into())
    );
    drop(held);
    assert_eq!(stage.post_csv(csv(0..100)).await.status, 200);
    assert_eq!(stage.state.memory.available_permits(), 1 << 10, "all memory is given back");
}

#[actix_web::test]
async fn a_request_that_was_taken_in_part_says_whether_a_retry_is_safe() {
    let settings = Settings { publish_timeout: Millis(100), ..Settings::for_tests() };
    let stage = stage(settings, Some(PartitionId(2)));
    let partial = stage.post_csv(csv(0..100)).await;
    assert_eq!((partial.status, &partial.body["code"]), (503, &"partly-taken".into()), "{}", partial.body);
    assert_eq!((partial.retry_after.as_deref(), &partial.body["retry_safe"]), (Some("1"), &false.into()));
    let keyed = [("content-type", "text/csv"), ("idempotency-key", "k")];
    assert_eq!(stage.post("orders", &keyed, csv(0..100)).await.body["retry_safe"], true);
    let lost = (0..100).find(|row| crate::model::id::partition_of_int(i64::from(*row), PARTITIONS) == PartitionId(2));
    let row = lost.expect("some row belongs there");
    let none = stage.post_csv(csv(row..row + 1)).await;
    assert_eq!((none.status, &none.body["code"]), (503, &"ingest-unavailable".into()), "nothing was taken");
}

#[actix_web::test]
async fn an_unreachable_kv_delays_rows_and_refuses_none() {
    let stage = stage(Settings::for_tests(), None);
    stage.kv.set_up(false);
    assert_eq!(stage.post_csv(csv(0..10)).await.status, 200);
    stage.kv.set_up(true);
    let mut rows = 0;
    for _ in 0..1_000 {
        rows = 0;
        for partition in (0..PARTITIONS).map(PartitionId) {
            if let Ok(crate::kv::ChunkRead::Next(chunks)) = stage.kv.chunks(partition, Tip::default(), usize::MAX).await
            {
                rows += chunks.iter().map(crate::model::batch::Chunk::rows).sum::<usize>();
            }
        }
        if rows == 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rows, 10);
}
