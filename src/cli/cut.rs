//! Cuts a stream of CSV or NDJSON bytes into bodies of whole rows, without reading the rows. Pure.
//!
//! Invariant: the same bytes are cut at the same places however they arrive; a body never ends within a row, a quoted
//! line break included, and every CSV body begins with the header row.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2, memchr3};
use thiserror::Error;

/// What the rows are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Csv,
    Ndjson,
}

/// When a body is full: the first row that reaches one of these ends it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
    /// No single row may be longer.
    pub row_bytes: usize,
}

/// One request's worth of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub index: u64,
    pub body: Bytes,
    pub rows: usize,
    /// Bytes of the input that it stands for.
    pub input_bytes: usize,
    /// Lines before its first row: in the input, and in the body (a header).
    lines_before: u64,
    header_lines: u64,
}

impl Cut {
    /// The input's line for a line of the body; both count from one.
    pub fn input_line(&self, body_line: u64) -> u64 {
        if body_line <= self.header_lines { body_line } else { self.lines_before + body_line - self.header_lines }
    }

    /// The input's first line in this body.
    pub fn first_line(&self) -> u64 {
        self.lines_before + 1
    }
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum CutError {
    #[error("the row that begins in line {line} is longer than {limit} bytes; is a quote missing?")]
    LongRow { line: u64, limit: usize },
    #[error("there is no header row")]
    NoHeader,
}

/// Where in a CSV row the scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote within a quoted field: the end of the field, or the first of two that mean one.
    Quote,
}

/// The scan.
#[derive(Debug)]
pub struct Cutter {
    format: Format,
    limits: Limits,
    /// `None` until the header row is whole; empty for NDJSON.
    header: Option<Bytes>,
    header_lines: u64,
    buffer: BytesMut,
    /// Bytes of `buffer` that the scan has passed.
    scanned: usize,
    /// The end of the last whole row in `buffer`.
    whole: usize,
    rows: usize,
    place: Place,
    /// The next quote at or after `scanned`, once looked for in what is there.
    next_quote: Option<usize>,
    index: u64,
    /// Lines in `buffer[..scanned]`, in `buffer[..whole]`, and in all bodies before.
    lines: u64,
    whole_lines: u64,
    lines_before: u64,
}

impl Cutter {
    pub fn new(format: Format, limits: Limits) -> Self {
        Self {
            format,
            limits,
            header: (format == Format::Ndjson).then(Bytes::new),
            header_lines: 0,
            buffer: BytesMut::new(),
            scanned: 0,
            whole: 0,
            rows: 0,
            place: Place::FieldStart,
            next_quote: None,
            index: 0,
            lines: 0,
            whole_lines: 0,
            lines_before: 0,
        }
    }

