//! Brings rows to the gate that owns their partition, in this process or another, and takes what others bring.
//!
//! Invariant: rows are taken by the partition's gate or by nobody; the caller hears within the time to publish, and hears
//! "not taken" only where that is certain.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::gate_actor::{Accepted, GateActor, Offer};
use super::offering::{self, Answer, Failure};
use crate::backoff::Backoff;
use crate::clock::instant;
use crate::model::catalog::Catalog;
use crate::model::codec;
use crate::model::id::PartitionId;
use crate::model::task::Task;
use crate::model::units::Millis;
use crate::net::error::{NetError, Refusal, RefusalKind};
use crate::net::link::{Handler, Link, Peer};
use crate::net::peers::{Finder, Place};
use crate::net::service;

/// Finds the gate of a partition; `None`: it is not here, or is being restarted.
pub type Gates = Arc<dyn Fn(PartitionId) -> Option<Addr<GateActor>> + Send + Sync>;

/// Between attempts, while a partition moves or its gate is being started.
const PAUSES: Backoff = Backoff { first: Millis(10), most: Millis(200) };

/// The gates of other processes.
pub struct Elsewhere {
    pub finder: Finder,
    /// The longest body of a call (`[net] body`).
    pub body_bytes: usize,
}

/// The gates of all partitions.
pub struct Offers {
    here: Gates,
    elsewhere: Option<Elsewhere>,
    publish_timeout: Millis,
}

impl Offers {
    /// Without `elsewhere` all gates are here.
    pub fn new(here: Gates, elsewhere: Option<Elsewhere>, publish_timeout: Millis) -> Self {
        Self { here, elsewhere, publish_timeout }
    }

    /// The longest rows that can be brought to the partition's gate, if there is a limit.
    pub fn most_bytes(&self, partition: PartitionId) -> Option<usize> {
        let elsewhere = self.elsewhere.as_ref()?;
        match elsewhere.finder.find(&Task::Gate(partition)) {
            Place::Here => None,
            Place::There(_) | Place::Nowhere => Some(elsewhere.body_bytes.saturating_sub(offering::MOST_HEAD_BYTES)),
        }
    }

    /// Offers rows to the partition's gate, and again to the newest one where that is safe, until the time is up.
    pub async fn offer(&self, partition: PartitionId, offer: &Offer) -> Result<Accepted, Failure> {
        let begun = instant();
        let limit = self.publish_timeout.duration();
        let (mut attempts, mut was_lost) = (0, false);
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let failure = match self.offer_once(partition, offer, left).await {
                Ok(accepted) => return Ok(accepted),
                Err(failure) => failure,
            };
            attempts += 1;
            let pause = PAUSES.delay(attempts).duration();
            let is_late = begun.elapsed() + pause >= limit;
            if is_late || !failure.is_worth_another(offer.key.is_some()) {
                return Err(failure.after(was_lost));
            }
            was_lost |= matches!(failure, Failure::Lost(_));
            tokio::time::sleep(pause).await;
        }
    }

    async fn offer_once(&self, partition: PartitionId, offer: &Offer, within: Duration) -> Result<Accepted, Failure> {
        let place = self.elsewhere.as_ref().map_or(Place::Here, |other| other.finder.find(&Task::Gate(partition)));
        match place {
            Place::Nowhere => Err(Failure::Away("no node owns it, or its node is not known".into())),
            Place::There(link) => offer_there(link.as_ref(), partition, offer, within).await,
            Place::Here => match timeout(within, offer_here(&self.here, partition, offer.clone())).await {
                Ok(result) => result,
                Err(_) => Err(Failure::Unknown(format!("no answer within {}", self.publish_timeout))),
            },
        }
    }
}

async fn offer_here(gates: &Gates, partition: PartitionId, offer: Offer) -> Result<Accepted, Failure> {
    let Some(gate) = gates(partition) else { return Err(Failure::Away("it is being started".into())) };
    match gate.send(offer).await {
        Ok(result) => result.map_err(Failure::of),
        Err(error) => Err(Failure::Lost(format!("the partition's gate ended: {error}"))),
    }
}

async fn offer_there(
    link: &dyn Link,
    partition: PartitionId,
    offer: &Offer,
    within: Duration,
) -> Result<Accepted, Failure> {
    if link.state().borrow().peer().is_none() {
        return Err(Failure::Away("its node cannot be reached".into()));
    }
    match link.call(service::OFFER, offering::encode(partition, offer), within).await {
        Ok(answer) => match codec::from_bytes::<Answer>("answer to an offer", &answer) {
            Ok(answer) => answer.result(),
            Err(error) => Err(Failure::Unknown(error.to_string())),
        },
        Err(error) => Err(failed(error)),
    }
}

/// A handler that has failed may have asked the gate before; every other refusal comes first.
fn failed(error: NetError) -> Failure {
    let reason = error.to_string();
    match error {
        NetError::Full { .. } => Failure::Away(reason),
        NetError::TooLarge { .. } => Failure::Impossible(reason),
        NetError::Refused { refusal, .. } => match refusal.kind {
            RefusalKind::NoSuchService | RefusalKind::Busy => Failure::Away(reason),
            RefusalKind::Malformed => Failure::Impossible(reason),
            RefusalKind::Failed => Failure::Lost(reason),
        },
        NetError::Lost { .. } => Failure::Lost(reason),
        _ => Failure::Unknown(reason),
    }
}

/// Takes the rows that the HTTP of other processes took in.
pub struct OfferService {
    pub catalog: Arc<Catalog>,
    pub gates: Gates,
}

impl Handler for OfferService {
    fn call<'a>(&'a self, _peer: &'a Peer, _service: u16, body: Bytes) -> BoxFuture<'a, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let malformed = |error| Refusal::new(RefusalKind::Malformed, format!("{error}"));
            let (partition, offer) = offering::decode(&self.catalog, body).map_err(malformed)?;
            let answer = match offer {
                None => Answer::OtherTable,
                Some(offer) => Answer::of(offer_here(&self.gates, partition, offer).await),
            };
            Ok(codec::to_bytes(&answer).into())
        })
    }

    fn receive<'a>(&'a self, _peer: &'a Peer, _service: u16, _body: Bytes) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
#[path = "offer_service_tests.rs"]
mod tests;
