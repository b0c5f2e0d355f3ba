//! The cluster as real processes on loopback: killed, stopped, continued, cut off, joined and left.
//!
//! Invariant: nothing here looks inside holdfast; every exact answer is compared with a recomputation, while things happen and
//! afterwards.

#![allow(clippy::disallowed_methods, reason = "tests wait for real processes and threads")]

mod client;
mod cluster;
mod flow;
mod gates;
mod masters;
mod membership;
mod process;
mod proxy;
mod slaves;
mod truth;
