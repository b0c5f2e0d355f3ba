//! Who the masters are, and how their set changes: one at a time, a new one first as a learner.
//!
//! Invariant: all masters agree on the set at each entry of the log, since changes are entries; the set and the catalog travel in one
//! snapshot.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft::eraftpb::{ConfChange, ConfChangeType};
use serde::{Deserialize, Serialize};

use super::wire::MasterId;
use crate::model::codec::{self, CodecError};

/// Learners and voters together; more only cost elections.
pub const MASTERS_MOST: usize = 7;

/// A change as an operator asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MastersChange {
    /// It learns first, and votes once it has caught up.
    Add { id: MasterId, address: String },
    /// Not the active master: it hands over first.
    Remove { id: MasterId },
}

impl MastersChange {
    pub fn id(&self) -> MasterId {
        match self {
            Self::Add { id, .. } | Self::Remove { id } => *id,
        }
    }
}

/// One step of a change, as it stands in an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MastersStep {
    AddLearner { id: MasterId, address: String },
    Promote { id: MasterId },
    Remove { id: MasterId },
}

impl MastersStep {
    pub fn conf_change(&self) -> ConfChange {
        let (id, kind) = match self {
            Self::AddLearner { id, .. } => (*id, ConfChangeType::AddLearnerNode),
            Self::Promote { id } => (*id, ConfChangeType::AddNode),
            Self::Remove { id } => (*id, ConfChangeType::RemoveNode),
        };
        let mut change = ConfChange { node_id: id, ..ConfChange::default() };
        change.set_change_type(kind);
        change
    }

    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("change of the masters", bytes)
    }

    /// What it does to the addresses.
    pub fn apply(&self, masters: &mut BTreeMap<MasterId, String>) {
        match self {
            Self::AddLearner { id, address } => {
                masters.insert(*id, address.clone());
            }
            Self::Promote { .. } => {}
            Self::Remove { id } => {
                masters.remove(id);
            }
        }
    }
}

/// The set as it is in effect at a master.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Masters {
    pub voters: Vec<MasterId>,
    pub learners: Vec<MasterId>,
    pub addresses: BTreeMap<MasterId, String>,
}

impl Masters {
    pub fn contains(&self, id: MasterId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// Why `change` cannot begin; `Ok(None)` if it is so already.
    pub fn first_step(&self, change: &MastersChange, active: MasterId) -> Result<Option<MastersStep>, &'static str> {
        match change {
            MastersChange::Add { id, .. } if *id == 0 => Err("zero is no master's number"),
            MastersChange::Add { id, .. } if self.contains(*id) => Ok(None),
            MastersChange::Add { .. } if self.voters.len() + self.learners.len() >= MASTERS_MOST => {
                Err("there are as many masters as there can be")
            }
            MastersChange::Add { id, address } => {
                Ok(Some(MastersStep::AddLearner { id: *id, address: address.clone() }))
            }
            MastersChange::Remove { id } if *id == active => {
                Err("the active master cannot be removed; let it step aside first")
            }
            MastersChange::Remove { id } if !self.contains(*id) => Ok(None),
            MastersChange::Remove { id } => Ok(Some(MastersStep::Remove { id: *id })),
        }
    }

    /// Is what `change` asks for so?
    pub fn fulfils(&self, change: &MastersChange) -> bool {
        match change {
            MastersChange::Add { id, .. } => self.voters.contains(id),
            MastersChange::Remove { id } => !self.contains(*id),
        }
    }
}

/// What a snapshot of the group holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    pub masters: BTreeMap<MasterId, String>,
    /// The catalog.
    #[serde(with = "codec::byte_string")]
    pub state: Bytes,
}

impl GroupState {
    pub fn encode(&self) -> Bytes {
        codec::encode(self).into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("snapshot of the group", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_begins_only_where_it_makes_sense() {
        let masters = Masters { voters: vec![1, 2, 3], learners: vec![4], addresses: BTreeMap::new() };
        let add = |id| MastersChange::Add { id, address: "x:1".into() };
        let remove = |id| MastersChange::Remove { id };
        assert!(masters.first_step(&add(0), 1).is_err());
        assert_eq!(masters.first_step(&add(2), 1), Ok(None));
        assert_eq!(masters.first_step(&add(4), 1), Ok(None), "it is learning");
        assert!(matches!(masters.first_step(&add(5), 1), Ok(Some(MastersStep::AddLearner { id: 5, .. }))));
        assert!(masters.first_step(&remove(1), 1).is_err());
        assert_eq!(masters.first_step(&remove(9), 1), Ok(None));
        assert_eq!(masters.first_step(&remove(2), 1), Ok(Some(MastersStep::Remove { id: 2 })));
        assert!(masters.fulfils(&add(3)) && !masters.fulfils(&add(4)) && masters.fulfils(&remove(5)));
    }
}
