//! Probes, metrics, the cluster's state, live events and the admin page.
//!
//! Invariant: `/livez` says that the process answers, `/readyz` that every partition is served and the node is not
//! stopping; neither needs anybody else to answer.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::{HttpResponse, web};
use futures::StreamExt;
use serde::Deserialize;

use super::admin_state::{Masters, ViewSource};
use super::hub_service::{Form, Hub};
use super::page;
use super::readiness::Readiness;
use super::view::ClusterView;
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemDocument};

/// What the handlers need.
#[derive(Clone)]
pub struct AdminState {
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub view: ViewSource,
    pub hub: Hub,
    pub masters: Arc<dyn Masters>,
}

/// All that the page loads comes from this host, as files of their own.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Tells versions of the page's files apart, so that browsers can keep them.
static ASSETS: LazyLock<String> = LazyLock::new(|| {
    let parts = [page::STYLE, page::SCRIPT, page::ICON].concat();
    format!("{:x}", xxhash_rust::xxh3::xxh3_64(parts.as_bytes()))
});

/// Needs `web::Data<AdminState>`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/livez", web::get().to(livez))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics))
        .route("/api/v1/cluster", web::get().to(cluster))
        .route("/api/v1/events", web::get().to(events))
        .route("/", web::get().to(index))
        .route("/page.css", web::get().to(|| asset("text/css; charset=utf-8", page::STYLE)))
        .route("/page.js", web::get().to(|| asset("text/javascript; charset=utf-8", page::SCRIPT)))
        .route("/page.svg", web::get().to(|| asset("image/svg+xml", page::ICON)))
        .configure(super::control_http::routes);
}

/// The process is alive.
#[utoipa::path(get, path = "/livez", tag = "node", responses(
    (status = 200, description = "The process answers", body = String),
))]
pub async fn livez() -> &'static str {
    "ok\n"
}

/// All partitions are served.
#[utoipa::path(get, path = "/readyz", tag = "node", responses(
    (status = 200, description = "Every partition is served", body = String),
    (status = 503, description = "Starting or stopping", body = ProblemDocument),
))]
pub async fn readyz(state: web::Data<AdminState>) -> Result<&'static str, Problem> {
    if state.readiness.is_ready() {
        return Ok("ok\n");
    }
    let detail = format!("the node is {}", state.readiness.phase().name());
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The node does not serve yet or any more", detail))
}

/// All metrics, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "node", responses(
    (status = 200, description = "OpenMetrics text", body = String),
))]
pub async fn metrics(state: web::Data<AdminState>) -> HttpResponse {
    let media = (CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    HttpResponse::Ok().insert_header(media).body(state.metrics.encode())
}

/// Nodes, masters, tiers, tasks, rates, memory, incidents, and what is wrong.
#[utoipa::path(get, path = "/api/v1/cluster", tag = "cluster", responses(
    (status = 200, description = "The state of the cluster", body = ClusterView),
))]
pub async fn cluster(state: web::Data<AdminState>) -> web::Json<ClusterView> {
    web::Json((state.view)().await)
}

#[derive(Debug, Default, Deserialize)]
pub struct EventsQuery {
    /// `parts`: the page's HTML, part by part, when it changes.
    #[serde(default, rename = "as")]
    form: Option<String>,
}

/// The state of the cluster as server-sent events: `cluster` every second, `incidents` when they change.
#[utoipa::path(get, path = "/api/v1/events", tag = "cluster", responses(
    (status = 200, description = "Events `cluster` (as /api/v1/cluster) and `incidents` (as /api/v1/incidents)",
     body = String, content_type = "text/event-stream"),
    (status = 503, description = "Too many streams are open, or the node is stopping", body = ProblemDocument),
))]
pub async fn events(state: web::Data<AdminState>, query: web::Query<EventsQuery>) -> Result<HttpResponse, Problem> {
    let form = if query.form.as_deref() == Some("parts") { Form::Parts } else { Form::Documents };
    let Some(stream) = state.hub.watch(form) else {
        let detail = "all of [http] event_streams are open on this node; ask another node, or come again";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Problem::new(status, "too-many-streams", "Too many event streams are open", detail));
    };
    let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    let mut response = HttpResponse::Ok();
    headers.into_iter().for_each(|header| {
        response.insert_header(header);
    });
    // Proxies that collect what they pass on would hold events back.
    Ok(response.insert_header(("X-Accel-Buffering", "no")).streaming(stream.map(Ok::<_, Infallible>)))
}

/// The admin page.
async fn index(state: web::Data<AdminState>) -> HttpResponse {
    let view = (state.view)().await;
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("Content-Security-Policy", PAGE_POLICY))
        .insert_header(("Referrer-Policy", "same-origin"))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .body(page::page(&view, &ASSETS).into_string())
}

/// A file of the page; its address changes with its content.
async fn asset(media: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, media))
        .insert_header((CACHE_CONTROL, "max-age=31536000, immutable"))
        .insert_header(("X-Content-Type-Options", "nosniff"))
        .body(content)
}
