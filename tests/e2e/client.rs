//! A client of the HTTP interface: ingest with a key, query, wait until an answer is settled.
//!
//! Invariant: what the server says is passed on as it is; only refusals that ask for it (429, 503) are repeated.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Value, json};

/// How long answers may take to take in what was acknowledged.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

pub const CSV: &str = "text/csv";
pub const NDJSON: &str = "application/x-ndjson";

/// A status with its body, as JSON where it is JSON.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub retry_after: Option<String>,
    pub body: Value,
}

/// What an ingest request was answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    pub accepted: u64,
    pub shed: u64,
    pub duplicate: u64,
    pub durability: String,
}

/// An answer to a query.
#[derive(Debug, Clone)]
pub struct Answer {
    pub columns: Vec<(String, String)>,
    pub rows: Vec<Vec<Value>>,
    pub exact: bool,
    pub as_of_ms: Option<i64>,
    pub quality: Value,
}

pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292,000,000")
}

/// HTTP without waiting: what the concurrent tests use.
#[derive(Debug, Clone)]
pub struct Http {
    http: reqwest::Client,
    url: String,
}

/// The same for tests that do one thing after another.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    pub http: Http,
}

impl Http {
    pub async fn ingest(
        &self,
        table: &str,
        content_type: &str,
        key: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> reqwest::Result<Reply> {
        let request =
            self.http.post(format!("{}/api/v1/ingest/{table}", self.url)).header("content-type", content_type);
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        read(request.body(body).send().await?).await
    }

    pub async fn post_query(&self, body: impl Into<reqwest::Body>) -> reqwest::Result<Reply> {
        let request = self.http.post(format!("{}/api/v1/query", self.url)).header("content-type", "application/json");
        read(request.body(body).send().await?).await
    }

    pub async fn query(&self, sql: &str) -> reqwest::Result<Reply> {
        self.post_query(json!({ "sql": sql }).to_string()).await
    }

    pub async fn get(&self, path: &str) -> reqwest::Result<Reply> {
        read(self.http.get(format!("{}{path}", self.url)).send().await?).await
    }
}

async fn read(response: reqwest::Response) -> reqwest::Result<Reply> {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Reply { status, content_type, retry_after, body })
}

impl Reply {
    pub fn receipt(&self) -> Receipt {
        assert_eq!(self.status, 200, "not accepted: {self:?}");
        serde_json::from_value(self.body.clone()).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Whether the server asks to try again.
    pub fn is_busy(&self) -> bool {
        let busy = self.status == 429 || self.status == 503;
        assert!(!busy || self.retry_after.is_some(), "429 and 503 say when to come again: {self:?}");
        busy
    }

    pub fn answer(&self) -> Answer {
        assert_eq!(self.status, 200, "no answer: {self:?}");
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("not a text in {self:?}")).to_owned();
        let list = |value: &Value| value.as_array().unwrap_or_else(|| panic!("not a list in {self:?}")).clone();
        let quality = self.body["quality"].clone();
        let as_of =
            quality["as_of"].as_str().map(|text| DateTime::parse_from_rfc3339(text).expect("as_of is RFC 3339"));
        Answer {
            columns: list(&self.body["columns"]).iter().map(|c| (text(&c["name"]), text(&c["type"]))).collect(),
            rows: list(&self.body["rows"]).iter().map(list).collect(),
            exact: quality["exact"].as_bool().expect("an answer says whether it is exact"),
            as_of_ms: as_of.map(|at| at.timestamp_millis()),
            quality,
        }
    }

    /// Panics unless this is a problem document of this status with everything that one has.
    pub fn assert_problem(&self, status: u16, what: &str) {
        let shown = || serde_json::to_string(&self.body).map(|text| text.chars().take(600).collect::<String>());
        assert_eq!(self.status, status, "{what}: {:?}", shown());
        assert!(self.content_type.starts_with("application/problem+json"), "{what}: {}", self.content_type);
        for member in ["type", "title", "code", "detail"] {
            let text = self.body[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{what}: no {member} in {:?}", shown());
        }
        assert_eq!(self.body["status"], status, "{what}");
        // An error that repeats a huge input would be a problem of its own.
        assert!(self.body.to_string().len() < 4_000, "{what}: {:?}", shown());
    }
}

impl Client {
    pub fn new(url: String) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build();
        Self { runtime, http: Http { http: http.expect("a client"), url } }
    }

    /// Runs a test's concurrent part.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn is_ready(&self) -> bool {
        self.block_on(self.http.get("/readyz")).is_ok_and(|reply| reply.status == 200)
    }

    pub fn ingest(&self, table: &str, content_type: &str, key: Option<&str>, body: impl Into<reqwest::Body>) -> Reply {
        self.block_on(self.http.ingest(table, content_type, key, body)).expect("the server answers")
    }

    pub fn query(&self, sql: &str) -> Reply {
        self.block_on(self.http.query(sql)).expect("the server answers")
    }

    /// Asks until the answer is exact and takes in everything that was acknowledged before `since_ms`. The first such
    /// answer has to be right: there is no second try.
    pub fn settled(&self, sql: &str, since_ms: i64) -> Answer {
        let started = Instant::now();
        loop {
            let reply = self.query(sql);
            if !reply.is_busy() {
                let answer = reply.answer();
                if answer.exact && answer.as_of_ms.is_some_and(|as_of| as_of >= since_ms) {
                    return answer;
                }
            }
            let waited = started.elapsed();
            assert!(
                waited < SETTLE_WITHIN,
                "not exact as of {since_ms} after {waited:?}: {sql}: {:?}",
                reply.body["quality"]
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The one number that a settled query gives; null is zero.
    pub fn settled_number(&self, sql: &str) -> i64 {
        let answer = self.settled(sql, now_ms());
        match &answer.rows[..] {
            [row] => number(&row[0]),
            rows => panic!("one row expected of {sql}: {rows:?}"),
        }
    }
}

/// An int (a JSON number), a decimal without fraction (a string), or null as zero.
pub fn number(value: &Value) -> i64 {
    match value {
        Value::Null => 0,
        Value::Number(number) => number.as_i64().expect("a whole number"),
        Value::String(text) => text.parse().unwrap_or_else(|_| panic!("not a whole number: {text}")),
        other => panic!("not a number: {other}"),
    }
}
