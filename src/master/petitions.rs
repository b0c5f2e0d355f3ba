//! What people ask of the active master: what it makes of each, and who waits for what.
//!
//! Invariant: every petition gets one answer, in the end "unknown"; how many may wait is limited.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::command::Change;
use super::duties::{AskId, Group};
use super::masters::MastersChange;
use super::requests::Answer;
use super::wire::MasterId;
use crate::model::id::Epoch;
use crate::model::mode::{Mode, Policy, Tier};
use crate::model::task::{NodeName, NodeState, Task};
use crate::net::control::{Answered, Ask};

/// A drill or hold is ended after this at the latest.
const FOR_MOST_MS: u64 = 7 * 86_400_000;
const BY_CHARS_MOST: usize = 64;
/// Numbers of masters that join later begin above those of the first ones; each is the log's length at that moment, which
/// only grows, so that none is given twice.
const LATER_MASTERS: MasterId = 1_000;

/// What is to be done for somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Errand {
    Propose(Change),
    Invite { address: String, id: MasterId },
    ChangeMasters(MastersChange),
    StepAside { reason: String },
    Nothing,
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, String> {
    Err(reason.into())
}

/// Why not, in words. `State`, `Checkpoint` and `OrderSource` change nothing here, and are not for here.
pub fn errand(now_ms: i64, group: &Group<'_>, ask: Ask) -> Result<Errand, String> {
    match ask {
        Ask::State { .. } => Ok(Errand::Nothing),
        Ask::HoldTier { tier, mode, for_ms, by } => hold(now_ms, tier, mode, for_ms, &by).map(Errand::Propose),
        Ask::Drain { node, draining } => match known(group, &node)? {
            NodeState::Lost => refuse(format!("{node} is lost; it owns nothing")),
            NodeState::Draining if draining => Ok(Errand::Nothing),
            NodeState::Alive | NodeState::Suspect if !draining => Ok(Errand::Nothing),
            _ => Ok(Errand::Propose(Change::DrainNode { node, draining })),
        },
        Ask::Forget { node } => match known(group, &node)? {
            NodeState::Lost => Ok(Errand::Propose(Change::ForgetNode { node })),
            _ => refuse(format!("{node} is not lost; stop it first")),
        },
        Ask::Checkpoint { .. } | Ask::OrderSource { .. } => Ok(Errand::Nothing),
        Ask::SaveCheckpoint { source, epoch, state } => save_checkpoint(group, source, epoch, state),
        Ask::AddMaster { address } => add_master(group, address),
        Ask::RemoveMaster { address } => remove_master(group, &address),
    }
}

fn known(group: &Group<'_>, node: &NodeName) -> Result<NodeState, String> {
    group.catalog.node(node).map(|node| node.state).ok_or_else(|| format!("there is no node '{node}'"))
}

/// Where the capture of a source begins. For nobody but the present owner: a deposed master, which may have missed what was saved
/// since, does not know of the assignment either.
pub fn checkpoint(group: &Group<'_>, source: &Arc<str>, epoch: Epoch) -> Result<Bytes, String> {
    check_capture(group, source, epoch)?;
    Ok(group.catalog.checkpoints().get(source).map(|it| it.state.clone()).unwrap_or_default())
}

fn save_checkpoint(group: &Group<'_>, source: Arc<str>, epoch: Epoch, state: Bytes) -> Result<Errand, String> {
    check_capture(group, &source, epoch)?;
    Ok(Errand::Propose(Change::SaveCheckpoint { source, epoch, state }))
}

fn check_capture(group: &Group<'_>, source: &Arc<str>, epoch: Epoch) -> Result<(), String> {
    let found = group.catalog.task(&Task::Capture(source.clone())).map(|it| it.epoch);
    match found {
        Some(found) if found == epoch => Ok(()),
        _ => refuse(format!("the capture of {source} is another's")),
    }
}

fn hold(now_ms: i64, tier: Tier, mode: Option<Mode>, for_ms: Option<u64>, by: &str) -> Result<Change, String> {
    let by: String = by.chars().take(BY_CHARS_MOST).collect();
    let policy = match (mode, for_ms) {
        (None, _) => Policy::Auto,
        (Some(Mode::Recovering), _) => return refuse("a tier is recovering by itself; hold it normal or degraded"),
        (Some(_), Some(for_ms)) if for_ms == 0 || for_ms > FOR_MOST_MS => {
            return refuse("for more than nothing and at most seven days");
        }
        (Some(Mode::Degraded), Some(for_ms)) => Policy::DrillUntil(now_ms + for_ms as i64),
        (Some(Mode::Normal), Some(_)) => {
            return refuse("normal is held until it is given back with auto; only degraded can be for a time");
        }
        (Some(mode), None) => Policy::Hold(mode),
    };
    let reason = match policy {
        Policy::Auto => format!("given back by {by}"),
        Policy::Hold(_) => format!("held by {by}"),
        Policy::DrillUntil(_) => format!("drill by {by}"),
    };
    Ok(Change::SetPolicy { tier, policy, reason })
}

fn add_master(group: &Group<'_>, address: String) -> Result<Errand, String> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(1..))) || address.len() > 256 {
        return refuse(format!("'{address}' is not host:port"));
    }
    let known = group.masters.addresses.iter().find(|(_, there)| **there == address);
    match known {
        Some((id, _)) if group.masters.voters.contains(id) => Ok(Errand::Nothing),
        // It learns already: to be waited for.
        Some((id, _)) => Ok(Errand::ChangeMasters(MastersChange::Add { id: *id, address })),
        None => Ok(Errand::Invite { address, id: LATER_MASTERS + group.applied }),
    }
}

