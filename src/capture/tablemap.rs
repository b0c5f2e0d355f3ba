//! A table map event: how the rows that follow it are laid out. Pure.
//!
//! Invariant: a column's bytes can be passed over whatever is in them; a type that is not known is an error before a row of it
//! is read.

use super::event::{Input, Short};

/// How a column's values are stored in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Physical {
    /// Whole numbers of 1, 2, 3, 4 or 8 bytes.
    Int(u8),
    Float,
    Double,
    Year,
    Date,
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// Digits of seconds' fractions.
    Timestamp2(u8),
    DateTime2(u8),
    Time2(u8),
    /// Before MySQL 5.6: seconds; digits `YYYYMMDDhhmmss`; digits `hhmmss`.
    TimestampOld,
    DateTimeOld,
    TimeOld,
    /// In so many bits.
    Bit(u16),
    Enum(u8),
    Set(u8),
    /// Texts and bytes behind a length of 1–4 bytes.
    Bytes(u8),
    Json(u8),
    /// Not to be read, only passed over: lengths of 1–4 bytes.
    Opaque(u8),
}

/// What precedes rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    pub table_id: u64,
    pub database: String,
    pub table: String,
    pub columns: Vec<Physical>,
    /// With `binlog_row_metadata=FULL` only.
    pub names: Option<Vec<String>>,
}

/// Why a table map cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableMapError {
    #[error(transparent)]
    Short(#[from] Short),
    #[error("column {number} of {table} has the unknown type {kind}")]
    Type { table: String, number: usize, kind: u8 },
    #[error("a name is not UTF-8")]
    Name,
}

/// The table's number alone, which stands first.
pub fn table_id(body: &[u8]) -> Result<u64, Short> {
    Input(body).uint(6)
}

pub fn table_map(body: &[u8]) -> Result<TableMap, TableMapError> {
    let mut input = Input(body);
    let table_id = input.uint(6)?;
    // Flags.
    input.take(2)?;
    let database = name(&mut input)?;
    let table = name(&mut input)?;
    let count = input.count()?;
    let kinds = input.take(count)?;
    let length = input.count()?;
    let mut metadata = Input(input.take(length)?);
    let mut columns = Vec::with_capacity(count);
    for (index, kind) in kinds.iter().enumerate() {
        let column = physical(*kind, &mut metadata)?;
        let unknown = || TableMapError::Type { table: format!("{database}.{table}"), number: index + 1, kind: *kind };
        columns.push(column.ok_or_else(unknown)?);
    }
    // Which columns may be null does not matter: each row says what is.
    input.take(count.div_ceil(8))?;
    let names = optional_names(input)?.filter(|names| names.len() == count);
    Ok(TableMap { table_id, database, table, columns, names })
}

/// A length in a byte, the name, a zero.
fn name(input: &mut Input<'_>) -> Result<String, TableMapError> {
    let length = usize::from(input.u8()?);
    let name = std::str::from_utf8(input.take(length)?).map_err(|_| TableMapError::Name)?;
    input.take(1)?;
    Ok(name.to_owned())
}

fn optional_names(mut input: Input<'_>) -> Result<Option<Vec<String>>, TableMapError> {
    const COLUMN_NAMES: u8 = 4;
    while !input.is_empty() {
        let field = input.u8()?;
        let length = input.count()?;
        let mut value = Input(input.take(length)?);
        if field != COLUMN_NAMES {
            continue;
        }
        let mut names = Vec::new();
        while !value.is_empty() {
            let length = value.count()?;
            let name = std::str::from_utf8(value.take(length)?).map_err(|_| TableMapError::Name)?;
            names.push(name.to_owned());
        }
        return Ok(Some(names));
    }
    Ok(None)
}

/// `None`: not known.
fn physical(kind: u8, metadata: &mut Input<'_>) -> Result<Option<Physical>, Short> {
    Ok(Some(match kind {
        1 => Physical::Int(1),
        2 => Physical::Int(2),
        3 => Physical::Int(4),
        8 => Physical::Int(8),
        9 => Physical::Int(3),
        4 => {
            metadata.u8()?;
            Physical::Float
        }
        5 => {
            metadata.u8()?;
            Physical::Double
        }
        7 => Physical::TimestampOld,
        10 | 14 => Physical::Date,
        11 => Physical::TimeOld,
        12 => Physical::DateTimeOld,
        13 => Physical::Year,
        // Also MariaDB's compressed ones (141), whose content is not read.
        15 | 253 | 141 => {
            let bytes = if metadata.uint(2)? < 256 { 1 } else { 2 };
            if kind == 141 { Physical::Opaque(bytes) } else { Physical::Bytes(bytes) }
        }
        16 => {
            let (bits, bytes) = (metadata.u8()?, metadata.u8()?);
            Physical::Bit(u16::from(bytes) * 8 + u16::from(bits))
        }
        17 => Physical::Timestamp2(metadata.u8()?),
        18 => Physical::DateTime2(metadata.u8()?),
        19 => Physical::Time2(metadata.u8()?),
        245 => Physical::Json(metadata.u8()?),
        246 => Physical::Decimal { precision: metadata.u8()?, scale: metadata.u8()? },
        247 | 248 | 254 => return string(metadata).map(Some),
        249..=252 => Physical::Bytes(metadata.u8()?),
        // Vectors, geometries, and MariaDB's compressed blobs.
        140 | 242 | 255 => Physical::Opaque(metadata.u8()?),
        _ => return Ok(None),
    }))
}

