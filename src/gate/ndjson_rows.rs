//! Rows of an NDJSON body (one JSON object per line), fed in slices that may be cut anywhere.
//!
//! Form: a member per column; absent or null is null. A string is read as CSV reads its field; a number is read from
//! its digits, never through a float. `"_op"` is `insert` (or absent), `delete` (the row itself is taken away) or `update`
//! with the whole row before in `"_before"`. Invariant: as for CSV; nothing nests deeper than `_before`.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use memchr::memchr;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::csv_rows::{no_such_column, too_large, too_long};
use super::row_error::RowError;
use super::scatter::{Cells, Scatter, ScatterError};
use super::value::ValueError;
use crate::model::schema::{ColumnType, Table};

/// Reads NDJSON.
#[derive(Debug)]
pub struct NdjsonRows {
    table: Arc<Table>,
    /// The beginning of a line that is not complete.
    carry: Vec<u8>,
    /// The line that comes next.
    line: u64,
}

impl NdjsonRows {
    pub fn new(table: Arc<Table>) -> Self {
        Self { table, carry: Vec::new(), line: 1 }
    }

    pub fn feed(&mut self, mut slice: &[u8], scatter: &mut Scatter) -> Result<(), RowError> {
        while let Some(end) = memchr(b'\n', slice) {
            let (head, rest) = (&slice[..end], &slice[end + 1..]);
            if self.carry.is_empty() {
                self.row(head, scatter)?;
            } else {
                self.keep(head, scatter)?;
                let line = std::mem::take(&mut self.carry);
                self.row(&line, scatter)?;
            }
            self.line += 1;
            slice = rest;
        }
        self.keep(slice, scatter)
    }

    pub fn finish(mut self, scatter: &mut Scatter) -> Result<(), RowError> {
        let line = std::mem::take(&mut self.carry);
        self.row(&line, scatter)
    }

    fn keep(&mut self, bytes: &[u8], scatter: &Scatter) -> Result<(), RowError> {
        let most = scatter.limits().row_bytes;
        if self.carry.len() + bytes.len() > most {
            return Err(too_long(self.line, most));
        }
        self.carry.extend_from_slice(bytes);
        Ok(())
    }

    fn row(&self, line: &[u8], scatter: &mut Scatter) -> Result<(), RowError> {
        if line.len() > scatter.limits().row_bytes {
            return Err(too_long(self.line, scatter.limits().row_bytes));
        }
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let row = self.parse(line, Place::Row)?;
        let operation = self.operation(&row)?;
        match (operation, &row.before) {
            (Operation::Update, Some(before)) => {
                let before = self.parse(before.get().as_bytes(), Place::Before)?;
                self.push(scatter, &before, -1, 0)?;
                self.push(scatter, &row, 1, 1)
            }
            (Operation::Update, None) => {
                let message = "an update needs the whole row before in '_before'";
                Err(RowError::new(self.line, message).in_column("_before"))
            }
            (_, Some(before)) => {
                let error = RowError::new(self.line, "only an update has a row before");
                Err(error.in_column("_before").showing(before.get().as_bytes()))
            }
            (Operation::Insert, None) => self.push(scatter, &row, 1, 1),
            (Operation::Delete, None) => self.push(scatter, &row, -1, 1),
        }
    }

    fn parse<'a>(&'a self, text: &'a [u8], place: Place) -> Result<JsonRow<'a>, RowError> {
        let table = &*self.table;
        let mut json = serde_json::Deserializer::from_slice(text);
        let row = RowSeed { table, place }.deserialize(&mut json).and_then(|row| json.end().map(|()| row));
        row.map_err(|error| {
            let message = error.to_string();
            let reason = message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason);
            // After the line's end there is nothing to point at.
            let at = error.column().saturating_sub(1).min(text.len());
            let shown = RowError::new(self.line, format!("{reason}, at byte {} of {}", error.column(), place.name()));
            if at < text.len() { shown.showing(&text[at..]) } else { shown }
        })
    }

    fn operation(&self, row: &JsonRow<'_>) -> Result<Operation, RowError> {
        match row.operation.map(RawValue::get) {
            None | Some("null" | "\"insert\"") => Ok(Operation::Insert),
            Some("\"delete\"") => Ok(Operation::Delete),
            Some("\"update\"") => Ok(Operation::Update),
            Some(other) => {
                let error = RowError::new(self.line, "an operation is \"insert\", \"delete\" or \"update\"");
                Err(error.in_column("_op").showing(other.as_bytes()))
            }
        }
    }

    fn push(&self, scatter: &mut Scatter, row: &JsonRow<'_>, weight: i64, changes: u64) -> Result<(), RowError> {
        scatter.push(row, weight, changes).map_err(|error| match error {
            ScatterError::Cell(column, error) => {
                let prefix = if row.place == Place::Before { "_before." } else { "" };
                let name = format!("{prefix}{}", row.table.columns[column].name);
                let error = RowError::new(self.line, error.to_string()).in_column(&name);
                match row.values[column] {
                    Some(value) => error.showing(value.get().as_bytes()),
                    None => error,
                }
            }
            other => too_large(self.line, &other),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Insert,
    Delete,
    Update,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Row,
    Before,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Row => "the line",
            Self::Before => "'_before'",
        }
    }
}

