//! What a crash leaves of the value log, byte by byte, and what goes when nothing points there.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const NOTHING: Pointer = Pointer { file: 0, offset: 0 };

fn value(number: usize) -> Vec<u8> {
    vec![number as u8; number * 7 % 50]
}

fn key(number: usize) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

fn append(log: &ValueLog, numbers: std::ops::Range<usize>) -> Vec<Pointer> {
    numbers.map(|number| log.append(&key(number), &value(number)).unwrap()).collect()
}

/// How many of the first records are there, whole; after them there must be none.
fn prefix(log: &ValueLog, pointers: &[Pointer]) -> usize {
    let found = |(number, pointer): (usize, &Pointer)| {
        assert!(!log.is_lost(*pointer) || log.read(*pointer, &key(number)).unwrap().is_none());
        let read = log.read(*pointer, &key(number)).unwrap();
        assert!(read.iter().all(|read| *read == value(number)), "what is read is what was written");
        read.is_some() && !log.is_lost(*pointer)
    };
    let found: Vec<bool> = pointers.iter().enumerate().map(found).collect();
    let len = found.iter().take_while(|found| **found).count();
    assert!(found[len..].iter().all(|found| !found), "no hole: {found:?}");
    len
}

#[test]
fn values_are_read_where_they_were_written_also_after_reopening() {
    let dir = TempDir::new().unwrap();
    let log = ValueLog::open(dir.path(), NOTHING, 1).unwrap();
    let mut pointers = append(&log, 0..20);
    assert!(pointers.is_sorted());
    assert_eq!(prefix(&log, &pointers), 20);
    assert_eq!(log.read(pointers[3], &key(4)).unwrap(), None, "another key's value");
    let synced = log.sync().unwrap();
    drop(log);
    let log = ValueLog::open(dir.path(), synced, 2).unwrap();
    pointers.extend(append(&log, 20..30));
    assert_eq!(prefix(&log, &pointers), 30);
    assert_eq!(log.read(Pointer { file: 7, offset: 0 }, &key(0)).unwrap(), None);
}

#[test]
fn damage_before_what_is_durable_is_found_when_it_is_read() {
    let dir = TempDir::new().unwrap();
    let log = ValueLog::open(dir.path(), NOTHING, 1).unwrap();
    let pointers = append(&log, 0..20);
    let synced = log.sync().unwrap();
    drop(log);
    let file = path(dir.path(), 1);
    let mut bytes = fs::read(&file).unwrap();
    bytes[pointers[10].offset as usize + HEADER_BYTES + 8] ^= 1;
    fs::write(&file, bytes).unwrap();
    let log = ValueLog::open(dir.path(), synced, 2).unwrap();
    assert!(!log.is_lost(pointers[10]), "it is damaged, not lost");
    assert_eq!(log.read(pointers[10], &key(10)).unwrap(), None);
    assert_eq!(log.read(pointers[11], &key(11)).unwrap(), Some(value(11).into()));
}

#[test]
fn after_a_failed_sync_nothing_is_called_durable_until_the_log_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let log = ValueLog::open(dir.path(), NOTHING, 1).unwrap();
    let pointers = append(&log, 0..5);
    // Not a thing that can be synced.
    lock(&log.writer).unsynced.push(Arc::new(File::open("/dev/null").unwrap()));
    assert!(log.sync().is_err());
    lock(&log.writer).unsynced.pop();
    assert!(log.sync().is_err(), "it would succeed now, and prove nothing");
    assert!(log.append(&key(5), &value(5)).is_err());
    assert_eq!(prefix(&log, &pointers), 5, "what is there can be read");
    drop(log);
    let log = ValueLog::open(dir.path(), NOTHING, 2).unwrap();
    append(&log, 5..6);
    assert!(log.sync().is_ok());
}

#[test]
fn a_file_goes_when_nothing_points_into_it_and_not_before() {
    let dir = TempDir::new().unwrap();
    let log = ValueLog::open(dir.path(), NOTHING, 1).unwrap();
    let mut pointers = append(&log, 0..300);
    log.end_file(&mut lock(&log.writer)).unwrap();
    pointers.extend(append(&log, 300..400));
    log.end_file(&mut lock(&log.writer)).unwrap();
    append(&log, 400..500);
    let sweep = |dead: usize| log.sweep(|_, pointer| Ok::<_, io::Error>(!pointers[..dead].contains(&pointer))).unwrap();
    assert_eq!(sweep(299), Swept::Some, "more than a step");
    assert_eq!(sweep(299), Swept::All);
    assert_eq!(sweep(300), Swept::Dead(1));
    assert_eq!(sweep(300), Swept::All);
    delete(dir.path(), 1).unwrap();
    assert_eq!(log.read(pointers[0], &key(0)).unwrap(), None);
    assert_eq!(sweep(400), Swept::Dead(2));
    assert_eq!(sweep(400), Swept::All, "the file that is being written stays");
}

proptest! {
    #[test]
    fn after_a_crash_there_is_a_prefix_with_all_that_was_durable(
        durable in 0usize..30, more in 0usize..30, files in prop::collection::vec(0usize..60, 0..3),
        damage in any::<prop::sample::Index>(), cut: bool,
    ) {
        let dir = TempDir::new().unwrap();
        let log = ValueLog::open(dir.path(), NOTHING, 1).unwrap();
        let (mut pointers, mut synced) = (Vec::new(), NOTHING);
        for number in 0..durable + more {
            if files.contains(&number) {
                log.end_file(&mut lock(&log.writer)).unwrap();
            }
            pointers.extend(append(&log, number..number + 1));
            if number + 1 == durable {
                synced = log.sync().unwrap();
            }
        }
        drop(log);
        // Anything may have become of what was written after the sync.
        let unsynced: Vec<(u64, u64)> = (pointers[durable..].iter().enumerate())
            .flat_map(|(index, pointer)| {
                let bytes = (HEADER_BYTES + key(durable + index).len() + value(durable + index).len()) as u64;
                (0..bytes).map(|at| (pointer.file, pointer.offset + at))
            })
            .collect();
        if !unsynced.is_empty() {
            let (file, at) = unsynced[damage.index(unsynced.len())];
            let file = path(dir.path(), file);
            let mut bytes = fs::read(&file).unwrap();
            if cut { bytes.truncate(at as usize) } else { bytes[at as usize] ^= 0x5a }
            fs::write(&file, bytes).unwrap();
        }
        let log = ValueLog::open(dir.path(), synced, 100).unwrap();
        let kept = prefix(&log, &pointers);
        prop_assert!(kept >= durable, "{kept} of {durable} durable ones");
        prop_assert!(unsynced.is_empty() || kept < pointers.len(), "a damaged record passed for whole");
        let end = log.sync().unwrap();
        let new = append(&log, 0..3);
        prop_assert_eq!(prefix(&log, &new), 3);
        prop_assert!(new[0] >= end && pointers.iter().all(|old| old < &new[0]), "a place is used once");
    }
}
