//! Which nodes are connected, and what they last said: the active master's memory, not replicated.
//!
//! Invariant: bounded by the connections, and by the nodes of the catalog; what a process said is never taken for another's.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog::Catalog;
use super::duties::Session;
use crate::model::report::NodeReport;
use crate::model::task::{BootId, NodeName, NodeState};

/// Sessions that may speak; more than a cluster has nodes.
const SEATS_MOST: usize = 4_096;
/// A directory that was sent and did not arrive is sent again after this.
const AGAIN_MS: i64 = 400;
/// A report older than this says nothing of now.
pub const FRESH_MS: i64 = 3_000;

/// A process that is connected.
#[derive(Debug, Clone)]
pub struct Seat {
    pub node: NodeName,
    pub boot: BootId,
    /// The newest directory that was sent to it, or that it is known to have.
    pub directory: u64,
    sent_ms: i64,
}

/// What a node last said.
#[derive(Debug, Clone)]
pub struct Heard {
    pub boot: BootId,
    /// By this master's clock, Unix milliseconds.
    pub at_ms: i64,
    pub report: Option<Arc<NodeReport>>,
    report_ms: i64,
}

#[derive(Debug, Default)]
pub struct Roster {
    seats: BTreeMap<Session, Seat>,
    heard: BTreeMap<NodeName, Heard>,
}

impl Roster {
    /// A process has said who it is. Was that not known?
    pub fn sit(&mut self, session: Session, node: &NodeName, boot: BootId) -> bool {
        let is_known = self.seats.get(&session).is_some_and(|seat| seat.node == *node && seat.boot == boot);
        if is_known || self.seats.len() >= SEATS_MOST {
            return false;
        }
        self.seats.insert(session, Seat { node: node.clone(), boot, directory: 0, sent_ms: i64::MIN });
        true
    }

    /// Who was there, unless it is also connected otherwise.
    pub fn leave(&mut self, session: Session) -> Option<(NodeName, BootId)> {
        let Seat { node, boot, .. } = self.seats.remove(&session)?;
        self.session(&node, boot).is_none().then_some((node, boot))
    }

    pub fn session(&self, node: &NodeName, boot: BootId) -> Option<Session> {
        let is_it = |seat: &Seat| seat.node == *node && seat.boot == boot;
        self.seats.iter().rev().find(|(_, seat)| is_it(seat)).map(|(session, _)| *session)
    }

    /// Of the process that the catalog knows.
    pub fn session_of(&self, catalog: &Catalog, node: &NodeName) -> Option<Session> {
        self.session(node, catalog.node(node)?.profile.boot)
    }

    pub fn heard(&mut self, now_ms: i64, node: &NodeName, boot: BootId, report: Option<Box<NodeReport>>) {
        let fresh = || Heard { boot, at_ms: now_ms, report: None, report_ms: now_ms };
        let heard = self.heard.entry(node.clone()).or_insert_with(fresh);
        if heard.boot != boot {
            *heard = fresh();
        }
        heard.at_ms = now_ms;
        if let Some(report) = report {
            (heard.report, heard.report_ms) = (Some(Arc::from(report)), now_ms);
        }
    }

    pub fn last_heard(&self, node: &NodeName) -> Option<&Heard> {
        self.heard.get(node)
    }

    pub fn forget(&mut self, node: &NodeName) {
        self.heard.remove(node);
    }

    /// What living nodes said a moment ago, and how long ago that was.
    pub fn reports<'a>(
        &'a self,
        now_ms: i64,
        catalog: &'a Catalog,
    ) -> impl Iterator<Item = (&'a NodeName, &'a NodeReport, i64)> {
        let lives = move |node: &NodeName, boot: BootId| {
            catalog.node(node).is_some_and(|node| node.profile.boot == boot && node.state != NodeState::Lost)
        };
        self.heard.iter().filter_map(move |(node, heard)| {
            let age_ms = (now_ms - heard.report_ms).max(0);
            let report = heard.report.as_deref().filter(|_| age_ms <= FRESH_MS && lives(node, heard.boot))?;
            Some((node, report, age_ms))
        })
    }

    /// It says that it has only this directory.
    pub fn has_directory(&mut self, now_ms: i64, session: Session, version: u64) {
        if let Some(seat) = self.seats.get_mut(&session)
            && (version >= seat.directory || now_ms.saturating_sub(seat.sent_ms).abs() >= AGAIN_MS)
        {
            seat.directory = version;
        }
    }

    /// Those that do not have `version` yet; from now on they count as having it.
    pub fn behind(&mut self, now_ms: i64, version: u64) -> Vec<Session> {
        let behind = self.seats.iter_mut().filter(|(_, seat)| seat.directory < version);
        let take = |(session, seat): (&Session, &mut Seat)| {
            (seat.directory, seat.sent_ms) = (version, now_ms);
            *session
        };
        behind.map(take).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_connected_twice_is_gone_with_the_second_connection() {
        let (mut roster, node) = (Roster::default(), NodeName::new("a"));
        roster.sit(1, &node, 7);
        roster.sit(2, &node, 7);
        assert_eq!(roster.leave(1), None);
        assert_eq!((roster.session(&node, 7), roster.session(&node, 8)), (Some(2), None));
        assert_eq!(roster.leave(2), Some((node, 7)));
        assert_eq!(roster.leave(2), None);
    }

    #[test]
    fn a_directory_is_sent_once_and_again_only_if_it_got_lost() {
        let mut roster = Roster::default();
        roster.sit(1, &NodeName::new("a"), 7);
        assert_eq!((roster.behind(0, 5), roster.behind(1, 5)), (vec![1], vec![]));
        roster.has_directory(10, 1, 4);
        assert!(roster.behind(10, 5).is_empty(), "it is on its way");
        roster.has_directory(AGAIN_MS, 1, 4);
        assert_eq!(roster.behind(AGAIN_MS, 5), [1]);
        roster.has_directory(AGAIN_MS + 1, 1, 5);
        assert_eq!((roster.behind(2_000, 5), roster.behind(2_000, 6)), (vec![], vec![1]));
    }
}
