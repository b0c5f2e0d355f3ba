//! What a gate tells an owner in another process, as bytes. Pure.
//!
//! Invariant: rows are copied once, into the message; the other side's rows share the message. There is no checksum: frames
//! have one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::batch::{Batch, BatchHeader, Chunk};
use crate::model::codec::{self, CodecError};
use crate::model::id::{PartitionId, Tip};

/// A push that came from another process.
#[derive(Debug, Clone, PartialEq)]
pub enum Pushed {
    Chunk(PartitionId, Chunk),
    /// As `message::Idle` says it.
    Idle {
        partition: PartitionId,
        tip: Tip,
        at_ms: i64,
    },
}

#[derive(Serialize, Deserialize)]
enum Head {
    /// The bodies of its batches follow, of these lengths.
    Chunk {
        partition: PartitionId,
        id: Tip,
        previous: Tip,
        at_ms: i64,
        batches: Vec<(BatchHeader, u32)>,
    },
    Idle {
        partition: PartitionId,
        tip: Tip,
        at_ms: i64,
    },
}

const LENGTH_BYTES: usize = 4;

/// Format: head length (u32 le), head, bodies.
pub fn encode_chunk(partition: PartitionId, chunk: &Chunk) -> Bytes {
    let batches = chunk.batches.iter().map(|batch| (batch.header.clone(), batch.body.len() as u32)).collect();
    let head = Head::Chunk { partition, id: chunk.id, previous: chunk.previous, at_ms: chunk.at_ms, batches };
    encode(&head, chunk.batches.iter().map(|batch| &batch.body))
}

pub fn encode_idle(partition: PartitionId, tip: Tip, at_ms: i64) -> Bytes {
    encode(&Head::Idle { partition, tip, at_ms }, std::iter::empty())
}

fn encode<'a>(head: &Head, bodies: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let head = codec::to_bytes(head);
    let length = LENGTH_BYTES + head.len() + bodies.clone().map(Bytes::len).sum::<usize>();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    bodies.for_each(|body| bytes.extend_from_slice(body));
    bytes.into()
}

/// The inverse of both.
pub fn decode(mut bytes: Bytes) -> Result<Pushed, CodecError> {
    let truncated = CodecError::Truncated { what: "push", len: bytes.len() };
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>().map(|length| u32::from_le_bytes(*length) as usize) else {
        return Err(truncated);
    };
    let mut rest = bytes.split_off(LENGTH_BYTES);
    if rest.len() < length {
        return Err(truncated);
    }
    let head = rest.split_to(length);
    let pushed = match codec::from_bytes("push", &head)? {
        Head::Idle { partition, tip, at_ms } => Pushed::Idle { partition, tip, at_ms },
        Head::Chunk { partition, id, previous, at_ms, batches: heads } => {
            let mut batches = Vec::with_capacity(heads.len());
            for (header, length) in heads {
                if rest.len() < length as usize {
                    return Err(truncated);
                }
                batches.push(Batch { header, body: rest.split_to(length as usize) });
            }
            Pushed::Chunk(partition, Chunk { id, previous, at_ms, batches })
        }
    };
    match rest.is_empty() {
        true => Ok(pushed),
        false => Err(CodecError::malformed("push", "more follows than the head says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::SourceId;
    use crate::model::position::{Position, Span};

    fn chunk() -> Chunk {
        let batch = |from: u128, body: &'static [u8]| {
            let header = BatchHeader {
                source: SourceId::push("orders", 3),
                span: Span::new(Position(from), Position(from + 2)),
                table: "orders".into(),
                schema: 7,
                rows: 2,
                weighted: false,
                positioned: false,
                at_ms: 5,
                hours: Some((1, 2)),
            };
            Batch { header, body: Bytes::from_static(body) }
        };
        let batches = vec![batch(0, b"two rows"), batch(2, b""), batch(4, b"two more")];
        Chunk { id: Tip::new(2, 9), previous: Tip::new(2, 8), at_ms: 77, batches }
    }

    #[test]
    fn a_push_arrives_as_it_was_sent() {
        let partition = PartitionId(3);
        let bytes = encode_chunk(partition, &chunk());
        assert_eq!(decode(bytes.clone()), Ok(Pushed::Chunk(partition, chunk())));
        let tip = Tip::new(2, 9);
        assert_eq!(decode(encode_idle(partition, tip, 78)), Ok(Pushed::Idle { partition, tip, at_ms: 78 }));
        for length in 0..bytes.len() {
            assert!(decode(bytes.slice(..length)).is_err(), "{length} of {} bytes", bytes.len());
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(decode(longer.into()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn bytes_that_are_no_push_are_refused_without_harm(bytes in proptest::collection::vec(0_u8.., 0..200)) {
            let _ = decode(bytes.into());
        }
    }
}
