//! Reads partitions from given offsets: each has its own queue of batches read ahead, and is moved only when the caller goes on
//! elsewhere than it ended.
//!
//! Invariant: what is given lies between the ends that were looked at after the call, without a gap and in order; what was read
//! ahead in a log that is gone is never given.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use super::kafka_clients::{Clients, Context, Current};
use super::kafka_error::{TIER, unavailable, words};
use super::kafka_keeper::{Command, Ends};
use super::kafka_settings::Settings;
use super::{MqRead, Offset};
use crate::clock::instant;
use crate::model::batch::Batch;
use crate::model::codec::CodecError;
use crate::model::id::PartitionId;
use crate::tier::TierError;

/// Batches are polled for this often should their arrival not be told.
const POLL_EVERY: Duration = Duration::from_millis(20);
/// With some batches in hand, others are not waited for any longer.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where a partition is read, if it is. One reader at a time.
#[derive(Clone, Default)]
pub struct Place(Arc<Mutex<Option<Reader>>>);

type Guard = OwnedMutexGuard<Option<Reader>>;

pub struct Reader {
    queue: PartitionQueue<Context>,
    /// Taken out of the queue and not given yet, for who waited gave up. A read that begins anew each time would never come to
    /// its end where Kafka takes longer than the deadline.
    held: VecDeque<(Offset, Batch)>,
    held_bytes: usize,
    /// The queue goes on here, behind what is held,
    next: Offset,
    /// unless something came that cannot be given: then it is read anew, and met again.
    is_sound: bool,
    came: Arc<Notify>,
    used: Instant,
}

impl Place {
    pub fn release_if_idle(
        &self,
        consumer: &BaseConsumer<Context>,
        topic: &str,
        partition: usize,
        idle_after: Duration,
    ) {
        let Ok(mut reader) = self.0.try_lock() else { return };
        if reader.as_ref().is_some_and(|reader| reader.used.elapsed() >= idle_after) {
            release(consumer, topic, partition as i32);
            *reader = None;
        }
    }
}

/// Reads for this process.
pub struct Reading {
    pub current: Arc<Current>,
    pub settings: Arc<Settings>,
    pub keeper: Sender<Command>,
    pub runtime: Handle,
}

/// What became of one try.
enum Tried {
    Read(MqRead),
    /// The log is not where it was when it was looked at.
    Moved(TierError),
}

impl Reading {
    pub async fn read(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Result<MqRead, TierError> {
        let deadline = self.settings.deadline.duration();
        let read = timeout(deadline, self.read_within(partition, from, max_bytes)).await;
        read.unwrap_or_else(|_| Err(unavailable(format!("Kafka gave nothing within {} ms", deadline.as_millis()))))
    }

    /// Where the log begins and ends, as of some moment after the call.
    pub async fn look(&self, partition: PartitionId) -> Result<Ends, TierError> {
        let closed = || unavailable("Kafka's clients have ended");
        let (answer, looked) = oneshot::channel();
        self.keeper.send(Command::Look(partition, answer)).map_err(|_| closed())?;
        looked.await.map_err(|_| closed())?
    }

    async fn read_within(&self, partition: PartitionId, from: Offset, max_bytes: usize) -> Result<MqRead, TierError> {
        let mut tries = 0;
        loop {
            let clients = self.current.get();
            let guard = clients.places[usize::from(partition.0)].0.clone().lock_owned().await;
            let ends = self.look(partition).await?;
            if !self.current.is(&clients) {
                // These read a log that is gone.
                continue;
            }
            tries += 1;
            let wanted = Wanted { partition, from: from.max(ends.low), ends, max_bytes };
            match self.read_there(&clients, guard, &wanted).await? {
                Tried::Read(read) => return Ok(read),
                Tried::Moved(error) if tries >= 3 => return Err(error),
                Tried::Moved(_) => {}
            }
        }
    }

    async fn read_there(&self, clients: &Arc<Clients>, guard: Guard, wanted: &Wanted) -> Result<Tried, TierError> {
        let Ends { low, end } = wanted.ends;
        let empty = MqRead { batches: Vec::new(), low, end };
        if wanted.from > end {
            return Ok(Tried::Read(empty));
        }
        // Also at the end: from there Kafka tells at once when something comes.
        let mut guard = self.place(clients, guard, wanted).await?;
        let Some(reader) = guard.as_mut() else { return Err(unavailable("the partition cannot be read")) };
        reader.used = instant();
        let filled = reader.fill(empty, wanted).await;
        if !matches!(filled, Ok(Tried::Read(_))) {
            // The next read begins anew.
            release(&clients.consumer, &self.settings.topic, i32::from(wanted.partition.0));
            *guard = None;
        }
        filled
    }

    /// Goes where the batches are wanted from.
    async fn place(&self, clients: &Arc<Clients>, mut guard: Guard, wanted: &Wanted) -> Result<Guard, TierError> {
        if guard.as_mut().is_some_and(|reader| reader.stands_at(wanted.from)) {
            return Ok(guard);
        }
        let (clients, settings, keeper) = (clients.clone(), self.settings.clone(), self.keeper.clone());
        let (partition, from) = (wanted.partition, wanted.from);
        // It waits for librdkafka's own thread. With the guard inside nobody else reads before that is done.
        let placing = self.runtime.spawn_blocking(move || -> KafkaResult<Guard> {
            let moved = match guard.as_mut() {
                Some(reader) if reader.is_sound => reader.seek(&clients.consumer, &settings, partition, from).is_ok(),
                _ => false,
            };
            if !moved {
                *guard = None;
                *guard = Some(Reader::start(&clients.consumer, &settings.topic, partition, from, keeper)?);
            }
            Ok(guard)
        });
        let placed = placing.await.map_err(|error| unavailable(error.to_string()))?;
        placed.map_err(|error| unavailable(words(&error)))
    }
}

/// A stretch that somebody wants.
struct Wanted {
    partition: PartitionId,
    from: Offset,
    ends: Ends,
    max_bytes: usize,
}

fn release(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, partition);
    // Fails if it is not assigned.
    let _ = consumer.incremental_unassign(&list);
}

