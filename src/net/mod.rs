//! How roles talk to each other: the messages and, between processes, the wire.
//!
//! ```text
//!  link                 what users hold: call, send, open a stream; Handler on the other side
//!  tcp  memory          listen and dial over sockets, or within a test with faults; reconnects
//!  tcp_connection       runs one connection: reader, writer, those who wait
//!  mux                  calls, messages and streams become pieces in lanes with windows
//!  tcp_entry            handshake by the cluster secret, then hello: nothing else is read before
//!  frame                bytes become frames
//!
//!  control              what nodes and masters say; whereabouts: what a directory says of nodes and tasks
//!  peers                links to other nodes, and to the one that does a task
//!  push                 what gates tell owners elsewhere
//! ```
//!
//! Invariant: a role knows messages, never who receives them.

pub mod caller;
pub mod control;
pub mod error;
#[cfg(test)]
mod fixture_tests;
pub mod frame;
pub mod handshake;
pub mod hello;
#[cfg(test)]
mod hostile_tests;
mod incoming;
mod lane;
pub mod link;
pub mod memory;
mod memory_relay;
pub mod message;
mod mux;
mod outgoing;
pub mod peers;
pub mod push;
pub mod push_service;
mod refusals;
pub mod service;
pub mod settings;
mod stream_state;
mod streams;
pub mod tcp;
pub mod tcp_arrivals;
mod tcp_connection;
mod tcp_dialer;
mod tcp_entry;
mod tcp_handlers;
mod tcp_stream;
mod tcp_tls;
pub mod whereabouts;
