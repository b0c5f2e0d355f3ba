//! How work on the serving database fails, and what helps.
//!
//! Invariant: whatever can pass is `Unavailable` to callers; only the rule of the chain and bytes that do not decode are
//! anything else.

use crate::model::block::MetricTableId;
use crate::model::codec::CodecError;
use crate::mysql_pool::MysqlError;
use crate::tier::TierError;

pub const TIER: &str = "hot";

/// Why a call was not done.
#[derive(Debug)]
pub enum Fault {
    /// As the tier's rules have it.
    Ruled(TierError),
    Failed(MysqlError),
}

/// What helps against a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The server broke the transaction off in favour of another.
    Again,
    /// Tables or the database are gone or changed: they are made anew, and empty.
    Prepare,
    Nothing,
}

impl From<TierError> for Fault {
    fn from(error: TierError) -> Self {
        Self::Ruled(error)
    }
}

impl From<MysqlError> for Fault {
    fn from(error: MysqlError) -> Self {
        Self::Failed(error)
    }
}

impl From<mysql_async::Error> for Fault {
    fn from(error: mysql_async::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Fault {
    /// As callers of the tier know it. No `From`: a second way into `TierError` would leave `?` elsewhere without a type.
    pub fn into_tier(self) -> TierError {
        match self {
            Self::Ruled(error) => error,
            Self::Failed(error) => TierError::Unavailable { tier: TIER, reason: error.to_string() },
        }
    }

    pub fn remedy(&self) -> Remedy {
        let Self::Failed(error) = self else { return Remedy::Nothing };
        match error.code() {
            // Deadlock; a record that changed since the snapshot.
            Some(1213 | 1020) => Remedy::Again,
            // No such database, table, column.
            Some(1049 | 1146 | 1054) => Remedy::Prepare,
            _ => Remedy::Nothing,
        }
    }

    /// Is the connection still in order, once it has rolled back?
    pub fn leaves_sound(&self) -> bool {
        match self {
            Self::Ruled(_) => true,
            Self::Failed(error) => error.server().is_some(),
        }
    }
}

pub fn damaged(place: String, source: CodecError) -> Fault {
    Fault::Ruled(TierError::Damaged { tier: TIER, place, source })
}

/// A block of a metric that this process was not told of.
pub fn unknown_table(id: MetricTableId) -> Fault {
    let reason = format!("no metric here has the table {:016x}; do all nodes have the same definitions?", id.0);
    Fault::Ruled(TierError::Unavailable { tier: TIER, reason })
}
