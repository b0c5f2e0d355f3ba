//! How fast a log is read: `cargo test --release --test capture speed -- --ignored --nocapture`.

use std::time::Instant;

use crate::setup::{Setup, start_if_there, until};

const ORDERS: &str = "name = 'orders'\nkey = ['order_id']\npartition_by = 'merchant_id'\ntime = 'paid_at'\n\
    columns = { order_id = 'int', merchant_id = 'int', status = 'text', channel = 'text', amount = 'decimal(12,2)', buyer_id = 'int',\n\
    paid_at = 'timestamp' }";

const CREATE: &str = "create table shop.orders (order_id bigint not null auto_increment primary key, merchant_id int not null, \
    status enum('placed','paid','refunded'), channel varchar(20), amount decimal(12,2), buyer_id bigint, paid_at timestamp null)";

const ROWS: u64 = 1_000_000;

#[actix_rt::test]
#[ignore = "measures, and proves nothing"]
async fn a_log_of_a_million_rows() {
    let Some(server) = start_if_there(&["--innodb-flush-log-at-trx-commit=0"]) else { return };
    let mut setup = Setup::new(server, ORDERS, CREATE);
    setup.settings = holdfast::capture::settings::Settings::usual();
    setup.settings.batch_rows = 50_000;
    let capture = setup.start();
    until(&capture, "following", |report| report.standing == "following").await;
    capture.stop().await;
    for _ in 0..10 {
        setup.server.sql(
            "use shop; insert into shop.orders (merchant_id, status, channel, amount, buyer_id, paid_at) select seq % 5000, 'paid', \
             elt(1 + seq % 3, 'web', 'app', 'shop'), seq % 100000 / 100, seq % 70000, '2026-01-01' + interval seq second from seq_1_to_100000",
        );
    }
    let begun = Instant::now();
    let capture = setup.start();
    until(&capture, "through", |report| report.changes >= ROWS).await;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{ROWS} rows in {seconds:.2} s: {:.0} rows/s, from the server to batches in memory",
        ROWS as f64 / seconds
    );
    capture.stop().await;
}
