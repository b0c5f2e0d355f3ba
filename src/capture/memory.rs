//! Checkpoints in memory: for tests, and for trials that need not survive the process.
//!
//! Invariant: what is kept went through the codec, as in the masters' catalog; an older epoch is refused.

use std::collections::HashMap;
use std::sync::Mutex;

use futures::FutureExt;
use futures::future::ready;

use super::checkpoint::{Checkpoint, Checkpoints};
use crate::locks::lock;
use crate::model::codec;
use crate::model::id::{Epoch, Tip};
use crate::tier::{TierError, TierFuture};

const TIER: &str = "checkpoints";

/// By source: the epoch of its last owner, and the bytes.
type Kept = HashMap<String, (Epoch, Option<Vec<u8>>)>;

#[derive(Default)]
pub struct MemoryCheckpoints {
    kept: Mutex<Kept>,
}

fn claim<'k>(kept: &'k mut Kept, source: &str, epoch: Epoch) -> Result<&'k mut Option<Vec<u8>>, TierError> {
    let (known, bytes) = kept.entry(source.to_owned()).or_default();
    if *known > epoch {
        return Err(TierError::Fenced { tier: TIER, found: Tip::new(*known, 0) });
    }
    *known = epoch;
    Ok(bytes)
}

impl MemoryCheckpoints {
    fn find(&self, source: &str, epoch: Epoch) -> Result<Option<Checkpoint>, TierError> {
        let mut kept = lock(&self.kept);
        let Some(bytes) = claim(&mut kept, source, epoch)? else { return Ok(None) };
        let damaged = |error| TierError::Damaged { tier: TIER, place: source.to_owned(), source: error };
        codec::decode("checkpoint", bytes).map(Some).map_err(damaged)
    }

    fn keep(&self, source: &str, epoch: Epoch, checkpoint: &Checkpoint) -> Result<(), TierError> {
        *claim(&mut lock(&self.kept), source, epoch)? = Some(codec::encode(checkpoint));
        Ok(())
    }
}

impl Checkpoints for MemoryCheckpoints {
    fn load<'a>(&'a self, source: &'a str, epoch: Epoch) -> TierFuture<'a, Option<Checkpoint>> {
        ready(self.find(source, epoch)).boxed()
    }

    fn save<'a>(&'a self, source: &'a str, epoch: Epoch, checkpoint: Checkpoint) -> TierFuture<'a, ()> {
        ready(self.keep(source, epoch, &checkpoint)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::checkpoint::Stage;

    #[actix_rt::test]
    async fn the_last_one_is_given_back_and_an_older_epoch_is_refused() {
        let kept = MemoryCheckpoints::default();
        let of = |incarnation| Checkpoint {
            server: "a".into(),
            incarnation,
            stage: Stage::Snapshot { mq_from: vec![3] },
            open: vec![1],
        };
        assert_eq!(kept.load("db", 5).await, Ok(None));
        assert!(matches!(kept.save("db", 4, of(2)).await, Err(TierError::Fenced { .. })), "a newer one has looked");
        assert_eq!(kept.save("db", 5, of(1)).await, Ok(()));
        assert!(matches!(kept.save("db", 4, of(2)).await, Err(TierError::Fenced { .. })));
        assert_eq!(kept.save("db", 6, of(3)).await, Ok(()));
        assert_eq!(kept.load("db", 6).await, Ok(Some(of(3))));
    }
}
