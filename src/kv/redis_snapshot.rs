//! Snapshots in Redis: parts first, then one step that makes them the snapshot.
//!
//! Invariant: whoever reads sees one whole snapshot, the one before or the new one. Parts that belong to none vanish by
//! themselves: each is written with a time to live, which that step takes from the new ones and gives to the old ones.
//!
//! | key, after `PREFIX:{partition}:` | value |
//! |---|---|
//! | `snapshot` | hash: `epoch`, `generation`, `parts`, `bytes`, `checksum` (CRC-32) |
//! | `snapshot:GENERATION:N` | a part |

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::{Value, cmd};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

use super::Snapshot;
use crate::model::codec::CodecError;
use crate::model::id::{Epoch, PartitionId, Tip};
use crate::redis_reply::{self as reply, List};
use crate::redis_store::{Call, Lua, RedisStore};
use crate::tier::TierError;

const TIER: &str = "kv";
/// Small enough that other calls pass between them.
const PART_BYTES: usize = 1 << 20;
const PARTS_AT_ONCE: usize = 4;
/// What is larger is no snapshot of ours.
const MOST_PARTS: usize = 1 << 16;
/// Repetitions of a step that met another writer's.
const TRIES: usize = 5;

static SWITCH: LazyLock<Lua> = LazyLock::new(|| Lua::new(include_str!("redis_switch.lua")));

/// What is stored of a snapshot beside its parts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stored {
    epoch: Epoch,
    /// Empty: there is none.
    generation: String,
    parts: usize,
    bytes: u64,
    checksum: u32,
}

/// `generation`: a name that no other snapshot has.
pub async fn put(
    store: &RedisStore,
    partition: PartitionId,
    generation: String,
    snapshot: Snapshot,
) -> Result<(), TierError> {
    let limit = store.long_deadline();
    let done = async {
        let _place = store.long_place().await?;
        let mut before = stored(store, partition).await?;
        check_epoch(&before, snapshot.epoch)?;
        let new = write_parts(store, partition, generation, &snapshot, limit * 2).await?;
        for _ in 0..TRIES {
            match switch(store, partition, &before, &new, limit).await?.as_str() {
                "done" => return Ok(()),
                "changed" => {
                    before = stored(store, partition).await?;
                    check_epoch(&before, snapshot.epoch)?;
                }
                _ => return Err(store.unavailable("Redis has lost a part of the snapshot already")),
            }
        }
        Err(store.unavailable("others keep replacing the snapshot"))
    };
    timeout(limit, done).await.unwrap_or_else(|_| Err(late(store, limit)))
}

pub async fn get(store: &RedisStore, partition: PartitionId) -> Result<Option<Snapshot>, TierError> {
    let limit = store.long_deadline();
    let read = async {
        let _place = store.long_place().await?;
        let mut found = stored(store, partition).await?;
        for _ in 0..TRIES {
            if found.generation.is_empty() {
                return Ok(None);
            }
            if let Some(snapshot) = read_parts(store, partition, &found).await? {
                return Ok(Some(snapshot));
            }
            let before = std::mem::replace(&mut found, stored(store, partition).await?);
            if before == found {
                let lacking = CodecError::malformed("snapshot", "a part is missing");
                return Err(store.damaged(partition, "snapshot", lacking));
            }
        }
        Err(store.unavailable("the snapshot is replaced faster than it can be read"))
    };
    timeout(limit, read).await.unwrap_or_else(|_| Err(late(store, limit)))
}

fn late(store: &RedisStore, limit: Duration) -> TierError {
    store.unavailable(format!("the snapshot took longer than {} ms", limit.as_millis()))
}

fn check_epoch(before: &Stored, writer: Epoch) -> Result<(), TierError> {
    match before.epoch > writer {
        true => Err(TierError::Fenced { tier: TIER, found: Tip::new(before.epoch, 0) }),
        false => Ok(()),
    }
}

