//! What operators see of a node: its state as one document, probes, metrics, the API's documentation, a status page;
//! and who may ask for what.
//!
//! Invariant: page, command line and API show the same document.

pub mod access;
pub mod admin_http;
pub mod door_http;
pub mod linux;
pub mod page;
pub mod readiness;
pub mod view;
