//! The cache tier in Redis: the suite of all sinks, and that whatever Redis lets go of shows.
//!
//! Invariant: see `holdfast::cache::redis`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdfast::cache::redis::RedisCache;
use holdfast::clock::Clock;
use holdfast::model::applied::Applied;
use holdfast::model::block::{BlockKey, StoredBlock};
use holdfast::model::id::Tip;
use holdfast::model::quality::Record;
use holdfast::redis_store::Settings;
use holdfast::tier::{Sink, SinkRead, SinkStanding, SinkWrite, TierError};

use crate::redis_faults::{is_unavailable, settings};
use crate::services::eventually;
use crate::services::redis::{Redis, RedisCluster};
use crate::sink::{block, key, query, read, record, suite};
use crate::{P0, PARTITIONS, source, span, tip, wait};

const SOON: Duration = Duration::from_secs(20);
const KEEP_DAYS: u16 = 30;
const DAY_MS: i64 = 86_400_000;

fn connect(settings: &Settings, clock: Clock) -> RedisCache {
    wait(RedisCache::connect(settings, KEEP_DAYS, PARTITIONS, (Path::new("."), clock))).unwrap()
}

/// Its days are those just after 1970.
fn one(server: &Redis) -> RedisCache {
    connect(&settings(&[server.url()]), Clock::manual(0))
}

fn fresh(urls: &[String]) -> Arc<dyn Sink> {
    static PREFIXES: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("cache{}", PREFIXES.fetch_add(1, Ordering::Relaxed));
    Arc::new(connect(&Settings { prefix, ..settings(urls) }, Clock::manual(0)))
}

#[test]
fn a_redis_server_is_a_sink() {
    let Some(server) = Redis::start_if_there() else { return };
    suite(&|| fresh(&[server.url()]));
}

#[test]
fn a_redis_cluster_is_a_sink() {
    let Some(cluster) = RedisCluster::start_if_there() else { return };
    suite(&|| fresh(&cluster.urls()));
}

/// An owner, and what it has written.
struct Owner<'a> {
    cache: &'a RedisCache,
    at: Tip,
    base: Tip,
    blocks: BTreeMap<BlockKey, StoredBlock>,
}

impl<'a> Owner<'a> {
    fn new(cache: &'a RedisCache) -> Self {
        Self { cache, at: Tip::default(), base: Tip::default(), blocks: BTreeMap::new() }
    }

    fn try_write(&mut self, put: &[(BlockKey, usize)], remove: &[BlockKey]) -> Result<(), TierError> {
        let version = tip(self.at.epoch.max(1), self.at.number + 1);
        let blocks: Vec<_> = put.iter().map(|(key, bytes)| (key.clone(), block(version, *bytes))).collect();
        let mut said = Applied::default();
        said.add(&source(), span(0, u128::from(version.number)), 0);
        let write = SinkWrite {
            expect: self.at,
            tip: version,
            announce: said.delta([&source()]),
            forget: vec![],
            blocks: blocks.clone(),
            remove: remove.to_vec(),
            record: Some(Record { base: self.base, ..record(version) }),
        };
        wait(self.cache.write(P0, write))?;
        self.at = version;
        self.blocks.extend(blocks);
        remove.iter().for_each(|key| drop(self.blocks.remove(key)));
        Ok(())
    }

    fn write(&mut self, put: &[(BlockKey, usize)], remove: &[BlockKey]) {
        self.try_write(put, remove).unwrap();
    }

    /// A new owner that knows some of it says that again; the rest is gone.
    fn claim(&mut self, epoch: u64, known: &[(BlockKey, usize)]) {
        (self.base, self.blocks) = (tip(epoch, 1), BTreeMap::new());
        let blocks: Vec<_> = known.iter().map(|(key, bytes)| (key.clone(), block(self.base, *bytes))).collect();
        let record = Some(Record { base: self.base, ..record(self.base) });
        let write = SinkWrite { tip: self.base, blocks: blocks.clone(), record, ..SinkWrite::default() };
        loop {
            let expect = wait(self.cache.standing(P0)).unwrap().tip;
            match wait(self.cache.write(P0, SinkWrite { expect, ..write.clone() })) {
                Ok(()) => break,
                // Evicted again.
                Err(error) => assert!(matches!(error, TierError::Moved { .. }), "{error}"),
            }
        }
        self.blocks.extend(blocks);
        self.at = self.base;
    }

