//! Values beside sled: written once, in the order of their writes, into files of their own; sled holds where they are.
//!
//! sled keeps a value in a leaf of its tree and writes the leaf again whenever it splits or has changed often: measured,
//! seven to eleven times. That is too much for batches and chunks, which come in order, never change and go in order.
//!
//! A file is a sequence of records: length of the value (u32 le), length of the key (u16 le), CRC-32 of lengths, key and
//! value (u32 le), key, value. A record without key and value ends a file that is complete. Invariant: after a crash the log holds a prefix of its records; a place is never used
//! twice; a file is deleted when nothing points into it any more and that is durable.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::locks::lock;

/// A file ends after so many bytes; what it holds goes at once.
const FILE_BYTES: u64 = 64 << 20;
const HEADER_BYTES: usize = 10;
/// Records that are looked at in one step of sweeping.
const SWEEP_STEP: usize = 256;

/// Where a record stands. Later records are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pointer {
    pub file: u64,
    pub offset: u64,
}

/// The log.
#[derive(Debug)]
pub struct ValueLog {
    dir: PathBuf,
    writer: Mutex<Writer>,
    sweeper: Mutex<Sweeper>,
    /// What was there after a crash, and where this process began to write.
    recovered: (Pointer, Pointer),
}

#[derive(Debug)]
struct Writer {
    next: Pointer,
    file: Option<Arc<File>>,
    /// Files with records that may not be durable yet, the one being written included.
    unsynced: Vec<Arc<File>>,
    created: bool,
    /// A sync failed: what it covered may be lost although the next one would succeed, for the system keeps no failure in
    /// mind. As with sled, that is for good until the store is opened again.
    failed: bool,
    record: Vec<u8>,
}

impl Writer {
    fn check(&self) -> io::Result<()> {
        match self.failed {
            true => Err(io::Error::other("values could not be made durable before; restart to open the store again")),
            false => Ok(()),
        }
    }
}

/// Looks for files that nothing points into any more.
#[derive(Debug)]
struct Sweeper {
    /// Files that are complete, and where their records end.
    files: BTreeMap<u64, u64>,
    /// How far the oldest was looked at: what stands before is dead.
    offset: u64,
}

/// What a step of sweeping found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// Nothing more for now.
    All,
    /// There is more to look at.
    Some,
    /// Nothing points into this file; there may be more such files.
    Dead(u64),
}

struct Header {
    value: usize,
    key: usize,
    crc: u32,
}

impl Header {
    fn read(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [v0, v1, v2, v3, k0, k1, c0, c1, c2, c3] = *bytes;
        Self {
            value: u32::from_le_bytes([v0, v1, v2, v3]) as usize,
            key: usize::from(u16::from_le_bytes([k0, k1])),
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    fn record_bytes(&self) -> u64 {
        (HEADER_BYTES + self.key + self.value) as u64
    }
}

impl ValueLog {
    /// Opens the log of a folder. Up to `synced` all is durable; after it a crash may have left anything, and the first
    /// record that is not whole ends the log. `generation` is greater than any before.
    pub fn open(dir: &Path, synced: Pointer, generation: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.strip_suffix(".values")?.parse().ok());
            if let Some(number) = number {
                files.insert(number, entry.metadata()?.len().saturating_sub(HEADER_BYTES as u64));
            }
        }
        let end = recover(dir, &mut files, synced)?;
        let next = Pointer { file: generation, offset: 0 };
        assert!(files.keys().all(|number| *number < generation), "places are never used twice");
        let writer =
            Writer { next, file: None, unsynced: Vec::new(), created: false, failed: false, record: Vec::new() };
        let sweeper = Sweeper { files, offset: 0 };
        Ok(Self { dir: dir.into(), writer: Mutex::new(writer), sweeper: Mutex::new(sweeper), recovered: (end, next) })
    }

    /// Is what `pointer` points to lost with the last writes before a crash?
    pub fn is_lost(&self, pointer: Pointer) -> bool {
        let (end, next) = self.recovered;
        (end..next).contains(&pointer)
    }

