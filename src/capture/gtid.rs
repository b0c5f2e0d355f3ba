//! Transactions by their global names, which are the same in the logs of a server and of its replicas. Pure.
//!
//! Invariant: a set says that it has a transaction only if that very one was added, or one that came after it in its domain
//! (MariaDB), where names are numbered without gaps that anybody could fill later.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::event::{Input, Short};

/// The 16 bytes of a server's UUID.
pub type Uuid = [u8; 16];

/// A transaction's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gtid {
    Maria { domain: u32, server: u32, sequence: u64 },
    MySql { source: Uuid, number: u64 },
}

/// The transactions up to somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gtids {
    /// By domain: the last one's server and number.
    Maria(BTreeMap<u32, (u32, u64)>),
    /// By the server where they began: first and last of each stretch.
    MySql(BTreeMap<Uuid, Vec<(u64, u64)>>),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no list of GTIDs")]
pub struct GtidError(String);

/// How what a server has stands to what was read elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Covers,
    /// Some are missing yet.
    Lacks,
    /// It has another transaction where one was read: servers went different ways.
    Diverged,
}

impl Gtids {
    /// As MariaDB writes it: `0-1-100,1-7-5`.
    pub fn parse_maria(text: &str) -> Result<Self, GtidError> {
        let wrong = || GtidError(text.to_owned());
        let mut last = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let numbers: Vec<&str> = part.split('-').collect();
            let [domain, server, sequence] = numbers[..] else { return Err(wrong()) };
            let number = |text: &str| text.parse().map_err(|_| wrong());
            last.insert(number(domain)?, (number(server)?, sequence.parse().map_err(|_| wrong())?));
        }
        Ok(Self::Maria(last))
    }

    /// As MySQL writes it: `3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5:9,…`. Tagged ones are refused.
    pub fn parse_mysql(text: &str) -> Result<Self, GtidError> {
        let wrong = || GtidError(text.to_owned());
        let mut sets = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (source, ranges) = part.split_once(':').ok_or_else(wrong)?;
            let stretches: &mut Vec<(u64, u64)> = sets.entry(uuid(source).ok_or_else(wrong)?).or_default();
            for range in ranges.split(':') {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let number = |text: &str| text.trim().parse::<u64>().ok().filter(|number| *number > 0);
                let (first, last) = number(first).zip(number(last)).filter(|(a, b)| a <= b).ok_or_else(wrong)?;
                add_stretch(stretches, first, last);
            }
        }
        Ok(Self::MySql(sets))
    }

    pub fn add(&mut self, gtid: Gtid) {
        match (self, gtid) {
            (Self::Maria(last), Gtid::Maria { domain, server, sequence }) => {
                last.insert(domain, (server, sequence));
            }
            (Self::MySql(sets), Gtid::MySql { source, number }) => {
                add_stretch(sets.entry(source).or_default(), number, number);
            }
            // A server of another kind: `compare` will say that nothing of it was seen.
            _ => {}
        }
    }

    pub fn contains(&self, gtid: Gtid) -> bool {
        match (self, gtid) {
            (Self::Maria(last), Gtid::Maria { domain, sequence, .. }) => {
                last.get(&domain).is_some_and(|(_, last)| sequence <= *last)
            }
            (Self::MySql(sets), Gtid::MySql { source, number }) => {
                let is_in = |(first, last): &(u64, u64)| (*first..=*last).contains(&number);
                sets.get(&source).is_some_and(|stretches| stretches.iter().any(is_in))
            }
            _ => false,
        }
    }

    /// Are all of these here?
    pub fn has_all(&self, of: &Self) -> bool {
        match (self, of) {
            (Self::Maria(ours), Self::Maria(theirs)) => {
                theirs.iter().all(|(domain, (_, last))| ours.get(domain).is_some_and(|(_, ours)| last <= ours))
            }
            (Self::MySql(ours), Self::MySql(theirs)) => theirs.iter().all(|(source, stretches)| {
                let is_in = |(first, last): &(u64, u64)| {
                    let ours = ours.get(source).map_or(&[][..], Vec::as_slice);
                    ours.iter().any(|(from, to)| from <= first && last <= to)
                };
                stretches.iter().all(is_in)
            }),
            _ => false,
        }
    }

    /// `self` is what a server has up to somewhere, `read` what was read of another.
    pub fn compare(&self, read: &Self) -> Comparison {
        if let (Self::Maria(ours), Self::Maria(theirs)) = (self, read) {
            let differs = |(domain, (server, last)): (&u32, &(u32, u64))| {
                ours.get(domain).is_some_and(|(here, number)| number == last && here != server)
            };
            if theirs.iter().any(differs) {
                return Comparison::Diverged;
            }
        }
        if self.has_all(read) { Comparison::Covers } else { Comparison::Lacks }
    }
}

