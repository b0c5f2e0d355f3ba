//! The captured tables as a log has them: what its table maps and statements say of them, and their rows, weighed. Pure.
//!
//! Invariant: a row is weighed by the table map that stands before it; after a row that could not be read nothing is cut.

use std::collections::HashMap;
use std::sync::Arc;

use super::definition::{self, Known, Verdict};
use super::event::{self, Action, Event, Short, kind};
use super::layout::Layout;
use super::place::Place;
use super::row::{RowError, RowReader};
use super::statement::Word;
use super::stop::{Stop, StopKind};
use super::tablemap::{self, Physical};
use super::weighing::{Part, Weighing};
use crate::model::position::Position;

/// Table maps that are remembered, about.
const MOST_MAPS: usize = 1_000;

/// A table that is captured.
pub struct LogTable {
    pub database: String,
    pub name: String,
    pub layout: Arc<Layout>,
    pub weighing: Weighing,
}

/// A table as the rows that follow have it.
struct Mapped {
    table: usize,
    columns: Vec<Physical>,
    places: Vec<usize>,
}

/// What the rows of an event are counted in.
pub struct Unit<'a> {
    pub place: Place,
    /// Rows of the unit before these; grows.
    pub rows: &'a mut u32,
    /// Rows up to here were taken before.
    pub floor: Position,
    /// Is a row of ours one too many? What an XA transaction did is decided elsewhere in the log.
    pub refuses_all: bool,
}

pub struct Mapping {
    tables: Vec<LogTable>,
    /// By the log's number of a table: its table map, and what it says if it is one of ours.
    maps: HashMap<u64, (Vec<u8>, Option<Mapped>)>,
    changes: u64,
    is_whole: bool,
}

impl Mapping {
    pub fn new(tables: Vec<LogTable>) -> Self {
        Self { tables, maps: HashMap::new(), changes: 0, is_whole: true }
    }

    pub fn tables(&self) -> &[LogTable] {
        &self.tables
    }

    /// Changes weighed since they were asked for last; an update is one.
    pub fn take_changes(&mut self) -> u64 {
        std::mem::take(&mut self.changes)
    }

    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Takes all rows, by table and partition.
    pub fn cut(&mut self) -> Vec<Vec<Part>> {
        assert!(self.is_whole, "rows are cut only while all of them were read");
        self.tables.iter_mut().map(|table| table.weighing.cut()).collect()
    }

    /// The log's numbers of tables are others from here on.
    pub fn forget(&mut self) {
        self.maps.clear();
    }

    /// Forgets them all if they have become many: servers give tables new numbers now and then. Not within a statement.
    pub fn trim(&mut self) {
        if self.maps.len() > MOST_MAPS {
            self.maps.clear();
        }
    }

    /// What a statement does to the tables.
    pub fn define(&mut self, text: &str, words: &[Word], database: &str) -> Result<(), Stop> {
        let known = |table: &'_ LogTable| (table.database.clone(), table.name.clone(), table.layout.clone());
        let tables: Vec<_> = self.tables.iter().map(known).collect();
        let known: Vec<Known<'_>> =
            tables.iter().map(|(database, table, layout)| Known { database, table, layout }).collect();
        match definition::verdict(text, words, database, &known) {
            Verdict::Nothing => {}
            Verdict::Stop(stop) => return Err(stop),
            Verdict::Changed(index, declared) => {
                let table = &mut self.tables[index];
                let source = format!("{}.{}", table.database, table.name);
                table.layout = Arc::new(Layout::new(table.weighing.table(), &source, declared)?);
                self.maps.clear();
            }
        }
        Ok(())
    }

    /// A table map event.
    pub fn map(&mut self, body: &[u8]) -> Result<(), Stop> {
        let id = tablemap::table_id(body).map_err(|short| damaged(kind::TABLE_MAP, short))?;
        if self.maps.get(&id).is_some_and(|(known, _)| known == body) {
            return Ok(());
        }
        let way_out = "this version of holdfast cannot read the table map";
        let map = tablemap::table_map(body);
        let ours = |database: &str, name: &str| {
            let is = |table: &LogTable| {
                table.database.eq_ignore_ascii_case(database) && table.name.eq_ignore_ascii_case(name)
            };
            self.tables.iter().position(is)
        };
        let mapped = match map {
            Ok(map) => match ours(&map.database, &map.table) {
                Some(table) => {
                    Some(Mapped { table, places: self.tables[table].layout.places(&map)?, columns: map.columns })
                }
                None => None,
            },
            // What a table has that is not captured does not matter.
            Err(tablemap::TableMapError::Type { table, .. })
                if table.split_once('.').is_none_or(|(database, name)| ours(database, name).is_none()) =>
            {
                None
            }
            Err(error) => return Err(Stop::unreadable(error.to_string(), way_out)),
        };
        self.maps.insert(id, (body.to_vec(), mapped));
        Ok(())
    }

