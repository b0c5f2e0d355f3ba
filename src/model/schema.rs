//! Tables: the columns that a source's rows have, and which of them decide partition and time.
//!
//! Invariant: a `Table` that exists is consistent: its key, partition and time columns exist and have fitting types.

use std::sync::Arc;
use std::{fmt, str::FromStr};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// A column's type as `cluster.toml` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// 64-bit signed.
    Int,
    /// Exact; precision 1–28 (so that sums of 10^10 rows fit 38 digits), scale 0–precision.
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// IEEE 754; may be filtered, compared and counted, but not summed: float sums depend on the order.
    Double,
    Text,
    Bool,
    /// Microseconds since the Unix epoch, UTC.
    Timestamp,
    Date,
}

/// The largest precision of a decimal column.
pub const MAX_COLUMN_PRECISION: u8 = 28;

impl ColumnType {
    pub fn arrow(self) -> DataType {
        match self {
            Self::Int => DataType::Int64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
            Self::Double => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::Date => DataType::Date32,
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int => f.write_str("int"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Double => f.write_str("double"),
            Self::Text => f.write_str("text"),
            Self::Bool => f.write_str("bool"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
        }
    }
}

impl FromStr for ColumnType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        match text.as_str() {
            "int" => return Ok(Self::Int),
            "double" => return Ok(Self::Double),
            "text" => return Ok(Self::Text),
            "bool" => return Ok(Self::Bool),
            "timestamp" => return Ok(Self::Timestamp),
            "date" => return Ok(Self::Date),
            _ => {}
        }
        let unknown =
            || format!("unknown type '{text}'; known: int, decimal(p,s), double, text, bool, timestamp, date");
        let inner = text.strip_prefix("decimal").map(str::trim_start).ok_or_else(unknown)?;
        let inner = inner.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).ok_or_else(unknown)?;
        let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
        let (Ok(precision), Ok(scale)) = (precision.trim().parse::<u8>(), scale.trim().parse::<u8>()) else {
            return Err(unknown());
        };
        if !(1..=MAX_COLUMN_PRECISION).contains(&precision) {
            return Err(format!("decimal precision {precision} is not between 1 and {MAX_COLUMN_PRECISION}"));
        }
        if scale > precision {
            return Err(format!("decimal scale {scale} is larger than its precision {precision}"));
        }
        Ok(Self::Decimal { precision, scale })
    }
}

impl Serialize for ColumnType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A `[[table]]` of `cluster.toml`, before it is checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    pub name: String,
    pub key: Vec<String>,
    pub partition_by: String,
    pub time: String,
    pub columns: toml::map::Map<String, toml::Value>,
}

/// Why a table's definition cannot be used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("table '{table}': {reason}")]
pub struct SchemaError {
    pub table: String,
    /// The key of the definition that is wrong: `name`, `key`, `partition_by`, `time` or `columns`.
    pub field: &'static str,
    pub reason: String,
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    /// Key, partition columns never hold null.
    pub nullable: bool,
}

/// A checked table definition. Columns stand in the order in which they were defined.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub name: Arc<str>,
    pub columns: Vec<Column>,
    /// Indexes into `columns`.
    pub key: Vec<usize>,
    pub partition_by: usize,
    pub time: usize,
    /// The columns as Arrow fields, without weight and position.
    pub schema: SchemaRef,
    /// Changes whenever a body encoded before could be misread.
    pub fingerprint: u64,
}

impl Table {
    pub fn new(config: &TableConfig) -> Result<Self, SchemaError> {
        let fail = |field, reason| SchemaError { table: config.name.clone(), field, reason };
        if !is_plain_name(&config.name) {
            return Err(fail("name", "a name is letters, digits and underscores, not starting with a digit".into()));
        }
        let mut columns = Vec::with_capacity(config.columns.len());
        for (name, kind) in &config.columns {
            if !is_plain_name(name) {
                return Err(fail("columns", format!("'{name}' is not a name: letters, digits and underscores")));
            }
            let kind = kind.as_str().ok_or_else(|| fail("columns", format!("the type of '{name}' is not a string")))?;
            let kind = kind.parse().map_err(|reason| fail("columns", format!("column '{name}': {reason}")))?;
            columns.push(Column { name: name.clone(), kind, nullable: true });
        }
        let find = |field, name: &String| {
            let found = columns.iter().position(|column| column.name == *name);
            found.ok_or_else(|| fail(field, format!("no column '{name}'")))
        };
        let key = config.key.iter().map(|name| find("key", name)).collect::<Result<Vec<_>, _>>()?;
        let partition_by = find("partition_by", &config.partition_by)?;
        let time = find("time", &config.time)?;
        if key.is_empty() {
            return Err(fail("key", "at least one column is needed".into()));
        }
        if !matches!(columns[partition_by].kind, ColumnType::Int | ColumnType::Text) {
            return Err(fail("partition_by", format!("'{}' must be int or text", config.partition_by)));
        }
        if !matches!(columns[time].kind, ColumnType::Timestamp | ColumnType::Date) {
            return Err(fail("time", format!("'{}' must be timestamp or date", config.time)));
        }
        for &index in key.iter().chain([&partition_by]) {
            columns[index].nullable = false;
        }
        let fields = columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), column.nullable));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let described: String = columns.iter().map(|c| format!("{} {} {};", c.name, c.kind, c.nullable)).collect();
        let fingerprint = xxh3_64(described.as_bytes());
        Ok(Self { name: config.name.as_str().into(), columns, key, partition_by, time, schema, fingerprint })
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// Letters, digits and underscores, not starting with a digit: what may name a table, column or metric.
pub fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
