//! What the document says of clusters in all kinds of states.

use super::*;
use crate::admin::fixture_tests::{NOW_MS, about, broken, change_report, change_task, healthy};
use crate::admin::view::{ClusterView, Level};
use crate::model::id::PartitionId;

fn of(state: &ClusterState) -> ClusterView {
    ClusterView::of(state, about(64, NOW_MS))
}

fn whats(view: &ClusterView) -> Vec<String> {
    view.complaints.iter().map(|complaint| complaint.what.clone()).collect()
}

#[test]
fn a_healthy_cluster_has_no_complaints_and_its_figures_are_sums() {
    let view = of(&healthy(4, 64, NOW_MS));
    assert_eq!(whats(&view), Vec::<String>::new());
    assert_eq!((view.rates.changes_ingested, view.rates.changes_applied), (42_800.0, 42_800.0));
    assert_eq!((view.active_master.as_deref(), view.term, view.tasks.len()), (Some("master-2"), 17, 128));
    let slave = view.nodes.iter().find(|node| node.name == "slave-1").expect("it is known");
    assert_eq!((slave.tasks, slave.standby_tasks, slave.http.as_str()), (16, 16, "http://127.0.0.1:7070"));
    assert_eq!(view.tiers.iter().map(|tier| tier.tier.as_str()).collect::<Vec<_>>(), ["mq", "kv", "hot", "cache"]);
    assert_eq!(view.tiers[0].used_bytes, Some(734_003_200), "who holds it knows its size");
}

#[test]
fn the_document_reads_back_as_it_was_written() {
    let view = of(&broken(4, 64, NOW_MS));
    let text = serde_json::to_string(&view).expect("plain data");
    assert_eq!(serde_json::from_str::<ClusterView>(&text).expect("readable"), view);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let task = json["tasks"].as_array().and_then(|tasks| tasks.last()).expect("tasks");
    let fields = ["kind", "partition", "owner", "standby", "epoch", "state", "as_of"];
    assert!(fields.iter().all(|field| !task[*field].is_null()), "{task}");
}

#[test]
fn who_is_not_heard_is_silent_and_never_left_out() {
    let mut state = healthy(4, 64, NOW_MS);
    let node = state.nodes.iter_mut().find(|node| &*node.profile.name.0 == "slave-1").expect("it exists");
    node.heard_ms = Some(NOW_MS - STALE_MS - 1);
    let view = of(&state);
    let silent = view.tasks.iter().filter(|task| task.state == TaskState::Silent).count();
    assert_eq!((view.tasks.len(), silent), (128, 16));
    assert!(view.rates.changes_applied < 42_800.0, "what was once is not what is");
    let node = view.nodes.iter().find(|node| node.name == "slave-1").expect("it is shown");
    assert!(!node.reports);
    assert!(whats(&view).iter().any(|what| what.starts_with("Compute is silent in 16 partitions (0, 4, 8")));
    let mut state = healthy(4, 64, NOW_MS);
    state.nodes.iter_mut().for_each(|node| node.report = None);
    let view = of(&state);
    assert!(view.tasks.iter().all(|task| task.state == TaskState::Silent));
    assert_eq!(view.tiers.len(), 5, "without a report nobody knows which are used");
}

#[test]
fn a_report_for_another_epoch_says_nothing_of_this_one() {
    let mut state = healthy(4, 64, NOW_MS);
    change_task(&mut state, &Task::Compute(PartitionId(7)), |task| (task.epoch, task.gaps) = (3, 9));
    let view = of(&state);
    let task = view.tasks.iter().find(|task| task.kind == TaskKind::Compute && task.partition == Some(7));
    let task = task.expect("it is shown");
    assert_eq!((task.state, task.gaps, task.as_of.as_ref()), (TaskState::Catching, 0, None));
}

#[test]
fn without_an_active_master_the_document_says_since_when_and_what_goes_on() {
    let mut state = healthy(4, 64, NOW_MS);
    state.active = None;
    state.masters.iter_mut().for_each(|master| (master.is_active, master.reachable) = (false, false));
    let about = About { no_master_since_ms: Some(NOW_MS - 9_000), ..about(64, NOW_MS) };
    let view = ClusterView::of(&state, about);
    assert_eq!(view.active_master, None);
    let first = &view.complaints[0];
    assert_eq!((first.level, first.what.as_str()), (Level::Bad, "No active master"));
    assert_eq!(first.since.as_deref(), Some("2026-11-22T10:02:58.000Z"));
    assert!(
        first.advice.contains("Queries are answered") && first.advice.contains("127.0.0.1:7071"),
        "{}",
        first.advice
    );
}

#[test]
fn everything_that_is_wrong_is_said_the_worst_first() {
    let view = of(&broken(4, 64, NOW_MS));
    let all = whats(&view);
    for expected in [
        "kv is degraded",
        "Node slave-3 is lost",
        "Node query-2 is suspect",
        "1 of 3 masters not reachable",
        "Nobody computes partition 6",
        "Compute is failing in partitions 0, 1, 4, 5",
        "Compute is catching in partition 8",
        "Changes are missing in partition 9",
        "Gates are behind: 1.8 M changes wait in mq",
    ] {
        assert!(all.iter().any(|what| what == expected), "{expected} is missing in {all:#?}");
    }
    assert!(view.complaints.is_sorted_by(|a, b| a.level >= b.level));
    let kv = view.complaints.iter().find(|complaint| complaint.what.starts_with("kv")).expect("just seen");
    assert_eq!(kv.since.as_deref(), Some("2026-11-22T10:01:00.000Z"));
    assert!(
        kv.advice.starts_with("Reason: connection refused by 127.0.0.1:6379, reported by 4 of 4 slaves. Bring kv back")
    );
}

#[test]
fn an_operators_hold_says_how_to_give_the_tier_back() {
    for (policy, words) in [
        (Policy::Hold(Mode::Degraded), "holdfast tier hot auto"),
        (Policy::DrillUntil(NOW_MS + 30_000), "ends by itself at 10:03:37 UTC"),
    ] {
        let mut state = healthy(4, 64, NOW_MS);
        state.tiers[2].1 = TierStanding { mode: Mode::Degraded, policy, since_ms: NOW_MS, reason: String::new() };
        let view = of(&state);
        assert!(view.complaints[0].advice.contains(words), "{:?}", view.complaints);
    }
}

#[test]
fn a_node_that_stops_says_so_though_the_masters_do_not_know_yet() {
    let view = ClusterView::of(&healthy(4, 64, NOW_MS), About { phase: Phase::Stopping, ..about(64, NOW_MS) });
    let own = view.nodes.iter().find(|node| node.name == "query-1").expect("it is shown");
    assert_eq!((own.state, view.ready), (NodeState::Stopping, false));
    assert_eq!(whats(&view), ["Not ready: node query-1 is stopping"]);
}

#[test]
fn tiers_that_fail_for_some_nodes_are_named_before_anybody_decides() {
    let mut state = healthy(4, 64, NOW_MS);
    for node in state.nodes.iter_mut().filter(|node| node.profile.roles.contains(&Role::Slave)) {
        change_report(node, |report| report.tiers[2].trouble = Some("timed out".to_owned()));
    }
    let all = whats(&of(&state));
    assert_eq!(all, ["hot fails for slave-1, slave-2, slave-3, slave-4"]);
}

#[test]
fn nothing_at_all_is_a_document_too() {
    let view = ClusterView::of(&ClusterState::default(), about(64, NOW_MS));
    assert_eq!(whats(&view), ["No active master"]);
    assert!(view.freshness.oldest_ms.is_none() && view.tasks.is_empty());
}
