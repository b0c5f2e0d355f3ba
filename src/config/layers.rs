//! The layers of the configuration and how they become one value: defaults, then a file, then
//! variables, then arguments.
//!
//! Invariant: a later layer replaces single keys of an earlier one, lists as a whole; where a value came from can
//! always be told.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::DEFAULTS;
use super::error::{ConfigError, Origin, Path, Step, path};

/// A configuration file.
#[derive(Debug, Clone)]
pub struct Source {
    pub file: PathBuf,
    pub text: String,
}

impl Source {
    pub fn read(file: &FilePath) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
        Ok(Self { file: file.to_owned(), text: std::fs::read_to_string(file).map_err(unreadable)? })
    }

    fn name(&self) -> String {
        self.file.display().to_string()
    }
}

/// What the configuration is made of.
#[derive(Debug, Clone)]
pub struct Layers {
    source: Option<Source>,
    /// In the order in which they are applied.
    overrides: Vec<Override>,
}

/// A single value from outside of files.
#[derive(Debug, Clone)]
pub struct Override {
    /// Where it came from, for errors.
    name: String,
    path: Path,
    text: String,
}

impl Override {
    pub fn new<const N: usize>(name: &str, keys: [&str; N], text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), path: path(keys), text: text.into() }
    }
}

/// A place in a text: line and column, in characters, from 1 on.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub line: u64,
    pub column: u64,
}

const PREFIX: &str = "HOLDFAST_";

impl Layers {
    /// `HOLDFAST_A__B` overrides the key `b` of section `a`; variables without a double underscore are not the
    /// configuration's.
    pub fn new(source: Option<Source>, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut overrides: Vec<Override> = environment
            .into_iter()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
            .filter_map(|(name, text)| {
                let rest = name.strip_prefix(PREFIX).filter(|rest| rest.contains("__"))?;
                let steps = rest.split("__").map(|key| Step::Key(key.to_ascii_lowercase())).collect();
                Some(Override { name: format!("environment variable {name}"), path: Path(steps), text })
            })
            .collect();
        overrides.sort_by(|a, b| a.name.cmp(&b.name));
        Self { source, overrides }
    }

    /// Adds values that override all others.
    pub fn with(mut self, overrides: Vec<Override>) -> Self {
        self.overrides.extend(overrides);
        self
    }

    /// Where relative paths in the configuration start.
    pub fn folder(&self) -> PathBuf {
        let parent = self.source.as_ref().and_then(|source| source.file.parent());
        parent.map_or_else(PathBuf::new, FilePath::to_owned)
    }

    /// All layers as one table.
    pub fn merge(&self) -> Result<Table, ConfigError> {
        let mut merged = parse("cluster.toml (built in)", DEFAULTS)?;
        if let Some(source) = &self.source {
            let layer = parse(&source.name(), &source.text)?;
            // Shipped metrics are about shipped tables: own tables stand alone.
            if layer.contains_key("table") {
                merged.insert("metric".into(), Value::Array(Vec::new()));
            }
            overlay(&mut merged, layer);
        }
        for Override { name, path, text } in &self.overrides {
            set(&mut merged, &path.0, text).map_err(|message| from_outside(name, message))?;
        }
        Ok(merged)
    }

    /// An error at `path`, pointing into the layer that decided its value; with `within`, at that place of the text
    /// that is the value.
    pub fn locate(&self, path: &Path, message: &str, within: Option<Stretch>) -> ConfigError {
        let unknown = message.starts_with("unknown field");
        let message = plain(path, message);
        let decided = |candidate: &&Override| path.0.starts_with(&candidate.path.0);
        if let Some(decisive) = self.overrides.iter().rev().find(decided) {
            return from_outside(&decisive.name, message);
        }
        let place = |name: &str, text: &str| {
            let found = find(text, path)?;
            let span = if unknown { found.key.clone() } else { found.inside(text, within) };
            Some((Origin::in_file(name, text, span), found.depth))
        };
        let file = self.source.as_ref().and_then(|source| place(&source.name(), &source.text));
        let shipped = place("cluster.toml (built in)", DEFAULTS);
        // The file decides wherever it goes as deep as the defaults do; a key missing from both shows in the file.
        let origin = match (file, shipped) {
            (Some((file, depth)), Some((_, shipped))) if depth >= shipped => file,
            (Some((file, _)), None) => file,
            (_, Some((shipped, _))) => shipped,
            (None, None) => Origin::in_file("cluster.toml (built in)", DEFAULTS, 0..0),
        };
        ConfigError::Invalid { origin, message }
    }
}

