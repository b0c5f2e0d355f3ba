//! master: keeps the cluster's catalog (nodes, who owns which task, modes, incidents) in a raft group; its active member decides.
//!
//! ```text
//!   nodes' heartbeats ─▶ detector ─▶ placement ─▶ command ─▶ consensus ─▶ catalog ─▶ effects
//!                                                            │  ▲            ╰─ on the active master only
//!                                                            ▼  │
//!                                        journal (sled, memory), the other masters
//! ```
//!
//! Invariant: masters are never on the data path; with their majority lost everything goes on as it was last assigned (design §4).

pub mod settings;

pub mod catalog;
pub mod checkpoints;
pub mod command;
pub mod detector;
pub mod incidents;
pub mod placement;
pub mod plan;

pub mod alarms;
pub mod arrangement;
pub mod duties;
pub mod governor;
pub mod handover;
pub mod health;
pub mod history;
pub mod overview;
pub mod petitions;
pub mod proposals;
pub mod roster;
pub mod weights;

pub mod consensus;
pub mod elections;
pub mod journal;
pub mod log;
pub mod masters;
pub mod requests;
pub mod signals;
pub mod upkeep;
pub mod vetting;
pub mod wire;
pub mod writes;

pub mod memory;
pub mod sled;

pub mod governing_service;
pub mod group_service;
pub mod journal_service;
pub mod master_service;
pub mod others_service;
pub mod sessions_service;
pub mod webhook_service;

#[cfg(test)]
mod consensus_tests;
#[cfg(test)]
mod governor_world;
#[cfg(test)]
mod group_world;
