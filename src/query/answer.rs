//! The forms of an answer: JSON, CSV, Arrow stream.
//!
//! Invariant: every form has the same values; a header that carries the quality stays small, whatever is missing.

use std::io::Write as _;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use super::text::{Column, write_day, write_decimal, write_double, write_int, write_timestamp};
use super::verdict::Quality;
use crate::model::expr::type_name;

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
    serde_json::to_writer(&mut out, quality).expect("plain data always serializes to memory");
    write!(out, ",\"took_us\":{took_us}}}").expect("writing to memory does not fail");
    out
}

fn write_columns(out: &mut Vec<u8>, schema: &Schema) {
    for (index, field) in schema.fields().iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"[{\"name\":" } else { b",{\"name\":" });
        write_json_text(out, field.name());
        write!(out, ",\"type\":\"{}\"}}", type_name(field.data_type())).expect("writing to memory does not fail");
    }
    out.push(b']');
}

fn write_json_value(out: &mut Vec<u8>, column: &Column<'_>, row: usize) {
    if column.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match column {
        Column::Int(array) => write_int(out, array.value(row)),
        Column::Double(array) => write_double(out, array.value(row)),
        Column::Bool(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
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
        serde_json::to_writer(out, text).expect("a text always serializes to memory");
    }
}

/// A value that is not null, without quotes.
fn write_plain(out: &mut Vec<u8>, column: &Column<'_>, row: usize) {
    match column {
        Column::Int(array) => write_int(out, array.value(row)),
        Column::Decimal(array, scale) => write_decimal(out, array.value(row), *scale),
        Column::Double(array) => write!(out, "{}", array.value(row)).expect("writing to memory does not fail"),
        Column::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
        Column::Bool(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
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
        let text = ascii(&serde_json::to_string(&quality).expect("plain data always serializes"));
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
