//! Acknowledgements of batches that Kafka says it had already: they count once the log was read.
//!
//! To a broker a batch's name is its producer's number and count. Of a name that it knows it stores nothing, and gives the
//! place of what it has. That is the batch itself, sent again because its acknowledgement was lost. Or it is another
//! producer's: a Kafka that came back empty gives numbers anew, and who has one of before may be taken for who got it now.
//!
//! Invariant: what the broker did not append is acknowledged only if the very same batch stands where it says.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Message, Timestamp};
use tokio::time::sleep;
use tracing::error;

use super::Offset;
use super::kafka_clients::{Sent, Suspicion};
use super::kafka_error::unavailable;
use super::kafka_keeper::Command;
use super::kafka_reader::Reading;
use crate::clock::instant;
use crate::model::batch::Batch;
use crate::model::id::PartitionId;
use crate::tier::TierError;

/// Before the log is asked again, when it did not answer.
const PAUSE: Duration = Duration::from_millis(50);
const TAKEN: &str = "Kafka took the batch for another one; whether it was published is not known";

/// A batch that may stand at an offset.
pub struct Doubted {
    sent: Box<Sent>,
    offset: i64,
    payload: Bytes,
}

/// Those of each partition, in the order in which brokers told of them.
pub type AllDoubted = BTreeMap<usize, Vec<Doubted>>;

/// With an acknowledgement a broker gives the time only of what it had already: a topic that has its times from brokers is
/// refused at the start. Should it become one later, every batch is looked for, which is right and slow.
pub fn is_doubtful(acknowledged: &BorrowedMessage<'_>) -> bool {
    matches!(acknowledged.timestamp(), Timestamp::LogAppendTime(_))
}

impl Doubted {
    pub fn new(sent: Box<Sent>, acknowledged: &BorrowedMessage<'_>) -> Self {
        let payload = Bytes::copy_from_slice(acknowledged.payload().unwrap_or_default());
        Self { sent, offset: acknowledged.offset(), payload }
    }

    pub fn partition(&self) -> usize {
        self.sent.partition
    }
}

/// Looks for the batches of a partition, and tells who waits for them.
pub async fn settle(reading: Reading, partition: usize, doubted: Vec<Doubted>) {
    let begun = instant();
    for Doubted { sent, offset, payload } in doubted {
        let result = loop {
            match find(&reading, PartitionId(partition as u16), offset, &payload).await {
                // As long as somebody may wait for it.
                Err(error) if error.is_retryable() && !sent.is_given_up(begun, &reading.settings) => sleep(PAUSE).await,
                Ok(None) => break Err(unavailable(TAKEN)),
                Ok(Some(offset)) => break Ok(offset),
                Err(error) => break Err(error),
            }
        };
        sent.hear(result);
    }
}

/// `None`: there is something else.
async fn find(
    reading: &Reading,
    partition: PartitionId,
    offset: i64,
    payload: &Bytes,
) -> Result<Option<Offset>, TierError> {
    let Ok(offset) = Offset::try_from(offset) else { return Ok(None) };
    let read = reading.read(partition, offset, 0).await?;
    let is_it = |(at, batch): &(Offset, Batch)| *at == offset && Batch::decode(payload).is_ok_and(|it| it == *batch);
    if read.batches.first().is_some_and(is_it) {
        return Ok(Some(offset));
    }
    error!(%partition, offset, "kafka took a batch for another producer's: it was emptied while producers lived");
    // This producer's number is another's, too. The keeper ends last.
    let _ = reading.keeper.send(Command::Suspect(Suspicion::WentBack));
    Ok(None)
}
