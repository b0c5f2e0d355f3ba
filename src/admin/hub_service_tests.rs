//! Watchers that come, lag and go.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::future::FutureExt;

use super::*;
use crate::admin::fixture_tests::{NOW_MS, about, healthy};

struct Made {
    hub: Hub,
    readiness: Readiness,
    looks: Arc<AtomicUsize>,
}

const PACE: Duration = Duration::from_millis(20);

/// A document that is another at every look.
fn made(most: usize) -> Made {
    let (readiness, looks) = (Readiness::default(), Arc::new(AtomicUsize::new(0)));
    let counted = looks.clone();
    let view: ViewSource = Arc::new(move || {
        let look = counted.fetch_add(1, Ordering::SeqCst);
        let view = ClusterView::of(&healthy(2, 8, NOW_MS), about(8, NOW_MS + look as i64 * 1_000));
        std::future::ready(view).boxed()
    });
    Made { hub: Hub::with_pace(view, readiness.clone(), most, PACE), readiness, looks }
}

fn text(event: Option<Bytes>) -> String {
    String::from_utf8(event.expect("an event").into()).expect("UTF-8")
}

#[tokio::test]
async fn i6_more_watchers_than_places_are_refused_until_one_leaves() {
    let made = made(2);
    let first = made.hub.watch(Form::Parts).expect("a place");
    let _second = made.hub.watch(Form::Documents).expect("a place");
    assert!(made.hub.watch(Form::Parts).is_none());
    drop(first);
    assert!(made.hub.watch(Form::Parts).is_some());
}

#[tokio::test]
async fn a_page_gets_all_parts_first_and_then_what_changed() {
    let made = made(1);
    let mut events = Box::pin(made.hub.watch(Form::Parts).expect("a place"));
    assert_eq!(text(events.next().await), "retry: 1000\n\n");
    let whole = text(events.next().await);
    assert!(whole.starts_with("event: parts\ndata: {") && whole.contains("\"id\":\"headline\""), "{whole}");
    let changed = text(events.next().await);
    assert!(changed.contains("\"id\":\"made\"") && !changed.contains("\"id\":\"headline\""), "{changed}");
}

#[tokio::test]
async fn who_is_slow_gets_the_newest_and_nothing_piles_up() {
    let made = made(1);
    let mut events = Box::pin(made.hub.watch(Form::Documents).expect("a place"));
    events.next().await;
    let first = text(events.next().await);
    assert!(first.contains("event: cluster") && first.contains("event: incidents"), "{first}");
    tokio::time::sleep(PACE * 20).await;
    let looks = made.looks.load(Ordering::SeqCst) as i64;
    let late = text(events.next().await);
    let newest = [looks - 1, looks].map(|look| crate::admin::view::moment(NOW_MS + look * 1_000));
    assert!(looks > 5 && newest.iter().any(|at| late.contains(at)), "{newest:?} expected in {late}");
    assert!(!late.contains("event: incidents"), "they have not changed");
}

#[tokio::test]
async fn nobody_looks_for_nobody_and_a_new_watcher_starts_it_again() {
    let made = made(1);
    let mut events = Box::pin(made.hub.watch(Form::Parts).expect("a place"));
    events.next().await;
    events.next().await;
    drop(events);
    tokio::time::sleep(PACE * 3).await;
    let looks = made.looks.load(Ordering::SeqCst);
    tokio::time::sleep(PACE * 10).await;
    assert_eq!(made.looks.load(Ordering::SeqCst), looks);
    let mut events = Box::pin(made.hub.watch(Form::Parts).expect("a place"));
    events.next().await;
    events.next().await;
    assert!(made.looks.load(Ordering::SeqCst) > looks);
}

#[tokio::test]
async fn streams_end_when_the_node_stops() {
    let made = made(1);
    let mut events = Box::pin(made.hub.watch(Form::Parts).expect("a place"));
    events.next().await;
    events.next().await;
    made.readiness.set_stopping();
    let end = tokio::time::timeout(LOOK * 5, events.next()).await.expect("it ends soon");
    assert!(end.is_none());
}
