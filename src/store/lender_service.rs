//! Serves this process's tiers to its peers: the other side of `lending`.
//!
//! No actor: a question owns all that it needs, and the tiers are built to be shared. Invariant: the network's thread only
//! passes on; work goes on when the peer is gone; what a peer can make this process hold is bounded.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::answers_service::Answers;
use super::publications_service::{self, Sessions};
use super::settings::Settings;
use super::watches_service;
use super::workers_service::Workers;
use crate::kv::Kv;
use crate::lending::answer::Answer;
use crate::lending::envelope::Envelope;
use crate::lending::items::{self, Opening};
use crate::lending::remote_items;
use crate::model::codec::CodecError;
use crate::model::units::ByteSize;
use crate::mq::Mq;
use crate::net::link::{Handler, NetError, Peer, Refusal, RefusalKind, StreamReader, StreamWriter};
use crate::tier::Sink;

/// The tiers of this process.
#[derive(Clone)]
pub struct Lent {
    pub mq: Arc<dyn Mq>,
    pub kv: Arc<dyn Kv>,
    pub hot: Arc<dyn Sink>,
    pub cache: Arc<dyn Sink>,
    pub partitions: u16,
}

/// The handler of the service STORE.
pub struct Lender {
    desk: Arc<Desk>,
    workers: Workers,
}

struct Desk {
    answers: Answers,
    sessions: Sessions,
    settings: Settings,
    /// For long questions, in units.
    memory: Semaphore,
    units: u32,
    /// The longest answer to a call.
    body: usize,
}

/// The memory is counted in units of this, so that it fits a semaphore.
const UNIT_BYTES: u64 = 1 << 10;

/// Why a stream ended before its end.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Malformed(#[from] CodecError),
    #[error("nothing came for too long")]
    Stalled,
    #[error("a newer session of the writer is here")]
    Old,
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

impl Lender {
    /// `body`: this process's `[net] body`. An error: the system gave no thread.
    pub fn start(lent: Lent, settings: Settings, body: ByteSize) -> std::io::Result<Arc<Self>> {
        let workers = Workers::start(settings.threads)?;
        let units = units(settings.long_memory.0).max(1);
        let desk = Desk {
            answers: Answers::new(lent),
            sessions: Sessions::new(settings.writers),
            memory: Semaphore::new(units as usize),
            units,
            body: body.bytes(),
            settings,
        };
        Ok(Arc::new(Self { desk: Arc::new(desk), workers }))
    }
}

impl Handler for Lender {
    fn call<'a>(&'a self, peer: &'a Peer, _service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        let (desk, boot) = (self.desk.clone(), peer.boot);
        let work = self.workers.spawn(async move { desk.answer_call(boot, body).await });
        async move {
            match work.await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(Refusal::new(RefusalKind::Malformed, error.to_string())),
                Err(error) => Err(Refusal::new(RefusalKind::Failed, error.to_string())),
            }
        }
        .boxed()
    }

    /// Nothing is told to a store by messages.
    fn receive<'a>(&'a self, _peer: &'a Peer, _service: u16, _body: Bytes) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }

    fn stream<'a>(
        &'a self,
        peer: &'a Peer,
        _service: u16,
        writer: StreamWriter,
        reader: StreamReader,
    ) -> BoxFuture<'a, ()> {
        let (desk, boot, name) = (self.desk.clone(), peer.boot, peer.name.clone());
        drop(self.workers.spawn(async move {
            if let Err(error) = desk.serve(boot, writer, reader).await {
                // The peer sees that the stream was broken off, and says so.
                debug!(peer = name, %error, "a stream ended early");
            }
        }));
        std::future::ready(()).boxed()
    }
}

impl Desk {
    async fn answer_call(&self, boot: u128, body: Bytes) -> Result<Bytes, CodecError> {
        let (most_answer, answer) = self.answers.answer(boot, body).await?;
        if answer.len() as u64 > most_answer.min(self.body as u64) {
            let too_long = Answer::TooLong { bytes: answer.len() as u64 };
            return Ok(Envelope::new(&too_long, Vec::new()).to_bytes());
        }
        Ok(answer.to_bytes())
    }

    async fn serve(&self, boot: u128, writer: StreamWriter, mut reader: StreamReader) -> Result<(), Broken> {
        let stall = self.settings.stall.duration();
        let opening = timeout(stall, reader.read()).await.map_err(|_| Broken::Stalled)??;
        match items::open(&opening.unwrap_or_default())? {
            Opening::Ask { bytes } => self.answer_stream(boot, bytes, writer, reader).await,
            Opening::Watch => {
                watches_service::serve(self.answers.lent(), (writer, reader)).await;
                Ok(())
            }
            Opening::Publish { instance, session } => {
                let session = self.sessions.enter((boot, instance), session).ok_or(Broken::Old)?;
                let most = self.settings.publications;
                publications_service::serve(self.answers.lent(), session, stall, most, (writer, reader)).await;
                Ok(())
            }
        }
    }

    async fn answer_stream(
        &self,
        boot: u128,
        bytes: u64,
        mut writer: StreamWriter,
        mut reader: StreamReader,
    ) -> Result<(), Broken> {
        let stall = self.settings.stall.duration();
        let answer = {
            // What is larger than all the memory gets it all.
            let wanted = units(bytes).clamp(1, self.units);
            let room = timeout(stall, self.memory.acquire_many(wanted)).await;
            let Ok(Ok(_room)) = room else { return Err(Broken::Stalled) };
            let read = timeout(stall, remote_items::read(&mut reader, bytes)).await;
            let question = read.map_err(|_| Broken::Stalled)??;
            self.answers.answer(boot, question).await?.1
        };
        remote_items::write_length(&mut writer, answer.len()).await?;
        remote_items::write(&mut writer, answer.parts()).await?;
        Ok(writer.finish()?)
    }
}
