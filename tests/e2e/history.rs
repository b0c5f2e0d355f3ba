//! A history of orders: placed, paid, refunded, corrected, moved, deleted, and come back. Seeded.
//!
//! Invariant: each change's `before` is the row as the change before it left it; `state` is what the changes lead to.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::DateTime;

use crate::random::Random;

/// The days around a change to summer time.
const FIRST_SECOND: i64 = 1_774_569_600; // 2026-03-27T00:00:00Z
const SECONDS: i64 = 4 * 86_400;
const MERCHANTS: i64 = 24;
const BUYERS: i64 = 40;
const CHANNELS: [Option<&str>; 4] = [Some("web"), Some("app"), Some("shop, \"corner\""), None];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub order_id: i64,
    pub merchant_id: i64,
    pub status: &'static str,
    pub channel: Option<&'static str>,
    pub cents: i64,
    pub buyer_id: Option<i64>,
    /// Seconds since the Unix epoch.
    pub paid_at: Option<i64>,
}

#[derive(Debug, Clone)]
pub enum Change {
    Insert(Order),
    Delete(Order),
    Update { before: Order, after: Order },
}

pub struct History {
    pub changes: Vec<Change>,
    pub state: BTreeMap<i64, Order>,
}

impl Order {
    /// The row as a JSON object without its braces.
    fn json(&self, random: &mut Random) -> String {
        let text =
            |value: Option<&str>| value.map_or("null".to_owned(), |value| serde_json::Value::from(value).to_string());
        let number = |value: Option<i64>| value.map_or("null".to_owned(), |value| value.to_string());
        let amount = decimal(self.cents);
        // Exact either way: as a number or as a string.
        let amount = if random.chance(50) { amount } else { format!("\"{amount}\"") };
        format!(
            r#""order_id":{},"merchant_id":{},"status":"{}","channel":{},"amount":{amount},"buyer_id":{},"paid_at":{}"#,
            self.order_id,
            self.merchant_id,
            self.status,
            text(self.channel),
            number(self.buyer_id),
            text(self.paid_at.map(rfc3339).as_deref()),
        )
    }
}

impl Change {
    pub fn ndjson(&self, random: &mut Random) -> String {
        match self {
            Self::Insert(row) if random.chance(50) => format!("{{{}}}\n", row.json(random)),
            Self::Insert(row) => format!("{{\"_op\":\"insert\",{}}}\n", row.json(random)),
            Self::Delete(row) => format!("{{\"_op\":\"delete\",{}}}\n", row.json(random)),
            Self::Update { before, after } => {
                format!("{{\"_op\":\"update\",\"_before\":{{{}}},{}}}\n", before.json(random), after.json(random))
            }
        }
    }
}

pub fn rfc3339(second: i64) -> String {
    DateTime::from_timestamp(second, 0).expect("a second of this century").format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Cents as a decimal with two digits.
pub fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

impl History {
    pub fn generate(seed: u64, count: usize) -> Self {
        let mut random = Random::new(seed);
        let mut history = Self { changes: Vec::with_capacity(count), state: BTreeMap::new() };
        let mut deleted: Vec<Order> = Vec::new();
        // For picking one at random; ids that were deleted meanwhile are skipped.
        let mut ids: Vec<i64> = Vec::new();
        while history.changes.len() < count {
            let chosen = random.between(1, 100);
            let living = (!ids.is_empty()).then(|| *random.pick(&ids)).filter(|id| history.state.contains_key(id));
            match (chosen, living) {
                (1..=45, _) | (_, None) => {
                    let order = new_order(history.changes.len() as i64 + 1, &mut random);
                    ids.push(order.order_id);
                    history.insert(order);
                }
                (46..=52, _) if !deleted.is_empty() => {
                    let at = random.index(deleted.len());
                    let order = deleted.swap_remove(at);
                    let order = if random.chance(50) { changed(&order, &mut random) } else { order };
                    history.insert(order);
                }
                (46..=62, Some(id)) => {
                    let order = history.state.remove(&id).expect("it lives");
                    history.changes.push(Change::Delete(order.clone()));
                    deleted.push(order);
                }
                (_, Some(id)) => {
                    let before = history.state[&id].clone();
                    let after = changed(&before, &mut random);
                    history.state.insert(id, after.clone());
                    history.changes.push(Change::Update { before, after });
                }
            }
        }
        history
    }

    fn insert(&mut self, order: Order) {
        let none = self.state.insert(order.order_id, order.clone());
        assert!(none.is_none(), "order {} is there already", order.order_id);
        self.changes.push(Change::Insert(order));
    }

    /// The changes as NDJSON bodies of 1 to `largest` changes each.
    pub fn batches(&self, random: &mut Random, largest: i64) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut rest = &self.changes[..];
        while !rest.is_empty() {
            let count = (random.between(1, largest) as usize).min(rest.len());
            let (these, others) = rest.split_at(count);
            let mut body = String::new();
            for change in these {
                write!(body, "{}", change.ndjson(random)).expect("strings can be written");
            }
            batches.push(Batch { body, changes: count as u64 });
            rest = others;
        }
        batches
    }
}

#[derive(Debug, Clone)]
pub struct Batch {
    pub body: String,
    pub changes: u64,
}

fn new_order(order_id: i64, random: &mut Random) -> Order {
    let paid = random.chance(60);
    Order {
        order_id,
        merchant_id: random.between(1, MERCHANTS),
        status: if paid { "paid" } else { "placed" },
        channel: *random.pick(&CHANNELS),
        cents: random.between(-500, 1_000_000),
        buyer_id: random.chance(95).then(|| random.between(1, BUYERS)),
        paid_at: (paid || random.chance(10)).then(|| random.between(FIRST_SECOND, FIRST_SECOND + SECONDS)),
    }
}

/// The same order with something else about it.
fn changed(order: &Order, random: &mut Random) -> Order {
    let mut after = order.clone();
    match random.between(1, 8) {
        1 | 2 if order.paid_at.is_none() => {
            after.status = "paid";
            after.paid_at = Some(random.between(FIRST_SECOND, FIRST_SECOND + SECONDS));
        }
        1 => after.status = "refunded",
        2 => after.paid_at = None,
        3 => after.cents = random.between(-500, 1_000_000),
        // Another hour, perhaps another day.
        4 => after.paid_at = order.paid_at.map(|at| at + 3_600 * random.between(-30, 30)),
        5 => after.merchant_id = random.between(1, MERCHANTS),
        6 => after.channel = *random.pick(&CHANNELS),
        7 => after.buyer_id = Some(random.between(1, BUYERS)),
        // An update that changes nothing that is counted.
        _ => {}
    }
    after
}
