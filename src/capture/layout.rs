//! Which columns of a database's table become which columns of a `[[table]]`. Pure.
//!
//! Invariant: a row is read only if the log lays it out as the definition says that this reads it by.

use super::meaning::{Declared, Meaning};
use super::stop::{Stop, StopKind};
use super::tablemap::{Physical, TableMap};
use crate::model::schema::Table;

/// A column that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Its place among the database's columns.
    pub index: usize,
    pub meaning: Meaning,
}

/// The columns of a table that is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// All of them, in their order.
    pub declared: Vec<Declared>,
    /// By the columns of the `[[table]]`.
    pub used: Vec<Used>,
}

impl Layout {
    /// `source` names the table in the database.
    pub fn new(table: &Table, source: &str, declared: Vec<Declared>) -> Result<Self, Stop> {
        let (mut used, mut wrong) = (Vec::new(), Vec::new());
        for column in &table.columns {
            let Some(index) = find(&declared, &column.name) else {
                wrong.push(format!("{source} has no column '{}'", column.name));
                continue;
            };
            let (meaning, sql_type) = (Meaning::of(&declared[index]), &declared[index].sql_type);
            if let Err(reason) = meaning.fits(column.kind) {
                wrong.push(format!("{source}.{} ({sql_type}): {reason}", column.name));
            }
            used.push(Used { index, meaning });
        }
        if wrong.is_empty() {
            return Ok(Self { declared, used });
        }
        let way_out = format!("change the columns of [[table]] '{}', or the table", table.name);
        Err(Stop::new(StopKind::Server, wrong.join("; "), way_out))
    }

    /// Is the column one that is read?
    pub fn uses(&self, column: &str) -> bool {
        find(&self.declared, column).is_some_and(|index| self.used.iter().any(|used| used.index == index))
    }

    /// Where the log has the columns that are read, by the columns of the `[[table]]`.
    pub fn places(&self, map: &TableMap) -> Result<Vec<usize>, Stop> {
        let source = format!("{}.{}", map.database, map.table);
        let places: Vec<usize> = match &map.names {
            Some(names) => {
                let place = |used: &Used| {
                    let name = &self.declared[used.index].name;
                    let place = names.iter().position(|known| known.eq_ignore_ascii_case(name));
                    place.ok_or_else(|| moved(format!("the log has no column '{name}' of {source}")))
                };
                self.used.iter().map(place).collect::<Result<_, _>>()?
            }
            None if map.columns.len() != self.declared.len() => {
                let (found, known) = (map.columns.len(), self.declared.len());
                return Err(moved(format!("the log has {found} columns of {source}, its definition {known}")));
            }
            None => self.used.iter().map(|used| used.index).collect(),
        };
        for (used, place) in self.used.iter().zip(&places) {
            if !is_stored_as(&used.meaning, map.columns[*place]) {
                let declared = &self.declared[used.index];
                let (name, sql_type, found) = (&declared.name, &declared.sql_type, map.columns[*place]);
                return Err(moved(format!(
                    "{source}.{name} is {sql_type} by its definition, and in the log {found:?}"
                )));
            }
        }
        Ok(places)
    }
}

fn moved(reason: String) -> Stop {
    let way_out = "the table was changed unnoticed: set binlog_row_metadata=FULL; then order to pass, which takes the table as it is now";
    Stop::new(StopKind::Definition, reason, way_out)
}

fn find(declared: &[Declared], name: &str) -> Option<usize> {
    declared.iter().position(|column| column.name.eq_ignore_ascii_case(name))
}

fn is_stored_as(meaning: &Meaning, physical: Physical) -> bool {
    match meaning {
        Meaning::Int { .. } => matches!(physical, Physical::Int(_)),
        Meaning::Decimal => matches!(physical, Physical::Decimal { .. }),
        Meaning::Float => physical == Physical::Float,
        Meaning::Double => physical == Physical::Double,
        Meaning::Utf8 | Meaning::Latin1 => matches!(physical, Physical::Bytes(_)),
        Meaning::Enum(_) => matches!(physical, Physical::Enum(_)),
        Meaning::Set(_) => matches!(physical, Physical::Set(_)),
        Meaning::Bit => matches!(physical, Physical::Bit(_)),
        Meaning::Year => physical == Physical::Year,
        Meaning::Date => physical == Physical::Date,
        Meaning::DateTime => matches!(physical, Physical::DateTime2(_) | Physical::DateTimeOld),
        Meaning::Timestamp => matches!(physical, Physical::Timestamp2(_) | Physical::TimestampOld),
        Meaning::Time => matches!(physical, Physical::Time2(_) | Physical::TimeOld),
        Meaning::Other(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::TableConfig;

    fn table() -> Table {
        let text = "name = 'orders'\nkey = ['id']\npartition_by = 'id'\ntime = 'at'\ncolumns = { id = 'int', amount = 'decimal(12,2)', at = 'timestamp' }";
        Table::new(&toml::from_str::<TableConfig>(text).expect("a table")).expect("it is consistent")
    }

    fn declared(columns: &[(&str, &str)]) -> Vec<Declared> {
        let column = |(name, sql_type): &(&str, &str)| Declared {
            name: (*name).into(),
            sql_type: (*sql_type).into(),
            charset: None,
        };
        columns.iter().map(column).collect()
    }

    fn map(columns: &[Physical], names: Option<&[&str]>) -> TableMap {
        TableMap {
            table_id: 1,
            database: "shop".into(),
            table: "orders".into(),
            columns: columns.to_vec(),
            names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    const DECIMAL: Physical = Physical::Decimal { precision: 12, scale: 2 };

    #[test]
    fn columns_are_found_by_their_order_or_their_names() {
        let columns =
            declared(&[("at", "datetime(6)"), ("note", "blob"), ("ID", "bigint(20)"), ("amount", "decimal(12,2)")]);
        let layout = Layout::new(&table(), "shop.orders", columns).expect("it fits");
        let stored = [Physical::DateTime2(6), Physical::Bytes(2), Physical::Int(8), DECIMAL];
        assert_eq!(layout.places(&map(&stored, None)), Ok(vec![2, 3, 0]));
        let grown = [Physical::Int(1), Physical::DateTime2(6), Physical::Int(8), DECIMAL];
        assert_eq!(layout.places(&map(&grown, Some(&["new", "at", "id", "amount"]))), Ok(vec![2, 3, 1]));
        assert!(layout.uses("id") && layout.uses("AT") && !layout.uses("note") && !layout.uses("other"));
        let turned = [Physical::Int(8), Physical::Bytes(2), Physical::DateTime2(6), DECIMAL];
        for wrong in [map(&turned, None), map(&stored[..3], None), map(&stored, Some(&["a", "b", "id", "amount"]))] {
            assert_eq!(layout.places(&wrong).map_err(|stop| stop.kind), Err(StopKind::Definition));
        }
    }

    #[test]
    fn all_that_does_not_fit_is_said_at_once() {
        let stop = Layout::new(&table(), "shop.orders", declared(&[("id", "bigint"), ("at", "time")]))
            .expect_err("it does not fit");
        let text = stop.to_string();
        assert!(text.contains("no column 'amount'") && text.contains("shop.orders.at (time)"), "{text}");
    }
}