/// Adds numbers to stretches that are sorted and do not touch.
fn add_stretch(stretches: &mut Vec<(u64, u64)>, mut first: u64, mut last: u64) {
    let begin = stretches.partition_point(|(_, to)| to.saturating_add(1) < first);
    let end = stretches.partition_point(|(from, _)| *from <= last.saturating_add(1));
    if begin < end {
        first = first.min(stretches[begin].0);
        last = last.max(stretches[end - 1].1);
    }
    stretches.splice(begin..end, [(first, last)]);
}

fn uuid(text: &str) -> Option<Uuid> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = match self {
            Self::Maria(last) => {
                last.iter().map(|(domain, (server, sequence))| format!("{domain}-{server}-{sequence}")).collect()
            }
            Self::MySql(sets) => {
                let range = |(first, last): &(u64, u64)| match first == last {
                    true => format!(":{first}"),
                    false => format!(":{first}-{last}"),
                };
                let set = |(source, stretches): (&Uuid, &Vec<(u64, u64)>)| {
                    shown(source) + &stretches.iter().map(range).collect::<String>()
                };
                sets.iter().map(set).collect()
            }
        };
        if parts.is_empty() { f.write_str("none") } else { f.write_str(&parts.join(",")) }
    }
}

fn shown(uuid: &Uuid) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(*uuid));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Maria { domain, server, sequence } => write!(f, "{domain}-{server}-{sequence}"),
            Self::MySql { source, number } => write!(f, "{}:{number}", shown(source)),
        }
    }
}

/// MariaDB's event before each group; `server` is in its header.
pub fn of_maria(body: &[u8], server: u32) -> Result<Gtid, Short> {
    let mut input = Input(body);
    let sequence = input.uint(8)?;
    let domain = input.uint(4)? as u32;
    Ok(Gtid::Maria { domain, server, sequence })
}

/// MySQL's event before each transaction.
pub fn of_mysql(body: &[u8]) -> Result<Gtid, Short> {
    let mut input = Input(body);
    // Flags.
    input.take(1)?;
    Ok(Gtid::MySql { source: input.array()?, number: input.uint(8)? })
}

/// MariaDB's event at the beginning of a file: what stands in the files before it.
pub fn list_of_maria(body: &[u8]) -> Result<Gtids, Short> {
    const FLAG_BITS: u32 = 4;
    let mut input = Input(body);
    let count = input.uint(4)? as u32 & (u32::MAX >> FLAG_BITS);
    let mut last = BTreeMap::new();
    for _ in 0..count {
        let (domain, server, sequence) = (input.uint(4)? as u32, input.uint(4)? as u32, input.uint(8)?);
        // One for each server of a domain, and the newest of the domain after the others.
        last.insert(domain, (server, sequence));
    }
    Ok(Gtids::Maria(last))
}

