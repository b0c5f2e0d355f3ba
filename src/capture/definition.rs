//! What a statement that the log has as text does to the tables that are captured. Pure.
//!
//! Invariant: a statement that may change what was counted, or how rows are laid out, and is not understood, stops the source:
//! it is never taken for harmless (design I2).

use sqlparser::ast::{AlterTableOperation, Ident, MySQLColumnPosition, Statement};
use sqlparser::dialect::{GenericDialect, MySqlDialect};
use sqlparser::parser::Parser;

use super::layout::Layout;
use super::meaning::Declared;
use super::statement::Word;
use super::stop::{Stop, StopKind};

/// A table that is captured.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub database: &'a str,
    pub table: &'a str,
    pub layout: &'a Layout,
}

/// What follows from a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Nothing,
    /// The table with this index has other columns now; those that are read are the same.
    Changed(usize, Vec<Declared>),
    Stop(Stop),
}

/// `database` was in use when the statement ran.
pub fn verdict(text: &str, words: &[Word], database: &str, known: &[Known<'_>]) -> Verdict {
    let keyword = |index: usize| words.get(index).map_or("", Word::keyword);
    let names = names(words, database);
    let hit = |names: &[Name]| known.iter().position(|table| names.iter().any(|name| name.is(table)));
    match keyword(0) {
        "drop" if matches!(keyword(1), "database" | "schema") => {
            let dropped = words.iter().filter_map(Word::name).next_back().unwrap_or_default();
            match known.iter().find(|table| table.database.eq_ignore_ascii_case(dropped)) {
                Some(table) => lost(table, "was dropped with its database"),
                None => Verdict::Nothing,
            }
        }
        "drop" if keyword(1) == "table" => match hit(&names) {
            Some(index) => lost(&known[index], "was dropped (create it again before you pass it)"),
            None => Verdict::Nothing,
        },
        "truncate" => match hit(&names) {
            Some(index) => lost(&known[index], "was truncated"),
            None => Verdict::Nothing,
        },
        "create" if keyword(1) == "or" && words.iter().any(|word| word.keyword() == "table") => {
            match hit(&names[..names.len().min(7)]) {
                Some(index) => lost(&known[index], "was replaced"),
                None => Verdict::Nothing,
            }
        }
        "rename" if keyword(1) == "table" || keyword(1) == "tables" => match hit(&names) {
            Some(index) => changed(&known[index], "was renamed, or another took its name", text),
            None => Verdict::Nothing,
        },
        "alter" if words.iter().take(4).any(|word| word.keyword() == "table") => alter(text, words, database, known),
        "insert" | "update" | "delete" | "replace" | "load" | "with" => {
            let in_database =
                |name: &Name| known.iter().any(|table| name.database.eq_ignore_ascii_case(table.database));
            if names.iter().any(in_database) { Verdict::Stop(not_by_rows(text)) } else { Verdict::Nothing }
        }
        _ => Verdict::Nothing,
    }
}

struct Name {
    database: String,
    table: String,
}

impl Name {
    fn is(&self, known: &Known<'_>) -> bool {
        // On some servers names differ by the case of letters; one stop too many is the lesser harm.
        self.database.eq_ignore_ascii_case(known.database) && self.table.eq_ignore_ascii_case(known.table)
    }
}

/// All that may be the name of a table: each word, in the database before its point or in the one in use.
fn names(words: &[Word], database: &str) -> Vec<Name> {
    let mut names = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let Some(table) = word.name() else { continue };
        let is_qualified = index >= 2 && words[index - 1] == Word::Sign('.');
        let database = is_qualified.then(|| words[index - 2].name()).flatten().unwrap_or(database);
        names.push(Name { database: database.to_owned(), table: table.to_owned() });
    }
    names
}

