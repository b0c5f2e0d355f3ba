//! Rows as bytes: an Arrow record batch without its schema, which both ends know.
//!
//! Format: one encapsulated Arrow IPC record batch message (metadata length, flatbuffer, padding, body), buffers LZ4
//! or plain. Invariant: bytes are decoded only with the schema they were encoded with; damaged bytes are an error.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message};
use arrow::ipc::{MetadataVersion, root_as_message};
use bytes::Bytes;

use super::codec::CodecError;
use super::schema::Table;

/// Name of the column with a row's weight: +1 for a row that is there now, −1 for one that was taken away.
pub const WEIGHT: &str = "_weight";
/// Name of the column with a row's position in its source.
pub const POSITION: &str = "_position";

/// The Arrow schema of a batch body of `table`: its columns, then weight (int64) and position (decimal(38,0)) if
/// the header says that they are there.
pub fn body_schema(table: &Table, weighted: bool, positioned: bool) -> SchemaRef {
    if !weighted && !positioned {
        return table.schema.clone();
    }
    let mut fields: Vec<_> = table.schema.fields().iter().cloned().collect();
    if weighted {
        fields.push(Arc::new(Field::new(WEIGHT, DataType::Int64, false)));
    }
    if positioned {
        fields.push(Arc::new(Field::new(POSITION, DataType::Decimal128(38, 0), false)));
    }
    Arc::new(Schema::new(fields))
}

/// How a body's buffers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Lz4,
}

fn write_options(compression: Compression) -> IpcWriteOptions {
    let plain = IpcWriteOptions::try_new(8, false, MetadataVersion::V5).expect("8-byte alignment is valid");
    match compression {
        Compression::Plain => plain,
        Compression::Lz4 => plain
            .try_with_compression(Some(arrow::ipc::CompressionType::LZ4_FRAME))
            .expect("metadata V5 allows compression"),
    }
}

thread_local! {
    // Reused: a fresh context allocates its compressor's tables for every batch.
    static CONTEXT: RefCell<IpcWriteContext> = RefCell::default();
}

/// Encodes `rows`; dictionary columns are not supported.
pub fn encode_rows(rows: &RecordBatch, compression: Compression) -> Vec<u8> {
    let options = write_options(compression);
    let mut dictionaries = DictionaryTracker::new(false);
    let (_, encoded) = CONTEXT
        .with_borrow_mut(|context| IpcDataGenerator::default().encode(rows, &mut dictionaries, &options, context))
        .expect("flat columns always encode");
    let mut bytes = Vec::with_capacity(encoded.ipc_message.len() + encoded.arrow_data.len() + 16);
    write_message(&mut bytes, encoded, &options).expect("writing to memory does not fail");
    bytes
}

/// The inverse of `encode_rows`. Plain buffers are shared with `bytes` where they are aligned.
pub fn decode_rows(schema: &SchemaRef, bytes: &Bytes) -> Result<RecordBatch, CodecError> {
    let malformed = |reason: &dyn ToString| CodecError::malformed("rows", reason.to_string());
    let truncated = || CodecError::Truncated { what: "rows", len: bytes.len() };
    // Continuation marker, metadata length, metadata, body.
    let (prefix, _) = bytes.split_first_chunk::<8>().ok_or_else(truncated)?;
    let metadata_len = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
    if prefix[..4] != [0xff; 4] || bytes.len() - 8 < metadata_len {
        return Err(malformed(&"not an Arrow message"));
    }
    let message = root_as_message(&bytes[8..8 + metadata_len]).map_err(|error| malformed(&error))?;
    let header = message.header_as_record_batch().ok_or_else(|| malformed(&"not a record batch"))?;
    let body = Buffer::from(bytes.slice(8 + metadata_len..));
    // The reader panics on a buffer that lies outside the body.
    let inside = |buffer: &arrow::ipc::Buffer| {
        let end = buffer.offset().checked_add(buffer.length());
        buffer.offset() >= 0 && buffer.length() >= 0 && end.is_some_and(|end| end as u64 <= body.len() as u64)
    };
    if !header.buffers().is_some_and(|buffers| buffers.iter().all(inside)) {
        return Err(truncated());
    }
    let dictionaries = HashMap::new();
    read_record_batch(&body, header, schema.clone(), &dictionaries, None, &message.version())
        .map_err(|error| malformed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, Int64Array, StringArray};

    fn sample() -> RecordBatch {
        let amounts = Decimal128Array::from(vec![Some(1250), None, Some(-3)]).with_precision_and_scale(12, 2);
        RecordBatch::try_from_iter_with_nullable([
            ("merchant_id", Arc::new(Int64Array::from(vec![1, 2, 3])) as _, false),
            ("status", Arc::new(StringArray::from(vec![Some("paid"), None, Some("größe")])) as _, true),
            ("amount", Arc::new(amounts.expect("the values fit")) as _, true),
        ])
        .expect("columns of one length")
    }

    #[test]
    fn rows_come_back_as_they_were_with_and_without_compression() {
        for compression in [Compression::Plain, Compression::Lz4] {
            for rows in [sample(), sample().slice(1, 2), sample().slice(0, 0)] {
                let bytes = Bytes::from(encode_rows(&rows, compression));
                assert_eq!(decode_rows(&rows.schema(), &bytes), Ok(rows));
            }
        }
    }

    #[test]
    fn cut_bytes_are_an_error_and_never_a_panic() {
        let rows = sample();
        for compression in [Compression::Plain, Compression::Lz4] {
            let bytes = Bytes::from(encode_rows(&rows, compression));
            for len in 0..bytes.len() {
                if let Ok(found) = decode_rows(&rows.schema(), &bytes.slice(..len)) {
                    assert_eq!(found, rows, "only padding may be cut without notice");
                }
            }
        }
    }
}
