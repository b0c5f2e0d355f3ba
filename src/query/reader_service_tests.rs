//! Reads under every state that two sinks can be in (design §7).

use super::*;
use crate::model::block::{BlockKey, StoredBlock};
use crate::model::id::PartitionId;
use crate::query::blocks::Blocks;
use crate::query::fixture::{NOW_MS, PARTITIONS, World, record, row};
use crate::query::reading::ReadBlocks;
use crate::query::verdict::ServedBy;
use crate::tier::SinkWrite;

const ANY: Freshness = Freshness { max_age_ms: None, skip_cache: false };
const MERCHANT: i64 = 42;

fn partition() -> PartitionId {
    crate::model::id::partition_of_int(MERCHANT, PARTITIONS)
}

fn reader(world: &World, local_max_age_ms: u64) -> Reader {
    let mut settings = Settings::for_tests();
    settings.local_max_age.0 = local_max_age_ms;
    Reader {
        cache: world.cache.clone(),
        hot: world.hot.clone(),
        blocks: Blocks::new(&settings),
        clock: world.clock.clone(),
        settings,
    }
}

fn key(world: &World) -> ReadKey {
    ReadKey { table: world.table().id, partition: partition(), keys: None, days: i32::MIN..=i32::MAX }
}

/// Where it came from, how many blocks, whether there is a doubt.
fn shown(read: &PartitionRead) -> (Option<ServedBy>, usize, bool) {
    (read.evidence.served_by, read.block_count(), read.evidence.doubt.is_some())
}

#[actix_web::test]
async fn the_cache_answers_and_hot_where_the_cache_cannot() {
    let world = World::started().await;
    let rows = [row(1, MERCHANT, "a", 1, 100)];
    world.emit(&*world.hot, partition(), 1, &rows, Some(record(2, NOW_MS))).await;
    let (reader, key) = (reader(&world, 0), key(&world));
    // The cache's own record vouches for what the cache has: a moment ago, but exact as of then.
    assert_eq!(shown(&reader.read(key.clone(), ANY).await), (Some(ServedBy::Cache), 0, false));
    world.emit(&*world.cache, partition(), 1, &rows, Some(record(2, NOW_MS))).await;
    assert_eq!(shown(&reader.read(key.clone(), ANY).await), (Some(ServedBy::Cache), 1, false));
    world.cache.set_up(false);
    assert_eq!(shown(&reader.read(key.clone(), ANY).await), (Some(ServedBy::Hot), 1, false));
    world.hot.set_up(false);
    assert_eq!(shown(&reader.read(key.clone(), ANY).await), (None, 0, true));
    world.cache.set_up(true);
    assert_eq!(shown(&reader.read(key, ANY).await), (Some(ServedBy::Cache), 1, false));
}

#[actix_web::test]
async fn i1_blocks_of_an_emission_under_way_are_never_vouched_for() {
    let world = World::started().await;
    let rows = [row(1, MERCHANT, "a", 1, 100)];
    // Blocks of emission 2 are there, its record is not.
    world.emit(&*world.cache, partition(), 1, &rows, None).await;
    let (reader, key) = (reader(&world, 0), key(&world));
    // Hot still stands whole at emission 1: one sink's blocks with its own record.
    assert_eq!(shown(&reader.read(key.clone(), ANY).await), (Some(ServedBy::Hot), 0, false));
    world.emit(&*world.hot, partition(), 1, &rows, None).await;
    let read = reader.read(key.clone(), ANY).await;
    assert_eq!(shown(&read), (Some(ServedBy::Hot), 1, true));
    assert!(read.evidence.doubt.is_some_and(|doubt| doubt.contains("under way")));
    world.hot.set_up(false);
    assert_eq!(shown(&reader.read(key, ANY).await), (Some(ServedBy::Cache), 1, true));
}

#[actix_web::test]
async fn a_partition_without_a_record_is_not_known_yet() {
    let world = World::new(|_| {});
    let read = reader(&world, 0).read(key(&world), ANY).await;
    assert_eq!(shown(&read), (None, 0, true));
    assert!(read.evidence.doubt.is_some_and(|doubt| doubt.contains("no record")));
}

