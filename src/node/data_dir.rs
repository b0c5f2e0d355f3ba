//! The data folder: locked by one process at a time, bound to the definitions it was made with, counting its starts.
//!
//! Invariant: two processes never write to one folder; data is never read with definitions it was not written with. The
//! number of starts is for people: the epochs of tasks come from the masters' catalog.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Config;
use crate::model::id::Epoch;

/// Written into the state file; a build that does not know it refuses the folder. Grows when what tiers or snapshots hold
/// changes its form or meaning.
const FORMAT: u32 = 4;
const STATE_FILE: &str = "node.json";
const LOCK_FILE: &str = "lock";

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    #[error("another holdfast uses {}; stop it or give this one another --data folder", folder.display())]
    InUse { folder: PathBuf },
    #[error("cannot use the data folder {}: {source}", folder.display())]
    Io { folder: PathBuf, source: io::Error },
    #[error(
        "{} is not empty and no data folder of holdfast; give another --data folder",
        folder.display()
    )]
    Foreign { folder: PathBuf },
    #[error("{} cannot be read: {reason}", file.display())]
    Damaged { file: PathBuf, reason: String },
    #[error(
        "{} was made with another {what}: {before} then, {now} now. Results computed with one cannot be continued with \
         the other. Put the definition back, or give another --data folder and load the rows again",
        folder.display()
    )]
    Changed { folder: PathBuf, what: String, before: String, now: String },
}

/// What the folder was made with, and how often it was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    format: u32,
    epoch: Epoch,
    /// Everything that decides the meaning of the stored data, by what it is.
    made_with: BTreeMap<String, String>,
}

/// A folder that is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    folder: PathBuf,
    /// How often the folder was started, this time included. No task's epoch.
    pub epoch: Epoch,
    _lock: File,
}

impl DataDir {
    /// Locks the folder, checks that it was made with this configuration, and counts the start.
    pub fn open(folder: &Path, config: &Config) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let state_file = folder.join(STATE_FILE);
        if !state_file.exists()
            && !folder.join(LOCK_FILE).exists()
            && fs::read_dir(folder).map_err(io)?.next().is_some()
        {
            return Err(DataDirError::Foreign { folder: folder.to_owned() });
        }
        let lock = File::create(folder.join(LOCK_FILE)).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DataDirError::InUse { folder: folder.to_owned() },
            TryLockError::Error(source) => io(source),
        })?;
        let made_with = meaning(config);
        let mut state = match read(&state_file)? {
            Some(state) => state,
            None => State { format: FORMAT, epoch: 0, made_with: made_with.clone() },
        };
        if let Some((what, before, now)) = first_difference(&state.made_with, &made_with) {
            return Err(DataDirError::Changed { folder: folder.to_owned(), what, before, now });
        }
        state.epoch += 1;
        write(folder, &state_file, &state).map_err(io)?;
        Ok(Self { folder: folder.to_owned(), epoch: state.epoch, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

/// What must stay the same for stored data to mean the same.
fn meaning(config: &Config) -> BTreeMap<String, String> {
    let shown = |definition: Result<String, serde_json::Error>| definition.expect("a definition is plain data");
    let mut made_with = BTreeMap::from([
        ("partition count".to_owned(), config.cluster.partitions.to_string()),
        ("time zone".to_owned(), config.cluster.timezone.clone()),
    ]);
    // Of another mq offsets mean something else, and in another kv or hot there is nothing to continue with.
    for (tier, kind) in config.tiers.kinds().into_iter().filter(|(tier, _)| *tier != "cache") {
        made_with.insert(format!("kind of tier {tier}"), kind.name().to_owned());
    }
    for table in &config.tables {
        made_with.insert(format!("definition of table '{}'", table.name), shown(serde_json::to_string(table)));
    }
    for metric in &config.metrics {
        made_with.insert(format!("definition of metric '{}'", metric.name), shown(serde_json::to_string(metric)));
    }
    made_with
}

fn first_difference(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> Option<(String, String, String)> {
    let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
    let show = |value: Option<&String>| value.cloned().unwrap_or_else(|| "none".to_owned());
    names
        .map(|name| (name, before.get(name), now.get(name)))
        .find(|(_, before, now)| before != now)
        .map(|(name, before, now)| (name.clone(), show(before), show(now)))
}

fn read(file: &Path) -> Result<Option<State>, DataDirError> {
    let damaged = |reason: String| DataDirError::Damaged { file: file.to_owned(), reason };
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(damaged(error.to_string())),
    };
    let state: State = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if state.format != FORMAT {
        return Err(damaged(format!(
            "it is of format {}, and this build reads format {FORMAT}; give another --data folder and load the rows again",
            state.format
        )));
    }
    Ok(Some(state))
}

/// A crash leaves the old file or the new one.
fn write(folder: &Path, file: &Path, state: &State) -> io::Result<()> {
    let fresh = file.with_extension("json.new");
    let mut handle = File::create(&fresh)?;
    handle.write_all(&serde_json::to_vec_pretty(state)?)?;
    handle.sync_all()?;
    fs::rename(&fresh, file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Loaded};

    fn config(variables: &[(&str, &str)]) -> Config {
        let variables = variables.iter().map(|(name, text)| (name.into(), text.into()));
        Loaded::new(Layers::new(None, variables)).expect("the shipped file is valid").config
    }

    #[test]
    fn every_start_has_a_higher_number_and_the_folder_to_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("new/data");
        let first = DataDir::open(&data, &config(&[])).expect("an empty folder");
        assert!(matches!(DataDir::open(&data, &config(&[])), Err(DataDirError::InUse { .. })));
        let epoch = first.epoch;
        drop(first);
        assert!(DataDir::open(&data, &config(&[])).expect("free again").epoch > epoch);
    }

    #[test]
    fn what_was_changed_is_named_and_the_data_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(DataDir::open(folder.path(), &config(&[])).expect("an empty folder"));
        let other = config(&[("HOLDFAST_CLUSTER__PARTITIONS", "8")]);
        let message = DataDir::open(folder.path(), &other).expect_err("changed").to_string();
        assert!(message.contains("another partition count: 64 then, 8 now"), "{message}");
        let mut other = config(&[]);
        other.metrics[0].windows.pop();
        let message = DataDir::open(folder.path(), &other).expect_err("changed").to_string();
        assert!(message.contains("definition of metric 'gmv'"), "{message}");
        assert!(DataDir::open(folder.path(), &config(&[])).is_ok());
    }

    #[test]
    fn a_folder_of_something_else_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("thesis.tex"), "…").expect("writable");
        assert!(matches!(DataDir::open(folder.path(), &config(&[])), Err(DataDirError::Foreign { .. })));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1);
    }
}
