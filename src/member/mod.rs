//! member: a node's part in the cluster. It keeps to the masters, and does what the newest directory says.
//!
//! ```text
//!   masters ── Standing, Directory, Release ──▶ membership ──▶ run, let go ──▶ the node's roles
//!           ◀── Hello, Beat, Released, Leaving ──╯    ╰──▶ the directory, for all who look for another node
//! ```
//!
//! Invariant: what the last directory said goes on for as long as no newer one says otherwise, masters or not (design I7).

pub mod membership;
pub mod work;

pub mod member_service;
