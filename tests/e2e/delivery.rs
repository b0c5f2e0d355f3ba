//! Delivers batches with their keys, in any order, at once, and more than once.
//!
//! Invariant: of all deliveries of one batch, exactly one counts its changes; the others say that they are duplicates.

use std::time::Duration;

use futures::StreamExt;

use crate::client::{Http, NDJSON, Receipt, Reply};
use crate::history::Batch;
use crate::random::Random;

/// How long a refused delivery is tried again.
const TRIES: usize = 200;

/// Sends a batch until the server takes it; only "busy" is tried again.
pub async fn send(http: &Http, table: &str, key: &str, body: &str) -> reqwest::Result<Receipt> {
    for _ in 0..TRIES {
        let reply: Reply = http.ingest(table, NDJSON, Some(key), body.to_owned()).await?;
        if !reply.is_busy() {
            return Ok(reply.receipt());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server is busy for good: {table}, {key}");
}

/// Delivers each batch one to three times, in random order, up to `at_once` requests at a time.
pub async fn shuffled(http: &Http, batches: &[Batch], name: &str, random: &mut Random, at_once: usize) {
    let mut deliveries: Vec<usize> =
        (0..batches.len()).flat_map(|index| vec![index; random.between(1, 3) as usize]).collect();
    random.shuffle(&mut deliveries);
    let receipts: Vec<(usize, Receipt)> = futures::stream::iter(deliveries)
        .map(|index| async move {
            let receipt = send(http, "orders", &format!("{name}-{index}"), &batches[index].body).await;
            (index, receipt.expect("the server answers"))
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    let mut accepted = vec![0; batches.len()];
    for (index, receipt) in receipts {
        assert_eq!(receipt.accepted + receipt.duplicate, batches[index].changes, "batch {index}: {receipt:?}");
        assert_eq!(receipt.shed, 0, "batch {index}: {receipt:?}");
        accepted[index] += receipt.accepted;
    }
    for (index, batch) in batches.iter().enumerate() {
        assert_eq!(accepted[index], batch.changes, "batch {index} was accepted other than once");
    }
}
