//! A sink behind a breaker: whoever asks one that is down, or answers nobody, learns so at once and turns to the other sink.
//!
//! Invariant: a call is given up only while nobody is answered; nobody waits for a sink that is refused.

use std::sync::{Arc, Mutex};

use futures::FutureExt;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::breaker::{Breaker, Call, Settings};
use crate::clock::Clock;
use crate::locks::lock;
use crate::model::id::PartitionId;
use crate::tier::{Sink, SinkQuery, SinkRead, SinkStanding, SinkWrite, TierError, TierFuture};

/// An attempt may take so many times the silence after which a sink that is asked is not waited for.
const PATIENCE: u32 = 4;

/// One sink as this process' queries use it.
pub struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    tier: &'static str,
    sink: Arc<dyn Sink>,
    breaker: Mutex<Breaker>,
    settings: Settings,
    clock: Clock,
}

/// A call under way; dropped without an end, its caller gave it up.
struct UnderWay<'a> {
    shared: &'a Shared,
    call: Option<Call>,
}

impl UnderWay<'_> {
    fn ended<T>(mut self, outcome: &Result<T, TierError>) {
        let Some(call) = self.call.take() else { return };
        self.shared.tell(|breaker, now_ms| match outcome {
            Err(TierError::Unavailable { reason, .. }) => breaker.failed(now_ms, call, reason),
            // Whatever it said, it answered.
            _ => breaker.answered(now_ms, call),
        });
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.shared.tell(|breaker, now_ms| breaker.given_up(now_ms, call));
        }
    }
}

impl Shared {
    /// Tells the breaker something, and the log if that made a difference.
    fn tell<T>(&self, what: impl FnOnce(&mut Breaker, i64) -> T) -> T {
        let mut breaker = lock(&self.breaker);
        let before = breaker.trouble().is_some();
        let told = what(&mut breaker, self.clock.now_ms());
        match (before, breaker.trouble()) {
            (false, Some(reason)) => warn!(tier = self.tier, reason, "queries do without it, and try it now and then"),
            (true, None) => info!(tier = self.tier, "queries use it again"),
            _ => {}
        }
        told
    }

    fn unavailable(&self, reason: &str) -> TierError {
        TierError::Unavailable { tier: self.tier, reason: reason.to_owned() }
    }

    /// How does the sink do?
    async fn attempt(self: Arc<Self>, call: Call, partition: PartitionId) {
        let under_way = UnderWay { shared: &self, call: Some(call) };
        let limit = self.settings.silence.duration() * PATIENCE;
        let outcome = timeout(limit, self.sink.standing(partition)).await;
        under_way.ended(&outcome.unwrap_or_else(|_| Err(self.unavailable("no answer"))));
    }

    /// Waits as long as somebody is answered.
    async fn outcome<T>(&self, mut made: TierFuture<'_, T>) -> Result<T, TierError> {
        loop {
            tokio::select! {
                biased;
                outcome = &mut made => return outcome,
                () = sleep(self.settings.silence.duration()) => {
                    if let Some(reason) = self.tell(|breaker, now_ms| breaker.silence(now_ms)) {
                        return Err(self.unavailable(&reason));
                    }
                }
            }
        }
    }
}

impl Guard {
    pub fn new(tier: &'static str, sink: Arc<dyn Sink>, settings: Settings, clock: Clock) -> Self {
        let breaker = Mutex::new(Breaker::new(settings));
        Self { shared: Arc::new(Shared { tier, sink, breaker, settings, clock }) }
    }

    /// Why the sink is not asked, if it is not.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.breaker).trouble().map(str::to_owned)
    }

    fn guarded<'a, T: Send + 'a>(
        &'a self,
        partition: PartitionId,
        made: impl FnOnce(&'a dyn Sink) -> TierFuture<'a, T> + Send + 'a,
    ) -> TierFuture<'a, T> {
        let shared = &self.shared;
        async move {
            let call = shared.tell(|breaker, now_ms| breaker.call(now_ms)).map_err(|refused| {
                if let Some(attempt) = refused.attempt {
                    // Beside the call: nobody waits for it.
                    tokio::spawn(shared.clone().attempt(attempt, partition));
                }
                shared.unavailable(&refused.reason)
            })?;
            let under_way = UnderWay { shared, call: Some(call) };
            let outcome = shared.outcome(made(&*shared.sink)).await;
            under_way.ended(&outcome);
            outcome
        }
        .boxed()
    }
}

