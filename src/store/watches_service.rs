//! Tells other processes when batches arrive in mq: one stream for all that a process waits for.
//!
//! Invariant: one watch for each partition, the one told last; an offset that has arrived is told once for each watch.

use std::collections::HashMap;

use futures::future::{AbortHandle, BoxFuture, abortable};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::lender_service::Lent;
use crate::lending::answer::Failure;
use crate::lending::ask::check_partition;
use crate::lending::items::{self, Ended, Watch};
use crate::model::id::PartitionId;
use crate::net::link::{StreamReader, StreamWriter};

/// Told at once, at most; then it surely fits an item.
const TOLD_AT_ONCE: usize = 256;

/// Until the peer ends the stream or the connection ends.
pub async fn serve(lent: &Lent, (mut writer, mut reader): (StreamWriter, StreamReader)) {
    let mut watches = Watches { lent, waiting: FuturesUnordered::new(), current: HashMap::new() };
    loop {
        tokio::select! {
            item = reader.read() => {
                let Ok(Some(item)) = item else { return };
                let Ok(news) = items::open::<Vec<Watch>>(&item) else { return };
                if news.into_iter().any(|watch| watches.set(watch).is_err()) {
                    return;
                }
            }
            Some(first) = watches.waiting.next() => {
                let ended = watches.ended(first);
                if !ended.is_empty() && writer.write(items::seal(&ended)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// `None`: another watch has taken its place.
type Waiting = BoxFuture<'static, Option<Ended>>;

struct Watches<'a> {
    lent: &'a Lent,
    waiting: FuturesUnordered<Waiting>,
    /// As many as there are partitions at most.
    current: HashMap<PartitionId, AbortHandle>,
}

impl Watches<'_> {
    fn set(&mut self, (partition, from): Watch) -> Result<(), ()> {
        check_partition(partition, self.lent.partitions).map_err(drop)?;
        if let Some(before) = self.current.remove(&partition) {
            before.abort();
        }
        let Some(from) = from else { return Ok(()) };
        let mq = self.lent.mq.clone();
        let waiting = async move { (partition, from, mq.arrived(partition, from).await.map_err(Failure::from)) };
        let (waiting, abort) = abortable(waiting);
        self.current.insert(partition, abort);
        self.waiting.push(waiting.map(Result::ok).boxed());
        Ok(())
    }

    /// What ended first, and what else has ended by now.
    fn ended(&mut self, first: Option<Ended>) -> Vec<Ended> {
        let mut ended: Vec<Ended> = first.into_iter().collect();
        while ended.len() < TOLD_AT_ONCE
            && let Some(Some(more)) = self.waiting.next().now_or_never()
        {
            ended.extend(more);
        }
        ended
    }
}
