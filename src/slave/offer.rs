//! What a partition and its emissions tell each other.
//!
//! Invariant: plain data, made and read within one step.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::model::applied::Applied;
use crate::model::block::BlockKey;
use crate::model::quality::{Missing, Unavailable};
use crate::tier::SinkWrite;

/// What the owner has to say beside its blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    pub as_of_ms: i64,
    pub missing: Vec<Missing>,
    pub missing_more: u64,
    pub unavailable: Vec<Unavailable>,
}

/// What an emission is made of.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    pub applied: &'a Applied,
    pub claim: &'a Claim,
    /// At least the dirty blocks, as they are now; `None`: without rows. Without them, blocks stay dirty: the owner's
    /// state lacks something, and must not be emitted over what is known better.
    pub blocks: Option<&'a HashMap<BlockKey, Option<Bytes>>>,
}

/// What a partition knows when it looks at a sink's standing.
#[derive(Debug)]
pub struct Knowledge<'a> {
    pub applied: &'a Applied,
    /// Requests seen until then may have been forgotten, Unix milliseconds.
    pub forgotten_ms: i64,
    pub blocks: BTreeSet<BlockKey>,
}

/// What a partition will have to say, as far as is known before it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Outlook {
    pub as_of_ms: i64,
    /// Rows were counted since the blocks were last named.
    pub news: bool,
    /// No blocks are emitted.
    pub withheld: bool,
}

/// What follows from a finished write.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The emission goes on.
    Write(SinkWrite),
    /// The emission is complete; the changes made at these times are visible now.
    Done { waiting_ms: Vec<i64> },
    /// It failed; what it had to say is dirty again.
    Failed,
}

/// What is known of a sink, for reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EmissionReport {
    /// What the sink's record says, Unix milliseconds.
    pub as_of_ms: Option<i64>,
    pub dirty_blocks: usize,
    /// Unix milliseconds.
    pub last_emission_ms: Option<i64>,
    pub last_duration_ms: i64,
    /// Failures in a row.
    pub failures: u32,
    /// Why the sink does not have everything; gone once it has.
    pub trouble: Option<String>,
}
