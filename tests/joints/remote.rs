//! What tiers of another process do beyond being tiers: they get lost and come back, and keep their order and their word.
//!
//! Invariant: see `holdfast::lending`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use holdfast::kv::memory::MemoryKv;
use holdfast::kv::remote::RemoteKv;
use holdfast::kv::{Append, ChunkRead, Head, Kv, Snapshot};
use holdfast::lending::answer::Answer;
use holdfast::lending::ask::{Ask, Question};
use holdfast::lending::items::{self, Opening, Publication, Settled};
use holdfast::lending::remote_sink::RemoteSink;
use holdfast::model::id::{PartitionId, Tip};
use holdfast::model::units::Millis;
use holdfast::mq::Mq;
use holdfast::mq::memory::MemoryMq;
use holdfast::net::link::{NetError, RefusalKind, StreamReader, StreamWriter};
use holdfast::net::service::STORE;
use holdfast::store::lender_service::Lent;
use holdfast::tier::{Sink, SinkWrite, TierError, TierFuture};
use tokio::sync::Semaphore;

use crate::lent::{Loan, config, in_memory};
use crate::sink::{block, key, query, record};
use crate::{P0, P1, PARTITIONS, batch, chunk, tip, wait};

const SOON: Duration = Duration::from_secs(20);

/// Waits until something holds.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_unavailable<T: std::fmt::Debug>(result: Result<T, TierError>, tier: &str) -> String {
    match result.unwrap_err() {
        TierError::Unavailable { tier: found, reason } if found == tier => reason,
        other => panic!("{other}"),
    }
}

fn appending(previous: Tip, id: Tip) -> Append {
    Append { chunk: chunk(previous, id, 1), offset: 1, applied: vec![], forget: vec![] }
}

#[test]
fn a_store_that_is_lost_is_unavailable_at_once_and_works_again_when_it_is_back() {
    let loan = Loan::of(in_memory(PARTITIONS));
    let (mq, store) = (loan.mq(), loan.store());
    let (kv, hot) = (RemoteKv::new(&store), RemoteSink::hot(&store));
    for round in 0..3u64 {
        assert_eq!(wait(mq.publish(P0, batch(round, 100))).unwrap(), round);
        let previous = if round == 0 { Tip::default() } else { tip(1, round) };
        wait(kv.append(P0, appending(previous, tip(1, round + 1)))).unwrap();
        let waiting = {
            let mq = mq.clone();
            thread::spawn(move || wait(mq.arrived(P0, 1_000)))
        };
        // The wait is one more stream.
        let streams = 2 * (round as usize + 1);
        eventually("the wait is there", || loan.counted.streams.load(Ordering::Relaxed) == streams);
        loan.take_down();
        let begun = Instant::now();
        is_unavailable(waiting.join().unwrap(), "mq");
        is_unavailable(wait(mq.publish(P0, batch(9, 100))), "mq");
        is_unavailable(wait(mq.read(P0, 0, 1)), "mq");
        is_unavailable(wait(mq.arrived(P0, 0)), "mq");
        is_unavailable(wait(kv.head(P0)), "kv");
        is_unavailable(wait(kv.snapshot(P0)), "kv");
        is_unavailable(wait(hot.standing(P0)), "hot");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        loan.bring_up();
        wait(mq.arrived(P0, round)).unwrap();
        assert_eq!(wait(kv.head(P0)).unwrap().tip, tip(1, round + 1));
    }
}

#[test]
fn without_a_store_every_call_says_so() {
    let (settings, body) = (config().tiers.remote, config().net.body);
    let store = holdfast::lending::remote_store::RemoteStore::new(Arc::new(|| None), settings, body);
    let reason = is_unavailable(wait(RemoteKv::new(&store).head(P0)), "kv");
    assert!(reason.contains("no store"), "{reason}");
}

