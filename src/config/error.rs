//! Why a configuration cannot be used, with its place.
//!
//! Invariant: an error about a file shows the file's own line and a caret under what is wrong; an error about a
//! variable or an argument names it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

/// A step into the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// A place in the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

/// The path of these keys.
pub fn path<const N: usize>(keys: [&str; N]) -> Path {
    Path(keys.map(|key| Step::Key(key.to_owned())).into())
}

impl From<&serde_path_to_error::Path> for Path {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        Self(path.iter().map_while(step).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if index > 0 => write!(f, ".{key}")?,
                Step::Key(key) => f.write_str(key)?,
                // People count from one.
                Step::Index(index) => write!(f, "[{}]", index + 1)?,
            }
        }
        Ok(())
    }
}

/// Which layer a wrong value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A stretch of a file, already drawn with its line and caret.
    File { name: String, line: usize, column: usize, drawing: String },
    /// A variable or an argument.
    Outside(String),
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{}", show(origin, message))]
    Invalid { origin: Origin, message: String },
}

fn show(origin: &Origin, message: &str) -> String {
    match origin {
        Origin::File { name, line, column, drawing } => format!("{name}:{line}:{column}: {message}\n{drawing}"),
        Origin::Outside(name) => format!("{name}: {message}"),
    }
}

impl Origin {
    /// The place of `span` in `text`, drawn.
    pub fn in_file(name: &str, text: &str, span: Range<usize>) -> Self {
        let start = floor_char(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let content = text[line_start..line_end].trim_end_matches('\r');
        let line = text[..line_start].bytes().filter(|byte| *byte == b'\n').count() + 1;
        let before = text[line_start..start].chars().count();
        let end = floor_char(text, span.end.min(line_start + content.len())).max(start);
        let carets = "^".repeat(text[start..end].chars().count().max(1));
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands where the terminal puts the text.
        let blank: String = text[line_start..start].chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let drawing = format!("{gutter} |\n{number} | {content}\n{gutter} | {blank}{carets}");
        Self::File { name: name.to_owned(), line, column: before + 1, drawing }
    }
}

/// The last start of a character at or before `index`.
fn floor_char(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}
