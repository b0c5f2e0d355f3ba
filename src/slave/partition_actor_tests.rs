use std::time::Duration;

use actix::Addr;

use super::*;
use crate::cache::memory::MemoryCache;
use crate::hot::memory::MemoryHot;
use crate::kv::memory::MemoryKv;
use crate::kv::{Append, Kv};
use crate::model::applied::Applied;
use crate::model::batch::Chunk;
use crate::model::id::{SourceId, Tip};
use crate::model::position::{Position, Span};
use crate::net::message::PushBudget;
use crate::slave::sample::{self, Change};
use crate::slave::slave_actor::{Assign, Directory, ObserveAll, SlaveActor, SlaveParts, StopAll, Unassign};
use crate::tier::SinkQuery;

const PARTITION: PartitionId = PartitionId(0);

struct Tiers {
    kv: Arc<MemoryKv>,
    hot: Arc<MemoryHot>,
    cache: Arc<MemoryCache>,
    catalog: Arc<Catalog>,
    applied: Applied,
    changes: Vec<Change>,
}

impl Tiers {
    fn new() -> Self {
        Self {
            kv: Arc::new(MemoryKv::new(1)),
            hot: Arc::new(MemoryHot::new(1)),
            cache: Arc::new(MemoryCache::new(1, 1 << 20)),
            catalog: sample::catalog(),
            applied: Applied::default(),
            changes: Vec::new(),
        }
    }

    fn parts(&self) -> SlaveParts {
        SlaveParts {
            kv: self.kv.clone(),
            hot: self.hot.clone(),
            cache: self.cache.clone(),
            catalog: self.catalog.clone(),
            settings: Settings::for_tests(),
            clock: Clock::System,
            metrics: Metrics::default(),
        }
    }

    /// Appends as a gate does.
    async fn append(&mut self, changes: &[Change]) -> Chunk {
        let source = SourceId::push("orders", 1);
        let (from, head) = (self.changes.len() as u64, self.kv.head(PARTITION).await.expect("kv is up"));
        let mut batch = sample::batch(&self.catalog, &source, from, changes);
        batch.header.at_ms = Clock::System.now_ms();
        self.changes.extend_from_slice(changes);
        let span = Span::new(Position(from.into()), Position(self.changes.len() as u128));
        self.applied.add(&source, span, batch.header.at_ms);
        let id = Tip::new(1, head.tip.number + 1);
        let chunk = Chunk { id, previous: head.tip, at_ms: batch.header.at_ms, batches: vec![batch] };
        let applied = self.applied.delta([&source]);
        let append = Append { chunk: chunk.clone(), offset: id.number, applied, forget: Vec::new() };
        self.kv.append(PARTITION, append).await.expect("kv is up");
        chunk
    }

    /// Does the sink hold the truth of all changes, vouched for?
    async fn is_exact(&self, sink: &dyn Sink) -> bool {
        let mut blocks = Vec::new();
        for table in self.catalog.metric_tables() {
            let query = SinkQuery { table: table.id, keys: None, days: i32::MIN..=i32::MAX };
            let Ok(mut read) = sink.read(PARTITION, query).await else { return false };
            read.settle();
            if !read.is_vouched() || !read.record.as_ref().is_some_and(|record| record.is_complete()) {
                return false;
            }
            blocks.extend(read.blocks);
        }
        let found = sample::read(&self.catalog, blocks.iter().map(|(key, block)| (key, &block.rows)));
        found == sample::truth(&self.catalog, &self.changes)
    }