async fn stored(store: &RedisStore, partition: PartitionId) -> Result<Stored, TierError> {
    let mut command = cmd("HMGET");
    command.arg(store.key(partition, "snapshot")).arg(&["epoch", "generation", "parts", "bytes", "checksum"]);
    let found = store.command(partition, &command, 0).await?;
    read_stored(found).map_err(|error| store.damaged(partition, "snapshot", error))
}

fn read_stored(found: Value) -> Result<Stored, CodecError> {
    let mut found = List::of(found)?;
    let stored = Stored {
        epoch: found.number()?.unwrap_or_default(),
        generation: found.text()?,
        parts: found.number()?.unwrap_or_default(),
        bytes: found.number()?.unwrap_or_default(),
        checksum: found.number()?.unwrap_or_default(),
    };
    match stored.parts > MOST_PARTS {
        true => Err(CodecError::malformed("snapshot", format!("{} parts", stored.parts))),
        false => Ok(stored),
    }
}

fn part_keys(store: &RedisStore, partition: PartitionId, stored: &Stored) -> impl Iterator<Item = String> {
    let key = store.key(partition, &format!("snapshot:{}", stored.generation));
    (0..stored.parts).map(move |number| format!("{key}:{number}"))
}

async fn write_parts(
    store: &RedisStore,
    partition: PartitionId,
    generation: String,
    snapshot: &Snapshot,
    live: Duration,
) -> Result<Stored, TierError> {
    let state = &snapshot.state;
    let new = Stored {
        epoch: snapshot.epoch,
        generation,
        parts: state.len().div_ceil(PART_BYTES),
        bytes: state.len() as u64,
        checksum: crc32fast::hash(state),
    };
    if new.parts > MOST_PARTS {
        return Err(store.unavailable(format!("a snapshot of {} bytes is more than Redis is given", state.len())));
    }
    let parts = (0..new.parts).map(|part| state.slice(part * PART_BYTES..state.len().min((part + 1) * PART_BYTES)));
    let parts: Vec<(String, Bytes)> = part_keys(store, partition, &new).zip(parts).collect();
    let writes = parts.into_iter().map(|(key, part)| async move {
        let mut command = cmd("SET");
        command.arg(key).arg(&part[..]).arg("PX").arg(live.as_millis() as u64);
        store.command(partition, &command, part.len()).await.map(drop)
    });
    stream::iter(writes).buffer_unordered(PARTS_AT_ONCE).try_collect::<()>().await?;
    Ok(new)
}

async fn switch(
    store: &RedisStore,
    partition: PartitionId,
    before: &Stored,
    new: &Stored,
    readers: Duration,
) -> Result<String, TierError> {
    let mut keys = vec![store.key(partition, "snapshot")];
    keys.extend(part_keys(store, partition, new));
    keys.extend(part_keys(store, partition, before));
    let args = [
        before.generation.clone(),
        readers.as_millis().to_string(),
        new.parts.to_string(),
        new.epoch.to_string(),
        new.generation.clone(),
        new.bytes.to_string(),
        new.checksum.to_string(),
    ];
    let args = args.map(Bytes::from).into();
    let done = store.eval(partition, Call { script: &SWITCH, keys, args }).await?;
    reply::text(done).map_err(|error| store.damaged(partition, "snapshot", error))
}

/// `None` if a part is not there.
async fn read_parts(
    store: &RedisStore,
    partition: PartitionId,
    stored: &Stored,
) -> Result<Option<Snapshot>, TierError> {
    let damaged = |error| store.damaged(partition, "snapshot", error);
    let reads = part_keys(store, partition, stored).map(|key| async move {
        let found = store.command(partition, cmd("GET").arg(key), PART_BYTES).await?;
        reply::bytes(found).map_err(damaged)
    });
    let mut parts = stream::iter(reads).buffered(PARTS_AT_ONCE);
    let mut state = Vec::new();
    while let Some(part) = parts.next().await {
        let Some(part) = part? else { return Ok(None) };
        state.extend_from_slice(&part);
    }
    if state.len() as u64 != stored.bytes || crc32fast::hash(&state) != stored.checksum {
        return Err(damaged(CodecError::Checksum { what: "snapshot" }));
    }
    Ok(Some(Snapshot { epoch: stored.epoch, state: state.into() }))
}
