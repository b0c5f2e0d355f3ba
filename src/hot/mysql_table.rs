//! A metric table as a table of SQL: its columns, its keys, and the statements that work on it.
//!
//! | column | what |
//! |---|---|
//! | `window_start`, the partition key, other groups, the selected names | as queries of holdfast see them |
//! | `holdfast_partition`, `holdfast_day` | where the row is from: partition, and day in the cluster's time zone |
//! | `holdfast_key` | only beside a text key: its bytes, for collations may take texts for equal that are not |
//! | `holdfast_row` | xxh3 of window and groups: nulls are values in it, and texts of any length fit |
//! | `holdfast_definition` | the `MetricTableId`: rows of an older definition are never read as new ones |
//! | `holdfast_epoch`, `holdfast_number` | the emission that wrote the row's block |
//! | `holdfast_exact` | the whole row as `encode_rows` has it, where the plain columns cannot hold it exactly |
//!
//! Invariant: a row's primary key tells every group of every window of a partition apart; what collides in `holdfast_row`
//! is seen before it is written and gets another hash.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::mysql_value::{Cell, Kind, write_bytes, write_int, write_text, write_timestamp};
use crate::model::block::{BlockKey, MetricTableId, StoredBlock};
use crate::model::catalog::Catalog;
use crate::model::codec::CodecError;
use crate::model::id::{Key, KeyValue, PartitionId, Tip};
use crate::model::metric::{MetricTable, WINDOW_START};
use crate::model::rows::{Compression, decode_rows, encode_rows};
use crate::mysql_pool::MysqlError;

/// Names that begin so are holdfast's.
pub const OWN: &str = "holdfast_";
/// Longest names that the servers know.
const MOST_NAME: usize = 64;
/// Of columns in keys that hold bytes of any length.
pub const KEY_BYTES: usize = 255;

/// One column of SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As `information_schema` says it, without display widths.
    pub kind: String,
    pub nullable: bool,
    pub comment: String,
}

/// A metric table.
#[derive(Debug)]
pub struct Table {
    pub id: MetricTableId,
    pub name: String,
    pub comment: String,
    /// All, those of the metric first.
    pub columns: Vec<Column>,
    pub primary_key: Vec<String>,
    definition: Arc<MetricTable>,
    kinds: Vec<Kind>,
    /// The columns 1 to here are groups, the partition key first.
    groups_end: usize,
    key_column: String,
    insert_head: String,
    insert_tail: String,
    select_head: String,
}

/// A name in SQL.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Bytes for a column in a key: themselves, or a beginning and a hash if they are many.
pub fn key_bytes(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() < KEY_BYTES {
        return bytes.to_owned();
    }
    // Of exactly the full length, which no bytes have that stand for themselves.
    let mut cut = bytes[..KEY_BYTES - 32].to_owned();
    cut.extend_from_slice(&Sha256::digest(bytes));
    cut
}

/// All tables of the definitions.
pub fn tables(catalog: &Catalog) -> Result<Vec<Table>, MysqlError> {
    catalog.metric_tables().iter().map(|table| Table::new(table, catalog.calendar().name())).collect()
}

impl Table {
    pub fn new(definition: &Arc<MetricTable>, zone: &str) -> Result<Self, MysqlError> {
        let metric = &definition.metric;
        let fields = definition.schema.fields();
        let kinds: Vec<Kind> = (fields.iter())
            .map(|field| {
                Kind::of(field.data_type()).ok_or_else(|| {
                    let found = format!("table {}: column {} is {}", definition.name, field.name(), field.data_type());
                    MysqlError::unfit(found, "the serving database has no type for it; select something else")
                })
            })
            .collect::<Result<_, _>>()?;
        let groups_end = 1 + metric.group.len();
        let source = &metric.table.name;
        let described = |index: usize| match index {
            0 => format!("start of the {}, UTC; they begin at local boundaries in {zone}", definition.window),
            1 => format!("column {} of {source}; every row has one", fields[1].name()),
            _ if index < groups_end => format!("column {} of {source}", fields[index].name()),
            _ => {
                let aggregate = &metric.aggregates[index - groups_end];
                let over = if aggregate.argument.is_some() { "values" } else { "rows" };
                format!("{} of {over} of {source}", aggregate.function.as_str())
            }
        };
        let mut columns: Vec<Column> = (fields.iter().enumerate())
            .map(|(index, field)| Column {
                name: field.name().clone(),
                kind: kinds[index].sql(),
                // A column that was taken out of the definition must not stop rows from being written.
                nullable: index > 1,
                comment: described(index),
            })
            .collect();
        let is_text = kinds[1] == Kind::Text;
        columns.extend(own_columns(is_text));
        let key_column = if is_text { "holdfast_key".to_owned() } else { fields[1].name().clone() };
        let primary_key = ["holdfast_partition", "holdfast_day", &key_column, "holdfast_row"].map(str::to_owned).into();
        let comment =
            format!("holdfast: metric {} by {} of {source}; written by holdfast only", metric.name, definition.window);
        let mut table = Self {
            id: definition.id,
            name: definition.name.to_string(),
            comment,
            columns,
            primary_key,
            definition: definition.clone(),
            kinds,
            groups_end,
            key_column: quoted(&key_column),
            insert_head: String::new(),
            insert_tail: String::new(),
            select_head: String::new(),
        };
        table.check_names()?;
        table.make_statements();
        Ok(table)
    }

