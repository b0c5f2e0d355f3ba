//! What Kafka does to a message queue beyond being one: it is killed, stands still, forgets all, loses its topic, refuses.
//!
//! Invariant: what was acknowledged stands at its offset, what was not is said to be unknown, and no call waits for ever.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use holdfast::model::id::PartitionId;
use holdfast::model::units::{ByteSize, Millis};
use holdfast::mq::kafka::{KafkaMq, KafkaMqError, Settings};
use holdfast::mq::{Mq, Offset};
use holdfast::tier::TierError;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

use crate::services::is_there;
use crate::services::kafka::Kafka;
use crate::{P0, P1, PARTITIONS, batch, wait};

/// For an outage to be over, on a machine that does much else.
const SOON: Duration = Duration::from_secs(60);

fn settings(brokers: &str) -> Settings {
    static TOPICS: AtomicU32 = AtomicU32::new(0);
    Settings {
        brokers: vec![brokers.to_owned()],
        topic: format!("holdfast-{}", TOPICS.fetch_add(1, Ordering::Relaxed)),
        replication: 1,
        retention: Millis(86_400_000),
        batch_bytes: ByteSize(8 << 20),
        deadline: Millis(10_000),
        publish_deadline: Millis(20_000),
        publish_memory: ByteSize(32 << 20),
        linger: Millis(2),
        prefetch: ByteSize(1 << 20),
        fetch_bytes: ByteSize(8 << 20),
        idle_after: Millis(60_000),
        watch_interval: Millis(100),
        trim_interval: Millis(0),
        security: None,
    }
}

fn connect(settings: Settings) -> Result<KafkaMq, KafkaMqError> {
    wait(KafkaMq::connect(settings, PARTITIONS, Path::new(".")))
}

/// A log of its own for a suite; `None` where Kafka is not installed.
pub fn fresh() -> Option<Arc<dyn Mq>> {
    static SERVER: OnceLock<Kafka> = OnceLock::new();
    if !is_there("kafka", Kafka::installed()) {
        return None;
    }
    let server = SERVER.get_or_init(Kafka::start);
    Some(Arc::new(connect(settings(&server.url())).unwrap()))
}

/// A server that the test at hand may harm; the next one finds it whole.
fn harmed() -> Option<MutexGuard<'static, Option<Kafka>>> {
    static SERVER: Mutex<Option<Kafka>> = Mutex::new(None);
    let mut server = SERVER.lock().unwrap_or_else(|poisoned| {
        // What a failed test left is not to be trusted.
        SERVER.clear_poison();
        let mut server = poisoned.into_inner();
        *server = None;
        server
    });
    if server.is_none() {
        *server = Some(Kafka::start_if_there()?);
    }
    Some(server)
}

fn is_unavailable<T: std::fmt::Debug>(result: Result<T, TierError>) -> String {
    match result {
        Err(TierError::Unavailable { tier: "mq", reason }) => reason,
        other => panic!("{other:?}"),
    }
}