impl Reader {
    fn start(
        consumer: &Arc<BaseConsumer<Context>>,
        topic: &str,
        partition: PartitionId,
        from: Offset,
        keeper: Sender<Command>,
    ) -> KafkaResult<Self> {
        let number = i32::from(partition.0);
        release(consumer, topic, number);
        let missing = || KafkaError::Subscription("the partition has no queue".into());
        // Before it is assigned, so that nothing goes elsewhere.
        let mut queue = consumer.split_partition_queue(topic, number).ok_or_else(missing)?;
        let came = Arc::new(Notify::new());
        let told = came.clone();
        queue.set_nonempty_callback(move || {
            told.notify_one();
            // The keeper ends last.
            let _ = keeper.send(Command::Stir);
        });
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, number, rdkafka::Offset::Offset(from as i64))?;
        consumer.incremental_assign(&list)?;
        Ok(Self { queue, held: VecDeque::new(), held_bytes: 0, next: from, is_sound: true, came, used: instant() })
    }

    /// Forgets what is held before `from`. `false`: it has to go elsewhere.
    fn stands_at(&mut self, from: Offset) -> bool {
        let first = self.held.front().map_or(self.next, |(offset, _)| *offset);
        if !self.is_sound || !(first..=self.next).contains(&from) {
            return false;
        }
        while self.held.front().is_some_and(|(offset, _)| *offset < from) {
            self.give();
        }
        true
    }

    fn give(&mut self) -> Option<(Offset, Batch)> {
        let given = self.held.pop_front();
        self.held_bytes -= given.as_ref().map_or(0, |(_, batch)| batch.size());
        given
    }

    /// From here on nothing of before is in the queue.
    fn seek(
        &mut self,
        consumer: &BaseConsumer<Context>,
        settings: &Settings,
        partition: PartitionId,
        from: Offset,
    ) -> KafkaResult<()> {
        let (number, offset) = (i32::from(partition.0), rdkafka::Offset::Offset(from as i64));
        consumer.seek(&settings.topic, number, offset, settings.deadline.duration())?;
        self.held.clear();
        (self.held_bytes, self.next) = (0, from);
        Ok(())
    }

    async fn fill(&mut self, mut read: MqRead, wanted: &Wanted) -> Result<Tried, TierError> {
        let begun = instant();
        while self.next < wanted.ends.end && (self.held.is_empty() || self.held_bytes < wanted.max_bytes) {
            let Some(polled) = self.queue.poll(Duration::ZERO) else {
                if !self.held.is_empty() && begun.elapsed() >= PATIENCE {
                    break;
                }
                // Late is well: it is polled again.
                let _ = timeout(POLL_EVERY, self.came.notified()).await;
                continue;
            };
            match received(polled, self.next, wanted) {
                Ok(None) => {}
                Ok(Some(batch)) => {
                    self.held_bytes += batch.size();
                    self.held.push_back((self.next, batch));
                    self.next += 1;
                }
                // What comes before it can be read.
                Err(_) if !self.held.is_empty() => {
                    self.is_sound = false;
                    break;
                }
                Err(outcome) => return outcome,
            }
        }
        let mut bytes = 0;
        while self.held.front().is_some_and(|(offset, _)| *offset < wanted.ends.end)
            && (read.batches.is_empty() || bytes < wanted.max_bytes)
        {
            let given = self.give();
            bytes += given.as_ref().map_or(0, |(_, batch)| batch.size());
            read.batches.extend(given);
        }
        Ok(Tried::Read(read))
    }
}

/// The batch that has its turn; `None`: it is still to come.
fn received(
    polled: KafkaResult<BorrowedMessage<'_>>,
    next: Offset,
    wanted: &Wanted,
) -> Result<Option<Batch>, Result<Tried, TierError>> {
    let message = match polled {
        Ok(message) => message,
        Err(error) => {
            return match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    Err(Ok(Tried::Moved(unavailable("Kafka does not hold the offset any more"))))
                }
                // It comes again by itself, or the deadline ends the wait.
                _ => Ok(None),
            };
        }
    };
    let damaged = |source| {
        let place = format!("partition {} offset {next}", wanted.partition);
        TierError::Damaged { tier: TIER, place, source }
    };
    let offset = message.offset() as Offset;
    if offset < next {
        return Ok(None);
    }
    if offset > next {
        let reason = "the batch is missing: is Kafka's topic compacted, or does somebody else write to it?";
        return Err(Ok(Tried::Moved(damaged(CodecError::malformed("log", reason)))));
    }
    let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
    Batch::decode(&payload).map(Some).map_err(|source| Err(damaged(source)))
}
