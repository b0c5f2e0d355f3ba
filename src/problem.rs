//! What every HTTP error looks like: `application/problem+json` (RFC 9457) with a stable `type` and `code`.
//!
//! Invariant: a code names one kind of problem for good; `type` is `urn:holdfast:problem:<code>`, 429 and 503 say when to
//! come again.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Said by 429 and 503 where nothing better is known.
const RETRY_AFTER_S: u64 = 1;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    /// Stable, kebab-case: what scripts compare.
    pub code: &'static str,
    /// The same words for every problem of this code.
    pub title: &'static str,
    /// What is wrong this time, and what to do.
    pub detail: String,
    /// Further members of the document, such as `line` and `column`.
    pub extra: Map<String, Value>,
    /// Seconds; becomes `Retry-After`.
    pub retry_after_s: Option<u64>,
}

/// A problem as JSON; it may have further members.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Problem")]
pub struct ProblemDocument {
    /// `urn:holdfast:problem:<code>`
    #[serde(rename = "type")]
    #[schema(example = "urn:holdfast:problem:bad-row")]
    kind: String,
    title: String,
    status: u16,
    code: String,
    detail: String,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let waits = status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after_s = waits.then_some(RETRY_AFTER_S);
        Self { status, code, title, detail: detail.into(), extra: Map::new(), retry_after_s }
    }

    /// Adds a member to the document.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// Says when to come again.
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            kind: format!("urn:holdfast:problem:{}", self.code),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            extra: self.extra.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        let body = serde_json::to_string(&self.document()).expect("strings and JSON values always serialize");
        response.content_type(PROBLEM_JSON).body(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn a_problem_is_a_document_with_a_stable_type_and_says_when_to_come_again() {
        let problem =
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "ingest-busy", "Too busy", "try later").with("line", 3);
        let response = problem.error_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers().get("content-type").expect("a type"), PROBLEM_JSON);
        assert_eq!(response.headers().get("retry-after").expect("a time"), "1");
        let body = actix_web::body::to_bytes(response.into_body()).await.expect("a body in memory");
        let body: Value = serde_json::from_slice(&body).expect("a JSON document");
        assert_eq!(body["type"], "urn:holdfast:problem:ingest-busy");
        assert_eq!((&body["code"], &body["line"]), (&Value::from("ingest-busy"), &Value::from(3)));
    }
}
