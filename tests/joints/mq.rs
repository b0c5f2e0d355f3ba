//! What every message queue does.
//!
//! Invariant: see `holdfast::mq`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;

use futures::task::noop_waker;
use holdfast::model::batch::Batch;
use holdfast::mq::embedded::EmbeddedMq;
use holdfast::mq::memory::MemoryMq;
use holdfast::mq::{Mq, Offset};
use holdfast::store::lender_service::Lent;
use holdfast::tier::TierError;
use tempfile::TempDir;

use crate::lent::{Loan, in_memory};
use crate::{CACHE_BYTES, P0, P1, PARTITIONS, batch, copy_dir, mq_kafka, wait};

fn embedded(dir: &TempDir) -> EmbeddedMq {
    EmbeddedMq::open(dir.path(), PARTITIONS, CACHE_BYTES).unwrap()
}

/// Without memory for a tail every read goes to the store.
fn embedded_without_tail(dir: &TempDir) -> EmbeddedMq {
    EmbeddedMq::open(dir.path(), PARTITIONS, 0).unwrap()
}

fn each(suite: impl Fn(Arc<dyn Mq>)) {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    suite(Arc::new(MemoryMq::new(PARTITIONS)));
    suite(Arc::new(embedded(&dir)));
    suite(Arc::new(embedded_without_tail(&other)));
    let third = TempDir::new().unwrap();
    for mq in [Arc::new(MemoryMq::new(PARTITIONS)) as Arc<dyn Mq>, Arc::new(embedded(&third))] {
        suite(Loan::of(Lent { mq, ..in_memory(PARTITIONS) }).mq());
    }
    if let Some(kafka) = mq_kafka::fresh() {
        suite(kafka);
    }
}

fn publish(mq: &dyn Mq, numbers: std::ops::Range<u64>) -> Vec<Offset> {
    // Called in order, awaited together.
    let published: Vec<_> = numbers.map(|number| mq.publish(P0, batch(number, 300))).collect();
    published.into_iter().map(|future| wait(future).unwrap()).collect()
}

fn read_all(mq: &dyn Mq, from: Offset) -> Vec<(Offset, Batch)> {
    let mut all = Vec::new();
    let mut next = from;
    loop {
        let read = wait(mq.read(P0, next, 1_000)).unwrap();
        let Some((last, _)) = read.batches.last() else {
            return all;
        };
        next = last + 1;
        all.extend(read.batches);
    }
}

#[test]
fn batches_are_read_back_unchanged_in_the_order_of_calls_at_dense_offsets() {
    each(|mq| {
        assert_eq!(publish(&*mq, 0..50), (0..50).collect::<Vec<_>>());
        assert_eq!(wait(mq.publish(P1, batch(99, 10))).unwrap(), 0, "each partition counts by itself");
        assert_eq!(read_all(&*mq, 0), (0..50).map(|number| (number, batch(number, 300))).collect::<Vec<_>>());
        assert_eq!(read_all(&*mq, 47).len(), 3);
        let read = wait(mq.read(P0, 50, 1_000)).unwrap();
        assert_eq!((read.batches.len(), read.low, read.end), (0, 0, 50));
        assert_eq!(wait(mq.read(P0, 70, 1_000)).unwrap().batches, []);
    });
}

#[test]
fn a_read_gives_at_least_one_batch_and_stops_at_its_limit() {
    each(|mq| {
        publish(&*mq, 0..10);
        let size = batch(0, 300).size();
        for (limit, expected) in [(0, 1), (1, 1), (size, 1), (size + 1, 2), (4 * size, 4), (usize::MAX, 10)] {
            assert_eq!(wait(mq.read(P0, 0, limit)).unwrap().batches.len(), expected, "limit {limit}");
        }
    });
}

#[test]
fn batches_of_any_size_are_kept() {
    each(|mq| {
        let sizes = [0, 1, 16_000, 16_384, 16_385, 32_768, 100_000, 3_000_000];
        for (number, bytes) in sizes.into_iter().enumerate() {
            wait(mq.publish(P0, batch(number as u64, bytes))).unwrap();
        }
        for (number, bytes) in sizes.into_iter().enumerate() {
            let read = wait(mq.read(P0, number as u64, 0)).unwrap();
            assert_eq!(read.batches, [(number as u64, batch(number as u64, bytes))], "{bytes} bytes");
        }
    });
}

#[test]
fn trimming_forgets_what_is_before_and_keeps_offsets() {
    each(|mq| {
        publish(&*mq, 0..200);
        wait(mq.trim(P0, 150)).unwrap();
        let read = wait(mq.read(P0, 0, 0)).unwrap();
        assert_eq!((read.batches[0].0, read.low, read.end), (150, 150, 200));
        wait(mq.trim(P0, 20)).unwrap();
        assert_eq!(wait(mq.read(P0, 0, 0)).unwrap().low, 150, "a log is not trimmed backwards");
        wait(mq.trim(P0, 1_000)).unwrap();
        let read = wait(mq.read(P0, 0, 1_000)).unwrap();
        assert_eq!((read.batches.len(), read.low, read.end), (0, 200, 200));
        assert_eq!(publish(&*mq, 200..201), [200]);
        assert_eq!(read_all(&*mq, 0).len(), 1);
    });
}

