//! The KV tier in Redis: the suite of all KV tiers, and what only a server of one's own can do: be killed, stopped, emptied,
//! filled, made a replica, and fail over to a node that lacks the last writes.
//!
//! Invariant: see `holdfast::kv::redis`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::kv::redis::RedisKv;
use holdfast::kv::{Append, ChunkRead, Head, Kv, Snapshot};
use holdfast::model::id::{PartitionId, Tip};
use holdfast::redis_store::{RedisError, Settings};
use holdfast::tier::TierError;

use crate::kv::{Writer, read_all, says_again, suite};
use crate::redis_faults::{DEADLINE, is_unavailable, settings};
use crate::services::redis::{Redis, RedisCluster};
use crate::services::{copy_folder, eventually};
use crate::{P0, P1, PARTITIONS, chunk, tip, wait};

const SOON: Duration = Duration::from_secs(20);

fn connect(settings: &Settings) -> RedisKv {
    wait(RedisKv::connect(settings, PARTITIONS, Path::new("."))).unwrap()
}

/// Each with keys of its own.
fn fresh(urls: &[String]) -> Arc<dyn Kv> {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("kv{}", PREFIXES.fetch_add(1, Ordering::Relaxed));
    Arc::new(connect(&Settings { prefix, ..settings(urls) }))
}

fn one(server: &Redis) -> RedisKv {
    connect(&settings(&[server.url()]))
}

#[test]
fn a_redis_server_is_a_kv_tier() {
    let Some(server) = Redis::start_if_there() else { return };
    suite(&|| fresh(&[server.url()]));
}

#[test]
fn a_redis_cluster_is_a_kv_tier() {
    let Some(cluster) = RedisCluster::start_if_there() else { return };
    suite(&|| fresh(&cluster.urls()));
    // Partitions are of several nodes.
    let kv = connect(&settings(&cluster.urls()));
    for number in 0..PARTITIONS {
        let append = Append { chunk: chunk(Tip::default(), tip(1, 1), 1), offset: 1, applied: vec![], forget: vec![] };
        wait(kv.append(PartitionId(number), append)).unwrap();
    }
    let holders: Vec<usize> = (0..PARTITIONS).map(|number| cluster.holder_of(number)).collect();
    assert!(holders.iter().any(|holder| *holder != holders[0]), "{holders:?}");
    assert!(wait(kv.usage()).unwrap().memory_bytes > 3 << 20);
    assert_eq!(wait(kv.store().servers()).unwrap().len(), 3);
}

#[test]
fn i5_a_cluster_that_fails_over_to_a_replica_without_the_last_writes_shows_it() {
    let Some(mut cluster) = RedisCluster::start_if_there() else { return };
    let kv = connect(&settings(&cluster.urls()));
    let mut writer = Writer::new();
    writer.append(&kv, 1, 5);
    let (primary, replica) = cluster.holders("x{0}");
    eventually("the replica has it all", SOON, || {
        cluster.nodes[primary].info("master_repl_offset") == cluster.nodes[replica].info("slave_repl_offset")
    });
    cluster.cut_off(replica);
    let kept = writer.head.clone();
    writer.append(&kv, 1, 2);
    cluster.nodes[primary].kill();
    let begun = Instant::now();
    is_unavailable(wait(kv.head(P0)), "kv");
    assert!(begun.elapsed() < DEADLINE * 2, "{:?}", begun.elapsed());
    eventually("the replica has taken over", SOON, || wait(kv.head(P0)).is_ok());
    says_again(&kv, &mut writer, kept);

    // The old primary comes back as a replica of the new one, with writes that nobody has; they are gone.
    cluster.nodes[primary].start_again();
    eventually("it is a replica now", SOON, || cluster.nodes[primary].info("role") == "slave");
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
}

