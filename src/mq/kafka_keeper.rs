//! The one thread that asks Kafka where logs begin and end, wakes those who wait for batches, and gets other clients when the
//! topic is another one than before.
//!
//! Invariant: what a look says was true at some moment after it was asked for. A topic that is gone is made again, and a log
//! that ends before where it was seen to end is another log: nothing that was read ahead of the old one is given. A partition
//! whose leader is away keeps no other one waiting: it is asked for apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::producer::Producer;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tracing::{error, info, warn};

use super::Offset;
use super::kafka_clients::{Clients, Context, Current, Suspicion};
use super::kafka_doubt::{AllDoubted, Doubted, settle};
use super::kafka_error::{unavailable, words};
use super::kafka_reader::Reading;
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
/// Partitions that are asked for apart at once; others wait.
const APART_AT_ONCE: usize = 8;
/// For batches that are on their way when this process ends.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Where a partition's log begins, and where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub low: Offset,
    pub end: Offset,
}

impl Ends {
    fn of(low: i64, end: i64) -> Looked {
        match (Offset::try_from(low), Offset::try_from(end)) {
            (Ok(low), Ok(end)) if low <= end => Ok(Self { low, end }),
            _ => Err(unavailable(format!(
                "Kafka's log goes from {low} to {end}: it was replaced while it was looked at"
            ))),
        }
    }
}

pub type Looked = Result<Ends, TierError>;
pub type Waiter = oneshot::Sender<Result<(), TierError>>;

type Lookers = Vec<oneshot::Sender<Looked>>;

/// Who wants to know of a partition that is being asked for.
#[derive(Default)]
struct Apart {
    waiting: Lookers,
    /// They came when the question was on its way: its answer may be older than their call.
    later: Lookers,
}

pub enum Command {
    Look(PartitionId, oneshot::Sender<Looked>),
    /// What came of a partition that was asked for apart.
    Apart(PartitionId, Looked),
    /// Something came, or somebody began to wait.
    Stir,
    Suspect(Suspicion),
    Doubt(Doubted),
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
    pub runtime: Handle,
    pub state: State,
}

pub struct State {
    /// Could not be looked at with the others, the last time.
    sick: BTreeSet<PartitionId>,
    /// Those that are being asked for apart.
    apart: BTreeMap<PartitionId, Apart>,
    apart_at_once: Arc<Semaphore>,
    /// The highest end that was seen.
    ends: BTreeMap<PartitionId, Offset>,
    suspicion: Option<Suspicion>,
    suspected: Option<Instant>,
    watched: Option<Instant>,
    tidied: Option<Instant>,
    /// Dropped when nobody uses them any more.
    retired: Vec<Arc<Clients>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            sick: BTreeSet::new(),
            apart: BTreeMap::new(),
            apart_at_once: Arc::new(Semaphore::new(APART_AT_ONCE)),
            ends: BTreeMap::new(),
            suspicion: None,
            suspected: None,
            watched: None,
            tidied: None,
            retired: Vec::new(),
        }
    }
}