#[test]
fn who_waits_for_a_batch_wakes_when_it_is_readable() {
    each(|mq| {
        publish(&*mq, 0..1);
        wait(mq.arrived(P0, 0)).unwrap();
        let waker = noop_waker();
        let mut later = pin!(mq.arrived(P0, 2));
        assert_eq!(later.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
        publish(&*mq, 1..2);
        assert_eq!(later.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending, "not the one waited for");
        let publisher = Arc::clone(&mq);
        let thread = thread::spawn(move || publish(&*publisher, 2..3));
        wait(later).unwrap();
        assert_eq!(wait(mq.read(P0, 2, 0)).unwrap().batches.len(), 1);
        thread.join().unwrap();
    });
}

#[test]
fn a_batch_is_published_even_if_nobody_awaits_it() {
    each(|mq| {
        drop(mq.publish(P0, batch(0, 10)));
        wait(mq.arrived(P0, 0)).unwrap();
        assert_eq!(read_all(&*mq, 0), [(0, batch(0, 10))]);
    });
}

#[test]
fn many_threads_publish_and_read_at_once_without_loss() {
    each(|mq| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let mq = Arc::clone(&mq);
                thread::spawn(move || {
                    let futures: Vec<_> = (0..100).map(|n| mq.publish(P0, batch(writer * 1_000 + n, 2_000))).collect();
                    futures.into_iter().map(|future| wait(future).unwrap()).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut read = Vec::new();
        while read.len() < 400 {
            let from = read.len() as u64;
            wait(mq.arrived(P0, from)).unwrap();
            read.extend(wait(mq.read(P0, from, 50_000)).unwrap().batches);
        }
        for writer in writers {
            assert!(writer.join().unwrap().is_sorted(), "the order of one publisher's calls is kept");
        }
        let offsets: Vec<Offset> = read.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..400).collect::<Vec<_>>());
        let mut numbers: Vec<u128> = read.iter().map(|(_, batch)| batch.header.span.from.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 400);
    });
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_and_after_reopening() {
    let (dir, crashed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mq = embedded(&dir);
    publish(&mq, 0..100);
    wait(mq.publish(P0, batch(100, 50_000))).unwrap();
    wait(mq.trim(P0, 10)).unwrap();
    wait(mq.flush()).unwrap();
    // The files of a running store are what a crash leaves.
    copy_dir(dir.path(), crashed.path());
    drop(mq);
    for dir in [&dir, &crashed] {
        let mq = embedded(dir);
        let all = read_all(&mq, 0);
        assert_eq!(all.len(), 91);
        assert_eq!((&all[0], &all[90]), (&(10, batch(10, 300)), &(100, batch(100, 50_000))));
        wait(mq.arrived(P0, 100)).unwrap();
        assert_eq!(publish(&mq, 101..102), [101]);
    }
}

#[test]
fn a_log_that_was_trimmed_wholly_goes_on_at_its_offset_after_reopening() {
    let dir = TempDir::new().unwrap();
    let mq = embedded(&dir);
    publish(&mq, 0..70);
    wait(mq.trim(P0, 70)).unwrap();
    drop(mq);
    let mq = embedded(&dir);
    assert_eq!(wait(mq.read(P0, 0, 1)).unwrap().end, 70);
    assert_eq!(publish(&mq, 70..71), [70]);
    assert_eq!(read_all(&mq, 0), [(70, batch(70, 300))]);
}

#[test]
fn the_tail_in_memory_keeps_within_its_limit_and_what_left_it_is_still_read() {
    let dir = TempDir::new().unwrap();
    let mq = EmbeddedMq::open(dir.path(), PARTITIONS, 100_000).unwrap();
    publish(&mq, 0..1_000);
    assert!(mq.usage().memory_bytes <= 75_000, "{:?}", mq.usage());
    assert!(mq.usage().memory_bytes > 50_000, "{:?}", mq.usage());
    assert_eq!(read_all(&mq, 0).len(), 1_000);
}

#[test]
fn a_queue_that_is_down_says_so_and_may_come_back_without_its_last_batches() {
    let mq = MemoryMq::new(PARTITIONS);
    publish(&mq, 0..10);
    mq.set_up(false);
    assert!(matches!(wait(mq.publish(P0, batch(0, 1))), Err(TierError::Unavailable { tier: "mq", .. })));
    assert!(wait(mq.read(P0, 0, 1)).unwrap_err().is_retryable());
    assert!(wait(mq.arrived(P0, 99)).is_err());
    mq.set_up(true);
    mq.lose_last_writes(P0, 3);
    assert_eq!(wait(mq.read(P0, 0, 1)).unwrap().end, 7);
    mq.clear(P0);
    assert_eq!(wait(mq.read(P0, 0, 1)).unwrap().end, 0);
}
