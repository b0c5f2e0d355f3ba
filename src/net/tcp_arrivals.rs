//! Peers that connect to this node, for those who could not reach them.
//!
//! Invariant: who waits hears of every arrival since he began to; after too many he hears of one that may not have been.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use super::hello::Peer;

/// Who is so many arrivals behind takes it that the one he waits for was among them.
const MOST_BEHIND: usize = 64;

/// What a peer's own address is called in its hello.
pub const LISTENS_AT: &str = "net";

/// Tells where those listen that have connected to this node.
pub struct Arrivals(broadcast::Sender<Arc<str>>);

impl Default for Arrivals {
    fn default() -> Self {
        Self(broadcast::channel(MOST_BEHIND).0)
    }
}

impl Arrivals {
    pub fn arrived(&self, peer: &Peer) {
        if let Some(address) = peer.address(LISTENS_AT) {
            // Nobody may be waiting.
            let _ = self.0.send(address.into());
        }
    }

    /// Ends when whoever listens at `address` has connected to this node since now.
    pub fn next_of(&self, address: &str) -> impl Future<Output = ()> + Send + 'static {
        let (address, mut arrivals) = (address.to_owned(), self.0.subscribe());
        async move {
            loop {
                match arrivals.recv().await {
                    Ok(arrived) if *arrived == *address => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn peer(address: &str) -> Peer {
        let addresses = vec![(LISTENS_AT.to_owned(), address.to_owned())];
        Peer { name: "a".into(), roles: vec![], addresses, boot: 1 }
    }

    #[test]
    fn who_waits_hears_of_the_one_he_waits_for() {
        let arrivals = Arrivals::default();
        arrivals.arrived(&peer("127.0.0.1:1"));
        let mut next = Box::pin(arrivals.next_of("127.0.0.1:1"));
        assert!((&mut next).now_or_never().is_none(), "that was before");
        arrivals.arrived(&peer("127.0.0.1:2"));
        assert!((&mut next).now_or_never().is_none(), "another");
        arrivals.arrived(&peer("127.0.0.1:1"));
        assert!(next.now_or_never().is_some());
    }
}
