//! Takes back what was published of an incarnation beyond a position; see `taking_back`.
//!
//! Invariant: from before the first row is taken back until `close`, every partition shows a gap: nobody takes the rows in between
//! for all that there are.

use super::capture_service::{CaptureParts, Captured};
use super::checkpoint::{source_id, taking_back_id};
use super::publishing_service::Publisher;
use super::source_service::of_tier;
use super::stop::{Stop, Trouble};
use super::taking_back::{FIRST, TakingBack, WHOLE, beyond};
use super::tiling::Outgoing;
use crate::model::id::PartitionId;
use crate::model::position::{Position, Span};
use crate::mq::Offset;

pub fn partitions(parts: &CaptureParts) -> impl Iterator<Item = PartitionId> + use<> {
    (0..parts.partitions).map(PartitionId)
}

fn backs(parts: &CaptureParts, incarnation: u64, from: Position) -> Vec<TakingBack> {
    let back = |captured: &Captured| {
        let (name, table) = (&parts.source.name, captured.source());
        let (source, back) = (source_id(name, &table, incarnation), taking_back_id(name, &table, incarnation));
        TakingBack::new(captured.table.clone(), source, back, from)
    };
    parts.tables.iter().map(back).collect()
}

/// Takes back what counts of the incarnation beyond `from`; nothing of that is in mq before the offsets `mq_from`.
pub async fn take_back(
    parts: &CaptureParts,
    incarnation: u64,
    from: Position,
    mq_from: &[Offset],
) -> Result<(), Trouble> {
    let mut publisher = Publisher::new(parts.mq.clone(), parts.settings.clone());
    let all = backs(parts, incarnation, from);
    // A gap shows from here on; then nothing more of the incarnation counts.
    for (span, of_back) in [(FIRST, true), (beyond(from), false)] {
        everywhere(parts, &mut publisher, &all, span, of_back).await;
    }
    for (partition, offset) in partitions(parts).zip(mq_from) {
        of_partition(parts, &mut publisher, backs(parts, incarnation, from), partition, *offset).await?;
    }
    publisher.drain().await;
    Ok(())
}

async fn of_partition(
    parts: &CaptureParts,
    publisher: &mut Publisher,
    mut backs: Vec<TakingBack>,
    partition: PartitionId,
    mut offset: Offset,
) -> Result<(), Trouble> {
    while !backs.iter().all(TakingBack::is_closed) {
        let read = parts.mq.read(partition, offset, parts.settings.read_bytes.bytes()).await.map_err(of_tier)?;
        if read.low > offset {
            let reason = format!("mq forgot rows in partition {partition} that have to be taken back");
            let way_out = "capture it under a new source's name, and the metrics' tables anew";
            return Err(Stop::unreadable(reason, way_out).into());
        }
        let next = read.batches.last().map(|(offset, _)| offset + 1);
        // The batches that end it were acknowledged, so they are there.
        offset = next.ok_or_else(|| Trouble::Failed("mq does not give what it acknowledged".into()))?;
        for (_, batch) in &read.batches {
            for (table, back) in backs.iter_mut().enumerate() {
                let damaged = |error| Stop::unreadable(format!("{error}"), "what mq has cannot be read back");
                for batch in back.read(batch).map_err(damaged)? {
                    publisher.publish(Outgoing { table, partition, batch }).await;
                }
            }
        }
    }
    Ok(())
}

/// What replaces the rows of these incarnations is in mq: their gaps are closed.
pub async fn close(parts: &CaptureParts, incarnations: &[u64]) {
    let mut publisher = Publisher::new(parts.mq.clone(), parts.settings.clone());
    for incarnation in incarnations {
        everywhere(parts, &mut publisher, &backs(parts, *incarnation, Position::ZERO), WHOLE, true).await;
    }
}

/// Publishes an empty batch in every partition, and waits until it is there.
async fn everywhere(parts: &CaptureParts, publisher: &mut Publisher, backs: &[TakingBack], span: Span, of_back: bool) {
    for (table, back) in backs.iter().enumerate() {
        for partition in partitions(parts) {
            // It says nothing of the time.
            publisher.publish(Outgoing { table, partition, batch: back.empty(span, of_back, 0) }).await;
        }
    }
    publisher.drain().await;
}
