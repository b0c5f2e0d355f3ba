//! `POST /api/v1/query` and `GET /api/v1/metrics-catalog`.
//!
//! Invariant: every refusal is a problem document with a stable code; a request's body is bounded before it is read.

use std::borrow::Cow;
use std::net::IpAddr;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_64;

use super::QueryError;
use super::admission::ClientId;
use super::answer::{Form, arrow_stream, csv, json, quality_header};
use super::query_service::{Answer, QueryService, Request, Timing};
use super::text::{write_digits, write_int};
use super::verdict::{Demand, Quality};
use crate::model::catalog::Catalog;
use crate::model::expr::type_name;
use crate::model::metric::MetricTable;
use crate::model::schema::ColumnType;
use crate::model::sql_error::SqlError;
use crate::net::caller::BoundKey;
use crate::problem::{Problem, ProblemDocument};

/// Carries the quality of answers that are not JSON.
const QUALITY_HEADER: HeaderName = HeaderName::from_static("holdfast-quality");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Answers with more rows are written beside the HTTP workers.
const LARGE_ANSWER_ROWS: usize = 5_000;

/// Adds the query routes; needs `web::Data<QueryService>`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/v1/query").route(web::post().to(query)))
        .service(web::resource("/api/v1/metrics-catalog").route(web::get().to(metrics_catalog)));
}

/// Is a lesser answer better than none?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Require {
    #[default]
    Any,
    Exact,
}

/// A query.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryBody<'a> {
    /// One select over one metric table.
    #[serde(borrow)]
    #[schema(value_type = String, example = "select channel, sum(gmv) as gmv from gmv_hour where merchant_id = 42 group by channel")]
    pub sql: Cow<'a, str>,
    /// `exact`: an answer that is not exact is an error.
    #[serde(default)]
    pub require: Require,
    /// An older answer is an error.
    pub max_age_ms: Option<u64>,
    /// An answer that misses more changes, or an unknown number, is an error.
    pub max_missing: Option<u64>,
}

/// An answer in JSON.
// What `answer::json` writes.
#[derive(Debug, ToSchema)]
pub struct QueryAnswer {
    pub columns: Vec<ColumnDocument>,
    /// Ints, doubles and bools as such; decimals, dates and timestamps (RFC 3339, UTC) as strings.
    #[schema(value_type = Vec<Vec<Object>>)]
    pub rows: Vec<Vec<serde_json::Value>>,
    pub quality: Quality,
    pub took_us: u64,
}

/// A column with its type: int, decimal(p,s), double, text, bool, timestamp or date.
#[derive(Debug, Serialize, ToSchema)]
pub struct ColumnDocument {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// Answers one query.
#[utoipa::path(
    post,
    path = "/api/v1/query",
    tag = "query",
    request_body = QueryBody,
    responses(
        (status = 200, description = "Rows, and how good they are; also as text/csv and application/vnd.apache.arrow.stream, \
            then with the quality in the header Holdfast-Quality", body = QueryAnswer),
        (status = 400, description = "sql-invalid, sql-value, body-invalid", body = ProblemDocument),
        (status = 404, description = "metric-table-unknown", body = ProblemDocument),
        (status = 406, description = "form-unknown", body = ProblemDocument),
        (status = 413, description = "query-too-long", body = ProblemDocument),
        (status = 422, description = "answer-too-large, scan-too-large", body = ProblemDocument),
        (status = 429, description = "query-limit", body = ProblemDocument),
        (status = 503, description = "quality-not-met, query-deadline", body = ProblemDocument),
    )
)]
pub async fn query(
    request: HttpRequest,
    payload: web::Payload,
    service: web::Data<QueryService>,
) -> Result<HttpResponse, Problem> {
    let form = accepted_form(&request)?;
    // Every character of the SQL may be escaped as \uXXXX.
    let limit = service.settings().sql_limit.bytes().saturating_mul(6).saturating_add(4 << 10);
    let body = match payload.to_bytes_limited(limit).await {
        Err(_) => return Err(too_long(limit)),
        Ok(Err(error)) => return Err(body_problem(error.to_string())),
        Ok(Ok(body)) => body,
    };
    let body: QueryBody = serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        body_problem(error.to_string()).with("line", line).with("column", column)
    })?;
    let demand =
        Demand { exact: body.require == Require::Exact, max_age_ms: body.max_age_ms, max_missing: body.max_missing };
    let query = Request { sql: &body.sql, demand, client: client_of(&request) };
    let only = request.extensions().get::<BoundKey>().cloned();
    let answer = service.answer_for(query, only.as_ref().map(|bound| &bound.0)).await.map_err(problem)?;
    if answer.rows.num_rows() > LARGE_ANSWER_ROWS {
        let written = web::block(move || respond(form, &answer)).await;
        let (body, headers) = written.map_err(|error| internal(error.to_string()))??;
        return Ok(finish(form, body, headers));
    }
    let (body, headers) = respond(form, &answer)?;
    Ok(finish(form, body, headers))
}

