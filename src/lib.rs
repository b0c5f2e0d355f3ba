//! holdfast turns the row changes of business databases into per-merchant metrics within a second, keeps answering when
//! what it stands on fails, and says of every answer how good it is.
//!
//! # The flow
//!
//! ```text
//!                        ╭───────────── push (a hint) ─────────────╮
//!  HTTP ──▶ gate ──▶ mq ──▶ gate ──▶ kv ──▶ slave ──▶ hot + cache ──▶ query ──▶ people
//!  CSV,     reads,   the    admits   chunks  folds,    blocks, each    reads     answers, with
//!  NDJSON   spreads  log    once     in a    emits     under a         records   their quality
//!                                    chain             record          first
//! ```
//!
//! A second way in is **capture**: it reads a database's binlog and publishes the changes to mq itself; gates admit them like all
//! others ([`capture`]).
//!
//! Every station handles a **partition** at a time: `hash(partition key) mod P`, the same cut everywhere. **Roles** (capture,
//! gate, slave, query) do the work and never call each other's code; **tiers** (mq, kv, hot, cache) are the joints between
//! them, each a trait with adapters: embedded, or Kafka, Redis and MySQL. A process is a **node** with one role or several ([`node`]); `up` has them all. The node
//! with the role **store** holds the embedded tiers and lends them to the others ([`store`] answers, [`lending`] asks); a role
//! cannot tell whose tiers it works on, nor in which process its neighbour is.
//!
//! Beside the flow stands the **master**: several of them agree on who does what ([`master`]); no row passes through it.
//! Every node is a **member**: it does what the newest directory of the masters says ([`member`]), and goes on with it while
//! there is no master. Nodes talk over [`net`]; no task has two owners that both count ([`tier::check_chain`]).
//!
//! # Invariant: what always holds
//!
//! - **Honest.** An answer that says `exact` equals the truth as of the time that it names, whatever failed.
//! - **Nothing silently lost.** What was acknowledged is counted, or still replayable, or stated as missing.
//! - **Counted once**, however often it is delivered: [`model::applied`].
//! - **One owner counts**: every write to kv, hot and cache names the tip that it builds on: [`tier::check_chain`].
//! - **Bounded.** Every queue, mailbox, cache and retry has a limit in `cluster.toml`.
//! - **The fallback is an everyday path**: a push that is lost is read from kv, a block that the cache lost from hot.
//!
//! # Floors
//!
//! A folder is a station on the flow, a file's name tells its floor, and imports only go down (`tests/tidy.rs` checks it):
//!
//! | floor | file name | what |
//! |---|---|---|
//! | 0 | `model/` | the nouns that everybody shares |
//! | 1 | a plain noun | pure decisions: no actor, clock, IO or log |
//! | 2 | a technology (`embedded.rs`, `memory.rs`) | adapters behind the traits |
//! | 3 | `*_actor.rs`, `*_service.rs` | mailbox, timers, carrying out what floor 1 decided |
//! | 4 | `*_http.rs` | requests and answers |
//! | 5 | `node/`, `config/`, `cli/` | putting it together |

// Tests wait for real threads and read real clocks.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

// The nouns, and what all floors stand on.
pub mod backoff;
pub mod breaker;
pub mod clock;
pub mod elsewhere_http;
pub mod eviction;
pub mod guardian;
pub mod lending;
pub mod locks;
pub mod metrics;
pub mod model;
pub mod mysql_pool;
pub mod net;
pub mod place;
pub mod problem;
mod redis_check;
mod redis_dialer;
mod redis_lane;
mod redis_reply;
mod redis_settings;
pub mod redis_store;
pub mod sled_flush;
mod sled_open;
pub mod sled_store;
mod sled_values;
pub mod tier;

// The flow, in its order.
pub mod capture;

pub mod mq;

pub mod gate;

pub mod kv;

pub mod slave;

pub mod hot;

pub mod cache;

pub mod query;

pub mod store;

// Around it.
pub mod master;

pub mod member;

pub mod admin;
pub mod cli;
pub mod config;
pub mod node;
