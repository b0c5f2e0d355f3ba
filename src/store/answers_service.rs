//! Puts questions of peers to the tiers.
//!
//! Invariant: a question is put whole or not at all; a snapshot is not put after a later one of the same writer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::lender_service::Lent;
use crate::kv::Snapshot;
use crate::lending::answer::Answer;
use crate::lending::ask::{Ask, Question, SinkName};
use crate::lending::envelope::{Bodies, Envelope};
use crate::model::codec::CodecError;
use crate::model::id::PartitionId;
use crate::tier::{Sink, TierError};

/// Which process's writer it was, and the number that it gave its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Numbered {
    writer: (u128, u64),
    number: u64,
}

pub struct Answers {
    lent: Lent,
    /// By partition: the last snapshot that was begun to be put. Held while it is put.
    snapshots: Vec<Mutex<Option<Numbered>>>,
}

type Told = Result<(Answer, Vec<Bytes>), TierError>;

fn done(result: Result<(), TierError>) -> Told {
    result.map(|()| (Answer::Done, Vec::new()))
}

fn words(result: Result<Answer, TierError>) -> Told {
    result.map(|answer| (answer, Vec::new()))
}

fn with_rows<T>(result: Result<T, TierError>, answer: impl FnOnce(T, &mut Vec<Bytes>) -> Answer) -> Told {
    let mut rows = Vec::new();
    let answer = answer(result?, &mut rows);
    Ok((answer, rows))
}

fn most(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Answers {
    pub fn new(lent: Lent) -> Self {
        let snapshots = (0..lent.partitions).map(|_| Mutex::new(None)).collect();
        Self { lent, snapshots }
    }

    pub fn lent(&self) -> &Lent {
        &self.lent
    }

    /// `boot`: the peer's. An error: it was no question.
    pub async fn answer(&self, boot: u128, bytes: Bytes) -> Result<(u64, Envelope), CodecError> {
        let (question, bodies) = Question::open(bytes, self.lent.partitions)?;
        let Question { partition, most_answer, ask } = question;
        let told = match ask {
            Ask::MqRead { .. } | Ask::MqTrim { .. } => self.of_mq(partition, ask, bodies).await?,
            Ask::Standing(_) | Ask::Write(..) | Ask::Read(..) => self.of_sink(partition, ask, bodies).await?,
            _ => self.of_kv(boot, partition, ask, bodies).await?,
        };
        let (answer, rows) = told.unwrap_or_else(|error| (Answer::Failed(error.into()), Vec::new()));
        Ok((most_answer, Envelope::new(&answer, rows)))
    }

    async fn of_mq(&self, partition: PartitionId, ask: Ask, bodies: Bodies) -> Result<Told, CodecError> {
        bodies.end()?;
        let mq = &self.lent.mq;
        Ok(match ask {
            Ask::MqRead { from, max_bytes } => {
                with_rows(mq.read(partition, from, most(max_bytes)).await, Answer::mq_read)
            }
            Ask::MqTrim { before } => done(mq.trim(partition, before).await),
            _ => return Err(not_here()),
        })
    }

    async fn of_kv(
        &self,
        boot: u128,
        partition: PartitionId,
        ask: Ask,
        mut bodies: Bodies,
    ) -> Result<Told, CodecError> {
        let kv = &self.lent.kv;
        Ok(match ask {
            Ask::KvHead => words(kv.head(partition).await.map(Answer::head)),
            Ask::KvAppend(form) => {
                let append = form.read(&mut bodies)?;
                bodies.end()?;
                done(kv.append(partition, append).await)
            }
            Ask::KvChunks { after, max_bytes } => {
                with_rows(kv.chunks(partition, after, most(max_bytes)).await, Answer::chunks)
            }
            Ask::KvPutSnapshot { epoch, bytes, instance, number } => {
                let snapshot = Snapshot { epoch, state: bodies.take(bytes)? };
                bodies.end()?;
                let numbered = Numbered { writer: (boot, instance), number };
                done(self.put_snapshot(partition, numbered, snapshot).await)
            }
            Ask::KvSnapshot => with_rows(kv.snapshot(partition).await, Answer::snapshot),
            Ask::KvTrim { through, before_ms } => done(kv.trim(partition, through, before_ms).await),
            _ => return Err(not_here()),
        })
    }

    async fn put_snapshot(
        &self,
        partition: PartitionId,
        numbered: Numbered,
        snapshot: Snapshot,
    ) -> Result<(), TierError> {
        let mut last = self.snapshots[usize::from(partition.0)].lock().await;
        if last.is_some_and(|last| last.writer == numbered.writer && last.number >= numbered.number) {
            // Its writer has given it up, and kv may have been trimmed by the later one.
            return Err(TierError::Unavailable { tier: "kv", reason: "a later snapshot has overtaken it".into() });
        }
        *last = Some(numbered);
        self.lent.kv.put_snapshot(partition, snapshot).await
    }

    fn sink(&self, name: SinkName) -> &Arc<dyn Sink> {
        match name {
            SinkName::Hot => &self.lent.hot,
            SinkName::Cache => &self.lent.cache,
        }
    }

    async fn of_sink(&self, partition: PartitionId, ask: Ask, mut bodies: Bodies) -> Result<Told, CodecError> {
        Ok(match ask {
            Ask::Standing(name) => words(self.sink(name).standing(partition).await.map(Answer::standing)),
            Ask::Write(name, form) => {
                let write = form.read(&mut bodies)?;
                bodies.end()?;
                done(self.sink(name).write(partition, write).await)
            }
            Ask::Read(name, form) => with_rows(self.sink(name).read(partition, form.read()?).await, Answer::blocks),
            _ => return Err(not_here()),
        })
    }
}

fn not_here() -> CodecError {
    CodecError::malformed("question", "for another tier")
}
