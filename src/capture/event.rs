//! Events of a binary log as they come: the common header, and the parts of a body that capture reads. Pure.
//!
//! Formats: MySQL's "Replication Protocol" and MariaDB's "Replication Protocol" documentation. Invariant: whatever the
//! bytes are, reading them ends in a value or in `Short`, never in a panic.

use thiserror::Error;

/// Types of events, by their number in the header.
pub mod kind {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIA_ANNOTATE_ROWS: u8 = 160;
    pub const MARIA_CHECKPOINT: u8 = 161;
    pub const MARIA_GTID: u8 = 162;
    pub const MARIA_GTID_LIST: u8 = 163;
    pub const MARIA_START_ENCRYPTION: u8 = 164;
    pub const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub const MARIA_ROWS_COMPRESSED_FIRST: u8 = 166;
    pub const MARIA_ROWS_COMPRESSED_LAST: u8 = 171;
}

/// Whoever does not know such an event may pass over it.
const IGNORABLE: u16 = 0x80;
/// The header that all events have.
const HEADER_BYTES: u32 = 19;

/// An event without its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    pub kind: u8,
    /// When its statement began, by the server's clock: seconds since the Unix epoch.
    pub timestamp: u32,
    /// The server that made it first.
    pub server: u32,
    /// With header and checksum.
    pub size: u32,
    /// Where the event ends; zero for those that a server makes up. The lower 32 bits only.
    pub end: u32,
    pub flags: u16,
    pub body: &'a [u8],
}

impl Event<'_> {
    pub fn is_ignorable(&self) -> bool {
        self.flags & IGNORABLE != 0
    }

    /// Size of an event with this body, as it stands in a compressed payload.
    pub fn bare_size(&self) -> u64 {
        u64::from(HEADER_BYTES) + self.body.len() as u64
    }
}

/// There are fewer bytes than there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the event is shorter than its content")]
pub struct Short;

/// Reads bytes from first to last.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Short)?;
        self.0 = rest;
        Ok(head)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Short)?;
        self.0 = rest;
        Ok(*head)
    }

    #[inline]
    pub fn u8(&mut self) -> Result<u8, Short> {
        Ok(self.array::<1>()?[0])
    }

    /// Little-endian, 1–8 bytes.
    #[inline]
    pub fn uint(&mut self, bytes: usize) -> Result<u64, Short> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// Big-endian, 0–8 bytes.
    #[inline]
    pub fn uint_big(&mut self, bytes: usize) -> Result<u64, Short> {
        Ok(self.take(bytes)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A length-encoded integer.
    pub fn length(&mut self) -> Result<u64, Short> {
        match self.u8()? {
            252 => self.uint(2),
            253 => self.uint(3),
            254 => self.uint(8),
            255 => Err(Short),
            value => Ok(u64::from(value)),
        }
    }

    /// As `length`, for something of which there are as many bytes at least as it says.
    pub fn count(&mut self) -> Result<usize, Short> {
        usize::try_from(self.length()?).map_err(|_| Short)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The next file of the log, and the place where the stream goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate<'a> {
    pub offset: u64,
    pub file: &'a [u8],
}

pub fn rotate(body: &[u8]) -> Result<Rotate<'_>, Short> {
    let mut input = Input(body);
    let offset = input.uint(8)?;
    Ok(Rotate { offset, file: input.0 })
}

/// A statement as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The database that was in use.
    pub database: &'a [u8],
    pub text: &'a [u8],
}

pub fn query(body: &[u8]) -> Result<Query<'_>, Short> {
    let mut input = Input(body);
    // Thread and duration.
    input.take(8)?;
    let database = usize::from(input.u8()?);
    // Error code.
    input.take(2)?;
    let variables = input.uint(2)? as usize;
    input.take(variables)?;
    let database = input.take(database)?;
    input.take(1)?;
    Ok(Query { database, text: input.0 })
}

/// MariaDB's event before each group; does its group belong to an XA transaction that is prepared only?
pub fn maria_gtid_is_prepared(body: &[u8]) -> Result<bool, Short> {
    const PREPARED_XA: u8 = 64;
    let mut input = Input(body);
    // Sequence number and domain.
    input.take(12)?;
    Ok(input.u8()? & PREPARED_XA != 0)
}