    /// Rows in a form that is not read: of no matter if they are not ours.
    pub fn refuse(&self, event: &Event<'_>, what: &str, way_out: &str) -> Result<(), Stop> {
        let id = tablemap::table_id(event.body).map_err(|short| damaged(event.kind, short))?;
        match self.maps.get(&id) {
            Some((_, None)) => Ok(()),
            Some((_, Some(mapped))) => {
                let table = &self.tables[mapped.table];
                Err(Stop::unreadable(format!("{}.{}: the log has {what}", table.database, table.name), way_out))
            }
            None => Err(Stop::unreadable(format!("the log has {what} of an unknown table"), way_out)),
        }
    }

    /// A rows event; had it rows of ours?
    pub fn rows(&mut self, event: &Event<'_>, action: Action, unit: Unit<'_>) -> Result<bool, Stop> {
        let rows = event::rows(event.kind, event.body).map_err(|short| damaged(event.kind, short))?;
        let Some((_, mapped)) = self.maps.get(&rows.table_id) else {
            // An event without rows ends a statement.
            if rows.rows.is_empty() {
                return Ok(false);
            }
            return Err(Stop::unreadable(
                "rows without a table map before them",
                "this version of holdfast cannot read them",
            ));
        };
        let Some(mapped) = mapped else { return Ok(false) };
        let LogTable { database, name, layout, weighing } = &mut self.tables[mapped.table];
        if unit.refuses_all {
            let reason = format!("{database}.{name} was changed in an XA transaction, whose end the log has elsewhere");
            return Err(Stop::new(StopKind::Loss, reason, "captured tables must not be changed in XA transactions"));
        }
        let table = weighing.table().clone();
        let column = |index: usize| &table.columns[index].name;
        let mut reader = RowReader::new(&mapped.columns, &mapped.places, rows)
            .map_err(|error| unreadable_row(database, name, column, error))?;
        // Until the last row is read the rows are not whole.
        self.is_whole = false;
        while let Some((is_after, cells)) =
            reader.read_next().map_err(|error| unreadable_row(database, name, column, error))?
        {
            *unit.rows += 1;
            let position = unit.place.row(*unit.rows);
            if position <= unit.floor {
                continue;
            }
            let weight = if action == Action::Delete || action == Action::Update && !is_after { -1 } else { 1 };
            weighing.push(layout, cells, weight, position).map_err(|(index, error)| {
                let reason = format!("{database}.{name}.{}: {error}", column(index));
                let way_out = format!("change the column's type in [[table]] '{}', or the value", table.name);
                Stop::unreadable(reason, way_out)
            })?;
            self.changes += u64::from(action != Action::Update || is_after);
        }
        self.is_whole = true;
        Ok(true)
    }
}

fn unreadable_row<'a>(database: &str, name: &str, column: impl Fn(usize) -> &'a String, error: RowError) -> Stop {
    match &error {
        RowError::Absent(index) => {
            let reason = format!("{database}.{name}: the row does not have the column '{}'", column(*index));
            Stop::unreadable(
                reason,
                "set binlog_row_image=FULL, for all sessions; then capture under a new source's name",
            )
        }
        RowError::Cell(index, error) => {
            let reason = format!("{database}.{name}.{}: {error}", column(*index));
            Stop::unreadable(reason, "this version of holdfast cannot read the column")
        }
        RowError::Short(_) | RowError::Columns { .. } => {
            Stop::unreadable(format!("{database}.{name}: {error}"), "the event is damaged, or of an unknown form")
        }
    }
}

pub fn damaged(event_kind: u8, short: Short) -> Stop {
    Stop::unreadable(format!("{short} (type {event_kind})"), "the event is damaged, or of an unknown form")
}
