//! Reads of the serving database: every read is one snapshot, and blocks are built again from their rows.
//!
//! Invariant: a block that is read has the bytes that were written: its rows are sorted as the owner sorts them (by window,
//! then by groups, nulls first), and values come exact.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::mysql_fault::{Fault, damaged, unknown_table};
use super::mysql_table::Table;
use super::mysql_value::{Cell, Kind};
use super::mysql_write::Tables;
use crate::model::applied::Applied;
use crate::model::block::{BlockKey, Day, StoredBlock};
use crate::model::codec::{self, CodecError};
use crate::model::id::{Key, PartitionId, Tip};
use crate::model::quality::Record;
use crate::model::rows::{Compression, decode_rows, encode_rows};
use crate::mysql_pool::MysqlError;
use crate::tier::{SinkQuery, SinkRead, SinkStanding};

const SNAPSHOT: &str = "start transaction with consistent snapshot, read only";
/// Keys named by one statement.
const KEYS_AT_ONCE: usize = 1_000;
/// Columns before those of the metric.
const LEAD: usize = 4;

pub async fn standing(conn: &mut Conn, partition: PartitionId) -> Result<SinkStanding, Fault> {
    conn.query_drop(SNAPSHOT).await?;
    let tip: Option<(u64, u64)> = conn
        .query_first(format!(
            "select holdfast_epoch, holdfast_number from holdfast_place where holdfast_partition = {partition}"
        ))
        .await?;
    let found: Vec<Vec<u8>> =
        conn.query(format!("select progress from holdfast_announced where holdfast_partition = {partition}")).await?;
    conn.query_drop("commit").await?;
    let mut announced = Applied::default();
    for bytes in found {
        let entry = codec::decode("source", &bytes);
        announced.merge_delta(&[entry.map_err(|error| damaged(format!("partition {partition} source"), error))?]);
    }
    Ok(SinkStanding { tip: tip.map(|(epoch, number)| Tip::new(epoch, number)).unwrap_or_default(), announced })
}

/// A row on its way into a block.
struct Found {
    day: Day,
    key: Key,
    version: Tip,
    cells: Vec<Cell>,
}

pub async fn read(
    conn: &mut Conn,
    tables: &Tables,
    partition: PartitionId,
    query: &SinkQuery,
    most_bytes: usize,
) -> Result<SinkRead, Fault> {
    let table = tables.get(&query.table).ok_or_else(|| unknown_table(query.table))?;
    conn.query_drop(SNAPSHOT).await?;
    let place: Option<(Option<Day>, Option<Vec<u8>>)> = conn
        .query_first(format!("select kept_from, record from holdfast_place where holdfast_partition = {partition}"))
        .await?;
    let (kept_from, record) = place.unwrap_or_default();
    let rows = rows_of(conn, table, partition, query, most_bytes).await?;
    conn.query_drop("commit").await?;
    let record: Option<Record> = record
        .map(|bytes| codec::decode("record", &bytes))
        .transpose()
        .map_err(|error| damaged(format!("partition {partition} record"), error))?;
    let incomplete = kept_from.is_some_and(|first| !query.days.is_empty() && *query.days.start() < first);
    let blocks =
        blocks(table, rows).map_err(|error| damaged(format!("{} in partition {partition}", table.name), error))?;
    Ok(SinkRead { record: record.map(Arc::new), blocks, incomplete })
}

async fn rows_of(
    conn: &mut Conn,
    table: &Table,
    partition: PartitionId,
    query: &SinkQuery,
    most_bytes: usize,
) -> Result<Vec<Found>, Fault> {
    if query.days.is_empty() {
        return Ok(Vec::new());
    }
    let mut gathered = Gathered { table, rows: Vec::new(), bytes: 0, most_bytes };
    match &query.keys {
        None => gathered.ask(conn, partition, &query.days, None).await?,
        Some(keys) => {
            // Named twice, a key's rows must not come twice.
            let mut keys: Vec<&Key> = keys.iter().collect();
            keys.sort_unstable();
            keys.dedup();
            for keys in keys.chunks(KEYS_AT_ONCE) {
                gathered.ask(conn, partition, &query.days, Some(keys)).await?;
            }
        }
    }
    Ok(gathered.rows)
}

struct Gathered<'a> {
    table: &'a Table,
    rows: Vec<Found>,
    bytes: usize,
    most_bytes: usize,
}

