//! Bugs planted on purpose, between the cores and the tiers: each leaves one rule of the design out.
//!
//! Invariant: production code knows nothing of them.

use std::collections::HashSet;
use std::sync::Arc;

use holdfast::gate::lane;
use holdfast::kv::ChunkRead;
use holdfast::master::command::{Change, Command};
use holdfast::model::applied::Admission;
use holdfast::model::batch::{Batch, Chunk};
use holdfast::model::id::{PartitionId, SourceId, Tip};
use holdfast::model::position::{Position, Span};
use holdfast::model::quality::Record;
use holdfast::model::task::NodeState;
use holdfast::net::control::{Directory, FromMaster};
use holdfast::query::reading::PartitionRead;
use holdfast::query::verdict::ServedBy;
use holdfast::slave::exchange::{Input, SinkName};
use holdfast::tier::SinkWrite;

use crate::calls::{ActorId, Call, Reply, What};
use crate::shop;
use crate::world::{Role, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    // Those of the design's model.
    CheckpointByCursor,
    NoFence,
    Recount,
    RecordFirst,
    /// Blocks newer than the record are taken for vouched for.
    NoVersions,
    /// An owner does not wait until it knows all that was published.
    EarlyEmission,
    GateFilters,
    NoChain,
    // And more.
    ForgottenGap,
    OldBlockNewRecord,
    UnknownWindow,
    AbsentIsEmpty,
    NoAnnouncement,
    AcknowledgedUnheld,
    CoverageThatIsNotThere,
    /// Blocks that the owner's predecessor left, and that are no more, are read.
    NoBase,
    // Of the control plane.
    /// Two tasks are given the same epoch.
    EpochTwice,
    /// A node is declared lost as soon as it is suspect.
    LostOnSuspicion,
    /// A member takes an older directory for a newer one.
    OlderDirectory,
    /// Nodes hear of moves before the masters have agreed.
    DirectoryAhead,
    /// A slave says that it has let go before all is published and saved.
    ReleasedUnsaved,
}

pub const BUGS: [Bug; 21] = [
    Bug::CheckpointByCursor,
    Bug::NoFence,
    Bug::Recount,
    Bug::RecordFirst,
    Bug::NoVersions,
    Bug::EarlyEmission,
    Bug::GateFilters,
    Bug::NoChain,
    Bug::ForgottenGap,
    Bug::OldBlockNewRecord,
    Bug::UnknownWindow,
    Bug::AbsentIsEmpty,
    Bug::NoAnnouncement,
    Bug::AcknowledgedUnheld,
    Bug::CoverageThatIsNotThere,
    Bug::NoBase,
    Bug::EpochTwice,
    Bug::LostOnSuspicion,
    Bug::OlderDirectory,
    Bug::DirectoryAhead,
    Bug::ReleasedUnsaved,
];

impl World {
    /// What a faulty sender or tier makes of a call.
    pub fn before_execution(&mut self, call: &mut Call) {
        let Some(bug) = self.bug else { return };
        let partition = call.partition;
        match (bug, &mut call.what) {
            (Bug::NoFence, What::Write(name, write)) => self.force(partition, *name, write),
            (Bug::NoAnnouncement, What::Write(_, write)) => write.announce.clear(),
            (Bug::RecordFirst, What::Write(name, write)) => self.put_record_first(partition, *name, write),
            (Bug::GateFilters, What::Append(append)) => {
                let applied = self.tiers.head(partition).applied;
                for batch in &mut append.chunk.batches {
                    if let Admission::Some(spans) = applied.admit(&batch.header.source, batch.header.span) {
                        filter(batch, &spans);
                    }
                }
            }
            (Bug::ForgottenGap, What::Write(_, SinkWrite { record: Some(record), .. })) => {
                record.missing.clear();
                record.missing_more = 0;
            }
            (Bug::CoverageThatIsNotThere, What::Write(_, SinkWrite { record: Some(record), .. })) => {
                record.as_of_ms = self.now_ms;
            }
            _ => {}
        }
    }

    /// The sink takes it wherever it stands.
    fn force(&mut self, partition: PartitionId, name: SinkName, write: &mut SinkWrite) {
        let found = self.tiers.standing(name, partition).tip;
        if found != write.expect {
            write.expect = found;
            write.tip = write.tip.max(Tip::new(found.epoch, found.number + 1));
        }
    }

    /// A write without record is given the one before, as if it closed this emission already.
    fn put_record_first(&mut self, partition: PartitionId, name: SinkName, write: &mut SinkWrite) {
        let Some((_, block)) = write.blocks.first().filter(|_| write.record.is_none()) else { return };
        let asked = holdfast::tier::SinkQuery {
            table: shop::metric_table(shop::WINDOWS[0]).id,
            keys: Some(Vec::new()),
            days: 0..=0,
        };
        if let Some(before) = self.tiers.read_sink(name, partition, asked).record {
            write.record = Some(Record { version: block.version, ..(*before).clone() });
        }
    }

