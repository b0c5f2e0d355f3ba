//! `POST /api/v1/ingest/{table}`: rows over HTTP.
//!
//! Invariant: a request with a bad row counts nothing; memory of all requests together is bounded, parsing and encoding
//! never run on a thread that serves others; an acknowledged row is in mq.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{join_all, try_join};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::gate_actor::{Accepted, Offer, OfferError};
use super::offer_service::Offers;
use super::offering::Failure;
use super::request_http::{find_table, format, idempotency_key};
use super::row_error::{RowError, RowErrorKind};
use super::row_reader::RowReader;
use super::scatter::Part;
use super::settings::Settings;
use crate::metrics::Metrics;
use crate::model::catalog::Catalog;
use crate::model::id::PartitionId;
use crate::model::rows::{Compression, encode_rows};
use crate::model::schema::Table;
use crate::problem::{Problem, ProblemDocument};

/// How much of a body is parsed at once.
const SLICE_BYTES: usize = 256 << 10;
/// How much of a refused body is still taken, so that the client gets to read the answer.
const DRAIN_BYTES: usize = 1 << 20;
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Memory is reserved in units of this, so that a count of them fits a semaphore.
const UNIT_BYTES: usize = 1 << 10;

/// What the handler works with.
pub struct IngestState {
    catalog: Arc<Catalog>,
    partitions: u16,
    offers: Offers,
    settings: Arc<Settings>,
    metrics: Metrics,
    memory: Arc<Semaphore>,
}

impl IngestState {
    pub fn new(
        catalog: Arc<Catalog>,
        partitions: u16,
        offers: Offers,
        settings: Arc<Settings>,
        metrics: Metrics,
    ) -> Self {
        let memory = Arc::new(Semaphore::new(units(settings.ingest_memory.bytes()) as usize));
        Self { catalog, partitions, offers, settings, metrics, memory }
    }
}

/// Registers the route; needs `web::Data<IngestState>`.
pub fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/api/v1/ingest/{table}").route(web::post().to(ingest)));
}

/// Where acknowledged changes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// In the message queue.
    Mq,
    /// In the KV cluster.
    Kv,
    /// In the memory of two slaves only.
    Memory,
}

/// What became of a request's changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IngestReport {
    /// Changes that count from now on.
    pub accepted: u64,
    /// Changes refused to protect the rest; the client keeps them.
    pub shed: u64,
    /// Changes of a request that was accepted before under the same `Idempotency-Key`.
    pub duplicate: u64,
    pub durability: Durability,
}

/// Takes rows in.
#[utoipa::path(
    post,
    path = "/api/v1/ingest/{table}",
    tag = "ingest",
    params(
        ("table" = String, Path, description = "Name of the table"),
        ("Idempotency-Key" = Option<String>, Header,
            description = "1 to 128 visible ASCII characters; a retry with the same key and body counts once"),
    ),
    request_body(
        description = "CSV with a header row, or one JSON object per line (optionally `_op` and `_before`)",
        content((String = "text/csv"), (String = "application/x-ndjson"))
    ),
    responses(
        (status = 200, description = "All changes are safe in the message queue", body = IngestReport),
        (status = 400, description = "Bad Idempotency-Key", body = ProblemDocument),
        (status = 404, description = "Unknown table", body = ProblemDocument),
        (status = 408, description = "The client stopped sending", body = ProblemDocument),
        (status = 409, description = "The table's rows are captured from a database", body = ProblemDocument),
        (status = 413, description = "The request holds too much", body = ProblemDocument),
        (status = 415, description = "Neither CSV nor NDJSON", body = ProblemDocument),
        (status = 421, description = "This node has no gates; `nodes` are those that have", body = ProblemDocument),
        (status = 422, description = "A bad row, with line and column; nothing was counted", body = ProblemDocument),
        (status = 429, description = "Busy, nothing was counted; come again after Retry-After", body = ProblemDocument),
        (status = 503, description = "A tier is away; the request may have been taken in part", body = ProblemDocument),
    )
)]
pub async fn ingest(
    request: HttpRequest,
    table: web::Path<String>,
    payload: web::Payload,
    state: web::Data<IngestState>,
) -> Result<HttpResponse, Problem> {
    let mut payload = payload;
    let result = take_in(&request, &table, &mut payload, &state).await;
    if let Err(problem) = &result {
        if problem.status.is_client_error() {
            state.metrics.ingest_rejected.inc();
        }
        drain(&mut payload).await;
    }
    result.map(|report| HttpResponse::Ok().json(report))
}