#[test]
fn a_node_that_stops_in_silence_is_replaced_and_the_others_go_on() {
    let Some(cluster) = RedisCluster::start_if_there() else { return };
    let kv = connect(&settings(&cluster.urls()));
    let mut writer = Writer::new();
    writer.append(&kv, 1, 3);
    let (primary, replica) = cluster.holders("x{0}");
    eventually("the replica has it all", SOON, || {
        cluster.nodes[primary].info("master_repl_offset") == cluster.nodes[replica].info("slave_repl_offset")
    });
    let other = (1..PARTITIONS).find(|number| cluster.holder_of(*number) != primary);
    cluster.nodes[primary].stop();
    let other = PartitionId(other.expect("four partitions are not of one node"));
    is_unavailable(wait(kv.head(P0)), "kv");
    eventually("others answer", SOON, || wait(kv.head(other)).is_ok());
    // The connection to the stopped node still stands; a new one finds out who has its place.
    eventually("the replica has taken over", SOON, || wait(kv.head(P0)).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
    writer.append(&kv, 1, 2);
    cluster.nodes[primary].cont();
    eventually("the old primary has noticed", SOON, || cluster.nodes[primary].info("role") == "slave");
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
}

#[test]
fn a_killed_server_loses_nothing_that_it_acknowledged_and_an_emptied_one_shows_it() {
    let Some(mut server) = Redis::start_if_there() else { return };
    let kv = one(&server);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 3);
    let older = tempfile::TempDir::new().unwrap();
    server.kill();
    is_unavailable(wait(kv.head(P0)), "kv");
    copy_folder(&server.folder().join("data"), older.path());
    server.start_again();
    eventually("it is back", SOON, || wait(kv.head(P0)).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
    let kept = writer.head.clone();
    writer.append(&kv, 1, 4);
    assert_eq!(read_all(&kv, Tip::default()).unwrap().len(), 7);

    // An older copy of its files: the last writes are lost.
    server.kill();
    std::fs::remove_dir_all(server.folder().join("data")).unwrap();
    copy_folder(older.path(), &server.folder().join("data"));
    server.start_again();
    eventually("it is back", SOON, || wait(kv.head(P0)).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), kept);
    let next = writer.next(1);
    assert_eq!(wait(kv.append(P0, next)), Err(TierError::Moved { tier: "kv", found: kept.tip }));
    assert_eq!(read_all(&kv, tip(1, 7)), None, "a slave that counted what was lost reads all again");

    server.wipe();
    eventually("it is back", SOON, || wait(kv.head(P0)).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), Head::default());
    assert_eq!(wait(kv.snapshot(P0)).unwrap(), None);
    let next = writer.next(2);
    assert_eq!(wait(kv.append(P0, next)), Err(TierError::Moved { tier: "kv", found: Tip::default() }));
    Writer::new().append(&kv, 3, 2);
}

#[test]
fn a_stopped_server_costs_the_deadline_and_what_it_does_late_is_in_the_chain() {
    let Some(server) = Redis::start_if_there() else { return };
    let kv = one(&server);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 3);
    server.stop();
    let late = writer.next(1);
    let begun = Instant::now();
    is_unavailable(wait(kv.append(P0, late.clone())), "kv");
    is_unavailable(wait(kv.chunks(P0, Tip::default(), 1)), "kv");
    is_unavailable(wait(kv.trim(P0, tip(1, 1), i64::MAX)), "kv");
    is_unavailable(wait(kv.put_snapshot(P0, Snapshot { epoch: 1, state: Bytes::new() })), "kv");
    assert!(begun.elapsed() < DEADLINE * 6, "{:?}", begun.elapsed());
    server.cont();
    eventually("it answers again", SOON, || wait(kv.head(P0)).is_ok());
    std::thread::sleep(Duration::from_millis(200));
    // Whether the append was done shows by where the place stands, and it is not done twice.
    let head = wait(kv.head(P0)).unwrap();
    assert!([tip(1, 3), tip(1, 4)].contains(&head.tip), "{}", head.tip);
    let again = wait(kv.append(P0, late));
    assert_eq!(again.is_ok(), head.tip == tip(1, 3), "{again:?}");
    assert_eq!(wait(kv.head(P0)).unwrap().tip, tip(1, 4));
    assert_eq!(read_all(&kv, head.oldest_previous).unwrap().last().unwrap().id, tip(1, 4));
}

#[test]
fn a_slow_server_is_waited_for_within_the_deadline() {
    let Some(server) = Redis::start_if_there() else { return };
    let kv = one(&server);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 1);
    server.cli(&["client", "pause", "300", "all"]);
    let begun = Instant::now();
    writer.append(&kv, 1, 1);
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    server.cli(&["client", "pause", &(DEADLINE.as_millis() * 3).to_string(), "write"]);
    let next = writer.next(1);
    is_unavailable(wait(kv.append(P0, next)), "kv");
}