/// Of each publisher's calls: those that mq has stand in their order, what was acknowledged stands at its offset, and
/// nothing stands twice, whatever breaks meanwhile.
#[test]
fn publications_keep_their_order_while_connections_break() {
    let inner = Arc::new(MemoryMq::new(PARTITIONS));
    let loan = Loan::of(Lent { mq: inner.clone(), ..in_memory(PARTITIONS) });
    let mq = loan.mq();
    const EACH: u64 = 600;
    let publishers: Vec<_> = (0..4u64)
        .map(|publisher| {
            let mq = mq.clone();
            thread::spawn(move || {
                let mut acknowledged = Vec::new();
                for step in 0..EACH / 20 {
                    let calls: Vec<_> = (0..20)
                        .map(|call| {
                            let number = publisher * EACH + step * 20 + call;
                            let bytes = if call == 7 { 300_000 } else { 2_000 };
                            (number, mq.publish(P0, batch(number, bytes)))
                        })
                        .collect();
                    for (number, published) in calls {
                        match wait(published) {
                            Ok(offset) => acknowledged.push((offset, number)),
                            Err(error) => assert!(error.is_retryable(), "{error}"),
                        }
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                acknowledged
            })
        })
        .collect();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(40));
        loan.take_down();
        loan.bring_up();
    }
    let acknowledged: Vec<_> = publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect();
    let all = wait(inner.read(P0, 0, usize::MAX)).unwrap().batches;
    let numbers: Vec<u64> = all.iter().map(|(_, batch)| batch.header.span.from.0 as u64).collect();
    for publisher in 0..4 {
        let own: Vec<u64> = numbers.iter().copied().filter(|number| number / EACH == publisher).collect();
        assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "of publisher {publisher}: {own:?}");
    }
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());
    for (offset, number) in acknowledged {
        assert_eq!(numbers[offset as usize], number);
    }
    for (offset, found) in &all {
        assert_eq!(found.body, batch(numbers[*offset as usize], found.body.len()).body);
    }
}

#[test]
fn hundreds_of_waits_take_one_stream_and_no_call() {
    const MANY: u16 = 600;
    let inner = Arc::new(MemoryMq::new(MANY));
    let loan = Loan::of(Lent { mq: inner.clone(), ..in_memory(MANY) });
    let mq = loan.mq();
    for round in 0..3 {
        let mut waits = futures::future::join_all((0..MANY).map(|id| mq.arrived(PartitionId(id), round)));
        assert!(wait(async { tokio::time::timeout(Duration::from_millis(50), &mut waits).await }).is_err());
        for id in 0..MANY {
            wait(inner.publish(PartitionId(id), batch(1, 10))).unwrap();
        }
        for result in wait(async { tokio::time::timeout(SOON, waits).await.unwrap() }) {
            result.unwrap();
        }
    }
    let counted = &loan.counted;
    assert_eq!((counted.calls.load(Ordering::Relaxed), counted.streams.load(Ordering::Relaxed)), (0, 1));
    inner.set_up(false);
    let reason = is_unavailable(wait(mq.arrived(P0, 99)), "mq");
    assert!(reason.contains("it is down"), "{reason}");
}

fn noise(bytes: usize) -> Bytes {
    (0..bytes).map(|index| (index * 31 + (index >> 8) * 7 + (index >> 16)) as u8).collect::<Vec<_>>().into()
}

#[test]
fn what_is_too_long_for_a_call_goes_all_the_same() {
    let loan = Loan::of(in_memory(PARTITIONS));
    let store = loan.store();
    let kv = RemoteKv::new(&store);
    let snapshot = Snapshot { epoch: 1, state: noise(40 << 20) };
    wait(kv.put_snapshot(P0, snapshot.clone())).unwrap();
    assert!(wait(kv.snapshot(P0)).unwrap() == Some(snapshot), "the snapshot is what it was");

    let mut append = appending(Tip::default(), tip(1, 1));
    append.chunk.batches[1].body = noise(20 << 20);
    wait(kv.append(P0, append.clone())).unwrap();
    let read = wait(kv.chunks(P0, Tip::default(), 1)).unwrap();
    assert!(read == ChunkRead::Next(vec![append.chunk]), "the chunk is what it was");

    for sink in [RemoteSink::hot(&store), RemoteSink::cache(&store)] {
        let mut blocks: Vec<_> = (0..2_000).map(|n| (key(1, n), block(tip(1, 1), 10_000))).collect();
        blocks.push((key(1, 5_000), block(tip(1, 1), 18 << 20)));
        let write = SinkWrite { tip: tip(1, 1), blocks, record: Some(record(tip(1, 1))), ..SinkWrite::default() };
        wait(sink.write(P0, write.clone())).unwrap();
        let read = wait(sink.read(P0, query(None, 0..=9))).unwrap();
        assert!(read.blocks == write.blocks && !read.incomplete, "the blocks are what they were");
        let late = wait(sink.write(P0, write)).unwrap_err();
        assert!(matches!(late, TierError::Moved { found, .. } if found == tip(1, 1)), "{late}");
    }

    let mq = loan.mq();
    let large = holdfast::model::batch::Batch { body: noise(24 << 20), ..batch(0, 0) };
    assert_eq!(wait(mq.publish(P0, large.clone())).unwrap(), 0);
    assert!(wait(mq.read(P0, 0, 1)).unwrap().batches == [(0, large)], "the batch is what it was");
}

