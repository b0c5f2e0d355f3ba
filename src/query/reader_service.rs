//! Reads the blocks of a partition with the record they stand under: local memory, else cache, else hot.
//!
//! Invariant: all decisions are the core's (`reading`); this file calls the sinks and waits.

use std::sync::Arc;

use tokio::time::sleep;

use super::blocks::{Blocks, Decoded, Origin, ReadKey};
use super::reading::{self, Freshness, PartitionRead, Reading, Step};
use super::settings::Settings;
use crate::clock::Clock;
use crate::tier::Sink;

/// The sinks as queries see them.
pub struct Reader {
    pub cache: Arc<dyn Sink>,
    pub hot: Arc<dyn Sink>,
    pub blocks: Blocks,
    pub clock: Clock,
    pub settings: Settings,
}

impl Reader {
    pub async fn read(&self, key: ReadKey, freshness: Freshness) -> PartitionRead {
        let now_ms = self.clock.now_ms();
        if let Some(read) = reading::recent(&self.blocks, now_ms, &key, freshness, &self.settings) {
            return read;
        }
        let partition = key.partition;
        let mut reading = Reading::new(now_ms, key, freshness);
        let mut step = reading.start();
        loop {
            step = match step {
                Step::Read(origin, query) => {
                    let sink = match origin {
                        Origin::Cache => &self.cache,
                        Origin::Hot => &self.hot,
                    };
                    reading.answered(sink.read(partition, query).await, &self.settings)
                }
                Step::Pause { pause_ms } => {
                    sleep(std::time::Duration::from_millis(pause_ms)).await;
                    reading.paused()
                }
                Step::Done(read) => return read,
            };
        }
    }

    /// Keeps a read for the queries that follow at once.
    pub fn remember(&self, read: &PartitionRead, rows: &[Arc<Decoded>]) {
        reading::remember(&self.blocks, read, rows, &self.settings);
    }
}

#[cfg(test)]
#[path = "reader_service_tests.rs"]
mod tests;
