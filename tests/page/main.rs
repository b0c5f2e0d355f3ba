//! The admin page in a real browser: headless Chromium (Debian's package `chromium`, which `scripts/check` installs).
//!
//! Invariant: a page never asks another host for anything, works without JavaScript, and reports no error to the console.

#![allow(clippy::disallowed_methods, reason = "tests wait for real processes and threads")]

mod browser;
/// The clusters of the library's own tests.
#[path = "../../src/admin/fixture_tests.rs"]
mod fixture;
mod server;
mod stories;

// The fixture names the library's modules from the root.
use holdfast::{admin, model, net};
