//! What a run is made of: limits, sizes, rates, and which faults may happen. A seed makes one, a story changes it.
//!
//! Invariant: everything that a run does follows from its plan and its seed.

use std::sync::{Arc, LazyLock};

use holdfast::backoff::Backoff;
use holdfast::config::{Config, DEFAULTS};
use holdfast::model::units::{ByteSize, Millis};
use holdfast::{gate, master, query, slave};

use crate::control::trouble::CONTROL_FAULTS;
use crate::faults::{FAULTS, Fault};
use crate::random::Random;

#[derive(Debug, Clone)]
pub struct Plan {
    pub gate: Arc<gate::settings::Settings>,
    pub slave: slave::settings::Settings,
    pub query: query::settings::Settings,
    pub cache_bytes: usize,
    /// How far a node's clock may be off, either way.
    pub clock_off_ms: i64,
    /// How long faults go on.
    pub trouble_ms: i64,
    /// The faults that may happen, and the mean time between two.
    pub faults: Vec<Fault>,
    pub fault_every_ms: i64,
    /// Of 1,000 messages, how many are lost, doubled, late.
    pub unsteady_permille: u64,
    /// Of questions, how many are asked of hot only.
    pub skip_cache_percent: u64,
    /// Are all hints to owners lost?
    pub pushes_lost: bool,
    /// Mean times between requests of clients, ticks of capture, questions.
    pub push_every_ms: i64,
    pub capture_every_ms: i64,
    pub ask_every_ms: i64,
    /// How many requests name themselves by a key, percent.
    pub keyed_percent: u64,
    /// Do masters give out the tasks?
    pub masters: Option<master::settings::Settings>,
    /// How soon all must be exact once faults have ended.
    pub restored_within_ms: i64,
}

/// Masters cost time: every so many seeds have them, the others assign tasks without.
pub const SEEDS_PER_CONTROL: u64 = 2;

static SHIPPED: LazyLock<Config> = LazyLock::new(|| toml::from_str(DEFAULTS).expect("the shipped configuration"));

impl Plan {
    /// Times as they are shipped, or a little shorter, so that a few seconds hold everything.
    pub fn calm() -> Self {
        let config = SHIPPED.clone();
        let retry = Backoff { first: Millis(50), most: Millis(2_000) };
        let gate = gate::settings::Settings {
            in_flight: 12,
            backlog_batches: 150,
            holes: 16,
            skipped_offsets: 8,
            retry_first: retry.first,
            retry_most: retry.most,
            ..config.gate
        };
        let slave = slave::settings::Settings {
            emit_bytes: ByteSize(2_500),
            snapshot_interval: Millis(4_000),
            kv_read_bytes: ByteSize(3_000),
            kv_read_memory: ByteSize(24_000),
            missing_most: 2,
            retry,
            ..config.slave
        };
        Self {
            gate: Arc::new(gate),
            slave,
            query: query::settings::Settings { block_memory: ByteSize(64 << 20), ..config.query },
            cache_bytes: 1 << 20,
            clock_off_ms: 0,
            trouble_ms: 15_000,
            faults: Vec::new(),
            fault_every_ms: 1_000,
            unsteady_permille: 0,
            push_every_ms: 450,
            capture_every_ms: 450,
            ask_every_ms: 350,
            skip_cache_percent: 10,
            pushes_lost: false,
            keyed_percent: 50,
            masters: None,
            restored_within_ms: 15_000,
        }
    }

    /// A run full of trouble, of the kind that the seed decides.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x91a7);
        let mut plan = Self::calm();
        plan.clock_off_ms = if random.percent(40) { random.between(50, 2_000) } else { 0 };
        plan.unsteady_permille = *random.pick(&[0, 10, 40]);
        plan.fault_every_ms = *random.pick(&[300, 800, 1_600]);
        plan.cache_bytes = *random.pick(&[1 << 20, 1 << 20, 16 << 10, 6 << 10]);
        plan.keyed_percent = *random.pick(&[20, 50, 100]);
        plan.query.local_max_age = Millis(*random.pick(&[0, 300, 1_000, 1_000]));
        plan.faults = FAULTS.to_vec();
        match random.below(4) {
            // What is trimmed cannot be read again: kv then loses only what mq still has.
            0 => {
                plan.trim_early();
                plan.faults.retain(|fault| *fault != Fault::KvEmptied);
            }
            1 => plan.query.stale_after = Millis(300),
            _ => {}
        }
        if seed.is_multiple_of(SEEDS_PER_CONTROL) {
            plan.give_masters();
        }
        plan
    }

    /// Masters give out the tasks, and can fail as everything else.
    pub fn give_masters(&mut self) {
        let shipped = SHIPPED.master.clone();
        // Snapshots come often enough to be seen.
        self.masters = Some(master::settings::Settings { compact_entries: 30, keep_entries: 8, ..shipped });
        if !self.faults.is_empty() {
            self.faults.retain(|fault| *fault != Fault::Reassign);
            self.faults.extend_from_slice(CONTROL_FAULTS);
        }
        self.restored_within_ms = 25_000;
    }

    /// Tiers forget soon what they need not hold.
    pub fn trim_early(&mut self) {
        let gate = gate::settings::Settings { mq_keep: Millis(8_000), ..(*self.gate).clone() };
        self.gate = Arc::new(gate);
        self.slave.kv_keep = Millis(3_000);
        self.slave.snapshot_interval = Millis(1_500);
        // Times to keep go by the clocks of nodes.
        self.clock_off_ms = self.clock_off_ms.min(400);
    }
}
