//! What an offer is on its way to another process, how it fails, and when it is made again. Pure.
//!
//! Invariant: rows without an idempotency key are offered again only where it is certain that nothing of them was taken;
//! once it is not certain, it stays so, whatever is answered to the same offer later.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::exchange::{Accepted, Offer, OfferError};
use crate::model::catalog::Catalog;
use crate::model::codec::{self, CodecError};
use crate::model::id::PartitionId;

/// Why rows were not taken, or are not known to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The gate said no.
    #[error("{0}")]
    Refused(OfferError),
    /// The gate is not there: nothing was taken.
    #[error("the partition's gate is not there: {0}")]
    Away(String),
    /// Nothing was taken, and nothing will be.
    #[error("{0}")]
    Impossible(String),
    /// It is not known whether mq has the rows.
    #[error("{0}")]
    Unknown(String),
    /// The gate was lost after it was asked: it is not known whether mq has the rows.
    #[error("{0}")]
    Lost(String),
}

impl Failure {
    pub fn of(error: OfferError) -> Self {
        match error {
            OfferError::Ended => Self::Lost(error.to_string()),
            _ if error.is_refusal() => Self::Refused(error),
            _ => Self::Unknown(error.to_string()),
        }
    }

    /// Is it certain that nothing was taken?
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Away(_) | Self::Impossible(_))
    }

    /// May the owner of the next moment take it?
    pub fn is_worth_another(&self, keyed: bool) -> bool {
        match self {
            Self::Away(_) | Self::Refused(OfferError::Fenced | OfferError::HandedOver) => true,
            Self::Lost(_) => keyed,
            Self::Refused(_) | Self::Impossible(_) | Self::Unknown(_) => false,
        }
    }

    /// The failure of all attempts together, this being the last.
    pub fn after(self, was_lost: bool) -> Self {
        let is_final = matches!(self, Self::Refused(OfferError::KeyReused));
        if was_lost && self.is_refusal() && !is_final {
            return Self::Unknown(format!("a gate was lost while it was asked, and then: {self}"));
        }
        self
    }
}

/// What stands before the rows.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    partition: PartitionId,
    table: Arc<str>,
    /// Of the table's columns: all nodes must have the same.
    schema: u64,
    key: Option<Arc<str>>,
    rows: u32,
    weighted: bool,
    hours: Option<(i32, i32)>,
}

/// Room for the head beside the longest rows.
pub const MOST_HEAD_BYTES: usize = 4 << 10;

const LENGTH_BYTES: usize = 4;

/// Format: head length (u32 le), head, rows.
pub fn encode(partition: PartitionId, offer: &Offer) -> Bytes {
    let Offer { table, key, body, rows, weighted, hours } = offer;
    let (table, schema) = (table.name.clone(), table.fingerprint);
    let head = Head { partition, table, schema, key: key.clone(), rows: *rows, weighted: *weighted, hours: *hours };
    let head = codec::to_bytes(&head);
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + head.len() + body.len());
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(body);
    bytes.into()
}

/// The inverse; the rows share `bytes`. Without an offer: this node does not have that table.
pub fn decode(catalog: &Catalog, mut bytes: Bytes) -> Result<(PartitionId, Option<Offer>), CodecError> {
    let truncated = CodecError::Truncated { what: "offer", len: bytes.len() };
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>().map(|length| u32::from_le_bytes(*length) as usize) else {
        return Err(truncated);
    };
    let mut body = bytes.split_off(LENGTH_BYTES);
    if body.len() < length {
        return Err(truncated);
    }
    let head: Head = codec::from_bytes("offer", &body.split_to(length))?;
    if head.rows == 0 {
        return Err(CodecError::malformed("offer", "no rows"));
    }
    let table = catalog.table(&head.table).filter(|table| table.fingerprint == head.schema).cloned();
    let Head { partition, key, rows, weighted, hours, .. } = head;
    Ok((partition, table.map(|table| Offer { table, key, body, rows, weighted, hours })))
}

