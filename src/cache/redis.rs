//! The cache tier in Redis or a Redis Cluster, which may let go of any key at any time.
//!
//! Invariant: what Redis let go of shows. A group of blocks that the place names and that is not there was evicted or has
//! expired, and what is put into it later stands beside a mark of the loss; a place of which any key is gone is untouched again.
//! Until an owner's claim: what is older than its record's `base` is gone, so that its loss does not matter any more.
//!
//! | key, after `PREFIX:{partition}:` | value |
//! |---|---|
//! | `place` | hash: `tip`, `record`, how many `sources` and `days`; `floor`: up to this day forgotten, `floor_newest`: what was there |
//! | `sources` | hash: source (bincode) → progress announced |
//! | `days` | hash: `TABLE:DAY` → newest version ever put, and newest version lost |
//! | `blocks:TABLE:DAY` | hash: partition key → block; expires when the day is not kept any more |
//!
//! A whole day of a table is one key, so that a query over all merchants reads few keys, and Redis forgets old days as wholes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use ::redis::Value;
use bytes::Bytes;
use futures::FutureExt;
use tokio::time::timeout;

use super::redis_read::{Asked, Found};
use crate::clock::Clock;
use crate::model::applied::Applied;
use crate::model::block::{BlockKey, Day, MetricTableId};
use crate::model::codec::{self, CodecError};
use crate::model::id::{Key, PartitionId, Tip};
use crate::place::SinkPlace;
use crate::redis_reply::{List, add_progress, parse_tip, progress_value, source_field, text, tip_text};
use crate::redis_store::{Call, Lua, RedisError, RedisStore, Settings};
use crate::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError, TierFuture, TierUsage, check_chain};

const TIER: &str = "cache";
const DAY_SECONDS: i64 = 86_400;
/// A day is kept somewhat longer, for the cluster's time zone may be any.
const GRACE_DAYS: i64 = 2;
/// So far into the future a day may be, so that Redis can say when it ends.
const LONGEST_SECONDS: i64 = 3_660 * DAY_SECONDS;
/// Repetitions of a read of several pieces between which the owner wrote.
const TRIES: usize = 5;

static WRITE: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("redis_place.lua"), include_str!("redis_write.lua"))));
static READ: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("redis_place.lua"), include_str!("redis_read.lua"))));
static STANDING: LazyLock<Lua> =
    LazyLock::new(|| Lua::new(concat!(include_str!("redis_place.lua"), include_str!("redis_standing.lua"))));

/// The cache tier in Redis.
pub struct RedisCache {
    store: RedisStore,
    keep_days: u16,
    clock: Clock,
}

/// The blocks of a table and day that a write changes.
#[derive(Default)]
struct Group {
    newest: Tip,
    put: Vec<(Bytes, Bytes)>,
    remove: Vec<Bytes>,
}

impl RedisCache {
    /// Without reaching a server: calls fail until one that fits is there. Connections live on the runtime that this is
    /// called in. `keep_days`: blocks of older days are let go, whatever room there is. Relative files in `settings` start at
    /// `folder`.
    pub fn new(settings: &Settings, keep_days: u16, folder: &Path, clock: Clock) -> Result<Self, RedisError> {
        Ok(Self { store: RedisStore::new(TIER, settings, false, folder)?, keep_days, clock })
    }

    /// And looks whether the servers fit.
    pub async fn connect(
        settings: &Settings,
        keep_days: u16,
        partitions: u16,
        (folder, clock): (&Path, Clock),
    ) -> Result<Self, RedisError> {
        let cache = Self::new(settings, keep_days, folder, clock)?;
        cache.store.check(partitions).await?;
        Ok(cache)
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
        ["place", "sources", "days"].map(|name| self.store.key(partition, name)).into()
    }

    fn damaged(&self, partition: PartitionId, error: CodecError) -> TierError {
        self.store.damaged(partition, "place", error)
    }

    /// Where a partition stands, with what is announced of `sources`, or of all if none are named.
    async fn standing_of(&self, partition: PartitionId, sources: Vec<Bytes>) -> Result<SinkStanding, TierError> {
        let call = Call { script: &STANDING, keys: self.place(partition), args: sources };
        let found = self.store.eval(partition, call).await?;
        read_standing(found).map_err(|error| self.damaged(partition, error))
    }

