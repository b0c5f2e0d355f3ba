//! Probes, metrics, the cluster's state and the status page.
//!
//! Invariant: `/livez` says that the process answers, `/readyz` that every partition is served and the node is not
//! stopping; neither needs anybody else to answer.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpResponse, web};
use futures::future::BoxFuture;

use super::page::page;
use super::readiness::Readiness;
use super::view::ClusterView;
use crate::metrics::Metrics;
use crate::problem::{Problem, ProblemDocument};

/// Asks all actors for what they are doing.
pub type ViewSource = Arc<dyn Fn() -> BoxFuture<'static, ClusterView> + Send + Sync>;

/// What the handlers need.
#[derive(Clone)]
pub struct AdminState {
    pub readiness: Readiness,
    pub metrics: Metrics,
    pub view: ViewSource,
}

/// Needs `web::Data<AdminState>`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/livez", web::get().to(livez))
        .route("/readyz", web::get().to(readyz))
        .route("/metrics", web::get().to(metrics))
        .route("/api/v1/cluster", web::get().to(cluster))
        .route("/", web::get().to(index));
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
    let detail = format!("the node is {}", state.readiness.state().name());
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

/// Nodes, tiers, tasks, rates and memory.
#[utoipa::path(get, path = "/api/v1/cluster", tag = "cluster", responses(
    (status = 200, description = "The state of the cluster", body = ClusterView),
))]
pub async fn cluster(state: web::Data<AdminState>) -> web::Json<ClusterView> {
    web::Json((state.view)().await)
}

/// The status page.
async fn index(state: web::Data<AdminState>) -> HttpResponse {
    let view = (state.view)().await;
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page(&view).into_string())
}
