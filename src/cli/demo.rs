//! `up --demo`: the built-in shop, sending its orders through the front door like everybody else.
//!
//! Invariant: only changes that were surely not counted are sent again; after an unclear failure the shop forgets the
//! orders under way, so the demo's metrics stay right.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use tracing::{info, warn};

use super::client::{Client, chain};
use super::failure::Failure;
use super::shop::{OrderChange, Shop};
use crate::clock::Clock;

const TICK: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_secs(1);

/// Runs the shop for as long as the process lives.
pub async fn run(http: SocketAddr, orders_per_second: f64) -> Result<(), Failure> {
    let client = Client::new(&format!("http://{http}"), None)?;
    let clock = Clock::System;
    let mut shop = Shop::new(clock.now_ms());
    info!(orders_per_second, "the demo shop is open");
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let changes = shop.pass_time(clock.now_ms(), orders_per_second);
        if !changes.is_empty() && !send(&client, &changes).await {
            shop.forget();
        }
    }
}

/// Sends until the changes are surely in (true), or nobody can know (false).
async fn send(client: &Client, changes: &[OrderChange]) -> bool {
    let body: String =
        changes.iter().map(|change| serde_json::to_string(change).expect("a change is plain data") + "\n").collect();
    loop {
        let request = client.post("/api/v1/ingest/orders").header(CONTENT_TYPE, "application/x-ndjson");
        match request.body(body.clone()).send().await {
            Ok(response) if response.status().is_success() => return true,
            Ok(response) if is_refused(response.status()) => tokio::time::sleep(PAUSE).await,
            Ok(response) => {
                warn!(status = %response.status(), "the demo's changes were not accepted");
                return false;
            }
            Err(error) if error.is_connect() => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                warn!(error = chain(&error), "the demo does not know whether its changes arrived");
                return false;
            }
        }
    }
}

/// Surely not counted, and welcome later.
fn is_refused(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
}
