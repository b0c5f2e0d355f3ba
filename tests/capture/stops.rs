//! What stops a source, what it says then, and what an order does.

use std::time::{Duration, Instant};

use holdfast::capture::capture_service::{CaptureHandle, CaptureReport};
use holdfast::capture::stop::StopKind;
use holdfast::model::applied::Applied;
use holdfast::model::task::SourceOrder;

use crate::services::eventually;
use crate::setup::{ALL_KINDS, CREATE_KINDS, LONG, SELECT_KINDS, Setup, start_if_there, until};

async fn following(options: &[&str]) -> Option<(Setup, CaptureHandle)> {
    let server = start_if_there(options)?;
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.server.sql("insert into shop.kinds (shop) values (1), (2), (3)");
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.equals(SELECT_KINDS).await;
    Some((setup, capture))
}

/// Waits until so many rows are counted, and every partition states the gap.
async fn goes_on_with_a_gap(setup: &Setup, capture: &CaptureHandle, rows: usize) {
    let begun = Instant::now();
    loop {
        let (counted, applied) = setup.counted().await;
        // A partition's gap shows with its next batch.
        if counted.len() == rows && applied.iter().all(|applied| !applied.is_gapless()) {
            return;
        }
        assert!(begun.elapsed() < LONG, "{counted:?} {applied:?} {:?}", capture.report());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_rt::test]
async fn a_column_that_changes_its_type_stops_until_it_is_passed() {
    let Some((mut setup, capture)) = following(&[]).await else { return };
    setup
        .server
        .sql("insert into shop.kinds (shop) values (4); alter table shop.kinds modify column shop int not null");
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let stop = report.stop.expect("a reason");
    assert_eq!(stop.kind, StopKind::Definition);
    assert!(stop.reason.contains("shop.kinds") && stop.place.is_some(), "{stop}");
    setup.equals(SELECT_KINDS).await;
    setup.server.sql("insert into shop.kinds (shop) values (70000)");
    // A new owner stops there as well.
    capture.stop().await;
    let capture = setup.start();
    until(&capture, "stopped", |report| report.standing == "stopped").await;
    assert!(capture.order(SourceOrder::Pass));
    setup.equals(SELECT_KINDS).await;
    assert_eq!(capture.report().standing, "following");
    capture.stop().await;
}

#[actix_rt::test]
async fn a_truncated_table_stops_and_passing_it_leaves_a_gap() {
    let Some((setup, capture)) = following(&[]).await else { return };
    setup.server.sql("truncate shop.kinds");
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    assert_eq!(report.stop.expect("a reason").kind, StopKind::Loss);
    let (before, applied) = setup.counted().await;
    assert!(before.len() == 3 && applied.iter().all(Applied::is_gapless));
    setup.server.sql("insert into shop.kinds (shop) values (9)");
    assert!(capture.order(SourceOrder::Pass));
    until(&capture, "following", |report| report.standing == "following").await;
    goes_on_with_a_gap(&setup, &capture, 4).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_purged_log_stops_with_the_gap_stated() {
    let Some((mut setup, capture)) = following(&[]).await else { return };
    capture.stop().await;
    setup.server.sql("insert into shop.kinds (shop) values (5); flush binary logs; flush binary logs");
    // A file that the server still sends to somebody stays.
    eventually("purged", Duration::from_secs(10), || {
        setup.server.sql("purge binary logs to 'binlog.000003'");
        !setup.server.sql("show binary logs").contains("binlog.000001")
    });
    setup.server.sql("insert into shop.kinds (shop) values (6)");
    let capture = setup.start();
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let stop = report.stop.expect("a reason");
    assert!(matches!(stop.kind, StopKind::Purged { first } if first.file == 3), "{stop:?}");
    assert!(stop.reason.contains("binlog.000001") && stop.reason.contains("binlog.000003"), "{stop}");
    assert!(capture.order(SourceOrder::Pass));
    goes_on_with_a_gap(&setup, &capture, 4).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_server_that_is_not_set_up_is_told_what_to_change_and_looked_at_again() {
    let options = ["--binlog-row-image=MINIMAL", "--expire-logs-days=0.01"];
    let Some(server) = start_if_there(&options) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    let capture = setup.start();
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let reason = report.reason.expect("a reason");
    assert!(
        reason.contains("binlog_row_image='FULL'") && reason.contains("binlog_expire_logs_seconds=86400"),
        "{reason}"
    );
    setup.server.sql(
        "set global binlog_row_image = FULL, global expire_logs_days = 0; insert into shop.kinds (shop) values (1)",
    );
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_user_without_privileges_is_told_which_to_grant() {
    let Some(server) = start_if_there(&[]) else { return };
    server.sql("create user reader@'127.0.0.1'; grant select on shop.* to reader@'127.0.0.1'");
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    let url = setup.server.url_of("reader", "shop");
    let capture = setup.start_at(url);
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let reason = report.reason.expect("a reason");
    assert!(reason.contains("replication slave"), "{reason}");
    setup.server.sql("grant replication slave, binlog monitor on *.* to reader@'127.0.0.1'; insert into shop.kinds (shop) values (1)");
    setup.equals(SELECT_KINDS).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_row_that_is_not_whole_stops_and_names_the_column() {
    let Some((setup, capture)) = following(&[]).await else { return };
    setup.server.sql("set session binlog_row_image = MINIMAL; update shop.kinds set name = 'x' where id = 1");
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let reason = report.reason.expect("a reason");
    assert!(reason.contains("shop.kinds") && reason.contains("binlog_row_image=FULL"), "{reason}");
    capture.stop().await;
}

#[actix_rt::test]
async fn a_value_that_does_not_fit_stops_and_names_the_column() {
    let Some((setup, capture)) = following(&[]).await else { return };
    setup.server.sql("insert into shop.kinds (shop, big) values (1, 18446744073709551615)");
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let reason = report.reason.expect("a reason");
    assert!(reason.contains("shop.kinds.big: 18446744073709551615 is out of range"), "{reason}");
    assert!(!capture.order(SourceOrder::Pass) || capture.report().standing == "stopped");
    capture.stop().await;
}

#[actix_rt::test]
async fn a_table_that_is_renamed_stops_until_it_is_back_and_one_that_is_dropped_is_a_loss() {
    let Some((setup, capture)) = following(&[]).await else { return };
    setup.server.sql("rename table shop.kinds to shop.elsewhere");
    let stopped = |report: &CaptureReport| report.standing == "stopped" && report.stop.is_some();
    let stop = until(&capture, "stopped", stopped).await.stop.expect("a reason");
    assert!(stop.kind == StopKind::Definition && stop.reason.contains("was renamed"), "{stop}");
    setup.server.sql("rename table shop.elsewhere to shop.kinds; insert into shop.kinds (shop) values (4)");
    let first = stop.place;
    assert!(capture.order(SourceOrder::Pass));
    let report = until(&capture, "stopped again", |report| {
        stopped(report) && report.stop.as_ref().map(|stop| stop.place) != Some(first)
    })
    .await;
    assert_eq!(report.stop.expect("a reason").kind, StopKind::Definition);
    assert!(capture.order(SourceOrder::Pass));
    setup.equals(SELECT_KINDS).await;
    setup.server.sql("drop table shop.kinds");
    let report = until(&capture, "stopped for the loss", |report| {
        report.stop.as_ref().is_some_and(|stop| stop.kind == StopKind::Loss)
    })
    .await;
    assert!(report.reason.expect("a reason").contains("was dropped"));
    setup.server.sql(&format!("{CREATE_KINDS}; insert into shop.kinds (id, shop) values (100, 7)"));
    assert!(capture.order(SourceOrder::Pass));
    goes_on_with_a_gap(&setup, &capture, 5).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn changes_in_an_xa_transaction_stop_and_passing_them_leaves_a_gap() {
    let Some((setup, capture)) = following(&[]).await else { return };
    setup
        .server
        .sql("xa start 'a'; insert into shop.kinds (shop) values (4); xa end 'a'; xa prepare 'a'; xa commit 'a'");
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let stop = report.stop.expect("a reason");
    assert!(stop.kind == StopKind::Loss && stop.reason.contains("XA"), "{stop}");
    setup.server.sql("insert into shop.kinds (shop) values (5)");
    assert!(capture.order(SourceOrder::Pass));
    goes_on_with_a_gap(&setup, &capture, 4).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_change_that_the_log_has_as_a_statement_stops_and_passing_it_leaves_a_gap() {
    let Some((setup, capture)) = following(&[]).await else { return };
    setup.server.sql("set session binlog_format = STATEMENT; use shop; update kinds set shop = 8 where id = 1");
    let report = until(&capture, "stopped", |report| report.standing == "stopped").await;
    let stop = report.stop.expect("a reason");
    assert!(stop.kind == StopKind::Loss && stop.reason.contains("not by rows"), "{stop}");
    setup.server.sql("insert into shop.kinds (shop) values (5)");
    assert!(capture.order(SourceOrder::Pass));
    goes_on_with_a_gap(&setup, &capture, 4).await;
    capture.stop().await;
}
