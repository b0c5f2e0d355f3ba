//! A client that asks all the time, through the production code that decides how blocks are read and how good they are.
//!
//! Invariant: an answer that says `exact` is compared with the truth, whatever it was served from.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use arrow::array::RecordBatch;
use holdfast::model::block::Day;
use holdfast::model::id::{Key, PartitionId};
use holdfast::model::mode::Modes;
use holdfast::model::window::WindowKind;
use holdfast::query::blocks::{Blocks, Origin, ReadKey};
use holdfast::query::reading::{self, Freshness, PartitionRead, ReadBlocks, Reading, Step};
use holdfast::query::settings::Settings;
use holdfast::query::verdict::{Asked, Evidence, Quality, ServedBy};
use holdfast::slave::exchange::{SINKS, SinkName};
use holdfast::tier::{SinkRead, TierError};

use crate::calls::{ActorId, Call, What};
use crate::checkers::Found;
use crate::event::Event;
use crate::shop::{self, BlockName, DAYS, WINDOWS};
use crate::world::World;

pub const QUERY_NODE: usize = 5;
const MOST_UNDER_WAY: usize = 16;

pub struct Asker {
    pub actor: ActorId,
    blocks: Blocks,
    questions: HashMap<u64, Question>,
    ever: u64,
    last: Option<Wanted>,
}

/// What is asked.
#[derive(Clone)]
struct Wanted {
    window: WindowKind,
    days: RangeInclusive<Day>,
    partitions: Vec<PartitionId>,
    /// One merchant of each partition, or all.
    one: Option<usize>,
}

struct Question {
    window: WindowKind,
    parts: Vec<Part>,
}

struct Part {
    key: ReadKey,
    merchants: Vec<i64>,
    reading: Reading,
    done: Option<PartitionRead>,
}

impl Asker {
    pub fn new(settings: &Settings) -> Self {
        Self { actor: 0, blocks: Blocks::new(settings), questions: HashMap::new(), ever: 0, last: None }
    }

    /// The process was started again.
    pub fn begin(&mut self, actor: ActorId, settings: &Settings) {
        *self = Self { ever: self.ever, actor, ..Self::new(settings) };
    }
}

impl World {
    pub fn ask(&mut self) {
        let next_ms = self.about(self.plan.ask_every_ms);
        self.after(next_ms, Event::Ask);
        let node = &self.nodes[QUERY_NODE];
        if !node.is_up || node.stopped_until_ms > self.now_ms || self.asker.questions.len() > MOST_UNDER_WAY {
            return;
        }
        // Often the same again, as dashboards do.
        let asked = match self.asker.last.take().filter(|_| self.random.percent(60)) {
            Some(same) => same,
            None => self.make_up(),
        };
        self.asker.last = Some(asked.clone());
        let Wanted { window, days, partitions, one } = asked;
        let max_age_ms = self.random.percent(20).then_some(500);
        let freshness = Freshness { max_age_ms, skip_cache: self.random.percent(self.plan.skip_cache_percent) };
        self.asker.ever += 1;
        let number = self.asker.ever;
        let now_ms = self.clock_ms(QUERY_NODE);
        let part = |partition: PartitionId| {
            let merchants = shop::merchants(partition);
            let merchants = one.map_or(merchants.to_vec(), |index| vec![merchants[index]]);
            let keys = one.map(|_| merchants.iter().map(|merchant| Key::int(*merchant)).collect());
            let key = ReadKey { table: shop::metric_table(window).id, partition, keys, days: days.clone() };
            let done = reading::recent(&self.asker.blocks, now_ms, &key, freshness, &self.plan.query);
            Part { reading: Reading::new(now_ms, key.clone(), freshness), key, merchants, done }
        };
        let question = Question { window, parts: partitions.into_iter().map(part).collect() };
        let open: Vec<usize> = (0..question.parts.len()).filter(|part| question.parts[*part].done.is_none()).collect();
        self.asker.questions.insert(number, question);
        for part in open {
            let step = self.asker.questions[&number].parts[part].reading.start();
            self.go_on((number, part), step);
        }
        self.judge(number);
    }

    fn make_up(&mut self) -> Wanted {
        let days = match self.random.below(3) {
            0 => DAYS[0]..=DAYS[0],
            1 => DAYS[1]..=DAYS[1],
            _ => DAYS[0]..=DAYS[1],
        };
        let partitions = match self.random.below(3) {
            0 => shop::partitions().collect(),
            _ => vec![*self.random.pick(&[PartitionId(0), PartitionId(1)])],
        };
        let one = self.random.percent(60).then(|| self.random.below(3));
        Wanted { window: *self.random.pick(&WINDOWS), days, partitions, one }
    }

