//! The `[query]` section of the configuration: every limit that keeps queries bounded.
//!
//! Invariant: no key has a default here; the shipped `cluster.toml` is the only place that states one.

use serde::{Deserialize, Serialize};

use crate::model::units::{ByteSize, Millis};

/// The `[query]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The longest SQL text; a longer one is refused before it is looked at.
    pub sql_limit: ByteSize,
    /// The most names, keywords and signs of a text (values and commas do not count): bounds the size of its tree.
    pub tokens_limit: usize,
    /// How deep parentheses and expressions may nest: bounds the stack.
    pub nesting_limit: usize,
    /// The most rows of an answer; more is an error, never a cut answer.
    pub rows_limit: usize,
    /// The most bytes of blocks that one query may read.
    pub scan_limit: ByteSize,
    /// The longest time that one query may take.
    pub deadline: Millis,
    /// Memory for plans of texts and shapes seen before.
    pub plan_memory: ByteSize,
    /// Memory for decoded blocks and for recent reads.
    pub block_memory: ByteSize,
    /// How long a read is served again from local memory.
    pub local_max_age: Millis,
    /// A cached record older than this is compared with the one in hot.
    pub stale_after: Millis,
    /// How often a read that met an emission under way is repeated.
    pub settle_tries: u32,
    /// The pause before each repetition.
    pub settle_pause: Millis,
    /// From how many blocks on a query runs beside the HTTP workers.
    pub offload_blocks: usize,
    /// Queries that one client may send per second, on average.
    pub rate: u32,
    /// Queries that one client may send at once after a pause.
    pub burst: u32,
    /// Queries of one client under way at the same time.
    pub client_in_flight: u32,
    /// Queries of all clients under way at the same time.
    pub in_flight: u32,
    /// How many clients are told apart; those beyond share one allowance.
    pub clients: usize,
}

#[cfg(test)]
impl Settings {
    /// Small, quick limits for tests.
    pub fn for_tests() -> Self {
        Self {
            sql_limit: ByteSize(64 << 10),
            tokens_limit: 2_000,
            nesting_limit: 40,
            rows_limit: 10_000,
            scan_limit: ByteSize(64 << 20),
            deadline: Millis(5_000),
            plan_memory: ByteSize(1 << 20),
            block_memory: ByteSize(16 << 20),
            local_max_age: Millis(0),
            stale_after: Millis(3_000),
            settle_tries: 3,
            settle_pause: Millis(1),
            offload_blocks: 64,
            rate: 1_000_000,
            burst: 1_000_000,
            client_in_flight: 100,
            in_flight: 100,
            clients: 100,
        }
    }
}
