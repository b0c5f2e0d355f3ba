//! The one thread that asks Kafka where logs begin and end, wakes those who wait for batches, and gets other clients when the
//! topic is another one than before.
//!
//! Invariant: what a look says was true at some moment after it was asked for. A topic that is gone is made again, and a log
//! that ends before where it was seen to end is another log: nothing that was read ahead of the old one is given.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::Producer;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::Offset;
use super::kafka_clients::{Clients, Context, Current, Suspicion};
use super::kafka_error::{unavailable, words};
use super::kafka_settings::Settings;
use super::kafka_topic::{self, Found};
use super::waits::Waits;
use crate::clock::instant;
use crate::locks::lock;
use crate::model::id::PartitionId;
use crate::tier::TierError;

/// What it does when nobody asks.
const IDLE_TICK: Duration = Duration::from_millis(500);
/// Between two looks at whether the topic is there.
const SUSPECT_EVERY: Duration = Duration::from_millis(300);
/// For batches that are on their way when this process ends.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Where a partition's log begins, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub low: Offset,
    pub end: Offset,
}

pub type Looked = Result<Ends, TierError>;
pub type Waiter = oneshot::Sender<Result<(), TierError>>;

pub enum Command {
    Look(PartitionId, oneshot::Sender<Looked>),
    /// Something came, or somebody began to wait.
    Stir,
    Suspect(Suspicion),
    Stop,
}

pub struct Keeper {
    pub settings: Arc<Settings>,
    pub partitions: u16,
    pub folder: PathBuf,
    pub current: Arc<Current>,
    pub waits: Arc<Mutex<Waits<Waiter>>>,
    pub sender: Sender<Command>,
    pub commands: Receiver<Command>,
    pub state: State,
}

#[derive(Default)]
pub struct State {
    /// The highest end that was seen.
    ends: BTreeMap<PartitionId, Offset>,
    suspicion: Option<Suspicion>,
    suspected: Option<Instant>,
    watched: Option<Instant>,
    tidied: Option<Instant>,
    /// Dropped when nobody uses them any more.
    retired: Vec<Arc<Clients>>,
}

/// What came in one go.
#[derive(Default)]
struct Asked {
    looks: Vec<(PartitionId, oneshot::Sender<Looked>)>,
    stirred: bool,
    stop: bool,
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= every)
}

impl Keeper {
    pub fn run(mut self) {
        loop {
            let asked = self.gather();
            if asked.stop {
                break;
            }
            self.serve(asked);
            self.relieve();
            self.tidy();
        }
        let lost = lock(&self.waits).lose_all();
        lost.into_iter().for_each(|waiter| drop(waiter.send(Err(unavailable("Kafka's clients have ended")))));
        // A failed flush leaves outcomes unknown, which their publishers are told.
        let _ = self.current.get().producer.flush(LAST_FLUSH);
    }

    fn gather(&mut self) -> Asked {
        let mut asked = Asked::default();
        let patience = match lock(&self.waits).is_empty() {
            true => IDLE_TICK,
            false => self.settings.watch_interval.duration().min(IDLE_TICK),
        };
        match self.commands.recv_timeout(patience) {
            Ok(first) => self.take(first, &mut asked),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => asked.stop = true,
        }
        while let Ok(more) = self.commands.try_recv() {
            self.take(more, &mut asked);
        }
        asked
    }

    fn take(&mut self, command: Command, asked: &mut Asked) {
        match command {
            Command::Look(partition, answer) => asked.looks.push((partition, answer)),
            Command::Stir => asked.stirred = true,
            Command::Suspect(suspicion) => self.state.suspicion = self.state.suspicion.max(Some(suspicion)),
            Command::Stop => asked.stop = true,
        }
    }

    /// One round of looks for all who asked or wait.
    fn serve(&mut self, asked: Asked) {
        let Asked { mut looks, stirred, .. } = asked;
        // Who gave up need not be answered.
        looks.retain(|(_, answer)| !answer.is_closed());
        let mut partitions: BTreeSet<PartitionId> = looks.iter().map(|(partition, _)| *partition).collect();
        if stirred || is_due(self.state.watched, self.settings.watch_interval.duration()) {
            self.state.watched = Some(instant());
            partitions.extend(lock(&self.waits).partitions());
        }
        if partitions.is_empty() {
            return;
        }
        let found = self.look(&partitions);
        self.wake(&found);
        for (partition, answer) in looks {
            // The reader may have given up.
            let _ = answer.send(found[&partition].clone());
        }
    }

    fn look(&mut self, partitions: &BTreeSet<PartitionId>) -> BTreeMap<PartitionId, Looked> {
        let clients = self.current.get();
        let found = match look(&clients.consumer, &self.settings, partitions) {
            Ok(found) => found,
            Err(failure) => {
                let error = unavailable(format!("Kafka does not say where logs end: {}", words(&failure)));
                partitions.iter().map(|partition| (*partition, Err(error.clone()))).collect()
            }
        };
        if found.values().any(Result::is_err) {
            self.state.suspicion = self.state.suspicion.max(Some(Suspicion::Missing));
        }
        for (partition, looked) in &found {
            let Ok(Ends { end, .. }) = looked else { continue };
            let seen = self.state.ends.insert(*partition, *end);
            if let Some(seen) = seen.filter(|seen| end < seen) {
                error!(%partition, seen, end, "kafka's log went back");
                // Before anybody hears of it.
                self.renew();
            }
        }
        found
    }

