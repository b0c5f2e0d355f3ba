//! Where a partition stands in a sink, and the rule by which a write moves it. Pure.
//!
//! Invariant: the tip moves only by writes that name it; what is announced only grows, but for sources that the owner
//! said to forget.

use std::sync::Arc;

use crate::model::applied::{Applied, AppliedDelta, Progress};
use crate::model::id::{SourceId, Tip};
use crate::model::quality::Record;
use crate::tier::{SinkStanding, SinkWrite, TierError, check_chain};

/// A partition's place in a sink, without its blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkPlace {
    pub tip: Tip,
    pub announced: Applied,
    pub record: Option<Arc<Record>>,
}

impl SinkPlace {
    /// May this write be done here? Nothing has changed if not.
    pub fn check(&self, tier: &'static str, write: &SinkWrite) -> Result<(), TierError> {
        let beside_record = write.record.is_some() || write.remove.is_empty();
        assert!(beside_record, "blocks are removed beside a record only: readers must not see them vanish earlier");
        check_chain(tier, self.tip, write.expect, write.tip)
    }

    /// Before any block is put: what the blocks may contain. Gives what now stands for the sources announced.
    pub fn announce(&mut self, announce: &[(SourceId, Progress)]) -> AppliedDelta {
        self.announced.merge_delta(announce);
        self.announced.delta(announce.iter().map(|(source, _)| source))
    }

    /// After the blocks: the write is done.
    pub fn accept(&mut self, tip: Tip, record: Option<Record>, forget: &[SourceId]) {
        self.tip = tip;
        self.announced.forget(forget);
        if let Some(record) = record {
            self.record = Some(Arc::new(record));
        }
    }

    pub fn standing(&self) -> SinkStanding {
        SinkStanding { tip: self.tip, announced: self.announced.clone() }
    }
}