fn eventually<T>(what: &str, mut holds: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = holds() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The numbers of the batches from an offset on.
fn numbers(mq: &dyn Mq, from: Offset) -> Vec<(Offset, u64)> {
    let mut all = Vec::new();
    let (begun, mut next) = (Instant::now(), from);
    loop {
        let read = eventually("it is read", || match wait(mq.read(P0, next, 1 << 20)) {
            Ok(read) => Some(read),
            Err(error) => {
                println!("{:?}: {error}", begun.elapsed());
                None
            }
        });
        if read.batches.is_empty() && next >= read.end {
            return all;
        }
        for (offset, found) in read.batches {
            assert!(offset >= next, "{offset} after {next}");
            let number = found.header.span.from.0 as u64;
            assert_eq!(found, batch(number, found.body.len()), "what is read is what was published");
            all.push((offset, number));
            next = offset + 1;
        }
    }
}

#[test]
fn i2_batches_that_kafka_acknowledged_stand_in_order_whenever_it_is_killed() {
    let Some(mut guard) = harmed() else { return };
    let server = guard.as_mut().unwrap();
    let mq = Arc::new(connect(settings(&server.url())).unwrap());
    let (over, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let publisher = {
        let (mq, over, heard) = (mq.clone(), over.clone(), heard.clone());
        thread::spawn(move || {
            let (mut acknowledged, mut unknown, mut number) = (Vec::new(), 0, 0);
            while !over.load(Ordering::Relaxed) {
                let some: Vec<_> = (number..number + 20).map(|n| (n, mq.publish(P0, batch(n, 3_000)))).collect();
                number += 20;
                for (number, published) in some {
                    match wait(published) {
                        Ok(offset) => {
                            acknowledged.push((offset, number));
                            heard.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => {
                            assert!(error.is_retryable(), "{error}");
                            unknown += 1;
                        }
                    }
                }
            }
            (acknowledged, unknown)
        })
    };
    for _ in 0..2 {
        let before = heard.load(Ordering::Relaxed);
        eventually("batches are acknowledged", || (heard.load(Ordering::Relaxed) > before + 50).then_some(()));
        server.kill();
        thread::sleep(Duration::from_millis(300));
        server.start_again();
    }
    eventually("it is read again", || wait(mq.read(P0, 0, 1)).ok());
    eventually("it takes batches again", || wait(mq.publish(P1, batch(1, 10))).ok());
    over.store(true, Ordering::Relaxed);
    let (acknowledged, unknown) = publisher.join().unwrap();
    println!("{} acknowledged, {unknown} unknown", acknowledged.len());
    assert!(acknowledged.len() > 40, "{}", acknowledged.len());
    assert!(acknowledged.is_sorted(), "the order of calls is the order in the log");
    let log = numbers(&*mq, 0);
    assert!(log.iter().map(|(offset, _)| *offset).eq(0..log.len() as u64), "offsets are dense");
    for (offset, number) in &acknowledged {
        assert_eq!(log[*offset as usize], (*offset, *number));
    }
}

#[test]
fn a_kafka_that_stands_still_is_unavailable_after_the_deadlines_and_works_when_it_goes_on() {
    let Some(guard) = harmed() else { return };
    let server = guard.as_ref().unwrap();
    let (deadline, publish_deadline) = (Millis(1_000), Millis(1_500));
    let settings = Settings { deadline, publish_deadline, ..settings(&server.url()) };
    let mq = Arc::new(eventually("it is reached", || connect(settings.clone()).ok()));
    // On a busy machine one may be late, and published twice.
    for number in 0..5 {
        eventually("it is published", || wait(mq.publish(P0, batch(number, 100))).ok());
    }
    server.stop();
    let begun = Instant::now();
    let waiting = {
        let mq = mq.clone();
        thread::spawn(move || wait(mq.arrived(P0, 99)))
    };
    let under_way = mq.publish(P0, batch(5, 100));
    is_unavailable(wait(mq.read(P0, 0, 1)));
    is_unavailable(wait(mq.trim(P0, 3)));
    let reason = is_unavailable(wait(under_way));
    assert!(reason.contains("may still be"), "{reason}");
    is_unavailable(waiting.join().unwrap());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    server.cont();
    let read = eventually("it is read again", || wait(mq.read(P0, 0, usize::MAX)).ok());
    assert!(read.batches.len() >= 5);
    // The unknown one may be there.
    let offset = eventually("it takes batches again", || wait(mq.publish(P0, batch(6, 100))).ok());
    let log = numbers(&*mq, 0);
    assert!(log.contains(&(offset, 6)), "{log:?}");
    assert!(log.is_sorted_by_key(|(_, number)| *number), "{log:?}");
}

#[test]
fn a_kafka_that_comes_back_empty_shows_where_its_log_ends_and_begins_anew() {
    let Some(mut guard) = harmed() else { return };
    let server = guard.as_mut().unwrap();
    let quick = Settings { deadline: Millis(3_000), publish_deadline: Millis(10_000), ..settings(&server.url()) };
    let other = connect(quick.clone()).unwrap();
    let mq = connect(quick).unwrap();
    for number in 0..30 {
        assert_eq!(wait(mq.publish(P0, batch(number, 2_000))).unwrap(), number);
    }
    // Some of it is read ahead.
    assert_eq!(wait(mq.read(P0, 0, 5_000)).unwrap().batches.len(), 3);
    assert_eq!(wait(other.read(P0, 10, 5_000)).unwrap().batches.len(), 3);
    server.wipe();
    let read = eventually("it is read again", || wait(mq.read(P0, 3, usize::MAX)).ok());
    assert_eq!((read.batches.len(), read.low, read.end), (0, 0, 0), "nothing of before is given");
    for number in 100..120 {
        let offset = eventually("it takes batches again", || wait(mq.publish(P0, batch(number, 2_000))).ok());
        assert!(offset + 100 >= number, "{offset} {number}");
    }
    let log = numbers(&mq, 0);
    assert!(log.iter().all(|(_, number)| *number >= 100), "{log:?}");
    // The other one has known the old log for longer.
    let read = eventually("it is read again", || wait(other.read(P0, 13, usize::MAX)).ok());
    assert!(read.batches.iter().all(|(_, found)| found.header.span.from.0 >= 100), "{read:?}");
    assert_eq!(numbers(&other, 0), log);
    let offset = eventually("it takes batches again", || wait(other.publish(P0, batch(200, 10))).ok());
    assert!(numbers(&mq, 0).contains(&(offset, 200)));
}

/// An emptied Kafka gives its producers numbers from the beginning; who has one of before is taken for who got it now.
#[test]
fn i2_of_two_producers_that_an_emptied_kafka_takes_for_one_only_what_is_stored_is_acknowledged() {
    let Some(mut guard) = harmed() else { return };
    let server = guard.as_mut().unwrap();
    // Both are the first of their Kafka.
    server.wipe();
    let settings = settings(&server.url());
    let old = connect(settings.clone()).unwrap();
    assert_eq!(wait(old.publish(PartitionId(2), batch(0, 100))).unwrap(), 0);
    server.wipe();
    let new = connect(settings).unwrap();
    assert_eq!(wait(new.publish(P1, batch(1, 100))).unwrap(), 0);
    assert_eq!(eventually("it finds the new log", || wait(old.publish(P0, batch(10, 100))).ok()), 0);
    // The first batch of each in a partition where the other one's first stands.
    for (producer, partition) in [(&new, P0), (&old, P1)] {
        let reason = is_unavailable(wait(producer.publish(partition, batch(20, 100))));
        assert!(reason.contains("took the batch for another one"), "{reason}");
    }
    for producer in [&new, &old] {
        let offset = eventually("it publishes again", || wait(producer.publish(P0, batch(30, 100))).ok());
        assert!(numbers(&new, 0).contains(&(offset, 30)));
    }
    let log = numbers(&new, 0);
    assert_eq!(log[0], (0, 10));
    assert!(log.iter().all(|(_, number)| [10, 30].contains(number)), "{log:?}");
}

#[test]
fn a_batch_whose_acknowledgement_was_lost_is_published_once_and_acknowledged() {
    let Some(guard) = harmed() else { return };
    let server = guard.as_ref().unwrap();
    // The shorter one ends a connection without an answer; then the batch goes over another one.
    let mq = connect(Settings { deadline: Millis(1_000), publish_deadline: Millis(60_000), ..settings(&server.url()) });
    let mq = mq.unwrap();
    for number in 0..5 {
        assert_eq!(eventually("it is published", || wait(mq.publish(P0, batch(number, 100))).ok()), number);
    }
    server.stop();
    let under_way: Vec<_> = (5..10).map(|number| mq.publish(P0, batch(number, 100))).collect();
    thread::sleep(Duration::from_secs(3));
    server.cont();
    for (number, published) in (5..).zip(under_way) {
        assert_eq!(wait(published), Ok(number));
    }
    assert_eq!(numbers(&mq, 0), (0..10).map(|number| (number, number)).collect::<Vec<_>>());
}

#[test]
fn i2_a_kafka_whose_disk_is_full_is_unavailable_and_keeps_what_it_acknowledged() {
    let Some(mut guard) = harmed() else { return };
    let server = guard.as_mut().unwrap();
    let quick = Settings { publish_deadline: Millis(10_000), ..settings(&server.url()) };
    let mq = connect(quick).unwrap();
    eventually("it takes batches", || wait(mq.publish(P1, batch(0, 10))).ok());
    // Indexes have ten MiB from their beginning.
    server.limit_files(12 << 20);
    let mut acknowledged = Vec::new();
    let reason = loop {
        let number = acknowledged.len() as u64;
        match wait(mq.publish(P0, batch(number, 500_000))) {
            Ok(offset) => acknowledged.push((offset, number)),
            refused => break is_unavailable(refused),
        }
        assert!(number < 100, "it is never full");
    };
    println!("{} acknowledged, then: {reason}", acknowledged.len());
    assert!(acknowledged.len() > 15, "{}", acknowledged.len());
    // It ends when it cannot write.
    server.kill();
    server.start_again();
    let log = numbers(&mq, 0);
    assert!(log.starts_with(&acknowledged), "{log:?}");
    let offset = eventually("it takes batches again", || wait(mq.publish(P0, batch(200, 100))).ok());
    assert!(numbers(&mq, 0).contains(&(offset, 200)));
}

#[test]
fn a_topic_that_is_deleted_is_made_again_as_it_was() {
    let Some(guard) = harmed() else { return };
    let server = guard.as_ref().unwrap();
    let settings = Settings { deadline: Millis(3_000), publish_deadline: Millis(10_000), ..settings(&server.url()) };
    let mq = connect(settings.clone()).unwrap();
    for number in 0..10 {
        assert_eq!(wait(mq.publish(P0, batch(number, 100))).unwrap(), number);
    }
    // Nobody hears the answer once the client is gone.
    let admin = admin(&server.url());
    wait(admin.delete_topics(&[settings.topic.as_str()], &AdminOptions::new())).unwrap();
    let read = eventually("its end is seen", || wait(mq.read(P0, 10, 1)).ok().filter(|read| read.end < 10));
    assert_eq!(read.batches.len(), 0);
    eventually("it takes batches again", || wait(mq.publish(P1, batch(50, 100))).ok());
    assert!(wait(mq.read(P1, 0, 1)).unwrap().end >= 1);
    // Kafka would have made up one with a single partition.
    connect(settings).unwrap();
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

#[test]
fn a_topic_that_does_not_fit_is_refused_with_what_to_change() {
    let Some(guard) = harmed() else { return };
    let server = guard.as_ref().unwrap();
    type Case<'a> = (i32, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 5] = [
        (3, &[], "name another [tiers.mq] topic"),
        (4, &[("retention.ms", "3600000")], "retention.ms=86400000"),
        (4, &[("message.timestamp.type", "LogAppendTime")], "message.timestamp.type=CreateTime"),
        (4, &[("cleanup.policy", "compact")], "cleanup.policy=delete"),
        (4, &[("max.message.bytes", "100000")], "max.message.bytes=8388608"),
    ];
    for (partitions, keys, told) in cases {
        let settings = settings(&server.url());
        let topic = NewTopic::new(&settings.topic, partitions, TopicReplication::Fixed(1));
        let topic = keys.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        wait(admin(&server.url()).create_topics([&topic], &AdminOptions::new())).unwrap()[0].as_ref().unwrap();
        let error = connect(settings).err().expect("it is refused");
        assert!(!error.is_retryable() && error.to_string().contains(told), "{error}");
    }
    let error = connect(Settings { replication: 3, ..settings(&server.url()) }).err().expect("there is one broker");
    assert!(error.to_string().contains("lower [tiers.mq] replication"), "{error}");
}

#[test]
fn a_kafka_that_is_not_there_is_said_to_be_unreachable_within_the_deadline() {
    let brokers = format!("127.0.0.1:{}", crate::services::free_port());
    let begun = Instant::now();
    let error = connect(Settings { deadline: Millis(1_000), ..settings(&brokers) }).err().expect("nobody is there");
    assert!(error.is_retryable() && error.to_string().contains(&brokers), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_batch_that_is_too_large_is_refused_for_good_and_says_what_to_change() {
    let Some(guard) = harmed() else { return };
    let server = guard.as_ref().unwrap();
    let mq = connect(Settings { batch_bytes: ByteSize(100 << 10), ..settings(&server.url()) }).unwrap();
    let error = wait(mq.publish(P0, batch(0, 100 << 10))).unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("raise it together with"), "{error}");
    let largest = (100 << 10) - 800;
    assert_eq!(wait(mq.publish(P0, batch(1, largest))).unwrap(), 0, "the next one is published");
    assert_eq!(wait(mq.read(P0, 0, 0)).unwrap().batches, [(0, batch(1, largest))]);
}

#[test]
fn i6_batches_beyond_the_memory_for_them_are_refused_at_once_and_their_order_is_kept() {
    let Some(guard) = harmed() else { return };
    let server = guard.as_ref().unwrap();
    let mq = connect(Settings { publish_memory: ByteSize(8 << 20), ..settings(&server.url()) }).unwrap();
    server.stop();
    let begun = Instant::now();
    let published: Vec<_> = (0..100).map(|number| mq.publish(P0, batch(number, 200_000))).collect();
    assert!(begun.elapsed() < Duration::from_secs(5), "publishing waits for nobody: {:?}", begun.elapsed());
    let held = mq.usage().memory_bytes;
    assert!((7 << 20..=8 << 20).contains(&held), "{held}");
    server.cont();
    let results: Vec<_> = published.into_iter().map(wait).collect();
    let taken = results.iter().take_while(|result| result.is_ok()).count();
    assert!((30..=42).contains(&taken), "{taken}");
    for refused in results.into_iter().skip(taken) {
        assert!(is_unavailable(refused).contains("publish_memory"));
    }
    assert_eq!(numbers(&mq, 0), (0..taken as u64).map(|n| (n, n)).collect::<Vec<_>>());
    assert_eq!(mq.usage().memory_bytes, 0);
}

#[test]
fn a_log_is_read_in_sequence_and_from_anywhere_by_many_at_once() {
    let Some(guard) = harmed() else { return };
    let server = guard.as_ref().unwrap();
    let mq = Arc::new(connect(settings(&server.url())).unwrap());
    let count = 3_000;
    let begun = Instant::now();
    let published: Vec<_> = (0..count).map(|number| mq.publish(P0, batch(number, 8_000))).collect();
    for (offset, published) in (0..).zip(published) {
        assert_eq!(wait(published).unwrap(), offset);
    }
    let (written, mut next, mut reads) = (begun.elapsed(), 0, 0);
    let begun = Instant::now();
    while next < count {
        let read = wait(mq.read(P0, next, 1 << 20)).unwrap();
        assert_eq!((read.batches[0].0, read.end), (next, count));
        next += read.batches.len() as u64;
        reads += 1;
    }
    println!("{count} batches of 8 kB: written in {written:?}, read in {:?} by {reads} reads", begun.elapsed());
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let mq = mq.clone();
            thread::spawn(move || {
                for step in 0..10 {
                    let from = (reader * 977 + step * 331) % (count - 20);
                    let read = wait(mq.read(P0, from, 50_000)).unwrap();
                    let offsets: Vec<_> = read.batches.iter().map(|(offset, _)| *offset).collect();
                    assert_eq!(offsets, (from..from + 7).collect::<Vec<_>>());
                }
            })
        })
        .collect();
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}