#[test]
fn i6_a_full_server_refuses_appends_wholly_and_trimming_makes_room() {
    let Some(server) = Redis::start_if_there() else { return };
    let kv = one(&server);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 40);
    wait(kv.put_snapshot(P0, Snapshot { epoch: 1, state: Bytes::from(vec![7; 50_000]) })).unwrap();
    let used: u64 = server.info("used_memory").parse().unwrap();
    server.cli(&["config", "set", "maxmemory", &(used - 200_000).to_string()]);
    let head = writer.head.clone();
    let next = writer.next(1);
    let reason = is_unavailable(wait(kv.append(P0, next.clone())), "kv");
    assert!(reason.contains("maxmemory"), "{reason}");
    is_unavailable(wait(kv.put_snapshot(P0, Snapshot { epoch: 1, state: Bytes::from(vec![8; 3 << 20]) })), "kv");
    assert_eq!(wait(kv.head(P0)).unwrap(), head, "nothing of it was done");
    assert_eq!(wait(kv.snapshot(P0)).unwrap().unwrap().state[0], 7);
    assert_eq!(read_all(&kv, Tip::default()).unwrap().len(), 40);
    wait(kv.trim(P0, tip(1, 38), i64::MAX)).unwrap();
    writer.head.oldest_previous = tip(1, 38);
    eventually("there is room", SOON, || wait(kv.append(P0, next.clone())).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
}

#[test]
fn a_server_whose_disk_is_full_takes_no_writes_until_there_is_room() {
    let Some(mut server) = Redis::start_if_there() else { return };
    let kv = one(&server);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 5);
    server.limit_files(Some(1 << 20));
    let (kept, next, reason) = loop {
        let kept = writer.head.clone();
        let next = writer.next(1);
        match wait(kv.append(P0, next.clone())) {
            Ok(()) => assert!(kept.tip.number < 1_000, "it is never full"),
            refused => break (kept, next, is_unavailable(refused, "kv")),
        }
    };
    assert!(reason.contains("MISCONF"), "{reason}");
    assert_eq!(wait(kv.head(P0)).unwrap(), kept, "it can be read");
    assert_eq!(read_all(&kv, Tip::default()).unwrap().len() as u64, kept.tip.number);
    server.limit_files(None);
    eventually("it takes writes again", SOON, || wait(kv.append(P0, next.clone())).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
    server.kill();
    server.start_again();
    eventually("it is back", SOON, || wait(kv.head(P0)).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head, "the log of its file is whole");
}

#[test]
fn a_server_that_takes_no_writes_is_unavailable_and_says_why() {
    let Some(server) = Redis::start_if_there() else { return };
    let kv = one(&server);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 2);
    let head = writer.head.clone();
    let next = writer.next(1);
    // Too few replicas.
    server.cli(&["config", "set", "min-replicas-to-write", "1"]);
    let reason = is_unavailable(wait(kv.append(P0, next.clone())), "kv");
    assert!(reason.contains("NOREPLICAS"), "{reason}");
    server.cli(&["config", "set", "min-replicas-to-write", "0"]);
    assert_eq!(wait(kv.head(P0)).unwrap(), head);
    // A replica itself.
    server.cli(&["replicaof", "127.0.0.1", "1"]);
    is_unavailable(wait(kv.append(P0, next.clone())), "kv");
    eventually("it is looked at again", SOON, || {
        is_unavailable(wait(kv.append(P0, next.clone())), "kv").contains("is a replica")
    });
    server.cli(&["replicaof", "no", "one"]);
    eventually("it takes writes again", SOON, || wait(kv.append(P0, next.clone())).is_ok());
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
}

#[test]
fn a_snapshot_is_replaced_in_one_step_and_leaves_nothing_behind() {
    let Some(server) = Redis::start_if_there() else { return };
    let kv = connect(&Settings { long_deadline: holdfast::model::units::Millis(3_000), ..settings(&[server.url()]) });
    let large = |byte: u8, bytes: usize| Snapshot { epoch: 1, state: Bytes::from(vec![byte; bytes]) };
    for (byte, bytes) in [(1, 9 << 20), (2, (3 << 20) + 1), (3, 5)] {
        wait(kv.put_snapshot(P0, large(byte, bytes))).unwrap();
        assert!(wait(kv.snapshot(P0)).unwrap() == Some(large(byte, bytes)));
    }
    let parts = || server.cli(&["--scan", "--pattern", "*:snapshot:*"]).lines().count();
    eventually("the parts of those before have gone", SOON, || parts() == 1);
    assert!(wait(kv.snapshot(P0)).unwrap() == Some(large(3, 5)), "and the last has stayed");
    // One that is torn is damaged, not something else; the next one heals it.
    let part = server.cli(&["--scan", "--pattern", "*:snapshot:*"]);
    server.cli(&["set", &part, "xxxxx"]);
    assert!(matches!(wait(kv.snapshot(P0)), Err(TierError::Damaged { tier: "kv", .. })));
    server.cli(&["del", &part]);
    assert!(matches!(wait(kv.snapshot(P0)), Err(TierError::Damaged { tier: "kv", .. })));
    wait(kv.put_snapshot(P0, large(4, 100))).unwrap();
    assert!(wait(kv.snapshot(P0)).unwrap() == Some(large(4, 100)));
}

