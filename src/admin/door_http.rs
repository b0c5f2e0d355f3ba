//! The door: looks at every request before anybody else does. Who may not come in is told why.
//!
//! Invariant: a request passes only with a decision of `access`, and the key that its token is bound to travels with
//! it; a stopping node takes no more rows.

use actix_web::HttpMessage;
use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use tracing::warn;

use super::access::{Access, Decision, KeySetting, Scope};
use super::readiness::{Phase, Readiness};
use crate::model::id::Key;
use crate::net::caller::BoundKey;
use crate::problem::Problem;

/// What the door knows.
#[derive(Clone)]
pub struct Door {
    pub access: Access,
    pub readiness: Readiness,
}

impl Door {
    /// Lets a request pass, or says why not.
    pub fn check(&self, request: &ServiceRequest) -> Result<(), Problem> {
        let needs = Scope::needed(request.method().as_str(), request.path());
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        match self.access.decide(authorization, needs) {
            Decision::Allowed(None) => {}
            Decision::Allowed(Some(key)) => {
                request.extensions_mut().insert(bound(key));
            }
            Decision::Unknown => {
                let detail = "send `Authorization: Bearer TOKEN` with a token of this cluster";
                return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", "A token is needed", detail));
            }
            Decision::Forbidden { name, needs } => {
                warn!(token = name, path = request.path(), needs = needs.name(), "a token lacks a scope");
                let detail = format!("the token '{name}' lacks the scope '{}'", needs.name());
                return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "The token does not allow this", detail));
            }
        }
        if needs == Some(Scope::Ingest) && self.readiness.phase() == Phase::Stopping {
            let detail = "the node is stopping; nothing of this request was counted, send it again";
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Problem::new(status, "stopping", "The node takes no more rows", detail));
        }
        Ok(())
    }
}

fn bound(key: KeySetting) -> BoundKey {
    match key {
        KeySetting::Int(value) => BoundKey(Key::int(value)),
        KeySetting::Text(value) => BoundKey(Key::text(&value)),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::admin::access::Token;

    fn door() -> Door {
        let token =
            |secret: &str, scope, key| Token { name: secret.into(), secret: secret.into(), scopes: vec![scope], key };
        let tokens = vec![token("shop", Scope::Query, Some(KeySetting::Int(42))), token("loader", Scope::Ingest, None)];
        Door { access: Access::new(tokens), readiness: Readiness::default() }
    }

    fn request(path: &str, secret: &str) -> ServiceRequest {
        TestRequest::post().uri(path).insert_header((AUTHORIZATION, format!("Bearer {secret}"))).to_srv_request()
    }

    #[test]
    fn the_key_of_a_token_travels_with_the_request() {
        let asked = request("/api/v1/query", "shop");
        assert_eq!(door().check(&asked), Ok(()));
        assert_eq!(asked.extensions().get::<BoundKey>(), Some(&BoundKey(Key::int(42))));
    }

    #[test]
    fn who_may_not_come_in_is_told_why() {
        let door = door();
        let refused = |path, secret| door.check(&request(path, secret)).map_err(|problem| problem.code);
        assert_eq!(refused("/api/v1/query", "nobody"), Err("unauthenticated"));
        assert_eq!(refused("/api/v1/query", "loader"), Err("forbidden"));
        assert_eq!(refused("/api/v1/ingest/orders", "loader"), Ok(()));
        door.readiness.set_stopping();
        assert_eq!(refused("/api/v1/ingest/orders", "loader"), Err("stopping"));
        assert_eq!(refused("/api/v1/query", "shop"), Ok(()));
    }
}
