//! The four memory tiers, called synchronously, with what can befall them.
//!
//! Invariant: a call is carried out at one moment, wholly or not at all; what a fault takes away is told to the checkers.

use std::future::Future;

use futures::FutureExt;
use holdfast::cache::memory::MemoryCache;
use holdfast::gate::{admission, lane};
use holdfast::hot::memory::MemoryHot;
use holdfast::kv::memory::MemoryKv;
use holdfast::kv::{ChunkRead, Head, Kv};
use holdfast::model::batch::Chunk;
use holdfast::model::id::{PartitionId, Tip};
use holdfast::mq::memory::MemoryMq;
use holdfast::mq::{Mq, MqRead};
use holdfast::query::blocks::Origin;
use holdfast::slave::exchange::{self, SinkName};
use holdfast::tier::{Sink, SinkQuery, SinkRead, SinkStanding, TierError};

use crate::calls::{Call, Reply, TIERS, Tier, What};
use crate::shop::PARTITIONS;

pub struct Tiers {
    pub mq: MemoryMq,
    pub kv: MemoryKv,
    pub hot: MemoryHot,
    pub cache: MemoryCache,
    up: [bool; 4],
    /// How many times as long as usual a call takes.
    pub slowness: [i64; 4],
    /// Grows with each crash; what was on its way to the tier before is lost.
    pub lives: [u32; 4],
    read_bytes: usize,
    kv_read_bytes: usize,
}

/// Memory tiers answer at once.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a memory tier answers at once")
}

impl Tiers {
    pub fn new(cache_bytes: usize, read_bytes: usize, kv_read_bytes: usize) -> Self {
        Self {
            mq: MemoryMq::new(PARTITIONS),
            kv: MemoryKv::new(PARTITIONS),
            hot: MemoryHot::new(PARTITIONS),
            cache: MemoryCache::new(PARTITIONS, cache_bytes),
            up: [true; 4],
            slowness: [1; 4],
            lives: [0; 4],
            read_bytes,
            kv_read_bytes,
        }
    }

    pub fn is_up(&self, tier: Tier) -> bool {
        self.up[tier as usize]
    }

    /// A crash: what was under way to the tier is lost.
    pub fn set_up(&mut self, tier: Tier, up: bool) {
        self.up[tier as usize] = up;
        self.lives[tier as usize] += u32::from(!up);
        match tier {
            Tier::Mq => self.mq.set_up(up),
            Tier::Kv => self.kv.set_up(up),
            Tier::Hot => self.hot.set_up(up),
            Tier::Cache => self.cache.set_up(up),
        }
    }

    pub fn heal(&mut self) {
        for tier in TIERS {
            if !self.is_up(tier) {
                self.set_up(tier, true);
            }
        }
        self.slowness = [1; 4];
    }

    /// What an observer sees who is never cut off.
    pub fn peek<T>(&self, tier: Tier, look: impl FnOnce(&Self) -> T) -> T {
        let up = |up| match tier {
            Tier::Mq => self.mq.set_up(up),
            Tier::Kv => self.kv.set_up(up),
            Tier::Hot => self.hot.set_up(up),
            Tier::Cache => self.cache.set_up(up),
        };
        up(true);
        let seen = look(self);
        up(self.is_up(tier));
        seen
    }

    pub fn head(&self, partition: PartitionId) -> Head {
        self.peek(Tier::Kv, |tiers| now(tiers.kv.head(partition)).expect("kv is looked at while it is up"))
    }

    /// All chunks that kv holds.
    pub fn chunks(&self, partition: PartitionId) -> Vec<Chunk> {
        let all = self.peek(Tier::Kv, |tiers| now(tiers.kv.chunks(partition, Tip::default(), usize::MAX)));
        match all.expect("kv is looked at while it is up") {
            ChunkRead::Next(chunks) => chunks,
            ChunkRead::Broken => Vec::new(),
        }
    }

    pub fn mq_end(&self, partition: PartitionId) -> MqRead {
        self.peek(Tier::Mq, |tiers| now(tiers.mq.read(partition, u64::MAX, 0)).expect("mq is looked at while it is up"))
    }

    pub fn sink(&self, name: SinkName) -> &dyn Sink {
        match name {
            SinkName::Hot => &self.hot,
            SinkName::Cache => &self.cache,
        }
    }

    pub fn standing(&self, name: SinkName, partition: PartitionId) -> SinkStanding {
        let tier = crate::calls::sink_tier(name);
        self.peek(tier, |tiers| now(tiers.sink(name).standing(partition)).expect("a sink is looked at while it is up"))
    }

    pub fn read_sink(&self, name: SinkName, partition: PartitionId, asked: SinkQuery) -> SinkRead {
        let tier = crate::calls::sink_tier(name);
        let read = |tiers: &Self| now(tiers.sink(name).read(partition, asked)).expect("a sink is read while it is up");
        self.peek(tier, read)
    }

    /// Carries a call out. `None`: it waits for something to arrive in mq.
    pub fn execute(&mut self, call: Call) -> Option<Reply> {
        let partition = call.partition;
        let gate = |input| Reply::Gate(lane::Input::Admission(input));
        Some(match call.what {
            What::ReadHead => gate(admission::Input::Head(now(self.kv.head(partition)))),
            What::ReadMq { from } => gate(admission::Input::Mq(now(self.mq.read(partition, from, self.read_bytes)))),
            What::AwaitMq { from } => match now(self.mq.read(partition, from, 1)) {
                Err(error) => gate(admission::Input::Arrived(Err(error))),
                Ok(read) if read.end > from => gate(admission::Input::Arrived(Ok(()))),
                Ok(_) => return None,
            },
            What::Probe { at_ms, from } => {
                gate(admission::Input::Probed { at_ms, read: now(self.mq.read(partition, from, 1)) })
            }
            What::Append(append) => gate(admission::Input::Appended(now(self.kv.append(partition, append)))),
            What::Publish(ticket, batch) => {
                Reply::Gate(lane::Input::Published(ticket, now(self.mq.publish(partition, batch))))
            }
            What::TrimMq { before } => ignore(now(self.mq.trim(partition, before))),
            What::ReadSnapshot => Reply::Slave(exchange::Input::SnapshotRead(now(self.kv.snapshot(partition)))),
            What::LookAtHead => Reply::Slave(exchange::Input::HeadRead(now(self.kv.head(partition)))),
            What::ReadChunks { after } => {
                let read = now(self.kv.chunks(partition, after, self.kv_read_bytes));
                Reply::Slave(exchange::Input::ChunksRead(read))
            }
            What::AskStanding(name) => {
                Reply::Slave(exchange::Input::Standing(name, now(self.sink(name).standing(partition))))
            }
            What::Write(name, write) => {
                Reply::Slave(exchange::Input::Written(name, now(self.sink(name).write(partition, write))))
            }
            What::PutSnapshot(snapshot) => {
                Reply::Slave(exchange::Input::SnapshotPut(now(self.kv.put_snapshot(partition, snapshot))))
            }
            What::TrimKv { through, before_ms } => ignore(now(self.kv.trim(partition, through, before_ms))),
            What::ReadSink { query, origin, asked } => {
                let name = if origin == Origin::Hot { SinkName::Hot } else { SinkName::Cache };
                Reply::Query(query, now(self.sink(name).read(partition, asked)))
            }
            What::Capture(span, batch) => Reply::Capture(partition, span, now(self.mq.publish(partition, batch))),
        })
    }
}

/// Production asks for it again later.
fn ignore(_: Result<(), TierError>) -> Reply {
    Reply::Nothing
}