/// The members of one object, as they stand in the line.
struct JsonRow<'a> {
    table: &'a Table,
    place: Place,
    /// By the table's column.
    values: Vec<Option<&'a RawValue>>,
    operation: Option<&'a RawValue>,
    before: Option<&'a RawValue>,
}

impl Cells for JsonRow<'_> {
    fn cell(&self, column: usize) -> Result<Option<Cow<'_, [u8]>>, ValueError> {
        let Some(raw) = self.values[column] else {
            return Ok(None);
        };
        let text = raw.get().as_bytes();
        let kind = self.table.columns[column].kind;
        let mismatch = |found, wanted| Err(ValueError::JsonType { found, wanted });
        match (text[0], kind) {
            (b'n', _) => Ok(None),
            (b'"', _) => string(raw.get()).map(Some),
            (b'{', _) => mismatch("object", wanted(kind)),
            (b'[', _) => mismatch("array", wanted(kind)),
            (b't' | b'f', ColumnType::Bool) => Ok(Some(Cow::Borrowed(text))),
            (b't' | b'f', _) => mismatch("boolean", wanted(kind)),
            (_, ColumnType::Int | ColumnType::Decimal { .. } | ColumnType::Double) => Ok(Some(Cow::Borrowed(text))),
            _ => mismatch("number", wanted(kind)),
        }
    }
}

fn wanted(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Int | ColumnType::Decimal { .. } | ColumnType::Double => "number or string",
        ColumnType::Text | ColumnType::Timestamp | ColumnType::Date => "string",
        ColumnType::Bool => "boolean",
    }
}

fn string(raw: &str) -> Result<Cow<'_, [u8]>, ValueError> {
    let inner = &raw[1..raw.len() - 1];
    if memchr(b'\\', inner.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inner.as_bytes()));
    }
    let text: String = serde_json::from_str(raw).map_err(|_| ValueError::JsonString)?;
    Ok(Cow::Owned(text.into_bytes()))
}

#[derive(Clone, Copy)]
struct RowSeed<'t> {
    table: &'t Table,
    place: Place,
}

impl<'de: 't, 't> DeserializeSeed<'de> for RowSeed<'t> {
    type Value = JsonRow<'t>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de: 't, 't> Visitor<'de> for RowSeed<'t> {
    type Value = JsonRow<'t>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object with a member per column")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Self { table, place } = self;
        let values = vec![None; table.columns.len()];
        let mut row = JsonRow { table, place, values, operation: None, before: None };
        while let Some(member) = members.next_key_seed(MemberSeed(self))? {
            let value: &RawValue = members.next_value()?;
            let to = match member {
                Member::Column(index) => &mut row.values[index],
                Member::Operation => &mut row.operation,
                Member::Before if value.get() == "null" => continue,
                Member::Before => &mut row.before,
            };
            if to.replace(value).is_some() {
                return Err(A::Error::custom("a member stands twice"));
            }
        }
        Ok(row)
    }
}

enum Member {
    Column(usize),
    Operation,
    Before,
}

struct MemberSeed<'t>(RowSeed<'t>);

impl<'de> DeserializeSeed<'de> for MemberSeed<'_> {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberSeed<'_> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Member, E> {
        match (name, self.0.place) {
            ("_op", Place::Row) => Ok(Member::Operation),
            ("_before", Place::Row) => Ok(Member::Before),
            _ => {
                let shown: String = name.chars().take(64).collect();
                let unknown = || E::custom(format!("'{shown}': {}", no_such_column(self.0.table)));
                self.0.table.column(name).map(Member::Column).ok_or_else(unknown)
            }
        }
    }
}
