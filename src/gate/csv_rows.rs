//! Rows of a CSV body, fed in slices that may be cut anywhere.
//!
//! Form: RFC 4180 with a header row; columns are found by name, in any order. Lines end with LF or CRLF; empty lines are
//! skipped. An empty field is null, but a quoted one (`""`) is the empty text in a text column. A column `_op` may say
//! `insert` (or nothing) or `delete`. Invariant: where the slices are cut does not matter; a row is held only while it is
//! incomplete, and never more of it than a row may have.

use std::borrow::Cow;
use std::sync::Arc;

use memchr::{memchr, memchr_iter};

use super::csv_lines::Finder;
use super::row_error::RowError;
use super::scatter::{Cells, Layout, Scatter, ScatterError, weight};
use super::value::ValueError;
use crate::model::schema::{ColumnType, Table};

/// The most columns of a header; a table has far fewer.
const MAX_FIELDS: usize = 4_096;

/// A field of a record, without its quotes.
#[derive(Debug, Clone, Copy)]
struct Field {
    from: usize,
    to: usize,
    quoted: bool,
    /// Has doubled quotes in it.
    escaped: bool,
}

impl Field {
    #[inline]
    fn text<'a>(&self, record: &'a [u8]) -> Cow<'a, [u8]> {
        let bytes = &record[self.from..self.to];
        if !self.escaped {
            return Cow::Borrowed(bytes);
        }
        let mut single = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some(quote) = memchr(b'"', rest) {
            single.extend_from_slice(&rest[..=quote]);
            rest = &rest[quote + 2..];
        }
        single.extend_from_slice(rest);
        Cow::Owned(single)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote within a quoted field: the field's end, or the first of two.
    Closing,
    /// After the carriage return that follows a quoted field.
    ClosingReturn,
}

/// How many bytes stand before the next comma or line feed. Eight at a time, by the carry trick for finding a zero byte
/// (<https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord>): most fields are too short to call `memchr` for.
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b','))) | zeros(word ^ (ONES * u64::from(b'\n')));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|byte| matches!(byte, b',' | b'\n')).unwrap_or(bytes.len() - at)
}

/// Finds the fields of one record; continues where it stopped when the record's bytes have grown.
#[derive(Debug)]
struct Scan {
    mode: Mode,
    at: usize,
    from: usize,
    escaped: bool,
    fields: Vec<Field>,
}

impl Scan {
    /// Stands at the start of a record of which nothing was seen.
    fn is_fresh(&self) -> bool {
        self.at == 0 && self.fields.is_empty()
    }

    fn reset(&mut self) {
        (self.mode, self.at) = (Mode::FieldStart, 0);
        self.fields.clear();
    }

    /// The record's length with its line end, once `bytes` holds all of it.
    fn advance(&mut self, bytes: &[u8], most_fields: usize) -> Result<Option<usize>, &'static str> {
        while let Some(&byte) = bytes.get(self.at) {
            match self.mode {
                Mode::FieldStart => {
                    (self.mode, self.from) = match byte {
                        b'"' => (Mode::Quoted, self.at + 1),
                        _ => (Mode::Plain, self.at),
                    };
                    self.escaped = false;
                    self.at = self.from;
                }
                Mode::Plain => {
                    self.at += plain_length(&bytes[self.at..]);
                    match bytes.get(self.at) {
                        None => break,
                        Some(b',') => self.close(self.at, false, most_fields)?,
                        Some(_) => {
                            let returns = usize::from(self.at > self.from && bytes[self.at - 1] == b'\r');
                            self.close(self.at - returns, false, most_fields)?;
                            return Ok(Some(self.at));
                        }
                    }
                }
                Mode::Quoted => match memchr(b'"', &bytes[self.at..]) {
                    Some(length) => (self.mode, self.at) = (Mode::Closing, self.at + length + 1),
                    None => self.at = bytes.len(),
                },
                Mode::Closing if byte == b'"' => {
                    (self.mode, self.at, self.escaped) = (Mode::Quoted, self.at + 1, true);
                }
                Mode::Closing if byte == b'\r' => (self.mode, self.at) = (Mode::ClosingReturn, self.at + 1),
                Mode::Closing if byte == b',' => self.close(self.at - 1, true, most_fields)?,
                Mode::Closing if byte == b'\n' => {
                    self.close(self.at - 1, true, most_fields)?;
                    return Ok(Some(self.at));
                }
                Mode::ClosingReturn if byte == b'\n' => {
                    self.close(self.at - 2, true, most_fields)?;
                    return Ok(Some(self.at));
                }
                Mode::Closing | Mode::ClosingReturn => {
                    return Err("text after a closing quote (a quote within quotes is written twice)");
                }
            }
        }
        Ok(None)
    }

    /// Ends the field before the delimiter at `at`.
    #[inline]
    fn close(&mut self, to: usize, quoted: bool, most_fields: usize) -> Result<(), &'static str> {
        if self.fields.len() == most_fields {
            return Err("more fields than the header has columns");
        }
        self.fields.push(Field { from: self.from, to, quoted, escaped: self.escaped });
        (self.mode, self.at) = (Mode::FieldStart, self.at + 1);
        Ok(())
    }

    fn is_blank_line(&self) -> bool {
        matches!(self.fields.as_slice(), [only] if !only.quoted && only.from == only.to)
    }
}

