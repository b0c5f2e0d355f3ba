//! Modes of tiers: whether each works, is worked around, or is being brought back.
//!
//! Invariant: an answer and the page show the same modes by the same names.

use serde::{Deserialize, Serialize};

/// How a tier is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Normal,
    Degraded,
    Recovering,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Degraded => "degraded",
            Self::Recovering => "recovering",
        }
    }
}

/// The mode of every tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    pub mq: Mode,
    pub kv: Mode,
    pub hot: Mode,
    pub cache: Mode,
    pub cold: Mode,
}

/// A joint between the roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Mq,
    Kv,
    Hot,
    Cache,
    Cold,
}

impl Tier {
    /// In the order of the flow.
    pub const ALL: [Self; 5] = [Self::Mq, Self::Kv, Self::Hot, Self::Cache, Self::Cold];

    pub fn name(self) -> &'static str {
        match self {
            Self::Mq => "mq",
            Self::Kv => "kv",
            Self::Hot => "hot",
            Self::Cache => "cache",
            Self::Cold => "cold",
        }
    }
}

/// Who decides a tier's mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The nodes' breakers, by what they report.
    #[default]
    Auto,
    /// An operator, until told otherwise.
    Hold(Mode),
    /// Degraded on purpose until then (Unix milliseconds), then `Auto`.
    DrillUntil(i64),
}

/// How a tier stands, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TierStanding {
    pub mode: Mode,
    pub policy: Policy,
    /// Unix milliseconds; zero before the first change.
    pub since_ms: i64,
    pub reason: String,
}
