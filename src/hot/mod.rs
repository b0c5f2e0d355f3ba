//! The hot tier: the durable results, as blocks of metric rows with their quality record.
//!
//! Invariant: a `Sink` whose `incomplete` is never set: what is absent here, beside a record, does not exist.

pub mod embedded;
pub mod memory;
