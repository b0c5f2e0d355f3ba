//! Follows a binary log event by event: weighs the rows of captured tables, minds transactions, and refuses what it cannot read.
//! Pure.
//!
//! Invariant: positions only grow, and all rows up to `position` were weighed or are not ours; what is refused was not passed.

use super::event::{self, Event, kind};
use super::gtid::{self, Gtid, Gtids};
use super::mapping::{LogTable, Mapping, Unit, damaged};
use super::place::{LogName, MOST_OFFSET, Place};
use super::statement::{self, Control};
use super::stop::{Stop, StopKind};
use super::weighing::Part;
use crate::model::position::Position;

const CHECKSUM_BYTES: usize = 4;
/// Made up by the server for this connection; not in the log.
pub const ARTIFICIAL: u16 = 0x20;

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub log: LogName,
    /// The beginning of a transaction.
    pub place: Place,
    /// Rows up to here were taken before.
    pub floor: Position,
    /// Statements up to here are passed, whatever they do.
    pub passed: Position,
    /// What stands before the place, if all transactions have names.
    pub gtids: Option<Gtids>,
}

/// A compressed transaction whose events come one by one.
#[derive(Debug, Clone, Copy)]
struct Payload {
    start: Place,
    end: Place,
    /// Bytes of events that have not come yet.
    left: u64,
    rows: u32,
}

/// The reader of one source's log.
pub struct Log {
    start: Start,
    mapping: Mapping,
    place: Place,
    /// Where the transaction in hand begins; reading can begin again here.
    group: Place,
    in_group: bool,
    /// Between a table map and the last rows of its statement.
    in_statement: bool,
    /// A statement of its own has just ended; rows may follow that it made (create table … select).
    is_after_alone: bool,
    has_rows: bool,
    is_xa: bool,
    payload: Option<Payload>,
    /// Of the transaction in hand.
    gtid: Option<Gtid>,
    reached: Position,
}

impl Log {
    pub fn new(start: Start, tables: Vec<LogTable>) -> Self {
        Self {
            place: start.place,
            group: start.place,
            reached: start.floor,
            mapping: Mapping::new(tables),
            in_group: false,
            in_statement: false,
            // Reading may begin there.
            is_after_alone: true,
            has_rows: false,
            is_xa: false,
            payload: None,
            gtid: None,
            start,
        }
    }

    pub fn tables(&self) -> &[LogTable] {
        self.mapping.tables()
    }

    pub fn log(&self) -> &LogName {
        &self.start.log
    }

    pub fn passed(&self) -> Position {
        self.start.passed
    }

    /// Up to where all rows were weighed.
    pub fn position(&self) -> Position {
        self.reached
    }

    /// Up to where all events were read.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Where to begin again.
    pub fn resume(&self) -> Place {
        self.group
    }

    /// The transactions before `resume`, if all have names.
    pub fn gtids(&self) -> Option<&Gtids> {
        self.start.gtids.as_ref()
    }

    pub fn rows(&self) -> usize {
        self.tables().iter().map(|table| table.weighing.rows()).sum()
    }

    pub fn bytes(&self) -> usize {
        self.tables().iter().map(|table| table.weighing.bytes()).sum()
    }

    /// Changes weighed since they were asked for last; an update is one.
    pub fn take_changes(&mut self) -> u64 {
        self.mapping.take_changes()
    }

    /// Can what was weighed be cut? Not after a row that could not be read.
    pub fn is_whole(&self) -> bool {
        self.mapping.is_whole()
    }

    /// Takes all rows, by table and partition.
    pub fn cut(&mut self) -> Vec<Vec<Part>> {
        self.mapping.cut()
    }

    /// The connection was lost: the events from the transaction's beginning come again.
    pub fn begin_again(&mut self) {
        self.start.floor = self.reached;
        self.place = self.group;
        self.end();
        (self.payload, self.gtid) = (None, None);
        self.mapping.forget();
    }

    /// The log ended at `place` at a time. If that is all that was read the position goes on with the time, so that partitions can
    /// be told.
    pub fn quiet(&mut self, place: Place, at_ms: i64) {
        if self.place == place && !self.in_group && self.payload.is_none() {
            self.reached = self.reached.max(place.quiet(at_ms));
        }
    }