    /// Takes the next bytes; gives the bodies that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Cut>, CutError> {
        self.buffer.extend_from_slice(bytes);
        self.next_quote = None;
        let mut cuts = Vec::new();
        while self.scan_row() {
            self.check_row(self.scanned)?;
            if self.header.is_none() {
                self.take_header();
                continue;
            }
            if self.buffer[self.whole..self.scanned].iter().any(|byte| !matches!(byte, b'\n' | b'\r')) {
                self.rows += 1;
            }
            self.whole = self.scanned;
            self.whole_lines = self.lines;
            if self.rows >= self.limits.rows || self.whole >= self.limits.bytes {
                cuts.push(self.cut());
            }
        }
        self.check_row(self.buffer.len())?;
        Ok(cuts)
    }

    /// Refuses a row that goes on to `end` if that is too far.
    fn check_row(&self, end: usize) -> Result<(), CutError> {
        if end - self.whole <= self.limits.row_bytes {
            return Ok(());
        }
        let line = self.lines_before + self.whole_lines + 1;
        Err(CutError::LongRow { line, limit: self.limits.row_bytes })
    }

    /// The end of the input: the rest, whose last row may lack its line break.
    pub fn finish(mut self) -> Result<Option<Cut>, CutError> {
        let unfinished = self.buffer.len() > self.whole;
        if self.header.is_none() {
            if !unfinished {
                return Err(CutError::NoHeader);
            }
            self.scanned = self.buffer.len();
            self.take_header();
        } else if unfinished {
            self.rows += 1;
            self.whole = self.buffer.len();
        }
        Ok((self.rows > 0).then(|| self.cut()))
    }

    fn take_header(&mut self) {
        let mut header = self.buffer.split_to(self.scanned);
        if !header.ends_with(b"\n") {
            header.extend_from_slice(b"\n");
            self.lines += 1;
        }
        self.header_lines = self.lines;
        self.lines_before = self.lines;
        self.lines = 0;
        self.header = Some(header.freeze());
        self.next_quote = self.next_quote.map(|at| at - self.scanned);
        self.scanned = 0;
    }

    fn cut(&mut self) -> Cut {
        let header = self.header.as_ref().expect("rows come after the header");
        let rows = self.buffer.split_to(self.whole);
        let body = if header.is_empty() { rows.clone().freeze() } else { [header, &rows[..]].concat().into() };
        let cut = Cut {
            index: self.index,
            body,
            rows: self.rows,
            input_bytes: self.whole,
            lines_before: self.lines_before,
            header_lines: self.header_lines,
        };
        self.index += 1;
        self.lines_before += self.whole_lines;
        self.lines -= self.whole_lines;
        self.next_quote = self.next_quote.map(|at| at.saturating_sub(self.whole));
        self.scanned = self.scanned.saturating_sub(self.whole);
        (self.whole, self.whole_lines, self.rows) = (0, 0, 0);
        cut
    }

    /// Moves behind the next end of a row; false if what is there has none.
    fn scan_row(&mut self) -> bool {
        match self.format {
            Format::Ndjson => self.skip_line(),
            Format::Csv => self.scan_csv_row(),
        }
    }

    fn skip_line(&mut self) -> bool {
        let newline = memchr(b'\n', &self.buffer[self.scanned..]);
        self.scanned = newline.map_or(self.buffer.len(), |at| self.scanned + at + 1);
        self.lines += u64::from(newline.is_some());
        newline.is_some()
    }

    fn scan_csv_row(&mut self) -> bool {
        loop {
            if matches!(self.place, Place::FieldStart | Place::Plain) && !self.has_quote_before_line_end() {
                let ended = self.skip_line();
                let last = self.scanned.checked_sub(1).map(|at| self.buffer[at]);
                if let Some(last) = last {
                    self.place = after(last);
                }
                return ended;
            }
            let rest = &self.buffer[self.scanned..];
            let Some(first) = rest.first() else { return false };
            let (next, len) = match self.place {
                Place::FieldStart if *first == b'"' => (Place::Quoted, 1),
                Place::FieldStart | Place::Plain => match memchr3(b',', b'\n', b'\r', rest) {
                    Some(at) => (Place::FieldStart, at + 1),
                    None => (Place::Plain, rest.len()),
                },
                Place::Quoted => match memchr2(b'"', b'\n', rest) {
                    Some(at) if rest[at] == b'"' => (Place::Quote, at + 1),
                    Some(at) => (Place::Quoted, at + 1),
                    None => (Place::Quoted, rest.len()),
                },
                Place::Quote if *first == b'"' => (Place::Quoted, 1),
                Place::Quote => (after(*first), 1),
            };
            let passed_line_break = rest[len - 1] == b'\n';
            self.place = next;
            self.scanned += len;
            self.lines += u64::from(passed_line_break);
            if passed_line_break && next != Place::Quoted {
                return true;
            }
        }
    }

    /// Is there a quote in what is left of this line? Looked for once for many lines.
    fn has_quote_before_line_end(&mut self) -> bool {
        let quote = match self.next_quote {
            Some(at) if at >= self.scanned => at,
            _ => memchr(b'"', &self.buffer[self.scanned..]).map_or(usize::MAX, |at| self.scanned + at),
        };
        self.next_quote = Some(quote);
        quote != usize::MAX
            && memchr(b'\n', &self.buffer[self.scanned..]).is_none_or(|newline| quote < self.scanned + newline)
    }
}

/// Where a scan outside of quotes stands after `byte`.
fn after(byte: u8) -> Place {
    if matches!(byte, b',' | b'\n' | b'\r') { Place::FieldStart } else { Place::Plain }
}

#[cfg(test)]
#[path = "cut_tests.rs"]
mod tests;