    fn wake(&self, found: &BTreeMap<PartitionId, Looked>) {
        let mut waits = lock(&self.waits);
        for (partition, looked) in found {
            let (over, result) = match looked {
                Ok(Ends { end: 0, .. }) => continue,
                Ok(Ends { end, .. }) => (waits.arrived(*partition, end - 1), Ok(())),
                Err(error) => (waits.failed(*partition, 0), Err(error.clone())),
            };
            // A wait may be dropped at this moment.
            over.into_iter().for_each(|waiter| drop(waiter.send(result.clone())));
        }
    }

    /// Finds out about what is suspected.
    fn relieve(&mut self) {
        let Some(suspicion) = self.state.suspicion else { return };
        if !is_due(self.state.suspected, SUSPECT_EVERY) {
            return;
        }
        self.state.suspected = Some(instant());
        let clients = self.current.get();
        let patience = self.settings.deadline.duration().min(Duration::from_secs(1));
        match kafka_topic::find(clients.consumer.client(), &self.settings, patience) {
            // Asked again when the next call fails, or now if it is sure.
            Err(_) => {
                if suspicion == Suspicion::Missing {
                    self.state.suspicion = None;
                }
            }
            Ok(Found::There { .. }) => {
                self.state.suspicion = None;
                if suspicion > Suspicion::Missing {
                    self.renew();
                }
            }
            Ok(Found::Missing) => self.make_again(),
        }
    }

    fn make_again(&mut self) {
        match kafka_topic::make(&self.settings, self.partitions, &self.folder) {
            Ok(()) => {
                let topic = &self.settings.topic;
                error!(topic, "kafka's topic was gone and is made anew; what it held is lost unless kv has it");
                self.state.suspicion = None;
                self.renew();
            }
            Err(problem) => warn!(%problem, "kafka's topic is gone and cannot be made"),
        }
    }

    fn renew(&mut self) {
        match Clients::new(&self.settings, usize::from(self.partitions), &self.folder, &self.sender) {
            Ok(clients) => {
                self.state.retired.push(self.current.retire(clients));
                self.state.ends.clear();
                info!("kafka gets other clients");
            }
            Err(problem) => {
                error!(%problem, "kafka's clients cannot be made again");
                self.state.suspicion = Some(Suspicion::Broken);
            }
        }
    }

    /// What need not happen at once.
    fn tidy(&mut self) {
        self.state.retired.retain(|clients| Arc::strong_count(clients) > 1);
        if !is_due(self.state.tidied, IDLE_TICK) {
            return;
        }
        self.state.tidied = Some(instant());
        let clients = self.current.get();
        // Events; batches come through the queues of their partitions.
        while clients.consumer.poll(Duration::ZERO).is_some() {}
        let topic = &self.settings.topic;
        for (partition, place) in clients.places.iter().enumerate() {
            place.release_if_idle(&clients.consumer, topic, partition, self.settings.idle_after.duration());
        }
    }
}

/// Asks the leaders of these partitions.
fn look(
    consumer: &BaseConsumer<Context>,
    settings: &Settings,
    partitions: &BTreeSet<PartitionId>,
) -> KafkaResult<BTreeMap<PartitionId, Looked>> {
    use rdkafka::Offset::{Beginning, End};
    let deadline = settings.deadline.duration();
    let ask = |what: rdkafka::Offset| -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition_offset(&settings.topic, i32::from(partition.0), what)?;
        }
        // Kafka's protocol takes these two in place of a time.
        consumer.offsets_for_times(list, deadline)
    };
    // The beginning first: it never passes an end that is asked for later.
    let (lows, ends) = (ask(Beginning)?, ask(End)?);
    let offset = |list: &TopicPartitionList, partition: &PartitionId| -> Result<Offset, TierError> {
        let found = list.find_partition(&settings.topic, i32::from(partition.0));
        let found = found.ok_or_else(|| unavailable("Kafka says nothing of the partition"))?;
        found.error().map_err(|error| unavailable(words(&error)))?;
        match found.offset() {
            rdkafka::Offset::Offset(offset) if offset >= 0 => Ok(offset as Offset),
            other => Err(unavailable(format!("Kafka says {other:?} where an offset should be"))),
        }
    };
    let ends_of = |partition: &PartitionId| {
        let (low, end) = (offset(&lows, partition)?, offset(&ends, partition)?);
        match low <= end {
            true => Ok(Ends { low, end }),
            false => Err(unavailable("Kafka's log was replaced while it was looked at")),
        }
    };
    Ok(partitions.iter().map(|partition| (*partition, ends_of(partition))).collect())
}
