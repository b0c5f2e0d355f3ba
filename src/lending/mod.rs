//! How a process uses the tiers of another: the words of the service STORE, and the side that asks. The side that answers
//! is the role `store`.
//!
//! ```text
//!  role ── Mq, Kv, Sink ──▶ mq/remote  kv/remote  remote_sink
//!                              │ one call for each question; a stream for what is too long for a call
//!                              │ one stream for all publications: their order is the order of calls
//!                              │ one stream for all waits for mq, however many partitions wait
//!                              ▼
//!                          remote_store ── net ──▶ store/lender_service ──▶ embedded tiers
//! ```
//!
//! Invariant: an answer says what the tier said, a refusal with where the tier stands included; without an answer the
//! outcome is unknown, and the caller hears `Unavailable`.

pub mod answer;
pub mod ask;
pub mod envelope;
pub mod forms;
pub mod items;
pub mod remote_items;
pub mod remote_sink;
pub mod remote_store;
pub mod settings;