impl Gathered<'_> {
    async fn ask(
        &mut self,
        conn: &mut Conn,
        partition: PartitionId,
        days: &RangeInclusive<Day>,
        keys: Option<&[&Key]>,
    ) -> Result<(), Fault> {
        let mut statement = self.table.select_head().as_bytes().to_owned();
        let (first, last) = (days.start(), days.end());
        let place = format!("holdfast_partition={partition} and holdfast_day between {first} and {last}");
        statement.extend_from_slice(place.as_bytes());
        if let Some(keys) = keys {
            self.table.write_keys(&mut statement, keys.iter().copied());
        }
        // Prepared, because answers to plain text show doubles as text.
        let statement = conn.prep(statement).await?;
        let mut result = conn.exec_iter(&statement, ()).await?;
        while let Some(row) = result.next().await? {
            let found = found(self.table, row)
                .map_err(|error| damaged(format!("a row of {} in partition {partition}", self.table.name), error))?;
            self.bytes += size_of::<Found>() + found.cells.iter().map(Cell::bytes).sum::<usize>();
            self.rows.push(found);
            if self.bytes > self.most_bytes {
                return Err(MysqlError::unfit(
                    format!("the rows asked for need more than {} bytes", self.most_bytes),
                    "ask for fewer keys or days, or raise read_limit",
                )
                .into());
            }
        }
        drop(result);
        Ok(conn.close(statement).await?)
    }
}

fn found(table: &Table, row: Row) -> Result<Found, CodecError> {
    let mut values = row.unwrap().into_iter();
    let mut lead: [Value; LEAD] = std::array::from_fn(|_| values.next().unwrap_or(Value::NULL));
    let whole = |value: &Value| match value {
        Value::Int(value) => Ok(i128::from(*value)),
        Value::UInt(value) => Ok(i128::from(*value)),
        other => Err(CodecError::malformed("row", format!("{other:?} where a number was written"))),
    };
    let epoch = whole(&lead[1])? as u64;
    let version = Tip::new(epoch, whole(&lead[2])? as u64);
    let cells: Vec<Cell> = match std::mem::replace(&mut lead[3], Value::NULL) {
        Value::Bytes(exact) => {
            let rows = decode_rows(&table.definition().schema, &Bytes::from(exact))?;
            if rows.num_rows() != 1 {
                return Err(CodecError::malformed("row", format!("{} rows in the place of one", rows.num_rows())));
            }
            table.kinds().iter().zip(rows.columns()).map(|(kind, values)| kind.cell(values, 0)).collect()
        }
        _ => table.kinds().iter().zip(values).map(|(kind, value)| kind.read(value)).collect::<Result<_, _>>()?,
    };
    let key = match cells.get(1) {
        Some(Cell::Int(value)) => Key::int(*value),
        Some(Cell::Text(value)) => Key::text(value),
        other => return Err(CodecError::malformed("row", format!("{other:?} as partition key"))),
    };
    Ok(Found { day: whole(&lead[0])? as Day, key, version, cells })
}

/// Rows come in whatever order the server found them in.
fn blocks(table: &Table, mut rows: Vec<Found>) -> Result<Vec<(BlockKey, StoredBlock)>, CodecError> {
    let in_block = |a: &Found, b: &Found| {
        let columns = std::iter::once(0).chain(table.groups().skip(1));
        columns.fold(std::cmp::Ordering::Equal, |order, at| order.then_with(|| a.cells[at].order(&b.cells[at])))
    };
    rows.sort_by(|a, b| (a.day, &a.key).cmp(&(b.day, &b.key)).then_with(|| in_block(a, b)));
    rows.chunk_by(|a, b| (a.day, &a.key) == (b.day, &b.key)).map(|rows| block(table, rows)).collect()
}

fn block(table: &Table, rows: &[Found]) -> Result<(BlockKey, StoredBlock), CodecError> {
    let column = |(index, kind): (usize, &Kind)| kind.column(rows.iter().map(|row| &row.cells[index]));
    let columns = table.kinds().iter().enumerate().map(column).collect();
    let schema = table.definition().schema.clone();
    // A null where none was written is a stranger's.
    let batch = RecordBatch::try_new(schema, columns).map_err(|error| CodecError::malformed("block", error))?;
    let rows_bytes = Bytes::from(encode_rows(&batch, Compression::Plain));
    // All rows of a block are of one version; should they not be, it is as new as the newest.
    let version = rows.iter().map(|row| row.version).max().unwrap_or_default();
    let first = &rows[0];
    let key = BlockKey { table: table.id, day: first.day, key: first.key.clone() };
    Ok((key, StoredBlock { version, rows: rows_bytes }))
}
