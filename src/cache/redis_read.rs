//! What a read of the cache in Redis found, piece by piece.
//!
//! Invariant: where a block may have been that Redis let go of, and that is not older than the record's `base`, the read is
//! `incomplete`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use ::redis::Value;
use bytes::Bytes;

use crate::model::block::{BlockKey, Day, MetricTableId, StoredBlock};
use crate::model::codec::{self, CodecError};
use crate::model::id::{Key, Tip};
use crate::model::quality::Record;
use crate::redis_reply::{List, parse_tip};
use crate::tier::{SinkQuery, SinkRead};

/// After so much the next day is another call's, so that Redis has time for others.
const PIECE_BYTES: usize = 8 << 20;

/// A query as the script takes it.
pub struct Asked {
    table: MetricTableId,
    to: Day,
    /// Sorted, each once; `None`: all.
    keys: Option<Vec<Key>>,
}

impl Asked {
    pub fn new(query: &SinkQuery) -> Self {
        let keys = query.keys.clone().map(|mut keys| {
            keys.sort_unstable();
            keys.dedup();
            keys
        });
        Self { table: query.table, to: *query.days.end(), keys }
    }

    pub fn args(&self, prefix: String, from: i64) -> Vec<Bytes> {
        let which = if self.keys.is_some() { "some" } else { "all" };
        let numbers = [from, i64::from(self.to), PIECE_BYTES as i64].map(|number| Bytes::from(number.to_string()));
        let mut args: Vec<Bytes> = vec![prefix.into(), format!("{:016x}", self.table.0).into()];
        args.extend(numbers);
        args.push(Bytes::from_static(which.as_bytes()));
        args.extend(self.keys.iter().flatten().map(|key| key.as_bytes().clone()));
        args
    }
}

/// The pieces so far.
#[derive(Debug)]
pub struct Found {
    /// `None` before the first piece.
    tip: Option<Tip>,
    record: Option<Record>,
    /// Up to this day the place has forgotten which days had blocks; the newest version among them.
    floor: Option<(Day, Tip)>,
    groups: Vec<Group>,
    /// All pieces are of the same tip.
    pub is_one_moment: bool,
}

impl Default for Found {
    fn default() -> Self {
        Self { tip: None, record: None, floor: None, groups: Vec::new(), is_one_moment: true }
    }
}

/// The blocks of one day.
#[derive(Debug)]
struct Group {
    day: Day,
    /// The newest version that was lost, if any was.
    lost: Option<Tip>,
    /// Of the keys asked for, at least one is not there.
    is_partial: bool,
    blocks: Vec<(BlockKey, StoredBlock)>,
}

impl Found {
    /// Adds what the script gave. Gives the day where the next piece begins, if there is one.
    pub fn add(&mut self, asked: &Asked, piece: Value) -> Result<Option<i64>, CodecError> {
        let mut piece = List::of(piece)?;
        let is_untouched = piece.len() == 0;
        let tip = if is_untouched { Tip::default() } else { piece.tip()? };
        self.is_one_moment = self.tip.is_none_or(|before| before == tip);
        self.tip = Some(tip);
        if is_untouched {
            return Ok(None);
        }
        let record = piece.bytes()?;
        self.record = record.map(|record| codec::decode("record", &record)).transpose()?;
        self.floor = match (piece.number()?, piece.text()?) {
            (Some(day), newest) if !newest.is_empty() => Some((day, parse_tip(&newest)?)),
            _ => None,
        };
        let rest = piece.number()?;
        let mut groups = piece.list()?;
        while groups.len() > 0 {
            self.groups.push(Group::read(asked, groups.list()?)?);
        }
        Ok(rest)
    }

    pub fn take_record(&mut self) -> Option<Record> {
        self.record.take()
    }

    pub fn finish(self, days: &RangeInclusive<Day>) -> SinkRead {
        let base = self.record.as_ref().map_or(Tip::default(), |record| record.base);
        let matters = |lost: Tip| lost >= base;
        let mut incomplete = false;
        if let Some((floor, newest)) = self.floor
            && matters(newest)
        {
            let below = i64::from(*days.end().min(&floor)) - i64::from(*days.start()) + 1;
            let named = self.groups.iter().filter(|group| group.day <= floor).count() as i64;
            incomplete |= named < below;
        }
        let mut blocks = Vec::with_capacity(self.groups.iter().map(|group| group.blocks.len()).sum());
        for group in self.groups {
            incomplete |= group.is_partial && group.lost.is_some_and(matters);
            blocks.extend(group.blocks.into_iter().filter(|(_, block)| block.version >= base));
        }
        blocks.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
        SinkRead { record: self.record.map(Arc::new), blocks, incomplete }
    }
}

impl Group {
    fn read(asked: &Asked, mut found: List) -> Result<Self, CodecError> {
        let day = found.number()?.ok_or_else(|| CodecError::malformed("day", "there is none"))?;
        let (newest, lost) = parse_entry(&found.text()?)?;
        let is_there = found.number::<u8>()? == Some(1);
        let mut values = found.list()?;
        let mut group = Self { day, lost, is_partial: asked.keys.is_none(), blocks: Vec::new() };
        if !is_there {
            // Redis let go of all of it.
            group.lost = group.lost.max(Some(newest));
            group.is_partial = asked.keys.as_ref().is_none_or(|keys| !keys.is_empty());
            return Ok(group);
        }
        let mut add = |key: Key, block: Bytes| {
            group.blocks.push((BlockKey { table: asked.table, day, key }, StoredBlock::decode(&block)?));
            Ok::<_, CodecError>(())
        };
        match &asked.keys {
            None => {
                while values.len() > 0 {
                    let key = Key::from_bytes(values.bytes()?.unwrap_or_default());
                    let key = key.ok_or_else(|| CodecError::malformed("block key", "not a partition key"))?;
                    add(key, values.bytes()?.unwrap_or_default())?;
                }
            }
            Some(keys) => {
                let mut missing = false;
                for key in keys {
                    match values.bytes()? {
                        Some(block) => add(key.clone(), block)?,
                        None => missing = true,
                    }
                }
                group.is_partial = missing;
            }
        }
        Ok(group)
    }
}

/// What `days` says of a group: the newest version ever put, and the newest that was lost.
fn parse_entry(entry: &str) -> Result<(Tip, Option<Tip>), CodecError> {
    let (newest, lost) = entry.split_once(' ').unwrap_or((entry, ""));
    let lost = if lost.is_empty() { None } else { Some(parse_tip(lost)?) };
    Ok((parse_tip(newest)?, lost))
}
