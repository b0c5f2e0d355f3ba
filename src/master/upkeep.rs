//! What a group needs from time to time: lost snapshots sent again, learners made voters, the log compacted.
//!
//! Invariant: nothing here is needed for safety; all of it is tried again until it is so.

use std::collections::BTreeMap;

use raft::{Progress, ProgressState, RawNode, SnapshotStatus};

use super::log::Log;
use super::masters::Masters;
use super::settings::Settings;
use super::wire::MasterId;

/// A learner this close to the end of the log may vote.
const CAUGHT_UP_WITHIN: u64 = 16;

/// Snapshots on their way to other masters.
#[derive(Debug)]
pub struct Snapshots {
    retry_ms: i64,
    since_ms: BTreeMap<MasterId, i64>,
}

impl Snapshots {
    pub fn new(retry_ms: i64) -> Self {
        Self { retry_ms, since_ms: BTreeMap::new() }
    }

    pub fn clear(&mut self) {
        self.since_ms.clear();
    }

    /// raft-rs waits for a snapshot that got lost without end.
    pub fn retry(&mut self, node: &mut RawNode<Log>, now_ms: i64) {
        let is_sending = |(id, progress): (&u64, &Progress)| (progress.state == ProgressState::Snapshot).then_some(*id);
        let sending: Vec<MasterId> = node.raft.prs().iter().filter_map(is_sending).collect();
        self.since_ms.retain(|id, _| sending.contains(id));
        for id in sending {
            let since_ms = *self.since_ms.entry(id).or_insert(now_ms);
            if now_ms - since_ms >= self.retry_ms {
                self.since_ms.remove(&id);
                node.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }
}

/// A learner that may vote now. Whoever learns is meant to vote; so a new active master goes on where the one before stopped.
pub fn ready_to_vote(node: &RawNode<Log>, masters: &Masters) -> Option<MasterId> {
    let raft = &node.raft;
    if raft.has_pending_conf() {
        return None;
    }
    let last = raft.raft_log.last_index();
    let is_ready = |id: &&MasterId| {
        let progress = raft.prs().get(**id);
        progress.is_some_and(|it| it.recent_active && it.matched > 0 && it.matched + CAUGHT_UP_WITHIN >= last)
    };
    masters.learners.iter().find(is_ready).copied()
}

pub fn is_compaction_due(log: &Log, applied: u64, settings: &Settings) -> bool {
    let gain = applied.saturating_sub(log.snapshot_index());
    let bytes_most = settings.compact_bytes.bytes().max(2 * settings.keep_bytes.bytes());
    gain > 0 && (gain >= settings.compact_entries || log.bytes() > bytes_most || log.wants_snapshot())
}
