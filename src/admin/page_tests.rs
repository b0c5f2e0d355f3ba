//! The page of clusters in all kinds of states and sizes.

use super::*;
use crate::admin::fixture_tests::{NOW_MS, about, broken, healthy};
use crate::net::control::ClusterState;

fn shown(state: &ClusterState, partitions: u16) -> String {
    page(&ClusterView::of(state, about(partitions, NOW_MS)), "1").into_string()
}

#[test]
fn the_headline_says_all_is_well_or_the_worst_thing() {
    assert!(shown(&healthy(4, 64, NOW_MS), 64).contains("<h1>All is well</h1>"));
    let mut state = healthy(4, 64, NOW_MS);
    state.active = None;
    assert!(shown(&state, 64).contains("<h1>No active master</h1>"));
}

#[test]
fn a_large_cluster_has_a_page_of_reasonable_size() {
    for state in [healthy(200, 4_096, NOW_MS), broken(200, 4_096, NOW_MS)] {
        let page = shown(&state, 4_096);
        assert!(page.len() < 600_000, "{} bytes", page.len());
        assert!(page.contains("slave-200") && page.contains("A cell is 4 partitions"));
    }
}

#[test]
fn a_partition_that_fails_shows_among_neighbours_that_do_not() {
    let page = shown(&broken(200, 4_096, NOW_MS), 4_096);
    assert!(page.contains("Partitions 4–7, of which the worst is 4"), "the cell of a failing partition");
    assert!(page.contains("compute has no owner"), "the table of the worst has partition 6");
}

#[test]
fn a_lost_node_is_among_those_that_are_shown_at_once() {
    let page = shown(&broken(200, 4_096, NOW_MS), 4_096);
    let (folded, lost) = (page.find("id=\"more-nodes\""), page.find(">slave-3</a>"));
    assert!(lost.is_some() && lost < folded, "{lost:?} {folded:?}");
    assert!(!shown(&broken(4, 64, NOW_MS), 64).contains("more-nodes"), "nothing is folded away of a small cluster");
}

#[test]
fn names_and_texts_are_escaped_and_nothing_is_inline_or_foreign() {
    let mut state = broken(4, 64, NOW_MS);
    state.incidents[0].text = "<script>alert(1)</script>".to_owned();
    state.tiers[1].1.reason = "\"><img src=x onerror=alert(1)>".to_owned();
    let page = shown(&state, 64);
    assert!(!page.contains("<script>alert") && !page.contains("<img"), "escaped");
    assert!(
        !page.contains(" style=") && !page.contains(" onclick=") && !page.contains("<style"),
        "the policy forbids it"
    );
    let foreign = page.match_indices("http").map(|(at, _)| &page[at..page.len().min(at + 24)]);
    let foreign: Vec<&str> =
        foreign.filter(|link| !link.starts_with("http://127.0.0.1") && !link.starts_with("http-equiv")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn a_cluster_that_nobody_knows_anything_of_has_a_page() {
    let page = shown(&ClusterState::default(), 64);
    assert!(page.contains("No active master") && page.contains("nothing yet"));
    assert!(!page.contains("NaN") && !page.contains("inf\""));
    let none = shown(&ClusterState::default(), 0);
    assert!(none.contains("All 0 partitions"), "not even partitions");
}

#[test]
fn a_page_of_a_healthy_cluster_changes_only_where_something_did() {
    let parts_at = |now_ms| {
        let mut state = healthy(4, 64, NOW_MS);
        state.nodes.iter_mut().for_each(|node| node.heard_ms = Some(now_ms));
        state.at_ms = now_ms;
        parts(&ClusterView::of(&state, about(64, now_ms)))
    };
    let (before, after) = (parts_at(NOW_MS), parts_at(NOW_MS + 1_000));
    let changed = before.iter().zip(&after).filter(|(before, after)| before.content != after.content);
    let changed: Vec<&str> = changed.map(|(part, _)| part.id).collect();
    assert!(
        !changed.contains(&"headline") && !changed.contains(&"partitions") && !changed.contains(&"nodes"),
        "{changed:?}"
    );
    assert!(changed.contains(&"made"));
}
