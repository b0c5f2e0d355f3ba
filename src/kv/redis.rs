//! The KV tier in Redis or a Redis Cluster.
//!
//! Invariant: a chunk is appended by one script, which changes head, sources and order of chunks with it or nothing. Redis
//! may lose the last of such steps (a crash, a failover), never half of one; then the tip says so.
//!
//! | key, after `PREFIX:{partition}:` | value |
//! |---|---|
//! | `head` | hash: `tip`, `offset`, `oldest` (predecessor of the oldest chunk), and how many `sources` and `chunks` |
//! | `sources` | hash: source (bincode) → progress, as of the tip |
//! | `chunks` | sorted set, all of score 0: `ID PREDECESSOR TIME SIZE` of each chunk |
//! | `chunk:ID` | the chunk |
//! | `snapshot`, `snapshot:GENERATION:N` | see `redis_snapshot.rs` |

use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ::redis::{Cmd, Value, cmd};
use bytes::Bytes;
use futures::FutureExt;

use super::redis_snapshot;
use super::{Append, ChunkRead, Head, Kv, Snapshot};
use crate::model::batch::Chunk;
use crate::model::codec::CodecError;
use crate::model::id::{PartitionId, Tip};
use crate::redis_reply::{self as reply, List, add_progress, parse_tip, progress_value, source_field, tip_text};
use crate::redis_store::{Call, Lua, RedisError, RedisStore, Settings};
use crate::tier::{TierError, TierFuture, TierUsage, check_chain};

const TIER: &str = "kv";
/// Chunks of which one read learns.
const ENTRIES: usize = 256;
/// One read is not larger, whatever is asked for.
const READ_BYTES: usize = 64 << 20;
/// Chunks removed in one step, so that others need not wait.
const TRIM_STEP: usize = 64;
/// Repetitions of a step that met somebody else's.
const TRIES: usize = 5;

static APPEND: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("redis_place.lua"), include_str!("redis_append.lua"))));
static HEAD: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("redis_place.lua"), include_str!("redis_head.lua"))));
static ENTRIES_AFTER: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("redis_place.lua"), include_str!("redis_entries.lua"))));
static TRIM: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("redis_place.lua"), include_str!("redis_trim.lua"))));

/// The KV tier in Redis.
pub struct RedisKv {
    store: RedisStore,
    /// Tells the snapshots of one process from those of others.
    instance: u64,
    snapshots: AtomicU64,
}

/// What the order of chunks says of one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: Tip,
    previous: Tip,
    at_ms: i64,
    size: usize,
}

impl Entry {
    fn of(chunk: &Chunk) -> Self {
        Self { id: chunk.id, previous: chunk.previous, at_ms: chunk.at_ms, size: chunk.size() }
    }

    fn text(&self) -> String {
        format!("{} {} {} {}", tip_text(self.id), tip_text(self.previous), self.at_ms, self.size)
    }

    fn parse(text: &str) -> Result<Self, CodecError> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or_else(|| CodecError::malformed("entry of a chunk", format!("{text:?}")));
        let number = |error| CodecError::malformed("entry of a chunk", format!("{text:?}: {error}"));
        Ok(Self {
            id: parse_tip(word()?)?,
            previous: parse_tip(word()?)?,
            at_ms: word()?.parse().map_err(number)?,
            size: word()?.parse().map_err(number)?,
        })
    }
}

impl RedisKv {
    /// Without reaching a server: calls fail until one that fits is there. Connections live on the runtime that this is
    /// called in. Relative files in `settings` start at `folder`.
    pub fn new(settings: &Settings, folder: &Path) -> Result<Self, RedisError> {
        let store = RedisStore::new(TIER, settings, true, folder)?;
        let random = |error: getrandom::Error| RedisError::Unreachable {
            tier: TIER,
            address: "this machine".into(),
            reason: format!("no randomness: {error}"),
        };
        Ok(Self { store, instance: getrandom::u64().map_err(random)?, snapshots: AtomicU64::new(0) })
    }

    /// And looks whether the servers fit.
    pub async fn connect(settings: &Settings, partitions: u16, folder: &Path) -> Result<Self, RedisError> {
        let kv = Self::new(settings, folder)?;
        kv.store.check(partitions).await?;
        Ok(kv)
    }

    /// Do the servers fit? What is to be changed is in the error.
    pub async fn check(&self, partitions: u16) -> Result<(), RedisError> {
        self.store.check(partitions).await
    }

    /// Asks all primaries.
    pub async fn usage(&self) -> Result<TierUsage, TierError> {
        self.store.usage().await
    }

    /// For what all adapters of Redis can say.
    pub fn store(&self) -> &RedisStore {
        &self.store
    }

