//! How roles talk to each other: the messages and, between processes, the wire.
//!
//! Invariant: a role knows messages, never who receives them.

pub mod caller;
pub mod message;
