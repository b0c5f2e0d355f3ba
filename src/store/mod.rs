//! The store: lends this process's embedded tiers to other processes.
//!
//! ```text
//!  peers ── net ──▶ lender_service ──▶ workers_service (threads) ──▶ answers_service       one question
//!                                                                ├─▶ publications_service  a stream of batches for mq
//!                                                                └─▶ watches_service       a stream of waits for mq
//! ```
//!
//! Invariant: what was asked is done as a whole, whether the asker still waits or not; nothing that a peer says makes a tier
//! or this process break.

mod answers_service;
pub mod lender_service;
mod publications_service;
pub mod settings;
mod watches_service;
mod workers_service;
