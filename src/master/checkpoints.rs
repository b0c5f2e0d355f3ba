//! How far each source's changes are in mq, as the masters agree: where the next owner of its capture begins.
//!
//! Invariant: only the assignment that is in force moves a checkpoint; what is in it is the capture's own matter. Bounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::model::codec;
use crate::model::id::Epoch;

/// Part of the replicated state, so the same in every master: not configurable.
const SOURCES_MOST: usize = 256;
/// A position, or a list of GTIDs, and how far a first copy has come.
pub const BYTES_MOST: usize = 64 << 10;

/// Of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Of the assignment that saved it.
    pub epoch: Epoch,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// For the capture to read.
    #[serde(with = "codec::byte_string")]
    pub state: Bytes,
}

/// Of all sources, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoints(BTreeMap<Arc<str>, Checkpoint>);

impl Checkpoints {
    pub fn get(&self, source: &str) -> Option<&Checkpoint> {
        self.0.get(source)
    }

    /// Keeps `checkpoint` in place of the one before. An error: why not.
    pub fn save(&mut self, source: Arc<str>, checkpoint: Checkpoint) -> Result<(), &'static str> {
        if checkpoint.state.len() > BYTES_MOST {
            return Err("the checkpoint is too long");
        }
        match self.0.get(&source) {
            Some(before) if before.epoch > checkpoint.epoch => return Err("a later owner has saved its own"),
            None if self.0.len() >= SOURCES_MOST => return Err("there are as many sources as there can be"),
            _ => {}
        }
        self.0.insert(source, checkpoint);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(epoch: Epoch, state: &'static [u8]) -> Checkpoint {
        Checkpoint { epoch, at_ms: 1, state: Bytes::from_static(state) }
    }

    #[test]
    fn an_owner_that_was_replaced_moves_nothing() {
        let mut checkpoints = Checkpoints::default();
        assert_eq!(checkpoints.save("shop".into(), checkpoint(2, b"a")), Ok(()));
        assert!(checkpoints.save("shop".into(), checkpoint(1, b"b")).is_err());
        assert_eq!(checkpoints.get("shop"), Some(&checkpoint(2, b"a")));
        assert_eq!(checkpoints.save("shop".into(), checkpoint(2, b"c")), Ok(()));
        assert_eq!(checkpoints.get("other"), None);
    }

    #[test]
    fn it_has_limits() {
        let mut checkpoints = Checkpoints::default();
        let long = Checkpoint { state: vec![0; BYTES_MOST + 1].into(), ..checkpoint(1, b"") };
        assert!(checkpoints.save("shop".into(), long).is_err());
        for number in 0..SOURCES_MOST {
            assert_eq!(checkpoints.save(number.to_string().into(), checkpoint(1, b"")), Ok(()));
        }
        assert!(checkpoints.save("one more".into(), checkpoint(1, b"")).is_err());
        assert_eq!(checkpoints.save("0".into(), checkpoint(1, b"x")), Ok(()));
    }
}
