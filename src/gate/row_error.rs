//! Where and why a row of an ingest request cannot be read.
//!
//! Invariant: an error says its place (line, column) and shows what stands there, cut to a length that fits a log line.

use std::fmt;

/// How many characters of a bad value are shown.
const EXCERPT_CHARS: usize = 40;

/// What kind of refusal a bad row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowErrorKind {
    /// The row is not what its table says.
    Malformed,
    /// The request as a whole holds more than one request may.
    TooLarge,
}

/// A row that cannot be read; nothing of its request is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    pub kind: RowErrorKind,
    /// Physical line in the body, from 1.
    pub line: u64,
    /// The column's name, where one column is at fault.
    pub column: Option<String>,
    /// What stands there, cut short.
    pub value: Option<String>,
    pub message: String,
}

impl RowError {
    pub fn new(line: u64, message: impl Into<String>) -> Self {
        Self { kind: RowErrorKind::Malformed, line, column: None, value: None, message: message.into() }
    }

    pub fn too_large(line: u64, message: impl Into<String>) -> Self {
        Self { kind: RowErrorKind::TooLarge, ..Self::new(line, message) }
    }

    pub fn in_column(mut self, name: &str) -> Self {
        self.column = Some(name.to_owned());
        self
    }

    pub fn showing(mut self, value: &[u8]) -> Self {
        self.value = Some(excerpt(value));
        self
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column '{column}'")?;
        }
        write!(f, ": {}", self.message)?;
        match &self.value {
            Some(value) => write!(f, " (found '{value}')"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RowError {}

fn excerpt(value: &[u8]) -> String {
    // Four bytes hold any character; one more character tells whether something was cut.
    let head = String::from_utf8_lossy(&value[..value.len().min(4 * (EXCERPT_CHARS + 1))]);
    let shown: String = head.chars().take(EXCERPT_CHARS).collect();
    if head.chars().nth(EXCERPT_CHARS).is_some() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_place_and_shows_a_cut_value() {
        let error = RowError::new(7, "not a number").in_column("amount").showing(b"12,5");
        assert_eq!(error.to_string(), "line 7, column 'amount': not a number (found '12,5')");
        let long = RowError::new(1, "too long").showing("ü".repeat(5_000).as_bytes());
        assert_eq!(long.value, Some("ü".repeat(40) + "…"));
        assert_eq!(RowError::new(1, "x").showing(&[b'a'; 40]).value, Some("a".repeat(40)));
        assert_eq!(RowError::new(1, "x").showing(&[0xff]).value, Some("\u{fffd}".to_owned()));
    }
}
