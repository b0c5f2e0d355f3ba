//! Raft's messages, entries and snapshots in this project's own form: what masters send each other and write down.
//!
//! raft-rs would encode them with protobuf 2.28, whose decoder recurses without a limit on what a peer sends. So bytes from
//! outside never reach it: they go through the codec (version, limit, checksum) into these plain structs.
//!
//! Invariant: `decode(encode(m)) == m` for every message that raft-rs sends, except for fields that it deprecates; a message that
//! would make raft-rs panic is refused here or by `Vetting`.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};
use serde::{Deserialize, Serialize};

use crate::model::codec::{self, CodecError};

/// Who a master is in the raft group; never zero, and never given to another disk: a master that lost its disk comes
/// back under a new number.
pub type MasterId = u64;

/// A number's place is its form on the wire; only ever append. Messages that raft-rs sends itself are not here.
const MESSAGE_TYPES: [MessageType; 12] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    pub kind: EntryKind,
    /// A command's bytes; empty in the entry that opens a term.
    #[serde(with = "codec::byte_string")]
    pub data: Bytes,
    /// For a change of the masters: what it is, in this project's form.
    #[serde(with = "codec::byte_string")]
    pub context: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    Command,
    Masters,
}

/// What must not be forgotten of elections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    pub term: u64,
    pub vote: MasterId,
    /// May lag: it is written beside other things.
    pub commit: u64,
}

/// Everything up to an entry, instead of the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSnapshot {
    pub index: u64,
    pub term: u64,
    pub voters: Vec<MasterId>,
    pub learners: Vec<MasterId>,
    #[serde(with = "codec::byte_string")]
    pub data: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
struct Frame {
    kind: u8,
    to: MasterId,
    from: MasterId,
    term: u64,
    log_term: u64,
    index: u64,
    entries: Vec<LogEntry>,
    commit: u64,
    commit_term: u64,
    snapshot: Option<LogSnapshot>,
    request_snapshot: u64,
    reject: bool,
    reject_hint: u64,
    #[serde(with = "codec::byte_string")]
    context: Bytes,
    priority: i64,
}

impl From<&Entry> for LogEntry {
    fn from(entry: &Entry) -> Self {
        let kind = match entry.get_entry_type() {
            EntryType::EntryNormal => EntryKind::Command,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Masters,
        };
        Self { index: entry.index, term: entry.term, kind, data: entry.data.clone(), context: entry.context.clone() }
    }
}

impl From<&LogEntry> for Entry {
    fn from(entry: &LogEntry) -> Self {
        let LogEntry { index, term, kind, data, context } = entry.clone();
        let mut raft_entry = Self { index, term, data, context, ..Self::default() };
        raft_entry.set_entry_type(match kind {
            EntryKind::Command => EntryType::EntryNormal,
            EntryKind::Masters => EntryType::EntryConfChange,
        });
        raft_entry
    }
}

impl From<raft::eraftpb::HardState> for HardState {
    fn from(hard: raft::eraftpb::HardState) -> Self {
        Self { term: hard.term, vote: hard.vote, commit: hard.commit }
    }
}

impl From<HardState> for raft::eraftpb::HardState {
    fn from(hard: HardState) -> Self {
        let mut raft_hard = Self::default();
        (raft_hard.term, raft_hard.vote, raft_hard.commit) = (hard.term, hard.vote, hard.commit);
        raft_hard
    }
}

impl LogSnapshot {
    pub fn conf_state(&self) -> ConfState {
        ConfState::from((self.voters.clone(), self.learners.clone()))
    }
}

impl From<&Snapshot> for LogSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let (meta, conf) = (snapshot.get_metadata(), snapshot.get_metadata().get_conf_state());
        Self {
            index: meta.index,
            term: meta.term,
            voters: conf.voters.clone(),
            learners: conf.learners.clone(),
            data: snapshot.data.clone(),
        }
    }
}

impl From<&LogSnapshot> for Snapshot {
    fn from(snapshot: &LogSnapshot) -> Self {
        let mut raft_snapshot = Self { data: snapshot.data.clone(), ..Self::default() };
        let meta = raft_snapshot.mut_metadata();
        (meta.index, meta.term) = (snapshot.index, snapshot.term);
        meta.set_conf_state(snapshot.conf_state());
        raft_snapshot
    }
}

/// `None` for messages that have no business on the wire.
pub fn encode(message: &Message) -> Option<Bytes> {
    let kind = MESSAGE_TYPES.iter().position(|kind| *kind == message.get_msg_type())? as u8;
    let frame = Frame {
        kind,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(LogEntry::from).collect(),
        commit: message.commit,
        commit_term: message.commit_term,
        snapshot: message.has_snapshot().then(|| message.get_snapshot().into()),
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        context: message.context.clone(),
        priority: message.priority,
    };
    Some(codec::encode(&frame).into())
}

pub fn decode(bytes: &[u8]) -> Result<Message, CodecError> {
    const WHAT: &str = "raft message";
    let frame: Frame = codec::decode(WHAT, bytes)?;
    let kind = MESSAGE_TYPES.get(usize::from(frame.kind));
    let kind = kind.ok_or_else(|| CodecError::malformed(WHAT, format!("kind {} is not known", frame.kind)))?;
    let mut message = Message::default();
    message.set_msg_type(*kind);
    (message.to, message.from, message.term) = (frame.to, frame.from, frame.term);
    (message.log_term, message.index) = (frame.log_term, frame.index);
    message.set_entries(frame.entries.iter().map(Entry::from).collect());
    (message.commit, message.commit_term) = (frame.commit, frame.commit_term);
    if let Some(snapshot) = &frame.snapshot {
        message.set_snapshot(snapshot.into());
    }
    message.request_snapshot = frame.request_snapshot;
    (message.reject, message.reject_hint) = (frame.reject, frame.reject_hint);
    message.context = frame.context;
    message.priority = frame.priority;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_message(kind: MessageType) -> Message {
        let mut message = Message::default();
        message.set_msg_type(kind);
        (message.to, message.from, message.term, message.log_term, message.index) = (1, 2, 3, 4, 5);
        let context = Bytes::from_static(b"who");
        let entry = LogEntry { index: 6, term: 3, kind: EntryKind::Masters, data: Bytes::from_static(b"x"), context };
        message.set_entries(vec![Entry::from(&entry)].into());
        (message.commit, message.commit_term, message.request_snapshot) = (7, 3, 8);
        let data = Bytes::from_static(b"state");
        let snapshot = LogSnapshot { index: 9, term: 2, voters: vec![1, 2], learners: vec![3], data };
        message.set_snapshot((&snapshot).into());
        (message.reject, message.reject_hint, message.priority) = (true, 10, -1);
        message.context = Bytes::from_static(b"context");
        message
    }

    #[test]
    fn a_message_comes_back_as_it_was() {
        for kind in MESSAGE_TYPES {
            let message = full_message(kind);
            let bytes = encode(&message).expect("goes over the wire");
            assert_eq!(decode(&bytes), Ok(message));
        }
        assert_eq!(encode(&full_message(MessageType::MsgHup)), None);
        assert_eq!(encode(&full_message(MessageType::MsgPropose)), None);
    }

    #[test]
    fn damaged_bytes_are_errors() {
        let bytes = encode(&full_message(MessageType::MsgAppend)).expect("goes over the wire");
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x55;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
