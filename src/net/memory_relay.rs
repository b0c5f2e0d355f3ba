//! Carries the bytes between two nodes of one process, and breaks as it is told.
//!
//! Invariant: like a network it may hold back bytes, or end a connection, but it never changes or reorders them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;

/// From a node to another, by their names.
pub type Direction = (String, String);

#[derive(Debug, Clone, Copy, Default)]
pub struct Fault {
    pub is_cut: bool,
    pub delay: Duration,
    /// One message or call of so many is lost; zero: none.
    pub lose_every: u64,
    /// Messages and calls so far.
    pub counted: u64,
    /// Connections made before the last break are gone.
    pub breaks: u64,
}

/// The faults between all nodes.
#[derive(Debug, Clone)]
pub struct Faults(Arc<watch::Sender<HashMap<Direction, Fault>>>);

impl Default for Faults {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(HashMap::new())))
    }
}

impl Faults {
    pub fn set(&self, from: &str, to: &str, change: impl FnOnce(&mut Fault)) {
        self.0.send_modify(|faults| change(faults.entry((from.to_owned(), to.to_owned())).or_default()));
    }

    pub fn get(&self, from: &str, to: &str) -> Fault {
        self.0.borrow().get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default()
    }

    /// Is this message or call one that is lost?
    pub fn loses(&self, from: &str, to: &str) -> bool {
        if self.get(from, to).lose_every == 0 {
            return false;
        }
        let mut is_lost = false;
        self.set(from, to, |fault| {
            fault.counted += 1;
            is_lost = fault.counted.is_multiple_of(fault.lose_every);
        });
        is_lost
    }
}

/// Joins two pipes by two one-way pumps.
pub fn join(faults: &Faults, dialer: (&str, DuplexStream), listener: (&str, DuplexStream)) {
    let (dialer_read, dialer_write) = tokio::io::split(dialer.1);
    let (listener_read, listener_write) = tokio::io::split(listener.1);
    let (there, back) = (pair(dialer.0, listener.0), pair(listener.0, dialer.0));
    tokio::spawn(pump(faults.clone(), there, dialer_read, listener_write));
    tokio::spawn(pump(faults.clone(), back, listener_read, dialer_write));
}

fn pair(from: &str, to: &str) -> Direction {
    (from.to_owned(), to.to_owned())
}

const PUMP_BYTES: usize = 16 << 10;

async fn pump(faults: Faults, direction: Direction, mut from: ReadHalf<DuplexStream>, mut to: WriteHalf<DuplexStream>) {
    let fault = |faults: &HashMap<Direction, Fault>| faults.get(&direction).copied().unwrap_or_default();
    let breaks = fault(&faults.0.borrow()).breaks;
    let mut broken = faults.0.subscribe();
    let mut passable = faults.0.subscribe();
    let carry = async {
        let mut buffer = vec![0; PUMP_BYTES];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let delay = match passable.wait_for(|faults| !fault(faults).is_cut).await {
                Ok(faults) => fault(&faults).delay,
                Err(_) => return,
            };
            tokio::time::sleep(delay).await;
            if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
                // The other side learns that this one has ended.
                let _ = to.shutdown().await;
                return;
            }
        }
    };
    tokio::select! {
        () = carry => {}
        _ = broken.wait_for(|faults| fault(faults).breaks != breaks) => {}
    }
}