fn remove_master(group: &Group<'_>, address: &str) -> Result<Errand, String> {
    let masters = group.masters;
    let Some((id, _)) = masters.addresses.iter().find(|(_, there)| *there == address) else {
        return refuse(format!("there is no master at {address}"));
    };
    let left: Vec<MasterId> = masters.voters.iter().copied().filter(|voter| voter != id).collect();
    let reached = left.iter().filter(|voter| group.is_reachable(**voter)).count();
    if masters.voters.contains(id) && reached * 2 <= left.len() {
        return refuse(format!(
            "of the {} masters that would be left {reached} are reached, which is no majority; nothing could be decided",
            left.len()
        ));
    }
    if *id == group.me {
        let reason = "it was the active master and steps aside now; ask again in a moment".to_owned();
        return Ok(Errand::StepAside { reason });
    }
    Ok(Errand::ChangeMasters(MastersChange::Remove { id: *id }))
}

/// What a proposal's fate is to the one who asked for it.
pub fn answered(answer: Answer) -> Answered {
    match answer {
        Answer::Committed { .. } | Answer::Current { .. } => Answered::Done,
        Answer::NotActive { .. } | Answer::Superseded => Answered::NotActive { active: None },
        Answer::Refused { reason, .. } => Answered::Refused { reason: reason.to_owned() },
        Answer::Unknown => Answered::Unknown,
    }
}

/// Those who wait.
#[derive(Debug)]
pub struct Waiting {
    most: usize,
    since_ms: BTreeMap<AskId, i64>,
}

impl Waiting {
    pub fn new(most: usize) -> Self {
        Self { most, since_ms: BTreeMap::new() }
    }

    pub fn has_room(&self) -> bool {
        self.since_ms.len() < self.most
    }

    pub fn begin(&mut self, now_ms: i64, ask: AskId) {
        self.since_ms.insert(ask, now_ms);
    }

    /// Did it wait?
    pub fn end(&mut self, ask: AskId) -> bool {
        self.since_ms.remove(&ask).is_some()
    }

    /// Those that have waited for too long.
    pub fn late(&mut self, now_ms: i64, most_ms: i64) -> Vec<AskId> {
        let is_late = |since_ms: &i64| (now_ms - since_ms).abs() >= most_ms;
        let late: Vec<AskId> = self.since_ms.iter().filter(|(_, at)| is_late(at)).map(|(ask, _)| *ask).collect();
        self.since_ms.retain(|ask, _| !late.contains(ask));
        late
    }

    pub fn all(&mut self) -> Vec<AskId> {
        std::mem::take(&mut self.since_ms).into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::master::catalog::Catalog;
    use crate::master::masters::Masters;

    fn asked(ask: Ask, reachable: &[MasterId]) -> Result<Errand, String> {
        let addresses = [(1, "a:1".to_owned()), (2, "b:1".to_owned()), (3, "c:1".to_owned())].into();
        let masters = Masters { voters: vec![1, 2, 3], learners: vec![], addresses };
        let (catalog, reachable) = (Catalog::default(), BTreeSet::from_iter(reachable.iter().copied()));
        let group = Group {
            catalog: &catalog,
            index: 5,
            applied: 77,
            term: 1,
            me: 1,
            masters: &masters,
            reachable: &reachable,
        };
        errand(1_000, &group, ask)
    }

    #[test]
    fn a_removal_that_would_leave_no_living_majority_is_refused() {
        let remove = |address: &str| Ask::RemoveMaster { address: address.into() };
        assert!(asked(remove("c:1"), &[]).is_err_and(|reason| reason.contains("no majority")));
        assert!(asked(remove("c:1"), &[3]).is_err(), "of 1 and 2 only one is there");
        let removed = Errand::ChangeMasters(MastersChange::Remove { id: 3 });
        assert_eq!(asked(remove("c:1"), &[2]), Ok(removed));
        assert!(asked(remove("d:1"), &[2, 3]).is_err());
        assert!(matches!(asked(remove("a:1"), &[2, 3]), Ok(Errand::StepAside { .. })));
    }

    #[test]
    fn a_new_master_gets_a_number_that_was_never_given() {
        let add = |address: &str| Ask::AddMaster { address: address.into() };
        assert_eq!(asked(add("d:1"), &[]), Ok(Errand::Invite { address: "d:1".into(), id: 1_077 }));
        assert_eq!(asked(add("b:1"), &[]), Ok(Errand::Nothing));
        assert!([":1", "x", "x:", "x:0", "x:99999"].into_iter().all(|address| asked(add(address), &[]).is_err()));
    }

    #[test]
    fn a_drill_ends_by_itself_and_a_hold_does_not() {
        let hold = |mode, for_ms| asked(Ask::HoldTier { tier: Tier::Kv, mode, for_ms, by: "me".into() }, &[]);
        let policy = |errand| match errand {
            Ok(Errand::Propose(Change::SetPolicy { policy, .. })) => Some(policy),
            _ => None,
        };
        assert_eq!(policy(hold(Some(Mode::Degraded), Some(500))), Some(Policy::DrillUntil(1_500)));
        assert_eq!(policy(hold(Some(Mode::Degraded), None)), Some(Policy::Hold(Mode::Degraded)));
        assert_eq!(policy(hold(None, None)), Some(Policy::Auto));
        assert!(hold(Some(Mode::Normal), Some(5)).is_err() && hold(Some(Mode::Degraded), Some(0)).is_err());
    }
}
