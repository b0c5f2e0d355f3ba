//! librdkafka's two clients of this process, one that publishes and one that reads, and how they are told apart from those
//! before them.
//!
//! Invariant: once clients are retired nothing more is published through them, and what they had not settled is said to be
//! unknown. A log that is another one than before gets other clients: an idempotent producer's number means nothing there.

use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{debug, error};

use super::Offset;
use super::kafka_doubt::{self, Doubted};
use super::kafka_error::{KafkaMqError, unavailable, words};
use super::kafka_keeper::Command;
use super::kafka_reader::Place;
use super::kafka_settings::Settings;
use crate::locks::{lock, read, write};
use crate::tier::TierError;

/// A batch on its way: who waits for its offset, and the memory that it takes.
pub struct Sent {
    pub partition: usize,
    pub answer: oneshot::Sender<Result<Offset, TierError>>,
    pub room: OwnedSemaphorePermit,
}

impl Sent {
    pub fn hear(self, result: Result<Offset, TierError>) {
        // Who hears that it is done may publish more at once.
        drop(self.room);
        // The publisher need not wait.
        let _ = self.answer.send(result);
    }

    /// Nobody waits for it, or nobody can any more if it was sent before `begun`.
    pub fn is_given_up(&self, begun: Instant, settings: &Settings) -> bool {
        self.answer.is_closed() || begun.elapsed() >= settings.publish_deadline.duration()
    }
}

/// What librdkafka tells.
pub struct Context {
    /// The highest offset that was acknowledged, for each partition.
    acknowledged: Vec<Mutex<Option<Offset>>>,
    keeper: Sender<Command>,
}

impl Context {
    fn new(partitions: usize, keeper: &Sender<Command>) -> Self {
        Self { acknowledged: (0..partitions).map(|_| Mutex::default()).collect(), keeper: keeper.clone() }
    }

    fn suspect(&self, suspicion: Suspicion) {
        // The keeper ends last.
        let _ = self.keeper.send(Command::Suspect(suspicion));
    }

    fn delivered(&self, partition: usize, offset: i64) -> Result<Offset, TierError> {
        let offset = Offset::try_from(offset)
            .map_err(|_| unavailable("it was published, but Kafka does not remember at which offset"))?;
        let mut highest = lock(&self.acknowledged[partition]);
        if highest.is_some_and(|highest| offset <= highest) {
            // Another log, in which this producer's number may be another producer's: it may not be this batch that is there.
            self.suspect(Suspicion::WentBack);
            return Err(unavailable("Kafka's log went back; whether it was published is not known"));
        }
        *highest = Some(offset);
        Ok(offset)
    }

    fn failed(&self, failure: &KafkaError) -> TierError {
        use RDKafkaErrorCode as Code;
        let suspicion = match failure.rdkafka_error_code() {
            Some(Code::Fatal | Code::OutOfOrderSequenceNumber | Code::UnknownProducerId) => Suspicion::Broken,
            _ => Suspicion::Missing,
        };
        self.suspect(suspicion);
        match failure.rdkafka_error_code() {
            Some(Code::MessageTimedOut) => unavailable("not acknowledged in time; it may still be published"),
            Some(Code::PurgeQueue | Code::PurgeInflight) => {
                unavailable("the connection was given up; whether it was published is not known")
            }
            _ => unavailable(format!("{}; whether it was published is not known", words(failure))),
        }
    }
}

/// Why the topic should be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspicion {
    /// It may not be there.
    Missing,
    /// The producer does not work any more.
    Broken,
    /// It may be another one.
    WentBack,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What goes wrong shows in the calls; a broker that is away is logged there.
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(facility, message, "librdkafka");
            }
            _ => debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "librdkafka");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.suspect(Suspicion::Broken);
        }
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, sent: Box<Sent>) {
        let result = match delivered {
            Ok(message) if kafka_doubt::is_doubtful(message) => {
                // Once the keeper has ended this says by being dropped that the outcome is unknown.
                let _ = self.keeper.send(Command::Doubt(Doubted::new(sent, message)));
                return;
            }
            Ok(message) => self.delivered(sent.partition, message.offset()),
            Err((failure, _)) => Err(self.failed(failure)),
        };
        sent.hear(result);
    }
}

/// One generation of clients.
pub struct Clients {
    pub producer: ThreadedProducer<Context>,
    pub consumer: Arc<BaseConsumer<Context>>,
    /// Asks where logs end. It reads nothing: a broker answers each connection in order, and on the one of a consumer that waits
    /// for batches every question would wait along.
    pub looker: Arc<BaseConsumer<Context>>,
    /// Where each partition is read.
    pub places: Vec<Place>,
}

impl Clients {
    pub fn new(
        settings: &Settings,
        partitions: usize,
        folder: &Path,
        keeper: &Sender<Command>,
    ) -> Result<Self, KafkaMqError> {
        let client = settings.client(folder)?;
        let context = || Context::new(partitions, keeper);
        let producer = ThreadedProducer::from_config_and_context(&settings.producer(&client), context());
        let consumer = || BaseConsumer::from_config_and_context(&settings.consumer(&client), context());
        Ok(Self {
            producer: producer.map_err(KafkaMqError::Client)?,
            consumer: Arc::new(consumer().map_err(KafkaMqError::Client)?),
            looker: Arc::new(consumer().map_err(KafkaMqError::Client)?),
            places: (0..partitions).map(|_| Place::default()).collect(),
        })
    }
}

/// The clients in use.
pub struct Current(RwLock<Arc<Clients>>);

impl Current {
    pub fn new(clients: Clients) -> Self {
        Self(RwLock::new(Arc::new(clients)))
    }

    pub fn get(&self) -> Arc<Clients> {
        read(&self.0).clone()
    }

    pub fn is(&self, clients: &Arc<Clients>) -> bool {
        Arc::ptr_eq(&read(&self.0), clients)
    }

    /// Does something that must not be done with clients that were retired.
    pub fn with<T>(&self, work: impl FnOnce(&Clients) -> T) -> T {
        work(&read(&self.0))
    }

    /// Gives back those that were in use.
    pub fn retire(&self, clients: Clients) -> Arc<Clients> {
        let mut current = write(&self.0);
        // Before any is sent through the new ones, so that nothing of before follows from here.
        current.producer.purge(PurgeConfig::default().queue().inflight());
        std::mem::replace(&mut current, Arc::new(clients))
    }
}
