//! gate: takes rows in, gives them their place in a source, keeps them safe in mq, and moves them into kv's chain.
//!
//! ```text
//!   HTTP body ─▶ row_reader ─▶ scatter ─▶ parts ──Offer──▶ sequencer ─▶ mq ─▶ admission ─▶ kv ─▶ push to the owner
//!                csv_rows      columns                     ╰── lane: one for each partition ──╯ ╰─▶ idle
//!                csv_lines     spread                                   │
//!                ndjson_rows   moment                               gate_actor
//!   ╰───────────── gate_http ────────────╯
//! ```
//!
//! Between the parts and the sequencer may be another node: `offer_service` brings an offer to the gate that owns the
//! partition, wherever it lives. `gates_actor` has those that live here.
//!
//! Invariant: rows are acknowledged once mq has them, and in kv's chain each batch counts once (design §5).

pub mod settings;

pub mod columns;
pub mod csv_lines;
pub mod csv_rows;
pub mod moment;
pub mod ndjson_rows;
pub mod row_error;
pub mod row_reader;
pub mod scatter;
pub mod spread;
pub mod value;

pub mod admission;
pub mod exchange;
pub mod lane;
pub mod offering;
pub mod pressure;
pub mod retention;
pub mod sequencer;

pub mod gate_actor;
pub mod gates_actor;
pub mod offer_service;

pub mod gate_http;
pub mod request_http;