async fn take_in(
    request: &HttpRequest,
    table: &str,
    payload: &mut web::Payload,
    state: &IngestState,
) -> Result<IngestReport, Problem> {
    let table = find_table(&state.catalog, table)?;
    let format = format(request)?;
    let key = idempotency_key(request)?;
    let most = state.settings.request_bytes.bytes();
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > most) {
        return Err(request_too_large(most));
    }
    let mut memory = Memory::new(state);
    memory.reach(length.unwrap_or(SLICE_BYTES)).await?;
    let reader = RowReader::new(format, table.clone(), state.partitions, state.settings.row_limits());
    let reader = read_body(reader, payload, state, &mut memory).await?;
    let (changes, sealed) = block(move || {
        let parsed = reader.finish()?;
        Ok((parsed.changes, parsed.parts.into_iter().map(seal).collect::<Vec<_>>()))
    })
    .await?;
    check_ways(state, &sealed)?;
    let outcomes = join_all(sealed.into_iter().map(|part| offer(state, &table, &key, part))).await;
    answer(changes, outcomes, key.is_some())
}

/// Feeds the body to the reader, slice by slice; the next slice is received while one is parsed.
async fn read_body(
    mut reader: RowReader,
    payload: &mut web::Payload,
    state: &IngestState,
    memory: &mut Memory<'_>,
) -> Result<RowReader, Problem> {
    let mut slice = receive(payload, state).await?;
    let mut total = 0;
    while !slice.is_empty() {
        total += slice.iter().map(Bytes::len).sum::<usize>();
        if total > state.settings.request_bytes.bytes() {
            return Err(request_too_large(state.settings.request_bytes.bytes()));
        }
        let parse = block(move || {
            slice.iter().try_for_each(|bytes| reader.feed(bytes))?;
            Ok(reader)
        });
        // A bad row is told at once, even if the client pauses.
        (reader, slice) = try_join(parse, receive(payload, state)).await?;
        memory.reach(reader.memory_bytes() + 2 * SLICE_BYTES).await?;
    }
    Ok(reader)
}

/// The next bytes of the body, about a slice of them; nothing at its end.
async fn receive(payload: &mut web::Payload, state: &IngestState) -> Result<Vec<Bytes>, Problem> {
    let (mut slice, mut bytes) = (Vec::new(), 0);
    while bytes < SLICE_BYTES {
        let Ok(next) = timeout(state.settings.body_idle.duration(), payload.next()).await else {
            let detail = format!("nothing came for {}; nothing of the request was counted", state.settings.body_idle);
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body stopped coming", detail));
        };
        match next {
            Some(Ok(more)) => {
                bytes += more.len();
                slice.push(more);
            }
            Some(Err(error)) => {
                let detail = format!("{error}; nothing of the request was counted");
                return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-body", "The body cannot be read", detail));
            }
            None => break,
        }
    }
    Ok(slice)
}

/// Takes a little more of a refused body: a client that is still writing would lose the answer to a connection reset.
async fn drain(payload: &mut web::Payload) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(more)) = payload.next().await {
            bytes += more.len();
            if bytes > DRAIN_BYTES {
                break;
            }
        }
    };
    let _ = timeout(DRAIN_TIME, rest).await;
}

/// Runs work that takes long on a thread made for that.
async fn block<T: Send + 'static>(work: impl FnOnce() -> Result<T, RowError> + Send + 'static) -> Result<T, Problem> {
    let detail = "the rows could not be processed; nothing of the request was counted";
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail);
    web::block(work).await.map_err(failed)?.map_err(bad_row)
}

/// A partition's rows, ready to be offered.
struct Sealed {
    partition: PartitionId,
    changes: u64,
    rows: u32,
    weighted: bool,
    hours: Option<(i32, i32)>,
    body: Bytes,
}

fn seal(part: Part) -> Sealed {
    Sealed {
        partition: part.partition,
        changes: part.changes,
        rows: part.rows.num_rows() as u32,
        weighted: part.weighted,
        hours: part.hours,
        body: encode_rows(&part.rows, Compression::Lz4).into(),
    }
}

/// What became of one partition's rows.
struct Outcome {
    changes: u64,
    result: Result<Accepted, Failure>,
}

/// Before anything is taken: can all parts be brought to their gates?
fn check_ways(state: &IngestState, parts: &[Sealed]) -> Result<(), Problem> {
    let too_long = parts.iter().find_map(|part| {
        let most = state.offers.most_bytes(part.partition).filter(|most| part.body.len() > *most)?;
        Some((part, most))
    });
    let Some((part, most)) = too_long else { return Ok(()) };
    let detail = format!(
        "the rows of partition {} take {} bytes, and the gate that owns it is on another node, to which {most} can be sent \
         at once; send fewer rows in one request; nothing was counted",
        part.partition,
        part.body.len()
    );
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", "The request is too large", detail))
}