/// How many bytes of events a compressed payload holds.
pub fn payload_size(body: &[u8]) -> Result<u64, Short> {
    const END: u64 = 0;
    const SIZE: u64 = 1;
    const COMPRESSION: u64 = 2;
    const UNCOMPRESSED_SIZE: u64 = 3;
    const NOT_COMPRESSED: u64 = 255;
    let mut input = Input(body);
    let (mut size, mut uncompressed, mut compression) = (None, None, None);
    loop {
        let field = input.length()?;
        if field == END {
            break;
        }
        let length = input.count()?;
        let mut value = Input(input.take(length)?);
        match field {
            SIZE => size = Some(value.length()?),
            COMPRESSION => compression = Some(value.length()?),
            UNCOMPRESSED_SIZE => uncompressed = Some(value.length()?),
            _ => {}
        }
    }
    let whole = if compression == Some(NOT_COMPRESSED) { size } else { uncompressed };
    whole.ok_or(Short)
}

/// What all rows events have before their rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows<'a> {
    pub table_id: u64,
    pub columns: usize,
    /// By column: is it in the row before (or the only one), in the row after?
    pub present: &'a [u8],
    pub present_after: Option<&'a [u8]>,
    pub rows: &'a [u8],
}

/// What a rows event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Insert,
    Update,
    Delete,
}

pub fn action(of: u8) -> Option<Action> {
    match of {
        kind::WRITE_ROWS_V1 | kind::WRITE_ROWS => Some(Action::Insert),
        kind::UPDATE_ROWS_V1 | kind::UPDATE_ROWS => Some(Action::Update),
        kind::DELETE_ROWS_V1 | kind::DELETE_ROWS => Some(Action::Delete),
        _ => None,
    }
}

/// Is it the last event of its statement's rows?
pub fn ends_statement(body: &[u8]) -> bool {
    body.get(6).is_some_and(|flags| flags & 1 != 0)
}

pub fn rows(event_kind: u8, body: &[u8]) -> Result<Rows<'_>, Short> {
    let mut input = Input(body);
    let table_id = input.uint(6)?;
    // Flags.
    input.take(2)?;
    if event_kind >= kind::WRITE_ROWS {
        let extra = input.uint(2)? as usize;
        input.take(extra.checked_sub(2).ok_or(Short)?)?;
    }
    let columns = input.count()?;
    let bitmap = columns.div_ceil(8);
    let present = input.take(bitmap)?;
    let present_after = match action(event_kind) {
        Some(Action::Update) => Some(input.take(bitmap)?),
        _ => None,
    };
    Ok(Rows { table_id, columns, present, present_after, rows: input.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_read_in_both_orders_and_in_every_length() {
        let mut input = Input(&[1, 2, 3, 252, 1, 2, 253, 1, 0, 1, 7]);
        assert_eq!((input.uint(2), Input(input.0).uint_big(1)), (Ok(0x0201), Ok(3)));
        input.take(1).expect("a byte");
        assert_eq!(
            (input.length(), input.length(), input.length(), input.length()),
            (Ok(513), Ok(65_537), Ok(7), Err(Short))
        );
    }

    #[test]
    fn the_size_of_a_compressed_payload_is_found_among_its_fields() {
        let body = [2, 1, 0, 3, 3, 252, 0, 4, 1, 1, 99, 0, 0xaa];
        assert_eq!(payload_size(&body), Ok(1_024));
        assert_eq!(payload_size(&[2, 1, 255, 1, 1, 5, 0]), Err(Short), "255 is no length-encoded number");
        assert_eq!(payload_size(&[2, 3, 252, 255, 0, 1, 1, 5, 0]), Ok(5), "not compressed");
        assert_eq!(payload_size(&[2, 1, 0]), Err(Short));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..60), kind in 23u8..33) {
            let _ = (rotate(&body), query(&body), maria_gtid_is_prepared(&body), payload_size(&body), rows(kind, &body));
        }
    }
}
