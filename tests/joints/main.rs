//! One behaviour suite per tier trait; every adapter has to pass the suite of its trait.
//!
//! Invariant: a suite knows the trait only. What an adapter alone can do (reopen, lose writes) is tested beside it.

#![allow(clippy::disallowed_methods, reason = "tests wait for real processes and threads")]

mod cache;
mod damage;
mod hot;
mod hot_mysql;
mod kv;
mod lent;
mod mq;
mod remote;
#[path = "../services/mod.rs"]
mod services;
mod sink;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast::model::batch::{Batch, BatchHeader, Chunk};
use holdfast::model::id::{PartitionId, SourceId, Tip};
use holdfast::model::position::{Position, Span};

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);
const PARTITIONS: u16 = 4;
const CACHE_BYTES: usize = 8 << 20;

/// Something to await in a test that has no runtime of its own; timers and connections are another thread's.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let _within = lent::runtime().enter();
    futures::executor::block_on(future)
}

fn span(from: u128, to: u128) -> Span {
    Span::new(Position(from), Position(to))
}

fn source() -> SourceId {
    SourceId::push("orders", 1)
}

/// A batch of `bytes` bytes that no other number has.
fn batch(number: u64, bytes: usize) -> Batch {
    let body: Vec<u8> = (0..bytes).map(|index| (index as u64 * 31 + number * 7 + (index as u64 >> 8)) as u8).collect();
    let header = BatchHeader {
        source: source(),
        span: span(u128::from(number), u128::from(number) + 1),
        table: Arc::from("orders"),
        schema: 7,
        rows: 1,
        weighted: false,
        positioned: false,
        at_ms: number as i64,
        hours: Some((1, 2)),
    };
    Batch { header, body: Bytes::from(body) }
}

fn chunk(previous: Tip, id: Tip, at_ms: i64) -> Chunk {
    Chunk { id, previous, at_ms, batches: vec![batch(id.number, 100), batch(id.number + 1, 20_000)] }
}

fn tip(epoch: u64, number: u64) -> Tip {
    Tip::new(epoch, number)
}

/// The store's files as they are, as a crash at this moment would leave them.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}
