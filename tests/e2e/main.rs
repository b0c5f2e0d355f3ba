//! End-to-end proofs: the real process, driven only through its command line and HTTP interface.
//!
//! Invariant: nothing here looks inside holdfast; what is expected is computed by other engines, or by hand.

#![allow(clippy::disallowed_methods, reason = "tests wait for real processes and threads")]

mod bad_cli;
mod bad_input;
mod bad_queries;
mod changes;
mod client;
mod delivery;
mod expected;
mod flights;
mod flood;
mod fuzz;
mod history;
mod killed;
mod long_lines;
mod random;
mod sandbox;
mod shop;
