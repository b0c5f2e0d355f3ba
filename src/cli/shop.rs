//! A shop that lives: customers place orders, pay them or give up, and want some money back. Pure.
//!
//! Invariant: every change carries the row as it was before, and no order is touched again after its last change, so
//! the memory is bounded by rate and delays.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;

const MERCHANTS: u64 = 200;
const BUYERS: u64 = 5_000;
const CHANNELS: [&str; 4] = ["app", "web", "store", "phone"];

/// A row of the table `orders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order {
    order_id: u64,
    merchant_id: u64,
    status: &'static str,
    channel: &'static str,
    amount: String,
    buyer_id: u64,
    paid_at: Option<String>,
}

/// A change of a row, as `POST /api/v1/ingest` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderChange {
    #[serde(rename = "_op")]
    operation: &'static str,
    #[serde(rename = "_before", skip_serializing_if = "Option::is_none")]
    before: Option<Order>,
    #[serde(flatten)]
    order: Order,
}

/// The shop.
#[derive(Debug)]
pub struct Shop {
    random: Random,
    next_order: u64,
    /// What happens to orders later: when, which, and the order as it stands.
    due: BTreeMap<(i64, u64), Order>,
    /// Orders to place that do not make a whole one yet.
    owed: f64,
    last_ms: i64,
}

impl Shop {
    /// A shop that opens at `now_ms`; a later one has other order numbers.
    pub fn new(now_ms: i64) -> Self {
        let seed = now_ms as u64;
        Self { random: Random(seed), next_order: seed * 1_000, due: BTreeMap::new(), owed: 0.0, last_ms: now_ms }
    }

    /// Everything that happened since the last call, in order, with `orders_per_second` new orders.
    pub fn pass_time(&mut self, now_ms: i64, orders_per_second: f64) -> Vec<OrderChange> {
        // After a pause (a suspended machine) life goes on at its usual pace.
        let passed_ms = (now_ms - self.last_ms).clamp(0, 2_000);
        self.last_ms = now_ms;
        let mut changes = Vec::new();
        let later = self.due.split_off(&(now_ms + 1, 0));
        for ((_, number), order) in std::mem::replace(&mut self.due, later) {
            changes.push(self.go_on(number, order, now_ms));
        }
        self.owed += orders_per_second * passed_ms as f64 / 1_000.0;
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            changes.push(self.place(now_ms));
        }
        changes
    }

    /// Forgets the orders under way: nobody knows whether their last changes arrived.
    pub fn forget(&mut self) {
        self.due.clear();
    }

    fn place(&mut self, now_ms: i64) -> OrderChange {
        let number = self.next_order;
        self.next_order += 1;
        // Few merchants have most of the orders, and few orders most of the money.
        let popularity = self.random.fraction();
        let worth = self.random.fraction();
        let cents = 199 + (worth * worth * worth * 40_000.0) as u64;
        let order = Order {
            order_id: number,
            merchant_id: 1 + (popularity * popularity * MERCHANTS as f64) as u64,
            status: "placed",
            channel: CHANNELS[(self.random.fraction() * self.random.fraction() * CHANNELS.len() as f64) as usize],
            amount: format!("{}.{:02}", cents / 100, cents % 100),
            buyer_id: 1 + self.random.below(BUYERS),
            paid_at: None,
        };
        self.later(number, now_ms, 500, 8_000, &order);
        OrderChange { operation: "insert", before: None, order }
    }

    /// A placed order is paid or given up, a paid one refunded.
    fn go_on(&mut self, number: u64, order: Order, now_ms: i64) -> OrderChange {
        if order.status == "placed" && self.random.fraction() < 0.1 {
            return OrderChange { operation: "delete", before: None, order };
        }
        let mut after = order.clone();
        if order.status == "placed" {
            after.status = "paid";
            after.paid_at = DateTime::from_timestamp_millis(now_ms)
                .map(|moment| moment.to_rfc3339_opts(SecondsFormat::Millis, true));
            if self.random.fraction() < 0.05 {
                self.later(number, now_ms, 5_000, 60_000, &after);
            }
        } else {
            after.status = "refunded";
        }
        OrderChange { operation: "update", before: Some(order), order: after }
    }

    fn later(&mut self, number: u64, now_ms: i64, from_ms: u64, to_ms: u64, order: &Order) {
        let delay_ms = from_ms + self.random.below(to_ms - from_ms);
        self.due.insert((now_ms + delay_ms as i64, number), order.clone());
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough for a shop.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// At least 0, below 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_change_continues_the_order_as_it_was_and_memory_stays_bounded() {
        let mut shop = Shop::new(1_700_000_000_000);
        let mut rows: HashMap<u64, Order> = HashMap::new();
        let mut kinds: HashMap<&str, usize> = HashMap::new();
        for step in 1..=1_500 {
            for change in shop.pass_time(1_700_000_000_000 + step * 200, 50.0) {
                let id = change.order.order_id;
                let before = match change.operation {
                    "insert" => rows.insert(id, change.order.clone()),
                    "delete" => rows.remove(&id).filter(|order| *order != change.order),
                    _ => rows.insert(id, change.order.clone()).filter(|order| Some(order) != change.before.as_ref()),
                };
                assert_eq!(before, None, "{change:?}");
                assert_eq!(change.order.paid_at.is_some(), matches!(change.order.status, "paid" | "refunded"));
                *kinds
                    .entry(if change.operation == "update" { change.order.status } else { change.operation })
                    .or_default() += 1;
            }
            assert!(shop.due.len() < 50 * 60, "orders under way: {}", shop.due.len());
        }
        assert_eq!(kinds.len(), 4, "{kinds:?}");
        assert_eq!(kinds["insert"], 300 * 50);
    }

    #[test]
    fn a_change_is_written_as_ingest_reads_it() {
        let mut shop = Shop::new(1_700_000_000_000);
        let placed = shop.pass_time(1_700_000_001_000, 1.0);
        let text = serde_json::to_string(&placed[0]).expect("plain data");
        assert!(text.starts_with("{\"_op\":\"insert\",\"order_id\":1700000000000000,"), "{text}");
        assert!(text.ends_with("\"paid_at\":null}"), "{text}");
    }
}
