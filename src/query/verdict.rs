//! What an answer says of itself: the records of all partitions touched, merged.
//!
//! Invariant: exact only if every partition touched has a record that vouches for all blocks read under it and knows of no
//! gap in the windows asked (design I1). What is not known counts against exactness.

use std::sync::Arc;

use serde::Serialize;

use super::QueryError;
use super::text::rfc3339_ms;
use crate::model::id::PartitionId;
use crate::model::mode::Modes;
use crate::model::quality::{Missing, Record};

/// The most gaps and the most unavailable things that an answer lists; the rest is counted.
const LISTED: usize = 256;

/// The shortest gap: hours are what gaps are known by.
const HOUR_MS: i64 = 3_600_000;

/// Where blocks were read; the later ones cost more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServedBy {
    Local,
    Cache,
    Hot,
}

impl ServedBy {
    /// In their order; `served_by as usize` is the place in it.
    pub const ALL: [Self; 3] = [Self::Local, Self::Cache, Self::Hot];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Cache => "cache",
            Self::Hot => "hot",
        }
    }
}

/// What is known of one partition that a query touched.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    pub partition: PartitionId,
    /// `None`: nothing could be read.
    pub served_by: Option<ServedBy>,
    pub record: Option<Arc<Record>>,
    /// Why the blocks read may not be what the record says; `None` if it vouches for all of them.
    pub doubt: Option<String>,
}

/// What a query asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub metric_table: &'a str,
    /// The source table: gaps of others do not matter.
    pub table: &'a str,
    /// The time that the windows asked cover, Unix milliseconds, the end exclusive; `i64::MIN` and `MAX` if open.
    pub from_ms: i64,
    pub to_ms: i64,
}

/// A gap in what an answer counts.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct MissingChanges {
    pub table: String,
    pub partition: u16,
    /// The hours that the missing changes belong to; null if that is not known.
    #[schema(example = "2026-11-22T10:00:00.000Z")]
    pub from: Option<String>,
    pub to: Option<String>,
    /// How many changes; null if that is not known.
    pub changes: Option<u64>,
    pub reason: String,
}

/// Something that could not be answered.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct UnavailablePart {
    #[schema(example = "gmv_day, partition 7")]
    pub what: String,
    pub reason: String,
}

/// How good an answer is.
// `answer` writes it: in bodies and in a header.
#[derive(Debug, Clone, PartialEq, utoipa::ToSchema)]
pub struct Quality {
    /// The answer is the metric over exactly the changes that the sources had up to `as_of`.
    pub exact: bool,
    /// The oldest of the partitions touched; null if one is not known.
    #[schema(rename = "as_of", value_type = Option<String>, example = "2026-11-22T10:03:04.120Z")]
    pub as_of_ms: Option<i64>,
    /// The newest, if they differ.
    #[schema(rename = "as_of_newest", value_type = Option<String>)]
    pub as_of_newest_ms: Option<i64>,
    pub age_ms: Option<i64>,
    #[schema(value_type = Vec<String>, example = json!(["local", "cache"]))]
    pub served_by: Vec<ServedBy>,
    /// Changes known to be missing. Gaps whose size is not known are listed with `changes` null.
    pub missing_changes: u64,
    pub missing: Vec<MissingChanges>,
    /// Gaps that are not listed.
    #[schema(required = false)]
    pub missing_more: u64,
    pub unavailable: Vec<UnavailablePart>,
    #[schema(required = false)]
    pub unavailable_more: u64,
    #[schema(value_type = Object)]
    pub modes: Modes,
    /// Is there a gap whose size is not known?
    #[schema(ignore)]
    pub missing_unknown: bool,
}

/// What the caller demands of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    pub exact: bool,
    pub max_age_ms: Option<u64>,
    pub max_missing: Option<u64>,
}

