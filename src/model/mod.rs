//! The nouns that every station of the flow shares: what a change is, where it stands, what has been counted, what
//! a metric is and how good an answer is.
//!
//! Invariant: nothing here reads a clock, does IO or knows an actor; this floor imports no other one, and of
//! crates only those that compute: arrow, serde, sqlparser, chrono, hashes, codecs.

pub mod aggregate;
pub mod aggregate_call;
mod aggregate_values;
pub mod applied;
pub mod batch;
pub mod block;
pub mod catalog;
pub mod codec;
pub mod expr;
pub mod id;
pub mod incident;
pub mod metric;
pub mod mode;
pub mod position;
pub mod quality;
pub mod report;
pub mod rows;
pub mod schema;
pub mod sql_error;
pub mod task;
pub mod units;
pub mod window;