async fn offer(state: &IngestState, table: &Arc<Table>, key: &Option<Arc<str>>, part: Sealed) -> Outcome {
    let Sealed { partition, changes, rows, weighted, hours, body } = part;
    let offer = Offer { table: table.clone(), key: key.clone(), body, rows, weighted, hours };
    Outcome { changes, result: state.offers.offer(partition, &offer).await }
}

fn answer(changes: u64, outcomes: Vec<Outcome>, keyed: bool) -> Result<IngestReport, Problem> {
    let (mut accepted, mut duplicate, mut failures) = (0, 0, Vec::new());
    let partitions = outcomes.len();
    for outcome in outcomes {
        match outcome.result {
            Ok(Accepted { duplicate: false, .. }) => accepted += outcome.changes,
            Ok(Accepted { duplicate: true, .. }) => duplicate += outcome.changes,
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() {
        assert_eq!(accepted + duplicate, changes, "every change belongs to one partition");
        return Ok(IngestReport { accepted, shed: 0, duplicate, durability: Durability::Mq });
    }
    let untouched = failures.len() == partitions && failures.iter().all(Failure::is_refusal);
    Err(if untouched { refused(&failures) } else { partly_taken(accepted + duplicate, &failures, keyed) })
}

/// Nothing was taken anywhere.
fn refused(failures: &[Failure]) -> Problem {
    let reused = failures.iter().any(|failure| matches!(failure, Failure::Refused(OfferError::KeyReused)));
    if reused {
        let detail =
            "this Idempotency-Key was used for a request with other rows; use a key of its own for each request";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Problem::new(status, "idempotency-key-reused", "Idempotency-Key reused", detail);
    }
    let detail = format!("{}; nothing of the request was counted", failures[0]);
    match &failures[0] {
        Failure::Refused(OfferError::Busy | OfferError::Backlog { .. }) => busy(detail),
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ingest-unavailable", "Ingest is unavailable", detail),
    }
}

fn partly_taken(taken: u64, failures: &[Failure], keyed: bool) -> Problem {
    let advice = match keyed {
        true => "a retry with the same Idempotency-Key and body is safe: what was taken counts once",
        false => "a retry may count rows twice; send an Idempotency-Key to make retries safe",
    };
    let reasons = format!("{} of the partitions failed, the first: {}", failures.len(), failures[0]);
    let detail = format!("the request was taken in part ({taken} changes for certain); {reasons}; {advice}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "partly-taken", "The request was taken in part", detail)
        .with("taken", taken)
        .with("retry_safe", keyed)
}

/// The memory that one request has reserved; given back when it is dropped.
struct Memory<'a> {
    state: &'a IngestState,
    units: u32,
    permits: Vec<OwnedSemaphorePermit>,
}

impl<'a> Memory<'a> {
    fn new(state: &'a IngestState) -> Self {
        Self { state, units: 0, permits: Vec::new() }
    }

    /// Makes sure that `bytes` are reserved; waits for others to finish, but not for ever.
    async fn reach(&mut self, bytes: usize) -> Result<(), Problem> {
        let settings = &self.state.settings;
        // One request may have it all, but never waits for more than there is.
        let wanted = units(bytes.min(settings.ingest_memory.bytes()));
        let missing = wanted.saturating_sub(self.units);
        if missing == 0 {
            return Ok(());
        }
        let permit = self.state.memory.clone().acquire_many_owned(missing);
        match timeout(settings.ingest_wait.duration(), permit).await {
            Ok(Ok(permit)) => {
                self.permits.push(permit);
                self.units = wanted;
                Ok(())
            }
            _ => Err(busy(format!(
                "requests under way take all {} of ingest memory; nothing of this one was counted",
                settings.ingest_memory
            ))),
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

fn request_too_large(most: usize) -> Problem {
    let detail = format!("a request has at most {most} bytes; send the rest in another; nothing was counted");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", "The request is too large", detail)
}

fn busy(detail: String) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "ingest-busy", "Too many requests", detail)
}

fn bad_row(error: RowError) -> Problem {
    let detail = format!("{error}; nothing of the request was counted");
    let problem = match error.kind {
        RowErrorKind::Malformed => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-row", "A row cannot be read", detail)
        }
        RowErrorKind::TooLarge => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", "The request is too large", detail)
        }
    };
    let members = [("column", error.column), ("value", error.value)];
    let problem = problem.with("line", error.line).with("reason", error.message);
    members.into_iter().fold(problem, |problem, (name, value)| match value {
        Some(value) => problem.with(name, value),
        None => problem,
    })
}

#[cfg(test)]
#[path = "gate_http_tests.rs"]
mod tests;
