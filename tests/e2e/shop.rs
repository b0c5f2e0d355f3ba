//! The shop that most tests use: orders with two metrics over changes, and ticks that are only ever inserted.
//!
//! Invariant: the definitions here are those that `expected.rs` and `recompute.py` compute independently.

/// Days of this zone are not days of UTC, and 2026-03-29 has 23 hours.
pub const ZONE: chrono_tz::Tz = chrono_tz::Europe::Berlin;

const CLUSTER: &str = r#"
[cluster]
name = "shop"
partitions = 16
timezone = "Europe/Berlin"
"#;

const TABLES: &str = r#"
[[table]]
name = "orders"
key = ["order_id"]
partition_by = "merchant_id"
time = "paid_at"
columns = { order_id = "int", merchant_id = "int", status = "text", channel = "text", amount = "decimal(12,2)", buyer_id = "int", paid_at = "timestamp" }

[[metric]]
name = "gmv"
table = "orders"
where = "status = 'paid'"
group_by = ["channel"]
select = ["count(*) as orders", "sum(amount) as gmv", "avg(amount) as basket", "min(amount) as smallest", "max(amount) as largest", "count(distinct buyer_id) as buyers"]
windows = ["hour", "day"]

[[metric]]
name = "placed"
table = "orders"
select = ["count(*) as orders", "sum(amount) as gmv", "avg(amount) as basket", "min(amount) as smallest", "max(amount) as largest", "count(distinct buyer_id) as buyers"]
windows = ["hour", "day"]

[[table]]
name = "ticks"
key = ["tick_id"]
partition_by = "shop_id"
time = "at"
columns = { tick_id = "int", shop_id = "int", at = "timestamp" }

[[metric]]
name = "ticking"
table = "ticks"
select = ["count(*) as ticks", "sum(tick_id) as ids"]
windows = ["hour"]
"#;

pub fn config() -> String {
    format!("{CLUSTER}{TABLES}")
}

/// The same with further sections.
pub fn config_with(sections: &str) -> String {
    format!("{CLUSTER}{sections}{TABLES}")
}

/// The header of a CSV body of orders.
pub const ORDERS_HEADER: &str = "order_id,merchant_id,status,channel,amount,buyer_id,paid_at\n";