fn from_outside(name: &str, message: String) -> ConfigError {
    ConfigError::Invalid { origin: Origin::Outside(name.to_owned()), message }
}

/// serde's words in the words of a configuration.
fn plain(path: &Path, message: &str) -> String {
    let message = message.trim_end();
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return format!(
            "unknown key {}",
            rest.replace("expected one of", "known here:").replace("expected", "known here:")
        );
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("{path}: the key {rest} is missing");
    }
    format!("{path}: {message}")
}

fn parse(name: &str, text: &str) -> Result<Table, ConfigError> {
    text.parse::<Table>().map_err(|error| ConfigError::Invalid {
        origin: Origin::in_file(name, text, error.span().unwrap_or(0..0)),
        message: error.message().trim_end().to_owned(),
    })
}

fn overlay(base: &mut Table, layer: Table) {
    for (key, value) in layer {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(layer)) if !is_secret(&layer) => overlay(base, layer),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// `{ file = … }` replaces `{ env = … }` instead of joining it.
fn is_secret(table: &Table) -> bool {
    table.len() == 1 && (table.contains_key("file") || table.contains_key("env"))
}

/// Sets one key from a variable's text; the key's present type decides how the text is read.
fn set(table: &mut Table, steps: &[Step], text: &str) -> Result<(), String> {
    let (Some(Step::Key(key)), rest) = (steps.first(), &steps[1..]) else {
        return Err("a variable names a key".into());
    };
    if rest.is_empty() {
        let value = read_value(table.get(key), text)?;
        table.insert(key.clone(), value);
        return Ok(());
    }
    match table.entry(key.as_str()).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, text),
        other => Err(format!("'{key}' is {}, not a section", other.type_str())),
    }
}

fn read_value(present: Option<&Value>, text: &str) -> Result<Value, String> {
    let literal = text.trim_start().starts_with(['{', '[', '"', '\'']);
    let is_text = matches!(present, None | Some(Value::String(_)));
    if is_text && !literal {
        return Ok(Value::String(text.to_owned()));
    }
    let mut table = format!("value = {text}\n")
        .parse::<Table>()
        .map_err(|error| format!("'{text}' is not a TOML value: {}", error.message().trim_end()))?;
    table.remove("value").filter(|_| table.is_empty()).ok_or_else(|| format!("'{text}' is not one TOML value"))
}

/// Where the deepest part of a path that a text has is.
struct Found {
    key: Range<usize>,
    value: Range<usize>,
    depth: usize,
}

impl Found {
    /// The value, or a place in the string that it is.
    fn inside(&self, text: &str, within: Option<Stretch>) -> Range<usize> {
        let raw = &text[self.value.clone()];
        let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
        // An escape in the string, or lines in it, and its columns are not the file's: point at the whole.
        match within {
            Some(Stretch { line: 1, column }) if !raw.contains(['\\', '\n']) => {
                let inner = &raw[quotes.min(raw.len())..raw.len().saturating_sub(quotes).max(quotes.min(raw.len()))];
                let offset = inner.char_indices().nth(column as usize - 1).map_or(inner.len(), |(offset, _)| offset);
                let word = |c: &char| c.is_alphanumeric() || *c == '_';
                let length: usize = inner[offset..].chars().take_while(word).map(char::len_utf8).sum();
                let start = self.value.start + quotes + offset;
                start..start + length
            }
            _ => self.value.clone(),
        }
    }
}

fn find(text: &str, path: &Path) -> Option<Found> {
    let root = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut table: Option<&DeTable> = Some(root.get_ref());
    let mut array = None;
    for (depth, step) in path.0.iter().enumerate() {
        let (key, value) = match step {
            Step::Key(name) => match table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name)) {
                Some((key, value)) => (key.span(), value),
                None => break,
            },
            Step::Index(index) => match array.and_then(|array: &toml::de::DeArray| array.get(*index)) {
                Some(value) => (value.span(), value),
                None => break,
            },
        };
        found = Some(Found { key, value: value.span(), depth: depth + 1 });
        table = value.get_ref().as_table();
        array = match value.get_ref() {
            DeValue::Array(array) => Some(array),
            _ => None,
        };
    }
    found
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