/// `Server-Timing`, and the quality for forms that have no place for it.
type Headers = (HeaderValue, Option<HeaderValue>);

fn respond(form: Form, answer: &Answer) -> Result<(Vec<u8>, Headers), Problem> {
    let timing = written(server_timing(answer.timing))?;
    Ok(match form {
        Form::Json => (json(&answer.rows, &answer.quality, answer.timing.total().as_micros()), (timing, None)),
        Form::Csv => (csv(&answer.rows), (timing, Some(written(quality_header(&answer.quality).into())?))),
        Form::Arrow => {
            let body = arrow_stream(&answer.rows).map_err(|error| internal(error.to_string()))?;
            (body, (timing, Some(written(quality_header(&answer.quality).into())?)))
        }
    })
}

fn written(value: Vec<u8>) -> Result<HeaderValue, Problem> {
    HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|error| internal(error.to_string()))
}

fn finish(form: Form, body: Vec<u8>, (timing, quality): Headers) -> HttpResponse {
    let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    headers.insert(SERVER_TIMING, timing);
    if let Some(quality) = quality {
        headers.insert(QUALITY_HEADER, quality);
    }
    response
}

/// Durations in milliseconds: <https://www.w3.org/TR/server-timing/>.
fn server_timing(timing: Timing) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    for (name, part) in [("plan", timing.plan), (", read", timing.read), (", run", timing.run)] {
        let micros = part.as_micros();
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b";dur=");
        write_int(&mut out, micros / 1_000);
        out.push(b'.');
        write_digits(&mut out, (micros % 1_000) as u32);
    }
    out
}

fn accepted_form(request: &HttpRequest) -> Result<Form, Problem> {
    let Some(accept) = request.headers().get(header::ACCEPT) else { return Ok(Form::Json) };
    Form::accepted(accept.to_str().unwrap_or("")).ok_or_else(|| {
        let detail = "answers are application/json, text/csv or application/vnd.apache.arrow.stream";
        Problem::new(StatusCode::NOT_ACCEPTABLE, "form-unknown", "Unknown form", detail)
    })
}

/// Clients are told apart by address; of IPv6, where one client has many, by network.
fn client_of(request: &HttpRequest) -> ClientId {
    let hash = match request.peer_addr().map(|address| address.ip()) {
        Some(IpAddr::V4(address)) => xxh3_64(&address.octets()),
        Some(IpAddr::V6(address)) => xxh3_64(&address.octets()[..8]),
        None => 1,
    };
    ClientId(hash)
}

fn body_problem(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "body-invalid", "Invalid request body", detail)
}

fn too_long(limit: usize) -> Problem {
    let detail = format!("the request has more than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "query-too-long", "Query too long", detail)
}

fn internal(detail: String) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
}

fn placed(problem: Problem, error: &SqlError) -> Problem {
    problem.with("line", error.line).with("column", error.column)
}

/// What a client is told of an error. Quality that is not met is 503: it gets better by itself.
pub fn problem(error: QueryError) -> Problem {
    let detail = error.to_string();
    let new = |status, code, title| Problem::new(status, code, title, detail.clone());
    match error {
        QueryError::TooLong { .. } => new(StatusCode::PAYLOAD_TOO_LARGE, "query-too-long", "Query too long"),
        QueryError::Sql(error) => placed(new(StatusCode::BAD_REQUEST, "sql-invalid", "Invalid SQL"), &error),
        QueryError::UnknownTable { error, near } => {
            let problem = new(StatusCode::NOT_FOUND, "metric-table-unknown", "Unknown metric table");
            placed(problem, &error).with("near", near)
        }
        QueryError::Value(_) => new(StatusCode::BAD_REQUEST, "sql-value", "Impossible value"),
        QueryError::RowsLimit(_) => new(StatusCode::UNPROCESSABLE_ENTITY, "answer-too-large", "Answer too large"),
        QueryError::ScanLimit(_) => new(StatusCode::UNPROCESSABLE_ENTITY, "scan-too-large", "Too much to read"),
        QueryError::Deadline(_) => new(StatusCode::SERVICE_UNAVAILABLE, "query-deadline", "Query took too long"),
        QueryError::Refused(refusal) => {
            let problem = new(StatusCode::TOO_MANY_REQUESTS, "query-limit", "Too many queries");
            problem.retry_after_s(refusal.retry_after_ms.div_ceil(1_000).max(1))
        }
        QueryError::QualityNotMet(_) => new(StatusCode::SERVICE_UNAVAILABLE, "quality-not-met", "Quality not met"),
        QueryError::Damaged(_) | QueryError::Internal(_) => internal(detail),
    }
}

