//! What people and programs ask a node by HTTP, one request after the other.
//!
//! Invariant: what a node says is passed on as it is; nothing is asked twice here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::truth::{Batch, Table};

const WITHIN: Duration = Duration::from_secs(10);

pub struct Client {
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
}

/// An answer to the query that all stories ask.
#[derive(Debug)]
pub struct Answer {
    pub table: Table,
    pub exact: bool,
    pub as_of_ms: i64,
}

impl Answer {
    pub fn orders(&self) -> u64 {
        self.table.values().map(|(orders, _)| orders).sum()
    }
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292,000,000")
}

impl Client {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let http = reqwest::Client::builder().no_proxy().timeout(WITHIN).build().expect("a client");
        Self { runtime, http }
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| format!("{error:?}"))?;
            let (status, text) = (response.status(), response.text().await.map_err(|error| error.to_string())?);
            match status.is_success() {
                true => Ok(serde_json::from_str(&text).unwrap_or(Value::String(text))),
                false => Err(format!("{status}: {text}")),
            }
        })
    }

    pub fn get(&self, port: u16, path: &str) -> Result<Value, String> {
        self.send(self.http.get(format!("http://127.0.0.1:{port}{path}")))
    }

    /// Rows accepted, and rows known already.
    pub fn ingest(&self, port: u16, batch: &Batch) -> Result<(u64, u64), String> {
        let request = self.http.post(format!("http://127.0.0.1:{port}/api/v1/ingest/orders"));
        let request = request.header("content-type", "text/csv").header("idempotency-key", batch.key());
        let receipt = self.send(request.body(batch.csv()))?;
        let count = |name: &str| receipt[name].as_u64().unwrap_or_else(|| panic!("no {name} in {receipt}"));
        Ok((count("accepted"), count("duplicate")))
    }

    pub fn query(&self, port: u16) -> Result<Answer, String> {
        let sql = "select window_start, merchant_id, orders, gmv from gmv_hour";
        let request = self.http.post(format!("http://127.0.0.1:{port}/api/v1/query")).json(&json!({ "sql": sql }));
        let answer = self.send(request)?;
        let as_of = answer["quality"]["as_of"].as_str().and_then(|it| chrono::DateTime::parse_from_rfc3339(it).ok());
        let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("no rows in {answer}"));
        Ok(Answer {
            table: rows.iter().map(row).collect(),
            exact: answer["quality"]["exact"].as_bool().expect("an answer says whether it is exact"),
            as_of_ms: as_of.map_or(0, |at| at.timestamp_millis()),
        })
    }
}

fn row(row: &Value) -> ((String, u64), (u64, u64)) {
    let text = |index: usize| match &row[index] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let number = |index: usize| text(index).parse().unwrap_or_else(|_| panic!("no number at {index} in {row}"));
    let cents = text(3).replace('.', "").parse().unwrap_or_else(|_| panic!("no amount in {row}"));
    ((text(0), number(1)), (number(2), cents))
}
