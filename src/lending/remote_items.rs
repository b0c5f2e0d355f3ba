//! Bodies of any length over a stream, in items that fit its window.
//!
//! Invariant: what is read has exactly the length that was told before; a stream that ends early is an error.

use bytes::{Buf, Bytes, BytesMut};

use crate::net::link::{NetError, StreamReader, StreamWriter};

/// Items are about as long: several fit a stream's window, so that reader and writer work at the same time.
const ITEM_BYTES: usize = 256 << 10;
/// Shorter parts are put together, for each item has its price.
const WHOLE_BYTES: usize = 32 << 10;
/// More is not taken from a peer, whatever it says.
pub const MOST_BYTES: u64 = 1 << 30;
/// Made room for before anything has come.
const TRUSTED_BYTES: usize = 64 << 20;

/// Writes parts one after the other; large ones are not copied.
pub async fn write(writer: &mut StreamWriter, parts: impl Iterator<Item = Bytes>) -> Result<(), NetError> {
    let mut most = ITEM_BYTES;
    let mut small = BytesMut::new();
    for part in parts {
        if part.len() < WHOLE_BYTES {
            small.extend_from_slice(&part);
        }
        let is_large = part.len() >= WHOLE_BYTES;
        if !small.is_empty() && (is_large || small.len() >= ITEM_BYTES) {
            write_part(writer, small.split().freeze(), &mut most).await?;
        }
        if is_large {
            write_part(writer, part, &mut most).await?;
        }
    }
    write_part(writer, small.freeze(), &mut most).await
}

async fn write_part(writer: &mut StreamWriter, mut part: Bytes, most: &mut usize) -> Result<(), NetError> {
    while !part.is_empty() {
        let item = part.slice(..part.len().min(*most));
        match writer.write(item.clone()).await {
            Ok(()) => part.advance(item.len()),
            // The peer has a smaller window than is usual.
            Err(NetError::TooLarge { limit, .. }) if limit > 0 && limit < item.len() => *most = limit,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn broken(reason: &str) -> NetError {
    NetError::Aborted { peer: "the other side".into(), reason: reason.to_owned() }
}

/// The next `length` bytes, which end with an item.
pub async fn read(reader: &mut StreamReader, length: u64) -> Result<Bytes, NetError> {
    let length = usize::try_from(length.min(MOST_BYTES + 1)).unwrap_or(usize::MAX);
    if length as u64 > MOST_BYTES {
        return Err(broken("more than one body can hold"));
    }
    let mut whole = BytesMut::new();
    while whole.len() < length {
        let item = reader.read().await?.ok_or_else(|| broken("it ended early"))?;
        if whole.is_empty() && item.len() == length {
            return Ok(item);
        }
        if item.is_empty() || whole.len() + item.len() > length {
            return Err(broken("items that do not add up"));
        }
        if whole.is_empty() {
            whole.reserve(length.min(TRUSTED_BYTES));
        }
        whole.extend_from_slice(&item);
    }
    Ok(whole.freeze())
}

/// The next item, which tells the length of what follows.
pub async fn read_length(reader: &mut StreamReader) -> Result<u64, NetError> {
    let item = reader.read().await?.ok_or_else(|| broken("it ended early"))?;
    let length: [u8; 8] = item[..].try_into().map_err(|_| broken("not a length"))?;
    Ok(u64::from_le_bytes(length))
}

/// The inverse of `read_length`.
pub async fn write_length(writer: &mut StreamWriter, length: usize) -> Result<(), NetError> {
    writer.write(Bytes::copy_from_slice(&(length as u64).to_le_bytes())).await
}
