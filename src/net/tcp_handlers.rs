//! The handlers of one connection, while they run.
//!
//! Invariant: they end with the connection; every call gets an answer, also from a handler that panicked or was dropped.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::error::{Refusal, RefusalKind};
use super::link::Handler;
use super::tcp_connection::Connection;
use super::tcp_stream::{StreamReader, StreamWriter};

pub struct Handlers {
    connection: Arc<Connection>,
    handler: Arc<dyn Handler>,
    tasks: JoinSet<()>,
    /// One for each service, so that a slow one stops no other. Bounded by the window that the peer has for each.
    receivers: HashMap<u16, mpsc::UnboundedSender<Bytes>>,
}

impl Handlers {
    pub fn new(connection: Arc<Connection>, handler: Arc<dyn Handler>) -> Self {
        Self { connection, handler, tasks: JoinSet::new(), receivers: HashMap::new() }
    }

    fn reap(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }

    pub fn start_call(&mut self, id: u64, service: u16, body: Bytes) -> AbortHandle {
        self.reap();
        let (connection, handler) = (self.connection.clone(), self.handler.clone());
        let owed = OwedAnswer { connection, id, outcome: None };
        self.tasks.spawn(async move {
            owed.connection.answers_room().await;
            let outcome = handler.call(owed.connection.peer(), service, body).await;
            owed.pay(outcome);
        })
    }

    pub fn start_stream(&mut self, service: u16, writer: StreamWriter, reader: StreamReader) {
        self.reap();
        let (connection, handler) = (self.connection.clone(), self.handler.clone());
        self.tasks.spawn(async move { handler.stream(connection.peer(), service, writer, reader).await });
    }

    pub fn receive(&mut self, service: u16, body: Bytes) {
        let (connection, handler, tasks) = (&self.connection, &self.handler, &mut self.tasks);
        let receiver = self.receivers.entry(service).or_insert_with(|| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tasks.spawn(receive_all(connection.clone(), handler.clone(), service, receiver));
            sender
        });
        // The task ends only with the connection.
        let _ = receiver.send(body);
    }
}

async fn receive_all(
    connection: Arc<Connection>,
    handler: Arc<dyn Handler>,
    service: u16,
    mut messages: mpsc::UnboundedReceiver<Bytes>,
) {
    while let Some(body) = messages.recv().await {
        let length = body.len();
        // A panic costs its message, not those after it. The panic hook has said where it was.
        let _ = AssertUnwindSafe(handler.receive(connection.peer(), service, body)).catch_unwind().await;
        if connection.with(|mux| mux.received(service, length)).is_err() {
            return;
        }
    }
}

/// Answers when it is dropped, whatever became of the handler.
struct OwedAnswer {
    connection: Arc<Connection>,
    id: u64,
    outcome: Option<Result<Bytes, Refusal>>,
}

impl OwedAnswer {
    fn pay(mut self, outcome: Result<Bytes, Refusal>) {
        self.outcome = Some(outcome);
    }
}

impl Drop for OwedAnswer {
    fn drop(&mut self) {
        let unanswered = || Err(Refusal::new(RefusalKind::Failed, "the handler ended without an answer"));
        let outcome = self.outcome.take().unwrap_or_else(unanswered);
        self.connection.answer(self.id, outcome);
    }
}
