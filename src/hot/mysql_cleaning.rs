//! Deletes rows that nobody reads any more: those older than a new owner's first emission, and those of days that are no
//! longer kept.
//!
//! Invariant: before the first row of a day goes, its partition's place says that the day is not whole; transactions are
//! short, so that no emission waits for a deletion.

use std::sync::Arc;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::timeout;

use super::mysql::Shared;
use super::mysql_fault::Fault;
use super::mysql_table::{Table, quoted};
use crate::model::block::Day;
use crate::model::id::{PartitionId, Tip};
use crate::mysql_pool::MysqlError;

/// Rows deleted by one statement.
const ROWS_AT_ONCE: u64 = 5_000;

/// A statement within the deadline of a call; gives how many rows it changed.
async fn change(shared: &Shared, conn: &mut Conn, statement: String) -> Result<u64, Fault> {
    let limit = shared.settings.deadline.duration();
    match timeout(limit, conn.query_drop(statement)).await {
        Ok(done) => done?,
        Err(_) => return Err(MysqlError::Deadline(limit).into()),
    }
    Ok(conn.affected_rows())
}

async fn delete(shared: &Shared, conn: &mut Conn, table: &Table, condition: &str) -> Result<u64, Fault> {
    let mut deleted = 0;
    loop {
        let statement = format!("{}{condition} limit {ROWS_AT_ONCE}", table.delete_head());
        let now = change(shared, conn, statement).await?;
        deleted += now;
        if now < ROWS_AT_ONCE {
            return Ok(deleted);
        }
    }
}

/// Rows that the record's owner did not say again after its claim are gone for readers of holdfast (`SinkRead::settle`);
/// this makes them gone for all.
pub async fn sweep(shared: &Arc<Shared>, partition: PartitionId, base: Tip) -> Result<u64, Fault> {
    let mut lease = shared.writer().await?;
    let Tip { epoch, number } = base;
    let mut deleted = 0;
    for table in shared.tables.values() {
        let days: Vec<Day> = lease
            .conn()
            .query(format!(
                "select distinct holdfast_day from {} where holdfast_partition = {partition}",
                quoted(&table.name)
            ))
            .await?;
        for day in days {
            let condition = format!(
                "holdfast_partition = {partition} and holdfast_day = {day} and (holdfast_epoch < {epoch} or \
                 (holdfast_epoch = {epoch} and holdfast_number < {number}))"
            );
            deleted += delete(shared, lease.conn(), table, &condition).await?;
        }
    }
    lease.give_back();
    Ok(deleted)
}

/// Deletes the days that are no longer kept; gives how many rows went.
pub async fn clean(shared: &Arc<Shared>) -> Result<u64, Fault> {
    if shared.settings.keep_days == 0 {
        return Ok(0);
    }
    let today = shared.calendar.day_of(shared.clock.now_ms().saturating_mul(1_000));
    let first = today.saturating_sub_unsigned(shared.settings.keep_days);
    let mut lease = shared.writer().await?;
    let mut deleted = 0;
    for partition in 0..shared.partitions {
        let old = format!("holdfast_partition = {partition} and holdfast_day < {first}");
        for table in shared.tables.values() {
            let found: Option<u8> =
                lease.conn().query_first(format!("select 1 from {} where {old} limit 1", quoted(&table.name))).await?;
            if found.is_some() {
                let say = format!(
                    "update holdfast_place set kept_from = greatest(coalesce(kept_from, {first}), {first}) \
                     where holdfast_partition = {partition}"
                );
                change(shared, lease.conn(), say).await?;
                deleted += delete(shared, lease.conn(), table, &old).await?;
            }
        }
    }
    lease.give_back();
    Ok(deleted)
}
