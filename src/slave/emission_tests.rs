use super::*;
use crate::model::applied::Applied;
use crate::model::block::MetricTableId;
use crate::model::id::Key;
use crate::model::position::Span;
use crate::model::quality::Unavailable;

fn source() -> SourceId {
    SourceId::push("orders", 1)
}

fn applied(to: u128) -> Applied {
    let mut applied = Applied::default();
    applied.add(&source(), Span::new(Position(0), Position(to)), 0);
    applied
}

fn name(day: i32) -> BlockKey {
    BlockKey { table: MetricTableId(1), day, key: Key::int(7) }
}

fn claim(as_of_ms: i64) -> Claim {
    Claim { as_of_ms, ..Claim::default() }
}

/// Blocks of a thousand bytes; two fit into a write.
fn rows(days: std::ops::Range<i32>) -> HashMap<BlockKey, Option<Bytes>> {
    days.map(|day| (name(day), Some(Bytes::from(vec![0; 1_000])))).collect()
}

struct Owner {
    emission: Emission,
    settings: Settings,
    applied: Applied,
    blocks: HashMap<BlockKey, Option<Bytes>>,
}

impl Owner {
    fn new(epoch: Epoch, to: u128, days: std::ops::Range<i32>) -> Self {
        let settings = Settings::for_tests();
        Self { emission: Emission::new(epoch, &settings), settings, applied: applied(to), blocks: rows(days) }
    }

    fn stands(&mut self, now_ms: i64, answer: Result<SinkStanding, TierError>) {
        let blocks = self.blocks.keys().cloned().collect();
        self.emission.asked();
        self.emission.stands(now_ms, answer, Knowledge { applied: &self.applied, forgotten_ms: 0, blocks });
    }

    fn begin(&mut self, now_ms: i64) -> SinkWrite {
        let claim = claim(now_ms);
        assert!(self.emission.wants_to_write(now_ms, &claim, &self.settings, false));
        let offer = Offer { applied: &self.applied, claim: &claim, blocks: Some(&self.blocks) };
        self.emission.begin(now_ms, offer, &self.settings)
    }

    fn wrote(&mut self, now_ms: i64, result: Result<(), TierError>) -> Next {
        self.emission.wrote(now_ms, result, &self.settings, Share::default())
    }

    /// Does a whole emission; gives its writes.
    fn emit(&mut self, now_ms: i64) -> Vec<SinkWrite> {
        let mut writes = vec![self.begin(now_ms)];
        while let Next::Write(write) = self.wrote(now_ms, Ok(())) {
            writes.push(write);
        }
        writes
    }
}

fn standing(tip: Tip, announced: Applied) -> Result<SinkStanding, TierError> {
    Ok(SinkStanding { tip, announced })
}

fn unavailable() -> TierError {
    TierError::Unavailable { tier: "hot", reason: "it is down".into() }
}

#[test]
fn a_small_emission_is_one_write_and_builds_on_where_the_sink_stands() {
    let mut owner = Owner::new(5, 9, 0..1);
    owner.stands(0, standing(Tip::new(3, 8), applied(8)));
    let writes = owner.emit(10);
    let [write] = writes.as_slice() else { panic!("one write") };
    assert_eq!((write.expect, write.tip), (Tip::new(3, 8), Tip::new(5, 1)));
    assert_eq!(write.announce, owner.applied.delta([&source()]));
    let record = write.record.as_ref().expect("the record is in it");
    assert_eq!((record.version, record.base, record.as_of_ms), (Tip::new(5, 1), Tip::new(5, 1), 10));
    assert_eq!(write.blocks[0].1.version, record.version);
}

#[test]
fn a_large_emission_announces_first_and_ends_with_the_record_and_the_removals() {
    let mut owner = Owner::new(5, 9, 0..5);
    owner.blocks.insert(name(9), None);
    owner.stands(0, standing(Tip::default(), Applied::default()));
    let writes = owner.emit(10);
    let shape: Vec<_> =
        (writes.iter()).map(|w| (w.announce.len(), w.blocks.len(), w.remove.len(), w.record.is_some())).collect();
    assert_eq!(shape, [(1, 2, 0, false), (0, 2, 0, false), (0, 1, 1, true)]);
    for pair in writes.windows(2) {
        assert_eq!(pair[1].expect, pair[0].tip, "writes are chained");
    }
    let version = writes[2].record.as_ref().expect("the record").version;
    assert!(writes.iter().flat_map(|write| &write.blocks).all(|(_, block)| block.version == version));
    assert!(owner.emission.dirty().is_empty());
    // What comes next has a version above every tip and version so far.
    owner.emission.changed([name(0)]);
    let next = owner.emit(100);
    assert_eq!((next[0].tip, next[0].blocks[0].1.version), (Tip::new(5, 4), Tip::new(5, 4)));
    assert_eq!(next[0].record.as_ref().map(|record| record.base), Some(Tip::new(5, 1)));
}