impl Quality {
    pub fn of<'a>(
        evidence: impl IntoIterator<Item = &'a Evidence>,
        asked: Asked<'_>,
        modes: Modes,
        now_ms: i64,
    ) -> Self {
        let mut quality = Self::nothing_missing(modes);
        let (mut oldest, mut newest, mut known) = (i64::MAX, i64::MIN, true);
        let mut served = [false; ServedBy::ALL.len()];
        for one in evidence {
            if let Some(served_by) = one.served_by {
                served[served_by as usize] = true;
            }
            if let Some(reason) = &one.doubt {
                let what = format!("{}, partition {}", asked.metric_table, one.partition);
                quality.add_unavailable(what, reason);
            }
            let Some(record) = &one.record else {
                known = false;
                continue;
            };
            (oldest, newest) = (oldest.min(record.as_of_ms), newest.max(record.as_of_ms));
            quality.add_record(one.partition, record, asked);
        }
        quality.served_by = ServedBy::ALL.into_iter().filter(|by| served[*by as usize]).collect();
        if !known {
            quality.exact = false;
            return quality;
        }
        if oldest > newest {
            // No partition can hold a row: the empty answer is as good as now.
            (oldest, newest) = (now_ms, now_ms);
        }
        quality.as_of_ms = Some(oldest);
        quality.age_ms = Some(now_ms.saturating_sub(oldest).max(0));
        quality.as_of_newest_ms = (newest > oldest).then_some(newest);
        quality
    }

    fn nothing_missing(modes: Modes) -> Self {
        Self {
            exact: true,
            as_of_ms: None,
            as_of_newest_ms: None,
            age_ms: None,
            served_by: Vec::new(),
            missing_changes: 0,
            missing: Vec::new(),
            missing_more: 0,
            unavailable: Vec::new(),
            unavailable_more: 0,
            modes,
            missing_unknown: false,
        }
    }

    fn add_record(&mut self, partition: PartitionId, record: &Record, asked: Asked<'_>) {
        for gap in record.missing.iter().filter(|gap| matters(gap, asked)) {
            self.exact = false;
            self.missing_changes = self.missing_changes.saturating_add(gap.changes.unwrap_or(0));
            self.missing_unknown |= gap.changes.is_none();
            if self.missing.len() < LISTED {
                self.missing.push(MissingChanges {
                    table: gap.table.clone(),
                    partition: partition.0,
                    from: gap.hours_ms.map(|(from, _)| rfc3339_ms(from)),
                    to: gap.hours_ms.map(|(_, to)| rfc3339_ms(to)),
                    changes: gap.changes,
                    reason: gap.reason.clone(),
                });
            } else {
                self.missing_more += 1;
            }
        }
        if record.missing_more > 0 {
            self.exact = false;
            self.missing_unknown = true;
            self.missing_more = self.missing_more.saturating_add(record.missing_more);
        }
        for part in &record.unavailable {
            self.add_unavailable(part.what.clone(), &part.reason);
        }
    }

    fn add_unavailable(&mut self, what: String, reason: &str) {
        self.exact = false;
        if self.unavailable.len() < LISTED {
            self.unavailable.push(UnavailablePart { what, reason: reason.to_owned() });
        } else {
            self.unavailable_more += 1;
        }
    }

    /// Refuses an answer that is less than what the caller demands, and says why.
    pub fn check(&self, demand: Demand) -> Result<(), QueryError> {
        let fail = |reason: String| Err(QueryError::QualityNotMet(reason));
        if let Some(limit) = demand.max_age_ms {
            match self.age_ms {
                None => return fail(format!("the age of the answer is not known: {}", self.first_reason())),
                Some(age_ms) if u64::try_from(age_ms).unwrap_or(0) > limit => {
                    return fail(format!("the answer is {age_ms} ms old, max_age_ms is {limit}"));
                }
                Some(_) => {}
            }
        }
        if let Some(limit) = demand.max_missing {
            if self.missing_unknown {
                return fail(format!("an unknown number of changes is missing: {}", self.first_reason()));
            }
            if self.missing_changes > limit {
                let reason = self.first_reason();
                return fail(format!("{} changes are missing, max_missing is {limit}: {reason}", self.missing_changes));
            }
        }
        if demand.exact && !self.exact {
            return fail(format!("the answer is not exact: {}", self.first_reason()));
        }
        Ok(())
    }

    fn first_reason(&self) -> String {
        let gap = || self.missing.first().map(|gap| format!("partition {}: {}", gap.partition, gap.reason));
        let part = self.unavailable.first().map(|part| format!("{}: {}", part.what, part.reason));
        part.or_else(gap).unwrap_or_else(|| "gaps are known that are not listed".to_owned())
    }
}

/// Can the gap change what was asked?
fn matters(gap: &Missing, asked: Asked<'_>) -> bool {
    // Nobody may know the table of what is missing.
    if !gap.table.is_empty() && gap.table != asked.table {
        return false;
    }
    match gap.hours_ms {
        // The last hour counts whole, whether its start or its end is named.
        Some((from, to)) => from < asked.to_ms && to.saturating_add(HOUR_MS) > asked.from_ms,
        None => true,
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
