//! Finds where a log goes on after transactions that were read on another server. Pure.
//!
//! Invariant: a place is found only where exactly those transactions stand before it; a server that lacks some of them, or has them
//! in another order, is refused.

use super::event::{Event, Short, kind};
use super::gtid::{self, Comparison, Gtids};
use super::log::{ARTIFICIAL, rotated};
use super::mapping::damaged;
use super::place::{LogName, Place};
use super::stop::{Stop, StopKind};

/// What a file of the log has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The file begins after some of them: look in the one before.
    Earlier,
    /// They all stand before this place, and no others.
    At(Place),
}

/// Reads a log from the beginning of one of its files.
pub struct Finding {
    log: LogName,
    /// What was read on the other server.
    read: Gtids,
    /// What stands before `place` here; `None` before the file has said.
    here: Option<Gtids>,
    place: Place,
    /// Where the log ended when it was asked for.
    end: Place,
}

impl Finding {
    /// The file is read from its first event on.
    pub fn new(log: LogName, read: Gtids, file: u32, end: Place) -> Self {
        Self { log, read, here: None, place: Place::new(file, 4), end }
    }

    /// `None`: the next event is needed.
    pub fn read(&mut self, event: &Event<'_>) -> Result<Option<Found>, Stop> {
        let short = |short: Short| damaged(event.kind, short).at(self.place);
        if event.kind == kind::ROTATE {
            self.place = rotated(&self.log, self.place, event).map_err(|stop| stop.at(self.place))?;
            return self.at_end();
        }
        if event.end == 0 || event.flags & ARTIFICIAL != 0 {
            return Ok(None);
        }
        let start = self.place;
        let gtid = match event.kind {
            // Only a server that has nothing more to send says so.
            kind::HEARTBEAT | kind::HEARTBEAT_V2 if self.here.is_none() => return Err(unnamed().at(start)),
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => return Ok(None),
            kind::MARIA_GTID_LIST => {
                return self.file_begins(event, Some(gtid::list_of_maria(event.body).map_err(short)?));
            }
            kind::PREVIOUS_GTIDS => return self.file_begins(event, gtid::list_of_mysql(event.body).map_err(short)?),
            kind::MARIA_GTID => Some(gtid::of_maria(event.body, event.server).map_err(short)?),
            kind::GTID => Some(gtid::of_mysql(event.body).map_err(short)?),
            kind::ANONYMOUS_GTID | kind::GTID_TAGGED => return Err(unnamed().at(start)),
            _ => None,
        };
        self.place = start.advanced(event.end);
        let Some(gtid) = gtid else { return self.at_end() };
        let Some(here) = &mut self.here else { return Err(unnamed().at(start)) };
        if self.read.contains(gtid) {
            here.add(gtid);
            return self.at_end();
        }
        match here.compare(&self.read) {
            Comparison::Covers => Ok(Some(Found::At(start))),
            Comparison::Diverged => Err(self.diverged().at(start)),
            Comparison::Lacks => {
                let reason = format!(
                    "the server's log has the transaction {gtid}, which was not read, before some of those that were ({}): they stand in \
                     another order here, or it lacks them",
                    self.read
                );
                let way_out = "lead the url to a server that has all in the same order (MySQL: replica_preserve_commit_order=ON), \
                    or capture under a new source's name";
                Err(Stop::unreadable(reason, way_out).at(start))
            }
        }
    }

    fn file_begins(&mut self, event: &Event<'_>, before: Option<Gtids>) -> Result<Option<Found>, Stop> {
        let before = before.ok_or_else(|| unnamed().at(self.place))?;
        self.place = self.place.advanced(event.end);
        // Later files go on where the one before ended.
        if self.here.is_none() {
            if !self.read.has_all(&before) {
                return Ok(Some(Found::Earlier));
            }
            self.here = Some(before);
        }
        self.at_end()
    }

    /// At the end nothing else can come that was read.
    fn at_end(&self) -> Result<Option<Found>, Stop> {
        let Some(here) = self.here.as_ref().filter(|_| self.place >= self.end) else { return Ok(None) };
        match here.compare(&self.read) {
            Comparison::Covers => Ok(Some(Found::At(self.place))),
            Comparison::Diverged => Err(self.diverged()),
            Comparison::Lacks => {
                let reason = format!(
                    "the server lacks transactions that were read: it has them up to {here} in {}, and {} were read",
                    self.log.file(self.place.file),
                    self.read
                );
                let way_out = "wait until it has them (it is looked at again by itself; a replica needs log_slave_updates=ON); if they are \
                    lost for good, capture under a new source's name";
                Err(Stop::new(StopKind::Server, reason, way_out))
            }
        }
    }

    fn diverged(&self) -> Stop {
        let reason =
            format!("the server went another way: it has other transactions in the place of some of {}", self.read);
        Stop::unreadable(reason, "what it lacks was counted: capture under a new source's name")
    }
}

fn unnamed() -> Stop {
    let reason = "the server's log has transactions without a GTID, or with a tag";
    Stop::unreadable(reason, "lead the url back to the server that was read, or capture under a new source's name")
}

#[cfg(test)]
#[path = "finding_tests.rs"]
mod tests;
