//! The platform on real services: from rows committed in a MariaDB through Kafka, Redis and slaves to metric rows in another,
//! with processes and services killed on the way.
//!
//! Invariant: nothing here looks inside holdfast; the truth is what SQL over the source says at the end.

#![allow(clippy::disallowed_methods, reason = "tests wait for real processes and threads")]

mod exact;
mod platform;
mod workload;

#[allow(dead_code, reason = "the stories of the cluster use all of it")]
#[path = "../cluster/process.rs"]
mod process;
#[path = "../services/mod.rs"]
mod services;
