//! What the tests of links share: a handler with services of every temper.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::link::{
    Fingerprint, Handler, Identity, Link, LinkState, NetError, Peer, Refusal, RefusalKind, StreamReader, StreamWriter,
};
use crate::locks::lock;

pub const ECHO: u16 = 1;
pub const NEVER: u16 = 2;
pub const PANICS: u16 = 3;
/// Answers with as many bytes as the body says.
pub const MUCH: u16 = 4;
pub const WHO: u16 = 5;
/// Answers when a permit is there.
pub const GATED: u16 = 6;
/// Takes its messages when permits are there.
pub const GATED_MESSAGES: u16 = 10;
pub const MESSAGES: u16 = 11;
/// Gives the items back.
pub const ECHO_STREAM: u16 = 20;
/// Reads items when permits are there.
pub const GATED_STREAM: u16 = 21;

pub const SOON: Duration = Duration::from_secs(10);

pub struct Services {
    pub gate: Semaphore,
    pub messages: Mutex<Vec<Bytes>>,
    pub links: Mutex<Vec<Arc<dyn Link>>>,
}

impl Services {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { gate: Semaphore::new(0), messages: Mutex::default(), links: Mutex::default() })
    }

    async fn pass(&self) {
        self.gate.acquire().await.expect("never closed").forget();
    }

    pub fn messages(&self) -> Vec<Bytes> {
        lock(&self.messages).clone()
    }

    pub fn link(&self) -> Option<Arc<dyn Link>> {
        lock(&self.links).last().cloned()
    }
}

impl Handler for Services {
    fn call<'a>(&'a self, peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(async move {
            match service {
                ECHO => Ok(body),
                NEVER => std::future::pending().await,
                PANICS => panic!("as it should"),
                MUCH => Ok(vec![7; String::from_utf8_lossy(&body).parse().expect("a number")].into()),
                WHO => Ok(peer.name.clone().into()),
                GATED => {
                    self.pass().await;
                    Ok(body)
                }
                _ => Err(Refusal::no_such_service(service)),
            }
        })
    }

    fn receive<'a>(&'a self, _peer: &'a Peer, service: u16, body: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match service {
                GATED_MESSAGES => self.pass().await,
                PANICS if body.is_empty() => panic!("as it should"),
                _ => {}
            }
            lock(&self.messages).push(body);
        })
    }

    fn stream<'a>(
        &'a self,
        _peer: &'a Peer,
        service: u16,
        mut writer: StreamWriter,
        mut reader: StreamReader,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if service != GATED_STREAM && service != ECHO_STREAM {
                return;
            }
            loop {
                if service == GATED_STREAM {
                    self.pass().await;
                }
                match reader.read().await {
                    Ok(Some(item)) if writer.write(item.clone()).await.is_ok() => {}
                    Ok(None) => return drop(writer.finish()),
                    _ => return,
                }
            }
        })
    }

    fn connected(&self, link: Arc<dyn Link>) {
        lock(&self.links).push(link);
    }
}

pub fn identity(name: &str) -> Identity {
    identity_with(name, "secret", "64")
}

pub fn identity_with(name: &str, secret: &str, partitions: &str) -> Identity {
    let me = Peer { name: name.into(), roles: vec!["slave".into()], addresses: Vec::new(), boot: 1 };
    let agreed = Fingerprint::new([("partitions", partitions), ("timezone", "UTC")]);
    Identity { cluster: "shop".into(), secret: secret.into(), agreed, me }
}

/// Waits for a state.
pub async fn until(link: &Arc<dyn Link>, wanted: impl Fn(&LinkState) -> bool) -> LinkState {
    let mut state = link.state();
    let found = tokio::time::timeout(SOON, state.wait_for(|state| wanted(state))).await;
    found.expect("in time").expect("the link lives").clone()
}

pub async fn until_up(link: &Arc<dyn Link>) {
    until(link, |state| state.peer().is_some()).await;
}

/// Waits until the link is down for a reason with these words.
pub async fn until_down(link: &Arc<dyn Link>, words: &str) {
    until(link, |state| matches!(state, LinkState::Down { reason } if reason.contains(words))).await;
}

/// Waits until something holds.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

pub fn is_refused(error: &NetError, kind: RefusalKind) -> bool {
    matches!(error, NetError::Refused { refusal, .. } if refusal.kind == kind)
}