/// What came in one go.
#[derive(Default)]
struct Asked {
    looks: BTreeMap<PartitionId, Lookers>,
    doubted: AllDoubted,
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
            Command::Look(partition, answer) => asked.looks.entry(partition).or_default().push(answer),
            Command::Apart(partition, looked) => {
                let Apart { waiting, later } = self.state.apart.remove(&partition).unwrap_or_default();
                self.found(partition, looked, waiting);
                if !later.is_empty() {
                    asked.looks.entry(partition).or_default().extend(later);
                }
            }
            Command::Stir => asked.stirred = true,
            Command::Suspect(suspicion) => self.state.suspicion = self.state.suspicion.max(Some(suspicion)),
            Command::Doubt(doubted) => asked.doubted.entry(doubted.partition()).or_default().push(doubted),
            Command::Stop => asked.stop = true,
        }
    }

    /// One round of looks for all who asked or wait.
    fn serve(&mut self, asked: Asked) {
        let Asked { mut looks, doubted, stirred, .. } = asked;
        for (partition, doubted) in doubted {
            self.runtime.spawn(settle(self.reading(), partition, doubted));
        }
        // Who gave up need not be answered.
        looks.retain(|_, waiting| waiting.iter().any(|answer| !answer.is_closed()));
        if stirred || is_due(self.state.watched, self.settings.watch_interval.duration()) {
            self.state.watched = Some(instant());
            for partition in lock(&self.waits).partitions() {
                looks.entry(partition).or_default();
            }
        }
        let (apart, together): (BTreeMap<_, _>, BTreeMap<_, _>) =
            looks.into_iter().partition(|(partition, _)| self.state.sick.contains(partition));
        for (partition, waiting) in apart {
            self.ask_apart(partition, waiting);
        }
        if !together.is_empty() {
            self.look(together);
        }
    }

    fn reading(&self) -> Reading {
        Reading {
            current: self.current.clone(),
            settings: self.settings.clone(),
            keeper: self.sender.clone(),
            runtime: self.runtime.clone(),
        }
    }

    fn look(&mut self, looks: BTreeMap<PartitionId, Lookers>) {
        let clients = self.current.get();
        // Half of what a caller waits: the other half is for asking apart.
        let patience = self.settings.deadline.duration() / 2;
        match look(&clients.looker, &self.settings.topic, looks.keys().copied(), patience) {
            Ok(mut found) => {
                for (partition, waiting) in looks {
                    let nothing = || Err(unavailable("Kafka says nothing of the partition"));
                    let looked = found.remove(&partition).unwrap_or_else(nothing);
                    self.found(partition, looked, waiting);
                }
            }
            // One of them, or all.
            Err(_) => {
                for (partition, waiting) in looks {
                    self.ask_apart(partition, waiting);
                }
            }
        }
    }

    fn ask_apart(&mut self, partition: PartitionId, waiting: Lookers) {
        self.state.sick.insert(partition);
        if let Some(apart) = self.state.apart.get_mut(&partition) {
            apart.later.retain(|answer| !answer.is_closed());
            apart.later.extend(waiting);
            return;
        }
        self.state.apart.insert(partition, Apart { waiting, later: Vec::new() });
        let (settings, looker) = (self.settings.clone(), self.current.get().looker.clone());
        let (places, sender, runtime) = (self.state.apart_at_once.clone(), self.sender.clone(), self.runtime.clone());
        self.runtime.spawn(async move {
            // Never closed.
            let _place = places.acquire_owned().await;
            let asking = runtime.spawn_blocking(move || {
                let (topic, number) = (&settings.topic, i32::from(partition.0));
                looker.fetch_watermarks(topic, number, settings.deadline.duration())
            });
            let looked = match asking.await {
                Ok(Ok((low, end))) => Ends::of(low, end),
                Ok(Err(failure)) => {
                    Err(unavailable(format!("Kafka does not say where the log ends: {}", words(&failure))))
                }
                Err(failure) => Err(unavailable(failure)),
            };
            // The keeper ends last.
            let _ = sender.send(Command::Apart(partition, looked));
        });
    }

    /// What is now known of a partition.
    fn found(&mut self, partition: PartitionId, looked: Looked, waiting: Lookers) {
        match &looked {
            Ok(Ends { end, .. }) => {
                self.state.sick.remove(&partition);
                let seen = self.state.ends.insert(partition, *end);
                if let Some(seen) = seen.filter(|seen| end < seen) {
                    error!(%partition, seen, end, "kafka's log went back");
                    // Before anybody hears of it.
                    self.renew();
                }
            }
            Err(_) => {
                self.state.sick.insert(partition);
                self.state.suspicion = self.state.suspicion.max(Some(Suspicion::Missing));
            }
        }
        self.wake(partition, &looked);
        // A reader may have given up.
        waiting.into_iter().for_each(|answer| drop(answer.send(looked.clone())));
    }

    fn wake(&self, partition: PartitionId, looked: &Looked) {
        let mut waits = lock(&self.waits);
        let (over, result) = match looked {
            Ok(Ends { end: 0, .. }) => return,
            Ok(Ends { end, .. }) => (waits.arrived(partition, end - 1), Ok(())),
            Err(error) => (waits.failed(partition, 0), Err(error.clone())),
        };
        // A wait may be dropped at this moment.
        over.into_iter().for_each(|waiter| drop(waiter.send(result.clone())));
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
        match kafka_topic::find(clients.looker.client(), &self.settings, patience) {
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
        let retired = std::mem::take(&mut self.state.retired);
        let (unused, used): (Vec<_>, _) = retired.into_iter().partition(|clients| Arc::strong_count(clients) == 1);
        self.state.retired = used;
        if !unused.is_empty() {
            // Their farewell to brokers may take a while.
            self.runtime.spawn_blocking(move || drop(unused));
        }
        if !is_due(self.state.tidied, IDLE_TICK) {
            return;
        }
        self.state.tidied = Some(instant());
        let clients = self.current.get();
        // Events; batches come through the queues of their partitions.
        while clients.consumer.poll(Duration::ZERO).is_some() {}
        while clients.looker.poll(Duration::ZERO).is_some() {}
        let topic = &self.settings.topic;
        for (partition, place) in clients.places.iter().enumerate() {
            place.release_if_idle(&clients.consumer, topic, partition, self.settings.idle_after.duration());
        }
    }
}

/// Asks the leaders of these partitions.
fn look(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partitions: impl Iterator<Item = PartitionId> + Clone,
    patience: Duration,
) -> KafkaResult<BTreeMap<PartitionId, Looked>> {
    use rdkafka::Offset::{Beginning, End};
    let ask = |what: rdkafka::Offset| -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for partition in partitions.clone() {
            list.add_partition_offset(topic, i32::from(partition.0), what)?;
        }
        // Kafka's protocol takes these two in place of a time.
        consumer.offsets_for_times(list, patience)
    };
    // The beginning first: it never passes an end that is asked for later.
    let (lows, ends) = (ask(Beginning)?, ask(End)?);
    let offset = |list: &TopicPartitionList, partition: PartitionId| -> Result<i64, TierError> {
        let found = list.find_partition(topic, i32::from(partition.0));
        let found = found.ok_or_else(|| unavailable("Kafka says nothing of the partition"))?;
        found.error().map_err(|error| unavailable(words(&error)))?;
        found.offset().to_raw().ok_or_else(|| unavailable("Kafka says no offset"))
    };
    let ends_of = |partition: PartitionId| Ends::of(offset(&lows, partition)?, offset(&ends, partition)?);
    Ok(partitions.clone().map(|partition| (partition, ends_of(partition))).collect())
}