/// Enums and sets call themselves strings; a long `char` hides two bits of its length in the type.
fn string(metadata: &mut Input<'_>) -> Result<Physical, Short> {
    let (first, second) = (metadata.u8()?, metadata.u8()?);
    Ok(match first {
        247 => Physical::Enum(second),
        248 => Physical::Set(second),
        _ => {
            let high = u16::from((first & 0x30) ^ 0x30) << 4;
            Physical::Bytes(if high | u16::from(second) < 256 { 1 } else { 2 })
        }
    })
}

impl Physical {
    /// Takes one value from a row.
    #[inline]
    pub fn take<'a>(self, row: &mut Input<'a>) -> Result<&'a [u8], Short> {
        let bytes = match self {
            Self::Int(bytes) | Self::Enum(bytes) | Self::Set(bytes) => usize::from(bytes),
            Self::Float | Self::TimestampOld => 4,
            Self::Double | Self::DateTimeOld => 8,
            Self::Year => 1,
            Self::Date | Self::TimeOld => 3,
            Self::Decimal { precision, scale } => decimal_bytes(precision, scale).ok_or(Short)?,
            Self::Timestamp2(digits) => 4 + fraction_bytes(digits),
            Self::DateTime2(digits) => 5 + fraction_bytes(digits),
            Self::Time2(digits) => 3 + fraction_bytes(digits),
            Self::Bit(bits) => usize::from(bits.div_ceil(8)),
            Self::Bytes(length) | Self::Json(length) | Self::Opaque(length) => {
                if !(1..=4).contains(&length) {
                    return Err(Short);
                }
                row.uint(usize::from(length))? as usize
            }
        };
        row.take(bytes)
    }
}

pub fn fraction_bytes(digits: u8) -> usize {
    usize::from(digits.div_ceil(2))
}

/// Digits in a word of a decimal, and the bytes that fewer take.
pub const WORD_DIGITS: u8 = 9;
const DIGITS_TO_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

pub fn digits_bytes(digits: u8) -> usize {
    DIGITS_TO_BYTES[usize::from(digits)]
}

fn decimal_bytes(precision: u8, scale: u8) -> Option<usize> {
    let whole = precision.checked_sub(scale)?;
    let part = |digits: u8| usize::from(digits / WORD_DIGITS) * 4 + digits_bytes(digits % WORD_DIGITS);
    Some(part(whole) + part(scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_table_map_is_read_with_its_names() {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
        body.extend_from_slice(b"\x04shop\0\x06orders\0");
        // bigint, decimal(12,2), varchar(300), char(300 bytes), enum of one byte.
        body.extend_from_slice(&[5, 8, 246, 15, 254, 254]);
        body.extend_from_slice(&[8, 12, 2, 0x2c, 1, 0xee, 0x2c, 247, 1]);
        body.extend_from_slice(&[0]);
        let plain = table_map(&body).expect("a table map");
        assert_eq!((plain.table_id, plain.database.as_str(), plain.table.as_str()), (7, "shop", "orders"));
        let decimal = Physical::Decimal { precision: 12, scale: 2 };
        let columns = [Physical::Int(8), decimal, Physical::Bytes(2), Physical::Bytes(2), Physical::Enum(1)];
        assert_eq!((plain.columns.as_slice(), &plain.names), (columns.as_slice(), &None));
        body.extend_from_slice(b"\x01\x01\x80\x04\x0f\x02id\x01a\x01b\x01c\x05state");
        let names = table_map(&body).expect("a table map").names.expect("names");
        assert_eq!(names, ["id", "a", "b", "c", "state"]);
    }

    #[test]
    fn an_unknown_type_is_named() {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
        body.extend_from_slice(b"\x01s\0\x01t\0\x01\xc8\x00\x00");
        assert_eq!(table_map(&body), Err(TableMapError::Type { table: "s.t".into(), number: 1, kind: 200 }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = table_map(&body);
            let mut named = b"\x07\0\0\0\0\0\x01\0\x01s\0\x01t\0".to_vec();
            named.extend_from_slice(&body);
            if let Ok(map) = table_map(&named) {
                let mut row = Input(&body);
                for column in map.columns {
                    let _ = column.take(&mut row);
                }
            }
        }
    }
}
