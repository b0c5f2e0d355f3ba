//! What operators ask for, what the masters hear, and what their answers become.

use std::sync::{Arc, Mutex};

use actix_web::{App, test};
use futures::future::{BoxFuture, FutureExt};

use super::*;
use crate::admin::admin_state::{Masters, ViewSource};
use crate::admin::fixture_tests::{NOW_MS, about, broken};
use crate::admin::hub_service::Hub;
use crate::admin::readiness::Readiness;
use crate::admin::view::ClusterView;
use crate::metrics::Metrics;

/// Answers always the same, and remembers what it was asked.
struct Scripted {
    answer: Answered,
    asked: Mutex<Vec<Ask>>,
}

impl Masters for Scripted {
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Answered> {
        self.asked.lock().expect("one thread").push(ask);
        std::future::ready(self.answer.clone()).boxed()
    }
}

/// Status, Retry-After, code, and what the masters were asked.
async fn ask(answer: Answered, request: test::TestRequest) -> (u16, Option<String>, String, Vec<Ask>) {
    let view: ViewSource =
        Arc::new(|| std::future::ready(ClusterView::of(&broken(4, 16, NOW_MS), about(16, NOW_MS))).boxed());
    let masters = Arc::new(Scripted { answer, asked: Mutex::default() });
    let readiness = Readiness::default();
    let hub = Hub::new(view.clone(), readiness.clone(), 1);
    let state = AdminState { readiness, metrics: Metrics::default(), view, hub, masters: masters.clone() };
    let app = test::init_service(App::new().app_data(web::Data::new(state)).configure(routes)).await;
    let response = test::call_service(&app, request.to_request()).await;
    let status = response.status().as_u16();
    let retry = response.headers().get("retry-after").map(|value| value.to_str().expect("ASCII").to_owned());
    let body: serde_json::Value = serde_json::from_slice(&test::read_body(response).await).unwrap_or_default();
    let asked = masters.asked.lock().expect("one thread").clone();
    (status, retry, body["code"].as_str().unwrap_or_default().to_owned(), asked)
}

fn hold(tier: &str, body: &'static str) -> test::TestRequest {
    test::TestRequest::put().uri(&format!("/api/v1/tiers/{tier}")).set_payload(body)
}

fn drain_of(name: &str) -> test::TestRequest {
    test::TestRequest::post().uri(&format!("/api/v1/nodes/{name}/drain"))
}

#[actix_web::test]
async fn a_decision_reaches_the_masters_as_it_was_meant() {
    let (status, _, _, asked) = ask(Answered::Done, hold("kv", r#"{"mode":"degraded","for_ms":60000}"#)).await;
    let (tier, mode, by) = (Tier::Kv, Some(Mode::Degraded), "an operator".to_owned());
    assert_eq!((status, asked), (200, vec![Ask::HoldTier { tier, mode, for_ms: Some(60_000), by }]));
    let (status, _, _, asked) = ask(Answered::Done, hold("mq", r#"{"mode":"auto"}"#)).await;
    assert!(status == 200 && matches!(asked[..], [Ask::HoldTier { tier: Tier::Mq, mode: None, for_ms: None, .. }]));
    let node = NodeName::new("slave-1");
    let (_, _, _, asked) = ask(Answered::Done, drain_of("slave-1")).await;
    assert_eq!(asked, [Ask::Drain { node: node.clone(), draining: true }]);
    let order = test::TestRequest::post().uri("/api/v1/sources/shop/order").set_payload(r#"{"order":"pass"}"#);
    let told = Ask::OrderSource { source: "shop".into(), order: SourceOrder::Pass };
    assert_eq!(ask(Answered::Done, order).await.3, [told]);
    let undo = test::TestRequest::delete().uri("/api/v1/nodes/slave-1/drain");
    assert_eq!(ask(Answered::Done, undo).await.3, [Ask::Drain { node, draining: false }]);
}

#[actix_web::test]
async fn every_answer_of_the_masters_has_its_status() {
    let refused = || Answered::Refused { reason: "it is the last slave".to_owned() };
    let not_active = Answered::NotActive { active: Some("127.0.0.1:7072".to_owned()) };
    let outcome = async |answer, request| {
        let (status, retry, code, _) = ask(answer, request).await;
        (status, retry, code)
    };
    let again = Some("1".to_owned());
    assert_eq!(outcome(not_active, drain_of("slave-1")).await, (503, again, "no-active-master".to_owned()));
    assert_eq!(outcome(Answered::Unknown, drain_of("slave-1")).await, (504, None, "outcome-unknown".to_owned()));
    assert_eq!(outcome(refused(), drain_of("slave-1")).await, (409, None, "refused".to_owned()));
    assert_eq!(outcome(refused(), drain_of("nobody")).await, (404, None, "no-such-node".to_owned()));
}

#[actix_web::test]
async fn what_is_no_decision_does_not_reach_the_masters() {
    for (request, status) in [
        (hold("kafka", r#"{"mode":"auto"}"#), 404),
        (hold("kv", r#"{"mode":"recovering"}"#), 400),
        (hold("kv", r#"{"mode":"auto","until":3}"#), 400),
        (hold("kv", ""), 400),
    ] {
        let (found, _, _, asked) = ask(Answered::Done, request).await;
        assert_eq!((found, asked), (status, vec![]));
    }
}

#[actix_web::test]
async fn incidents_are_open_or_past() {
    let view = ClusterView::of(&broken(4, 16, NOW_MS), about(16, NOW_MS));
    let found = view.incidents();
    assert_eq!((found.open.len(), found.past.len()), (4, 1));
    let (status, ..) = ask(Answered::Done, test::TestRequest::get().uri("/api/v1/incidents")).await;
    assert_eq!(status, 200);
}
