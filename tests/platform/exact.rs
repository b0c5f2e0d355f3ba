//! Exact from database to database.

use std::time::{Duration, Instant};

use crate::platform::{Platform, ROLES};
use crate::workload::{Random, Shop};

type Act = fn(&mut Platform);

/// How long the shop works and processes are killed; `scripts/exact-on-services` asks for longer.
fn seconds() -> u64 {
    std::env::var("HOLDFAST_EXACT_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15)
}

fn seed() -> u64 {
    std::env::var("HOLDFAST_EXACT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(2026)
}

#[test]
fn metric_rows_equal_sql_over_the_source_whatever_was_killed_on_the_way() {
    let Some(mut platform) = Platform::start_if_there() else { return };
    let (seed, seconds) = (seed(), seconds());
    let mut random = Random(seed);
    let shop = Shop::open(platform.source.url_of("root", "shop"), seed);
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(300 + random.below(900)));
        // Every role but the one that only asks.
        let name = ROLES[random.below(7) as usize];
        platform.node(name).kill();
        std::thread::sleep(Duration::from_millis(random.below(400)));
        platform.node(name).start();
        kills += 1;
    }
    let transactions = shop.close();
    let settling = Instant::now();
    platform.wait_exact();
    println!(
        "seed {seed}: {transactions} transactions in {seconds} s, {kills} processes killed; all exact {:.1} s after the last",
        settling.elapsed().as_secs_f64()
    );
    assert!(kills > 5 && transactions > 100, "{kills} kills, {transactions} transactions");
}

#[test]
fn a_source_that_stopped_goes_on_exactly_at_an_operators_order() {
    let Some(mut platform) = Platform::start_if_there() else { return };
    let shop = Shop::open(platform.source.url_of("root", "shop"), seed() + 2);
    platform.wait("the shop works", |_| match shop.transactions() {
        done if done >= 50 => Ok(()),
        done => Err(format!("{done} transactions")),
    });
    assert!(platform.order("pass").is_err_and(|reason| reason.contains("does not stand still")));
    platform.source.sql("alter table shop.orders modify status varchar(40) not null");
    platform.wait("an incident says what to do", |platform| {
        let open = platform.incidents()?;
        let stopped = open.iter().find(|text| text.contains("status") && text.contains("order to pass"));
        stopped.map(drop).ok_or_else(|| format!("{open:?}"))
    });
    platform.wait("the order is taken", |platform| platform.order("pass"));
    platform.wait("the incident is over", |platform| match platform.incidents()? {
        open if open.is_empty() => Ok(()),
        open => Err(format!("{open:?}")),
    });
    shop.close();
    platform.wait_exact();
}

#[test]
fn a_sink_that_takes_calls_and_answers_none_is_soon_not_waited_for_and_answers_stay_exact() {
    let Some(mut platform) = Platform::start_if_there() else { return };
    let shop = Shop::open(platform.source.url_of("root", "shop"), seed() + 3);
    platform.wait("the shop works", |_| match shop.transactions() {
        done if done >= 50 => Ok(()),
        done => Err(format!("{done} transactions")),
    });
    shop.close();
    platform.wait_exact();
    let hangs: [(&str, Act, Act); 2] = [
        ("cache", |platform| platform.cache.stop(), |platform| platform.cache.cont()),
        ("hot", |platform| platform.hot.stop(), |platform| platform.hot.cont()),
    ];
    for (name, stop, cont) in hangs {
        stop(&mut platform);
        let begun = Instant::now();
        let mut quick = 0;
        // Three in a row that were not waited for; nothing is served from this process' memory.
        while quick < 3 {
            let asked = Instant::now();
            let answer = platform.query("query-0", "select sum(orders) as n from gmv_hour where channel = 'web'");
            let took = asked.elapsed();
            assert!(took < Duration::from_secs(4), "{name}: {took:?}");
            assert!(begun.elapsed() < Duration::from_secs(15), "{name}: still {took:?}; {answer:?}");
            quick = if took < Duration::from_millis(500) && answer.is_ok_and(|it| it["quality"]["exact"] == true) {
                quick + 1
            } else {
                0
            };
            std::thread::sleep(Duration::from_millis(300));
        }
        println!("{name}: answers came in {:.1} s", begun.elapsed().as_secs_f64());
        cont(&mut platform);
        platform.wait_exact();
    }
}

#[test]
fn metric_rows_equal_sql_over_the_source_after_the_source_and_the_service_of_every_tier_were_killed_once() {
    let Some(mut platform) = Platform::start_if_there() else { return };
    let shop = Shop::open(platform.source.url_of("root", "shop"), seed() + 1);
    let outages: [(&str, Act, Act); 5] = [
        ("the source", |platform| platform.source.kill(), |platform| platform.source.start_again()),
        ("kafka", |platform| platform.kafka.kill(), |platform| platform.kafka.start_again()),
        ("kv", |platform| platform.kv.kill(), |platform| platform.kv.start_again()),
        ("hot", |platform| platform.hot.kill(), |platform| platform.hot.start_again()),
        ("cache", |platform| platform.cache.kill(), |platform| platform.cache.start_again()),
    ];
    for (name, kill, start_again) in outages {
        let before = shop.transactions();
        platform.wait(&format!("the shop works before {name} is killed"), |_| match shop.transactions() - before {
            done if done >= 50 => Ok(()),
            done => Err(format!("{done} transactions")),
        });
        kill(&mut platform);
        std::thread::sleep(Duration::from_millis(1_500));
        start_again(&mut platform);
    }
    let transactions = shop.close();
    platform.wait_exact();
    println!("{transactions} transactions; the source and the service of every tier were killed once");
}
