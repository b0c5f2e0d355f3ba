//! `POST /api/v1/ingest/{table}` on a node without gates: says which nodes take rows.
//!
//! Invariant: nothing of the body is read, so nothing is counted.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use crate::problem::Problem;

/// The HTTP addresses of the nodes that take rows, as they are now.
pub struct GateNodes(pub Arc<dyn Fn() -> Vec<String> + Send + Sync>);

/// Registers the route; needs `web::Data<GateNodes>`.
pub fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/api/v1/ingest/{table}").route(web::post().to(misdirected)));
}

async fn misdirected(nodes: web::Data<GateNodes>) -> Result<HttpResponse, Problem> {
    let nodes = (nodes.0)();
    let (code, title) = ("not-a-gate", "This node takes no rows");
    Err(match nodes.as_slice() {
        [] => {
            let detail = "this node has no gates, and no other node that has is known; nothing was counted";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail)
        }
        known => {
            let detail = format!("this node has no gates; send rows to {}; nothing was counted", known.join(" or "));
            Problem::new(StatusCode::MISDIRECTED_REQUEST, code, title, detail)
        }
    }
    .with("nodes", nodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::{App, test};

    #[actix_web::test]
    async fn a_node_without_gates_names_those_that_have_some() {
        for (nodes, status) in [(vec![], 503), (vec!["http://127.0.0.1:7080".to_owned()], 421)] {
            let known = nodes.clone();
            let data = web::Data::new(GateNodes(Arc::new(move || known.clone())));
            let app = test::init_service(App::new().app_data(data).configure(routes)).await;
            let request = test::TestRequest::post().uri("/api/v1/ingest/orders").set_payload("a,b\n1,2\n");
            let response = test::call_service(&app, request.to_request()).await;
            assert_eq!(response.status().as_u16(), status);
            let body: serde_json::Value = test::read_body_json(response).await;
            assert_eq!((&body["code"], &body["nodes"]), (&"not-a-gate".into(), &nodes.into()));
        }
    }
}
