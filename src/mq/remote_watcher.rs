//! Waits for batches in the message queue of another process: all waits of this process over one stream.
//!
//! Invariant: when the stream ends, all who wait hear so at once; the next wait opens another.

use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};

use super::Offset;
use super::remote::TIER;
use super::waits::{WaitId, Waits};
use crate::lending::items::{self, Ended, Opening};
use crate::lending::remote_store::{RemoteStore, unavailable};
use crate::locks::lock;
use crate::model::id::PartitionId;
use crate::net::link::{StreamReader, StreamWriter};
use crate::tier::TierError;

/// Told at once, at most; then it surely fits an item.
const TOLD_AT_ONCE: usize = 256;

type Waiter = oneshot::Sender<Result<(), TierError>>;

pub struct Watcher {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    waits: Waits<Waiter>,
    is_over: bool,
}

impl Watcher {
    pub fn start(store: Arc<RemoteStore>) -> Self {
        let shared = Arc::<Shared>::default();
        tokio::spawn(run(store, shared.clone()));
        Self { shared }
    }

    pub async fn arrived(&self, partition: PartitionId, from: Offset) -> Result<(), TierError> {
        let (waiter, arrived) = oneshot::channel();
        let id = lock(&self.shared.state).waits.add(partition, from, waiter);
        let _open = OpenWait { shared: &self.shared, partition, id };
        self.shared.wake.notify_one();
        arrived.await.unwrap_or_else(|_| Err(unavailable(TIER, "waits have ended")))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        lock(&self.shared.state).is_over = true;
        self.shared.wake.notify_one();
    }
}

/// Withdrawn when its future is dropped.
struct OpenWait<'a> {
    shared: &'a Shared,
    partition: PartitionId,
    id: WaitId,
}

impl Drop for OpenWait<'_> {
    fn drop(&mut self) {
        lock(&self.shared.state).waits.withdraw(self.partition, self.id);
        self.shared.wake.notify_one();
    }
}

async fn run(store: Arc<RemoteStore>, shared: Arc<Shared>) {
    loop {
        while !shared.has_work() {
            shared.wake.notified().await;
        }
        if lock(&shared.state).is_over {
            return;
        }
        let error = match store.open(TIER, Opening::Watch).await {
            Err(error) => error,
            Ok((writer, reader)) => {
                let reason = tokio::select! {
                    ended = shared.tell(writer) => match ended {
                        Ok(()) => return,
                        Err(reason) => reason,
                    },
                    reason = shared.hear(reader) => reason,
                };
                unavailable(TIER, reason)
            }
        };
        let lost = lock(&shared.state).waits.lose_all();
        lost.into_iter().for_each(|waiter| hear(waiter, Err(error.clone())));
    }
}

fn hear(waiter: Waiter, result: Result<(), TierError>) {
    // A wait may be dropped at this moment.
    let _ = waiter.send(result);
}

impl Shared {
    fn has_work(&self) -> bool {
        let state = lock(&self.state);
        state.is_over || !state.waits.is_empty()
    }

    /// Until nobody can wait any more, or the stream ends with a reason.
    async fn tell(&self, mut writer: StreamWriter) -> Result<(), String> {
        loop {
            let news = {
                let mut state = lock(&self.state);
                if state.is_over {
                    return Ok(());
                }
                state.waits.news()
            };
            for some in news.chunks(TOLD_AT_ONCE) {
                writer.write(items::seal(&some)).await.map_err(|error| error.to_string())?;
            }
            self.wake.notified().await;
        }
    }

    async fn hear(&self, mut reader: StreamReader) -> String {
        loop {
            let item = match reader.read().await {
                Ok(Some(item)) => item,
                Ok(None) => return "the store ended it".into(),
                Err(error) => return error.to_string(),
            };
            let ended: Vec<Ended> = match items::open(&item) {
                Ok(ended) => ended,
                Err(error) => return error.to_string(),
            };
            for (partition, from, result) in ended {
                let mut state = lock(&self.state);
                let over = match &result {
                    Ok(()) => state.waits.arrived(partition, from),
                    Err(_) => state.waits.failed(partition, from),
                };
                drop(state);
                let result = result.map_err(|failure| failure.of(TIER));
                over.into_iter().for_each(|waiter| hear(waiter, result.clone()));
            }
            // Those who wait for more want to be watched for.
            self.wake.notify_one();
        }
    }
}
