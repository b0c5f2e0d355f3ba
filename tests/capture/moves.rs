//! The server is lost, and the url leads to its replica: nothing is lost and nothing counts twice.

use std::time::{Duration, Instant};

use holdfast::capture::checkpoint::{Checkpoints, Stage};
use holdfast::capture::place::Place;
use holdfast::capture::stop::StopKind;
use holdfast::clock::Clock;
use holdfast::model::position::Position;
use holdfast::model::units::Millis;

use crate::services::mariadb::MariaDb;
use crate::setup::{ALL_KINDS, CREATE_KINDS, LONG, SELECT_KINDS, Setup, start_if_there, until};

const CHANGE: &str = "use shop; insert into shop.kinds (shop, name, at) select seq % 17, concat('n', seq), '2026-01-01' + interval seq minute \
    from seq_1_to_200; update shop.kinds set shop = shop + 1, at = at + interval 1 hour where id % 3 = 0; \
    delete from shop.kinds where id % 7 = 0";

/// A captured server, and its replica, whose log has other files and offsets.
fn replicated() -> Option<(Setup, MariaDb)> {
    let server = start_if_there(&[])?;
    let replica = start_if_there(&["--server-id=2", "--log-slave-updates=ON", "--binlog-checksum=NONE"])?;
    replica.sql("drop database shop; drop database holdfast; flush binary logs; reset master");
    replica.sql(&format!(
        "change master to master_host='127.0.0.1', master_port={}, master_user='root', master_use_gtid=slave_pos, \
         master_connect_retry=1; start slave",
        server.port()
    ));
    let setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    Some((setup, replica))
}

/// Waits until the replica has all that the server has.
fn catch_up(server: &MariaDb, replica: &MariaDb) {
    let position = server.sql("select @@gtid_binlog_pos");
    let waited = replica.sql(&format!("select master_gtid_wait('{}', 90)", position.trim()));
    assert_eq!(waited.trim(), "0", "{}", replica.sql("show slave status"));
}

/// Of the checkpoint.
async fn position(setup: &Setup) -> Position {
    let kept = setup.checkpoints.load("db", setup.epoch()).await.expect("it is kept").expect("there is one");
    let Stage::Log(log) = kept.stage else { panic!("{kept:?}") };
    log.position
}

fn promote(replica: &MariaDb) {
    replica.sql("stop slave; reset slave all; flush binary logs");
}

#[actix_rt::test]
async fn a_replica_that_has_all_is_read_on_from_the_same_transaction() {
    let Some((mut setup, replica)) = replicated() else { return };
    setup.server.sql(CHANGE);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.server.sql(CHANGE);
    setup.equals(SELECT_KINDS).await;
    setup.server.sql(CHANGE);
    catch_up(&setup.server, &replica);
    setup.server.kill();
    until(&capture, "pausing", |report| report.standing == "pausing").await;
    capture.stop().await;
    promote(&replica);
    replica.sql(CHANGE);
    setup.server = replica;
    let capture = setup.start();
    setup.equals(SELECT_KINDS).await;
    setup.server.sql(CHANGE);
    setup.equals(SELECT_KINDS).await;
    assert_eq!(capture.report().standing, "following", "{:?}", capture.report());
    capture.stop().await;
}

#[actix_rt::test]
async fn what_was_counted_beyond_the_checkpoint_is_taken_back_and_read_again() {
    let Some((mut setup, replica)) = replicated() else { return };
    setup.server.sql(CHANGE);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.server.sql(CHANGE);
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
    // From here on no checkpoint is saved.
    setup.settings.save = Millis(3_600_000);
    let capture = setup.start();
    for _ in 0..3 {
        setup.server.sql(CHANGE);
        setup.equals(SELECT_KINDS).await;
    }
    capture.kill();
    setup.server.sql(CHANGE);
    catch_up(&setup.server, &replica);
    setup.server.kill();
    promote(&replica);
    replica.sql(CHANGE);
    setup.server = replica;
    // The first attempts die on their way.
    for round in 0..4u64 {
        let capture = setup.start();
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        capture.kill();
        setup.server.sql(CHANGE);
    }
    setup.settings.save = Millis(30);
    let capture = setup.start();
    setup.equals(SELECT_KINDS).await;
    setup.server.sql(CHANGE);
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn what_an_owner_published_that_had_read_further_is_taken_back_as_well() {
    let Some((mut setup, replica)) = replicated() else { return };
    setup.settings.batch_rows = 20;
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    capture.stop().await;
    // This one reads all, and saves nothing.
    let quick = std::mem::replace(&mut setup.settings.save, Millis(3_600_000));
    let capture = setup.start();
    // Its first look for something to save, a moment after it begins to read, is to find nothing of all this.
    let now_ms = Clock::System.now_ms();
    until(&capture, "reading", |report| report.at_ms > now_ms + 100).await;
    for _ in 0..6 {
        setup.server.sql(CHANGE);
    }
    setup.equals(SELECT_KINDS).await;
    capture.kill();
    // This one saves, and dies before it has read as much.
    let first = position(&setup).await;
    setup.settings.save = Millis(1);
    let capture = setup.start();
    let begun = Instant::now();
    let saved = loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match position(&setup).await {
            position if position > first => break position,
            _ => assert!(begun.elapsed() < LONG, "{:?}", capture.report()),
        }
    };
    capture.kill();
    let status = setup.server.sql("show master status");
    let end: u64 = status.split('\t').nth(1).and_then(|offset| offset.parse().ok()).expect("an offset");
    assert!(Place::of(saved).offset < end, "it has read all: {saved:?} of {status}");
    setup.settings.save = quick;
    catch_up(&setup.server, &replica);
    setup.server.kill();
    promote(&replica);
    setup.server = replica;
    let capture = setup.start();
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_replica_that_lacks_what_was_counted_is_refused() {
    let Some((mut setup, replica)) = replicated() else { return };
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.server.sql(CHANGE);
    catch_up(&setup.server, &replica);
    replica.sql("stop slave");
    setup.server.sql("insert into shop.kinds (shop) values (1); insert into shop.kinds (shop) values (2)");
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
    setup.server.kill();
    promote(&replica);
    setup.server = replica;
    let before = setup.counted().await.0;
    let capture = setup.start();
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let stop = report.stop.expect("a reason");
    assert!(stop.kind == StopKind::Server && stop.reason.contains("lacks transactions"), "{stop}");
    // It goes its own way: what it lacks will never come.
    setup.server.sql("insert into shop.kinds (shop) values (8); insert into shop.kinds (shop) values (9)");
    let begun = Instant::now();
    while !capture.report().stop.is_some_and(|stop| stop.kind == StopKind::Unreadable) {
        assert!(begun.elapsed() < LONG, "{:?}", capture.report());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reason = capture.report().reason.expect("a reason");
    assert!(reason.contains("another way"), "{reason}");
    assert_eq!(setup.counted().await.0, before, "nothing was taken back");
    capture.stop().await;
}