    /// Takes the next event.
    pub fn read(&mut self, event: &Event<'_>) -> Result<(), Stop> {
        if let Some(payload) = self.payload {
            return self.read_packed(event, payload).map_err(|stop| stop.at(payload.start));
        }
        match event.kind {
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => return Ok(()),
            kind::ROTATE => return self.rotate(event).map_err(|stop| stop.at(self.place)),
            _ if event.end == 0 || event.flags & ARTIFICIAL != 0 => return Ok(()),
            _ => {}
        }
        let end = self.place.advanced(event.end);
        let start = end.offset.checked_sub(event.size.into()).filter(|start| *start >= self.place.offset);
        let start = start.map(|offset| Place::new(end.file, offset));
        let start = start.ok_or_else(|| {
            let reason = format!("an event that ends at {} overlaps what was read before", end.offset);
            Stop::unreadable(reason, "was the server's log reset or restored? Capture it under a new source's name")
                .at(self.place)
        })?;
        if start != self.place && !self.may_skip(event.kind) {
            let reason = format!("the log's events from offset {} to {} did not come", self.place.offset, start.offset);
            return Err(Stop::unreadable(reason, "an order to retry asks the server for them again").at(self.place));
        }
        if event.kind == kind::TRANSACTION_PAYLOAD {
            let left = event::payload_size(event.body).map_err(|short| damaged(event.kind, short).at(start))?;
            self.payload = Some(Payload { start, end, left, rows: 0 });
            return Ok(());
        }
        let mut rows = 0;
        self.take(event, start, start, &mut rows).map_err(|stop| stop.at(start))?;
        self.advance(end);
        Ok(())
    }

    /// May something stand before the event that the server did not send? MariaDB keeps to itself the text of a statement, before
    /// its first table map, and how its files are encrypted.
    fn may_skip(&self, event_kind: u8) -> bool {
        match event_kind {
            kind::TABLE_MAP => (self.in_group || self.is_after_alone) && !self.in_statement,
            kind::QUERY | kind::XID | kind::XA_PREPARE => false,
            _ => !self.in_group && event::action(event_kind).is_none(),
        }
    }

    fn advance(&mut self, end: Place) {
        self.place = end;
        self.reached = self.reached.max(end.position());
        if !self.in_group {
            self.group = end;
            if let (Some(gtids), Some(gtid)) = (&mut self.start.gtids, self.gtid.take()) {
                gtids.add(gtid);
            }
        }
    }

    /// An event out of a compressed transaction. The driver drops one that it cannot unpack: then the next event is none that
    /// can stand in a transaction, and the size does not come out.
    fn read_packed(&mut self, event: &Event<'_>, payload: Payload) -> Result<(), Stop> {
        let is_outside = matches!(
            event.kind,
            kind::GTID
                | kind::ANONYMOUS_GTID
                | kind::GTID_TAGGED
                | kind::ROTATE
                | kind::HEARTBEAT
                | kind::HEARTBEAT_V2
                | kind::STOP
                | kind::FORMAT_DESCRIPTION
                | kind::PREVIOUS_GTIDS
                | kind::TRANSACTION_PAYLOAD
        );
        let left = payload.left.checked_sub(event.bare_size()).filter(|_| !is_outside);
        let left = left.ok_or_else(|| {
            let way_out = "set binlog_transaction_compression=OFF, and capture this source under a new name";
            Stop::unreadable("a compressed transaction could not be unpacked", way_out)
        })?;
        let mut payload = Payload { left, ..payload };
        self.take(event, payload.start, payload.start, &mut payload.rows)?;
        self.reached = self.reached.max(payload.start.row(payload.rows));
        self.payload = Some(payload).filter(|payload| payload.left > 0);
        if self.payload.is_none() {
            self.advance(payload.end);
        }
        Ok(())
    }

    fn rotate(&mut self, event: &Event<'_>) -> Result<(), Stop> {
        let next = rotated(&self.start.log, self.place, event)?;
        if self.in_group && self.has_rows {
            let reason = "the log has changes of a transaction that was never committed: its server crashed at it";
            let way_out = "an order to pass leaves a gap that stays stated; or capture under a new source's name";
            self.loss(self.place, reason, way_out)?;
        }
        self.end();
        self.mapping.forget();
        self.advance(next);
        Ok(())
    }

