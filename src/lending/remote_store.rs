//! Asks a store: by a call, or over a stream where question or answer is too long for one.
//!
//! Invariant: every question ends by its deadline; whatever goes wrong on the way is `Unavailable`, for then the outcome is
//! not known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::Answer;
use super::ask::{Ask, Question};
use super::envelope::{Bodies, Envelope};
use super::items::{self, Opening};
use super::remote_items;
use super::settings::Settings;
use crate::model::codec::CodecError;
use crate::model::id::PartitionId;
use crate::model::units::ByteSize;
use crate::net::link::{Link, NetError, StreamReader, StreamWriter};
use crate::net::service::{LinkTo, STORE};
use crate::tier::TierError;

/// The store that the tiers of this process are in; shared by its adapters.
pub struct RemoteStore {
    link_to: LinkTo,
    settings: Settings,
    /// The longest body of a call or its answer.
    body: usize,
    /// Tells the writers of one process apart.
    instance: u64,
    writes: AtomicU64,
    calls: Semaphore,
    long: Semaphore,
}

pub fn unavailable(tier: &'static str, reason: impl ToString) -> TierError {
    TierError::Unavailable { tier, reason: reason.to_string() }
}

fn late(after: Duration) -> String {
    format!("the store did not answer within {} ms; whether it was done is not known", after.as_millis())
}

impl RemoteStore {
    /// `body`: this process's `[net] body`.
    pub fn new(link_to: LinkTo, settings: Settings, body: ByteSize) -> Arc<Self> {
        static INSTANCES: AtomicU64 = AtomicU64::new(1);
        let places = |most: usize| Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS));
        let (calls, long) = (places(settings.calls_at_once), places(settings.long_at_once));
        let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { link_to, settings, body: body.bytes(), instance, writes: AtomicU64::new(0), calls, long })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Numbers the writes whose order the store keeps.
    pub fn next_write(&self) -> u64 {
        self.writes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whoever is first to ask waits for the first attempt to connect: a node is given work as soon as it knows the store.
    async fn link(&self, tier: &'static str) -> Result<Arc<dyn Link>, TierError> {
        let link = (self.link_to)().ok_or_else(|| unavailable(tier, "no store is known to this node"))?;
        let mut state = link.state();
        if state.borrow().is_fresh() {
            // Whatever comes of it shows at the call.
            let _ = timeout(self.settings.deadline.duration(), state.wait_for(|state| !state.is_fresh())).await;
        }
        Ok(link)
    }

    /// Opens a stream and says what it is for.
    pub async fn open(&self, tier: &'static str, opening: Opening) -> Result<(StreamWriter, StreamReader), TierError> {
        let (mut writer, reader) = self.link(tier).await?.open(STORE).map_err(|error| unavailable(tier, error))?;
        match writer.write(items::seal(&opening)).await {
            Ok(()) => Ok((writer, reader)),
            Err(error) => Err(unavailable(tier, error)),
        }
    }

    /// Puts a question, and makes of the answer what `read` says.
    pub async fn ask<T>(
        &self,
        tier: &'static str,
        partition: PartitionId,
        (ask, bodies): (Ask, Vec<Bytes>),
        read: impl FnOnce(Answer, &mut Bodies) -> Result<T, CodecError>,
    ) -> Result<T, TierError> {
        // A snapshot seldom fits one call.
        let is_long = matches!(ask, Ask::KvSnapshot);
        let question = Question { partition, most_answer: self.body as u64, ask }.seal(bodies);
        let mut answer = None;
        if !is_long && question.len() <= self.body {
            answer = self.ask_by_call(tier, &question).await?;
        }
        let answered = match answer {
            Some(answered) => answered,
            None => self.ask_by_stream(tier, &question).await?,
        };
        let malformed = |error: CodecError| unavailable(tier, format!("the store's answer: {error}"));
        let (answer, mut bodies) = Answer::open(answered).map_err(malformed)?;
        if let Answer::Failed(failure) = answer {
            return Err(failure.of(tier));
        }
        let found = read(answer, &mut bodies).map_err(malformed)?;
        bodies.end().map_err(malformed)?;
        Ok(found)
    }

    /// `None`: it has to go over a stream.
    async fn ask_by_call(&self, tier: &'static str, question: &Envelope) -> Result<Option<Bytes>, TierError> {
        let deadline = self.settings.deadline.duration();
        let link = self.link(tier).await?;
        let called = async {
            // Beyond the limit a connection refuses calls, and it has other users, too.
            let _place = self.calls.acquire().await.map_err(|error| unavailable(tier, error))?;
            Ok(link.call(STORE, question.to_bytes(), deadline).await)
        };
        match timeout(deadline, called).await.map_err(|_| unavailable(tier, late(deadline)))?? {
            Ok(answered) if is_too_long(&answered) => Ok(None),
            Ok(answered) => Ok(Some(answered)),
            Err(NetError::TooLarge { .. }) => Ok(None),
            Err(error) => Err(unavailable(tier, error)),
        }
    }

    async fn ask_by_stream(&self, tier: &'static str, question: &Envelope) -> Result<Bytes, TierError> {
        let asked = async {
            let _place = self.long.acquire().await.map_err(|error| unavailable(tier, error))?;
            let (writer, reader) = self.open(tier, Opening::Ask { bytes: question.len() as u64 }).await?;
            exchange(writer, reader, question).await.map_err(|error| unavailable(tier, error))
        };
        let deadline = self.settings.long_deadline.duration();
        timeout(deadline, asked).await.map_err(|_| unavailable(tier, late(deadline)))?
    }
}

async fn exchange(mut writer: StreamWriter, mut reader: StreamReader, question: &Envelope) -> Result<Bytes, NetError> {
    remote_items::write(&mut writer, question.parts()).await?;
    writer.finish()?;
    let length = remote_items::read_length(&mut reader).await?;
    remote_items::read(&mut reader, length).await
}

/// Short, unlike real answers that are worth not opening twice.
fn is_too_long(answered: &Bytes) -> bool {
    const MOST_BYTES: usize = 64;
    let opened = (answered.len() <= MOST_BYTES).then(|| Answer::open(answered.clone()));
    matches!(opened, Some(Ok((Answer::TooLong { .. }, _))))
}
