//! Which messages of peers raft-rs gets to see. It trusts its peers and panics on some messages that no sane one sends; a master that
//! lost what it had acknowledged makes even sane ones look so.
//!
//! Invariant: a message that passes does not make raft-rs panic.

use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, StateRole};

use super::log::Log;
use super::masters::GroupState;

/// Why a message goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The message makes no sense.
    Malformed(&'static str),
    /// A read for an active master, which this one is not any more. Passed on, it could go in circles; it will be asked again.
    Late,
    /// The active master knows that this one had entries which it does not have any more: its disk has forgotten
    /// what it promised, so it must not vote, and go on only under a new number.
    Forgot,
}

pub fn vet(node: &RawNode<Log>, message: &Message) -> Result<(), Refusal> {
    let malformed = |reason| Err(Refusal::Malformed(reason));
    let kind = message.get_msg_type();
    if message.to != node.raft.id || message.from == 0 || message.from == node.raft.id {
        return malformed("not from another master to this one");
    }
    if (message.term == 0) != (kind == MessageType::MsgReadIndex) {
        return malformed("without a term, or with one where there must be none");
    }
    if message.request_snapshot != 0 {
        return malformed("asks for a snapshot");
    }
    match kind {
        MessageType::MsgAppend => vet_append(node, message),
        MessageType::MsgSnapshot => vet_snapshot(message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp if message.entries.len() != 1 => {
            malformed("a read has one entry")
        }
        MessageType::MsgReadIndex if node.raft.state != StateRole::Leader => Err(Refusal::Late),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => Ok(()),
        _ if !message.entries.is_empty() => malformed("entries where there must be none"),
        MessageType::MsgHeartbeat => {
            // Sent with the least of what was acknowledged and what is committed.
            match message.term >= node.raft.term && message.commit > node.raft.raft_log.last_index() {
                true => Err(Refusal::Forgot),
                false => Ok(()),
            }
        }
        MessageType::MsgAppendResponse => {
            // Of an earlier term, or to a master that has lost what it had sent but not written, it may be so.
            let is_ours = node.raft.state == StateRole::Leader && message.term == node.raft.term;
            match is_ours && !message.reject && message.index > node.raft.raft_log.last_index() {
                true => malformed("acknowledges what was not sent"),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn vet_append(node: &RawNode<Log>, message: &Message) -> Result<(), Refusal> {
    let (mut index, mut term) = (message.index, message.log_term);
    for entry in &message.entries {
        if Some(entry.index) != index.checked_add(1) || entry.term < term || entry.term > message.term {
            return Err(Refusal::Malformed("its entries are not a log"));
        }
        (index, term) = (entry.index, entry.term);
    }
    let log = &node.raft.raft_log;
    if message.term < node.raft.term || !log.match_term(message.index, message.log_term) {
        return Ok(());
    }
    let conflict = message.entries.iter().find(|entry| !log.match_term(entry.index, entry.term));
    match conflict {
        Some(entry) if entry.index <= log.committed => Err(Refusal::Forgot),
        _ => Ok(()),
    }
}

fn vet_snapshot(message: &Message) -> Result<(), Refusal> {
    let snapshot = message.get_snapshot();
    let (meta, conf) = (snapshot.get_metadata(), snapshot.get_metadata().get_conf_state());
    let mut ids: Vec<u64> = conf.voters.iter().chain(&conf.learners).copied().collect();
    ids.sort_unstable();
    let distinct = ids.windows(2).all(|pair| pair[0] != pair[1]);
    let sound = meta.index > 0
        && meta.term <= message.term
        && !conf.voters.is_empty()
        && distinct
        && !ids.contains(&0)
        && GroupState::decode(&snapshot.data).is_ok();
    if sound { Ok(()) } else { Err(Refusal::Malformed("a snapshot that is none")) }
}