#[test]
fn an_owner_is_silent_until_it_knows_all_that_was_announced() {
    let mut owner = Owner::new(5, 8, 0..1);
    owner.stands(0, standing(Tip::new(3, 8), applied(9)));
    assert!(!owner.emission.wants_to_write(1_000, &claim(1), &owner.settings, true));
    assert!(!owner.emission.wants_to_ask(4) && owner.emission.wants_to_ask(5), "it asks again after a wait");
    assert!(owner.emission.report().trouble.is_some_and(|trouble| trouble.contains("silent")));
    owner.applied = applied(9);
    owner.stands(5, standing(Tip::new(3, 8), applied(9)));
    assert_eq!(owner.emit(60).len(), 1);
    assert_eq!(owner.emission.report().trouble, None);
}

#[test]
fn a_new_owner_announces_what_is_not_announced_yet_and_no_more() {
    let request = |key: &str| SourceId::request("orders", key);
    let mut announced = applied(9);
    announced.add(&request("known"), Span::new(Position(0), Position(2)), 70);
    let mut owner = Owner::new(5, 12, 0..1);
    for key in ["known", "new"] {
        owner.applied.add(&request(key), Span::new(Position(0), Position(2)), 70);
    }
    owner.stands(0, standing(Tip::new(3, 8), announced));
    let write = owner.begin(10);
    assert_eq!(write.announce, owner.applied.delta([&source(), &request("new")]));
}

#[test]
fn a_request_that_was_forgotten_here_does_not_silence_its_owner_and_is_forgotten_there() {
    let mut announced = applied(9);
    let request = SourceId::request("orders", "key");
    announced.add(&request, Span::new(Position(0), Position(2)), 70);
    for (forgotten_ms, speaks) in [(69, false), (70, true)] {
        let mut owner = Owner::new(5, 9, 0..1);
        owner.emission.asked();
        let known = Knowledge { applied: &owner.applied, forgotten_ms, blocks: BTreeSet::new() };
        owner.emission.stands(0, standing(Tip::new(3, 8), announced.clone()), known);
        assert_eq!(owner.emission.wants_to_write(100, &claim(1), &owner.settings, false), speaks);
        if speaks {
            assert_eq!(owner.begin(100).forget, std::slice::from_ref(&request));
        }
    }
}

#[test]
fn after_an_outage_only_what_the_sink_misses_is_said_again() {
    for (landed, stands_at) in [(false, Tip::new(5, 1)), (true, Tip::new(5, 2))] {
        let mut owner = Owner::new(5, 9, 0..2);
        owner.stands(0, standing(Tip::default(), Applied::default()));
        owner.emit(10);
        owner.emission.changed([name(1)]);
        owner.begin(100);
        assert_eq!(owner.wrote(100, Err(unavailable())), Next::Failed);
        assert!(!owner.emission.wants_to_ask(104) && owner.emission.wants_to_ask(105));
        owner.stands(105, Err(unavailable()));
        assert!(!owner.emission.wants_to_ask(114) && owner.emission.wants_to_ask(115), "waits grow");
        owner.stands(115, standing(stands_at, applied(9)));
        let [write] = owner.emit(200).try_into().expect("one write");
        assert_eq!((write.expect, write.tip), (stands_at, Tip::new(5, 3)), "landed: {landed}");
        assert_eq!(write.blocks.len(), 1);
    }
}

