//! One write of a sink as one transaction: the partition's place is locked and compared first, and moved last.
//!
//! Invariant: a write that is refused, or breaks off, changes nothing; a row stands under the version of the emission that
//! wrote its block, so rows of a block under another version are groups that the block has no more.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::mysql_fault::{Fault, TIER, damaged, unknown_table};
use super::mysql_table::{Table, key_bytes};
use super::mysql_value::{write_bytes, write_int};
use crate::model::applied::Applied;
use crate::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use crate::model::codec;
use crate::model::id::{Key, PartitionId, SourceId, Tip};
use crate::mysql_pool::MysqlError;
use crate::place::SinkPlace;
use crate::tier::SinkWrite;

/// Keys named by one statement.
const KEYS_AT_ONCE: usize = 500;

/// The tables of the definitions, by their ids.
pub type Tables = BTreeMap<MetricTableId, Table>;

/// What statements may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Begun anew once they are longer.
    pub statement: usize,
    /// Never longer.
    pub packet: usize,
}

pub async fn write(
    conn: &mut Conn,
    tables: &Tables,
    partition: PartitionId,
    write: &SinkWrite,
    limits: Limits,
) -> Result<(), Fault> {
    conn.query_drop("start transaction").await?;
    let tip = locked_tip(conn, partition).await?;
    SinkPlace { tip, ..SinkPlace::default() }.check(TIER, write)?;
    let mut writer = Writer { conn, partition, limits, text: Vec::new() };
    writer.announce(write).await?;
    writer.forget(&write.forget).await?;
    writer.put(tables, &write.blocks).await?;
    writer.remove(tables, &write.remove).await?;
    writer.accept(write).await?;
    Ok(writer.conn.query_drop("commit").await?)
}

/// Where the partition stands; nobody else moves it until this transaction ends.
async fn locked_tip(conn: &mut Conn, partition: PartitionId) -> Result<Tip, Fault> {
    let statement = format!(
        "select holdfast_epoch, holdfast_number from holdfast_place where holdfast_partition = {partition} for update"
    );
    let found: Option<(u64, u64)> = conn.query_first(&statement).await?;
    if let Some((epoch, number)) = found {
        return Ok(Tip::new(epoch, number));
    }
    // Somebody took the row away; the place is then what it was before any write.
    conn.query_drop(format!("insert ignore into holdfast_place (holdfast_partition) values ({partition})")).await?;
    let found: Option<(u64, u64)> = conn.query_first(&statement).await?;
    Ok(found.map(|(epoch, number)| Tip::new(epoch, number)).unwrap_or_default())
}

struct Writer<'a> {
    conn: &'a mut Conn,
    partition: PartitionId,
    limits: Limits,
    /// The statement being built.
    text: Vec<u8>,
}

