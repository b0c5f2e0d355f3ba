//! The catalog's incidents: those that are open, and the last ones that are not.
//!
//! Invariant: bounded, in number and length; identifiers grow and are never given twice.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::command::Effect;
use crate::model::incident::{Incident, IncidentKind};

/// Part of the replicated state, so the same in every master: not configurable.
const OPEN_MOST: usize = 512;
const PAST_MOST: usize = 256;
pub const TEXT_BYTES_MOST: usize = 512;

/// All incidents that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incidents {
    last_id: u64,
    /// By id, so in the order of opening.
    open: BTreeMap<u64, Incident>,
    past: VecDeque<Incident>,
}

/// At most `TEXT_BYTES_MOST` bytes of `text`.
pub fn bounded(mut text: String) -> String {
    let mut end = text.len().min(TEXT_BYTES_MOST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Incidents {
    /// In the order of opening.
    pub fn open(&self) -> impl Iterator<Item = &Incident> {
        self.open.values()
    }

    /// The last ones that were closed, the oldest first.
    pub fn past(&self) -> impl Iterator<Item = &Incident> {
        self.past.iter()
    }

    pub fn find(&self, kind: IncidentKind, subject: &str) -> Option<&Incident> {
        self.open.values().find(|incident| incident.kind == kind && incident.subject == subject)
    }

    pub fn raise(&mut self, at_ms: i64, kind: IncidentKind, subject: String, text: String, effects: &mut Vec<Effect>) {
        let (subject, text) = (bounded(subject), bounded(text));
        if let Some(id) = self.find(kind, &subject).map(|incident| incident.id) {
            if let Some(incident) = self.open.get_mut(&id) {
                incident.text = text;
            }
            return effects.push(Effect::Nothing { reason: "the incident is open already" });
        }
        if self.open.len() >= OPEN_MOST {
            return effects.push(Effect::Nothing { reason: "too many incidents are open" });
        }
        self.last_id += 1;
        let id = self.last_id;
        self.open.insert(id, Incident { id, kind, subject, text, opened_ms: at_ms, closed_ms: None });
        effects.push(Effect::Opened { incident: id });
    }

    /// Is there one to close?
    pub fn settle(&mut self, at_ms: i64, kind: IncidentKind, subject: &str, effects: &mut Vec<Effect>) -> bool {
        let id = self.find(kind, &bounded(subject.to_owned())).map(|incident| incident.id);
        let Some(mut incident) = id.and_then(|id| self.open.remove(&id)) else { return false };
        incident.closed_ms = Some(at_ms);
        effects.push(Effect::Closed { incident: incident.id });
        if self.past.len() >= PAST_MOST {
            self.past.pop_front();
        }
        self.past.push_back(incident);
        true
    }

    #[cfg(test)]
    pub fn assert_bounded(&self) {
        assert!(self.open.len() <= OPEN_MOST && self.past.len() <= PAST_MOST);
        let all = || self.open.values().chain(&self.past);
        assert!(all().all(|it| it.text.len() <= TEXT_BYTES_MOST && it.subject.len() <= TEXT_BYTES_MOST));
        let ids: std::collections::BTreeSet<u64> = all().map(|incident| incident.id).collect();
        assert_eq!(ids.len(), all().count(), "an id was given twice");
        assert!(ids.iter().all(|id| *id <= self.last_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(incidents: &mut Incidents, subject: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        incidents.raise(5, IncidentKind::NodeLost, subject.to_owned(), "ä".repeat(TEXT_BYTES_MOST), &mut effects);
        effects
    }

    #[test]
    fn an_incident_is_open_once_and_then_past() {
        let mut incidents = Incidents::default();
        assert_eq!(raise(&mut incidents, "a"), [Effect::Opened { incident: 1 }]);
        assert!(matches!(raise(&mut incidents, "a")[..], [Effect::Nothing { .. }]));
        let mut effects = Vec::new();
        assert!(incidents.settle(9, IncidentKind::NodeLost, "a", &mut effects));
        assert!(!incidents.settle(9, IncidentKind::NodeLost, "a", &mut effects));
        assert_eq!(effects, [Effect::Closed { incident: 1 }]);
        assert_eq!(incidents.past().next().map(|it| (it.opened_ms, it.closed_ms)), Some((5, Some(9))));
        assert_eq!(raise(&mut incidents, "a"), [Effect::Opened { incident: 2 }]);
    }

    #[test]
    fn i6_a_storm_of_incidents_is_bounded() {
        let mut incidents = Incidents::default();
        for number in 0..2_000 {
            raise(&mut incidents, &number.to_string());
            if number % 3 == 0 {
                incidents.settle(9, IncidentKind::NodeLost, &number.to_string(), &mut Vec::new());
            }
        }
        incidents.assert_bounded();
        assert_eq!((incidents.open.len(), incidents.past.len()), (OPEN_MOST, PAST_MOST));
    }
}
