//! Which nodes are alive, as the active master hears them. Memory of the active master only; decisions become commands.
//!
//! Time here is the master's own attention: it runs with the clock, but stands still while the master does not look. So a
//! master that was paused, a machine that was asleep, or a clock that jumped, declares nobody lost.
//!
//! Invariant: a node is lost only after it was silent, or disconnected, for the whole wait while the master was attentive.

use std::collections::BTreeMap;

use super::settings::DetectorSettings;
use crate::model::task::{BootId, NodeName, NodeState};

/// A look that comes late counts as so many ticks at most.
const LATE_TICKS: i64 = 4;
/// What was found is said again, in case that the command got lost.
const REPEAT_MS: i64 = 1_000;

/// Why a node is lost whose process has no connection.
pub const AWAY: &str = "its connection was closed, and it did not come back";

/// What should be decided of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Suspect {
        node: NodeName,
        boot: BootId,
    },
    /// It was suspect and came back.
    Alive {
        node: NodeName,
        boot: BootId,
    },
    Lost {
        node: NodeName,
        boot: BootId,
        reason: &'static str,
    },
}

#[derive(Debug)]
struct Watched {
    boot: BootId,
    /// By this master.
    heard: bool,
    /// Attentive time; before anything was heard, some time ahead.
    heard_ms: i64,
    closed_ms: Option<i64>,
    /// As the catalog has it.
    decided: NodeState,
    /// What was found last, and when.
    said: Option<(NodeState, i64)>,
}

/// Watches the nodes for an active master.
#[derive(Debug)]
pub struct Detector {
    settings: DetectorSettings,
    /// The clock at the last look.
    looked_ms: i64,
    /// How long the master has been attentive.
    attentive_ms: i64,
    nodes: BTreeMap<NodeName, Watched>,
}

impl Detector {
    /// For a master that has just become active. `nodes`: all of the catalog's; those that it does not hear of within the time to return
    /// are lost.
    pub fn new(
        settings: DetectorSettings,
        now_ms: i64,
        nodes: impl IntoIterator<Item = (NodeName, BootId, NodeState)>,
    ) -> Self {
        let mut detector = Self { settings, looked_ms: now_ms, attentive_ms: 0, nodes: BTreeMap::new() };
        nodes.into_iter().for_each(|(node, boot, state)| detector.decided(&node, boot, state));
        detector
    }

    /// The catalog has decided: it is the truth.
    pub fn decided(&mut self, node: &NodeName, boot: BootId, state: NodeState) {
        if state == NodeState::Lost {
            self.nodes.remove(node);
            return;
        }
        // A node that is not heard yet has the longer of both waits.
        let heard_ms = self.attentive_ms + (self.settings.return_time.as_i64() - self.settings.silence.as_i64()).max(0);
        let fresh = || Watched { boot, heard: false, heard_ms, closed_ms: None, decided: state, said: None };
        let watched = self.nodes.entry(node.clone()).or_insert_with(fresh);
        if watched.boot != boot {
            *watched = Watched { heard_ms: self.attentive_ms, ..fresh() };
        }
        watched.decided = state;
    }

    /// A hello or a heartbeat came; from a process that the catalog does not know it is a hello, which is not for here.
    pub fn heard(&mut self, node: &NodeName, boot: BootId) {
        if let Some(watched) = self.nodes.get_mut(node).filter(|watched| watched.boot == boot) {
            (watched.heard, watched.heard_ms) = (true, self.attentive_ms);
            watched.closed_ms = None;
        }
    }

    /// The process is connected; it has not been heard yet.
    pub fn opened(&mut self, node: &NodeName, boot: BootId) {
        if let Some(watched) = self.nodes.get_mut(node).filter(|watched| watched.boot == boot) {
            watched.closed_ms = None;
        }
    }

    /// The connection of this process was closed, by it or by the network.
    pub fn closed(&mut self, node: &NodeName, boot: BootId) {
        if let Some(watched) = self.nodes.get_mut(node).filter(|watched| watched.boot == boot) {
            watched.closed_ms.get_or_insert(self.attentive_ms);
        }
    }

    /// To be called at each tick, after what has arrived by then was told.
    pub fn look(&mut self, now_ms: i64) -> Vec<Finding> {
        let most_ms = LATE_TICKS * self.settings.tick.as_i64();
        self.attentive_ms += (now_ms - self.looked_ms).clamp(0, most_ms);
        self.looked_ms = now_ms;
        let (settings, attentive_ms) = (self.settings, self.attentive_ms);
        self.nodes.iter_mut().filter_map(|(node, watched)| watched.find(node, settings, attentive_ms)).collect()
    }
}