    async fn wait_until_exact(&self) {
        for _ in 0..2_000 {
            if self.is_exact(self.hot.as_ref()).await && self.is_exact(self.cache.as_ref()).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("not exact in time");
    }
}

fn pushed(chunk: Chunk) -> PushChunk {
    let hold = PushBudget::new(1).take(1).expect("nobody else has it");
    PushChunk { partition: PARTITION, chunk, hold }
}

fn changes(seed: u64) -> Vec<Change> {
    (0..20).map(|n| Change::arbitrary(xxhash_rust::xxh3::xxh3_64(&[seed as u8, n]))).collect()
}

#[actix_rt::test]
async fn pushed_chunks_reach_both_sinks_and_chunks_never_pushed_do_too() {
    let mut tiers = Tiers::new();
    let directory = Directory::default();
    let slave = SlaveActor::new(tiers.parts(), directory.clone()).start();
    slave.send(Assign { partition: PARTITION, epoch: 1 }).await.expect("it lives");
    for seed in 0..5 {
        let chunk = tiers.append(&changes(seed)).await;
        if seed != 2 {
            let route = directory.push_route(PARTITION)().expect("it lives");
            route.send(pushed(chunk)).await.expect("it lives");
        }
    }
    tiers.wait_until_exact().await;
    tiers.append(&changes(9)).await;
    tiers.wait_until_exact().await;
    let report = slave.send(ObserveAll).await.expect("it lives");
    let partition = &report.partitions[0];
    assert_eq!((partition.rows_applied, partition.gaps, report.restarting.len()), (120, 0, 0));
    assert_eq!(partition.hot.dirty_blocks, 0);
    serde_json::to_string(&report).expect("reports are shown as JSON");
}

#[actix_rt::test]
async fn a_sink_that_was_away_or_came_back_empty_gets_everything() {
    let mut tiers = Tiers::new();
    let directory = Directory::default();
    let slave = SlaveActor::new(tiers.parts(), directory.clone()).start();
    slave.send(Assign { partition: PARTITION, epoch: 1 }).await.expect("it lives");
    tiers.append(&changes(0)).await;
    tiers.wait_until_exact().await;
    tiers.hot.set_up(false);
    tiers.cache.clear(PARTITION);
    for seed in 1..4 {
        tiers.append(&changes(seed)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tiers.hot.set_up(true);
    tiers.wait_until_exact().await;
    tiers.hot.lose_last_writes(PARTITION, 2);
    tiers.append(&changes(4)).await;
    tiers.wait_until_exact().await;
}

#[actix_rt::test]
async fn a_stopped_partition_has_said_and_saved_all_and_the_next_owner_goes_on_from_there() {
    let mut tiers = Tiers::new();
    let directory = Directory::default();
    let slave = SlaveActor::new(tiers.parts(), directory.clone()).start();
    slave.send(Assign { partition: PARTITION, epoch: 1 }).await.expect("it lives");
    let chunk = tiers.append(&changes(0)).await;
    tiers.wait_until_exact().await;
    let next = tiers.append(&changes(1)).await;
    let route = directory.push_route(PARTITION)().expect("it lives");
    route.send(pushed(next.clone())).await.expect("it lives");
    slave.send(Unassign { partition: PARTITION, epoch: 1 }).await.expect("it lives");
    assert!(tiers.is_exact(tiers.hot.as_ref()).await && tiers.is_exact(tiers.cache.as_ref()).await);
    assert!(directory.push_route(PARTITION)().is_none());
    // Without the chunks, the state is all that is left.
    tiers.kv.trim(PARTITION, next.id, i64::MAX).await.expect("kv is up");
    assert_eq!(tiers.kv.head(PARTITION).await.map(|head| head.oldest_previous), Ok(next.id));
    assert!(chunk.id < next.id);
    slave.send(Assign { partition: PARTITION, epoch: 2 }).await.expect("it lives");
    tiers.append(&changes(2)).await;
    tiers.wait_until_exact().await;
    slave.send(StopAll).await.expect("it lives");
}

#[actix_rt::test]
async fn an_older_owner_is_fenced_and_the_newer_one_is_right() {
    let mut tiers = Tiers::new();
    let start = |epoch| -> Addr<PartitionActor> {
        let SlaveParts { kv, hot, cache, catalog, settings, clock, metrics } = tiers.parts();
        let parts = PartitionParts {
            partition: PARTITION,
            epoch,
            kv,
            hot,
            cache,
            catalog,
            settings,
            clock,
            metrics,
            thread: Arc::default(),
            reads: Arc::new(Semaphore::new(1)),
        };
        PartitionActor::new(parts).start()
    };
    let (old, new) = (start(1), start(2));
    for seed in 0..20 {
        let chunk = tiers.append(&changes(seed)).await;
        old.do_send(pushed(chunk.clone()));
        new.do_send(pushed(chunk));
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    tiers.wait_until_exact().await;
    let standings = [old.send(Observe).await, new.send(Observe).await].map(|report| report.expect("it lives").standing);
    assert!(matches!(standings, [Standing::Fenced { .. }, Standing::Counting]), "{standings:?}");
    old.send(Stop).await.expect("a fenced owner stops at once");
    new.send(Stop).await.expect("it lives");
}
