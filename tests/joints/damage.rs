//! Damaged files are reported, never read as something else, and never bring the process down.
//!
//! Invariant: whatever bytes of a store are damaged, each batch that is read is the one that was published.

use std::fs;
use std::path::Path;

use holdfast::kv::embedded::EmbeddedKv;
use holdfast::mq::Mq;
use holdfast::mq::embedded::EmbeddedMq;
use holdfast::tier::TierError;
use tempfile::TempDir;

use crate::{P0, PARTITIONS, batch, copy_dir, wait};

const BATCHES: u64 = 200;

fn published(dir: &Path) {
    let mq = EmbeddedMq::open(dir, PARTITIONS, 0).unwrap();
    for number in 0..BATCHES {
        drop(mq.publish(P0, batch(number, 5_000)));
    }
    wait(mq.flush()).unwrap();
}

/// What a reader sees of a store with damage: how many batches, and the error that stopped it.
fn read(dir: &Path) -> (u64, Option<TierError>) {
    let mq = match EmbeddedMq::open(dir, PARTITIONS, 0) {
        Ok(mq) => mq,
        Err(error) => return (0, Some(error)),
    };
    let mut next = 0;
    loop {
        match wait(mq.read(P0, next, 0)) {
            Ok(read) if read.batches.is_empty() => return (next, None),
            Ok(read) => {
                assert_eq!(read.batches, [(next, batch(next, 5_000))], "what is read is what was published");
                next += 1;
            }
            Err(error) => return (next, Some(error)),
        }
    }
}

#[test]
fn damaged_bytes_end_a_log_or_are_reported_and_are_never_read_as_a_batch() {
    let sound = TempDir::new().unwrap();
    published(sound.path());
    assert_eq!(read(sound.path()), (BATCHES, None));
    let values = fs::read_dir(sound.path().join("values")).unwrap().next().unwrap().unwrap().file_name();
    for file in [Path::new("db"), &Path::new("values").join(values)] {
        let used = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).unwrap();
        let len = used(&fs::read(sound.path().join(file)).unwrap());
        let mut errors = 0;
        for step in 1..24 {
            let damaged = TempDir::new().unwrap();
            copy_dir(sound.path(), damaged.path());
            let file = damaged.path().join(file);
            let mut bytes = fs::read(&file).unwrap();
            let at = len * step / 24;
            bytes[at..at + 64].iter_mut().for_each(|byte| *byte ^= 0x5a);
            fs::write(&file, bytes).unwrap();
            let (count, error) = read(damaged.path());
            if let Some(error) = error {
                assert!(matches!(error, TierError::Damaged { .. }), "{error}");
                errors += 1;
            } else {
                assert_eq!(count, BATCHES, "damage at {at} of {len} in {} went unnoticed", file.display());
            }
        }
        assert!(errors > 0, "not one of the damaged places in {} was read", file.display());
    }
}

#[test]
fn a_store_of_another_cluster_shape_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(EmbeddedKv::open(dir.path(), 4, 0).unwrap());
    let error = EmbeddedKv::open(dir.path(), 8, 0).unwrap_err();
    assert!(matches!(error, TierError::Damaged { .. }) && !error.is_retryable());
    assert!(error.to_string().contains("created with 4 partitions"), "{error}");
}

#[test]
fn a_place_that_cannot_be_a_directory_is_an_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("taken");
    fs::write(&file, "").unwrap();
    let error = EmbeddedKv::open(&file, 4, 0).unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("taken"), "{error}");
}
