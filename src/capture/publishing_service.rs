//! Publishes a source's batches to mq, many at a time, each until mq has it.
//!
//! Invariant: batches and bytes under way are bounded; batches are handed to mq in the order in which they come, and one that failed is
//! handed over again until it is acknowledged: its span may then be there twice, and counts once.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::warn;

use super::settings::Settings;
use super::tiling::Outgoing;
use crate::model::id::PartitionId;
use crate::model::position::Span;
use crate::mq::{Mq, Offset};

/// The memory is counted in units of this, so that it fits a semaphore.
const UNIT_BYTES: usize = 1 << 10;

/// A batch that mq has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    pub table: usize,
    pub partition: PartitionId,
    pub span: Span,
    pub offset: Offset,
}

/// The batches of one source that are under way; dropping it gives up those that mq does not have.
pub struct Publisher {
    mq: Arc<dyn Mq>,
    settings: Arc<Settings>,
    slots: Arc<Semaphore>,
    room: Arc<Semaphore>,
    units: u32,
    under_way: JoinSet<Acknowledged>,
}

impl Publisher {
    pub fn new(mq: Arc<dyn Mq>, settings: Arc<Settings>) -> Self {
        let units = u32::try_from(settings.in_flight_bytes.bytes() / UNIT_BYTES).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        let slots = Arc::new(Semaphore::new(settings.in_flight.max(1)));
        Self { mq, settings, slots, room: Arc::new(Semaphore::new(units as usize)), units, under_way: JoinSet::new() }
    }

    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Waits for room, then hands a batch to mq.
    pub async fn publish(&mut self, outgoing: Outgoing) {
        let Outgoing { table, partition, batch } = outgoing;
        // A batch larger than all the room gets it all.
        let wanted = u32::try_from(batch.size().div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.units);
        let closed = "the semaphores are never closed";
        let slot = self.slots.clone().acquire_owned().await.expect(closed);
        let room = self.room.clone().acquire_many_owned(wanted).await.expect(closed);
        // Called here and not in the task: the order of calls is the order in mq.
        let mut published = self.mq.publish(partition, batch.clone());
        let (mq, backoff) = (self.mq.clone(), self.settings.retry());
        self.under_way.spawn(async move {
            let _held = (slot, room);
            let mut failures = 0;
            loop {
                let error = match published.await {
                    Ok(offset) => return Acknowledged { table, partition, span: batch.header.span, offset },
                    Err(error) => error,
                };
                failures += 1;
                let wait = backoff.delay(failures);
                warn!(%partition, %error, failures, wait_ms = wait.0, "mq did not take a captured batch");
                tokio::time::sleep(wait.duration()).await;
                published = mq.publish(partition, batch.clone());
            }
        });
    }

    /// The next batch that mq has; `None` if none is under way. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Acknowledged> {
        self.under_way.join_next().await.map(|landed| landed.expect("publishing neither panics nor is given up"))
    }

    /// Waits until mq has all.
    pub async fn drain(&mut self) {
        while self.next().await.is_some() {}
    }
}
