//! The load that the figures speak of: orders of 10,000 merchants on 4 channels over 24 hours.
//!
//! Invariant: the same rows for the same arguments, on every machine.

use std::fmt::Write;
use std::ops::Range;

pub const MERCHANTS: u64 = 10_000;
pub const CHANNELS: [&str; 4] = ["app", "web", "store", "phone"];

/// The definition of table and metric: a count and a sum by merchant, channel and hour.
pub const DEFINITION: &str = r#"
[[table]]
name = "orders"
key = ["order_id"]
partition_by = "merchant_id"
time = "paid_at"
columns = { order_id = "int", merchant_id = "int", channel = "text", amount = "decimal(12,2)", paid_at = "timestamp" }

[[metric]]
name = "gmv"
table = "orders"
group_by = ["channel"]
select = ["count(*) as orders", "sum(amount) as gmv"]
windows = ["hour"]
"#;

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

pub const HEADER: &str = "order_id,merchant_id,channel,amount,paid_at\n";

/// Appends `count` rows from order number `first` on, of the day `2026-11-(1 + day)`, hours in order through the `total`
/// rows of the day as they would come in life.
pub fn append_rows(text: &mut String, random: &mut Random, first: u64, count: u64, total: u64, day: u64) {
    append_rows_of(MERCHANTS, text, random, first..first + count, total, day);
}

/// The same of fewer merchants, or more.
pub fn append_rows_of(
    merchants: u64,
    text: &mut String,
    random: &mut Random,
    orders: Range<u64>,
    total: u64,
    day: u64,
) {
    for order in orders {
        let second = order % total * 86_400 / total;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let merchant = random.below(merchants) + 1;
        let channel = CHANNELS[random.below(4) as usize];
        let cents = random.below(50_000) + 100;
        writeln!(
            text,
            "{order},{merchant},{channel},{}.{:02},2026-11-{:02} {hour:02}:{minute:02}:{second:02}",
            cents / 100,
            cents % 100,
            1 + day,
        )
        .expect("writing to a string does not fail");
    }
}
