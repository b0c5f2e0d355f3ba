//! Takes batches for mq from other processes, in order.
//!
//! Invariant: of one writer, publications are handed to mq in the order of their numbers, and none of an older session once
//! a newer one has begun; whatever was handed over is done, whether the writer hears of it or not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::lender_service::Lent;
use crate::lending::answer::Failure;
use crate::lending::ask::check_partition;
use crate::lending::items::{self, Publication, Settled};
use crate::lending::remote_items;
use crate::locks::lock;
use crate::model::batch::Batch;
use crate::model::id::PartitionId;
use crate::net::link::{StreamReader, StreamWriter};

/// Which process's queue of publications.
pub type WriterId = (u128, u64);

/// The newest session of each writer.
pub struct Sessions {
    newest: Mutex<HashMap<WriterId, Arc<Mutex<u64>>>>,
    most: usize,
}

/// A writer's session as one stream knows it.
pub struct Session {
    /// Held while a publication is handed over.
    newest: Arc<Mutex<u64>>,
    number: u64,
}

impl Sessions {
    pub fn new(most: usize) -> Self {
        Self { newest: Mutex::default(), most: most.max(1) }
    }

    /// `None`: a newer one was here.
    pub fn enter(&self, writer: WriterId, number: u64) -> Option<Session> {
        let newest = {
            let mut all = lock(&self.newest);
            if all.len() >= self.most && !all.contains_key(&writer) {
                // Those of writers without a stream: nothing of theirs is on its way.
                all.retain(|_, newest| Arc::strong_count(newest) > 1);
            }
            all.entry(writer).or_default().clone()
        };
        let mut current = lock(&newest);
        if *current >= number {
            return None;
        }
        *current = number;
        drop(current);
        Some(Session { newest, number })
    }
}

type Settling = BoxFuture<'static, Settled>;

/// One stream, until its writer ends it and all is settled, or the connection ends.
pub async fn serve(
    lent: &Lent,
    session: Session,
    stall: Duration,
    most: usize,
    (writer, reader): (StreamWriter, StreamReader),
) {
    let (handed, settling) = mpsc::unbounded_channel();
    let places = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
    let taking = Taking { lent, session, stall, places };
    tokio::join!(taking.take_all(reader, handed), settle_all(settling, writer));
}

struct Taking<'a> {
    lent: &'a Lent,
    session: Session,
    stall: Duration,
    places: Arc<Semaphore>,
}

impl Taking<'_> {
    async fn take_all(self, mut reader: StreamReader, handed: mpsc::UnboundedSender<Settling>) {
        while let Some((number, partition, batch)) = self.next(&mut reader).await {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let publishing = {
                let newest = lock(&self.session.newest);
                if *newest != self.session.number {
                    return;
                }
                // Takes its place in the log in this call.
                self.lent.mq.publish(partition, batch)
            };
            let settling = publishing.map(move |result| {
                drop(place);
                (number, result.map_err(Failure::from))
            });
            if handed.send(settling.boxed()).is_err() {
                return;
            }
        }
    }

    /// `None`: the stream is over, or is not what it should be.
    async fn next(&self, reader: &mut StreamReader) -> Option<(u64, PartitionId, Batch)> {
        let (publication, mut inline) = Publication::open(reader.read().await.ok()??).ok()?;
        let Publication { number, partition, batch } = publication;
        check_partition(partition, self.lent.partitions).ok()?;
        let bytes = batch.bytes();
        if inline.rest() as u64 == bytes {
            return Some((number, partition, batch.read(&mut inline).ok()?));
        }
        inline.end().ok()?;
        let rows = timeout(self.stall, remote_items::read(reader, bytes)).await.ok()?.ok()?;
        Some((number, partition, batch.with(rows).ok()?))
    }
}

/// What is told at once, at most; then it surely fits an item.
const TOLD_AT_ONCE: usize = 256;

async fn settle_all(mut handed: mpsc::UnboundedReceiver<Settling>, mut writer: StreamWriter) {
    let mut settling = FuturesUnordered::new();
    loop {
        let mut settled: Vec<Settled> = Vec::new();
        tokio::select! {
            next = handed.recv() => match next {
                Some(publishing) => settling.push(publishing),
                None => break,
            },
            Some(first) = settling.next() => settled.push(first),
        }
        if settled.is_empty() {
            continue;
        }
        while settled.len() < TOLD_AT_ONCE
            && let Some(Some(more)) = settling.next().now_or_never()
        {
            settled.push(more);
        }
        if writer.write(items::seal(&settled)).await.is_err() {
            return;
        }
    }
    while let Some(last) = settling.next().await {
        if writer.write(items::seal(&vec![last])).await.is_err() {
            return;
        }
    }
    // The connection may have ended; nobody waits then.
    let _ = writer.finish();
}