    /// A read is right, or says that it may not be; gives whether it is right. Nothing vouches for one without a record.
    fn check(&self, keys: Option<&[i64]>, (from, to): (i32, i32)) -> bool {
        let found = read(self.cache, keys, from..=to);
        if found.record.is_none() {
            assert!(found.blocks.is_empty());
            return false;
        }
        let asked = query(keys, from..=to);
        let is_wanted = |key: &BlockKey| {
            asked.days.contains(&key.day) && asked.keys.as_ref().is_none_or(|keys| keys.contains(&key.key))
        };
        let wanted = self.blocks.iter().filter(|(key, _)| is_wanted(key));
        let wanted: Vec<_> = wanted.map(|(key, block)| (key.clone(), block.clone())).collect();
        match found.incomplete {
            false => assert_eq!(found.blocks, wanted, "{keys:?} {from} {to}"),
            true => assert!(found.blocks.iter().all(|pair| wanted.contains(pair)), "{keys:?} {from} {to}"),
        }
        !found.incomplete
    }
}

fn group(day: i32) -> String {
    format!("hf:{{0}}:blocks:{:016x}:{day}", 7)
}

#[test]
fn i1_an_evicted_day_is_incomplete_until_an_owner_has_said_everything_again() {
    let Some(server) = Redis::start_if_there() else { return };
    let cache = one(&server);
    let mut owner = Owner::new(&cache);
    owner.write(&[(key(1, 1), 10), (key(1, 2), 10), (key(2, 1), 10)], &[]);
    assert!(owner.check(None, (0, 9)));
    server.cli(&["del", &group(1)]);
    assert!(!owner.check(None, (0, 9)) && !owner.check(Some(&[2]), (1, 1)) && !owner.check(Some(&[77]), (1, 1)));
    assert!(owner.check(None, (2, 9)) && owner.check(Some(&[1, 2]), (2, 2)), "other days lack nothing");
    // What is put into it later is there; what was there before is not known.
    owner.write(&[(key(1, 1), 20)], &[]);
    assert!(owner.check(Some(&[1]), (1, 1)) && !owner.check(Some(&[1, 2]), (1, 1)) && !owner.check(None, (1, 1)));
    // Removals do not make it known either.
    owner.write(&[], &[key(1, 1)]);
    assert!(!owner.check(Some(&[2]), (1, 1)));
    owner.claim(2, &[(key(1, 2), 30)]);
    assert!(owner.check(None, (0, 9)) && owner.check(Some(&[1, 2]), (0, 9)));
    assert_eq!(read(&cache, None, 0..=9).blocks.len(), 1, "the rest was older than the claim");
    server.cli(&["del", &group(1)]);
    assert!(!owner.check(None, (0, 9)), "that was lost after the claim");
    owner.claim(3, &[]);
    assert!(owner.check(None, (0, 9)), "what is gone needs not be found");
}

#[test]
fn i1_a_place_of_which_anything_was_evicted_is_untouched_again() {
    let Some(server) = Redis::start_if_there() else { return };
    for name in ["place", "sources", "days"] {
        let cache = connect(&Settings { prefix: name.into(), ..settings(&[server.url()]) }, Clock::manual(0));
        let mut owner = Owner::new(&cache);
        owner.write(&[(key(1, 1), 10), (key(2, 1), 10)], &[]);
        server.cli(&["del", &format!("{name}:{{0}}:{name}")]);
        assert_eq!(wait(cache.standing(P0)).unwrap(), SinkStanding::default(), "without {name}");
        assert_eq!(read(&cache, None, 0..=9), SinkRead::default(), "without {name}");
        let lost = owner.try_write(&[(key(1, 2), 10)], &[]);
        assert_eq!(lost, Err(TierError::Moved { tier: "cache", found: Tip::default() }));
        // Blocks of before, whose versions are even newer, do not come back.
        owner.claim(1, &[(key(1, 7), 10)]);
        assert!(owner.check(None, (0, 9)) && owner.check(Some(&[1]), (0, 9)));
        assert_eq!(wait(cache.standing(P0)).unwrap().announced, Applied::default());
    }
}