    /// The keys that each script of a place is given first.
    fn place(&self, partition: PartitionId) -> Vec<String> {
        ["head", "sources", "chunks"].map(|name| self.store.key(partition, name)).into()
    }

    fn chunk_key(&self, partition: PartitionId, id: Tip) -> String {
        self.store.key(partition, &format!("chunk:{}", tip_text(id)))
    }

    async fn head_now(&self, partition: PartitionId) -> Result<Head, TierError> {
        let call = Call { script: &HEAD, keys: self.place(partition), args: vec![] };
        let found = self.store.eval(partition, call).await?;
        read_head(found).map_err(|error| self.store.damaged(partition, "head", error))
    }

    async fn append_now(&self, partition: PartitionId, append: Append) -> Result<(), TierError> {
        let Append { chunk, offset, applied, forget } = append;
        assert!(chunk.id > chunk.previous, "a chunk moves the head forward");
        let mut keys = self.place(partition);
        keys.push(self.chunk_key(partition, chunk.id));
        let mut args: Vec<Bytes> = vec![
            tip_text(chunk.previous).into(),
            tip_text(chunk.id).into(),
            offset.to_string().into(),
            Entry::of(&chunk).text().into(),
            chunk.encode().into(),
            applied.len().to_string().into(),
        ];
        // A delta says the whole progress of its sources, so that nothing must be merged.
        for (source, progress) in &applied {
            args.extend([source_field(source), progress_value(source, progress)]);
        }
        args.extend(forget.iter().map(source_field));
        let (previous, id) = (chunk.previous, chunk.id);
        drop(chunk);
        let refused = self.store.eval(partition, Call { script: &APPEND, keys, args }).await?;
        self.accept(partition, refused, previous, id)
    }

    /// What a chained script gave: nothing, or where the place stands.
    fn accept(&self, partition: PartitionId, refused: Value, expect: Tip, writer: Tip) -> Result<(), TierError> {
        let damaged = |error| self.store.damaged(partition, "head", error);
        let found = reply::text(refused).map_err(damaged)?;
        if found.is_empty() { Ok(()) } else { check_chain(TIER, parse_tip(&found).map_err(damaged)?, expect, writer) }
    }

    async fn chunks_now(&self, partition: PartitionId, after: Tip, most: usize) -> Result<ChunkRead, TierError> {
        for _ in 0..TRIES {
            let Some(entries) = self.entries(partition, after, most.min(READ_BYTES)).await? else {
                return Ok(ChunkRead::Broken);
            };
            if entries.is_empty() {
                return Ok(ChunkRead::Next(Vec::new()));
            }
            let keys: Vec<String> = entries.iter().map(|entry| self.chunk_key(partition, entry.id)).collect();
            let bytes = entries.iter().map(|entry| entry.size).sum();
            let found = self.store.command(partition, cmd("MGET").arg(keys), bytes).await?;
            let chunks = read_chunks(&entries, found).map_err(|error| self.store.damaged(partition, "chunk", error))?;
            if let Some(chunks) = chunks {
                return Ok(ChunkRead::Next(chunks));
            }
            // They were trimmed meanwhile; then the order of chunks does not name them any more.
        }
        let lacking = CodecError::malformed("chain", "a chunk is missing");
        Err(self.store.damaged(partition, &format!("chunk after {after}"), lacking))
    }

    /// The chunks that a read is to give; `None` if what it builds on is not in the chain.
    async fn entries(&self, partition: PartitionId, after: Tip, most: usize) -> Result<Option<Vec<Entry>>, TierError> {
        let args = vec![tip_text(after).into(), ENTRIES.to_string().into()];
        let call = Call { script: &ENTRIES_AFTER, keys: self.place(partition), args };
        let found = self.store.eval(partition, call).await?;
        let damaged = |error| self.store.damaged(partition, "chain", error);
        let (tip, after, entries) = read_entries(found).map_err(damaged)?;
        if after == tip {
            return Ok(Some(Vec::new()));
        }
        let mut wanted: Vec<Entry> = Vec::new();
        let (mut previous, mut bytes) = (after, 0);
        for entry in entries {
            if entry.previous != previous {
                return match wanted.is_empty() {
                    true => Ok(None),
                    false => Err(damaged(CodecError::malformed("chain", "a chunk is missing"))),
                };
            }
            previous = entry.id;
            bytes += entry.size;
            wanted.push(entry);
            if bytes >= most {
                break;
            }
        }
        Ok((!wanted.is_empty()).then_some(wanted))
    }

