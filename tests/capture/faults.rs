//! Whatever is killed, nothing is lost and nothing counts twice.

use std::time::Duration;

use crate::setup::{ALL_KINDS, CREATE_KINDS, SELECT_KINDS, Setup, start_if_there, until};

const CHANGE: &str = "use shop; insert into shop.kinds (shop, name, at) select seq % 17, concat('n', seq), '2026-01-01' + interval seq minute \
    from seq_1_to_200; update shop.kinds set shop = shop + 1, at = at + interval 1 hour where id % 3 = 0; \
    delete from shop.kinds where id % 7 = 0";

#[actix_rt::test]
async fn a_capture_that_dies_is_followed_by_one_that_goes_on_from_the_checkpoint() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.server.sql(CHANGE);
    for round in 0..8u64 {
        let capture = setup.start();
        if round == 0 {
            until(&capture, "following", |report| report.standing == "following").await;
        }
        setup.server.sql(CHANGE);
        tokio::time::sleep(Duration::from_millis(round * 17)).await;
        capture.kill();
        setup.server.sql(CHANGE);
    }
    let capture = setup.start();
    setup.equals(SELECT_KINDS).await;
    let until_now = capture.report().position;
    capture.stop().await;
    // What was stopped in good order begins where it stopped, and finds nothing new.
    let before = setup.counted().await.1;
    let capture = setup.start();
    until(&capture, "at the end", |report| report.position >= until_now).await;
    setup.equals(SELECT_KINDS).await;
    assert!(setup.counted().await.1.iter().zip(&before).all(|(now, then)| now.covers(then)));
    capture.stop().await;
}

#[actix_rt::test]
async fn many_small_transactions_that_wait_in_the_log_are_all_read() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    capture.kill();
    // Far more events at once than are read in one go.
    let one = "insert into shop.kinds (shop, name) values (1, 'a'), (2, 'b'); update shop.kinds set shop = shop + 1 order by id desc limit 1;";
    for number in 0..3 {
        setup.server.sql(&one.repeat(500));
        setup.server.sql(&format!("create table shop.copy{number} select * from shop.kinds"));
    }
    let capture = setup.start();
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_snapshot_that_dies_is_taken_back_and_begun_anew() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.settings.batch_rows = 100;
    setup
        .server
        .sql("use shop; insert into shop.kinds (shop, name) select seq % 50, concat('n', seq) from seq_1_to_20000");
    let mut partial = 0;
    for round in 0..5u64 {
        let capture = setup.start();
        let some = 200 + 1_500 * round;
        until(&capture, "reading", |report| report.changes >= some).await;
        capture.kill();
        partial += usize::from(!setup.counted().await.0.is_empty());
        // The rows that the next one reads are others.
        setup
            .server
            .sql("update shop.kinds set shop = shop + 1 where id % 2 = 0; delete from shop.kinds where id % 37 = 5");
    }
    assert!(partial > 0, "no snapshot was interrupted on its way");
    let capture = setup.start();
    setup.equals(SELECT_KINDS).await;
    assert_eq!(until(&capture, "following", |report| report.standing == "following").await.reason, None);
    capture.stop().await;
}

#[actix_rt::test]
async fn a_server_that_is_killed_is_found_again() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.server.sql(CHANGE);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    for _ in 0..2 {
        setup.server.sql(CHANGE);
        setup.server.kill();
        until(&capture, "pausing", |report| report.standing == "pausing").await;
        setup.server.start_again();
        setup.server.sql(CHANGE);
        setup.equals(SELECT_KINDS).await;
    }
    capture.stop().await;
}

#[actix_rt::test]
async fn a_server_that_hangs_is_given_up_and_found_again() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.settings.answer = holdfast::model::units::Millis(1_000);
    setup.settings.silence = holdfast::model::units::Millis(1_000);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.server.stop();
    until(&capture, "pausing", |report| report.standing == "pausing").await;
    setup.server.cont();
    setup.server.sql(CHANGE);
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_queue_that_is_down_holds_the_checkpoint_back() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.server.sql(CHANGE);
    setup.equals(SELECT_KINDS).await;
    setup.mq.set_up(false);
    setup.server.sql(CHANGE);
    tokio::time::sleep(Duration::from_millis(300)).await;
    capture.kill();
    setup.mq.set_up(true);
    let capture = setup.start();
    setup.equals(SELECT_KINDS).await;
    setup.mq.set_up(false);
    setup.server.sql(CHANGE);
    tokio::time::sleep(Duration::from_millis(300)).await;
    setup.mq.set_up(true);
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn the_older_of_two_owners_is_fenced_and_nothing_counts_twice() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    let older = setup.start();
    until(&older, "following", |report| report.standing == "following").await;
    let newer = setup.start();
    setup.server.sql(CHANGE);
    until(&newer, "following", |report| report.standing == "following").await;
    for _ in 0..5 {
        setup.server.sql(CHANGE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    setup.equals(SELECT_KINDS).await;
    until(&older, "ended", |report| report.standing == "ended").await;
    newer.stop().await;
}
