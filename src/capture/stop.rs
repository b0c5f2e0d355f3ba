//! Why a source stands still until somebody does something. Pure.
//!
//! Invariant: a reason names the table, the column and the place where it is about one, and what to do.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::place::Place;

/// What stopped a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{reason}{}; {way_out}", place_text(*place))]
pub struct Stop {
    pub kind: StopKind,
    pub reason: String,
    pub place: Option<Place>,
    /// What to do.
    pub way_out: String,
}

/// What an operator may order then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopKind {
    /// The server is not set up for it; checked again by itself.
    Server,
    /// A statement changed a table; an order to pass takes the table as it is now.
    Definition,
    /// Rows went away, or changed, without changes of their own; an order to pass leaves a gap that stays stated.
    Loss,
    /// The log was purged up to `first`; an order to pass goes on there, and the gap stays stated.
    Purged { first: Place },
    /// Something that cannot be read.
    Unreadable,
}

fn place_text(place: Option<Place>) -> String {
    place.map_or(String::new(), |place| format!(" (log file {}, offset {})", place.file, place.offset))
}

impl Stop {
    pub fn new(kind: StopKind, reason: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { kind, reason: reason.into(), place: None, way_out: way_out.into() }
    }

    pub fn unreadable(reason: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self::new(StopKind::Unreadable, reason, way_out)
    }

    pub fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

/// Why a piece of work did not end as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Worth another try.
    Failed(String),
    Stop(Stop),
    /// Another owner has the source.
    Fenced,
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}
