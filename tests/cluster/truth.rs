//! The rows that stories send, and what must come out, recomputed from them.
//!
//! Invariant: a batch is known by its number alone, so whoever repeats it sends the same rows.

use std::collections::BTreeMap;
use std::fmt::Write;

/// (hour, merchant) → (orders, cents).
pub type Table = BTreeMap<(String, u64), (u64, u64)>;

pub const ROWS: u64 = 40;
const MERCHANTS: u64 = 60;

#[derive(Debug, Clone, Copy)]
pub struct Batch(pub u64);

/// Table and metric of all stories.
pub const TABLES: &str = r#"
[[table]]
name = "orders"
key = ["order_id"]
partition_by = "merchant_id"
time = "paid_at"
columns = { order_id = "int", merchant_id = "int", amount = "decimal(12,2)", paid_at = "timestamp" }

[[metric]]
name = "gmv"
table = "orders"
select = ["count(*) as orders", "sum(amount) as gmv"]
windows = ["hour"]
"#;

impl Batch {
    pub fn key(self) -> String {
        format!("batch-{}", self.0)
    }

    /// (order, merchant, cents, hour).
    fn rows(self) -> impl Iterator<Item = (u64, u64, u64, u64)> {
        (self.0 * ROWS..(self.0 + 1) * ROWS).map(|order| (order, order * 7 % MERCHANTS, 100 + order % 9_000, order % 3))
    }

    pub fn csv(self) -> String {
        let mut text = String::from("order_id,merchant_id,amount,paid_at\n");
        for (order, merchant, cents, hour) in self.rows() {
            writeln!(text, "{order},{merchant},{}.{:02},2026-11-01 {hour:02}:30:00", cents / 100, cents % 100)
                .expect("writing to a string does not fail");
        }
        text
    }
}

/// What the metric's table holds after these.
pub fn recomputed(batches: impl IntoIterator<Item = Batch>) -> Table {
    let mut table = Table::new();
    for (_, merchant, cents, hour) in batches.into_iter().flat_map(Batch::rows) {
        let group = table.entry((format!("2026-11-01T{hour:02}:00:00Z"), merchant)).or_default();
        *group = (group.0 + 1, group.1 + cents);
    }
    table
}