#[test]
fn what_somebody_deleted_counts_as_lost_and_a_damaged_chunk_is_reported() {
    let Some(server) = Redis::start_if_there() else { return };
    for name in ["head", "sources", "chunks"] {
        let kv = connect(&Settings { prefix: name.into(), ..settings(&[server.url()]) });
        let mut writer = Writer::new();
        writer.append(&kv, 1, 5);
        server.cli(&["del", &format!("{name}:{{0}}:{name}")]);
        assert_eq!(wait(kv.head(P0)).unwrap(), Head::default(), "without {name}");
        assert_eq!(read_all(&kv, Tip::default()), Some(vec![]));
        assert_eq!(read_all(&kv, tip(1, 3)), None);
        let next = writer.next(1);
        assert_eq!(wait(kv.append(P0, next)), Err(TierError::Moved { tier: "kv", found: Tip::default() }));
        let mut writer = Writer::new();
        writer.append(&kv, 2, 2);
        assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
        assert_eq!(read_all(&kv, Tip::default()).unwrap().len(), 2);
    }
    let kv = one(&server);
    Writer::new().append(&kv, 1, 3);
    let key = server.cli(&["--scan", "--pattern", "hf:{0}:chunk:*.*2"]);
    server.cli(&["setrange", &key, "700", "oops"]);
    let read = wait(kv.chunks(P0, tip(1, 1), 1));
    assert!(matches!(read, Err(TierError::Damaged { tier: "kv", .. })), "{read:?}");
    server.cli(&["del", &key]);
    let read = wait(kv.chunks(P0, tip(1, 1), 1));
    assert!(matches!(read, Err(TierError::Damaged { tier: "kv", .. })), "{read:?}");
    assert!(matches!(wait(kv.chunks(P0, tip(1, 2), 1)), Ok(ChunkRead::Next(chunks)) if chunks.len() == 1));
}

#[test]
fn servers_that_do_not_fit_are_refused_with_what_to_change() {
    let Some(server) = Redis::start_if_there() else { return };
    let refused = |settings: &Settings, partitions| {
        let error = wait(RedisKv::connect(settings, partitions, Path::new("."))).err().expect("it is refused");
        (error.is_retryable(), error.to_string())
    };
    let mine = settings(&[server.url()]);
    drop(connect(&mine));
    let (retryable, reason) = refused(&mine, PARTITIONS * 2);
    assert!(!retryable && reason.contains("another prefix"), "{reason}");
    server.cli(&["config", "set", "maxmemory-policy", "allkeys-lru"]);
    let (retryable, reason) = refused(&mine, PARTITIONS);
    assert!(!retryable && reason.contains("maxmemory-policy noeviction"), "{reason}");
    server.cli(&["config", "set", "maxmemory-policy", "noeviction"]);
    let (_, reason) = refused(&settings(&[server.url(), server.url()]), PARTITIONS);
    assert!(reason.contains("cluster"), "{reason}");
    let (retryable, reason) = refused(&settings(&["redis://127.0.0.1:1".into()]), PARTITIONS);
    assert!(retryable && reason.contains("127.0.0.1:1"), "{reason}");
    for urls in [vec![], vec!["nonsense".to_owned()], vec!["http://127.0.0.1".to_owned()]] {
        let wrong = RedisKv::new(&settings(&urls), Path::new("."));
        assert!(matches!(wrong, Err(RedisError::Setting { key: "urls", .. })), "{urls:?}");
    }
    let braces = Settings { prefix: "a{b}".into(), ..mine };
    assert!(matches!(RedisKv::new(&braces, Path::new(".")), Err(RedisError::Setting { key: "prefix", .. })));
}

#[test]
fn partitions_do_not_touch_each_other() {
    let Some(server) = Redis::start_if_there() else { return };
    let kv = one(&server);
    let mut writer = Writer::new();
    writer.append(&kv, 1, 2);
    assert_eq!(wait(kv.head(P1)).unwrap(), Head::default());
    wait(kv.trim(P1, tip(9, 9), i64::MAX)).unwrap();
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
}