    async fn write_now(&self, partition: PartitionId, write: SinkWrite) -> Result<(), TierError> {
        let mut place = SinkPlace { tip: write.expect, ..SinkPlace::default() };
        if !write.announce.is_empty() {
            // Merged here. If the tip is still this one when the script runs, so is what was announced.
            let sources = write.announce.iter().map(|(source, _)| source_field(source)).collect();
            let SinkStanding { tip, announced } = self.standing_of(partition, sources).await?;
            (place.tip, place.announced) = (tip, announced);
        }
        place.check(TIER, &write)?;
        let announce = place.announce(&write.announce);
        let (expect, tip) = (write.expect, write.tip);
        let today = self.clock.now_ms().div_euclid(DAY_SECONDS * 1_000);
        let kept = today - i64::from(self.keep_days) - GRACE_DAYS;
        let mut keys = self.place(partition);
        let mut args: Vec<Bytes> = vec![
            tip_text(expect).into(),
            tip_text(tip).into(),
            write.record.as_ref().map_or_else(Bytes::new, |record| codec::encode(record).into()),
            kept.to_string().into(),
            announce.len().to_string().into(),
            write.forget.len().to_string().into(),
        ];
        for (source, progress) in &announce {
            args.extend([source_field(source), progress_value(source, progress)]);
        }
        args.extend(write.forget.iter().map(source_field));
        for ((table, day), group) in groups(write) {
            keys.push(self.group_key(partition, table, day));
            let live =
                (i64::from(day) - kept) * DAY_SECONDS - self.clock.now_ms().div_euclid(1_000).rem_euclid(DAY_SECONDS);
            let numbers = [live.clamp(-1, LONGEST_SECONDS), group.put.len() as i64, group.remove.len() as i64];
            args.extend([day_field(table, day).into(), tip_text(group.newest).into()]);
            args.extend(numbers.map(|number| Bytes::from(number.to_string())));
            args.extend(group.put.into_iter().flat_map(|(key, block)| [key, block]));
            args.extend(group.remove);
        }
        let refused = self.store.eval(partition, Call { script: &WRITE, keys, args }).await?;
        let found = text(refused).map_err(|error| self.damaged(partition, error))?;
        match found.is_empty() {
            true => Ok(()),
            false => {
                let found = parse_tip(&found).map_err(|error| self.damaged(partition, error))?;
                check_chain(TIER, found, expect, tip)
            }
        }
    }

    fn group_key(&self, partition: PartitionId, table: MetricTableId, day: Day) -> String {
        self.store.key(partition, &format!("blocks:{}", day_field(table, day)))
    }

    async fn read_now(&self, partition: PartitionId, query: &SinkQuery) -> Result<SinkRead, TierError> {
        let mut record = None;
        for _ in 0..TRIES {
            let mut found = self.read_pieces(partition, query).await?;
            if found.is_one_moment {
                return Ok(found.finish(&query.days));
            }
            record = found.take_record();
        }
        // The owner writes faster than so much can be read.
        Ok(SinkRead { record: record.map(Arc::new), blocks: Vec::new(), incomplete: true })
    }

    /// Most reads are one piece. If there are more, the place must not have moved between them.
    async fn read_pieces(&self, partition: PartitionId, query: &SinkQuery) -> Result<Found, TierError> {
        let asked = Asked::new(query);
        let mut found = Found::default();
        let mut from = i64::from(*query.days.start());
        loop {
            let prefix = self.store.key(partition, "blocks:");
            let args = asked.args(prefix, from);
            let call = Call { script: &READ, keys: self.place(partition), args };
            let piece = self.store.eval(partition, call).await?;
            let rest = found.add(&asked, piece).map_err(|error| self.store.damaged(partition, "blocks", error))?;
            match rest {
                Some(rest) if found.is_one_moment => from = rest,
                _ => return Ok(found),
            }
        }
    }
}

/// A field of `days`, and the end of the group's key. The scripts know its form.
pub fn day_field(table: MetricTableId, day: Day) -> String {
    format!("{:016x}:{day}", table.0)
}

fn groups(write: SinkWrite) -> BTreeMap<(MetricTableId, Day), Group> {
    let mut groups: BTreeMap<_, Group> = BTreeMap::new();
    for (BlockKey { table, day, key }, block) in write.blocks {
        let group = groups.entry((table, day)).or_default();
        group.newest = group.newest.max(block.version);
        group.put.push((key_field(&key), block.encode().into()));
    }
    for BlockKey { table, day, key } in &write.remove {
        groups.entry((*table, *day)).or_default().remove.push(key_field(key));
    }
    groups
}

fn key_field(key: &Key) -> Bytes {
    key.as_bytes().clone()
}

fn read_standing(found: Value) -> Result<SinkStanding, CodecError> {
    let mut found = List::of(found)?;
    let tip = found.tip()?;
    let mut announced = Applied::default();
    let mut sources = found.list()?;
    while sources.len() > 0 {
        if let Some(progress) = sources.bytes()? {
            add_progress(&mut announced, &progress)?;
        }
    }
    Ok(SinkStanding { tip, announced })
}

impl Sink for RedisCache {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        self.standing_of(partition, Vec::new()).boxed()
    }

    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()> {
        self.write_now(partition, write).boxed()
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        async move {
            let limit = self.store.long_deadline();
            let late = |_| self.store.unavailable(format!("a read took longer than {} ms", limit.as_millis()));
            timeout(limit, self.read_now(partition, &query)).await.map_err(late)?
        }
        .boxed()
    }
}
