//! The forms of an answer: JSON, CSV, Arrow stream.
//!
//! Invariant: every form has the same values; a header that carries the quality stays small, whatever is missing.

use std::io::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use serde::Serialize;

use super::text::{Column, write_day, write_decimal, write_double, write_int, write_timestamp, write_timestamp_ms};
use super::verdict::Quality;
use crate::model::expr::type_name;
use crate::model::mode::Modes;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Csv,
    Arrow,
}

impl Form {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The first form that an `Accept` header names; `None` if it names none that there is.
    pub fn accepted(header: &str) -> Option<Self> {
        header.split(',').find_map(|part| match part.split(';').next().unwrap_or("").trim() {
            "application/json" | "application/*" | "*/*" | "" => Some(Self::Json),
            "text/csv" | "text/*" => Some(Self::Csv),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            _ => None,
        })
    }
}

/// The most bytes of quality in a header; servers in between refuse larger ones.
const HEADER_LIMIT: usize = 4_096;

/// `{"columns": …, "rows": …, "quality": …, "took_us": …}`.
pub fn json(rows: &RecordBatch, quality: &Quality, took_us: u128) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + rows.num_rows() * rows.num_columns() * 16);
    out.extend_from_slice(b"{\"columns\":");
    write_columns(&mut out, rows.schema_ref());
    out.extend_from_slice(b",\"rows\":[");
    let columns: Vec<_> = rows.columns().iter().map(Column::new).collect();
    for row in 0..rows.num_rows() {
        out.extend_from_slice(if row == 0 { b"[" } else { b",[" });
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_json_value(&mut out, column, row);
        }
        out.push(b']');
    }
    out.extend_from_slice(b"],\"quality\":");
    write_quality(&mut out, quality);
    out.extend_from_slice(b",\"took_us\":");
    write_int(&mut out, took_us);
    out.push(b'}');
    out
}

fn write_columns(out: &mut Vec<u8>, schema: &Schema) {
    for (index, field) in schema.fields().iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"[{\"name\":" } else { b",{\"name\":" });
        write_json_text(out, field.name());
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(type_name(field.data_type()).as_bytes());
        out.extend_from_slice(b"\"}");
    }
    out.push(b']');
}

/// By hand, for every answer has it: names and most values need no escaping.
fn write_quality(out: &mut Vec<u8>, quality: &Quality) {
    out.extend_from_slice(b"{\"exact\":");
    write_bool(out, quality.exact);
    out.extend_from_slice(b",\"as_of\":");
    write_or_null(out, quality.as_of_ms, write_moment);
    if let Some(newest_ms) = quality.as_of_newest_ms {
        out.extend_from_slice(b",\"as_of_newest\":");
        write_moment(out, newest_ms);
    }
    out.extend_from_slice(b",\"age_ms\":");
    write_or_null(out, quality.age_ms, write_int);
    out.extend_from_slice(b",\"served_by\":[");
    for (index, served_by) in quality.served_by.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(served_by.as_str().as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b"],\"missing_changes\":");
    write_int(out, quality.missing_changes);
    out.extend_from_slice(b",\"missing\":");
    write_document(out, &quality.missing);
    write_more(out, b",\"missing_more\":", quality.missing_more);
    out.extend_from_slice(b",\"unavailable\":");
    write_document(out, &quality.unavailable);
    write_more(out, b",\"unavailable_more\":", quality.unavailable_more);
    write_modes(out, quality.modes);
    out.push(b'}');
}