/// Reads CSV.
#[derive(Debug)]
pub struct CsvRows {
    table: Arc<Table>,
    layout: Option<Layout>,
    finder: Finder,
    scan: Scan,
    /// The beginning of a record that is not complete.
    carry: Vec<u8>,
    /// The line on which the next record begins.
    line: u64,
}

impl CsvRows {
    pub fn new(table: Arc<Table>) -> Self {
        let scan = Scan { mode: Mode::FieldStart, at: 0, from: 0, escaped: false, fields: Vec::new() };
        Self { table, layout: None, finder: Finder::default(), scan, carry: Vec::new(), line: 1 }
    }

    pub fn feed(&mut self, mut slice: &[u8], scatter: &mut Scatter) -> Result<(), RowError> {
        while !self.carry.is_empty() && !slice.is_empty() {
            let length = memchr(b'\n', slice).map_or(slice.len(), |at| at + 1);
            self.keep(&slice[..length], scatter)?;
            slice = &slice[length..];
            let record = std::mem::take(&mut self.carry);
            if !self.complete(&record, scatter)? {
                self.carry = record;
            }
        }
        while !slice.is_empty() {
            let plain = self.plain_lines(slice, scatter);
            if plain > 0 {
                slice = &slice[plain..];
                continue;
            }
            let most_fields = self.most_fields();
            match self.scan.advance(slice, most_fields).map_err(|reason| self.broken(slice, reason))? {
                Some(length) => {
                    self.record(&slice[..length], scatter)?;
                    slice = &slice[length..];
                }
                None => return self.keep(slice, scatter),
            }
        }
        Ok(())
    }

    pub fn finish(mut self, scatter: &mut Scatter) -> Result<(), RowError> {
        if self.scan.mode == Mode::Quoted {
            let record = std::mem::take(&mut self.carry);
            return Err(self.broken(&record, "a quoted field is never closed"));
        }
        if !self.carry.is_empty() {
            let mut record = std::mem::take(&mut self.carry);
            record.push(b'\n');
            let complete = self.complete(&record, scatter)?;
            assert!(complete, "outside quotes a line end completes a record");
        }
        match self.layout {
            Some(_) => Ok(()),
            None => Err(RowError::new(1, "a CSV body begins with a header row that names the columns")),
        }
    }

    /// Takes the plain lines at the start of `slice`, if all is well with them; gives their length.
    fn plain_lines(&mut self, slice: &[u8], scatter: &mut Scatter) -> usize {
        let Some(layout) = self.layout.as_ref().filter(|_| self.scan.is_fresh()) else { return 0 };
        let lines = self.finder.find(slice, layout.fields, scatter.limits().row_bytes);
        if lines.len() == 0 || !scatter.push_lines(&lines, layout) {
            return 0;
        }
        self.line += lines.len() as u64;
        lines.bytes().len()
    }

    fn most_fields(&self) -> usize {
        self.layout.as_ref().map_or(MAX_FIELDS, |layout| layout.fields)
    }

    /// Keeps bytes of an incomplete record, unless they are more than a row may have.
    fn keep(&mut self, bytes: &[u8], scatter: &Scatter) -> Result<(), RowError> {
        let most = scatter.limits().row_bytes;
        if self.carry.len() + bytes.len() > most {
            return Err(too_long(self.line, most));
        }
        self.carry.extend_from_slice(bytes);
        Ok(())
    }