fn lost(table: &Known<'_>, what: &str) -> Verdict {
    let reason = format!("{}.{} {what}: its rows went away without changes of their own", table.database, table.table);
    let way_out =
        "an order to pass goes on after it and leaves a gap that stays stated; or capture it under a new source's name";
    Verdict::Stop(Stop::new(StopKind::Loss, reason, way_out))
}

fn changed(table: &Known<'_>, what: &str, text: &str) -> Verdict {
    let text: String = text.chars().take(300).collect();
    let reason = format!("{}.{} {what}: {text}", table.database, table.table);
    let way_out = "see that [[table]] fits, then order to pass, which takes the table as it is now and counts on its rows being the same";
    Verdict::Stop(Stop::new(StopKind::Definition, reason, way_out))
}

fn not_by_rows(text: &str) -> Stop {
    let text: String = text.chars().take(300).collect();
    let reason = format!("the log has a change as a statement and not by rows: {text}");
    Stop::new(
        StopKind::Loss,
        reason,
        "no session may set binlog_format to anything but ROW; an order to pass leaves a gap that stays stated",
    )
}

fn alter(text: &str, words: &[Word], database: &str, known: &[Known<'_>]) -> Verdict {
    let table = words.iter().position(|word| word.keyword() == "table").map_or(0, |index| index + 1);
    // Past `if exists`, at most `database . table`.
    let table = if words.get(table).is_some_and(|word| word.keyword() == "if") { table + 2 } else { table };
    let qualified = words.get(table + 1) == Some(&Word::Sign('.'));
    let named = &words[table.min(words.len())..words.len().min(if qualified { table + 3 } else { table + 1 })];
    let subject = names(named, database);
    let hit = |name: &Name| known.iter().position(|table| name.is(table));
    let Some(index) = subject.last().and_then(hit) else {
        // `rename to`, `exchange partition … with table`: another table may become one of ours, or take its rows.
        let others = names(words, database);
        return match known.iter().find(|table| others.iter().any(|name| name.is(table))) {
            Some(table) if words.iter().any(|word| matches!(word.keyword(), "exchange" | "rename")) => {
                changed(table, "was exchanged or replaced by another table", text)
            }
            _ => Verdict::Nothing,
        };
    };
    let table = &known[index];
    let has = |keywords: &[&str]| words.iter().any(|word| keywords.contains(&word.keyword()));
    if has(&["partition"]) && has(&["drop", "truncate", "exchange", "discard", "import"]) {
        return lost(table, "lost a partition, or got another's rows");
    }
    // What only MariaDB has (`add column if not exists`) the other one knows, or nobody (`add index if not exists`).
    let parsed = Parser::parse_sql(&MySqlDialect {}, text)
        .or_else(|_| Parser::parse_sql(&GenericDialect {}, text))
        .or_else(|_| Parser::parse_sql(&MySqlDialect {}, &unconditional(text)));
    let Ok([Statement::AlterTable(statement)]) = parsed.as_deref() else {
        return changed(table, "was altered in a way that is not understood", text);
    };
    let mut columns = table.layout.declared.clone();
    for operation in &statement.operations {
        match apply(operation, table.layout, &mut columns) {
            Applied::Fine => {}
            Applied::Touches(what) => return changed(table, what, text),
        }
    }
    if columns == table.layout.declared { Verdict::Nothing } else { Verdict::Changed(index, columns) }
}

/// Without `if exists` and `if not exists`: what is there already, or gone, changes nothing in `apply` either.
fn unconditional(text: &str) -> String {
    let is = |word: &str, keyword: &str| word.eq_ignore_ascii_case(keyword);
    let mut words: Vec<&str> = Vec::new();
    for word in text.split_ascii_whitespace() {
        words.push(word);
        let kept = match words.as_slice() {
            [kept @ .., a, b, c] if is(a, "if") && is(b, "not") && is(c, "exists") => kept.len(),
            [kept @ .., a, b] if is(a, "if") && is(b, "exists") => kept.len(),
            _ => continue,
        };
        words.truncate(kept);
    }
    words.join(" ")
}

enum Applied {
    Fine,
    Touches(&'static str),
}

const TOUCHES: Applied = Applied::Touches("was altered in columns that are read");

fn find(columns: &[Declared], name: &Ident) -> Option<usize> {
    columns.iter().position(|column| column.name.eq_ignore_ascii_case(&name.value))
}

fn place(
    columns: &mut Vec<Declared>,
    column: Declared,
    position: Option<&MySQLColumnPosition>,
    otherwise: usize,
) -> Applied {
    let at = match position {
        None => otherwise,
        Some(MySQLColumnPosition::First) => 0,
        Some(MySQLColumnPosition::After(name)) => match find(columns, name) {
            Some(before) => before + 1,
            None => return Applied::Touches("was altered around a column that is not known"),
        },
    };
    columns.insert(at.min(columns.len()), column);
    Applied::Fine
}

fn apply(operation: &AlterTableOperation, layout: &Layout, columns: &mut Vec<Declared>) -> Applied {
    use AlterTableOperation as Op;
    let declared = |name: &Ident, kind: String| Declared {
        name: name.value.clone(),
        sql_type: kind.to_lowercase(),
        charset: None,
    };
    match operation {
        Op::AddColumn { column_def, column_position, .. } => {
            if find(columns, &column_def.name).is_some() {
                // `if not exists`.
                return Applied::Fine;
            }
            let column = declared(&column_def.name, column_def.data_type.to_string());
            let last = columns.len();
            place(columns, column, column_position.as_ref(), last)
        }
        Op::DropColumn { column_names, .. } => {
            if column_names.iter().any(|name| layout.uses(&name.value)) {
                return TOUCHES;
            }
            columns.retain(|column| !column_names.iter().any(|name| column.name.eq_ignore_ascii_case(&name.value)));
            Applied::Fine
        }
        Op::RenameColumn { old_column_name: old, new_column_name: new } => match find(columns, old) {
            Some(index) if !layout.uses(&old.value) && !layout.uses(&new.value) => {
                columns[index].name.clone_from(&new.value);
                Applied::Fine
            }
            _ => TOUCHES,
        },
        Op::ChangeColumn { old_name, new_name, data_type, column_position, .. } => {
            replace(layout, columns, old_name, new_name, data_type.to_string(), column_position.as_ref())
        }
        Op::ModifyColumn { col_name, data_type, column_position, .. } => {
            replace(layout, columns, col_name, col_name, data_type.to_string(), column_position.as_ref())
        }
        // A key that cascades changes rows without the log having them.
        Op::AddConstraint { constraint, .. } => {
            let text = constraint.to_string().to_uppercase();
            if text.contains("CASCADE") || text.contains("SET NULL") {
                return Applied::Touches("got a foreign key whose changes the log does not have");
            }
            Applied::Fine
        }
        Op::DropConstraint { .. }
        | Op::DropPrimaryKey { .. }
        | Op::DropForeignKey { .. }
        | Op::DropIndex { .. }
        | Op::RenameConstraint { .. }
        | Op::AlterColumn { .. }
        | Op::Algorithm { .. }
        | Op::Lock { .. }
        | Op::AutoIncrement { .. } => Applied::Fine,
        Op::RenameTable { .. } => Applied::Touches("was renamed"),
        _ => Applied::Touches("was altered in a way that is not understood"),
    }
}

fn replace(
    layout: &Layout,
    columns: &mut Vec<Declared>,
    old: &Ident,
    new: &Ident,
    kind: String,
    position: Option<&MySQLColumnPosition>,
) -> Applied {
    match find(columns, old) {
        Some(index) if !layout.uses(&old.value) && !layout.uses(&new.value) => {
            columns.remove(index);
            let column = Declared { name: new.value.clone(), sql_type: kind.to_lowercase(), charset: None };
            place(columns, column, position, index)
        }
        _ => TOUCHES,
    }
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod tests;
