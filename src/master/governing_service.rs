//! The active master's part of the loop: what its governor decides is carried out, and who is active is told.
//!
//! Invariant: there is a governor exactly while this master is active; with it end all who wait for its answers.

use bytes::Bytes;
use tracing::{info, warn};

use super::consensus::Consensus;
use super::duties::{self, AskId, Group, Session};
use super::governor::Governor;
use super::group_service::{Event, GroupLoop};
use super::master_service::{Invitation, MasterView, invite};
use super::signals::Input;
use super::wire::MasterId;
use crate::model::codec;
use crate::net::control::{Answered, FromMaster};
use crate::net::service;

impl GroupLoop {
    pub(super) fn become_active(&mut self, term: u64) {
        info!(term, master = self.me, "this master is active");
        let charter = self.parts.charter.clone();
        let now_ms = self.parts.clock.now_ms();
        self.active = (Some(self.me), term);
        let Some(consensus) = &self.consensus else { return };
        let group = self.group(consensus);
        self.governor = Some(Governor::new(charter, now_ms, &group));
        self.tell_standing();
        self.govern(duties::Input::Tick);
    }

    pub(super) fn step_down(&mut self) {
        if let Some(governor) = self.governor.take() {
            let effects = governor.end();
            self.carry_out(effects);
        }
        self.replies.clear();
    }

    fn group<'a>(&'a self, consensus: &'a Consensus) -> Group<'a> {
        Group {
            catalog: &self.catalog,
            index: self.index,
            applied: consensus.applied(),
            term: self.active.1,
            me: self.me,
            masters: consensus.masters(),
            reachable: self.others.reachable(),
        }
    }

    pub(super) fn govern(&mut self, input: duties::Input) {
        let Some(mut governor) = self.governor.take() else { return };
        let now_ms = self.parts.clock.now_ms();
        let effects = match &self.consensus {
            Some(consensus) => governor.step(now_ms, &self.group(consensus), input),
            None => Vec::new(),
        };
        self.governor = Some(governor);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<duties::Effect>) {
        for effect in effects {
            match effect {
                duties::Effect::Propose { token, command } => {
                    self.inputs.push_back(Input::Propose { token, command: command.encode() });
                }
                duties::Effect::ChangeMasters { token, change } => {
                    self.inputs.push_back(Input::ChangeMasters { token, change });
                }
                duties::Effect::Invite { ask, address, id } => {
                    let (net, events) = (self.parts.net.clone(), self.parts.events.clone());
                    tokio::spawn(async move {
                        let outcome = invite(net, &address, Invitation { id }).await;
                        // The master may have ended meanwhile.
                        let _ = events.send(Event::Invited { ask, address, outcome }).await;
                    });
                }
                duties::Effect::StepAside => self.inputs.push_back(Input::StepAside),
                duties::Effect::Send { to, message } => self.send(&to, &message),
                duties::Effect::Answer { ask, answer } => self.answer(ask, answer),
                duties::Effect::Notify(incident) => {
                    let (kind, subject, text) = (incident.kind, &incident.subject, &incident.text);
                    match incident.closed_ms {
                        None => warn!(?kind, subject, text, "incident opened"),
                        Some(_) => info!(?kind, subject, "incident closed"),
                    }
                    self.parts.webhook.tell(&incident);
                }
            }
        }
    }

    fn answer(&mut self, ask: AskId, answer: Answered) {
        let answer = match answer {
            Answered::NotActive { active: None } => Answered::NotActive { active: self.address_of(self.active.0) },
            answer => answer,
        };
        if let Some(reply) = self.replies.remove(&ask) {
            // It may have given up.
            let _ = reply.send(answer);
        }
    }

    pub(super) fn send(&self, to: &[Session], message: &FromMaster) {
        let body: Bytes = codec::encode(message).into();
        to.iter().for_each(|session| self.parts.sessions.send(*session, service::MEMBER, &body));
    }

    pub(super) fn address_of(&self, id: Option<MasterId>) -> Option<String> {
        self.consensus.as_ref()?.masters().addresses.get(&id?).cloned()
    }

    /// Tells all that are connected, if there is something new.
    pub(super) fn tell_standing(&mut self) {
        let (active, term) = self.active;
        let is_active = self.governor.is_some();
        let master = self.parts.charter.me.clone();
        let standing = FromMaster::Standing { term, master, is_active, active: self.address_of(active) };
        if self.standing.as_ref() != Some(&standing) {
            self.standing = Some(standing.clone());
            self.send(&self.parts.sessions.all(), &standing);
        }
    }

    pub(super) fn show(&self) {
        let view = MasterView {
            id: (self.me > 0).then_some(self.me),
            term: self.active.1,
            is_active: self.governor.is_some(),
            active: self.address_of(self.active.0),
            incidents_open: self.catalog.incidents().open().count(),
            voters: self.consensus.as_ref().map_or(0, |it| it.masters().voters.len()),
            index: self.index,
            is_over: self.is_over,
        };
        let metrics = &self.parts.metrics;
        metrics.raft_term.set(view.term as i64);
        metrics.raft_is_active.set(i64::from(view.is_active));
        metrics.incidents_open.set(view.incidents_open as i64);
        self.parts.view.send_if_modified(|now| {
            let is_new = *now != view;
            *now = view;
            is_new
        });
    }
}