/// A KV tier whose appends wait for a permit each.
struct SlowKv {
    inner: MemoryKv,
    gate: Semaphore,
    begun: Semaphore,
}

impl SlowKv {
    fn new() -> Arc<Self> {
        Arc::new(Self { inner: MemoryKv::new(PARTITIONS), gate: Semaphore::new(0), begun: Semaphore::new(0) })
    }
}

impl Kv for SlowKv {
    fn head(&self, partition: PartitionId) -> TierFuture<'_, Head> {
        self.inner.head(partition)
    }

    fn append(&self, partition: PartitionId, append: Append) -> TierFuture<'_, ()> {
        async move {
            self.begun.add_permits(1);
            self.gate.acquire().await.unwrap().forget();
            self.inner.append(partition, append).await
        }
        .boxed()
    }

    fn chunks(&self, partition: PartitionId, after: Tip, max_bytes: usize) -> TierFuture<'_, ChunkRead> {
        self.inner.chunks(partition, after, max_bytes)
    }

    fn put_snapshot(&self, partition: PartitionId, snapshot: Snapshot) -> TierFuture<'_, ()> {
        self.inner.put_snapshot(partition, snapshot)
    }

    fn snapshot(&self, partition: PartitionId) -> TierFuture<'_, Option<Snapshot>> {
        self.inner.snapshot(partition)
    }

    fn trim(&self, partition: PartitionId, through: Tip, before_ms: i64) -> TierFuture<'_, ()> {
        self.inner.trim(partition, through, before_ms)
    }
}

#[test]
fn what_was_begun_is_done_though_its_caller_is_gone() {
    for take_down in [false, true] {
        let slow = SlowKv::new();
        let loan = Loan::of(Lent { kv: slow.clone(), ..in_memory(PARTITIONS) });
        let kv = RemoteKv::new(&loan.store());
        let begun = async {
            let append = kv.append(P0, appending(Tip::default(), tip(1, 1)));
            let begun = slow.begun.acquire();
            futures::pin_mut!(append, begun);
            // The append is dropped as soon as kv has begun it.
            drop(futures::future::select(append, begun).await);
        };
        wait(async { tokio::time::timeout(SOON, begun).await }).unwrap();
        if take_down {
            loan.take_down();
        }
        thread::sleep(Duration::from_millis(50));
        slow.gate.add_permits(1);
        eventually("it is done", || wait(slow.inner.head(P0)).unwrap().tip == tip(1, 1));
    }
}

