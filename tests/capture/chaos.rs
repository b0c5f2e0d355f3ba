//! A workload goes on while everything is killed by chance; at the end what is counted is what the database has.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use holdfast::capture::capture_service::CaptureHandle;
use holdfast::model::units::{ByteSize, Millis};

use crate::services::program;
use crate::setup::{ALL_KINDS, CREATE_KINDS, SELECT_KINDS, Setup, start_if_there};

const ROUNDS: u64 = 20;

/// SplitMix64: the same faults for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Transactions of every kind, more than there is time for.
fn script(random: &mut Random) -> String {
    let mut script = String::from("use shop;\n");
    for _ in 0..400 {
        let (shop, count) = (random.below(40), 1 + random.below(60));
        script += &match random.below(9) {
            0 | 1 => format!(
                "insert into kinds (shop, name, at, amount) select {shop} + seq % 7, concat('n', seq), '2026-01-01' + interval \
                 seq minute, seq / 4 from seq_1_to_{count};\n"
            ),
            2 => format!("update kinds set shop = shop + 1, at = at + interval 1 hour where shop = {shop};\n"),
            3 => format!("delete from kinds where shop = {shop} limit {count};\n"),
            4 => format!(
                "begin; insert into kinds (shop) values ({shop}); update kinds set amount = 1 where shop = {shop}; rollback;\n"
            ),
            5 => format!(
                "begin; insert into kinds (shop) values ({shop}); savepoint a; delete from kinds; rollback to a; \
                 update kinds set name = 'x' where shop = {shop}; commit;\n"
            ),
            6 => format!("insert into kinds (shop, name) select {shop}, repeat('y', 200) from seq_1_to_2000;\n"),
            7 => "flush binary logs; alter table kinds add column if not exists more2 int first;\n".to_owned(),
            _ => "alter table kinds drop column if exists more2;\n".to_owned(),
        };
        script += &format!("select sleep({});\n", random.below(20) as f64 / 1_000.0);
    }
    script
}

/// Ends with the server that it talks to, or when it is dropped.
struct Workload(Child);

impl Workload {
    fn start(port: u16, script: &str) -> Self {
        let mut client = Command::new(program("mariadb").expect("mariadb is installed"))
            .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root", &format!("--port={port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the client starts");
        let mut input = client.stdin.take().expect("it is piped");
        let script = script.to_owned();
        // It ends when the client does.
        std::thread::spawn(move || input.write_all(script.as_bytes()));
        Self(client)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn survives(seed: u64) {
    let Some(server) = start_if_there(&[]) else { return };
    let mut setup = Setup::new(server, ALL_KINDS, CREATE_KINDS);
    setup.settings.in_flight = 40;
    setup.settings.in_flight_bytes = ByteSize(256 << 10);
    setup.settings.save = Millis(150);
    setup.server.sql("insert into shop.kinds (shop) select seq % 40 from shop.seq_1_to_3000");
    let mut random = Random(seed);
    let mut workload = Workload::start(setup.server.port(), &script(&mut random));
    let mut captures: Vec<CaptureHandle> = vec![setup.start()];
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(random.below(500))).await;
        match random.below(7) {
            0 => {
                setup.server.kill();
                tokio::time::sleep(Duration::from_millis(random.below(300))).await;
                setup.server.start_again();
            }
            1 => {
                setup.server.stop();
                tokio::time::sleep(Duration::from_millis(random.below(1_000))).await;
                setup.server.cont();
            }
            2 => {
                setup.mq.set_up(false);
                tokio::time::sleep(Duration::from_millis(random.below(300))).await;
                setup.mq.set_up(true);
            }
            3 => captures.drain(..).for_each(CaptureHandle::kill),
            // A second owner while the first one lives.
            4 => captures.push(setup.start()),
            5 => {
                for capture in captures.drain(..) {
                    capture.stop().await;
                }
            }
            _ => {}
        }
        if captures.is_empty() {
            captures.push(setup.start());
        }
        if workload.0.try_wait().is_ok_and(|ended| ended.is_some()) {
            workload = Workload::start(setup.server.port(), &script(&mut random));
        }
    }
    drop(workload);
    println!("seed {seed}: {:?}", captures.last().map(CaptureHandle::report));
    // What the last statement did may be on its way still.
    setup.server.sql("flush tables with read lock; unlock tables");
    setup.equals(SELECT_KINDS).await;
    for capture in captures {
        capture.stop().await;
    }
}

/// Two histories, or `HOLDFAST_CAPTURE_SEEDS=100 cargo test --release --test capture chaos` more of them.
#[actix_rt::test]
async fn whatever_is_killed_by_chance_nothing_is_lost_and_nothing_counts_twice() {
    let seeds = std::env::var("HOLDFAST_CAPTURE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2);
    for seed in 1..=seeds {
        survives(seed).await;
    }
}
