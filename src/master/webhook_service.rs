//! Tells somebody outside of incidents: a POST with JSON when one opens and when it closes.
//!
//! Invariant: nobody waits for it; what waits to be sent, how often and how long it is tried, are limited: an incident that could
//! not be told is still on the page and in the log.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::backoff::Backoff;
use crate::model::incident::Incident;
use crate::model::units::Millis;

/// The `[alerts]` section. What each value is for stands beside its default in `cluster.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertSettings {
    /// Empty: none.
    pub webhook: String,
    pub timeout: Millis,
    pub attempts: u32,
    pub retry: Backoff,
    pub waiting: usize,
}

impl AlertSettings {
    /// The key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.webhook.starts_with("https://") {
            return Err(("webhook", "this build sends to http:// only; let a proxy beside it add TLS"));
        }
        if !self.webhook.is_empty() && reqwest::Url::parse(&self.webhook).map_or(true, |url| url.scheme() != "http") {
            return Err(("webhook", "an http:// address, or empty for none"));
        }
        if self.attempts == 0 || self.waiting == 0 {
            return Err(("attempts", "at least one must be made, and one wait"));
        }
        Ok(())
    }
}

/// What is sent.
#[derive(Debug, Clone, Serialize)]
struct Notice<'a> {
    cluster: &'a str,
    event: &'static str,
    incident: &'a Incident,
}

/// Sends in the order of the incidents.
pub struct Webhook {
    queue: Option<mpsc::Sender<Incident>>,
    task: Option<JoinHandle<()>>,
}

impl Webhook {
    pub fn start(settings: &AlertSettings, cluster: &str) -> Self {
        if settings.webhook.is_empty() {
            return Self { queue: None, task: None };
        }
        let (queue, incidents) = mpsc::channel(settings.waiting.max(1));
        let task = tokio::spawn(run(settings.clone(), cluster.to_owned(), incidents));
        Self { queue: Some(queue), task: Some(task) }
    }

    pub fn tell(&self, incident: &Incident) {
        if self.queue.as_ref().is_some_and(|queue| queue.try_send(incident.clone()).is_err()) {
            warn!(
                id = incident.id,
                subject = incident.subject,
                "the webhook is too slow; it is not told of an incident"
            );
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.iter().for_each(JoinHandle::abort);
    }
}

async fn run(settings: AlertSettings, cluster: String, mut incidents: mpsc::Receiver<Incident>) {
    let client = reqwest::Client::builder().timeout(settings.timeout.duration()).build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return warn!(%error, "there can be no webhook"),
    };
    while let Some(incident) = incidents.recv().await {
        let event = if incident.closed_ms.is_some() { "closed" } else { "opened" };
        let notice = Notice { cluster: &cluster, event, incident: &incident };
        for attempt in 1..=settings.attempts {
            let sent = client.post(&settings.webhook).json(&notice).send().await;
            let Err(error) = sent.and_then(reqwest::Response::error_for_status) else { break };
            // The address may hold a token.
            let error = error.without_url();
            if attempt == settings.attempts {
                warn!(id = incident.id, %error, attempt, "the webhook was not told of an incident");
            } else {
                tokio::time::sleep(settings.retry.delay(attempt).duration()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::model::incident::IncidentKind;

    fn settings(webhook: String) -> AlertSettings {
        let retry = Backoff { first: Millis(5), most: Millis(10) };
        AlertSettings { webhook, timeout: Millis(2_000), attempts: 3, retry, waiting: 2 }
    }

    #[tokio::test]
    async fn an_incident_is_told_again_until_it_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let webhook = Webhook::start(&settings(format!("http://{address}/hook")), "shop");
        let incident = Incident {
            id: 7,
            kind: IncidentKind::NodeLost,
            subject: "n1".into(),
            text: "it was silent".into(),
            opened_ms: 5,
            closed_ms: None,
        };
        webhook.tell(&incident);
        let mut bodies = Vec::new();
        for status in ["503 Not now", "200 OK"] {
            let (mut socket, _) = listener.accept().await.expect("it calls");
            let mut request = vec![0; 4_096];
            let mut have = 0;
            while !request[..have].ends_with(b"}") {
                have += socket.read(&mut request[have..]).await.expect("a request");
            }
            bodies.push(String::from_utf8_lossy(&request[..have]).into_owned());
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            socket.write_all(answer.as_bytes()).await.expect("it listens");
        }
        assert!(bodies.iter().all(|body| body.contains(r#""event":"opened""#) && body.contains(r#""subject":"n1""#)));
    }

    #[test]
    fn addresses_that_cannot_be_told_are_refused() {
        for (webhook, is_sound) in [("", true), ("http://a:1/x", true), ("https://a", false), ("a:1", false)] {
            assert_eq!(settings(webhook.into()).check().is_ok(), is_sound, "{webhook}");
        }
    }
}
