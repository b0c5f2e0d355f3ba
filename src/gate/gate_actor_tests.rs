//! The gate on memory tiers: what it acknowledges is in mq, and comes to kv.

use std::sync::Mutex;

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{sleep, timeout};

use super::super::row_reader::tests::table;
use super::*;
use crate::kv::ChunkRead;
use crate::kv::memory::MemoryKv;
use crate::model::id::SourceId;
use crate::model::position::{Position, Span};
use crate::mq::memory::MemoryMq;
use crate::net::message::{PushBudget, PushChunk};
use crate::net::push_service::LocalOwners;

const HERE: PartitionId = PartitionId(0);

/// Stands for the partition's owner.
#[derive(Default)]
struct Owner {
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    rows: usize,
    idle: Option<Idle>,
}

impl Actor for Owner {
    type Context = Context<Self>;
}

impl Handler<PushChunk> for Owner {
    type Result = ();

    fn handle(&mut self, push: PushChunk, _: &mut Context<Self>) {
        self.heard.lock().expect("no panic while it was held").rows += push.chunk.rows();
    }
}

impl Handler<Idle> for Owner {
    type Result = ();

    fn handle(&mut self, idle: Idle, _: &mut Context<Self>) {
        self.heard.lock().expect("no panic while it was held").idle = Some(idle);
    }
}

struct Stage {
    mq: Arc<MemoryMq>,
    kv: Arc<MemoryKv>,
    heard: Arc<Mutex<Heard>>,
    parts: GateParts,
}

impl Stage {
    fn new() -> Self {
        let (mq, kv) = (Arc::new(MemoryMq::new(1)), Arc::new(MemoryKv::new(1)));
        let heard = Arc::<Mutex<Heard>>::default();
        let owner = Owner { heard: heard.clone() }.start();
        let (push, idle) = (owner.clone().recipient(), owner.recipient());
        let parts = GateParts {
            partition: HERE,
            epoch: 1,
            mq: mq.clone(),
            kv: kv.clone(),
            owners: Arc::new(LocalOwners {
                push: Arc::new(move |_| Some(push.clone())),
                idle: Arc::new(move |_| Some(idle.clone())),
                budget: PushBudget::new(1 << 20),
            }),
            settings: Arc::new(Settings::for_tests()),
            clock: Clock::System,
            metrics: Metrics::default(),
        };
        Self { mq, kv, heard, parts }
    }

    fn start(&self, epoch: Epoch) -> Addr<GateActor> {
        GateActor::new(GateParts { epoch, ..self.parts.clone() }).start()
    }

    /// Rows of all chunks in kv.
    async fn kv_rows(&self) -> usize {
        match self.kv.chunks(HERE, Tip::default(), usize::MAX).await {
            Ok(ChunkRead::Next(chunks)) => chunks.iter().map(Chunk::rows).sum(),
            _ => 0,
        }
    }

    async fn until_kv_has(&self, rows: usize) {
        until(async || self.kv_rows().await == rows).await;
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("it happens in time");
}

fn offer(key: Option<&str>, rows: u32) -> Offer {
    Offer {
        table: table(),
        key: key.map(Into::into),
        body: Bytes::from_static(b"rows"),
        rows,
        weighted: false,
        hours: None,
    }
}

async fn send(gate: &Addr<GateActor>, offer: Offer) -> Result<Accepted, OfferError> {
    gate.send(offer).await.expect("the gate lives")
}

async fn observe(gate: &Addr<GateActor>) -> GateReport {
    gate.send(Observe).await.expect("the gate lives")
}

#[actix::test]
async fn offered_rows_come_to_kv_and_the_owner_who_then_hears_that_all_is_quiet() {
    let stage = Stage::new();
    let gate = stage.start(1);
    let before_ms = Clock::System.now_ms();
    let answers = join_all((1..=20).map(|rows| send(&gate, offer(None, rows)))).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(Accepted { duplicate: false, .. }))), "{answers:?}");
    stage.until_kv_has(210).await;
    let report = observe(&gate).await;
    assert_eq!((report.counted.accepted_rows, report.counted.committed_rows, report.applied_sources), (210, 210, 2));
    let head = stage.kv.head(HERE).await.expect("kv is up");
    let source = SourceId::push("orders", 1);
    assert_eq!(head.applied.get(&source).expect("the source").high(), Position(210));
    until(async || {
        let heard = stage.heard.lock().expect("no panic while it was held");
        heard.rows == 210 && heard.idle.is_some_and(|idle| idle.tip == head.tip && idle.at_ms >= before_ms)
    })
    .await;
    assert_eq!((observe(&gate).await.state, observe(&gate).await.mq_lag_batches), ("drained", 0));
    assert!(stage.parts.metrics.encode().contains("changes_ingested_total{source=\"push\"} 210"));
}