#[test]
fn days_that_are_not_kept_expire_and_say_so() {
    let Some(server) = Redis::start_if_there() else { return };
    let clock = Clock::manual(0);
    let cache = connect(&settings(&[server.url()]), clock.clone());
    let mut owner = Owner::new(&cache);
    owner.write(&[(key(0, 1), 10), (key(40, 1), 10), (key(-100, 1), 10)], &[]);
    let seconds = |day| server.cli(&["ttl", &group(day)]).parse::<i64>().unwrap();
    assert!((32 * 86_400 - 60..=32 * 86_400).contains(&seconds(0)), "{}", seconds(0));
    assert!(seconds(40) > seconds(0));
    assert_eq!(seconds(-100), -2, "it was old already");
    assert!(!owner.check(None, (-100, -100)) && owner.check(None, (0, 99)));
    // Weeks later: the server has let the old days expire, and their names are forgotten with the next new day.
    clock.advance(60 * DAY_MS);
    server.cli(&["del", &group(0)]);
    owner.write(&[(key(60, 1), 10)], &[]);
    let days = server.cli(&["hkeys", "hf:{0}:days"]);
    assert_eq!(days.lines().count(), 2, "{days}");
    assert!(!owner.check(None, (-100, 0)) && !owner.check(Some(&[1]), (0, 60)), "the old days are not known");
    assert!(owner.check(None, (1, 99)), "days after those are");
    owner.write(&[(key(-5, 3), 10)], &[]);
    assert!(!owner.check(None, (-5, -5)));
    // An old day that is never named by the place is not empty, as long as no owner has said so.
    owner.claim(2, &[(key(60, 1), 10)]);
    assert!(owner.check(None, (i32::MIN, i32::MAX)));
}

/// Everything that can be evicted is, at random, and days come back in parts.
#[test]
fn i1_whatever_is_evicted_a_read_is_right_or_incomplete() {
    let Some(server) = Redis::start_if_there() else { return };
    let cache = one(&server);
    let mut owner = Owner::new(&cache);
    // xorshift64: no more randomness is needed.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |most: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % most
    };
    let (mut right, mut incomplete, mut epoch) = (0, 0, 1);
    for _ in 0..600 {
        let (day, number) = (random(5) as i32, random(6) as i64);
        match random(20) {
            0..9 => drop(owner.try_write(&[(key(day, number), random(300) as usize)], &[])),
            9 | 10 => drop(owner.try_write(&[], &[key(day, number)])),
            11 | 12 => drop(server.cli(&["del", &group(day)])),
            13 if random(4) == 0 => {
                let name = ["place", "sources", "days"][random(3) as usize];
                server.cli(&["del", &format!("hf:{{0}}:{name}")]);
                epoch += 1;
                owner.claim(epoch, &[(key(day, number), 5)]);
            }
            14 if random(3) == 0 => {
                epoch += 1;
                owner.claim(epoch, &[(key(day, number), 5), (key(day, 9), 5)]);
            }
            _ => {}
        }
        let days = (random(5) as i32, random(6) as i32);
        let is_right = [owner.check(None, days), owner.check(Some(&[number, 1]), (day, day))];
        right += is_right.iter().filter(|it| **it).count();
        incomplete += is_right.iter().filter(|it| !**it).count();
    }
    assert!(right > 200 && incomplete > 100, "{right} {incomplete}");
}

#[test]
fn i6_a_full_cache_forgets_and_says_so() {
    for policy in ["volatile-lru", "allkeys-lru"] {
        let Some(server) = Redis::start_if_there() else { return };
        server.cli(&["config", "set", "maxmemory-policy", policy]);
        let cache = one(&server);
        let mut owner = Owner::new(&cache);
        let most = server.info("used_memory").parse::<u64>().unwrap() + (4 << 20);
        server.cli(&["config", "set", "maxmemory", &most.to_string()]);
        let (mut lost, mut epoch) = (0, 1);
        for day in 0..120 {
            let blocks: Vec<_> = (0..20).map(|number| (key(day, number), 5_000)).collect();
            if owner.try_write(&blocks, &[]).is_err() {
                // The place itself was evicted: everything is said again, in so far as anybody needs it.
                epoch += 1;
                owner.claim(epoch, &blocks);
            }
            owner.check(None, (0, 120));
            lost += u64::from(!owner.check(Some(&[3]), (0, day)));
        }
        // A place that was lost shows by itself.
        assert!(lost + epoch > 11, "{policy}: {lost} {epoch}");
        assert!(server.info("used_memory").parse::<u64>().unwrap() < most + (1 << 20));
        assert_ne!(server.info("evicted_keys"), "0");
        if policy == "volatile-lru" {
            assert_eq!(epoch, 1, "places have no time to live, and stay");
        }
    }
}