impl Sink for Guard {
    fn standing(&self, partition: PartitionId) -> TierFuture<'_, SinkStanding> {
        self.guarded(partition, move |sink| sink.standing(partition))
    }

    fn write(&self, partition: PartitionId, write: SinkWrite) -> TierFuture<'_, ()> {
        self.guarded(partition, move |sink| sink.write(partition, write))
    }

    fn read(&self, partition: PartitionId, query: SinkQuery) -> TierFuture<'_, SinkRead> {
        self.guarded(partition, move |sink| sink.read(partition, query))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::backoff::Backoff;
    use crate::clock::instant;
    use crate::model::block::MetricTableId;
    use crate::model::units::Millis;

    const WELL: u8 = 0;
    const DOWN: u8 = 1;
    const HANGS: u8 = 2;
    const SLOW: u8 = 3;

    #[derive(Default)]
    struct Moody {
        mood: AtomicU8,
        asked: AtomicUsize,
    }

    impl Sink for Moody {
        fn standing(&self, _: PartitionId) -> TierFuture<'_, SinkStanding> {
            let mood = self.mood.load(Ordering::Relaxed);
            self.asked.fetch_add(1, Ordering::Relaxed);
            async move {
                match mood {
                    DOWN => Err(TierError::Unavailable { tier: "hot", reason: "it is down".into() }),
                    HANGS => std::future::pending().await,
                    _ => Ok(SinkStanding::default()),
                }
            }
            .boxed()
        }

        fn write(&self, _: PartitionId, _: SinkWrite) -> TierFuture<'_, ()> {
            async { Ok(()) }.boxed()
        }

        fn read(&self, _: PartitionId, _: SinkQuery) -> TierFuture<'_, SinkRead> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let mood = self.mood.load(Ordering::Relaxed);
            async move {
                match mood {
                    DOWN => return Err(TierError::Unavailable { tier: "hot", reason: "it is down".into() }),
                    HANGS => std::future::pending().await,
                    SLOW => sleep(Duration::from_millis(400)).await,
                    _ => {}
                }
                Ok(SinkRead::default())
            }
            .boxed()
        }
    }

    fn guarded() -> (Arc<Moody>, Guard) {
        let settings = Settings {
            failures: 3,
            within: Millis(2_000),
            silence: Millis(150),
            probe: Backoff { first: Millis(50), most: Millis(100) },
            successes: 2,
        };
        let sink = Arc::new(Moody::default());
        (sink.clone(), Guard::new("hot", sink, settings, Clock::System))
    }

    async fn ask(guard: &Guard) -> Result<SinkRead, TierError> {
        guard.read(PartitionId(0), SinkQuery { table: MetricTableId(1), keys: None, days: 0..=1 }).await
    }

    async fn until_well(guard: &Guard) {
        let begun = instant();
        while guard.trouble().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", guard.trouble());
            let _ = ask(guard).await;
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[actix_rt::test]
    async fn a_sink_that_is_down_is_asked_now_and_then_only_and_used_again_once_it_is_well() {
        let (sink, guard) = guarded();
        sink.mood.store(DOWN, Ordering::Relaxed);
        for _ in 0..1_000 {
            assert!(ask(&guard).await.is_err_and(|error| error.to_string().contains("it is down")));
        }
        assert!(guard.trouble().is_some());
        assert!(sink.asked.load(Ordering::Relaxed) < 100, "{:?}", sink.asked);
        sink.mood.store(WELL, Ordering::Relaxed);
        until_well(&guard).await;
        assert!(ask(&guard).await.is_ok());
    }

    #[actix_rt::test]
    async fn those_who_wait_for_a_sink_that_answers_nobody_are_told_and_later_ones_at_once() {
        let (sink, guard) = guarded();
        assert!(ask(&guard).await.is_ok());
        sink.mood.store(HANGS, Ordering::Relaxed);
        let begun = instant();
        let all = futures::future::join_all((0..100).map(|_| ask(&guard))).await;
        assert!(all.iter().all(Result::is_err) && begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let begun = instant();
        assert!(ask(&guard).await.is_err() && begun.elapsed() < Duration::from_millis(140), "{:?}", begun.elapsed());
        sink.mood.store(WELL, Ordering::Relaxed);
        until_well(&guard).await;
    }

    #[actix_rt::test]
    async fn a_sink_that_is_slow_and_answers_is_waited_for() {
        let (sink, guard) = guarded();
        sink.mood.store(SLOW, Ordering::Relaxed);
        // Somebody is answered all the time.
        let stop = std::cell::Cell::new(false);
        let slow = async {
            let read = ask(&guard).await;
            stop.set(true);
            read
        };
        let others = async {
            while !stop.get() {
                guard.standing(PartitionId(0)).await.expect("it answers");
                sleep(Duration::from_millis(10)).await;
            }
        };
        let (read, ()) = futures::future::join(slow, others).await;
        assert!(read.is_ok(), "{read:?}");
        assert_eq!(guard.trouble(), None);
    }

    #[actix_rt::test]
    async fn nobody_waits_for_a_sink_that_is_refused_and_attempts_find_it_well_again() {
        let (sink, guard) = guarded();
        sink.mood.store(DOWN, Ordering::Relaxed);
        for _ in 0..3 {
            assert!(ask(&guard).await.is_err());
        }
        sink.mood.store(HANGS, Ordering::Relaxed);
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let asked = instant();
            assert!(ask(&guard).await.is_err());
            slowest = slowest.max(asked.elapsed());
            sleep(Duration::from_millis(5)).await;
        }
        assert!(slowest < Duration::from_millis(100), "{slowest:?}");
        sink.mood.store(WELL, Ordering::Relaxed);
        until_well(&guard).await;
    }
}
