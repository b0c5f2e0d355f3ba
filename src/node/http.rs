//! The HTTP server of a node: every role's routes behind one door, with their documentation.
//!
//! Invariant: connections, waits and requests are bounded; no page asks another host for anything.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, Service, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::DefaultHeaders;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, ResponseError, web};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config as SwaggerConfig, SwaggerUi};

use crate::admin::admin_http::{self, AdminState};
use crate::admin::control_http;
use crate::admin::door_http::Door;
use crate::config::HttpSettings;
use crate::elsewhere_http::Elsewhere;
use crate::gate::gate_http::{self, IngestState};
use crate::problem::Problem;
use crate::query::query_http;
use crate::query::query_service::QueryService;

/// Everything of the API that people may rely on.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "holdfast",
        description = "Metrics from row changes, with their quality. Errors are `application/problem+json` (RFC 9457) with a stable `code`."
    ),
    paths(
        gate_http::ingest,
        query_http::query,
        query_http::metrics_catalog,
        admin_http::cluster,
        admin_http::events,
        control_http::incidents,
        control_http::hold_tier,
        control_http::drain,
        control_http::undrain,
        control_http::order_source,
        admin_http::livez,
        admin_http::readyz,
        admin_http::metrics,
    ),
    components(schemas(crate::problem::ProblemDocument))
)]
struct Documentation;

/// What the routes of all roles work with.
#[derive(Clone)]
pub struct HttpParts {
    pub door: Arc<Door>,
    pub admin: web::Data<AdminState>,
    pub ingest: Here<IngestState>,
    pub query: Here<QueryService>,
}

/// What a role's routes work with, or who else has the role.
pub enum Here<T> {
    Yes(web::Data<T>),
    No(Elsewhere),
}

impl<T> Clone for Here<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Yes(data) => Self::Yes(data.clone()),
            Self::No(elsewhere) => Self::No(elsewhere.clone()),
        }
    }
}

impl<T: 'static> Here<T> {
    fn configure(
        self,
        routes: fn(&mut web::ServiceConfig),
        paths: &'static [&'static str],
    ) -> impl FnOnce(&mut web::ServiceConfig) {
        move |config| match self {
            Self::Yes(data) => routes(config.app_data(data)),
            Self::No(elsewhere) => elsewhere.routes(paths, config),
        }
    }
}

/// Styles are inline in the pages; everything else comes from this server.
const PAGE_POLICY: &str =
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

/// Starts to serve; the server ends with its handle.
pub fn serve(listener: TcpListener, settings: &HttpSettings, parts: HttpParts) -> std::io::Result<Server> {
    let document = web::Data::new(Documentation::openapi());
    let app = move || {
        let door = parts.door.clone();
        App::new()
            .app_data(parts.admin.clone())
            .app_data(document.clone())
            .wrap_fn(move |request, routes| {
                let passed = door.check(&request).map(|()| routes.call(request));
                async move { Ok(explained(passed?.await?)) }
            })
            .configure(parts.query.clone().configure(query_http::routes, &["/api/v1/query", "/api/v1/metrics-catalog"]))
            .configure(parts.ingest.clone().configure(gate_http::routes, &["/api/v1/ingest/{table}"]))
            .configure(admin_http::routes)
            .route("/openapi.json", web::get().to(openapi))
            .service(web::redirect("/docs", "/docs/"))
            .service(docs())
            .default_service(web::to(nowhere))
    };
    let workers = if settings.workers == 0 { super::cores() } else { settings.workers };
    let server = HttpServer::new(app)
        .workers(workers)
        .max_connections(settings.max_connections)
        .keep_alive(settings.keep_alive.duration())
        .client_request_timeout(settings.request_timeout.duration())
        .client_disconnect_timeout(Duration::from_secs(1))
        .shutdown_timeout(settings.shutdown_timeout.duration().as_secs())
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

fn docs() -> impl actix_web::dev::HttpServiceFactory {
    // Swagger UI would ask a validator in the internet about the document.
    let config = SwaggerConfig::from("/openapi.json").validator_url("none").try_it_out_enabled(true);
    web::scope("/docs")
        .wrap(DefaultHeaders::new().add(("Content-Security-Policy", PAGE_POLICY)))
        .service(SwaggerUi::new("/{_:.*}").config(config))
}

async fn openapi(document: web::Data<utoipa::openapi::OpenApi>) -> HttpResponse {
    HttpResponse::Ok().json(document.as_ref())
}

async fn nowhere(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let detail = format!("there is no {} {}; see /docs/", request.method(), request.path());
    Err(Problem::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail))
}

/// The router refuses a method without a word; every error here is a problem.
fn explained(response: ServiceResponse) -> ServiceResponse {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let (request, refusal) = response.into_parts();
    let detail = format!("{} cannot be asked with {}", request.path(), request.method());
    let problem = Problem::new(refusal.status(), "method-not-allowed", "Method not allowed", detail);
    let mut explained = problem.error_response();
    if let Some(allowed) = refusal.headers().get(header::ALLOW) {
        explained.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    ServiceResponse::new(request, explained)
}
