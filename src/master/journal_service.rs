//! Writes a master's records away from its loop: those that are ready together as one flushed batch.
//!
//! Invariant: records are written in the order in which they came; a number is reported durable only with all before it; after
//! a failure nothing more is written.

use std::sync::Arc;

use futures::executor::block_on;
use futures::future::try_join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::error;

use super::journal::{Journal, Record};
use crate::tier::TierError;

/// Records that wait; then the master waits, too.
const QUEUE: usize = 1_024;

/// How far the journal has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// All up to this one are durable.
    pub durable: u64,
    pub failure: Option<TierError>,
}

pub struct Writer {
    pub records: mpsc::Sender<(u64, Record)>,
    pub written: watch::Receiver<Written>,
    /// Ends once everything is written and `records` is gone.
    pub task: JoinHandle<()>,
}

pub fn start(journal: Arc<dyn Journal>) -> Writer {
    let (records, queue) = mpsc::channel(QUEUE);
    let (report, written) = watch::channel(Written::default());
    Writer { records, written, task: tokio::spawn(run(journal, queue, report)) }
}

async fn run(journal: Arc<dyn Journal>, mut queue: mpsc::Receiver<(u64, Record)>, report: watch::Sender<Written>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, QUEUE).await > 0 {
        let ready = std::mem::take(&mut batch);
        let last = ready.last().map_or(0, |(number, _)| *number);
        let journal = journal.clone();
        // The store's writes block; all of them are begun before the first flush, which then covers them.
        let write = move || {
            let writes: Vec<_> = ready.iter().map(|(_, record)| journal.write(record)).collect();
            block_on(try_join_all(writes)).map(|_| ())
        };
        let outcome = spawn_blocking(write).await;
        let failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(failure)) => Some(failure),
            Err(panic) => Some(TierError::Unavailable { tier: "master", reason: panic.to_string() }),
        };
        if let Some(failure) = failure {
            error!(error = %failure, "the master's journal cannot be written; this master stops");
            report.send_modify(|written| written.failure = Some(failure));
            return;
        }
        report.send_modify(|written| written.durable = last);
    }
}
