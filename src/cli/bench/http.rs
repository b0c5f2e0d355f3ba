//! `holdfast bench http`: queries a second over HTTP against an actix-web handler that returns a constant, in one run, with
//! one client.
//!
//! Invariant: the constant's server has as many workers as the real one, and its answer is as long.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::Result;

use super::client::{self, Load};
use super::machine;
use super::orders::{self, Random};
use super::process::Server;
use super::stats::{Runs, short};

const CONNECTIONS: usize = 16;
const ROUND: Duration = Duration::from_secs(3);
const ROWS: u64 = 400_000;

fn percentile(load: &Load, share: f64) -> f64 {
    load.times_us[((load.times_us.len() - 1) as f64 * share) as usize]
}

/// A handler that reads its body and returns `answer`, on its own threads.
fn constant_server(answer: String, workers: usize) -> Result<(SocketAddr, actix_web::dev::ServerHandle)> {
    let answer = bytes::Bytes::from(answer);
    let server = HttpServer::new(move || {
        let answer = answer.clone();
        App::new().route(
            "/constant",
            web::post().to(move |_body: web::Bytes| {
                let answer = answer.clone();
                async move { HttpResponse::Ok().content_type("application/json").body(answer) }
            }),
        )
    })
    .workers(workers)
    .disable_signals()
    .bind("127.0.0.1:0")?;
    let address = server.addrs()[0];
    let running = server.run();
    let handle = running.handle();
    actix_web::rt::spawn(running);
    Ok((address, handle))
}

/// Point queries of one merchant, grouped and ordered, against the constant; alternating rounds.
pub async fn http(rounds: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    println!("{}", machine::describe());
    let server = Server::start(folder.path(), orders::DEFINITION).await?;
    let mut text = orders::HEADER.to_owned();
    orders::append_rows(&mut text, &mut Random::new(1), 0, ROWS, ROWS, 0);
    let file = folder.path().join("orders.csv");
    std::fs::write(&file, text)?;
    server.ingest("orders", &file).await?;
    server.wait_for_orders(ROWS).await?;

    let sql = |merchant: u64| {
        format!(
            "select channel, sum(gmv) as gmv from gmv_hour where merchant_id = {merchant} and window_start >= '2026-11-01' group by channel order by gmv desc"
        )
    };
    let requests: Vec<Vec<u8>> = (1..=1000)
        .map(|merchant| client::post("/api/v1/query", &serde_json::json!({ "sql": sql(merchant) }).to_string()))
        .collect();
    let answer = server.query(&sql(1)).await?.to_string();
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let (constant_at, handle) = constant_server(answer, workers)?;
    let constant = vec![client::post("/constant", &serde_json::json!({ "sql": sql(1) }).to_string())];

    machine::wait_until_idle().await;
    client::load(server.address, &requests, CONNECTIONS, ROUND).await?;
    let (mut ratios, mut rates, mut p99, mut constants, mut constant_p99) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        let base = client::load(constant_at, &constant, CONNECTIONS, ROUND).await?;
        let real = client::load(server.address, &requests, CONNECTIONS, ROUND).await?;
        ratios.push(real.per_second / base.per_second);
        p99.push(percentile(&real, 0.99));
        constant_p99.push(percentile(&base, 0.99));
        rates.push(real.per_second);
        constants.push(base.per_second);
    }
    handle.stop(false).await;
    println!("{CONNECTIONS} connections, 1,000 different point queries with group by and order by");
    println!(
        "constant handler, requests/s: {}; p99 {} us",
        Runs::new(constants),
        short(Runs::new(constant_p99).median())
    );
    println!("queries, requests/s:          {}; p99 {} us", Runs::new(rates), short(Runs::new(p99).median()));
    println!("ratio in one run:             {}", Runs::new(ratios));
    Ok(())
}
