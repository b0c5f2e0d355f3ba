//! What the tests of both tiers in Redis share, and who may speak with a server.
//!
//! Invariant: every wait for Redis ends with its deadline.

use std::path::Path;
use std::time::{Duration, Instant};

use holdfast::backoff::Backoff;
use holdfast::config::secret::Secret;
use holdfast::kv::Kv;
use holdfast::kv::redis::RedisKv;
use holdfast::model::units::Millis;
use holdfast::redis_store::{RedisError, RedisUrl, Settings};
use holdfast::tier::TierError;
use tempfile::TempDir;

use crate::kv::Writer;
use crate::services::eventually;
use crate::services::redis::Redis;
use crate::{P0, PARTITIONS, wait};

pub const DEADLINE: Duration = Duration::from_millis(1_500);

pub fn settings(urls: &[String]) -> Settings {
    Settings {
        urls: urls.iter().map(RedisUrl::new).collect(),
        user: None,
        password: None,
        authority: None,
        prefix: "hf".into(),
        connections: 2,
        connect_timeout: Millis(500),
        reconnect: Backoff { first: Millis(20), most: Millis(200) },
        deadline: Millis(DEADLINE.as_millis() as u64),
        long_deadline: Millis(20_000),
        calls_at_once: 64,
        long_at_once: 4,
    }
}

/// Gives the reason.
pub fn is_unavailable<T: std::fmt::Debug>(result: Result<T, TierError>, which: &str) -> String {
    match result {
        Err(TierError::Unavailable { tier, reason }) if tier == which => reason,
        other => panic!("{other:?}"),
    }
}

fn connect(settings: &Settings) -> Result<RedisKv, RedisError> {
    wait(RedisKv::connect(settings, PARTITIONS, Path::new(".")))
}

#[test]
fn a_user_with_a_password_is_let_in_and_nobody_else() {
    let Some(server) = Redis::start_if_there() else { return };
    // No more rights than the adapters need.
    let rights = ["~hf:*", "+@read", "+@write", "+@scripting", "+@connection", "+info"];
    server.cli(&[&["acl", "setuser", "holdfast", "on", ">let me in"], &rights[..]].concat());
    server.cli(&["acl", "setuser", "default", "off"]);
    let (user, password) = (Some("holdfast".to_owned()), Some(Secret::Text("let me in".into())));
    let known = Settings { user, password, ..settings(&[server.url()]) };
    let kv = connect(&known).unwrap();
    let mut writer = Writer::new();
    writer.append(&kv, 1, 3);
    wait(kv.trim(P0, writer.head.tip, i64::MAX)).unwrap();

    let wrong = Settings { password: Some(Secret::Text("wrong".into())), ..known.clone() };
    for stranger in [settings(&[server.url()]), wrong] {
        let error = connect(&stranger).err().expect("it is not let in").to_string();
        assert!(!error.contains("let me in"), "{error}");
    }
    let in_url = server.url().replace("redis://", "redis://holdfast:let%20me%20in@");
    connect(&settings(&[in_url])).unwrap();
    let elsewhere = connect(&Settings { prefix: "other".into(), ..known });
    assert!(elsewhere.is_err(), "its keys begin otherwise");
}

#[test]
fn with_tls_a_server_must_be_signed_by_the_authority() {
    if Redis::start_if_there().is_none() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    std::fs::write(path("cert.pem"), signed.cert.pem()).unwrap();
    std::fs::write(path("key.pem"), signed.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let stranger = TempDir::new().unwrap();
    std::fs::write(stranger.path().join("cert.pem"), other.cert.pem()).unwrap();
    let options = [
        format!("--tls-cert-file {}", path("cert.pem")),
        format!("--tls-key-file {}", path("key.pem")),
        format!("--tls-ca-cert-file {} --tls-auth-clients no", path("cert.pem")),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let home = folder.path().to_owned();
    let server = Redis::start_in(folder, &options);
    let url = server.url().replace("redis://", "rediss://");
    let safe = Settings { authority: Some("cert.pem".into()), ..settings(&[url]) };
    let kv = wait(RedisKv::connect(&safe, PARTITIONS, &home)).unwrap();
    let mut writer = Writer::new();
    writer.append(&kv, 1, 3);
    assert_eq!(wait(kv.head(P0)).unwrap(), writer.head);
    assert!(wait(RedisKv::connect(&safe, PARTITIONS, stranger.path())).is_err(), "signed by somebody else");
    let without = settings(&[server.url()]);
    assert!(connect(&without).is_err(), "the server speaks TLS only");
    let authority = Some("cert.pem".into());
    let wrong = Settings { authority, ..without };
    assert!(matches!(RedisKv::new(&wrong, &home), Err(RedisError::Setting { key: "authority", .. })));
}

#[test]
fn an_adapter_that_begins_without_its_server_works_once_it_is_there() {
    let Some(mut server) = Redis::start_if_there() else { return };
    server.kill();
    let kv = wait(async { RedisKv::new(&settings(&[server.url()]), Path::new(".")) }).unwrap();
    let begun = Instant::now();
    for _ in 0..1_000 {
        is_unavailable(wait(kv.head(P0)), "kv");
    }
    assert!(begun.elapsed() < DEADLINE * 3, "refused at once: {:?}", begun.elapsed());
    server.start_again();
    eventually("it is found", Duration::from_secs(20), || wait(kv.head(P0)).is_ok());
}

#[test]
fn more_calls_than_are_allowed_at_once_wait_for_their_turn() {
    let Some(server) = Redis::start_if_there() else { return };
    let kv = connect(&Settings { calls_at_once: 2, ..settings(&[server.url()]) }).unwrap();
    let mut writer = Writer::new();
    writer.append(&kv, 1, 1);
    let heads = wait(futures::future::join_all((0..500).map(|_| kv.head(P0))));
    assert!(heads.into_iter().all(|head| head.unwrap() == writer.head));
}
