//! What goes over the streams of the service STORE. Pure.
//!
//! | stream | to the store | to the asker |
//! |---|---|---|
//! | `Ask` | the question, in items of any length | its length (u64 le), then the answer likewise |
//! | `Publish` | `Publication`s, each with its rows or followed by them | lists of `Settled` |
//! | `Watch` | lists of `Watch`, each in place of the one before | lists of `Ended` |
//!
//! Invariant: publications of one process are done in the order of their numbers, and none of a session once a later session
//! has begun.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::answer::Failure;
use super::envelope::{self, Bodies, Envelope};
use super::forms::BatchForm;
use crate::model::batch::Batch;
use crate::model::codec::{self, CodecError};
use crate::model::id::PartitionId;
use crate::mq::Offset;

/// The first item of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Opening {
    /// A question of so many bytes.
    Ask {
        bytes: u64,
    },
    /// `instance`: which of the process's queues of publications; `session`: grows with each stream of it.
    Publish {
        instance: u64,
        session: u64,
    },
    Watch,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Publication {
    pub number: u64,
    pub partition: PartitionId,
    pub batch: BatchForm,
}

/// Up to this length the rows are in the same item.
const INLINE_BYTES: usize = 48 << 10;

impl Publication {
    /// The first item, and the rows that follow it.
    pub fn seal(number: u64, partition: PartitionId, batch: Batch) -> (Bytes, Option<Bytes>) {
        let mut bodies = Vec::with_capacity(1);
        let publication = Self { number, partition, batch: BatchForm::of(batch, &mut bodies) };
        if publication.batch.bytes() <= INLINE_BYTES as u64 {
            return (Envelope::new(&publication, bodies).to_bytes(), None);
        }
        (Envelope::new(&publication, Vec::new()).to_bytes(), bodies.pop())
    }

    pub fn open(item: Bytes) -> Result<(Self, Bodies), CodecError> {
        envelope::open("publication", item)
    }
}

/// What became of a publication.
pub type Settled = (u64, Result<Offset, Failure>);

/// Tell when there is a batch from this offset on; `None`: it is not waited for any more.
pub type Watch = (PartitionId, Option<Offset>);

/// There is a batch from this offset on, or it cannot be told.
pub type Ended = (PartitionId, Offset, Result<(), Failure>);

pub fn seal<T: Serialize>(item: &T) -> Bytes {
    codec::to_bytes(item).into()
}

pub fn open<T: serde::de::DeserializeOwned>(item: &Bytes) -> Result<T, CodecError> {
    codec::from_bytes("item", item)
}