    fn complete(&mut self, record: &[u8], scatter: &mut Scatter) -> Result<bool, RowError> {
        let most_fields = self.most_fields();
        match self.scan.advance(record, most_fields).map_err(|reason| self.broken(record, reason))? {
            Some(length) => {
                assert_eq!(length, record.len(), "a carried record grows line by line");
                self.record(record, scatter)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// A complete record with its line end.
    fn record(&mut self, record: &[u8], scatter: &mut Scatter) -> Result<(), RowError> {
        if record.len() > scatter.limits().row_bytes {
            return Err(too_long(self.line, scatter.limits().row_bytes));
        }
        if !self.scan.is_blank_line() {
            match &self.layout {
                Some(layout) => self.row(layout, record, scatter)?,
                None => self.layout = Some(self.read_header(record)?),
            }
        }
        // Only quoted fields have line ends in them.
        let quoted = self.scan.fields.iter().any(|field| field.quoted);
        self.line += if quoted { memchr_iter(b'\n', record).count() as u64 } else { 1 };
        self.scan.reset();
        Ok(())
    }

    fn row(&self, layout: &Layout, record: &[u8], scatter: &mut Scatter) -> Result<(), RowError> {
        let fields = self.scan.fields.as_slice();
        if fields.len() != layout.fields {
            let message = format!("{} fields where the header has {} columns", fields.len(), layout.fields);
            return Err(RowError::new(self.line, message).showing(trim_end(record)));
        }
        let operation = layout.operation.map(|index| fields[index].text(record)).unwrap_or_default();
        let Some(weight) = weight(&operation) else {
            let message = "CSV rows are 'insert' or 'delete'; an update is a delete of the row before and an insert";
            return Err(RowError::new(self.line, message).in_column("_op").showing(&operation));
        };
        let cells = CsvCells { table: &self.table, layout, record, fields };
        scatter.push(&cells, weight, 1).map_err(|error| self.refused(&cells, error))
    }

    fn read_header(&self, record: &[u8]) -> Result<Layout, RowError> {
        let (table, fields) = (&self.table, &self.scan.fields);
        let mut layout = Layout { columns: vec![None; table.columns.len()], operation: None, fields: fields.len() };
        for (index, field) in fields.iter().enumerate() {
            let name = field.text(record);
            let fail = |message: String| Err(RowError::new(self.line, message).showing(&name));
            let place = match std::str::from_utf8(&name) {
                Ok("_op") => &mut layout.operation,
                Ok(known) if table.column(known).is_some() => {
                    &mut layout.columns[table.column(known).expect("it was just found")]
                }
                _ => return fail(no_such_column(table)),
            };
            if place.replace(index).is_some() {
                return fail("a column stands twice in the header".to_owned());
            }
        }
        let missing = table.columns.iter().zip(&layout.columns).find(|(column, at)| !column.nullable && at.is_none());
        match missing {
            Some((column, _)) => {
                let message = "the header lacks this column, which decides key or partition and is never null";
                Err(RowError::new(self.line, message).in_column(&column.name))
            }
            None => Ok(layout),
        }
    }

    fn refused(&self, cells: &CsvCells<'_>, error: ScatterError) -> RowError {
        match error {
            ScatterError::Cell(column, error) => {
                let field = cells.layout.columns[column].map(|index| cells.fields[index]);
                let from = field.map_or(0, |field| field.from);
                let line = self.line + memchr_iter(b'\n', &cells.record[..from]).count() as u64;
                let error = RowError::new(line, error.to_string()).in_column(&cells.table.columns[column].name);
                match field {
                    Some(field) if field.from < field.to => error.showing(&field.text(cells.record)),
                    _ => error,
                }
            }
            other => too_large(self.line, &other),
        }
    }

    /// An error in the record's form; it is where the scan stands.
    fn broken(&self, record: &[u8], reason: &str) -> RowError {
        let at = self.scan.at.min(record.len());
        let from = if self.scan.mode == Mode::Quoted { self.scan.from - 1 } else { self.scan.from.min(at) };
        let line = self.line + memchr_iter(b'\n', &record[..from.min(at)]).count() as u64;
        RowError::new(line, reason).showing(&record[from.min(at)..])
    }
}

struct CsvCells<'a> {
    table: &'a Table,
    layout: &'a Layout,
    record: &'a [u8],
    fields: &'a [Field],
}

impl Cells for CsvCells<'_> {
    #[inline]
    fn cell(&self, column: usize) -> Result<Option<Cow<'_, [u8]>>, ValueError> {
        let Some(index) = self.layout.columns[column] else {
            return Ok(None);
        };
        let field = &self.fields[index];
        // Programs that quote everything quote nulls too; only a text column can mean the empty text.
        let is_null = field.from == field.to && !(field.quoted && self.table.columns[column].kind == ColumnType::Text);
        Ok((!is_null).then(|| field.text(self.record)))
    }
}

fn trim_end(record: &[u8]) -> &[u8] {
    record.trim_ascii_end()
}

/// A row longer than a row may be; said before its end is seen.
pub fn too_long(line: u64, most: usize) -> RowError {
    RowError::new(line, format!("the row is longer than {most} bytes"))
}

/// A request that holds too much.
pub fn too_large(line: u64, error: &ScatterError) -> RowError {
    let message = match error {
        ScatterError::TooManyRows(most) => format!("a request holds at most {most} rows; send the rest in another"),
        ScatterError::TooManyBytes(most) => format!("a request takes at most {most} bytes once read; send less"),
        ScatterError::Cell(..) => unreachable!("a bad cell is not a limit"),
    };
    RowError::too_large(line, message)
}

/// What to say of a name that is not a column.
pub fn no_such_column(table: &Table) -> String {
    let names: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
    format!("table '{}' has no such column; it has {}", table.name, names.join(", "))
}
