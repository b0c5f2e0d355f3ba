//! Who may do what: bearer tokens with scopes. Pure.
//!
//! Invariant: with tokens configured nothing but the probes is open; a token bound to a key never gives more than
//! queries of that key.

use serde::{Deserialize, Serialize};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Admin,
    /// See the cluster and change modes.
    Operate,
    Ingest,
    Query,
}

/// A partition-key value as a configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeySetting {
    Int(i64),
    Text(String),
}

/// A token that is known.
#[derive(Clone)]
pub struct Token {
    /// Names it in logs; not secret.
    pub name: String,
    pub secret: String,
    pub scopes: Vec<Scope>,
    /// The only partition-key value that it may query.
    pub key: Option<KeySetting>,
}

/// All tokens; none: everybody who can connect may do everything.
#[derive(Clone, Default)]
pub struct Access {
    tokens: Vec<Token>,
}

/// What is decided about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The key that the caller is bound to, if any.
    Allowed(Option<KeySetting>),
    /// No token, or one that nobody knows.
    Unknown,
    /// A known token without the scope.
    Forbidden { name: String, needs: Scope },
}

impl Scope {
    /// What a request needs; `None`: nothing, it is a probe.
    pub fn needed(method: &str, path: &str) -> Option<Self> {
        match path {
            "/livez" | "/readyz" => None,
            _ if path.starts_with("/api/v1/ingest/") => Some(Self::Ingest),
            "/api/v1/query" | "/api/v1/metrics-catalog" | "/openapi.json" => Some(Self::Query),
            _ if path == "/docs" || path.starts_with("/docs/") => Some(Self::Query),
            _ if method == "GET" => Some(Self::Operate),
            _ if ["/api/v1/tiers/", "/api/v1/nodes/", "/api/v1/sources/"].iter().any(|it| path.starts_with(it)) => {
                Some(Self::Operate)
            }
            _ => Some(Self::Admin),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operate => "operate",
            Self::Ingest => "ingest",
            Self::Query => "query",
        }
    }
}

impl Access {
    pub fn new(tokens: Vec<Token>) -> Self {
        Self { tokens }
    }

    pub fn decide(&self, authorization: Option<&str>, needs: Option<Scope>) -> Decision {
        let Some(needs) = needs.filter(|_| !self.tokens.is_empty()) else {
            return Decision::Allowed(None);
        };
        let bearer = authorization.and_then(|text| text.split_once(' '));
        let Some((_, secret)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return Decision::Unknown;
        };
        // All are compared, so that the time does not tell which one was nearly right.
        let known = self.tokens.iter().fold(None, |found, token| {
            let matches = is_same(token.secret.as_bytes(), secret.trim().as_bytes());
            if matches { Some(token) } else { found }
        });
        match known {
            None => Decision::Unknown,
            Some(token) if token.scopes.iter().any(|scope| *scope == needs || *scope == Scope::Admin) => {
                Decision::Allowed(token.key.clone())
            }
            Some(token) => Decision::Forbidden { name: token.name.clone(), needs },
        }
    }
}

/// Compares without stopping at the first difference.
fn is_same(known: &[u8], given: &[u8]) -> bool {
    let differences = known.iter().zip(given).fold(0, |differences, (a, b)| differences | (a ^ b));
    known.len() == given.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        let token = |name: &str, scope, key| Token {
            name: name.into(),
            secret: format!("{name}-secret"),
            scopes: vec![scope],
            key,
        };
        Access::new(vec![
            token("boss", Scope::Admin, None),
            token("loader", Scope::Ingest, None),
            token("shop", Scope::Query, Some(KeySetting::Int(42))),
            token("operator", Scope::Operate, None),
        ])
    }

    #[test]
    fn a_token_opens_what_its_scope_names_and_nothing_else() {
        let access = access();
        let ask = |secret: &str, method: &str, path: &str| {
            access.decide(Some(&format!("Bearer {secret}")), Scope::needed(method, path))
        };
        assert_eq!(ask("boss-secret", "POST", "/api/v1/ingest/orders"), Decision::Allowed(None));
        assert_eq!(ask("loader-secret", "POST", "/api/v1/ingest/orders"), Decision::Allowed(None));
        assert_eq!(ask("shop-secret", "POST", "/api/v1/query"), Decision::Allowed(Some(KeySetting::Int(42))));
        let forbidden = Decision::Forbidden { name: "loader".into(), needs: Scope::Query };
        assert_eq!(ask("loader-secret", "POST", "/api/v1/query"), forbidden);
        for path in ["/", "/metrics", "/api/v1/cluster", "/api/v1/tiers/kv"] {
            assert!(matches!(ask("shop-secret", "GET", path), Decision::Forbidden { .. }), "{path}");
            assert_eq!(ask("wrong", "GET", path), Decision::Unknown);
        }
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/api/v1/events"),
            ("PUT", "/api/v1/tiers/kv"),
            ("POST", "/api/v1/nodes/slave-1/drain"),
            ("POST", "/api/v1/sources/shop/order"),
            ("DELETE", "/api/v1/nodes/slave-1/drain"),
        ] {
            assert_eq!(ask("operator-secret", method, path), Decision::Allowed(None), "{method} {path}");
            assert!(matches!(ask("loader-secret", method, path), Decision::Forbidden { .. }), "{method} {path}");
        }
        let elsewhere = ask("operator-secret", "POST", "/api/v1/anything");
        assert!(matches!(elsewhere, Decision::Forbidden { needs: Scope::Admin, .. }));
        assert_eq!(access.decide(None, Scope::needed("POST", "/api/v1/query")), Decision::Unknown);
        assert_eq!(access.decide(Some("Basic boss-secret"), Some(Scope::Query)), Decision::Unknown);
    }

    #[test]
    fn probes_are_open_and_without_tokens_everything_is() {
        assert_eq!(access().decide(None, Scope::needed("GET", "/readyz")), Decision::Allowed(None));
        let open = Access::default();
        assert_eq!(open.decide(None, Scope::needed("POST", "/api/v1/query")), Decision::Allowed(None));
    }
}
