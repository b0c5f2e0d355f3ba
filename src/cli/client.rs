//! Talking to a running holdfast over HTTP: address, token, errors.
//!
//! Invariant: a server that cannot be reached, one that refuses and one that reports an error are told apart, in the
//! words of the server where there are some.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use super::Outcome;
use super::failure::{Exit, Failure};

/// Which server, and as whom.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// Where holdfast listens.
    #[arg(long, env = "HOLDFAST_SERVER", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    server: String,
    /// A file with the bearer token; without it the variable HOLDFAST_TOKEN is used, if set.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// A server's problem document, as far as commands look into it.
#[derive(Debug, Default, Deserialize)]
pub struct Problem {
    #[serde(default)]
    pub code: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    pub line: Option<u64>,
    /// A number in a query's text, a name in a table's row.
    column: Option<serde_json::Value>,
    /// What is wrong with a row, without its place, and what stands there.
    reason: Option<String>,
    value: Option<String>,
}

impl Problem {
    /// The problem in words.
    pub fn text(&self) -> &str {
        if self.detail.is_empty() { &self.title } else { &self.detail }
    }

    /// What is wrong with a row, without its line: a request's lines are not those of the file it was cut from.
    pub fn row_fault(&self) -> String {
        let reason = self.reason.as_deref().unwrap_or(self.text());
        let column = self.column.as_ref().and_then(serde_json::Value::as_str);
        let column = column.map(|name| format!("column '{name}': ")).unwrap_or_default();
        let value = self.value.as_ref().map(|value| format!(" (found '{value}')")).unwrap_or_default();
        format!("{column}{reason}{value}")
    }
}

/// A connection to a server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<HeaderValue>,
}

/// Runs a client command on a runtime of its own.
pub fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(command)
}

impl Server {
    pub fn connect(&self) -> Result<Client, Failure> {
        let token = match &self.token_file {
            Some(file) => {
                let read = std::fs::read_to_string(file);
                Some(read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?)
            }
            None => std::env::var("HOLDFAST_TOKEN").ok().filter(|token| !token.is_empty()),
        };
        Client::new(&self.server, token.as_deref())
    }
}

impl Client {
    pub fn new(server: &str, token: Option<&str>) -> Result<Self, Failure> {
        let token = token
            .map(|token| HeaderValue::try_from(format!("Bearer {}", token.trim())))
            .transpose()
            .map_err(|_| Failure::failed("the token holds characters that a header cannot carry"))?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        let server = server.trim_end_matches('/').to_owned();
        let server = if server.contains("://") { server } else { format!("http://{server}") };
        if server.starts_with("https:") {
            return Err(Failure::failed("holdfast speaks plain HTTP; put a proxy in front for TLS"));
        }
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(5)).build();
        let http = http.map_err(|error| Failure::failed(chain(&error)))?;
        Ok(Self { http, server, token })
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.authorized(self.http.get(format!("{}{path}", self.server)))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.authorized(self.http.post(format!("{}{path}", self.server)))
    }

    pub fn put(&self, path: &str) -> RequestBuilder {
        self.authorized(self.http.put(format!("{}{path}", self.server)))
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.authorized(self.http.delete(format!("{}{path}", self.server)))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }

    /// Sends a request; an answer other than success is a failure.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem = read_problem(response).await;
        Err(refusal(status, &problem))
    }

    pub fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::new(Exit::Unreachable, format!("cannot reach {}: {}", self.server, chain(error)))
    }
}

/// The problem that a response tells of, or its status in words.
pub async fn read_problem(response: Response) -> Problem {
    let status = response.status();
    let document = response.json::<Problem>().await.unwrap_or_default();
    match document.text() {
        "" => Problem { detail: format!("the server answered {status}"), ..document },
        _ => document,
    }
}

/// What a refusal means for the exit code.
pub fn refusal(status: StatusCode, problem: &Problem) -> Failure {
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => Exit::Refused,
        _ if problem.code.starts_with("quality") => Exit::Refused,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Exit::Unreachable,
        _ => Exit::Failed,
    };
    Failure::new(exit, problem.text())
}

/// An error with its causes, each once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
