//! What operators decide: modes of tiers, nodes that are to be taken away; and the incidents that tell them why.
//!
//! Invariant: 200 means that a majority of the masters has it; 504 that nobody knows, and that the same can be asked again.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::admin_http::AdminState;
use super::view::IncidentsView;
use crate::model::mode::{Mode, Tier};
use crate::model::task::{NodeName, SourceOrder};
use crate::net::control::{Answered, Ask};
use crate::problem::{Problem, ProblemDocument};

/// An election is over by then.
const RETRY_AFTER_S: u64 = 1;

/// Needs `web::Data<AdminState>`.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/api/v1/incidents", web::get().to(incidents))
        .route("/api/v1/tiers/{tier}", web::put().to(hold_tier))
        .route("/api/v1/nodes/{name}/drain", web::post().to(drain))
        .route("/api/v1/nodes/{name}/drain", web::delete().to(undrain))
        .route("/api/v1/sources/{name}/order", web::post().to(order_source));
}

/// A decision about a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldTier {
    pub mode: WantedMode,
    /// Ends it after so long; without it, it holds until it is given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// What an operator wants of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WantedMode {
    /// Nodes decide again, by how the tier does.
    Auto,
    Normal,
    Degraded,
}

/// It is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Done {
    pub done: bool,
}

/// Incidents that are open, and the newest of those that are over.
#[utoipa::path(get, path = "/api/v1/incidents", tag = "cluster", responses(
    (status = 200, description = "Open and past incidents", body = IncidentsView),
))]
pub async fn incidents(state: web::Data<AdminState>) -> web::Json<IncidentsView> {
    web::Json((state.view)().await.incidents())
}

/// Holds a tier in a mode, or gives it back.
#[utoipa::path(put, path = "/api/v1/tiers/{tier}", tag = "cluster", request_body = HoldTier,
    params(("tier" = String, Path, description = "mq, kv, hot, cache or cold")),
    responses(
        (status = 200, description = "The masters have it", body = Done),
        (status = 400, description = "The body is not a decision", body = ProblemDocument),
        (status = 404, description = "There is no such tier", body = ProblemDocument),
        (status = 409, description = "It cannot be done", body = ProblemDocument),
        (status = 503, description = "No active master", body = ProblemDocument),
        (status = 504, description = "It may or may not be done; ask the same again", body = ProblemDocument),
    ))]
pub async fn hold_tier(
    state: web::Data<AdminState>,
    request: HttpRequest,
    tier: web::Path<String>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let tier = tier_named(&tier)?;
    let wanted: HoldTier = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("{error}; send {{\"mode\": \"auto\"|\"normal\"|\"degraded\", \"for_ms\": 60000}}");
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "The body cannot be read", detail)
    })?;
    let mode = match wanted.mode {
        WantedMode::Auto => None,
        WantedMode::Normal => Some(Mode::Normal),
        WantedMode::Degraded => Some(Mode::Degraded),
    };
    let ask = Ask::HoldTier { tier, mode, for_ms: wanted.for_ms, by: caller(&request) };
    done(state.masters.ask(ask).await)
}

/// Takes a node's tasks away, one by one and without loss of time; it is given none any more.
#[utoipa::path(post, path = "/api/v1/nodes/{name}/drain", tag = "cluster",
    params(("name" = String, Path, description = "The node's name")),
    responses(
        (status = 200, description = "The masters have it; its tasks move from now on", body = Done),
        (status = 404, description = "There is no such node", body = ProblemDocument),
        (status = 409, description = "It cannot be done", body = ProblemDocument),
        (status = 503, description = "No active master", body = ProblemDocument),
        (status = 504, description = "It may or may not be done; ask the same again", body = ProblemDocument),
    ))]
pub async fn drain(state: web::Data<AdminState>, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    set_draining(&state, &name, true).await
}

/// Gives a node tasks again.
#[utoipa::path(delete, path = "/api/v1/nodes/{name}/drain", tag = "cluster",
    params(("name" = String, Path, description = "The node's name")),
    responses(
        (status = 200, description = "The masters have it", body = Done),
        (status = 404, description = "There is no such node", body = ProblemDocument),
        (status = 409, description = "It cannot be done", body = ProblemDocument),
        (status = 503, description = "No active master", body = ProblemDocument),
        (status = 504, description = "It may or may not be done; ask the same again", body = ProblemDocument),
    ))]