#[actix_web::test]
async fn i1_an_old_block_is_never_paired_with_a_new_record() {
    let world = World::started().await;
    let (reader, key) = (reader(&world, 100), key(&world));
    let emit = async |number, orders| {
        let rows = [row(1, MERCHANT, "a", orders, 100)];
        let as_of_ms = world.clock.now_ms();
        world.emit(&*world.cache, partition(), number, &rows, Some(record(number + 1, as_of_ms))).await;
    };
    let schema = world.table().schema.clone();
    let batches = |blocks: &[Arc<Decoded>]| blocks.iter().map(|block| block.block.rows.clone()).collect::<Vec<_>>();
    let rows_of = |read: &PartitionRead| match &read.blocks {
        ReadBlocks::Recent(recent) => batches(&recent.blocks),
        ReadBlocks::Stored { origin, blocks, .. } => {
            let decode = |(key, block): &(BlockKey, StoredBlock)| reader.blocks.rows(*origin, key, block, &schema);
            let rows: Vec<_> = blocks.iter().map(|block| decode(block).expect("rows")).collect();
            reader.remember(read, &rows);
            batches(&rows)
        }
    };
    emit(1, 1).await;
    let first = reader.read(key.clone(), ANY).await;
    let first_rows = rows_of(&first);
    emit(2, 2).await;
    let again = reader.read(key.clone(), ANY).await;
    assert_eq!(again.evidence.served_by, Some(ServedBy::Local));
    assert_eq!((again.evidence.record.clone(), rows_of(&again)), (first.evidence.record.clone(), first_rows.clone()));
    // A caller who wants it fresher than the record in memory gets a new read, and later everybody does.
    world.clock.advance(50);
    let fresh = Freshness { max_age_ms: Some(20), skip_cache: false };
    assert_eq!(reader.read(key.clone(), fresh).await.evidence.served_by, Some(ServedBy::Cache));
    world.clock.advance(51);
    let later = reader.read(key.clone(), ANY).await;
    assert_eq!(later.evidence.served_by, Some(ServedBy::Cache));
    assert_eq!(later.evidence.record.as_ref().map(|record| record.version.number), Some(3));
    assert_ne!(rows_of(&later), first_rows);
}

#[actix_web::test]
async fn a_stale_cache_is_compared_with_hot_and_the_newer_record_counts() {
    let world = World::started().await;
    world.clock.advance(5_000);
    let (reader, key) = (reader(&world, 0), key(&world));
    assert_eq!(shown(&reader.read(key.clone(), ANY).await).0, Some(ServedBy::Cache));
    world.emit(&*world.hot, partition(), 1, &[], Some(record(2, NOW_MS + 4_000))).await;
    assert_eq!(shown(&reader.read(key.clone(), ANY).await).0, Some(ServedBy::Hot));
    world.hot.set_up(false);
    let read = reader.read(key, ANY).await;
    assert_eq!(shown(&read), (Some(ServedBy::Cache), 0, false), "old is not wrong");
}

#[actix_web::test]
async fn a_version_seen_twice_with_other_rows_is_decoded_again() {
    let world = World::started().await;
    let (reader, table) = (reader(&world, 0), world.table());
    let block = |orders| {
        let rows = crate::query::fixture::blocks(&table, &[row(1, MERCHANT, "a", orders, 100)]);
        let (key, rows) = rows.into_iter().next().expect("one block");
        let bytes = crate::model::rows::encode_rows(&rows, crate::model::rows::Compression::Plain);
        let version = SinkWrite::default().tip;
        (key, StoredBlock { version, rows: bytes.into() }, rows)
    };
    for orders in [1, 2, 2, 1] {
        let (key, stored, rows) = block(orders);
        let decoded = reader.blocks.rows(Origin::Hot, &key, &stored, &table.schema).expect("rows");
        assert_eq!(decoded.block.rows, rows);
    }
}
