//! Gates that come and go, on memory tiers.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use super::super::exchange::{Offer, OfferError};
use super::super::row_reader::tests::table;
use super::*;
use crate::kv::memory::MemoryKv;
use crate::model::units::Millis;
use crate::mq::memory::MemoryMq;

const BACKOFF: Backoff = Backoff { first: Millis(2), most: Millis(20) };
const HERE: PartitionId = PartitionId(1);

struct Stage {
    mq: Arc<MemoryMq>,
    kv: Arc<MemoryKv>,
    gates: Addr<GatesActor>,
    directory: GateDirectory,
}

fn stage() -> Stage {
    let (mq, kv, directory) = (Arc::new(MemoryMq::new(2)), Arc::new(MemoryKv::new(2)), GateDirectory::default());
    let parts = GatesParts {
        mq: mq.clone(),
        kv: kv.clone(),
        owners: Arc::new(()),
        settings: Arc::new(Settings::for_tests()),
        threads: 2,
        restart: BACKOFF,
        clock: Clock::System,
        metrics: Metrics::default(),
    };
    Stage { mq, kv, gates: GatesActor::new(parts, directory.clone()).start(), directory }
}

fn offer(rows: u32) -> Offer {
    Offer { table: table(), key: None, body: Bytes::from_static(b"rows"), rows, weighted: false, hours: None }
}

impl Stage {
    async fn assign(&self, epoch: Epoch) {
        self.gates.send(Assign { partition: HERE, epoch }).await.expect("it lives");
    }

    fn gate(&self) -> Addr<GateActor> {
        self.directory.find(HERE).expect("it lives")
    }

    async fn kv_offset(&self) -> u64 {
        self.kv.head(HERE).await.expect("kv is up").offset
    }

    async fn mq_end(&self) -> u64 {
        self.mq.read(HERE, 0, 1).await.expect("mq is up").end
    }
}

#[actix::test]
async fn a_gate_that_is_handed_over_answers_what_it_took_and_takes_nothing_more() {
    let stage = stage();
    stage.assign(1_000_000).await;
    let gate = stage.gate();
    let offers = join_all((1..=20).map(|rows| gate.send(offer(rows))));
    let stop = stage.gates.send(Unassign { partition: HERE, epoch: 1_000_000 });
    let (answers, stopped) = futures::join!(offers, stop);
    stopped.expect("it lives");
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("it answers before it ends")).collect();
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!(answers.iter().all(|answer| answer.is_ok() || *answer == Err(OfferError::HandedOver)), "{answers:?}");
    assert_eq!(stage.mq_end().await, taken as u64, "what was answered is in mq, and nothing else");
    assert!(stage.directory.find(HERE).is_none());
    let late = gate.send(offer(1)).await;
    assert!(!matches!(late, Ok(Ok(_))), "{late:?}");
    // The next one goes on from there.
    stage.assign(2_000_000).await;
    stage.gate().send(offer(7)).await.expect("it lives").expect("mq is up");
    while stage.kv_offset().await < taken as u64 + 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let head = stage.kv.head(HERE).await.expect("kv is up");
    assert!(head.tip.epoch == 2_000_000 && head.applied.is_gapless());
}

#[actix::test]
async fn a_gate_waits_for_mq_before_it_ends_and_refuses_in_the_meantime() {
    let stage = stage();
    stage.assign(1_000_000).await;
    stage.kv.set_up(false);
    let gate = stage.gate();
    gate.send(offer(1)).await.expect("it lives").expect("mq is up");
    gate.send(gate_actor::Stop).await.expect("kv's failure holds up nobody: mq has all");
    while gate.connected() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(stage.mq_end().await, 1);
}

#[actix::test]
async fn only_the_gate_of_the_epoch_that_is_named_is_taken_away() {
    let stage = stage();
    stage.assign(1_000_000).await;
    let first = stage.gate();
    stage.assign(2_000_000).await;
    stage.gates.send(Unassign { partition: HERE, epoch: 1_000_000 }).await.expect("it lives");
    stage.gate().send(offer(1)).await.expect("it lives").expect("the later one is left alone");
    while first.connected() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let report = stage.gates.send(ObserveAll).await.expect("it lives");
    assert_eq!(report.gates.iter().map(|gate| (gate.partition, gate.epoch)).collect::<Vec<_>>(), [(HERE, 2_000_000)]);
    stage.gates.send(StopAll).await.expect("it lives");
    assert!(stage.directory.find(HERE).is_none());
}