    fn check_names(&self) -> Result<(), MysqlError> {
        let own =
            |column: &&Column| column.name.len() >= OWN.len() && column.name[..OWN.len()].eq_ignore_ascii_case(OWN);
        let taken = self.columns[..self.kinds.len()].iter().find(own);
        if let Some(column) = taken {
            let found = format!("table {}: column '{}' begins like holdfast's own", self.name, column.name);
            return Err(MysqlError::unfit(found, "name it otherwise"));
        }
        let long = std::iter::once(&self.name).chain(self.columns.iter().map(|column| &column.name));
        match long.into_iter().find(|name| name.len() > MOST_NAME) {
            Some(name) => Err(MysqlError::unfit(
                format!("the name '{name}' is longer than {MOST_NAME} characters"),
                "shorten it: the serving database takes no longer ones",
            )),
            None => Ok(()),
        }
    }

    fn make_statements(&mut self) {
        let names: Vec<String> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        self.insert_head = format!("insert into {} ({}) values ", quoted(&self.name), names.join(","));
        let in_key = |name: &&String| !self.primary_key.iter().any(|key| quoted(key) == **name);
        let sets: Vec<String> = names.iter().filter(in_key).map(|name| format!("{name}=values({name})")).collect();
        self.insert_tail = format!(" on duplicate key update {}", sets.join(","));
        let shown = names[..self.kinds.len()].join(",");
        self.select_head = format!(
            "select holdfast_day,holdfast_epoch,holdfast_number,holdfast_exact,{shown} from {} where holdfast_definition={} and ",
            quoted(&self.name),
            self.id.0
        );
    }

    pub fn insert_head(&self) -> &str {
        &self.insert_head
    }

    pub fn insert_tail(&self) -> &str {
        &self.insert_tail
    }

    /// Up to the conditions, after which come `place` and others.
    pub fn select_head(&self) -> &str {
        &self.select_head
    }

    pub fn delete_head(&self) -> String {
        format!("delete from {} where ", quoted(&self.name))
    }

    pub fn definition(&self) -> &MetricTable {
        &self.definition
    }

    /// Of the metric's columns.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// Where the group columns are.
    pub fn groups(&self) -> std::ops::Range<usize> {
        1..self.groups_end
    }

    /// ` and key in (…)`.
    pub fn write_keys<'a>(&self, out: &mut Vec<u8>, keys: impl Iterator<Item = &'a Key>) {
        out.extend_from_slice(b" and ");
        out.extend_from_slice(self.key_column.as_bytes());
        out.extend_from_slice(b" in (");
        for (index, key) in keys.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_key(out, key);
        }
        out.push(b')');
    }

    /// In the form of the primary key. A key of the other type equals no row's.
    fn write_key(&self, out: &mut Vec<u8>, key: &Key) {
        match (key.value(), self.kinds[1]) {
            (KeyValue::Int(value), Kind::Int) => write_int(out, value),
            (KeyValue::Text(value), Kind::Text) => write_bytes(out, &key_bytes(value.as_bytes())),
            _ => out.extend_from_slice(b"null"),
        }
    }

    /// The rows of a block, read as this table's.
    pub fn decode(&self, key: &BlockKey, block: &StoredBlock) -> Result<BlockRows<'_>, CodecError> {
        let rows = decode_rows(&self.definition.schema, &block.rows)?;
        let foreign = match key.key.value() {
            KeyValue::Int(value) if self.kinds[1] == Kind::Int => {
                rows.column(1).as_primitive::<Int64Type>().values().iter().any(|found| *found != value)
            }
            KeyValue::Text(value) if self.kinds[1] == Kind::Text => {
                rows.column(1).as_string::<i32>().iter().any(|found| found != Some(value))
            }
            _ => true,
        };
        if foreign {
            return Err(CodecError::malformed("block", "its rows are of another partition key"));
        }
        let numbers = self.row_numbers(&rows);
        Ok(BlockRows { table: self, key: key.clone(), version: block.version, rows, numbers })
    }

    /// A number for each row, none of them twice.
    fn row_numbers(&self, rows: &RecordBatch) -> Vec<u64> {
        let mut identities = Vec::with_capacity(rows.num_rows());
        let starts = rows.column(0).as_primitive::<TimestampMicrosecondType>().values();
        for (row, start) in starts.iter().enumerate() {
            let mut identity = start.to_le_bytes().to_vec();
            for column in self.groups().skip(1) {
                let values = rows.column(column);
                identity.push(u8::from(values.is_valid(row)));
                match self.kinds[column].cell(values, row) {
                    Cell::Null => {}
                    Cell::Int(value) | Cell::Timestamp(value) => identity.extend(value.to_le_bytes()),
                    Cell::Double(value) => identity.extend(value.to_bits().to_le_bytes()),
                    Cell::Decimal(value) => identity.extend(value.to_le_bytes()),
                    Cell::Bool(value) => identity.push(u8::from(value)),
                    Cell::Date(value) => identity.extend(value.to_le_bytes()),
                    Cell::Text(text) => {
                        identity.extend((text.len() as u64).to_le_bytes());
                        identity.extend_from_slice(text.as_bytes());
                    }
                }
            }
            identities.push(identity);
        }
        unlike(&identities, xxh3_64_with_seed)
    }
}

