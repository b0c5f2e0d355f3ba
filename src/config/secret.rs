//! Secrets in a configuration: the text itself, a file's content or a variable's value.
//!
//! Invariant: a secret is never shown, neither in logs nor by `config show`.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Text(String),
    File(PathBuf),
    Variable(String),
}

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret in {}: {source}", file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("the secret's environment variable {0} is not set")]
    Variable(String),
    #[error("the secret is empty")]
    Empty,
}

impl Secret {
    /// The secret's text without white space around it. Relative files start at `folder`.
    pub fn reveal(&self, folder: &Path) -> Result<String, SecretError> {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::File(file) => {
                let file = folder.join(file);
                std::fs::read_to_string(&file).map_err(|source| SecretError::File { file, source })?
            }
            Self::Variable(name) => std::env::var(name).map_err(|_| SecretError::Variable(name.clone()))?,
        };
        let text = text.trim();
        if text.is_empty() { Err(SecretError::Empty) } else { Ok(text.to_owned()) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Secret(hidden)"),
            Self::File(file) => write!(f, "Secret(file {})", file.display()),
            Self::Variable(name) => write!(f, "Secret(env {name})"),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, value) = match self {
            Self::Text(_) => return serializer.serialize_str("(hidden)"),
            Self::File(file) => ("file", file.display().to_string()),
            Self::Variable(name) => ("env", name.clone()),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(key, &value)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret: a string, { file = \"…\" } or { env = \"…\" }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let wrong = || A::Error::custom("a secret is a string, { file = \"…\" } or { env = \"…\" }");
        let (key, value) = map.next_entry::<String, String>()?.ok_or_else(wrong)?;
        if map.next_entry::<String, String>()?.is_some() {
            return Err(wrong());
        }
        match key.as_str() {
            "file" => Ok(Secret::File(value.into())),
            "env" => Ok(Secret::Variable(value)),
            _ => Err(wrong()),
        }
    }
}
