//! query: answers SQL over metric tables from blocks, and says how good each answer is.
//!
//! ```text
//! text ─▶ shape ─▶ parse ─▶ planner ─▶ plan        once per shape; literals become parameters
//! plan ─▶ restrict ─▶ reading ─▶ engine ─▶ answer   per request: which blocks, the blocks, the rows, their form
//!                       └─ record ─▶ verdict ─▶ quality
//! ```
//!
//! Invariant: an answer says `exact` only if the record of every partition that it touched vouches for every block read
//! under it, and knows of no gap in what was asked (design I1). Blocks of one sink are never paired with another's record.

pub mod accumulate;
pub mod admission;
pub mod answer;
pub mod block;
pub mod blocks;
pub mod codes;
pub mod engine;
pub mod groups;
pub mod memo;
pub mod near;
pub mod numbers;
pub mod order;
pub mod outputs;
pub mod parse;
pub mod passing;
pub mod plan;
pub mod planner;
pub mod plans;
pub mod reading;
pub mod restrict;
pub mod rewrite;
pub mod selected;
pub mod settings;
pub mod shape;
pub mod sums;
pub mod text;
pub mod verdict;

pub mod guard_service;
pub mod query_service;
pub mod reader_service;

pub mod query_http;

#[cfg(test)]
#[path = "fixture_tests.rs"]
mod fixture;

use arrow::error::ArrowError;
use thiserror::Error;

use crate::model::codec::CodecError;
use crate::model::expr::EvaluationError;
use crate::model::sql_error::SqlError;
use admission::Refusal;

/// Why a query has no answer.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum QueryError {
    #[error("the query has {found} bytes, more than {limit}")]
    TooLong { found: usize, limit: usize },
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("{error}")]
    UnknownTable { error: SqlError, near: Vec<String> },
    /// A value that the query computes with is not possible: an overflow, an impossible date.
    #[error("{0}")]
    Value(String),
    #[error("the answer has more than {0} rows: narrow the query, or use limit")]
    RowsLimit(usize),
    #[error("the query reads more than {0} bytes: narrow it by partition key or window_start")]
    ScanLimit(usize),
    #[error("the query took longer than {0} ms")]
    Deadline(u64),
    #[error("{}", .0.reason)]
    Refused(Refusal),
    /// The caller asked for a better answer than there is now.
    #[error("{0}")]
    QualityNotMet(String),
    #[error("a block cannot be read: {0}")]
    Damaged(#[from] CodecError),
    /// What only a bug can bring about; the process lives on.
    #[error("internal: {0}")]
    Internal(String),
}

impl QueryError {
    /// May the same query have an answer later?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Deadline(_) | Self::Refused(_) | Self::QualityNotMet(_))
    }
}

impl From<EvaluationError> for QueryError {
    fn from(error: EvaluationError) -> Self {
        match error {
            EvaluationError::Param(_) | EvaluationError::Rows(_) | EvaluationError::Arrow(_) => {
                Self::Internal(error.to_string())
            }
            other => Self::Value(other.to_string()),
        }
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        Self::Internal(error.to_string())
    }
}
