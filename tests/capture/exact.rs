//! What is counted is what the database has: all kinds of columns, by snapshot and by log.

use std::time::{Duration, Instant};

use holdfast::capture::checkpoint::Checkpoints;
use holdfast::clock::Clock;

use crate::setup::{ALL_KINDS, CREATE_KINDS, LONG, SELECT_KINDS, Setup, start_if_there, until};

const ROWS: &str = "(null, 'junk', 1, 18446744073709551615 div 4, -12.5, 12345678901234567890, 1.5, -0.25, 'größe 🛒', 'grün €', \
     'größe', 'x,z', 1, b'101010101010', 2026, '2026-11-22', '2026-11-22 10:03:04.123456', '2026-07-01 12:00:00.5', '-838:59:59', \
     '{\"a\": [1, 2]}', repeat('m', 300)), \
    (null, null, -2, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null), \
    (null, '', 3, 0, 9999.9999, -5, -3.5, 1e10, '', '', 'b''c', '', 0, b'0', 1901, '1000-01-01', '1970-01-01 00:00:01', \
     '9999-12-31 23:59:59.999', '00:00:01', 'null', '')";

const CHANGES: &[&str] = &[
    "update shop.kinds set shop = shop + 1, amount = amount * 2, name = concat(name, '!'), some = 'y', choice = 'a'",
    "update shop.kinds set at = at + interval 1 hour, local = local + interval 1 day, day = day + interval 1 day where id = 1",
    "delete from shop.kinds where id = 2",
    "update shop.kinds set doc = '[]', bits = 7, yr = 2000, span = '01:02:03', flag = not flag, big = null where id = 3",
    "use shop; insert into shop.kinds (shop, name, at) select seq % 40, concat('n', seq), '2026-01-01' + interval seq minute from seq_1_to_3000",
    "begin; delete from shop.kinds where id > 100; rollback; begin; savepoint a; update shop.kinds set shop = 9; rollback to a; commit",
    "set time_zone = '+05:30'; insert into shop.kinds (shop, at, local) values (5, '2026-06-01 00:00:00', '2026-06-01 00:00:00')",
    "alter table shop.kinds add column extra int not null default 3 first, drop column junk, add index (shop)",
    "update shop.kinds set extra = 9, shop = shop + 3 where id % 3 = 0",
    "insert into shop.kinds (shop, choice) values (1, 'a') on duplicate key update shop = 2; replace into shop.kinds (id, shop) values (1, 8)",
    "set sql_mode = ''; insert into shop.kinds (shop, day, local, choice) values (1, '0000-00-00', '0000-00-00', 'nothing')",
];

/// Zero dates are null for us.
const SELECT: &str = "set sql_mode=''; update shop.kinds set more = 'x' where id = 1;";

fn select() -> String {
    let text = SELECT_KINDS.replace("datediff(day,", "datediff(nullif(day,'0000-00-00'),");
    SELECT.to_owned() + &text.replace("',local)", "',nullif(local,'0000-00-00'))")
}

async fn every_kind_lands(options: &[&str]) {
    let Some(server) = start_if_there(options) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    let insert = format!("insert into shop.kinds values {ROWS}");
    setup.server.sql(&insert);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.equals(&select()).await;
    for change in CHANGES {
        setup.server.sql(change);
        setup.equals(&select()).await;
    }
    setup.server.sql("flush binary logs; delete from shop.kinds where id % 2 = 0");
    setup.equals(&select()).await;
    assert_eq!(capture.report().standing, "following", "{:?}", capture.report());
    capture.stop().await;
}

#[actix_rt::test]
async fn every_kind_of_column_lands_exactly_by_snapshot_and_by_log() {
    every_kind_lands(&[]).await;
}

#[actix_rt::test]
async fn every_kind_of_column_lands_exactly_where_the_log_has_no_names() {
    every_kind_lands(&["--binlog-row-metadata=NO_LOG", "--binlog-checksum=NONE"]).await;
}

#[actix_rt::test]
async fn the_first_value_of_a_column_is_the_same_by_snapshot_and_by_log() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.server.sql(&format!("insert into shop.kinds values {ROWS}"));
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    // The log takes away what the snapshot read: nothing may stay.
    setup.server.sql("delete from shop.kinds");
    setup.equals("select 1 from shop.kinds").await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_transaction_larger_than_all_limits_is_counted_in_pieces() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.settings.batch_rows = 100;
    setup.settings.in_flight = 8;
    setup.settings.in_flight_bytes = holdfast::model::units::ByteSize(64 << 10);
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.server.sql(
        "use shop; insert into shop.kinds (shop, name) select seq % 100, repeat('x', seq % 50) from seq_1_to_20000",
    );
    setup.equals(&select()).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn without_a_snapshot_only_what_changes_counts() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.server.sql("insert into shop.kinds (shop) values (1), (2)");
    setup.source.snapshot = false;
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.server.sql("insert into shop.kinds (shop) values (3)");
    setup.equals(&format!("{} where shop = 3", select())).await;
    capture.stop().await;
}

#[actix_rt::test]
async fn a_database_where_nothing_changes_goes_on_saying_so_without_checkpoints() {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.server.sql("insert into shop.kinds (shop) values (1), (2)");
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    setup.equals(&select()).await;
    let mut kept = Vec::new();
    for _ in 0..3 {
        let now_ms = Clock::System.now_ms();
        let begun = Instant::now();
        while setup.as_of_ms().await <= now_ms {
            assert!(begun.elapsed() < LONG, "{:?}", capture.report());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        kept.push(setup.checkpoints.load("db", 1).await.expect("it is kept").expect("there is one"));
    }
    assert_eq!(kept[1], kept[2], "time alone is not worth one");
    setup.server.sql("insert into shop.kinds (shop) values (3)");
    setup.equals(&select()).await;
    capture.stop().await;
}