/// What a gate of another process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Accepted {
        rows: u32,
        duplicate: bool,
    },
    Busy,
    Backlog {
        batches: u64,
    },
    KeyReused,
    Fenced,
    HandedOver,
    /// The partition's gate is not in that process.
    NotHere,
    /// It has another table of that name, or none.
    OtherTable,
    Unknown {
        reason: String,
    },
    Lost {
        reason: String,
    },
}

impl Answer {
    pub fn of(result: Result<Accepted, Failure>) -> Self {
        match result {
            Ok(Accepted { rows, duplicate }) => Self::Accepted { rows, duplicate },
            Err(Failure::Refused(OfferError::Busy)) => Self::Busy,
            Err(Failure::Refused(OfferError::Backlog { batches })) => Self::Backlog { batches },
            Err(Failure::Refused(OfferError::KeyReused)) => Self::KeyReused,
            Err(Failure::Refused(OfferError::Fenced)) => Self::Fenced,
            Err(Failure::Refused(OfferError::HandedOver)) => Self::HandedOver,
            Err(Failure::Away(_)) => Self::NotHere,
            Err(Failure::Impossible(_)) => Self::OtherTable,
            Err(Failure::Lost(reason)) => Self::Lost { reason },
            Err(Failure::Refused(error @ (OfferError::Unavailable(_) | OfferError::Ended))) => {
                Self::Unknown { reason: error.to_string() }
            }
            Err(Failure::Unknown(reason)) => Self::Unknown { reason },
        }
    }

    pub fn result(self) -> Result<Accepted, Failure> {
        let refused = |error| Err(Failure::Refused(error));
        match self {
            Self::Accepted { rows, duplicate } => Ok(Accepted { rows, duplicate }),
            Self::Busy => refused(OfferError::Busy),
            Self::Backlog { batches } => refused(OfferError::Backlog { batches }),
            Self::KeyReused => refused(OfferError::KeyReused),
            Self::Fenced => refused(OfferError::Fenced),
            Self::HandedOver => refused(OfferError::HandedOver),
            Self::NotHere => Err(Failure::Away("it has moved, or is being started".into())),
            Self::OtherTable => Err(Failure::Impossible("the owner's node has another table of that name".into())),
            Self::Unknown { reason } => Err(Failure::Unknown(reason)),
            Self::Lost { reason } => Err(Failure::Lost(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_key_are_offered_again_only_where_nothing_was_taken() {
        let lost = Failure::of(OfferError::Ended);
        assert!(!lost.is_refusal() && lost.is_worth_another(true) && !lost.is_worth_another(false));
        for failure in [Failure::Away("restarting".into()), Failure::Refused(OfferError::HandedOver)] {
            assert!(failure.is_refusal() && failure.is_worth_another(true) && failure.is_worth_another(false));
        }
        assert!(!Failure::of(OfferError::Busy).is_worth_another(true), "the client is told when to come again");
    }

    #[test]
    fn what_was_once_uncertain_stays_so() {
        let busy = Failure::Refused(OfferError::Busy);
        assert_eq!(busy.clone().after(false), busy);
        assert!(!busy.after(true).is_refusal());
        assert_eq!(Failure::of(OfferError::KeyReused).after(true), Failure::Refused(OfferError::KeyReused));
    }

    #[test]
    fn answers_mean_the_same_on_the_other_side() {
        let accepted = Ok(Accepted { rows: 3, duplicate: true });
        assert_eq!(Answer::of(accepted.clone()).result(), accepted);
        let errors = [
            OfferError::Busy,
            OfferError::Backlog { batches: 4 },
            OfferError::KeyReused,
            OfferError::Fenced,
            OfferError::HandedOver,
            OfferError::Ended,
        ];
        for failure in errors.map(Failure::of) {
            assert_eq!(Answer::of(Err(failure.clone())).result(), Err(failure));
        }
    }
}
