//! Opens a sled database in spite of what the last process left behind.
//!
//! Invariant: nothing is removed that sled has finished writing, and nothing is called damaged that only was not finished.
//!
//! - The file lock may outlive the last handle by a moment. So opening tries again.
//! - At each start sled sums its log up in a file, which gets its name when it is whole; one that a process was killed over
//!   is left under another name, which sled 0.34 takes for the newest (`Config::get_snapshot_files`), and which it does not cut
//!   before it writes it anew. So such files are removed first; the log they sum up is still there.

use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use sled::Db;

use crate::model::codec::CodecError;
use crate::sled_store::StoreOptions;
use crate::tier::TierError;

const OPEN_ATTEMPTS: u32 = 100;
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Of sled's log. Fixed when a store is created.
const SEGMENT_BYTES: usize = 2 << 20;
/// How the names of unfinished summaries begin and end.
const UNFINISHED: (&str, &str) = ("snap.", ".generating");

/// The folder must be this process's alone.
#[expect(clippy::disallowed_methods, reason = "a store is opened before any arbiter runs")]
pub fn open_patiently(options: StoreOptions<'_>) -> Result<Db, TierError> {
    let tier = options.tier;
    let unusable =
        |error: String| TierError::Unavailable { tier, reason: format!("{}: {error}", options.dir.display()) };
    remove_unfinished(options.dir).map_err(|error| unusable(error.to_string()))?;
    let config = sled::Config::new()
        .path(options.dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(options.cache_bytes.max(1 << 20) as u64)
        // The flush thread does it, with the value log.
        .flush_every_ms(None);
    let mut attempts = 1;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if attempts < OPEN_ATTEMPTS && error.to_string().contains("lock") => {
                attempts += 1;
                thread::sleep(OPEN_AGAIN_AFTER);
            }
            Err(sled::Error::Corruption { .. }) => {
                let source = CodecError::malformed("sled file", "damaged, recovery gave up");
                return Err(TierError::Damaged {
                    tier: options.tier,
                    place: options.dir.display().to_string(),
                    source,
                });
            }
            Err(error) => return Err(unusable(error.to_string())),
        }
    }
}

fn remove_unfinished(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(UNFINISHED.0) && name.ends_with(UNFINISHED.1) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_that_a_killed_process_left_unfinished_damages_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let dir = folder.path().join("kv");
        let options = StoreOptions { tier: "kv", dir: &dir, partitions: 1, cache_bytes: 1 << 20, flush_every_ms: 10 };
        let db = open_patiently(options).expect("a new one");
        db.insert(b"a", b"1").expect("room");
        db.flush().expect("room");
        drop(db);
        fs::write(dir.join("snap.00000000FFFFFFFF.generating"), [7; 100]).expect("room");
        let db = open_patiently(options).expect("what was finished is whole");
        assert_eq!(db.get(b"a").expect("it is read").as_deref(), Some(&b"1"[..]));
    }
}