/// Hashes that differ wherever the identities' positions do: with the first seed that has no collision. Which seed it was
/// is not kept: rows of a block that get other numbers are written anew, and the old ones go with their version.
fn unlike(identities: &[Vec<u8>], hash: impl Fn(&[u8], u64) -> u64) -> Vec<u64> {
    // So many seeds without success say that two identities are equal; then the row's place tells them apart.
    const SEEDS: u64 = 16;
    for seed in 0..SEEDS {
        let hashes: Vec<u64> = identities.iter().map(|identity| hash(identity, seed)).collect();
        let mut seen = HashSet::with_capacity(hashes.len());
        if hashes.iter().all(|hash| seen.insert(*hash)) {
            return hashes;
        }
    }
    (0..identities.len() as u64).collect()
}

/// A block's rows on their way into SQL.
pub struct BlockRows<'a> {
    table: &'a Table,
    key: BlockKey,
    version: Tip,
    rows: RecordBatch,
    numbers: Vec<u64>,
}

impl BlockRows<'_> {
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// `(…)`, the values of one row in the order of the table's columns.
    pub fn write_row(&self, out: &mut Vec<u8>, partition: PartitionId, row: usize) {
        let table = self.table;
        out.push(b'(');
        let mut is_exact = true;
        for (index, (kind, values)) in table.kinds.iter().zip(self.rows.columns()).enumerate() {
            if index == 0 {
                is_exact &= self.write_start(out, row);
            } else {
                is_exact &= kind.write(out, values, row);
            }
            out.push(b',');
        }
        write_int(out, partition.0);
        out.push(b',');
        write_int(out, self.key.day);
        out.push(b',');
        if table.kinds[1] == Kind::Text {
            table.write_key(out, &self.key.key);
            out.push(b',');
        }
        for number in [self.numbers[row], table.id.0, self.version.epoch, self.version.number] {
            write_int(out, number);
            out.push(b',');
        }
        match is_exact {
            true => out.extend_from_slice(b"null"),
            false => write_bytes(out, &encode_rows(&self.rows.slice(row, 1), Compression::Plain)),
        }
        out.push(b')');
    }

    /// The column is never null: a window in a year that the server does not know shows as the nearest that it does.
    fn write_start(&self, out: &mut Vec<u8>, row: usize) -> bool {
        let start = self.rows.column(0).as_primitive::<TimestampMicrosecondType>().value(row);
        let is_exact = write_timestamp(out, start);
        if !is_exact {
            write_text(out, if start < 0 { "1000-01-01 00:00:00" } else { "9999-12-31 23:59:59" });
        }
        is_exact
    }
}

/// What holdfast needs to know of a row.
fn own_columns(is_text: bool) -> Vec<Column> {
    let column = |name: &str, kind: &str, nullable, comment: &str| Column {
        name: name.into(),
        kind: kind.into(),
        nullable,
        comment: comment.into(),
    };
    let mut columns = vec![
        column("holdfast_partition", "smallint unsigned", false, "partition that the row is from"),
        column("holdfast_day", "int", false, "day of the window in the cluster's time zone, as days since 1970-01-01"),
    ];
    if is_text {
        let kind = format!("varbinary({KEY_BYTES})");
        columns.push(column("holdfast_key", &kind, false, "the partition key's bytes"));
    }
    columns.extend([
        column("holdfast_row", "bigint unsigned", false, "hash of window and groups"),
        column("holdfast_definition", "bigint unsigned", false, "definition of the metric that the row was made by"),
        column("holdfast_epoch", "bigint unsigned", false, "owner that wrote the row"),
        column("holdfast_number", "bigint unsigned", false, "its emission that did"),
        column("holdfast_exact", "longblob", true, "the whole row, if a column cannot hold its value exactly"),
    ]);
    columns
}

/// The name of a metric table's first column is also the name in SQL.
pub fn index_columns(table: &Table) -> [String; 2] {
    [quoted(&table.columns[1].name), quoted(WINDOW_START)]
}

#[cfg(test)]
#[path = "mysql_table_tests.rs"]
mod tests;
