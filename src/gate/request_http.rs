//! What an ingest request says besides its body: table, format, key.
//!
//! Invariant: what is not understood is refused before anything of the body is read.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};

use super::row_reader::Format;
use crate::model::catalog::Catalog;
use crate::model::schema::Table;
use crate::problem::Problem;

const MAX_KEY_CHARS: usize = 128;

/// The table of that name, if rows may be pushed into it, or a problem that lists those there are.
pub fn find_table(catalog: &Catalog, name: &str) -> Result<Arc<Table>, Problem> {
    let table = catalog.table(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = catalog.tables().iter().map(|table| &*table.name).collect();
        let shown: String = name.chars().take(64).collect();
        let detail = match known.as_slice() {
            [] => "no tables are configured".to_owned(),
            known => format!("there is no table '{shown}'; tables are {}", known.join(", ")),
        };
        Problem::new(StatusCode::NOT_FOUND, "unknown-table", "Unknown table", detail).with("tables", known)
    })?;
    match catalog.stream(&table.name) {
        None => Ok(table),
        // They would count twice, or nobody could say of when the table's answers are.
        Some(stream) => {
            let detail = format!("the rows of '{}' are captured from {stream}: change them there", table.name);
            Err(Problem::new(StatusCode::CONFLICT, "captured-table", "Captured table", detail))
        }
    }
}

/// How the body is written, by its `Content-Type`.
pub fn format(request: &HttpRequest) -> Result<Format, Problem> {
    let unsupported = |detail: String| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", detail)
    };
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(unsupported(format!("bodies are sent plain, not as {encoding}")));
    }
    let media_type = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media_type.as_str() {
        "text/csv" => Ok(Format::Csv),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Format::Ndjson),
        other => Err(unsupported(format!("Content-Type is text/csv or application/x-ndjson, not '{other}'"))),
    }
}

/// What names the request, if its client does.
pub fn idempotency_key(request: &HttpRequest) -> Result<Option<Arc<str>>, Problem> {
    let Some(value) = request.headers().get("idempotency-key") else {
        return Ok(None);
    };
    let bytes = value.as_bytes();
    let well_formed = (1..=MAX_KEY_CHARS).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(key) if well_formed => Ok(Some(key.into())),
        _ => {
            let detail = format!("an Idempotency-Key is 1 to {MAX_KEY_CHARS} visible ASCII characters");
            Err(Problem::new(StatusCode::BAD_REQUEST, "bad-idempotency-key", "Bad Idempotency-Key", detail))
        }
    }
}
