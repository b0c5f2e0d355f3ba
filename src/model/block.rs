//! Blocks: all rows of one metric table, one partition-key value and one day; what hot and cache hold and what the
//! query engine works on.
//!
//! Invariant: a stored block says which emission wrote it, so that a reader can tell whether the partition's record
//! vouches for it (design §7).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{self, CodecError};
use super::id::{Key, Tip};

/// A metric in one window under one definition: xxh3 of everything that decides the meaning of its rows. A changed
/// definition is another table, so old blocks are never read as new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MetricTableId(pub u64);

/// A calendar day in the cluster's time zone, as days since 1970-01-01.
pub type Day = i32;

/// Which block: metric table, day, merchant. The order is the order of storage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockKey {
    pub table: MetricTableId,
    pub day: Day,
    pub key: Key,
}

/// A block as a sink holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBlock {
    /// The emission that wrote it: the owner's epoch and the number of the emission.
    pub version: Tip,
    /// The rows in the form of `rows::encode_rows`, with the metric table's schema.
    #[serde(with = "super::codec::byte_string")]
    pub rows: Bytes,
}

impl StoredBlock {
    /// Format: version byte, epoch and number of the emission (u64 le each), rows, CRC-32.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.rows.len() + 21);
        bytes.push(codec::VERSION);
        bytes.extend_from_slice(&self.version.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.version.number.to_le_bytes());
        bytes.extend_from_slice(&self.rows);
        codec::seal(&mut bytes);
        bytes
    }

    /// The inverse of `encode`; the rows share `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        const LEAD: usize = 17;
        let body = codec::unseal("block", bytes)?;
        let Some((lead, rows)) = body.split_first_chunk::<LEAD>() else {
            return Err(CodecError::Truncated { what: "block", len: bytes.len() });
        };
        if lead[0] != codec::VERSION {
            return Err(CodecError::Version { what: "block", found: lead[0] });
        }
        let number =
            |from: usize| u64::from_le_bytes(lead[from..from + 8].try_into().expect("eight bytes of the lead"));
        let version = Tip::new(number(1), number(9));
        Ok(Self { version, rows: bytes.slice(LEAD..LEAD + rows.len()) })
    }
}