#[test]
fn a_cache_that_must_not_forget_refuses_writes_wholly_when_it_is_full() {
    let Some(server) = Redis::start_if_there() else { return };
    let cache = one(&server);
    let mut owner = Owner::new(&cache);
    owner.write(&[(key(1, 1), 10), (key(2, 1), 10)], &[]);
    server.cli(&["config", "set", "maxmemory", "1"]);
    let before = (wait(cache.standing(P0)).unwrap(), read(&cache, None, 0..=9));
    let reason = is_unavailable(owner.try_write(&[(key(1, 2), 10)], &[key(2, 1)]), "cache");
    assert!(reason.contains("maxmemory"), "{reason}");
    assert_eq!((wait(cache.standing(P0)).unwrap(), read(&cache, None, 0..=9)), before);
    server.cli(&["config", "set", "maxmemory", "0"]);
    owner.write(&[(key(1, 2), 10)], &[key(2, 1)]);
    assert!(owner.check(None, (0, 9)));
}

#[test]
fn a_restart_without_data_and_a_stop_show() {
    let Some(mut server) = Redis::start_if_there() else { return };
    let cache = one(&server);
    let mut owner = Owner::new(&cache);
    owner.write(&[(key(1, 1), 10)], &[]);
    server.stop();
    is_unavailable(wait(cache.read(P0, query(None, 0..=9))), "cache");
    is_unavailable(owner.try_write(&[(key(1, 2), 10)], &[]), "cache");
    server.cont();
    eventually("it answers again", SOON, || wait(cache.standing(P0)).is_ok());
    // The write announces after asking where the place stands, and the question was not answered in time.
    assert_eq!(wait(cache.standing(P0)).unwrap().tip, owner.at);
    server.kill();
    is_unavailable(wait(cache.standing(P0)), "cache");
    server.start_again();
    eventually("it is back", SOON, || wait(cache.standing(P0)).is_ok());
    assert!(owner.check(None, (0, 9)));
    server.wipe();
    eventually("it is back", SOON, || wait(cache.standing(P0)).is_ok());
    assert_eq!(read(&cache, None, 0..=9), SinkRead::default());
    let lost = owner.try_write(&[(key(1, 2), 10)], &[]);
    assert_eq!(lost, Err(TierError::Moved { tier: "cache", found: Tip::default() }));
    owner.claim(2, &[(key(1, 1), 10)]);
    assert!(owner.check(None, (0, 9)));
}

#[test]
fn a_read_of_more_than_one_piece_is_of_one_moment_or_incomplete() {
    let Some(server) = Redis::start_if_there() else { return };
    let cache = one(&server);
    let mut owner = Owner::new(&cache);
    for day in 0..12 {
        owner.write(&[(key(day, 1), 3 << 20)], &[]);
    }
    assert!(owner.check(None, (0, 20)) && owner.check(Some(&[1]), (0, 11)) && owner.check(None, (-9_000, 9_000)));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut whole = 0;
            while !done.load(Ordering::Acquire) {
                let found = read(&cache, None, 0..=20);
                let version = found.record.as_ref().unwrap().version;
                if !found.incomplete {
                    assert!(found.blocks.iter().all(|(key, block)| key.day != 0 || block.version == version));
                    assert_eq!(found.blocks.len(), 12);
                    whole += 1;
                }
            }
            whole
        });
        for pause in [0, 0, 0, 300, 300, 300] {
            let mut number = 0;
            while number < 10 {
                owner.write(&[(key(0, 1), 100)], &[]);
                number += 1;
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        done.store(true, Ordering::Release);
        assert!(reader.join().unwrap() > 0, "in a pause it is whole");
    });
}