    pub fn append(&self, key: &[u8], value: &[u8]) -> io::Result<Pointer> {
        let mut writer = lock(&self.writer);
        writer.check()?;
        if writer.next.offset >= FILE_BYTES {
            self.end_file(&mut writer)?;
        }
        let file = match &writer.file {
            Some(file) => Arc::clone(file),
            None => {
                let path = path(&self.dir, writer.next.file);
                let file = Arc::new(OpenOptions::new().write(true).create_new(true).open(path)?);
                writer.file = Some(Arc::clone(&file));
                writer.unsynced.push(Arc::clone(&file));
                writer.created = true;
                file
            }
        };
        let pointer = writer.next;
        let mut record = std::mem::take(&mut writer.record);
        record.clear();
        write_record(&mut record, key, value);
        // What a failure leaves is written over by the next record, or found incomplete after a crash.
        let written = file.write_all_at(&record, pointer.offset);
        let bytes = record.len() as u64;
        writer.record = record;
        written?;
        writer.next.offset += bytes;
        Ok(pointer)
    }

    fn end_file(&self, writer: &mut Writer) -> io::Result<()> {
        if let Some(file) = &writer.file {
            file.write_all_at(&end_record(), writer.next.offset)?;
        }
        lock(&self.sweeper).files.insert(writer.next.file, writer.next.offset);
        writer.file = None;
        writer.next = Pointer { file: writer.next.file + 1, offset: 0 };
        Ok(())
    }

    /// Makes all records written so far durable, and says up to where they go.
    pub fn sync(&self) -> io::Result<Pointer> {
        let (files, created, end) = {
            let mut writer = lock(&self.writer);
            writer.check()?;
            let created = std::mem::take(&mut writer.created);
            (writer.unsynced.clone(), created, writer.next)
        };
        let synced = (|| {
            files.iter().try_for_each(|file| file.sync_data())?;
            if created { File::open(&self.dir)?.sync_all() } else { Ok(()) }
        })();
        let mut writer = lock(&self.writer);
        writer.failed |= synced.is_err();
        synced?;
        let active = writer.file.clone();
        let is = |file: &Arc<File>, other: &Arc<File>| Arc::ptr_eq(file, other);
        writer.unsynced.retain(|file| {
            active.as_ref().is_some_and(|active| is(file, active)) || !files.iter().any(|synced| is(file, synced))
        });
        Ok(end)
    }