#[test]
fn a_sink_that_lost_writes_is_claimed_again_and_told_everything() {
    let mut owner = Owner::new(5, 9, 0..2);
    owner.stands(0, standing(Tip::default(), Applied::default()));
    owner.emit(10);
    owner.emission.changed([name(1)]);
    owner.begin(100);
    owner.wrote(100, Err(TierError::Moved { tier: "hot", found: Tip::default() }));
    owner.stands(105, standing(Tip::default(), Applied::default()));
    let [write] = owner.emit(200).try_into().expect("one write");
    assert_eq!((write.expect, write.tip), (Tip::default(), Tip::new(5, 3)));
    assert_eq!((write.blocks.len(), write.announce.len()), (2, 1));
    assert_eq!(write.record.map(|record| record.base), Some(Tip::new(5, 3)));
}

#[test]
fn an_owner_started_again_in_its_epoch_goes_on_counting_where_the_sink_stands() {
    let mut owner = Owner::new(5, 9, 0..1);
    owner.stands(0, standing(Tip::new(5, 40), applied(9)));
    assert_eq!(owner.begin(10).tip, Tip::new(5, 41));
}

#[test]
fn a_fenced_owner_never_writes_again() {
    let mut asked = Owner::new(5, 9, 0..1);
    asked.stands(0, standing(Tip::new(6, 1), Applied::default()));
    let mut writing = Owner::new(5, 9, 0..1);
    writing.stands(0, standing(Tip::default(), Applied::default()));
    writing.begin(10);
    writing.wrote(10, Err(TierError::Fenced { tier: "hot", found: Tip::new(6, 1) }));
    for owner in [asked, writing] {
        assert_eq!(owner.emission.fenced_by(), Some(Tip::new(6, 1)));
        assert!(!owner.emission.wants_to_ask(i64::MAX));
        assert!(!owner.emission.wants_to_write(i64::MAX, &claim(1), &owner.settings, true));
    }
}

#[test]
fn emissions_get_their_share_of_the_time_and_silence_has_a_heartbeat() {
    let mut owner = Owner::new(5, 9, 0..1);
    owner.stands(0, standing(Tip::default(), Applied::default()));
    owner.begin(900);
    owner.emission.spent(1_000_000);
    owner.wrote(950, Ok(()));
    owner.emission.changed([name(0)]);
    let wants = |owner: &Owner, now_ms, as_of_ms| {
        owner.emission.wants_to_write(now_ms, &claim(as_of_ms), &owner.settings, false)
    };
    owner.emission.counted(1_000, &SourceId::push("orders", 1), None);
    assert!(wants(&owner, 1_000, 1_000), "the first one has said everything, which comes once: nobody waits for it");
    owner.begin(1_000);
    owner.emission.spent(60_000);
    owner.emission.spent(40_000);
    owner.wrote(1_100, Ok(()));
    owner.emission.changed([name(0)]);
    owner.emission.counted(1_195, &SourceId::push("orders", 1), None);
    // It took 100 ms of the thread, which may be half of the time, and rows keep coming.
    assert!(!wants(&owner, 1_199, 1_000) && wants(&owner, 1_200, 1_000));
    owner.emit(1_200);
    assert!(!wants(&owner, 1_240, 1_210), "nothing changed but the time");
    assert!(wants(&owner, 1_250, 1_210));
    assert!(!wants(&owner, 9_999, 1_200), "not even the time");
    let outlook = Outlook { as_of_ms: 1_210, news: false, withheld: false };
    assert_eq!(owner.emission.wake_ms(outlook, &owner.settings), Some(1_250));
}

#[test]
fn a_state_that_lacks_something_says_so_and_writes_no_block() {
    let mut owner = Owner::new(5, 9, 0..2);
    owner.stands(0, standing(Tip::default(), Applied::default()));
    let lacks = Unavailable { what: "partition 0".into(), reason: "kv lost it".into() };
    let claim = Claim { unavailable: vec![lacks.clone()], ..Claim::default() };
    assert!(owner.emission.wants_to_write(10, &claim, &owner.settings, false));
    let offer = Offer { applied: &owner.applied, claim: &claim, blocks: None };
    let write = owner.emission.begin(10, offer, &owner.settings);
    assert!(write.blocks.is_empty());
    let record = write.record.expect("the record alone");
    assert_eq!((record.unavailable, record.base), (vec![lacks], Tip::default()));
    owner.wrote(10, Ok(()));
    assert!(!owner.emission.wants_to_write(11, &claim, &owner.settings, false));
    let outlook = Outlook { as_of_ms: 0, news: true, withheld: true };
    assert_eq!(owner.emission.wake_ms(outlook, &owner.settings), None, "nothing to wake up for");
}
