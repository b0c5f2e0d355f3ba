//! How the network fails, in the words of those who use it.
//!
//! Invariant: every error names the peer; `is_retryable` says whether the same call may succeed later.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::handshake::MOST_NAME_BYTES;

/// Why a peer did not do what it was asked, or could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NetError {
    /// Whether the peer has done what it was asked is not known.
    #[error("{peer}: no connection: {reason}")]
    Lost { peer: String, reason: String },
    /// Whether the peer has done, or will still do, what it was asked is not known.
    #[error("{peer}: no answer within {after_ms} ms")]
    Timeout { peer: String, after_ms: u64 },
    /// Nothing was sent.
    #[error("{peer}: {what} are at their limit")]
    Full { peer: String, what: &'static str },
    #[error("{peer}: {length} bytes in one body; the limit is {limit} (`[net] body`)")]
    TooLarge { peer: String, length: usize, limit: usize },
    #[error("{peer}: {refusal}")]
    Refused { peer: String, refusal: Refusal },
    /// A stream ended before its end.
    #[error("{peer}: the stream was broken off: {reason}")]
    Aborted { peer: String, reason: String },
    #[error(
        "{address} can be reached from other machines, and there is no `[cluster] secret` by which nodes know each other; \
         set one or listen on 127.0.0.1"
    )]
    Insecure { address: String },
    #[error("a node or cluster cannot be called '{name}': names have at most {MOST_NAME_BYTES} printable bytes")]
    Name { name: String },
    #[error("cannot listen on {address}: {reason}")]
    Listen { address: String, reason: String },
    #[error("TLS: {file}: {reason}")]
    Tls { file: String, reason: String },
}

impl NetError {
    /// May the same call succeed later without the caller changing anything?
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Timeout { .. } | Self::Full { .. } | Self::Aborted { .. } => true,
            Self::Refused { refusal, .. } => refusal.kind.is_retryable(),
            Self::TooLarge { .. } | Self::Insecure { .. } | Self::Name { .. } => false,
            Self::Listen { .. } | Self::Tls { .. } => false,
        }
    }
}

/// A handler's no. What a service has to say beyond it (a tier's error, the address of the active master) belongs in
/// its answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{kind}: {reason}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The node does not have the service (any more).
    NoSuchService,
    /// The body is not what the service reads.
    Malformed,
    /// Not now.
    Busy,
    /// The service is here and could not do it.
    Failed,
}

impl RefusalKind {
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Busy)
    }
}

impl std::fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoSuchService => "no such service",
            Self::Malformed => "malformed",
            Self::Busy => "busy",
            Self::Failed => "failed",
        })
    }
}

impl Refusal {
    pub fn new(kind: RefusalKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    pub fn no_such_service(service: u16) -> Self {
        Self::new(RefusalKind::NoSuchService, service.to_string())
    }
}