    /// `start` is the event's; `unit` is what its rows are counted in.
    fn take(&mut self, event: &Event<'_>, start: Place, unit: Place, rows: &mut u32) -> Result<(), Stop> {
        let short = |short| damaged(event.kind, short);
        self.is_after_alone = false;
        match event.kind {
            kind::GTID => {
                self.begin(start, false);
                self.gtid = Some(gtid::of_mysql(event.body).map_err(short)?);
            }
            kind::ANONYMOUS_GTID | kind::GTID_TAGGED => {
                self.begin(start, false);
                // Some have no name, or one that is not read: what was read cannot be found by names any more.
                self.start.gtids = None;
            }
            kind::MARIA_GTID => {
                self.begin(start, event::maria_gtid_is_prepared(event.body).map_err(short)?);
                self.gtid = Some(gtid::of_maria(event.body, event.server).map_err(short)?);
            }
            kind::XID | kind::XA_PREPARE => self.end(),
            kind::QUERY => self.query(event, start)?,
            kind::TABLE_MAP => {
                // Rows cannot be read without what stands here.
                if !self.in_group {
                    self.begin(start, self.is_xa);
                }
                self.in_statement = true;
                self.mapping.map(event.body)?;
            }
            kind::PARTIAL_UPDATE_ROWS => {
                self.in_statement &= !event::ends_statement(event.body);
                self.mapping.refuse(event, "parts of json values", "set binlog_row_value_options=''")?;
            }
            kind::MARIA_ROWS_COMPRESSED_FIRST..=kind::MARIA_ROWS_COMPRESSED_LAST => {
                self.in_statement &= !event::ends_statement(event.body);
                self.mapping.refuse(event, "compressed rows", "set log_bin_compress=OFF")?;
            }
            kind::MARIA_QUERY_COMPRESSED => {
                return Err(Stop::unreadable("the log has a compressed statement", "set log_bin_compress=OFF"));
            }
            kind::BEGIN_LOAD_QUERY | kind::EXECUTE_LOAD_QUERY => {
                let way_out = "no session may set binlog_format to anything but ROW; an order to pass leaves a gap that stays stated";
                self.loss(start, "the log has a LOAD DATA as a statement and not by rows", way_out)?;
            }
            kind::INCIDENT => {
                let way_out =
                    "an order to pass goes on and leaves a gap that stays stated; or capture under a new source's name";
                self.loss(start, "the server says that its log lacks changes (an incident event)", way_out)?;
            }
            kind::STOP
            | kind::INTVAR
            | kind::RAND
            | kind::USER_VAR
            | kind::FORMAT_DESCRIPTION
            | kind::ROWS_QUERY
            | kind::PREVIOUS_GTIDS
            | kind::TRANSACTION_CONTEXT
            | kind::VIEW_CHANGE
            | kind::MARIA_ANNOTATE_ROWS
            | kind::MARIA_CHECKPOINT
            | kind::MARIA_GTID_LIST
            | kind::MARIA_START_ENCRYPTION => {}
            _ => match event::action(event.kind) {
                Some(action) => {
                    self.in_statement &= !event::ends_statement(event.body);
                    let (floor, may_lose) = (self.start.floor, start.position() <= self.start.passed);
                    let unit = Unit { place: unit, rows, floor, refuses_all: self.is_xa && !may_lose };
                    self.has_rows |= self.mapping.rows(event, action, unit)?;
                }
                None if event.is_ignorable() => {}
                None => {
                    let reason = format!("the log has an event of the unknown type {}", event.kind);
                    return Err(Stop::unreadable(reason, "this version of holdfast does not know it"));
                }
            },
        }
        Ok(())
    }

    fn begin(&mut self, start: Place, is_xa: bool) {
        self.mapping.trim();
        (self.group, self.in_group, self.in_statement) = (start, true, false);
        (self.has_rows, self.is_xa) = (false, is_xa);
    }

    fn end(&mut self) {
        (self.in_group, self.in_statement, self.has_rows, self.is_xa) = (false, false, false, false);
    }

    fn loss(&self, start: Place, reason: &str, way_out: &str) -> Result<(), Stop> {
        if start.position() <= self.start.passed { Ok(()) } else { Err(Stop::new(StopKind::Loss, reason, way_out)) }
    }

    fn query(&mut self, event: &Event<'_>, start: Place) -> Result<(), Stop> {
        let query = event::query(event.body).map_err(|short| damaged(event.kind, short))?;
        let (text, database) = (String::from_utf8_lossy(query.text), String::from_utf8_lossy(query.database));
        let words = statement::words(&text);
        let words = statement::without_settings(&words);
        let control = statement::control(words);
        match control {
            Control::Begin if self.in_group => {}
            Control::Begin => self.begin(start, false),
            Control::Commit => self.end(),
            Control::Rollback if self.has_rows => {
                let way_out = "an order to pass leaves a gap that stays stated; tables without transactions must not be changed together with captured ones";
                self.loss(start, "changes that the log has were rolled back", way_out)?;
            }
            Control::Rollback => {}
            Control::XaBegin => self.is_xa = true,
            Control::XaEnd => {}
            Control::Within | Control::Alone => {
                if start.position() > self.start.passed {
                    self.mapping.define(&text, words, &database)?;
                }
                if control == Control::Alone {
                    self.end();
                    self.is_after_alone = true;
                }
            }
        }
        Ok(())
    }
}

/// Where a log named `log`, read up to `place`, goes on by this event.
pub fn rotated(log: &LogName, place: Place, event: &Event<'_>) -> Result<Place, Stop> {
    let rotate = event::rotate(event.body).map_err(|short| damaged(event.kind, short))?;
    // The one that opens a stream comes before it is known that events have checksums: then it still has its own.
    let expected = log.file(place.file);
    let is_opening = rotate.file.strip_prefix(expected.as_bytes()).is_some_and(|rest| rest.len() == CHECKSUM_BYTES);
    let name = if is_opening { expected.into() } else { String::from_utf8_lossy(rotate.file) };
    let way_out = "the source seems to be another server, or its log was reset: capture it under a new source's name";
    let (found, file) = LogName::parse(&name).map_err(|error| Stop::unreadable(error.to_string(), way_out))?;
    let next = Place::new(file, rotate.offset.max(4));
    if found != *log || next < place || next.offset > MOST_OFFSET {
        let reason = format!("the log goes on in {name} at {}, after {}", next.offset, log.file(place.file));
        return Err(Stop::unreadable(reason, way_out));
    }
    Ok(next)
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
