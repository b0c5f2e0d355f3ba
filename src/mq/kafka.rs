//! The message queue in Kafka: each batch is one record of the topic's partition of the same number.
//!
//! Invariant: the order of publish calls of this process is the order in the log, a batch is acknowledged only when all replicas
//! in sync have it, and offsets are Kafka's own: dense, for nothing is written in transactions.
//!
//! Threads of librdkafka, whatever the number of partitions: for each of the three clients one, one more for each broker; and one
//! of ours, which asks where logs end (`kafka_keeper`). What an outage leaves: a publication is acknowledged, or its outcome is
//! unknown (then it may be in the log, perhaps twice; who counts knows spans). A topic that is gone is made again, and its
//! offsets begin anew, which shows as `low` and `end` below what was asked for. What a broker says it had already is looked
//! for in the log before it counts (`kafka_doubt`).

use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::kafka_clients::{Clients, Current};
pub use super::kafka_error::KafkaMqError;
use super::kafka_error::unavailable;
use super::kafka_keeper::{Command, Keeper, State, Waiter};
use super::kafka_publisher::Publisher;
use super::kafka_reader::Reading;
pub use super::kafka_settings::{Login, Mechanism, Protocol, Security, Settings};
use super::kafka_topic;
use super::kafka_trimmer::Trimmer;
use super::waits::{WaitId, Waits};
use super::{Mq, MqRead, Offset};
use crate::locks::lock;
use crate::model::batch::Batch;
use crate::model::id::PartitionId;
use crate::tier::{TierError, TierFuture, TierUsage};

/// The message queue in Kafka.
pub struct KafkaMq {
    publisher: Publisher,
    reading: Reading,
    trimmer: Arc<Trimmer>,
    waits: Arc<Mutex<Waits<Waiter>>>,
    keeper: Sender<Command>,
}

impl KafkaMq {
    /// `open`, and `check` before it.
    pub async fn connect(settings: Settings, partitions: u16, folder: &Path) -> Result<Self, KafkaMqError> {
        Self::check(&settings, partitions, folder).await?;
        Self::open(settings, partitions, folder)
    }

    /// Is the topic there and as it must be? Makes it if it is missing. Within a tokio runtime. Secrets in relative files start at
    /// `folder`.
    pub async fn check(settings: &Settings, partitions: u16, folder: &Path) -> Result<(), KafkaMqError> {
        let (copy, folder) = (settings.clone(), folder.to_owned());
        let ensuring = Handle::current().spawn_blocking(move || kafka_topic::ensure(&copy, partitions, &folder));
        ensuring.await.unwrap_or_else(|error| {
            let (brokers, reason) = (settings.brokers.join(", "), error.to_string());
            Err(KafkaMqError::Unreachable { brokers, reason })
        })
    }

    /// Without reaching a broker: calls fail until one is there. Within a tokio runtime, on which reads are moved and batches
    /// forgotten.
    pub fn open(settings: Settings, partitions: u16, folder: &Path) -> Result<Self, KafkaMqError> {
        let (settings, folder, runtime) = (Arc::new(settings), folder.to_owned(), Handle::current());
        let (keeper, commands) = channel();
        let clients = Clients::new(&settings, usize::from(partitions), &folder, &keeper)?;
        let current = Arc::new(Current::new(clients));
        let waits = Arc::<Mutex<Waits<Waiter>>>::default();
        let keeping = Keeper {
            settings: settings.clone(),
            partitions,
            folder: folder.clone(),
            current: current.clone(),
            waits: waits.clone(),
            sender: keeper.clone(),
            commands,
            runtime: runtime.clone(),
            state: State::default(),
        };
        let started = thread::Builder::new().name("kafka keeper".into()).spawn(move || keeping.run());
        started.map_err(|error| KafkaMqError::Unreachable {
            brokers: settings.brokers.join(", "),
            reason: format!("no thread for it: {error}"),
        })?;
        Ok(Self {
            publisher: Publisher::new(current.clone(), settings.clone()),
            reading: Reading { current, settings: settings.clone(), keeper: keeper.clone(), runtime: runtime.clone() },
            trimmer: Arc::new(Trimmer::new(settings, folder, runtime)),
            waits,
            keeper,
        })
    }

    /// Of this process; what brokers hold they tell themselves.
    pub fn usage(&self) -> TierUsage {
        TierUsage { disk_bytes: 0, memory_bytes: self.publisher.under_way() }
    }

    async fn wait(&self, partition: PartitionId, from: Offset) -> Result<(), TierError> {
        let (waiter, arrived) = oneshot::channel();
        let id = lock(&self.waits).add(partition, from, waiter);
        let _open = OpenWait { waits: &self.waits, partition, id };
        let closed = || unavailable("Kafka's clients have ended");
        self.keeper.send(Command::Stir).map_err(|_| closed())?;
        arrived.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn forget(&self, partition: PartitionId, before: Offset) -> Result<(), TierError> {
        let ends = self.reading.look(partition).await?;
        let before = before.min(ends.end);
        if before <= ends.low {
            return Ok(());
        }
        self.trimmer.trim(partition, before).await
    }
}

impl Drop for KafkaMq {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.keeper.send(Command::Stop);
    }
}

/// Withdrawn when its future is dropped.
struct OpenWait<'a> {
    waits: &'a Mutex<Waits<Waiter>>,
    partition: PartitionId,
    id: WaitId,
}

impl Drop for OpenWait<'_> {
    fn drop(&mut self) {
        lock(self.waits).withdraw(self.partition, self.id);
    }
}

impl Mq for KafkaMq {
    fn publish(&self, partition: PartitionId, batch: Batch) -> TierFuture<'static, Offset> {
        self.publisher.publish(partition, &batch).boxed()
    }

    fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> TierFuture<'_, MqRead> {
        self.reading.read(partition, from, max_bytes).boxed()
    }

    fn arrived(&self, partition: PartitionId, from: Offset) -> TierFuture<'_, ()> {
        self.wait(partition, from).boxed()
    }

    fn trim(&self, partition: PartitionId, before: Offset) -> TierFuture<'_, ()> {
        self.forget(partition, before).boxed()
    }
}
