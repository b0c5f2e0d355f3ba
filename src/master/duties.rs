//! What goes into an active master's governor and what comes out.
//!
//! Invariant: effects are everything that it does; whoever carries them out decides nothing.

use std::collections::BTreeSet;

use super::catalog::Catalog;
use super::command::{self, Command};
use super::masters::{Masters, MastersChange};
use super::requests::{Answer, Token};
use super::wire::MasterId;
use crate::model::incident::Incident;
use crate::model::task::{BootId, NodeName};
use crate::net::control::{Answered, Ask, FromMaster, FromNode};

/// One process of a node, as long as it is connected; never given twice.
pub type Session = u64;
/// Somebody who waits for an answer.
pub type AskId = u64;

/// The group as its active master sees it now.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    pub catalog: &'a Catalog,
    /// Of the last command in the catalog.
    pub index: u64,
    /// How far the log has come: grows with every change of the masters, too.
    pub applied: u64,
    pub term: u64,
    pub me: MasterId,
    pub masters: &'a Masters,
    /// Other masters to which there is a connection.
    pub reachable: &'a BTreeSet<MasterId>,
}

impl Group<'_> {
    pub fn is_reachable(&self, id: MasterId) -> bool {
        id == self.me || self.reachable.contains(&id)
    }
}

/// What happens to an active master.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Tick,
    /// A command has been applied to the catalog.
    Applied {
        effects: Vec<command::Effect>,
    },
    /// What became of a proposal.
    Responded {
        token: Token,
        answer: Answer,
    },
    Heard {
        session: Session,
        message: FromNode,
    },
    /// A node's process is connected, and has not said anything yet.
    Opened {
        session: Session,
        node: NodeName,
        boot: BootId,
    },
    Closed {
        session: Session,
    },
    Asked {
        ask: AskId,
        what: Ask,
    },
    /// A new master's number, or why it cannot be one.
    Invited {
        ask: AskId,
        address: String,
        outcome: Result<MasterId, String>,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Propose {
        token: Token,
        command: Command,
    },
    ChangeMasters {
        token: Token,
        change: MastersChange,
    },
    /// Ask whoever listens there to be a master under this number; `Invited` comes back.
    Invite {
        ask: AskId,
        address: String,
        id: MasterId,
    },
    StepAside,
    /// May get lost.
    Send {
        to: Vec<Session>,
        message: FromMaster,
    },
    Answer {
        ask: AskId,
        answer: Answered,
    },
    /// An incident has opened or closed.
    Notify(Incident),
}
