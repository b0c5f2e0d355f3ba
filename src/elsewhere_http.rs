//! Paths that this node does not serve, for it lacks the role: says which nodes do.
//!
//! Invariant: nothing of a body is read, so nothing is counted.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};

use crate::problem::Problem;

/// The HTTP addresses of nodes that do it, as they are now.
pub type Nodes = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// What is done elsewhere.
#[derive(Clone)]
pub struct Elsewhere {
    pub code: &'static str,
    /// As in "this node takes no rows".
    pub lacks: &'static str,
    /// As in "send rows to".
    pub way_out: &'static str,
    pub nodes: Nodes,
}

impl Elsewhere {
    pub fn rows(nodes: Nodes) -> Self {
        Self { code: "not-a-gate", lacks: "This node takes no rows", way_out: "send rows to", nodes }
    }

    pub fn queries(nodes: Nodes) -> Self {
        Self { code: "not-a-query-node", lacks: "This node answers no queries", way_out: "ask", nodes }
    }

    /// Registers the paths.
    pub fn routes(&self, paths: &[&str], config: &mut web::ServiceConfig) {
        for path in paths {
            let elsewhere = self.clone();
            let misdirected = move || std::future::ready(Err::<HttpResponse, _>(elsewhere.problem()));
            config.service(web::resource(*path).to(misdirected));
        }
    }

    fn problem(&self) -> Problem {
        let nodes = (self.nodes)();
        let nothing = "nothing was done";
        match nodes.as_slice() {
            [] => {
                let detail = format!("{}, and no node that does is known; {nothing}", self.lacks);
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, self.code, self.lacks, detail)
            }
            known => {
                let detail = format!("{}; {} {}; {nothing}", self.lacks, self.way_out, known.join(" or "));
                Problem::new(StatusCode::MISDIRECTED_REQUEST, self.code, self.lacks, detail)
            }
        }
        .with("nodes", nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::{App, test};

    #[actix_web::test]
    async fn a_node_without_a_role_names_those_that_have_it() {
        for (nodes, status) in [(vec![], 503), (vec!["http://127.0.0.1:7080".to_owned()], 421)] {
            let known = nodes.clone();
            let elsewhere = Elsewhere::rows(Arc::new(move || known.clone()));
            let app = App::new().configure(|config| elsewhere.routes(&["/api/v1/ingest/{table}"], config));
            let app = test::init_service(app).await;
            let request = test::TestRequest::post().uri("/api/v1/ingest/orders").set_payload("a,b\n1,2\n");
            let response = test::call_service(&app, request.to_request()).await;
            assert_eq!(response.status().as_u16(), status);
            let body: serde_json::Value = test::read_body_json(response).await;
            assert_eq!((&body["code"], &body["nodes"]), (&"not-a-gate".into(), &nodes.into()));
        }
    }
}
