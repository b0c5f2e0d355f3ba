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
