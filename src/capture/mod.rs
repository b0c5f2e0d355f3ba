//! capture: reads the changes of databases and publishes them to mq as weighted rows.
//!
//! ```text
//!            ╭─ mysql_snapshot ─▶ cell ─╮
//!   server ──┤                          ├─▶ meaning ─▶ weighing ─▶ tiling ─▶ mq ─▶ acknowledging ─▶ checkpoint
//!            ╰─ mysql_log ─▶ event ─▶ log, row ─╯       (by partition)  (spans)
//!               mysql ─▶ server (checks)    ╰─ definition (what a statement does to a table)
//! ```
//!
//! What happens next is decided by `standing` and carried out by `source_service`.
//!
//! Invariant: a checkpoint never passes a change that mq has not acknowledged, and what cannot be read stops the source with a
//! reason: nothing is skipped silently (design I2).

pub mod settings;

pub mod acknowledging;
pub mod cell;
pub mod checkpoint;
pub mod definition;
pub mod event;
pub mod finding;
pub mod gtid;
pub mod layout;
pub mod log;
pub mod mapping;
pub mod meaning;
pub mod place;
pub mod retreat;
pub mod row;
pub mod server;
pub mod standing;
pub mod statement;
pub mod stop;
pub mod tablemap;
pub mod taking_back;
pub mod tiling;
pub mod weighing;

pub mod memory;
pub mod mysql;
pub mod mysql_log;
pub mod mysql_settings;
pub mod mysql_snapshot;

pub mod capture_service;
mod following_service;
mod moving_service;
mod passing_service;
mod publishing_service;
mod reading_service;
mod snapshot_service;
mod source_service;
mod taking_back_service;