impl Writer<'_> {
    fn add(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    async fn send(&mut self) -> Result<(), Fault> {
        if self.text.len() + 64 > self.limits.packet {
            return Err(MysqlError::unfit(
                format!(
                    "a statement needs {} bytes, and max_allowed_packet is {}",
                    self.text.len(),
                    self.limits.packet
                ),
                "make it larger: set global max_allowed_packet = 1073741824",
            )
            .into());
        }
        // The buffer is lent to the client and taken back, so that it is made once.
        let text = std::mem::take(&mut self.text);
        self.conn.query_drop(text.as_slice()).await?;
        self.text = text;
        self.text.clear();
        Ok(())
    }

    /// Merges what is said with what was said before.
    async fn announce(&mut self, write: &SinkWrite) -> Result<(), Fault> {
        for said in write.announce.chunks(KEYS_AT_ONCE) {
            let mut announced = Applied::default();
            for (source, progress) in self.announced(said.iter().map(|(source, _)| source)).await? {
                announced.merge_delta(&[(source, progress)]);
            }
            announced.merge_delta(said);
            self.add("insert into holdfast_announced (holdfast_partition, source_key, progress) values ");
            for (index, entry) in announced.delta(said.iter().map(|(source, _)| source)).iter().enumerate() {
                self.add(if index > 0 { ",(" } else { "(" });
                write_int(&mut self.text, self.partition.0);
                self.add(",");
                write_source(&mut self.text, &entry.0);
                self.add(",");
                write_bytes(&mut self.text, &codec::encode(entry));
                self.add(")");
            }
            self.add(" on duplicate key update progress=values(progress)");
            self.send().await?;
        }
        Ok(())
    }

    async fn announced<'a>(
        &mut self,
        sources: impl Iterator<Item = &'a SourceId>,
    ) -> Result<crate::model::applied::AppliedDelta, Fault> {
        self.sources("select progress from holdfast_announced where holdfast_partition=", sources);
        let text = std::mem::take(&mut self.text);
        let found: Vec<Vec<u8>> = self.conn.query(text.as_slice()).await?;
        let place = || format!("partition {} source", self.partition);
        found.iter().map(|bytes| codec::decode("source", bytes).map_err(|error| damaged(place(), error))).collect()
    }

    async fn forget(&mut self, sources: &[SourceId]) -> Result<(), Fault> {
        for sources in sources.chunks(KEYS_AT_ONCE) {
            self.sources("delete from holdfast_announced where holdfast_partition=", sources.iter());
            self.send().await?;
        }
        Ok(())
    }

    fn sources<'a>(&mut self, head: &str, sources: impl Iterator<Item = &'a SourceId>) {
        self.add(head);
        write_int(&mut self.text, self.partition.0);
        self.add(" and source_key in (");
        for (index, source) in sources.enumerate() {
            if index > 0 {
                self.add(",");
            }
            write_source(&mut self.text, source);
        }
        self.add(")");
    }

    async fn put(&mut self, tables: &Tables, blocks: &[(BlockKey, StoredBlock)]) -> Result<(), Fault> {
        // Of a block that is there twice the later one counts.
        let blocks: BTreeMap<&BlockKey, &StoredBlock> = blocks.iter().map(|(key, block)| (key, block)).collect();
        let mut written: BTreeMap<Group, Vec<&Key>> = BTreeMap::new();
        let mut open: Option<&Table> = None;
        for (key, block) in blocks {
            let table = tables.get(&key.table).ok_or_else(|| unknown_table(key.table))?;
            if open.is_some_and(|open| open.id != table.id) {
                self.close(&mut open).await?;
            }
            let place = || format!("block {} {} {}", table.name, key.day, key.key);
            let rows = table.decode(key, block).map_err(|error| damaged(place(), error))?;
            for row in 0..rows.len() {
                match open {
                    Some(_) => self.add(","),
                    None => {
                        self.add(table.insert_head());
                        open = Some(table);
                    }
                }
                rows.write_row(&mut self.text, self.partition, row);
                if self.text.len() >= self.limits.statement {
                    self.close(&mut open).await?;
                }
            }
            let group = Group { table: key.table, day: key.day, but: Some(block.version) };
            written.entry(group).or_default().push(&key.key);
        }
        self.close(&mut open).await?;
        self.delete(tables, written).await
    }

    async fn close(&mut self, open: &mut Option<&Table>) -> Result<(), Fault> {
        match open.take() {
            Some(table) => {
                self.add(table.insert_tail());
                self.send().await
            }
            None => Ok(()),
        }
    }

    async fn remove(&mut self, tables: &Tables, blocks: &[BlockKey]) -> Result<(), Fault> {
        let mut removed: BTreeMap<Group, Vec<&Key>> = BTreeMap::new();
        // A table that no definition has any more has no readers either.
        for key in blocks.iter().filter(|key| tables.contains_key(&key.table)) {
            removed.entry(Group { table: key.table, day: key.day, but: None }).or_default().push(&key.key);
        }
        self.delete(tables, removed).await
    }

    async fn delete(&mut self, tables: &Tables, blocks: BTreeMap<Group, Vec<&Key>>) -> Result<(), Fault> {
        for (group, keys) in blocks {
            let table = &tables[&group.table];
            for keys in keys.chunks(KEYS_AT_ONCE) {
                self.add(&table.delete_head());
                self.add(&format!("holdfast_partition={} and holdfast_day={}", self.partition, group.day));
                table.write_keys(&mut self.text, keys.iter().copied());
                if let Some(Tip { epoch, number }) = group.but {
                    self.add(&format!(" and (holdfast_epoch<>{epoch} or holdfast_number<>{number})"));
                }
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn accept(&mut self, write: &SinkWrite) -> Result<(), Fault> {
        let Tip { epoch, number } = write.tip;
        self.add(&format!("update holdfast_place set holdfast_epoch={epoch}, holdfast_number={number}"));
        if let Some(record) = &write.record {
            self.add(", record=");
            write_bytes(&mut self.text, &codec::encode(record));
        }
        self.add(&format!(" where holdfast_partition={}", self.partition));
        self.send().await
    }
}

/// Blocks that one statement can delete rows of: all rows, or those of another version.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    table: MetricTableId,
    day: Day,
    but: Option<Tip>,
}

fn write_source(out: &mut Vec<u8>, source: &SourceId) {
    write_bytes(out, &key_bytes(&codec::to_bytes(source)));
}
