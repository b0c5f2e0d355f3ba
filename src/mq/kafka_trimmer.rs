//! Tells Kafka which batches it may forget: for all partitions together, and not too often.
//!
//! Invariant: at most one request is under way, and a wish is merged with others of its partition. Where brokers refuse it, the
//! topic's retention forgets batches in its own time, and that is said once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::executor::block_on;
use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tracing::warn;

use super::Offset;
use super::kafka_error::{unavailable, words};
use super::kafka_settings::Settings;
use super::kafka_topic::{admin, options};
use crate::clock::instant;
use crate::locks::lock;
use crate::model::id::PartitionId;
use crate::tier::TierError;

type Answer = oneshot::Sender<Result<(), TierError>>;

pub struct Trimmer {
    settings: Arc<Settings>,
    folder: PathBuf,
    runtime: Handle,
    state: Mutex<State>,
    /// Brokers refuse it.
    refused: AtomicBool,
}

#[derive(Default)]
struct State {
    wishes: BTreeMap<PartitionId, Wish>,
    is_running: bool,
    last: Option<Instant>,
}

#[derive(Default)]
struct Wish {
    before: Offset,
    waiting: Vec<Answer>,
}

type Wishes = BTreeMap<PartitionId, Wish>;

impl Trimmer {
    pub fn new(settings: Arc<Settings>, folder: PathBuf, runtime: Handle) -> Self {
        Self { settings, folder, runtime, state: Mutex::default(), refused: AtomicBool::new(false) }
    }

    pub async fn trim(self: &Arc<Self>, partition: PartitionId, before: Offset) -> Result<(), TierError> {
        if self.refused.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (answer, trimmed) = oneshot::channel();
        let starts = {
            let mut state = lock(&self.state);
            let wish = state.wishes.entry(partition).or_default();
            wish.before = wish.before.max(before);
            wish.waiting.push(answer);
            !std::mem::replace(&mut state.is_running, true)
        };
        if starts {
            self.runtime.spawn(self.clone().run());
        }
        // Each request has its deadline.
        trimmed.await.unwrap_or_else(|_| Err(unavailable("Kafka's clients have ended")))
    }

    async fn run(self: Arc<Self>) {
        loop {
            let since = lock(&self.state).last.map(|last| last.elapsed());
            let interval = self.settings.trim_interval.duration();
            if let Some(left) = since.and_then(|since| interval.checked_sub(since)) {
                sleep(left).await;
            }
            let wishes = {
                let mut state = lock(&self.state);
                if state.wishes.is_empty() {
                    state.is_running = false;
                    return;
                }
                state.last = Some(instant());
                std::mem::take(&mut state.wishes)
            };
            let trimmer = self.clone();
            // A client of its own, for a moment: it is seldom, and the two others have no such call.
            let asking = self.runtime.spawn_blocking(move || trimmer.ask(wishes));
            // Who waits is told by what is dropped.
            let _ = asking.await;
        }
    }

    /// Blocks.
    fn ask(&self, wishes: Wishes) {
        let topic = &self.settings.topic;
        let asked = || -> Result<TopicPartitionList, String> {
            let mut list = TopicPartitionList::with_capacity(wishes.len());
            for (partition, wish) in &wishes {
                let before = rdkafka::Offset::Offset(wish.before as i64);
                list.add_partition_offset(topic, i32::from(partition.0), before).map_err(|error| error.to_string())?;
            }
            let admin = admin(&self.settings, &self.folder).map_err(|error| error.to_string())?;
            block_on(admin.delete_records(&list, &options(&self.settings))).map_err(|error| words(&error))
        };
        let asked = asked();
        for (partition, wish) in wishes {
            let result = match &asked {
                Err(reason) => Err(unavailable(reason)),
                Ok(list) => match list.find_partition(topic, i32::from(partition.0)).map(|found| found.error()) {
                    Some(Err(error)) => self.settle(error.rdkafka_error_code(), words(&error)),
                    _ => Ok(()),
                },
            };
            // Who asked may have given up.
            wish.waiting.into_iter().for_each(|answer| drop(answer.send(result.clone())));
        }
    }

    fn settle(&self, code: Option<RDKafkaErrorCode>, reason: String) -> Result<(), TierError> {
        use RDKafkaErrorCode as Code;
        match code {
            // Somebody was faster, or the log is another one.
            Some(Code::OffsetOutOfRange) => Ok(()),
            Some(
                Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::PolicyViolation
                | Code::UnsupportedVersion
                | Code::InvalidRequest,
            ) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    warn!(reason, "kafka refuses to forget batches early: the topic's retention does it");
                }
                Ok(())
            }
            _ => Err(unavailable(reason)),
        }
    }
}