/// All that can be queried, and what it is made of.
#[derive(Debug, Serialize, ToSchema)]
pub struct CatalogDocument {
    pub tables: Vec<TableDocument>,
    pub metrics: Vec<MetricDocument>,
    /// What queries name in `from`.
    pub metric_tables: Vec<MetricTableDocument>,
}

/// A source table.
#[derive(Debug, Serialize, ToSchema)]
pub struct TableDocument {
    pub name: String,
    pub key: Vec<String>,
    pub partition_by: String,
    pub time: String,
    pub columns: Vec<ColumnDocument>,
}

/// A metric.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetricDocument {
    pub name: String,
    pub table: String,
    /// The partition key first.
    pub group_by: Vec<String>,
    pub select: Vec<AggregateDocument>,
    #[schema(value_type = Vec<String>, example = json!(["hour", "day"]))]
    pub windows: Vec<&'static str>,
}

/// One selected aggregate of a metric.
#[derive(Debug, Serialize, ToSchema)]
pub struct AggregateDocument {
    pub name: String,
    #[schema(value_type = String, example = "sum")]
    pub function: &'static str,
    #[serde(rename = "type")]
    pub kind: String,
}

/// A metric in one window.
#[derive(Debug, Serialize, ToSchema)]
pub struct MetricTableDocument {
    #[schema(example = "gmv_hour")]
    pub name: String,
    pub metric: String,
    #[schema(value_type = String, example = "hour")]
    pub window: &'static str,
    pub columns: Vec<ColumnDocument>,
}

/// Lists tables, metrics and their columns.
#[utoipa::path(get, path = "/api/v1/metrics-catalog", tag = "query",
    responses((status = 200, description = "Tables, metrics, columns", body = CatalogDocument)))]
pub async fn metrics_catalog(service: web::Data<QueryService>) -> web::Json<CatalogDocument> {
    web::Json(CatalogDocument::of(service.catalog()))
}

impl CatalogDocument {
    pub fn of(catalog: &Catalog) -> Self {
        let column = |name: &str, kind: ColumnType| ColumnDocument { name: name.to_owned(), kind: kind.to_string() };
        let tables = catalog.tables().iter().map(|table| TableDocument {
            name: table.name.to_string(),
            key: table.key.iter().map(|index| table.columns[*index].name.clone()).collect(),
            partition_by: table.columns[table.partition_by].name.clone(),
            time: table.columns[table.time].name.clone(),
            columns: table.columns.iter().map(|one| column(&one.name, one.kind)).collect(),
        });
        let metrics = catalog.metrics().iter().map(|metric| MetricDocument {
            name: metric.name.to_string(),
            table: metric.table.name.to_string(),
            group_by: metric.group.iter().map(|index| metric.table.columns[*index].name.clone()).collect(),
            select: (metric.aggregates.iter())
                .map(|aggregate| AggregateDocument {
                    name: aggregate.name.to_string(),
                    function: aggregate.function.as_str(),
                    kind: type_name(&aggregate.output),
                })
                .collect(),
            windows: metric.windows.iter().map(|window| window.as_str()).collect(),
        });
        let metric_tables = catalog.metric_tables().iter().map(|table| MetricTableDocument::of(table));
        Self { tables: tables.collect(), metrics: metrics.collect(), metric_tables: metric_tables.collect() }
    }
}

impl MetricTableDocument {
    fn of(table: &MetricTable) -> Self {
        let column = |field: &arrow::datatypes::FieldRef| ColumnDocument {
            name: field.name().clone(),
            kind: type_name(field.data_type()),
        };
        Self {
            name: table.name.to_string(),
            metric: table.metric.name.to_string(),
            window: table.window.as_str(),
            columns: table.schema.fields().iter().map(column).collect(),
        }
    }
}

#[cfg(test)]
#[path = "query_http_tests.rs"]
mod tests;