    /// The value at `pointer`; `None` if what stands there is not a record of `key`.
    pub fn read(&self, pointer: Pointer, key: &[u8]) -> io::Result<Option<Bytes>> {
        let file = match File::open(path(&self.dir, pointer.file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let Some((header, found)) = read_key(&file, pointer.offset)? else { return Ok(None) };
        if found != key || pointer.offset + header.record_bytes() > file.metadata()?.len() {
            return Ok(None);
        }
        let mut value = vec![0; header.value];
        file.read_exact_at(&mut value, pointer.offset + (HEADER_BYTES + header.key) as u64)?;
        Ok(is_whole(&header, key, &value).then(|| value.into()))
    }

    /// Looks for a live record in the oldest complete file, a step at a time. A file without any is given up, and is to be
    /// deleted with `delete` once it is durable that nothing points into it.
    pub fn sweep<E: From<io::Error>>(
        &self,
        mut is_live: impl FnMut(&[u8], Pointer) -> Result<bool, E>,
    ) -> Result<Swept, E> {
        let mut sweeper = lock(&self.sweeper);
        let Some((&number, &len)) = sweeper.files.first_key_value() else { return Ok(Swept::All) };
        let file = File::open(path(&self.dir, number))?;
        for _ in 0..SWEEP_STEP {
            if sweeper.offset >= len {
                sweeper.files.remove(&number);
                sweeper.offset = 0;
                return Ok(Swept::Dead(number));
            }
            let pointer = Pointer { file: number, offset: sweeper.offset };
            // A damaged header hides what follows: such a file is kept for somebody to look at.
            let Some((header, key)) = read_key(&file, pointer.offset)? else { return Ok(Swept::All) };
            if is_live(&key, pointer)? {
                return Ok(Swept::All);
            }
            sweeper.offset += header.record_bytes();
        }
        Ok(Swept::Some)
    }

    pub fn disk_bytes(&self) -> u64 {
        lock(&self.sweeper).files.values().sum::<u64>() + lock(&self.writer).next.offset
    }
}

/// Deletes a file that `ValueLog::sweep` gave up. If it fails, the next sweep after a restart finds the file again.
pub fn delete(dir: &Path, file: u64) -> io::Result<()> {
    fs::remove_file(path(dir, file))
}

fn path(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("{file:016}.values"))
}

fn write_record(record: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    record.extend_from_slice(&u32::try_from(value.len()).expect("a value is limited to less").to_le_bytes());
    record.extend_from_slice(&u16::try_from(key.len()).expect("keys are short").to_le_bytes());
    record.extend_from_slice(&checksum(record, key, value).to_le_bytes());
    record.extend_from_slice(key);
    record.extend_from_slice(value);
}

fn end_record() -> Vec<u8> {
    let mut record = Vec::new();
    write_record(&mut record, b"", b"");
    record
}

fn checksum(lengths: &[u8], key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [lengths, key, value].into_iter().for_each(|bytes| hasher.update(bytes));
    hasher.finalize()
}

fn is_whole(header: &Header, key: &[u8], value: &[u8]) -> bool {
    let mut lengths = [0; 6];
    lengths[..4].copy_from_slice(&(header.value as u32).to_le_bytes());
    lengths[4..].copy_from_slice(&(header.key as u16).to_le_bytes());
    checksum(&lengths, key, value) == header.crc
}

/// Header and key of the record at `offset`; `None` if the file ends within.
fn read_key(file: &File, offset: u64) -> io::Result<Option<(Header, Vec<u8>)>> {
    let mut bytes = [0; HEADER_BYTES];
    let read = |bytes: &mut [u8], offset| match file.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    if !read(&mut bytes, offset)? {
        return Ok(None);
    }
    let header = Header::read(&bytes);
    let mut key = vec![0; header.key];
    let whole = read(&mut key, offset + HEADER_BYTES as u64)?;
    Ok(whole.then_some((header, key)))
}

/// Cuts off what a crash left after the last whole record, and gives the end.
fn recover(dir: &Path, files: &mut BTreeMap<u64, u64>, synced: Pointer) -> io::Result<Pointer> {
    let mut end = synced;
    let mut over = false;
    let after: Vec<u64> = files.range(synced.file..).map(|(number, _)| *number).collect();
    for number in after {
        let path = path(dir, number);
        if over {
            fs::remove_file(path)?;
            files.remove(&number);
            continue;
        }
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let start = if number == synced.file { synced.offset } else { 0 };
        let (whole, complete) = whole_records(&file, start)?;
        end = Pointer { file: number, offset: whole };
        files.insert(number, whole);
        if !complete {
            over = true;
            file.set_len(whole)?;
            file.write_all_at(&end_record(), whole)?;
            // What is read from now on must not vanish.
            file.sync_all()?;
        }
    }
    Ok(end)
}

/// Where the whole records end, and whether the file's end is there.
fn whole_records(file: &File, start: u64) -> io::Result<(u64, bool)> {
    let len = file.metadata()?.len();
    let mut at = start;
    while let Some((header, key)) = read_key(file, at)? {
        if at + header.record_bytes() > len {
            break;
        }
        let mut value = vec![0; header.value];
        file.read_exact_at(&mut value, at + (HEADER_BYTES + header.key) as u64)?;
        if !is_whole(&header, &key, &value) {
            break;
        }
        if header.key + header.value == 0 {
            return Ok((at, true));
        }
        at += header.record_bytes();
    }
    Ok((at, false))
}

#[cfg(test)]
#[path = "sled_values_tests.rs"]
mod tests;