#[actix::test]
async fn i3_a_keyed_request_counts_once_also_under_a_later_gate() {
    let stage = Stage::new();
    let first = stage.start(1);
    let answers = join_all([send(&first, offer(Some("a"), 5)), send(&first, offer(Some("a"), 5))]).await;
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(Accepted { duplicate: true, .. }))).count(), 1);
    assert_eq!(send(&first, offer(Some("a"), 6)).await, Err(OfferError::KeyReused));
    stage.until_kv_has(5).await;
    let second = stage.start(2);
    until(async || observe(&second).await.state == "drained").await;
    assert_eq!(send(&second, offer(Some("a"), 5)).await, Ok(Accepted { rows: 5, duplicate: true }));
    assert_eq!(stage.kv_rows().await, 5);
}

#[actix::test]
async fn i2_what_mq_did_not_take_is_refused_and_leaves_no_gap() {
    let stage = Stage::new();
    let gate = stage.start(1);
    send(&gate, offer(None, 3)).await.expect("mq is up");
    stage.mq.set_up(false);
    let refused = send(&gate, offer(None, 4)).await.expect_err("mq is down");
    assert!(!refused.is_refusal() && refused.is_retryable(), "nobody knows what mq has");
    assert!(send(&gate, offer(Some("a"), 4)).await.is_err());
    stage.mq.set_up(true);
    assert_eq!(send(&gate, offer(Some("a"), 4)).await, Ok(Accepted { rows: 4, duplicate: false }));
    send(&gate, offer(None, 5)).await.expect("mq is up again");
    stage.until_kv_has(12).await;
    until(async || stage.kv.head(HERE).await.is_ok_and(|head| head.applied.is_gapless())).await;
    let head = stage.kv.head(HERE).await.expect("kv is up");
    assert_eq!(head.applied.get(&SourceId::push("orders", 1)).expect("the source").high(), Position(12));
}

#[actix::test]
async fn i4_what_was_taken_while_kv_was_away_comes_to_kv_when_it_returns_or_went_back() {
    let stage = Stage::new();
    let gate = stage.start(1);
    send(&gate, offer(None, 1)).await.expect("mq is up");
    stage.until_kv_has(1).await;
    stage.kv.set_up(false);
    for _ in 0..10 {
        send(&gate, offer(None, 2)).await.expect("mq is up");
    }
    stage.kv.set_up(true);
    stage.until_kv_has(21).await;
    stage.kv.lose_last_writes(HERE, 1);
    assert!(stage.kv_rows().await < 21);
    stage.until_kv_has(21).await;
    let head = stage.kv.head(HERE).await.expect("kv is up");
    assert!(
        head.applied.get(&SourceId::push("orders", 1)).expect("the source").admit(Span::new(Position(0), Position(21)))
            == crate::model::applied::Admission::None
    );
}

#[actix::test]
async fn i5_an_older_gate_is_fenced_and_takes_nothing_more() {
    let stage = Stage::new();
    let old = stage.start(1);
    send(&old, offer(None, 1)).await.expect("mq is up");
    stage.until_kv_has(1).await;
    let new = stage.start(2);
    send(&new, offer(None, 2)).await.expect("mq is up");
    stage.until_kv_has(3).await;
    until(async || observe(&old).await.state == "fenced").await;
    assert_eq!(send(&old, offer(None, 1)).await, Err(OfferError::Fenced));
    send(&new, offer(None, 4)).await.expect("mq is up");
    stage.until_kv_has(7).await;
}

#[actix::test]
async fn i6_a_backlog_in_mq_is_limited() {
    let mut stage = Stage::new();
    stage.parts.settings = Arc::new(Settings { backlog_batches: 3, ..Settings::for_tests() });
    stage.kv.set_up(false);
    let gate = stage.start(1);
    for _ in 0..3 {
        send(&gate, offer(None, 1)).await.expect("there is room");
    }
    assert_eq!(send(&gate, offer(None, 1)).await, Err(OfferError::Backlog { batches: 3 }));
    stage.kv.set_up(true);
    stage.until_kv_has(3).await;
    until(async || send(&gate, offer(None, 1)).await.is_ok()).await;
}

#[actix::test]
async fn i6_what_kv_has_had_for_long_enough_is_trimmed_from_mq() {
    let mut stage = Stage::new();
    let keep = crate::model::units::Millis(40);
    stage.parts.settings = Arc::new(Settings { mq_keep: keep, ..Settings::for_tests() });
    let gate = stage.start(1);
    for _ in 0..5 {
        send(&gate, offer(None, 1)).await.expect("mq is up");
    }
    until(async || stage.mq.read(HERE, 0, 1).await.is_ok_and(|read| read.low == 5)).await;
    send(&gate, offer(None, 1)).await.expect("mq is up");
    stage.until_kv_has(6).await;
}
