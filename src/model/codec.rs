//! How control data becomes bytes: a version byte, bincode with a limit, a CRC-32 at the end.
//!
//! Invariant: `decode(encode(x)) == x`; every other input is an error, never a panic and never an allocation larger
//! than the input's length allows.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Written first in every frame; a reader that does not know it refuses the frame.
pub const VERSION: u8 = 1;

/// Why bytes are not what they should be.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum CodecError {
    #[error("{what}: {len} bytes are too short")]
    Truncated { what: &'static str, len: usize },
    #[error("{what}: format version {found}, this program reads version {VERSION}")]
    Version { what: &'static str, found: u8 },
    #[error("{what}: checksum mismatch, the bytes were damaged")]
    Checksum { what: &'static str },
    #[error("{what}: {reason}")]
    Malformed { what: &'static str, reason: String },
}

impl CodecError {
    pub fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().reject_trailing_bytes()
}

/// Bincode without frame, for parts of a frame that has its own checksum.
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    options().serialize(value).expect("plain data always serializes to memory")
}

/// The inverse of `to_bytes`; `what` names the thing in the error.
pub fn from_bytes<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    // The limit also bounds what a forged length can make serde allocate.
    options().with_limit(bytes.len() as u64).deserialize(bytes).map_err(|error| CodecError::malformed(what, error))
}

/// Serde's form of `Bytes`: a byte string. For `#[serde(with = "codec::byte_string")]`.
pub mod byte_string {
    use bytes::Bytes;
    use serde::de::{Deserializer, Error, SeqAccess, Visitor};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct AsBytes;
        impl<'de> Visitor<'de> for AsBytes {
            type Value = Bytes;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(bytes.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(bytes.into())
            }
        }
        deserializer.deserialize_byte_buf(AsBytes)
    }
}

/// A whole frame: version, bincode, CRC-32 over both.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    options().serialize_into(&mut bytes, value).expect("plain data always serializes to memory");
    seal(&mut bytes);
    bytes
}

/// The inverse of `encode`.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let body = unseal(what, bytes)?;
    match body.split_first() {
        Some((&VERSION, rest)) => from_bytes(what, rest),
        Some((&found, _)) => Err(CodecError::Version { what, found }),
        None => Err(CodecError::Truncated { what, len: bytes.len() }),
    }
}

/// Appends the CRC-32 of everything so far.
pub fn seal(bytes: &mut Vec<u8>) {
    let crc = crc32fast::hash(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// Checks and strips what `seal` appended.
pub fn unseal<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(CodecError::Truncated { what, len: bytes.len() });
    };
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(CodecError::Checksum { what });
    }
    Ok(body)
}