    async fn trim_now(&self, partition: PartitionId, through: Tip, before_ms: i64) -> Result<(), TierError> {
        let mut tries = 0;
        while tries < TRIES {
            let old = self.old_entries(partition, through, before_ms).await?;
            if old.is_empty() {
                return Ok(());
            }
            let mut keys = self.place(partition);
            keys.extend(old.iter().map(|entry| self.chunk_key(partition, entry.id)));
            let args = old.iter().map(|entry| entry.text().into()).collect();
            let trimmed = self.store.eval(partition, Call { script: &TRIM, keys, args }).await?;
            match trimmed {
                Value::Int(1) if old.len() < TRIM_STEP => return Ok(()),
                Value::Int(1) => tries = 0,
                _ => tries += 1,
            }
        }
        Err(self.store.unavailable("somebody else trims the same chunks"))
    }

    async fn old_entries(&self, partition: PartitionId, through: Tip, before_ms: i64) -> Result<Vec<Entry>, TierError> {
        let mut command = Cmd::new();
        command.arg("ZRANGEBYLEX").arg(self.store.key(partition, "chunks"));
        command.arg("-").arg(format!("({}~", tip_text(through))).arg("LIMIT").arg(0).arg(TRIM_STEP);
        let found = self.store.command(partition, &command, 0).await?;
        let entries = List::of(found).and_then(read_list);
        let entries = entries.map_err(|error| self.store.damaged(partition, "chain", error))?;
        Ok(entries.into_iter().take_while(|entry| entry.at_ms < before_ms).collect())
    }

    /// No other snapshot has, or will have, this name.
    fn next_generation(&self, snapshot: &Snapshot) -> String {
        let number = self.snapshots.fetch_add(1, Ordering::Relaxed);
        format!("{}-{:016x}-{number}", snapshot.epoch, self.instance)
    }
}

fn read_head(found: Value) -> Result<Head, CodecError> {
    let mut found = List::of(found)?;
    let mut head = Head::default();
    if found.len() == 0 {
        return Ok(head);
    }
    head.tip = found.tip()?;
    head.offset = found.number()?.unwrap_or_default();
    head.oldest_previous = found.tip()?;
    let mut sources = found.list()?;
    while sources.len() > 0 {
        let (_, progress) = (sources.value()?, sources.bytes()?);
        add_progress(&mut head.applied, &progress.unwrap_or_default())?;
    }
    Ok(head)
}

fn read_entries(found: Value) -> Result<(Tip, Tip, Vec<Entry>), CodecError> {
    let mut found = List::of(found)?;
    Ok((found.tip()?, found.tip()?, read_list(found.list()?)?))
}

fn read_list(mut texts: List) -> Result<Vec<Entry>, CodecError> {
    (0..texts.len()).map(|_| Entry::parse(&texts.text()?)).collect()
}

/// `None` if one is not there.
fn read_chunks(entries: &[Entry], found: Value) -> Result<Option<Vec<Chunk>>, CodecError> {
    let mut found = List::of(found)?;
    let mut chunks = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(bytes) = found.bytes()? else { return Ok(None) };
        let chunk = Chunk::decode(&bytes)?;
        if Entry::of(&chunk) != *entry {
            return Err(CodecError::malformed("chunk", format!("{} is stored as {}", chunk.id, entry.id)));
        }
        chunks.push(chunk);
    }
    Ok(Some(chunks))
}

impl Kv for RedisKv {
    fn head(&self, partition: PartitionId) -> TierFuture<'_, Head> {
        self.head_now(partition).boxed()
    }

    fn append(&self, partition: PartitionId, append: Append) -> TierFuture<'_, ()> {
        self.append_now(partition, append).boxed()
    }

    fn chunks(&self, partition: PartitionId, after: Tip, max_bytes: usize) -> TierFuture<'_, ChunkRead> {
        self.chunks_now(partition, after, max_bytes).boxed()
    }

    fn put_snapshot(&self, partition: PartitionId, snapshot: Snapshot) -> TierFuture<'_, ()> {
        redis_snapshot::put(&self.store, partition, self.next_generation(&snapshot), snapshot).boxed()
    }

    fn snapshot(&self, partition: PartitionId) -> TierFuture<'_, Option<Snapshot>> {
        redis_snapshot::get(&self.store, partition).boxed()
    }

    fn trim(&self, partition: PartitionId, through: Tip, before_ms: i64) -> TierFuture<'_, ()> {
        self.trim_now(partition, through, before_ms).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back_and_anything_else_is_an_error() {
        let entry = Entry { id: Tip::new(7, u64::MAX), previous: Tip::default(), at_ms: -5, size: 1 << 40 };
        assert_eq!(Entry::parse(&entry.text()), Ok(entry.clone()));
        for text in ["", "1.1", &entry.text()[1..], &entry.text().replace("-5", "x")] {
            assert!(Entry::parse(text).is_err(), "{text}");
        }
    }
}
