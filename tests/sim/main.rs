//! The simulator: production cores of gate, slave, query, master and member on memory tiers, in virtual time, under faults that one seed
//! decides. Checkers stand apart from stories and compare all the time with the ground truth (design §3, §10).
//!
//! Invariant: the same seed gives the same run. `HOLDFAST_SIM_SEED=… cargo test --release --test sim replay -- --nocapture`
//! shows one.

/// As in production; a run is mostly small pieces of memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod actors;
mod asker;
mod assigner;
mod bugs;
mod calls;
mod capture;
mod checkers;
mod clients;
mod control;
mod event;
mod faults;
mod network;
mod plan;
mod proof;
mod random;
mod shop;
mod stories;
mod tiers;
mod truth;
mod world;
