//! An error in SQL text that points at its place.
//!
//! Invariant: line and column lie in the text (or just behind it), so that a caret can always be drawn.

use std::fmt;

use sqlparser::parser::ParserError;
use sqlparser::tokenizer::{Location, Span, TokenizerError};

/// What is wrong in a text, and where. `Display` shows the message and the line with a caret under the column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SqlError {
    pub message: String,
    /// The whole text that the place refers to.
    pub text: String,
    /// 1-based.
    pub line: u64,
    /// 1-based, in characters.
    pub column: u64,
}

/// Where something stands in a text; made from sqlparser's locations and spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    line: u64,
    column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line, column: location.column }
    }
}

impl From<Span> for Place {
    fn from(span: Span) -> Self {
        span.start.into()
    }
}

/// Characters of a line shown on each side of the caret.
const SHOWN: usize = 60;

impl SqlError {
    /// An error at `place`; a place that sqlparser does not know (line 0) becomes the start of the text.
    pub fn at(text: &str, place: impl Into<Place>, message: impl Into<String>) -> Self {
        let place = place.into();
        let last = text.split('\n').count() as u64;
        let line = place.line.clamp(1, last);
        let length = line_of(text, line).chars().count() as u64;
        let column = if place.line == 0 { 1 } else { place.column.clamp(1, length + 1) };
        Self { message: message.into(), text: text.to_string(), line, column }
    }

    /// An error just behind the end of the text.
    pub fn at_end(text: &str, message: impl Into<String>) -> Self {
        let trimmed = text.trim_end();
        let line = trimmed.split('\n').count() as u64;
        let column = line_of(trimmed, line).chars().count() as u64 + 1;
        Self { message: message.into(), text: text.to_string(), line, column }
    }

    /// sqlparser has its place in the message only; it is taken out of there.
    pub fn from_parser(text: &str, error: ParserError) -> Self {
        let message = match error {
            ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
            ParserError::RecursionLimitExceeded => {
                return Self::at(text, Location::new(1, 1), "the text is nested too deeply");
            }
        };
        let place = message.rfind(" at Line: ").and_then(|at| Some((at, read_place(&message[at..])?)));
        match place {
            Some((at, place)) => Self::at(text, place, readable(&message[..at])),
            None if message.contains("found: EOF") => Self::at_end(text, readable(&message)),
            None => Self::at(text, Location::new(1, 1), readable(&message)),
        }
    }

    pub fn from_tokenizer(text: &str, error: &TokenizerError) -> Self {
        Self::at(text, error.location, readable(&error.message))
    }
}

/// Reads ` at Line: 1, Column: 7`.
fn read_place(text: &str) -> Option<Place> {
    let (line, column) = text.strip_prefix(" at Line: ")?.split_once(", Column: ")?;
    Some(Place { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

/// `Expected: an expression, found: EOF` in the style of our own messages.
fn readable(message: &str) -> String {
    let message = message.trim().replace("found: EOF", "found the end").replace("found: ", "found ");
    match message.strip_prefix("Expected: ") {
        Some(rest) => format!("expected {rest}"),
        None => message,
    }
}

fn line_of(text: &str, line: u64) -> &str {
    text.split('\n').nth(line as usize - 1).unwrap_or("").trim_end_matches('\r')
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Control characters would move the caret away from what it points at.
        let shown = |c: char| if c.is_control() { ' ' } else { c };
        let line: Vec<char> = line_of(&self.text, self.line.max(1)).chars().map(shown).collect();
        let caret = (self.column.max(1) as usize - 1).min(line.len());
        let from = caret.saturating_sub(SHOWN);
        let to = line.len().min(caret + SHOWN);
        let (before, after) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
        let part: String = line[from..to].iter().collect();
        let indent = " ".repeat(before.chars().count() + caret - from);
        writeln!(f, "{} (line {}, column {})", self.message, self.line, self.column)?;
        writeln!(f, "  {before}{part}{after}")?;
        write!(f, "  {indent}^")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_place() {
        let error = SqlError::at("a +\n\tgröße + 1", Location::new(2, 2), "no column 'größe'");
        assert_eq!(error.to_string(), "no column 'größe' (line 2, column 2)\n   größe + 1\n   ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let text = format!("{}?{}", "a".repeat(10_000), "b".repeat(10_000));
        let shown = SqlError::at(&text, Location::new(1, 10_001), "odd").to_string();
        let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
        assert!(lines[1].len() < 130);
        assert_eq!(lines[1][lines[2].len() - 1], '?');
    }

    #[test]
    fn places_outside_the_text_are_drawn_at_its_edge() {
        let place = |line, column| {
            let error = SqlError::at("abc", Location::new(line, column), "odd");
            (error.line, error.column, error.to_string().lines().count())
        };
        assert_eq!(place(0, 0), (1, 1, 3));
        assert_eq!(place(9, 2), (1, 2, 3));
        assert_eq!(place(1, 90), (1, 4, 3));
        assert_eq!(SqlError::at("", Location::new(1, 1), "odd").column, 1);
    }

    #[test]
    fn the_place_is_taken_out_of_a_parsers_message() {
        let error = SqlError::from_parser(
            "a b",
            ParserError::ParserError("Expected: x, found: b at Line: 1, Column: 3".into()),
        );
        assert_eq!((error.message.as_str(), error.line, error.column), ("expected x, found b", 1, 3));
        let error = SqlError::from_parser("a +", ParserError::ParserError("Expected: x, found: EOF".into()));
        assert_eq!((error.message.as_str(), error.column), ("expected x, found the end", 4));
        assert_eq!(SqlError::from_parser("((", ParserError::RecursionLimitExceeded).column, 1);
    }
}