fn write_or_null<T>(out: &mut Vec<u8>, value: Option<T>, write: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        Some(value) => write(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_moment(out: &mut Vec<u8>, millis: i64) {
    out.push(b'"');
    write_timestamp_ms(out, millis);
    out.push(b'"');
}

/// What is not listed, if there is any.
fn write_more(out: &mut Vec<u8>, name: &[u8], count: u64) {
    if count > 0 {
        out.extend_from_slice(name);
        write_int(out, count);
    }
}

fn write_modes(out: &mut Vec<u8>, modes: Modes) {
    let Modes { mq, kv, hot, cache, cold } = modes;
    for (name, mode) in [
        (b",\"modes\":{\"mq\":\"".as_slice(), mq),
        (b"\",\"kv\":\"", kv),
        (b"\",\"hot\":\"", hot),
        (b"\",\"cache\":\"", cache),
        (b"\",\"cold\":\"", cold),
    ] {
        out.extend_from_slice(name);
        out.extend_from_slice(mode.as_str().as_bytes());
    }
    out.extend_from_slice(b"\"}");
}

fn write_document(out: &mut Vec<u8>, document: &impl Serialize) {
    serde_json::to_writer(out, document).expect("plain data always serializes to memory");
}

fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn write_json_value(out: &mut Vec<u8>, column: &Column<'_>, row: usize) {
    if column.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match column {
        Column::Int(array) => write_int(out, array.value(row)),
        Column::Double(array) => write_double(out, array.value(row)),
        Column::Bool(array) => write_bool(out, array.value(row)),
        Column::Text(array) => write_json_text(out, array.value(row)),
        Column::Decimal(..) | Column::Timestamp(_) | Column::Date(_) => {
            out.push(b'"');
            write_plain(out, column, row);
            out.push(b'"');
        }
        Column::Null => out.extend_from_slice(b"null"),
    }
}

fn write_json_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        write_document(out, &text);
    }
}

/// A value that is not null, without quotes.
fn write_plain(out: &mut Vec<u8>, column: &Column<'_>, row: usize) {
    match column {
        Column::Int(array) => write_int(out, array.value(row)),
        Column::Decimal(array, scale) => write_decimal(out, array.value(row), *scale),
        Column::Double(array) => write!(out, "{}", array.value(row)).expect("writing to memory does not fail"),
        Column::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
        Column::Bool(array) => write_bool(out, array.value(row)),
        Column::Timestamp(array) => write_timestamp(out, array.value(row)),
        Column::Date(array) => write_day(out, i64::from(array.value(row))),
        Column::Null => {}
    }
}

/// RFC 4180 with a header row. Null is nothing, an empty text is `""`.
pub fn csv(rows: &RecordBatch) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + rows.num_rows() * rows.num_columns() * 16);
    for (index, field) in rows.schema_ref().fields().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_csv_text(&mut out, field.name());
    }
    out.extend_from_slice(b"\r\n");
    let columns: Vec<_> = rows.columns().iter().map(Column::new).collect();
    for row in 0..rows.num_rows() {
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match column {
                _ if column.is_null(row) => {}
                Column::Text(array) => write_csv_text(&mut out, array.value(row)),
                _ => write_plain(&mut out, column, row),
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn write_csv_text(out: &mut Vec<u8>, text: &str) {
    if !text.is_empty() && !text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// One Arrow IPC stream.
pub fn arrow_stream(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut out = Vec::new();
    let mut writer = StreamWriter::try_new(&mut out, rows.schema_ref())?;
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(out)
}

/// The quality as a header's value: ASCII, its lists cut until it is small enough.
pub fn quality_header(quality: &Quality) -> String {
    let mut quality = quality.clone();
    for listed in [16, 4, 1, 0] {
        quality.missing_more += cut(&mut quality.missing, listed);
        quality.unavailable_more += cut(&mut quality.unavailable, listed);
        let mut text = Vec::new();
        write_quality(&mut text, &quality);
        let text = ascii(std::str::from_utf8(&text).expect("JSON is UTF-8"));
        if text.len() <= HEADER_LIMIT || listed == 0 {
            return text;
        }
    }
    unreachable!("the last round returns")
}

fn cut<T>(list: &mut Vec<T>, length: usize) -> u64 {
    let surplus = list.len().saturating_sub(length);
    list.truncate(length);
    surplus as u64
}

/// JSON with every other character escaped.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if character.is_ascii() && !character.is_ascii_control() {
            out.push(character);
        } else {
            character.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