#[test]
fn a_tier_that_never_answers_is_unavailable_after_the_deadline_and_stops_no_other() {
    let mut config = config();
    config.tiers.remote.deadline = Millis(200);
    let slow = SlowKv::new();
    let loan = Loan::with(config, Lent { kv: slow, ..in_memory(PARTITIONS) });
    let kv = RemoteKv::new(&loan.store());
    let begun = Instant::now();
    is_unavailable(wait(kv.append(P0, appending(Tip::default(), tip(1, 1)))), "kv");
    assert!((200..2_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    wait(kv.head(P0)).unwrap();
}

#[test]
fn publications_beyond_the_memory_for_them_are_refused_at_once() {
    let mut config = config();
    config.tiers.remote.publish_memory = "1MiB".parse().unwrap();
    let loan = Loan::with(config, in_memory(PARTITIONS));
    let mq = loan.mq();
    let first = mq.publish(P0, batch(0, 2 << 20));
    let reason = is_unavailable(wait(mq.publish(P0, batch(1, 10))), "mq");
    assert!(reason.contains("too many"), "{reason}");
    wait(first).unwrap();
    assert_eq!(wait(mq.publish(P0, batch(1, 10))).unwrap(), 1, "the room is free again");
}

#[test]
fn more_calls_than_a_connection_takes_wait_for_their_turn() {
    let loan = Loan::of(in_memory(PARTITIONS));
    let kv = RemoteKv::new(&loan.store());
    wait(kv.append(P0, appending(Tip::default(), tip(1, 1)))).unwrap();
    let heads = wait(futures::future::join_all((0..3_000).map(|_| kv.head(P0))));
    assert!(heads.into_iter().all(|head| head.unwrap().tip == tip(1, 1)));
    let snapshots = wait(futures::future::join_all((0..300).map(|_| kv.snapshot(P0))));
    assert!(snapshots.into_iter().all(|snapshot| snapshot == Ok(None)));
}

#[test]
fn i6_what_is_no_question_is_refused_and_harms_nobody() {
    let loan = Loan::of(in_memory(PARTITIONS));
    let kv = RemoteKv::new(&loan.store());
    let call = |body: Bytes| wait(loan.link.call(STORE, body, SOON));
    let forward = Question { partition: PartitionId(PARTITIONS), most_answer: 0, ask: Ask::KvHead };
    for body in [Bytes::new(), noise(3), noise(100_000), forward.seal(vec![]).to_bytes()] {
        let refused = call(body).unwrap_err();
        let is_malformed = |kind| kind == RefusalKind::Malformed;
        assert!(matches!(&refused, NetError::Refused { refusal, .. } if is_malformed(refusal.kind)), "{refused}");
    }
    for opening in [
        noise(7),
        items::seal(&Opening::Ask { bytes: u64::MAX }),
        items::seal(&Opening::Ask { bytes: 3 }),
        items::seal(&Opening::Publish { instance: 1, session: 1 }),
        items::seal(&Opening::Watch),
    ] {
        let (mut writer, mut reader) = loan.link.open(STORE).unwrap();
        wait(async {
            writer.write(opening).await.unwrap();
            // The store may have broken it off already.
            let _ = writer.write(noise(50)).await;
            let ended = tokio::time::timeout(SOON, reader.read()).await.expect("the store ends it");
            assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
        });
    }
    wait(kv.append(P0, appending(Tip::default(), tip(1, 1)))).unwrap();
}

#[test]
fn a_snapshot_that_was_overtaken_by_a_later_one_is_not_put() {
    let loan = Loan::of(in_memory(PARTITIONS));
    let put = |partition, number, instance| {
        let state = Bytes::copy_from_slice(&[number as u8]);
        let ask = Ask::KvPutSnapshot { epoch: 1, bytes: 1, instance, number };
        let question = Question { partition, most_answer: 1 << 10, ask }.seal(vec![state]).to_bytes();
        let answer = wait(loan.link.call(STORE, question, SOON)).unwrap();
        matches!(Answer::open(answer).unwrap().0, Answer::Done)
    };
    assert!(put(P0, 5, 1));
    assert!(!put(P0, 4, 1) && !put(P0, 5, 1), "its writer has put a later one");
    assert!(put(P1, 4, 1), "that was another partition");
    assert!(put(P0, 2, 2), "numbers of another writer say nothing");
    let kv = RemoteKv::new(&loan.store());
    assert_eq!(wait(kv.snapshot(P0)).unwrap().unwrap().state[0], 2);
}

#[test]
fn publications_of_an_older_session_are_not_done_once_a_newer_one_has_begun() {
    let loan = Loan::of(in_memory(PARTITIONS));
    let open = |session| -> (StreamWriter, StreamReader) {
        let (mut writer, reader) = loan.link.open(STORE).unwrap();
        wait(writer.write(items::seal(&Opening::Publish { instance: 7, session }))).unwrap();
        (writer, reader)
    };
    let publish = |(writer, reader): &mut (StreamWriter, StreamReader), number| {
        let (item, _) = Publication::seal(number, P0, batch(number, 10));
        wait(async {
            // The store may have ended it.
            let _ = writer.write(item).await;
            let item = tokio::time::timeout(SOON, reader.read()).await.unwrap().ok().flatten()?;
            items::open::<Vec<Settled>>(&item).ok()?[0].1.clone().ok()
        })
    };
    let mut old = open(1);
    assert_eq!(publish(&mut old, 1), Some(0));
    let mut new = open(2);
    assert_eq!(publish(&mut new, 1), Some(1));
    assert_eq!(publish(&mut old, 2), None);
    assert_eq!(publish(&mut open(2), 1), None, "a session is begun once");
    assert_eq!(publish(&mut new, 2), Some(2));
}
