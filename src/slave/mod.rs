//! The slave: one task per partition that counts chunks into metrics and emits them to hot and cache.
//!
//! Invariant: the pure cores (`partition` and what it is made of) decide; the actors only carry out what they say.

pub mod chain;
pub mod counting;
pub mod crowd;
pub mod emission;
pub mod exchange;
pub mod fold;
pub mod groups;
pub mod horizon;
pub mod linux_thread;
pub mod offer;
pub mod pace;
pub mod partition;
pub mod partition_actor;
pub mod plan;
#[cfg(test)]
mod push_tests;
#[cfg(test)]
mod sample;
pub mod saving;
pub mod settings;
pub mod slave_actor;
pub mod slots;
pub mod snapshot;
pub mod standing;
pub mod texts;
