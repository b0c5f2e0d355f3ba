//! Where a change stands in its source, and the stretch of a source that a batch covers.
//!
//! Invariant: positions of one source are totally ordered; a span is never empty backwards (`from <= to`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a change stands in its source. Zero is before the first change.
///
/// A push source counts 1, 2, 3 …; a binlog packs file (31 bits), offset (64 bits) and row in the event (32 bits), so
/// that a position always fits the positive half of an `i128` and can be an Arrow decimal column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub u128);

impl Position {
    pub const ZERO: Self = Self(0);

    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + u128::from(count))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The half-open stretch `(from, to]` of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    pub from: Position,
    pub to: Position,
}

impl Span {
    pub fn new(from: Position, to: Position) -> Self {
        assert!(from <= to, "a span goes forward: ({from}, {to}]");
        Self { from, to }
    }

    pub fn contains(&self, position: Position) -> bool {
        self.from < position && position <= self.to
    }

    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.from, self.to)
    }
}