pub async fn undrain(state: web::Data<AdminState>, name: web::Path<String>) -> Result<HttpResponse, Problem> {
    set_draining(&state, &name, false).await
}

/// What to do with a source that stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderSource {
    pub order: WantedOrder,
}

/// What an operator wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WantedOrder {
    /// That it tries again as it is.
    Retry,
    /// That it goes on past what stopped it; what that means, its incident says.
    Pass,
}

/// Has a source that stands still try again, or go on past what stopped it.
#[utoipa::path(post, path = "/api/v1/sources/{name}/order", tag = "cluster", request_body = OrderSource,
    params(("name" = String, Path, description = "The source's name")),
    responses(
        (status = 200, description = "The node that captures it was told", body = Done),
        (status = 400, description = "The body is not an order", body = ProblemDocument),
        (status = 409, description = "There is no such source, it does not stand still, or nobody captures it", body = ProblemDocument),
        (status = 503, description = "No active master", body = ProblemDocument),
        (status = 504, description = "It may or may not be done; ask the same again", body = ProblemDocument),
    ))]
pub async fn order_source(
    state: web::Data<AdminState>,
    name: web::Path<String>,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    let wanted: OrderSource = serde_json::from_slice(&body).map_err(|error| {
        let detail = format!("{error}; send {{\"order\": \"retry\"|\"pass\"}}");
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "The body cannot be read", detail)
    })?;
    let order = match wanted.order {
        WantedOrder::Retry => SourceOrder::Retry,
        WantedOrder::Pass => SourceOrder::Pass,
    };
    let ask = Ask::OrderSource { source: name.as_str().into(), order };
    done(state.masters.ask(ask).await)
}

async fn set_draining(state: &AdminState, name: &str, draining: bool) -> Result<HttpResponse, Problem> {
    let answered = state.masters.ask(Ask::Drain { node: NodeName::new(name), draining }).await;
    if matches!(answered, Answered::Refused { .. }) {
        let view = (state.view)().await;
        if !view.nodes.iter().any(|node| node.name == name) {
            let detail = format!("there is no node '{name}'; `holdfast status` names all");
            return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-node", "There is no such node", detail));
        }
    }
    done(answered)
}

fn tier_named(name: &str) -> Result<Tier, Problem> {
    Tier::ALL.into_iter().find(|tier| tier.name() == name).ok_or_else(|| {
        let detail = format!("there is no tier '{name}'; tiers are mq, kv, hot, cache and cold");
        Problem::new(StatusCode::NOT_FOUND, "no-such-tier", "There is no such tier", detail)
    })
}

/// Who decided, for the incident.
fn caller(request: &HttpRequest) -> String {
    let address = request.peer_addr().map(|address| address.ip().to_string());
    address.map_or_else(|| "an operator".to_owned(), |address| format!("an operator at {address}"))
}

/// What an answer of the masters means to the one who asked.
fn done(answered: Answered) -> Result<HttpResponse, Problem> {
    match answered {
        Answered::Done | Answered::State(_) | Answered::Checkpoint { .. } => {
            Ok(HttpResponse::Ok().json(Done { done: true }))
        }
        Answered::Refused { reason } => {
            Err(Problem::new(StatusCode::CONFLICT, "refused", "The masters do not do this", reason))
        }
        Answered::NotActive { active } => {
            let known = active.map(|active| format!(" (it was {active})")).unwrap_or_default();
            let detail = format!("no active master is known now{known}; nothing was done, try again");
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Err(Problem::new(status, "no-active-master", "No active master", detail).retry_after_s(RETRY_AFTER_S))
        }
        Answered::Unknown => {
            let detail =
                "the masters have not confirmed it in time: it may be done or not; the same can be asked again";
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "The outcome is not known", detail))
        }
    }
}

#[cfg(test)]
#[path = "control_http_tests.rs"]
mod tests;
