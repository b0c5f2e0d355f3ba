//! The saved state of a partition: what it has counted, and up to which chunk. Pure.
//!
//! Invariant: a snapshot is used only with the definitions it was made with, and only if it is whole; else the state is
//! made again from the chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::counting::Counting;
use super::fold::{Fold, FoldSnapshot};
use super::horizon::Horizon;
use crate::model::applied::Applied;
use crate::model::catalog::Catalog;
use crate::model::codec::{self, CodecError};
use crate::model::id::{SourceId, Tip};

/// Grows with every change of the form; frames have a version of their own.
const FORM: u32 = 1;

/// Why a snapshot is not used.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SnapshotError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the snapshot has form {found}, this program reads form {FORM}")]
    Form { found: u32 },
    #[error("the snapshot was made with other definitions")]
    OtherDefinitions,
    #[error("the snapshot contradicts itself")]
    Contradiction,
}

/// Where in the chain of chunks a state stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// The last chunk counted.
    pub last: Tip,
    /// The highest chunk ever counted; above `last` after kv went back.
    pub reached: Tip,
}

/// Read first, so that another form is recognised before anything else is made of the bytes.
#[derive(Serialize, Deserialize)]
struct Lead {
    form: u32,
    definitions: u64,
    #[serde(with = "codec::byte_string")]
    body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Body {
    stand: Stand,
    horizon: Horizon,
    applied: Applied,
    tables: BTreeMap<SourceId, Arc<str>>,
    forgotten_ms: i64,
    doubtful: u64,
    rows: u64,
    fold: FoldSnapshot,
}

pub fn encode(catalog: &Catalog, stand: Stand, horizon: &Horizon, counting: &Counting) -> Bytes {
    let body = Body {
        stand,
        horizon: horizon.clone(),
        applied: counting.applied.clone(),
        tables: counting.tables.clone(),
        forgotten_ms: counting.forgotten_ms,
        doubtful: counting.doubtful,
        rows: counting.rows,
        fold: counting.fold.snapshot(),
    };
    codec::encode(&Lead { form: FORM, definitions: catalog.fingerprint(), body: codec::to_bytes(&body).into() }).into()
}

/// The inverse of `encode`, for the same definitions.
pub fn decode(catalog: &Catalog, bytes: &[u8]) -> Result<(Stand, Horizon, Counting), SnapshotError> {
    let lead: Lead = codec::decode("snapshot", bytes)?;
    if lead.form != FORM {
        return Err(SnapshotError::Form { found: lead.form });
    }
    if lead.definitions != catalog.fingerprint() {
        return Err(SnapshotError::OtherDefinitions);
    }
    let body: Body = codec::from_bytes("snapshot", &lead.body)?;
    let counting = Counting {
        fold: Fold::restore(catalog, body.fold).ok_or(SnapshotError::Contradiction)?,
        applied: body.applied,
        tables: body.tables,
        forgotten_ms: body.forgotten_ms,
        doubtful: body.doubtful,
        rows: body.rows,
    };
    Ok((body.stand, body.horizon, counting))
}
