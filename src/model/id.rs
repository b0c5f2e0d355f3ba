//! Names of things: partitions, epochs, tips, sources, and the partition-key values that rows are spread by.
//!
//! Invariant: the same key value gives the same bytes, and so the same partition, on every platform and version.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// One of the cluster's `partitions`: mq, gate, kv and slave all cut the world at the same places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an assignment of a task. A higher epoch fences a lower one.
pub type Epoch = u64;

/// Where a partition's place in a tier stands: the epoch of the last writer and the number of its last write.
///
/// Each write names the tip that it builds on and is refused if the tier stands elsewhere (design I5). Ordered by
/// epoch first. `Tip::default()` is an untouched place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tip {
    pub epoch: Epoch,
    pub number: u64,
}

impl Tip {
    pub fn new(epoch: Epoch, number: u64) -> Self {
        Self { epoch, number }
    }
}

impl fmt::Display for Tip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// A stream of changes of one table whose positions are totally ordered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SourceId {
    /// A stream with a name (`push/orders`, `orders-db/shop.orders`) and an incarnation, which grows wherever its log
    /// starts anew.
    Stream { name: Arc<str>, incarnation: u64 },
    /// One ingest request with an `Idempotency-Key`: xxh3-128 of table and key. It has one span per partition.
    Request(u128),
}

impl SourceId {
    /// The stream that gates give to pushed rows of `table` in one incarnation of a partition's sequencer.
    pub fn push(table: &str, incarnation: u64) -> Self {
        Self::Stream { name: format!("push/{table}").into(), incarnation }
    }

    /// Table and incarnation of a stream that `push` named.
    pub fn as_push(&self) -> Option<(&str, u64)> {
        match self {
            Self::Stream { name, incarnation } => Some((name.strip_prefix("push/")?, *incarnation)),
            Self::Request(_) => None,
        }
    }

    /// Are its rows taken in by gates, rather than read from a database's log?
    pub fn is_pushed(&self) -> bool {
        self.as_push().is_some() || matches!(self, Self::Request(_))
    }

    /// A partition's batches in mq as a source of their own, whose positions are the offsets: what a gate had to pass
    /// over because mq had forgotten it shows as a gap.
    pub fn mq() -> Self {
        Self::Stream { name: "mq".into(), incarnation: 0 }
    }

    pub fn is_mq(&self) -> bool {
        matches!(self, Self::Stream { name, incarnation: 0 } if &**name == "mq")
    }

    /// The source of a request that named itself by `key`; the same key on another table is another request.
    pub fn request(table: &str, key: &str) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(&(table.len() as u64).to_le_bytes());
        hasher.update(table.as_bytes());
        hasher.update(key.as_bytes());
        Self::Request(hasher.digest128())
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream { name, incarnation } => write!(f, "{name}#{incarnation}"),
            Self::Request(id) => write!(f, "request:{id:032x}"),
        }
    }
}

/// A value of the partition key (a merchant) in its canonical bytes: a tag, then an int as eight big-endian bytes with
/// the sign bit flipped (so that byte order is number order), or a text as UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(#[serde(with = "super::codec::byte_string")] Bytes);

const INT_TAG: u8 = 1;
const TEXT_TAG: u8 = 2;

/// A partition-key value as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyValue<'a> {
    Int(i64),
    Text(&'a str),
}

impl Key {
    pub fn int(value: i64) -> Self {
        Self(Bytes::copy_from_slice(&int_key(value)))
    }

    pub fn text(value: &str) -> Self {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.push(TEXT_TAG);
        bytes.extend_from_slice(value.as_bytes());
        Self(bytes.into())
    }

    /// Takes bytes that `as_bytes` gave; `None` if they are not a key.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let key = Self(bytes);
        let well_formed = match key.0.first() {
            Some(&INT_TAG) => key.0.len() == 9,
            Some(&TEXT_TAG) => std::str::from_utf8(&key.0[1..]).is_ok(),
            _ => false,
        };
        well_formed.then_some(key)
    }

    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    pub fn value(&self) -> KeyValue<'_> {
        match self.0[0] {
            INT_TAG => {
                let bytes: [u8; 8] = self.0[1..].try_into().expect("an int key has eight bytes");
                KeyValue::Int((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
            }
            _ => KeyValue::Text(std::str::from_utf8(&self.0[1..]).expect("a text key was UTF-8 when it was made")),
        }
    }

    pub fn partition(&self, partitions: u16) -> PartitionId {
        partition_of_bytes(&self.0, partitions)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value() {
            KeyValue::Int(value) => value.fmt(f),
            KeyValue::Text(value) => value.fmt(f),
        }
    }
}

fn int_key(value: i64) -> [u8; 9] {
    let mut bytes = [INT_TAG; 9];
    bytes[1..].copy_from_slice(&((value as u64) ^ (1 << 63)).to_be_bytes());
    bytes
}

fn partition_of_bytes(bytes: &[u8], partitions: u16) -> PartitionId {
    PartitionId((xxh3_64(bytes) % u64::from(partitions)) as u16)
}

/// The partition of an int key, without making the key.
pub fn partition_of_int(value: i64, partitions: u16) -> PartitionId {
    partition_of_bytes(&int_key(value), partitions)
}

/// The partition of a text key; `scratch` saves an allocation for each row.
pub fn partition_of_text(value: &str, partitions: u16, scratch: &mut Vec<u8>) -> PartitionId {
    scratch.clear();
    scratch.push(TEXT_TAG);
    scratch.extend_from_slice(value.as_bytes());
    partition_of_bytes(scratch, partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_key_never_changes_between_versions() {
        let ints: Vec<u16> = [0, 1, -1, 42, i64::MIN, i64::MAX].iter().map(|v| partition_of_int(*v, 64).0).collect();
        let texts: Vec<u16> = ["", "a", "UA", "größe"].iter().map(|v| Key::text(v).partition(64).0).collect();
        assert_eq!((ints, texts), (vec![25, 62, 60, 10, 0, 12], vec![63, 46, 26, 48]));
    }

    #[test]
    fn a_key_gives_back_its_value_and_its_bytes() {
        for value in [0, 1, -1, i64::MIN, i64::MAX] {
            assert_eq!(Key::int(value).value(), KeyValue::Int(value));
            assert_eq!(Key::from_bytes(Key::int(value).as_bytes().clone()), Some(Key::int(value)));
        }
        assert_eq!(Key::text("größe").value(), KeyValue::Text("größe"));
        assert!(Key::int(-5) < Key::int(3));
        assert_eq!(Key::from_bytes(Bytes::from_static(&[INT_TAG, 0])), None);
        assert_eq!(Key::from_bytes(Bytes::from_static(&[TEXT_TAG, 0xff])), None);
    }

    #[test]
    fn streams_of_gates_and_of_mq_are_told_apart() {
        assert_eq!(SourceId::push("orders", 7).as_push(), Some(("orders", 7)));
        assert_eq!((SourceId::mq().as_push(), SourceId::request("orders", "a").as_push()), (None, None));
        assert!(SourceId::mq().is_mq() && !SourceId::push("mq", 0).is_mq());
    }

    #[test]
    fn a_partition_is_the_same_with_and_without_making_the_key() {
        assert_eq!(partition_of_int(77, 64), Key::int(77).partition(64));
        assert_eq!(partition_of_text("abc", 64, &mut Vec::new()), Key::text("abc").partition(64));
    }
}
