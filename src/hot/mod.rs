//! The hot tier: the durable results, as blocks of metric rows with their quality record.
//!
//! Invariant: a `Sink` whose `incomplete` says only that days were asked for whose rows are no longer kept; otherwise what is
//! absent here, beside a record, does not exist.

pub mod embedded;
pub mod memory;
pub mod mysql;
mod mysql_cleaning;
mod mysql_fault;
mod mysql_migration;
mod mysql_read;
pub mod mysql_settings;
mod mysql_table;
mod mysql_value;
mod mysql_write;
