//! Hands publications to the message queue of another process, in order, over one stream at a time.
//!
//! Invariant: a publication that was taken is handed over whether its caller waits or not; when the stream ends, those without
//! an answer are said to be unknown, and the next stream's number keeps what is left of the old one from being done later.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::Offset;
use super::remote::TIER;
use crate::lending::items::{self, Opening, Publication, Settled};
use crate::lending::remote_items;
use crate::lending::remote_store::{RemoteStore, unavailable};
use crate::locks::lock;
use crate::model::batch::Batch;
use crate::model::id::PartitionId;
use crate::net::link::{NetError, StreamReader, StreamWriter};
use crate::tier::TierError;

/// Memory is counted in units of this, so that it fits a semaphore.
const UNIT_BYTES: usize = 1 << 10;

pub struct Publisher {
    store: Arc<RemoteStore>,
    /// Bounded by `room`.
    queue: mpsc::UnboundedSender<Taken>,
    room: Arc<Semaphore>,
    units: u32,
}

/// On its way.
struct Taken {
    partition: PartitionId,
    batch: Batch,
    waiting: Waiting,
}

struct Waiting {
    answer: oneshot::Sender<Result<Offset, TierError>>,
    room: OwnedSemaphorePermit,
}

impl Waiting {
    fn hear(self, result: Result<Offset, TierError>) {
        // Who hears that it is done may publish more at once.
        drop(self.room);
        // The publisher need not wait.
        let _ = self.answer.send(result);
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

impl Publisher {
    pub fn start(store: Arc<RemoteStore>) -> Self {
        let (queue, taken) = mpsc::unbounded_channel();
        let units = units(store.settings().publish_memory.bytes()).max(1);
        tokio::spawn(run(store.clone(), taken));
        Self { store, queue, room: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Takes its place in the order at once.
    pub fn publish(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> impl Future<Output = Result<Offset, TierError>> + Send + 'static {
        let deadline = self.store.settings().deadline.duration();
        let taken = self.take(partition, batch);
        async move {
            match timeout(deadline, taken?).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(unavailable(TIER, "publications have ended")),
                Err(_) => Err(unavailable(
                    TIER,
                    format!("not acknowledged within {} ms; it may still be", deadline.as_millis()),
                )),
            }
        }
    }

    fn take(
        &self,
        partition: PartitionId,
        batch: Batch,
    ) -> Result<oneshot::Receiver<Result<Offset, TierError>>, TierError> {
        // What is larger than all the room gets it all.
        let wanted = units(batch.size()).clamp(1, self.units);
        let Ok(room) = self.room.clone().try_acquire_many_owned(wanted) else {
            return Err(unavailable(TIER, "too many batches wait for the store"));
        };
        let (answer, published) = oneshot::channel();
        let taken = Taken { partition, batch, waiting: Waiting { answer, room } };
        self.queue.send(taken).map_err(|_| unavailable(TIER, "publications have ended"))?;
        Ok(published)
    }
}

async fn run(store: Arc<RemoteStore>, mut queue: mpsc::UnboundedReceiver<Taken>) {
    let mut session = 0;
    while let Some(first) = queue.recv().await {
        session += 1;
        match store.open(TIER, Opening::Publish { instance: store.instance(), session }).await {
            Ok(ends) => Session::default().run(ends, first, &mut queue).await,
            Err(error) => first.waiting.hear(Err(error)),
        }
    }
}

/// One stream.
#[derive(Default)]
struct Session {
    waiting: Mutex<HashMap<u64, Waiting>>,
}

impl Session {
    async fn run(
        self,
        (writer, reader): (StreamWriter, StreamReader),
        first: Taken,
        queue: &mut mpsc::UnboundedReceiver<Taken>,
    ) {
        let ended = tokio::select! {
            ended = self.hand_over(writer, first, queue) => ended,
            ended = self.hear(reader) => ended,
        };
        let reason = ended.err().unwrap_or_else(|| "the store ended it".into());
        for (_, waiting) in lock(&self.waiting).drain() {
            waiting.hear(Err(unavailable(TIER, format!("{reason}; whether it was published is not known"))));
        }
    }

    async fn hand_over(
        &self,
        mut writer: StreamWriter,
        first: Taken,
        queue: &mut mpsc::UnboundedReceiver<Taken>,
    ) -> Result<(), String> {
        let mut next = Some(first);
        let mut number = 0;
        while let Some(Taken { partition, batch, waiting }) = next {
            number += 1;
            lock(&self.waiting).insert(number, waiting);
            let (item, rows) = Publication::seal(number, partition, batch);
            writer.write(item).await.map_err(words)?;
            remote_items::write(&mut writer, rows.into_iter()).await.map_err(words)?;
            next = queue.recv().await;
        }
        // Nobody publishes any more; the answers are still heard.
        writer.finish().map_err(words)?;
        std::future::pending().await
    }

    async fn hear(&self, mut reader: StreamReader) -> Result<(), String> {
        while let Some(item) = reader.read().await.map_err(words)? {
            let settled: Vec<Settled> = items::open(&item).map_err(|error| error.to_string())?;
            let mut waiting = lock(&self.waiting);
            for (number, result) in settled {
                if let Some(waiting) = waiting.remove(&number) {
                    waiting.hear(result.map_err(|failure| failure.of(TIER)));
                }
            }
        }
        Ok(())
    }
}

fn words(error: NetError) -> String {
    error.to_string()
}
