//! What operators see of a cluster and decide: its state as one document, probes, metrics, live events, the admin page,
//! modes and drains; and who may ask for what.
//!
//! ```text
//!  ClusterState ──▶ assembly ──▶ view ──▶ JSON, command line
//!  (net::control)   health ──▶ complaints │
//!                                         ╰─▶ page, page_*, chart ──▶ hub_service ──▶ events
//! ```
//!
//! Invariant: page, command line and API show the same document.

pub mod access;
pub mod admin_http;
pub mod admin_state;
pub mod assembly;
mod chart;
pub mod control_http;
pub mod door_http;
#[cfg(test)]
mod fixture_tests;
mod health;
pub mod hub_service;
pub mod linux;
mod owners;
pub mod page;
mod page_charts;
mod page_flow;
mod page_map;
mod page_nodes;
mod page_past;
pub mod partitions;
pub mod readiness;
pub mod view;
pub mod words;
