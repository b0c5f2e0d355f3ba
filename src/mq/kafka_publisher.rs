//! Hands batches to librdkafka, in the order of calls.
//!
//! Invariant: a batch takes its place in this process's order within the call, and is published whether its caller waits or
//! not; memory of those without an answer is limited.

use std::sync::Arc;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseRecord;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::Offset;
use super::kafka_clients::{Current, Sent};
use super::kafka_error::{TIER, unavailable, words};
use super::kafka_settings::{RECORD_OVERHEAD, Settings};
use crate::model::batch::Batch;
use crate::model::codec::CodecError;
use crate::model::id::PartitionId;
use crate::tier::TierError;

/// Memory is counted in units of this, so that it fits a semaphore.
const UNIT_BYTES: usize = 1 << 10;

pub struct Publisher {
    current: Arc<Current>,
    settings: Arc<Settings>,
    room: Arc<Semaphore>,
    units: u32,
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

impl Publisher {
    pub fn new(current: Arc<Current>, settings: Arc<Settings>) -> Self {
        let units = units(settings.publish_memory.bytes()).max(1);
        Self { current, settings, room: Arc::new(Semaphore::new(units as usize)), units }
    }

    pub fn publish(
        &self,
        partition: PartitionId,
        batch: &Batch,
    ) -> impl Future<Output = Result<Offset, TierError>> + Send + 'static {
        let deadline = self.settings.publish_deadline.duration();
        let sent = self.send(partition, batch);
        async move {
            match timeout(deadline, sent?).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(unavailable("publications have ended; whether it was published is not known")),
                Err(_) => Err(unavailable(format!(
                    "not acknowledged within {} ms; it may still be published",
                    deadline.as_millis()
                ))),
            }
        }
    }

    /// Bytes of batches that are not acknowledged.
    pub fn under_way(&self) -> u64 {
        (self.units as usize - self.room.available_permits()) as u64 * UNIT_BYTES as u64
    }

    fn send(
        &self,
        partition: PartitionId,
        batch: &Batch,
    ) -> Result<oneshot::Receiver<Result<Offset, TierError>>, TierError> {
        let payload = batch.encode();
        let most = self.settings.batch_bytes.bytes();
        if payload.len() + RECORD_OVERHEAD > most {
            return Err(self.too_large(partition, payload.len()));
        }
        let Ok(room) = self.room.clone().try_acquire_many_owned(units(payload.len()).clamp(1, self.units)) else {
            return Err(unavailable("too many batches wait for Kafka ([tiers.mq] publish_memory)"));
        };
        let (answer, published) = oneshot::channel();
        let sent = Box::new(Sent { partition: usize::from(partition.0), answer, room });
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(&self.settings.topic, sent);
        let record = record.partition(i32::from(partition.0)).payload(&payload);
        let refused = self.current.with(|clients| clients.producer.send(record).map_err(|(error, _)| error));
        match refused {
            Ok(()) => Ok(published),
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                Err(self.too_large(partition, payload.len()))
            }
            Err(error) => Err(unavailable(words(&error))),
        }
    }

    /// No retry helps, so it is not `Unavailable`.
    fn too_large(&self, partition: PartitionId, bytes: usize) -> TierError {
        let Settings { topic, batch_bytes, .. } = &*self.settings;
        let reason = format!(
            "{bytes} bytes are more than [tiers.mq] batch_bytes = \"{batch_bytes}\" allows; raise it together with \
             max.message.bytes of Kafka's topic {topic}, or make batches smaller ([gate] request_bytes)"
        );
        TierError::Damaged {
            tier: TIER,
            place: format!("partition {partition}"),
            source: CodecError::malformed("batch", reason),
        }
    }
}
