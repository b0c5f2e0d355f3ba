//! The cache tier: blocks of metric rows in bounded memory, in front of hot.
//!
//! Invariant: a `Sink` that may forget blocks, never silently: a read that a forgotten block could have answered is
//! `incomplete`.

pub mod memory;
pub mod redis;
mod redis_read;