/// MySQL's, likewise; `None`: it has tags, which are not read.
pub fn list_of_mysql(body: &[u8]) -> Result<Option<Gtids>, Short> {
    const MOST_SOURCES: u64 = 1 << 32;
    let mut input = Input(body);
    let count = input.uint(8)?;
    if count >= MOST_SOURCES {
        return Ok(None);
    }
    let mut sets = BTreeMap::new();
    for _ in 0..count {
        let source: Uuid = input.array()?;
        let stretches: &mut Vec<(u64, u64)> = sets.entry(source).or_default();
        for _ in 0..input.uint(8)? {
            // The last one's successor is stored.
            let (first, end) = (input.uint(8)?, input.uint(8)?);
            if first == 0 || end <= first {
                return Err(Short);
            }
            add_stretch(stretches, first, end - 1);
        }
    }
    Ok(Some(Gtids::MySql(sets)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn lists_are_read_and_written_as_servers_do() {
        for text in ["0-1-100,1-7-5", "7-4294967295-18446744073709551615"] {
            assert_eq!(Gtids::parse_maria(text).expect("a list").to_string(), text);
        }
        let sets = Gtids::parse_mysql(&format!("{}:7-9:1-5:6, \n{B}:4", A.to_uppercase())).expect("sets");
        assert_eq!(sets.to_string(), format!("{A}:1-9,{B}:4"));
        assert_eq!(Gtids::parse_maria("").expect("nothing yet").to_string(), "none");
        for wrong in ["0-1", "a-b-c", "0-1-2-3"] {
            assert!(Gtids::parse_maria(wrong).is_err(), "{wrong}");
        }
        for wrong in [A, "x:1", &format!("{A}:5-4"), &format!("{A}:0"), &format!("{A}:tag:1")] {
            assert!(Gtids::parse_mysql(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_replica_that_lacks_what_was_read_is_told_from_one_that_went_another_way() {
        let maria = |text: &str| Gtids::parse_maria(text).expect("a list");
        let read = maria("0-1-105,3-1-7");
        for (server, expected) in [
            ("0-1-105,3-1-7", Comparison::Covers),
            ("0-2-106,3-1-7,9-9-9", Comparison::Covers),
            ("0-1-104,3-1-7", Comparison::Lacks),
            ("0-1-105", Comparison::Lacks),
            ("0-2-105,3-1-7", Comparison::Diverged),
        ] {
            assert_eq!(maria(server).compare(&read), expected, "{server}");
        }
        let mysql = |text: String| Gtids::parse_mysql(&text).expect("sets");
        let read = mysql(format!("{A}:1-5"));
        assert_eq!(mysql(format!("{A}:1-7,{B}:1")).compare(&read), Comparison::Covers);
        assert_eq!(mysql(format!("{A}:1-4,{A}:6-9")).compare(&read), Comparison::Lacks);
        assert_eq!(maria("0-1-105").compare(&read), Comparison::Lacks);
    }

    #[test]
    fn names_are_found_in_events() {
        let mut body = 9u64.to_le_bytes().to_vec();
        body.extend_from_slice(&[3, 0, 0, 0, 0]);
        assert_eq!(of_maria(&body, 7).map(|gtid| gtid.to_string()), Ok("3-7-9".into()));
        let mut body = vec![1];
        body.extend_from_slice(&uuid(A).expect("a uuid"));
        body.extend_from_slice(&12u64.to_le_bytes());
        assert_eq!(of_mysql(&body).map(|gtid| gtid.to_string()), Ok(format!("{A}:12")));
        let entry = |domain: u32, server: u32, sequence: u64| {
            [&domain.to_le_bytes()[..], &server.to_le_bytes(), &sequence.to_le_bytes()].concat()
        };
        let list = [vec![3, 0, 0, 0x10], entry(0, 1, 7), entry(0, 2, 8), entry(1, 1, 4)].concat();
        assert_eq!(list_of_maria(&list).map(|list| list.to_string()), Ok("0-2-8,1-1-4".into()));
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        let list = [numbers(&[1]), uuid(A).expect("a uuid").to_vec(), numbers(&[2, 1, 4, 6, 7])].concat();
        let read = list_of_mysql(&list).map(|list| list.map(|list| list.to_string()));
        assert_eq!(read, Ok(Some(format!("{A}:1-3:6"))));
        assert_eq!(list_of_mysql(&numbers(&[1 << 56])), Ok(None), "tagged");
    }

    proptest! {
        #[test]
        fn a_set_has_what_was_added_and_nothing_else(numbers in prop::collection::vec(1u64..40, 0..40)) {
            let mut sets = Gtids::MySql(BTreeMap::new());
            let source = [7; 16];
            for number in &numbers {
                sets.add(Gtid::MySql { source, number: *number });
            }
            for number in 1..42 {
                prop_assert_eq!(sets.contains(Gtid::MySql { source, number }), numbers.contains(&number));
            }
            if !numbers.is_empty() {
                prop_assert_eq!(Gtids::parse_mysql(&sets.to_string()), Ok(sets.clone()), "stretches are melted");
            }
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (of_maria(&body, 1), of_mysql(&body), list_of_maria(&body), list_of_mysql(&body));
        }
    }
}