impl Watched {
    fn find(&mut self, node: &NodeName, settings: DetectorSettings, attentive_ms: i64) -> Option<Finding> {
        let (node, boot) = (node.clone(), self.boot);
        let finding = if attentive_ms - self.heard_ms >= settings.silence.as_i64() {
            Finding::Lost { node, boot, reason: "it was silent" }
        } else if self.closed_ms.is_some_and(|closed_ms| attentive_ms - closed_ms >= settings.grace.as_i64()) {
            Finding::Lost { node, boot, reason: AWAY }
        } else if self.closed_ms.is_some() && self.decided == NodeState::Alive {
            Finding::Suspect { node, boot }
        } else if self.closed_ms.is_none() && self.decided == NodeState::Suspect && self.heard {
            Finding::Alive { node, boot }
        } else {
            return None;
        };
        let state = match &finding {
            Finding::Suspect { .. } => NodeState::Suspect,
            Finding::Alive { .. } => NodeState::Alive,
            Finding::Lost { .. } => NodeState::Lost,
        };
        let repeats = self.said.is_some_and(|(said, at_ms)| said == state && attentive_ms - at_ms < REPEAT_MS);
        if repeats {
            return None;
        }
        self.said = Some((state, attentive_ms));
        Some(finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::settings::Settings;

    const TICK_MS: i64 = 25;

    struct Test {
        detector: Detector,
        now_ms: i64,
    }

    fn name() -> NodeName {
        NodeName::new("slave-1")
    }

    impl Test {
        fn new() -> Self {
            let settings = Settings::for_tests().detector();
            let detector = Detector::new(settings, 1_000, [(name(), 7, NodeState::Alive)]);
            let mut test = Self { detector, now_ms: 1_000 };
            test.detector.heard(&name(), 7);
            test.pass(2_000, true);
            test
        }

        /// Ticks on; with heartbeats, if `beats`.
        fn pass(&mut self, duration_ms: i64, beats: bool) -> Vec<Finding> {
            let end_ms = self.now_ms + duration_ms;
            let mut findings = Vec::new();
            while self.now_ms < end_ms {
                self.now_ms += TICK_MS;
                if beats && self.now_ms % 200 == 0 {
                    self.detector.heard(&name(), 7);
                }
                findings.extend(self.detector.look(self.now_ms));
            }
            findings
        }
    }

    fn lost(reason: &'static str) -> Finding {
        Finding::Lost { node: name(), boot: 7, reason }
    }

    #[test]
    fn a_closed_connection_is_suspect_at_once_and_lost_after_the_grace() {
        let mut test = Test::new();
        test.detector.closed(&name(), 7);
        assert_eq!(test.pass(TICK_MS, false), [Finding::Suspect { node: name(), boot: 7 }]);
        test.detector.decided(&name(), 7, NodeState::Suspect);
        assert_eq!(test.pass(200, false), []);
        assert!(matches!(test.pass(50, false)[..], [Finding::Lost { .. }]));
    }

    #[test]
    fn a_node_that_comes_back_in_time_is_alive_again() {
        let mut test = Test::new();
        test.detector.closed(&name(), 7);
        test.detector.decided(&name(), 7, NodeState::Suspect);
        test.pass(100, false);
        test.detector.heard(&name(), 7);
        assert_eq!(test.pass(TICK_MS, false), [Finding::Alive { node: name(), boot: 7 }]);
        test.detector.decided(&name(), 7, NodeState::Alive);
        assert_eq!(test.pass(5_000, true), []);
    }

    #[test]
    fn a_node_that_is_connected_again_is_lost_only_once_it_was_silent() {
        let mut test = Test::new();
        test.detector.closed(&name(), 7);
        test.pass(150, false);
        test.detector.opened(&name(), 7);
        assert_eq!(test.pass(1_200, false), []);
        assert_eq!(test.pass(300, false), [lost("it was silent")]);
    }

    #[test]
    fn silence_is_a_loss_that_is_said_again_until_it_is_decided() {
        let mut test = Test::new();
        assert_eq!(test.pass(1_400, false), []);
        assert_eq!(test.pass(200, false), [lost("it was silent")]);
        assert_eq!(test.pass(1_000, false), [lost("it was silent")]);
        test.detector.decided(&name(), 7, NodeState::Lost);
        assert_eq!(test.pass(5_000, false), []);
    }

    #[test]
    fn own_pauses_and_jumps_of_the_clock_lose_nobody() {
        let mut test = Test::new();
        for jump_ms in [60_000, -3_600_000, 10_000_000, -5] {
            test.now_ms += jump_ms;
            assert_eq!(test.detector.look(test.now_ms), [], "{jump_ms}");
            assert_eq!(test.pass(400, true), [], "{jump_ms}");
        }
        // A master that is always late.
        for _ in 0..100 {
            test.now_ms += 2_000;
            test.detector.heard(&name(), 7);
            assert_eq!(test.detector.look(test.now_ms), []);
        }
    }

    #[test]
    fn nodes_have_time_to_return_to_a_new_active_master() {
        let settings = Settings::for_tests().detector();
        let suspect = (NodeName::new("slave-2"), 9, NodeState::Suspect);
        let detector = Detector::new(settings, 0, [(name(), 7, NodeState::Alive), suspect]);
        let mut test = Test { detector, now_ms: 0 };
        assert_eq!(test.pass(2_900, false), []);
        let mut found = test.pass(200, false);
        assert_eq!(found.len(), 2);
        assert_eq!(found.swap_remove(0), lost("it was silent"));
    }

    #[test]
    fn what_an_earlier_process_did_says_nothing_of_the_next() {
        let mut test = Test::new();
        test.detector.decided(&name(), 8, NodeState::Alive);
        test.detector.closed(&name(), 7);
        test.detector.heard(&name(), 8);
        assert_eq!(test.pass(100, false), []);
        test.detector.heard(&name(), 7);
        test.pass(1_300, false);
        assert!(matches!(test.pass(200, false)[..], [Finding::Lost { boot: 8, .. }]));
    }
}
