//! Capture on a real MariaDB: what mq holds at the end is what the database holds, whatever was killed on the way.

#![allow(clippy::disallowed_methods, reason = "tests wait for real processes and threads")]

mod chaos;
mod exact;
mod faults;
mod moves;
mod setup;
mod stops;

#[path = "../services/mod.rs"]
mod services;