    fn go_on(&mut self, query: (u64, usize), step: Step) {
        let Some(question) = self.asker.questions.get_mut(&query.0) else { return };
        match step {
            Step::Read(origin, asked) => {
                let partition = question.parts[query.1].key.partition;
                let what = What::ReadSink { query, origin, asked };
                self.send(Call { from: self.asker.actor, partition, what });
            }
            Step::Pause { pause_ms } => self.after(pause_ms as i64, Event::AskAgain { query }),
            Step::Done(read) => {
                question.parts[query.1].done = Some(read);
                self.judge(query.0);
            }
        }
    }

    pub fn ask_again(&mut self, query: (u64, usize)) {
        if let Some(question) = self.asker.questions.get(&query.0) {
            let step = question.parts[query.1].reading.paused();
            self.go_on(query, step);
        }
    }

    pub fn read_answered(&mut self, query: (u64, usize), answer: Result<SinkRead, TierError>) {
        if let Some(question) = self.asker.questions.get_mut(&query.0) {
            let step = question.parts[query.1].reading.answered(answer, &self.plan.query);
            self.go_on(query, step);
        }
    }

    /// When all partitions were read: how good is the answer, and is that so?
    fn judge(&mut self, number: u64) {
        if self.asker.questions[&number].parts.iter().any(|part| part.done.is_none()) {
            return;
        }
        let mut question = self.asker.questions.remove(&number).expect("just seen");
        self.before_judging(&mut question.parts.iter_mut().map(|part| part.done.as_mut().expect("just seen")));
        let reads: Vec<&PartitionRead> = question.parts.iter().filter_map(|part| part.done.as_ref()).collect();
        let evidence: Vec<Evidence> = reads.iter().map(|read| read.evidence.clone()).collect();
        let metric_table = shop::metric_table(question.window);
        let asked = Asked { metric_table: &metric_table.name, table: "orders", from_ms: i64::MIN, to_ms: i64::MAX };
        let quality = Quality::of(&evidence, asked, Modes::default(), self.clock_ms(QUERY_NODE));
        self.tally.answered(&quality);
        for part in &question.parts {
            let read = part.done.as_ref().expect("just seen");
            let rows = self.rows_of(question.window, read);
            if quality.exact {
                self.check_part(question.window, part, &rows);
            }
        }
        self.mark(u64::from(quality.exact));
    }

    fn rows_of(&self, window: WindowKind, read: &PartitionRead) -> Vec<RecordBatch> {
        match &read.blocks {
            ReadBlocks::Recent(recent) => recent.blocks.iter().map(|block| block.block.rows.clone()).collect(),
            ReadBlocks::Stored { origin, blocks, .. } => {
                let schema = &shop::metric_table(window).schema;
                let rows =
                    |(key, block): &(_, _)| self.asker.blocks.rows(*origin, key, block, schema).expect("whole rows");
                let decoded: Vec<_> = blocks.iter().map(rows).collect();
                reading::remember(&self.asker.blocks, read, &decoded, &self.plan.query);
                decoded.iter().map(|block| block.block.rows.clone()).collect()
            }
        }
    }

    fn check_part(&mut self, window: WindowKind, part: &Part, rows: &[RecordBatch]) {
        let read = part.done.as_ref().expect("all partitions were read");
        let record = read.evidence.record.clone().expect("an exact answer has a record");
        let found: Found = rows.iter().map(|rows| shop::block_digest(window, rows)).collect();
        let sinks: &[SinkName] = match (&read.blocks, read.evidence.served_by) {
            (ReadBlocks::Stored { origin: Origin::Hot, .. }, _) => &[SinkName::Hot],
            (ReadBlocks::Stored { origin: Origin::Cache, .. }, _) => &[SinkName::Cache],
            (_, served_by) => {
                assert_eq!(served_by, Some(ServedBy::Local));
                &SINKS
            }
        };
        let names = names(window, &part.merchants, &part.key.days);
        let place = (part.key.partition, sinks);
        let compared = self.checkers.compare(&self.truth, place, &record, &found, names.into_iter());
        self.check(compared);
    }
}

fn names(window: WindowKind, merchants: &[i64], days: &RangeInclusive<Day>) -> Vec<BlockName> {
    days.clone().flat_map(|day| merchants.iter().map(move |merchant| (window, day, *merchant))).collect()
}