    /// What a faulty tier or receiver makes of an answer.
    pub fn after_execution(&mut self, call: &Call, reply: &mut Reply) {
        let Some(bug) = self.bug else { return };
        let partition = call.partition;
        match (bug, &call.what, reply) {
            (Bug::EarlyEmission, _, Reply::Slave(Input::Standing(_, Ok(standing)))) => {
                standing.announced = Default::default();
            }
            (Bug::EarlyEmission, _, Reply::Slave(Input::HeadRead(Ok(head)))) => head.tip = Tip::default(),
            (Bug::NoChain, What::ReadChunks { after }, Reply::Slave(Input::ChunksRead(Ok(read))))
                if *read == ChunkRead::Broken =>
            {
                *read = self.chunks_beyond(partition, *after);
            }
            (Bug::UnknownWindow, _, Reply::Slave(Input::HeadRead(Ok(head)))) => head.oldest_previous = Tip::default(),
            (
                Bug::UnknownWindow,
                What::ReadChunks { after },
                Reply::Slave(Input::ChunksRead(Ok(ChunkRead::Next(next)))),
            ) if *after == Tip::default() => {
                next.iter_mut().take(1).for_each(|first| first.previous = Tip::default());
                take_for_counted(next);
            }
            (Bug::Recount, _, Reply::Slave(Input::ChunksRead(Ok(ChunkRead::Next(chunks))))) => {
                chunks.iter_mut().for_each(|chunk| self.before_counting(call.from, chunk));
            }
            (Bug::AbsentIsEmpty, _, Reply::Query(_, Ok(read))) => read.incomplete = false,
            (Bug::NoVersions, _, Reply::Query(_, Ok(read))) => {
                let Some(version) = read.record.as_ref().map(|record| record.version) else { return };
                read.blocks.iter_mut().for_each(|(_, block)| block.version = block.version.min(version));
            }
            (Bug::NoBase, _, Reply::Query(_, Ok(read))) => {
                let Some(base) = read.record.as_ref().map(|record| record.base) else { return };
                read.blocks.iter_mut().for_each(|(_, block)| block.version = block.version.max(base));
            }
            (Bug::AcknowledgedUnheld, What::Publish(ticket, _), reply) => {
                if matches!(reply, Reply::Gate(lane::Input::Published(_, Err(_)))) {
                    let end = self.tiers.mq_end(partition).end;
                    *reply = Reply::Gate(lane::Input::Published(*ticket, Ok(end)));
                }
            }
            _ => {}
        }
    }

    /// A chain that is not checked goes on at the next number, wherever that comes from.
    fn chunks_beyond(&self, partition: PartitionId, after: Tip) -> ChunkRead {
        let mut chunks = self.tiers.chunks(partition);
        chunks.retain(|chunk| chunk.id.number > after.number);
        chunks.iter_mut().take(1).for_each(|first| first.previous = after);
        ChunkRead::Next(chunks)
    }

    /// A slave that does not look whether it has counted something takes all for new.
    pub fn before_counting(&mut self, id: ActorId, chunk: &mut Chunk) {
        if self.bug != Some(Bug::Recount) {
            return;
        }
        let Some(Role::Slave { core, .. }) = self.actors.get(&id).map(|actor| &actor.role) else { return };
        for (index, batch) in chunk.batches.iter_mut().enumerate() {
            let counted = core.applied().admit(&batch.header.source, batch.header.span) == Admission::None;
            if counted && batch.header.rows > 0 {
                batch.header.source = SourceId::Request(u128::from(chunk.id.number) << 8 | index as u128);
                batch.header.span = Span::new(Position::ZERO, Position(batch.header.rows.into()));
            }
        }
    }

    /// What a faulty governor makes of a decision.
    pub fn before_proposing(&mut self, command: &mut Command) {
        let Change::NodeStates(states) = &command.change else { return };
        let suspect = states.iter().find(|(_, _, state)| *state == NodeState::Suspect);
        if let Some((node, boot, _)) = suspect.filter(|_| self.bug == Some(Bug::LostOnSuspicion)) {
            let (node, boot) = (node.clone(), *boot);
            command.change = Change::NodeLost { node, boot, reason: "it is suspect".into(), moves: Vec::new() };
        }
    }

    /// What a member understands.
    pub fn before_following(&mut self, message: &mut FromMaster) {
        match (self.bug, message) {
            (Some(Bug::EpochTwice), FromMaster::Directory(directory)) => {
                let tasks = &mut Arc::make_mut(directory).tasks;
                tasks.iter_mut().for_each(|(_, assignment)| assignment.epoch &= !1);
            }
            (Some(Bug::OlderDirectory), FromMaster::Directory(directory)) => {
                let past = self.control().past.get_or_insert_with(|| directory.clone()).clone();
                if past.version < directory.version && past.tasks != directory.tasks && self.random.percent(10) {
                    *directory = Arc::new(Directory { version: directory.version, ..(*past).clone() });
                }
            }
            _ => {}
        }
    }

    pub fn before_judging(&mut self, reads: &mut dyn Iterator<Item = &mut PartitionRead>) {
        if self.bug != Some(Bug::OldBlockNewRecord) {
            return;
        }
        for read in reads.filter(|read| read.evidence.served_by == Some(ServedBy::Local)) {
            let asked = holdfast::tier::SinkQuery { table: read.key.table, keys: Some(Vec::new()), days: 0..=0 };
            let newer: Option<Arc<Record>> = self.tiers.read_sink(SinkName::Cache, read.key.partition, asked).record;
            read.evidence.record = newer.or(read.evidence.record.take());
        }
    }
}

/// What was before the chunks that kv still has passes for counted.
fn take_for_counted(chunks: &mut [Chunk]) {
    let mut seen = HashSet::new();
    for batch in chunks.iter_mut().flat_map(|chunk| &mut chunk.batches) {
        if seen.insert(batch.header.source.clone()) {
            batch.header.span.from = Position::ZERO;
        }
    }
}

/// A batch rewritten for one consumer.
fn filter(batch: &mut Batch, spans: &[Span]) {
    let changes = shop::changes_of(batch);
    let new = |position: &Position| spans.iter().any(|span| span.contains(*position));
    let kept: Vec<_> = changes.iter().filter(|(position, _)| new(position)).map(|(at, change)| (*at, change)).collect();
    let header = &batch.header;
    *batch = shop::positioned_batch(header.source.clone(), header.span, &kept, header.at_ms);
}
